//! xtra, with a mailbox without bound.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, RING, drive, idle_memory as idle, perform, runtime,
    start_and_stop as start_stop, text,
};
use tokio::sync::{Semaphore, oneshot};
use xtra::prelude::*;

use crate::{End, all_ended, entries};

pub(crate) const ENTRIES: [Entry; 7] = entries(
    "xtra",
    Kind::Peer,
    common,
    start_and_stop,
    idle_memory,
    ring,
);

#[derive(Default, xtra::Actor)]
struct Counter {
    count: u64,
    #[expect(dead_code, reason = "it is to be dropped")]
    end: Option<End>,
}

struct Note(String);
struct Echo(String);
struct Count;

impl Handler<Note> for Counter {
    type Return = ();

    async fn handle(&mut self, Note(text): Note, _: &mut Context<Self>) {
        self.count += u64::from(text.len() == 32);
    }
}

impl Handler<Echo> for Counter {
    type Return = String;

    async fn handle(&mut self, Echo(text): Echo, _: &mut Context<Self>) -> String {
        text
    }
}

impl Handler<Count> for Counter {
    type Return = u64;

    async fn handle(&mut self, _: Count, _: &mut Context<Self>) -> u64 {
        self.count
    }
}

#[derive(Clone)]
struct Near(Address<Counter>);

impl Handle for Near {
    async fn tell(&mut self, text: String) {
        // Its mailbox is no queue: of two messages of one priority the later one may come first.
        let queued = self.0.send(Note(text)).priority(1).detach().await;
        drop(queued.expect("it lives"));
    }

    async fn ask(&mut self, text: String) -> String {
        self.0.send(Echo(text)).await.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        self.0.send(Count).await.expect("a reply")
    }
}

fn common(job: Job) -> Figures {
    drive(&runtime(), async move {
        let counter = xtra::spawn_tokio(Counter::default(), Mailbox::unbounded());
        perform(&job, Near(counter)).await
    })
}

fn start_and_stop(job: Job) -> Figures {
    drive(&runtime(), async move {
        let ended = Arc::new(Semaphore::new(0));
        let ending = Arc::clone(&ended);
        let set_up = move || {
            let end = Some(End(Arc::clone(&ending)));
            let counter = Counter { count: 0, end };
            ready(xtra::spawn_tokio(counter, Mailbox::unbounded()))
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

fn idle_memory(job: Job) -> Figures {
    drive(&runtime(), async move {
        idle(job, || {
            ready(xtra::spawn_tokio(Counter::default(), Mailbox::unbounded()))
        })
        .await
    })
}

#[derive(xtra::Actor)]
struct Node {
    next: Option<Address<Node>>,
    home: Option<oneshot::Sender<Infallible>>,
}

struct Next(Address<Node>);
struct Pass(u64, #[expect(dead_code, reason = "it goes along")] String);

impl Handler<Next> for Node {
    type Return = ();

    async fn handle(&mut self, Next(next): Next, _: &mut Context<Self>) {
        self.next = Some(next);
    }
}

impl Handler<Pass> for Node {
    type Return = ();

    async fn handle(&mut self, Pass(left, _): Pass, _: &mut Context<Self>) {
        if left == 0 {
            return drop(self.home.take());
        }
        let next = self.next.as_ref().expect("the ring is closed first");
        drop(
            next.send(Pass(left - 1, text()))
                .detach()
                .await
                .expect("it lives"),
        );
    }
}

fn ring(job: Job) -> Figures {
    drive(&runtime(), async move {
        let (home, arrived) = oneshot::channel();
        let mut home = Some(home);
        let last = job.operations % RING as u64;
        let mut ring = Vec::new();
        for number in 0..RING as u64 {
            let home = if number == last { home.take() } else { None };
            ring.push(xtra::spawn_tokio(
                Node { next: None, home },
                Mailbox::unbounded(),
            ));
        }
        for (node, next) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            node.send(Next(next.clone())).await.expect("it lives");
        }
        let start = job.start();
        let token = Pass(job.operations, text());
        drop(ring[0].send(token).detach().await.expect("it lives"));
        drop(arrived.await);
        job.stop(&start, job.operations)
    })
}
