//! kameo, with a mailbox without bound and with its default of 64.

use std::convert::Infallible;
use std::future::ready;

use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, RING, drive, idle_memory as idle, perform, runtime,
    start_and_stop as start_stop, text,
};
use kameo::Actor;
use kameo::actor::{ActorRef, Spawn};
use kameo::mailbox::{MailboxReceiver, MailboxSender, bounded, unbounded};
use kameo::message::{Context, Message};
use tokio::sync::oneshot;

use crate::entries;

type Mailbox<A> = (MailboxSender<A>, MailboxReceiver<A>);

pub(crate) const ENTRIES: [Entry; 14] = {
    let [a, b, c, d, e, f, g] = entries(
        "kameo",
        Kind::Peer,
        |job| common(job, unbounded()),
        |job| start_and_stop(job, unbounded),
        |job| idle_memory(job, unbounded),
        |job| ring(job, unbounded),
    );
    let [h, i, j, k, l, m, n] = entries(
        "kameo, bounded",
        Kind::Peer,
        |job| common(job, bounded(64)),
        |job| start_and_stop(job, || bounded(64)),
        |job| idle_memory(job, || bounded(64)),
        |job| ring(job, || bounded(64)),
    );
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n]
};

#[derive(Actor)]
struct Counter(u64);

struct Note(String);
struct Echo(String);
struct Count;

impl Message<Note> for Counter {
    type Reply = ();

    async fn handle(&mut self, Note(text): Note, _: &mut Context<Self, ()>) {
        self.0 += u64::from(text.len() == 32);
    }
}

impl Message<Echo> for Counter {
    type Reply = String;

    async fn handle(&mut self, Echo(text): Echo, _: &mut Context<Self, String>) -> String {
        text
    }
}

impl Message<Count> for Counter {
    type Reply = u64;

    async fn handle(&mut self, _: Count, _: &mut Context<Self, u64>) -> u64 {
        self.0
    }
}

#[derive(Clone)]
struct Near(ActorRef<Counter>);

impl Handle for Near {
    async fn tell(&mut self, text: String) {
        self.0.tell(Note(text)).send().await.expect("it lives");
    }

    async fn ask(&mut self, text: String) -> String {
        self.0.ask(Echo(text)).send().await.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        self.0.ask(Count).send().await.expect("a reply")
    }
}

fn common(job: Job, mailbox: Mailbox<Counter>) -> Figures {
    drive(&runtime(), async move {
        let counter = Counter::spawn_with_mailbox(Counter(0), mailbox);
        perform(&job, Near(counter)).await
    })
}

fn start_and_stop(job: Job, mailbox: fn() -> Mailbox<Counter>) -> Figures {
    drive(&runtime(), async move {
        let set_up = move || ready(Counter::spawn_with_mailbox(Counter(0), mailbox()));
        start_stop(job, set_up, |actors| async move {
            for actor in &actors {
                actor.stop_gracefully().await.expect("it lives");
            }
            for actor in actors {
                actor.wait_for_shutdown().await;
            }
        })
        .await
    })
}

fn idle_memory(job: Job, mailbox: fn() -> Mailbox<Counter>) -> Figures {
    drive(&runtime(), async move {
        idle(job, || {
            ready(Counter::spawn_with_mailbox(Counter(0), mailbox()))
        })
        .await
    })
}

#[derive(Actor)]
struct Node {
    next: Option<ActorRef<Self>>,
    home: Option<oneshot::Sender<Infallible>>,
}

struct Next(ActorRef<Node>);
struct Pass(u64, #[expect(dead_code, reason = "it goes along")] String);

impl Message<Next> for Node {
    type Reply = ();

    async fn handle(&mut self, Next(next): Next, _: &mut Context<Self, ()>) {
        self.next = Some(next);
    }
}

impl Message<Pass> for Node {
    type Reply = ();

    async fn handle(&mut self, Pass(left, _): Pass, _: &mut Context<Self, ()>) {
        if left == 0 {
            return drop(self.home.take());
        }
        let next = self.next.as_ref().expect("the ring is closed first");
        next.tell(Pass(left - 1, text()))
            .send()
            .await
            .expect("it lives");
    }
}

fn ring(job: Job, mailbox: fn() -> Mailbox<Node>) -> Figures {
    drive(&runtime(), async move {
        let (home, arrived) = oneshot::channel();
        let mut home = Some(home);
        let last = job.operations % RING as u64;
        let mut ring = Vec::new();
        for number in 0..RING as u64 {
            let home = if number == last { home.take() } else { None };
            ring.push(Node::spawn_with_mailbox(
                Node { next: None, home },
                mailbox(),
            ));
        }
        for (node, next) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            node.tell(Next(next.clone()))
                .send()
                .await
                .expect("it lives");
        }
        let start = job.start();
        let token = Pass(job.operations, text());
        ring[0].tell(token).send().await.expect("it lives");
        drop(arrived.await);
        job.stop(&start, job.operations)
    })
}
