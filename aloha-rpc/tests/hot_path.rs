//! What ten thousand operations cost once everything has its size: allocations, writes, bytes and tasks.
//!
//! Alone in its program, for it counts what the whole program allocates. Both environments run on one thread, so that
//! every run gives nearly the same numbers.
//!
//! What an operation must allocate is its payload, at both ends, as a `String` of the user's: an ask that is answered
//! with the same text has its text made by the asker and decoded by the receiver, and its answer decoded by the asker:
//! three. A tell has two; where both ends are in one environment nothing is decoded, and there is one. They are taken off.
#![expect(
    unsafe_code,
    reason = "an allocator that counts can be made in no other way"
)]
#![expect(clippy::print_stdout, reason = "it prints what it measures")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::SystemTime;

use aloha_rpc::{
    EndpointContext, EndpointError, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};
use aloha_transport::testing::MemoryNetwork;
use aloha_transport::{Listener, Network, Runtime, Stream, TokioRuntime};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWrite;
use tokio::sync::Semaphore;
use tokio::time::Instant;

/// Allocations, writes, bytes written and tasks spawned, since the program began.
static COUNTS: [AtomicU64; 4] = [const { AtomicU64::new(0) }; 4];
const ALLOCATIONS: usize = 0;
const WRITES: usize = 1;
const BYTES: usize = 2;
const TASKS: usize = 3;

const OPERATIONS: u64 = 10_000;
const TEXT: &str = "a text of thirty-two characters.";
const NAME: &str =
    "an-endpoint-whose-name-is-much-longer-than-any-of-its-messages-so-that-it-would-show";

fn count(what: usize, by: u64) {
    COUNTS[what].fetch_add(by, Ordering::Relaxed);
}

/// The system's allocator, with a counter.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(ALLOCATIONS, 1);
        // SAFETY: the caller's contract is the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system's.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(ALLOCATIONS, 1);
        // SAFETY: the caller's contract is the system's.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// A network whose writes are counted.
#[derive(Debug)]
struct CountingNetwork(MemoryNetwork);

struct CountingListener(Box<dyn Listener>);

struct CountingWriter(Box<dyn AsyncWrite + Send + Unpin>);

fn counted(stream: Stream) -> Stream {
    Stream {
        writer: Box::new(CountingWriter(stream.writer)),
        ..stream
    }
}

#[async_trait]
impl Network for CountingNetwork {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        self.0.connect(address).await.map(counted)
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let listener = self.0.bind(address).await?;
        Ok(Box::new(CountingListener(listener)))
    }
}

#[async_trait]
impl Listener for CountingListener {
    fn local_address(&self) -> io::Result<String> {
        self.0.local_address()
    }

    async fn accept(&mut self) -> io::Result<Stream> {
        self.0.accept().await.map(counted)
    }
}

impl CountingWriter {
    fn wrote(written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        count(WRITES, 1);
        let bytes = ready!(written)?;
        count(BYTES, bytes as u64);
        Poll::Ready(Ok(bytes))
    }
}

impl AsyncWrite for CountingWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Self::wrote(Pin::new(&mut self.0).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Self::wrote(Pin::new(&mut self.0).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Counts tasks.
#[derive(Debug)]
struct CountingRuntime(TokioRuntime);

impl Runtime for CountingRuntime {
    fn now(&self) -> Instant {
        self.0.now()
    }

    fn wall(&self) -> SystemTime {
        self.0.wall()
    }

    fn random_u64(&self) -> u64 {
        self.0.random_u64()
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        count(TASKS, 1);
        self.0.spawn(task);
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Load {
    Note(String),
    Echo(String, RpcCallContext<String>),
    Notes(RpcCallContext<u64>),
}

/// Counts notes and echoes texts.
struct Counter(u64);

impl RpcEndpoint for Counter {
    type Message = Load;

    async fn receive(
        &mut self,
        message: Load,
        _: &EndpointContext<Load>,
    ) -> Result<(), EndpointError> {
        match message {
            Load::Note(_) => self.0 += 1,
            Load::Echo(text, call) => call.reply(text),
            Load::Notes(call) => call.reply(self.0),
        }
        Ok(())
    }
}

/// What one operation costs.
#[derive(Debug)]
struct Cost {
    /// Those beyond the texts.
    allocations: f64,
    writes: f64,
    bytes: f64,
    tasks: u64,
}

impl Cost {
    /// With a hundredth more.
    fn is_at_most(&self, allocations: f64, writes: f64, bytes: f64) {
        assert!(self.allocations <= 1.01 * allocations, "{self:?}");
        assert!(self.writes <= 1.01 * writes, "{self:?}");
        // A name would double them.
        assert!(self.bytes <= 1.01 * bytes, "{self:?}");
        assert_eq!(self.tasks, 0, "{self:?}");
    }
}

/// What each of so many operations costs, which allocates so many texts.
async fn cost(name: &str, operations: u64, texts: u64, run: impl Future<Output = ()>) -> Cost {
    let counts = || [0, 1, 2, 3].map(|what| COUNTS[what].load(Ordering::Relaxed));
    let before = counts();
    run.await;
    let after = counts();
    let each = |what: usize| (after[what] - before[what]) as f64 / operations as f64;
    let cost = Cost {
        allocations: each(ALLOCATIONS) - texts as f64,
        writes: each(WRITES),
        bytes: each(BYTES),
        tasks: after[TASKS] - before[TASKS],
    };
    println!("{name}: {cost:?}");
    cost
}

async fn ask(counter: &RpcEndpointRef<Load>) {
    let text = TEXT.to_owned();
    let reply = counter.ask(|call| Load::Echo(text, call)).await;
    assert_eq!(reply.expect("a reply"), TEXT);
}

/// Tasks that ask when they are told to, so that to start and join them is not counted.
struct Askers {
    tasks: u32,
    go: Arc<Semaphore>,
    done: Arc<Semaphore>,
}

impl Askers {
    fn new(counter: &RpcEndpointRef<Load>, tasks: u32) -> Self {
        let (go, done) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let asks = OPERATIONS / u64::from(tasks);
        for _ in 0..tasks {
            let (counter, go, done) = (counter.clone(), Arc::clone(&go), Arc::clone(&done));
            tokio::spawn(async move {
                loop {
                    go.acquire().await.expect("never closed").forget();
                    for _ in 0..asks {
                        ask(&counter).await;
                    }
                    done.add_permits(1);
                }
            });
        }
        Self { tasks, go, done }
    }

    /// All of their asks, of which as many are under way as there are tasks.
    async fn ask_all(&self) {
        self.go.add_permits(self.tasks as usize);
        let done = self.done.acquire_many(self.tasks).await;
        done.expect("never closed").forget();
    }

    /// What an ask costs once everything has its size.
    async fn cost(&self, name: &str, texts: u64) -> Cost {
        self.ask_all().await;
        self.ask_all().await;
        let asks = OPERATIONS / u64::from(self.tasks) * u64::from(self.tasks);
        cost(name, asks, texts, self.ask_all()).await
    }
}

/// Tells, and then asks how many have arrived.
async fn tells(counter: &RpcEndpointRef<Load>) {
    for number in 0..OPERATIONS {
        counter.send(Load::Note(TEXT.to_owned())).expect("credit");
        // A producer that never yields would keep the receiver from its thread.
        if number % 128 == 127 {
            tokio::task::yield_now().await;
        }
    }
    counter.ask(Load::Notes).await.expect("a reply");
}

async fn cost_of_tells(counter: &RpcEndpointRef<Load>, name: &str, texts: u64) -> Cost {
    tells(counter).await;
    tells(counter).await;
    cost(name, OPERATIONS, texts, tells(counter)).await
}

#[tokio::test]
async fn an_operation_costs_no_more_than_its_payload_and_little_else() {
    let network = Arc::new(CountingNetwork(MemoryNetwork::default()));
    let runtime = Arc::new(CountingRuntime(TokioRuntime::current()));
    let start = async |name: &str, bind: Option<&str>| {
        let mut builder = RpcEnv::builder(name)
            .network(Arc::clone(&network) as Arc<dyn Network>)
            .runtime(Arc::clone(&runtime) as Arc<dyn Runtime>);
        if let Some(bind) = bind {
            builder = builder.bind(bind);
        }
        builder.start().await.expect("it starts")
    };
    let server = start("server", Some("server:0")).await;
    let client = start("client", None).await;
    let near = server.setup_endpoint(NAME, Counter(0)).expect("a name");
    let address = server.address().expect("it listens");
    let far = client.retrieve_endpoint_ref(address, NAME).await;
    let far: RpcEndpointRef<Load> = far.expect("it is there");
    let few = Askers::new(&far, 64)
        .cost("remote ask, 64 at a time", 3)
        .await;
    let many = Askers::new(&far, 1000)
        .cost("remote ask, 1,000 at a time", 3)
        .await;
    let told = cost_of_tells(&far, "remote tell", 2).await;
    let near_ask = Askers::new(&near, 64).cost("local ask", 1).await;
    let near_told = cost_of_tells(&near, "local tell", 1).await;
    // 64 asks are one read and one write at either end, and the reads of both allocate three times.
    few.is_at_most(3.0 / 64.0, 2.0 / 64.0, 92.0);
    many.is_at_most(0.0055, 0.0112, 92.0);
    // The last of them is the question how many have arrived.
    told.is_at_most(0.01, 0.008, 41.01);
    // The slot of the reply.
    near_ask.is_at_most(1.0, 0.0, 0.0);
    near_told.is_at_most(0.001, 0.0, 0.0);
}
