//! actix: everything on one thread, and actors on two arbiters beside the driver's.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use actix::prelude::*;
use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, RING, idle_memory as idle, perform,
    start_and_stop as start_stop, text,
};
use tokio::sync::{Semaphore, oneshot};

use crate::{End, all_ended, entries};

pub(crate) const ENTRIES: [Entry; 14] = {
    let [a, b, c, d, e, f, g] = entries(
        "actix, one thread",
        Kind::Peer,
        |job| common(job, Threads::One),
        |job| start_and_stop(job, Threads::One),
        |job| idle_memory(job, Threads::One),
        |job| ring(job, Threads::One),
    );
    let [h, i, j, k, l, m, n] = entries(
        "actix, two arbiters",
        Kind::Peer,
        |job| common(job, Threads::Two),
        |job| start_and_stop(job, Threads::Two),
        |job| idle_memory(job, Threads::Two),
        |job| ring(job, Threads::Two),
    );
    // Each message wakes the other thread.
    [a, b, c, d, e, f, g, h, i, j.fewer(5), k, l, m, n.fewer(10)]
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Threads {
    One,
    Two,
}

/// Where actors start, in turn.
struct Places(Vec<ArbiterHandle>);

impl Places {
    fn new(threads: Threads) -> Self {
        let here = Arbiter::current();
        match threads {
            Threads::One => Self(vec![here]),
            Threads::Two => Self(vec![Arbiter::new().handle(), here]),
        }
    }

    fn start<A: Actor<Context = Context<A>> + Send>(&mut self, actor: A) -> Addr<A> {
        if self.0.len() == 1 {
            return actor.start();
        }
        self.0.rotate_left(1);
        A::start_in_arbiter(&self.0[1], |_| actor)
    }
}

#[derive(Default)]
struct Counter {
    count: u64,
    #[expect(dead_code, reason = "it is to be dropped")]
    end: Option<End>,
}

impl Actor for Counter {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Note(String);

#[derive(Message)]
#[rtype(result = "String")]
struct Echo(String);

#[derive(Message)]
#[rtype(result = "u64")]
struct Count;

impl Handler<Note> for Counter {
    type Result = ();

    fn handle(&mut self, Note(text): Note, _: &mut Context<Self>) {
        self.count += u64::from(text.len() == 32);
    }
}

impl Handler<Echo> for Counter {
    type Result = String;

    fn handle(&mut self, Echo(text): Echo, _: &mut Context<Self>) -> String {
        text
    }
}

impl Handler<Count> for Counter {
    type Result = u64;

    fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        self.count
    }
}

#[derive(Clone)]
struct Near(Addr<Counter>);

impl Handle for Near {
    const ON_ONE_THREAD: bool = true;

    async fn tell(&mut self, text: String) {
        self.0.do_send(Note(text));
    }

    async fn ask(&mut self, text: String) -> String {
        self.0.send(Echo(text)).await.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        self.0.send(Count).await.expect("a reply")
    }
}

/// The driver is a task of the system's thread.
fn drive(driver: impl Future<Output = Figures> + 'static) -> Figures {
    System::new().block_on(async {
        actix::spawn(driver)
            .await
            .expect("the driver does not panic")
    })
}

fn common(job: Job, threads: Threads) -> Figures {
    drive(async move {
        let counter = Places::new(threads).start(Counter::default());
        perform(&job, Near(counter)).await
    })
}

fn start_and_stop(job: Job, threads: Threads) -> Figures {
    drive(async move {
        let mut places = Places::new(threads);
        let ended = Arc::new(Semaphore::new(0));
        let ending = Arc::clone(&ended);
        let set_up = || {
            let end = Some(End(Arc::clone(&ending)));
            ready(places.start(Counter { count: 0, end }))
        };
        // Who has no address any more stops.
        start_stop(job, set_up, |addresses| async move {
            let actors = addresses.len();
            drop(addresses);
            all_ended(&ended, actors).await;
        })
        .await
    })
}

fn idle_memory(job: Job, threads: Threads) -> Figures {
    drive(async move {
        let mut places = Places::new(threads);
        idle(job, || ready(places.start(Counter::default()))).await
    })
}

struct Node {
    next: Option<Addr<Self>>,
    home: Option<oneshot::Sender<Infallible>>,
}

impl Actor for Node {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Next(Addr<Node>);

#[derive(Message)]
#[rtype(result = "()")]
struct Pass(u64, #[expect(dead_code, reason = "it goes along")] String);

impl Handler<Next> for Node {
    type Result = ();

    fn handle(&mut self, Next(next): Next, _: &mut Context<Self>) {
        self.next = Some(next);
    }
}

impl Handler<Pass> for Node {
    type Result = ();

    fn handle(&mut self, Pass(left, _): Pass, _: &mut Context<Self>) {
        if left == 0 {
            return drop(self.home.take());
        }
        let next = self.next.as_ref().expect("the ring is closed first");
        next.do_send(Pass(left - 1, text()));
    }
}

fn ring(job: Job, threads: Threads) -> Figures {
    drive(async move {
        let mut places = Places::new(threads);
        let (home, arrived) = oneshot::channel();
        let mut home = Some(home);
        let last = job.operations % RING as u64;
        let mut ring = Vec::new();
        for number in 0..RING as u64 {
            let home = if number == last { home.take() } else { None };
            ring.push(places.start(Node { next: None, home }));
        }
        for (node, next) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            node.send(Next(next.clone())).await.expect("it lives");
        }
        let start = job.start();
        ring[0].do_send(Pass(job.operations, text()));
        drop(arrived.await);
        job.stop(&start, job.operations)
    })
}
