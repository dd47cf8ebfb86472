//! What the remote workloads cost with tokio's sockets alone: callers put frames into one buffer, a writer swaps it for an
//! empty one and writes it at once, a reader cuts all frames of a read.
//!
//! Four ways: written at once; **deferred**, where the writer yields before it swaps if more than one ask is under way; the
//! same with an **inbox** and a task of its own at the receiver, where the others handle a message as they read it; and
//! **polled**, where readers look again and again for up to 50 µs before they wait.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use aloha_benches::{Entry, Figures, Handle, Job, Kind, Lobby, Workload, drive, perform, runtime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;

use crate::frames::{FrameKind, Incoming, append};
use crate::swapped::Inbox;

pub(crate) const ENTRIES: [Entry; 24] = [
    at_once(Workload::R1),
    at_once(Workload::R2),
    at_once(Workload::R2p),
    at_once(Workload::R3),
    at_once(Workload::R4),
    at_once(Workload::R5),
    deferred(Workload::R1),
    deferred(Workload::R2),
    deferred(Workload::R2p),
    deferred(Workload::R3),
    deferred(Workload::R4),
    deferred(Workload::R5),
    with_inbox(Workload::R1),
    with_inbox(Workload::R2),
    with_inbox(Workload::R2p),
    with_inbox(Workload::R3),
    with_inbox(Workload::R4),
    with_inbox(Workload::R5),
    polled(Workload::R1),
    polled(Workload::R2),
    polled(Workload::R2p),
    polled(Workload::R3),
    polled(Workload::R4),
    polled(Workload::R5),
];

const fn at_once(workload: Workload) -> Entry {
    let run = |job| ask(job, Way::AT_ONCE);
    Entry::remote("tokio sockets", Kind::Limit, workload, run, |lobby| {
        serve(lobby, Receiver::Reads)
    })
}

const fn deferred(workload: Workload) -> Entry {
    let run = |job| ask(job, Way::DEFERRED);
    let serve = |lobby| serve(lobby, Receiver::Reads);
    Entry::remote("tokio sockets, deferred", Kind::Limit, workload, run, serve)
}

const fn with_inbox(workload: Workload) -> Entry {
    let run = |job| ask(job, Way::DEFERRED);
    let serve = |lobby| serve(lobby, Receiver::Posts);
    Entry::remote("tokio sockets, inbox", Kind::Limit, workload, run, serve)
}

const fn polled(workload: Workload) -> Entry {
    let run = |job| ask(job, Way::POLLED);
    let serve = |lobby| serve(lobby, Receiver::Polls);
    Entry::remote("tokio sockets, polled", Kind::Aside, workload, run, serve)
}

#[derive(Debug, Clone, Copy)]
struct Way {
    defers: bool,
    polls: bool,
}

impl Way {
    const AT_ONCE: Self = Self {
        defers: false,
        polls: false,
    };
    const DEFERRED: Self = Self {
        defers: true,
        polls: false,
    };
    const POLLED: Self = Self {
        defers: true,
        polls: true,
    };
}

/// What callers, the writer and the reader share.
struct Outgoing {
    bytes: Vec<u8>,
    parked: Option<Waker>,
    asked: Vec<Asked>,
    free: Vec<u32>,
    closed: bool,
}

/// The place of an ask, by its number.
enum Asked {
    Free,
    Waits(Option<Waker>),
    Answered(String),
}

#[derive(Clone)]
struct Connection {
    outgoing: Arc<Mutex<Outgoing>>,
    told: u64,
}

impl Connection {
    fn lock(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock().expect("nothing panics under it")
    }

    /// Appends a frame and wakes the writer.
    fn send(mut outgoing: MutexGuard<'_, Outgoing>, kind: FrameKind, number: u32, text: &str) {
        append(&mut outgoing.bytes, kind, number, text.as_bytes());
        let parked = outgoing.parked.take();
        drop(outgoing);
        if let Some(parked) = parked {
            parked.wake();
        }
    }

    async fn request(&self, kind: FrameKind, text: &str) -> String {
        let number = self.begin(kind, text);
        std::future::poll_fn(|context| self.answer(number, context)).await
    }

    fn begin(&self, kind: FrameKind, text: &str) -> u32 {
        let mut outgoing = self.lock();
        let number = outgoing.free.pop().unwrap_or_else(|| {
            outgoing.asked.push(Asked::Free);
            u32::try_from(outgoing.asked.len() - 1).expect("not so many")
        });
        outgoing.asked[number as usize] = Asked::Waits(None);
        Self::send(outgoing, kind, number, text);
        number
    }

    fn answer(&self, number: u32, context: &Context<'_>) -> Poll<String> {
        let mut outgoing = self.lock();
        let asked = &mut outgoing.asked[number as usize];
        match std::mem::replace(asked, Asked::Waits(Some(context.waker().clone()))) {
            Asked::Answered(text) => {
                *asked = Asked::Free;
                outgoing.free.push(number);
                Poll::Ready(text)
            }
            Asked::Free | Asked::Waits(_) => Poll::Pending,
        }
    }

    /// Swaps the bytes that wait for none as soon as there are some; false if there will be no more.
    async fn swap(&self, bytes: &mut Vec<u8>, way: Way) -> bool {
        bytes.clear();
        let mut yields = way.defers;
        loop {
            let crowded = std::future::poll_fn(|context| {
                let mut outgoing = self.lock();
                if outgoing.closed {
                    return Poll::Ready(None);
                }
                if outgoing.bytes.is_empty() {
                    outgoing.parked = Some(context.waker().clone());
                    return Poll::Pending;
                }
                let crowded = yields && outgoing.asked.len() - outgoing.free.len() > 1;
                if !crowded {
                    std::mem::swap(&mut outgoing.bytes, bytes);
                }
                Poll::Ready(Some(crowded))
            });
            match crowded.await {
                None => return false,
                Some(false) => return true,
                Some(true) => yields = false,
            }
            yield_now().await;
        }
    }

    async fn write(self, mut socket: OwnedWriteHalf, way: Way) {
        let mut bytes = Vec::new();
        while self.swap(&mut bytes, way).await {
            socket.write_all(&bytes).await.expect("the server lives");
        }
    }

    async fn read(self, mut socket: OwnedReadHalf, way: Way) {
        let (mut incoming, mut answers, mut wakers) = (Incoming::new(), Vec::new(), Vec::new());
        while read(&mut socket, &mut incoming, way.polls).await.is_ok() {
            while let Some((_, number, text)) = incoming.next() {
                answers.push((number, text));
            }
            let mut outgoing = self.lock();
            for (number, text) in answers.drain(..) {
                let asked = &mut outgoing.asked[number as usize];
                if let Asked::Waits(Some(waker)) = std::mem::replace(asked, Asked::Answered(text)) {
                    wakers.push(waker);
                }
            }
            drop(outgoing);
            wakers.drain(..).for_each(Waker::wake);
        }
    }
}

impl Handle for Connection {
    async fn tell(&mut self, text: String) {
        Self::send(self.lock(), FrameKind::Note, 0, &text);
        // A producer that never yields would keep the writer from its worker.
        self.told += 1;
        if self.told.is_multiple_of(128) {
            yield_now().await;
        }
    }

    async fn ask(&mut self, text: String) -> String {
        self.request(FrameKind::Echo, &text).await
    }

    async fn count(&mut self) -> u64 {
        let count = self.request(FrameKind::Count, "").await;
        count.parse().expect("a number")
    }
}

/// Reads what is there, at least a byte.
async fn read(
    socket: &mut OwnedReadHalf,
    incoming: &mut Incoming,
    polls: bool,
) -> Result<(), Error> {
    let since = Instant::now();
    while polls && since.elapsed() < Duration::from_micros(50) {
        match socket.try_read(incoming.space()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => yield_now().await,
            read => return filled(incoming, read),
        }
    }
    // Knows from a read that did not fill its space that nothing is left.
    let read = socket.read(incoming.space()).await;
    filled(incoming, read)
}

fn filled(incoming: &mut Incoming, read: Result<usize, Error>) -> Result<(), Error> {
    match read? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        bytes => {
            incoming.filled(bytes);
            Ok(())
        }
    }
}

fn ask(job: Job, way: Way) -> Figures {
    drive(&runtime(), async move {
        let socket = TcpStream::connect(job.address()).await;
        let socket = socket.expect("the server listens");
        socket.set_nodelay(true).expect("an open socket");
        let (reader, writer) = socket.into_split();
        let connection = Connection {
            outgoing: Arc::new(Mutex::new(Outgoing {
                bytes: Vec::new(),
                parked: None,
                asked: Vec::new(),
                free: Vec::new(),
                closed: false,
            })),
            told: 0,
        };
        tokio::spawn(connection.clone().write(writer, way));
        tokio::spawn(connection.clone().read(reader, way));
        let figures = perform(&job, connection.clone()).await;
        connection.lock().closed = true;
        figures
    })
}

/// What a server does with the frames of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiver {
    /// Handles them there and then.
    Reads,
    /// The same, and looks again before it waits.
    Polls,
    /// Posts them to the inbox of a task.
    Posts,
}

/// Writes all replies to a read, or to a batch, at once.
fn serve(lobby: Lobby, receiver: Receiver) {
    let runtime = runtime();
    let listener = drive(&runtime, async {
        TcpListener::bind("127.0.0.1:0").await.expect("a free port")
    });
    let address = listener.local_addr().expect("it listens");
    runtime.spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            match receiver {
                Receiver::Posts => tokio::spawn(post(socket)),
                Receiver::Reads => tokio::spawn(answer(socket, false)),
                Receiver::Polls => tokio::spawn(answer(socket, true)),
            };
        }
    });
    lobby.open(&address.to_string());
}

async fn answer(socket: TcpStream, polls: bool) {
    socket.set_nodelay(true).expect("an open socket");
    let (mut reader, mut writer) = socket.into_split();
    let (mut incoming, mut counter) = (Incoming::new(), Counter::default());
    while read(&mut reader, &mut incoming, polls).await.is_ok() {
        while let Some(frame) = incoming.next() {
            counter.handle(frame);
        }
        if counter.write(&mut writer).await.is_err() {
            return;
        }
    }
}

async fn post(socket: TcpStream) {
    socket.set_nodelay(true).expect("an open socket");
    let (mut reader, mut writer) = socket.into_split();
    let inbox = Inbox::new();
    let posted = inbox.clone();
    let handling = tokio::spawn(async move {
        let (mut batch, mut counter) = (Vec::new(), Counter::default());
        loop {
            posted.take(&mut batch).await;
            for frame in batch.drain(..) {
                counter.handle(frame);
            }
            if counter.write(&mut writer).await.is_err() {
                return;
            }
        }
    });
    let (mut incoming, mut frames) = (Incoming::new(), Vec::new());
    while read(&mut reader, &mut incoming, false).await.is_ok() {
        while let Some(frame) = incoming.next() {
            frames.push(frame);
        }
        if !frames.is_empty() {
            inbox.post_all(&mut frames);
        }
    }
    handling.abort();
}

#[derive(Default)]
struct Counter {
    notes: u64,
    out: Vec<u8>,
}

impl Counter {
    fn handle(&mut self, (kind, number, text): (FrameKind, u32, String)) {
        let Self { notes, out } = self;
        match kind {
            FrameKind::Note => *notes += u64::from(text.len() == 32),
            FrameKind::Echo => append(out, kind, number, text.as_bytes()),
            FrameKind::Count => append(out, kind, number, notes.to_string().as_bytes()),
        }
    }

    async fn write(&mut self, writer: &mut OwnedWriteHalf) -> Result<(), Error> {
        if !self.out.is_empty() {
            writer.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }
}
