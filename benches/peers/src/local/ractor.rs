//! ractor, as its book has it: one enum for each actor.

use std::convert::Infallible;

use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, RING, drive, idle_memory as idle, perform, runtime,
    start_and_stop as start_stop, text,
};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort, call};
use tokio::sync::oneshot;

use crate::entries;

pub(crate) const ENTRIES: [Entry; 7] = entries(
    "ractor",
    Kind::Peer,
    common,
    start_and_stop,
    idle_memory,
    ring,
);

enum Load {
    Note(String),
    Echo(String, RpcReplyPort<String>),
    Count(RpcReplyPort<u64>),
}

struct Counter;

impl Actor for Counter {
    type Msg = Load;
    type State = u64;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<Load>, (): ()) -> Result<u64, ActorProcessingErr> {
        Ok(0)
    }

    async fn handle(
        &self,
        _: ActorRef<Load>,
        load: Load,
        count: &mut u64,
    ) -> Result<(), ActorProcessingErr> {
        match load {
            Load::Note(text) => *count += u64::from(text.len() == 32),
            Load::Echo(text, reply) => reply.send(text)?,
            Load::Count(reply) => reply.send(*count)?,
        }
        Ok(())
    }
}

#[derive(Clone)]
struct Near(ActorRef<Load>);

impl Handle for Near {
    async fn tell(&mut self, text: String) {
        self.0.cast(Load::Note(text)).expect("it lives");
    }

    async fn ask(&mut self, text: String) -> String {
        call!(self.0, Load::Echo, text).expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        call!(self.0, Load::Count).expect("a reply")
    }
}

fn common(job: Job) -> Figures {
    drive(&runtime(), async move {
        let (counter, _) = Actor::spawn(None, Counter, ()).await.expect("it starts");
        perform(&job, Near(counter)).await
    })
}

fn start_and_stop(job: Job) -> Figures {
    drive(&runtime(), async move {
        let set_up = || async move { Actor::spawn(None, Counter, ()).await.expect("it starts") };
        start_stop(job, set_up, |actors| async move {
            for (actor, _) in &actors {
                actor.stop(None);
            }
            for (_, running) in actors {
                running.await.expect("no panic");
            }
        })
        .await
    })
}

fn idle_memory(job: Job) -> Figures {
    drive(&runtime(), async move {
        idle(job, || async move {
            Actor::spawn(None, Counter, ()).await.expect("it starts")
        })
        .await
    })
}

enum Token {
    Next(ActorRef<Token>),
    Pass(u64, #[expect(dead_code, reason = "it goes along")] String),
}

struct Node;

struct Place {
    next: Option<ActorRef<Token>>,
    home: Option<oneshot::Sender<Infallible>>,
}

impl Actor for Node {
    type Msg = Token;
    type State = Place;
    type Arguments = Option<oneshot::Sender<Infallible>>;

    async fn pre_start(
        &self,
        _: ActorRef<Token>,
        home: Self::Arguments,
    ) -> Result<Place, ActorProcessingErr> {
        Ok(Place { next: None, home })
    }

    async fn handle(
        &self,
        _: ActorRef<Token>,
        token: Token,
        place: &mut Place,
    ) -> Result<(), ActorProcessingErr> {
        match token {
            Token::Next(next) => place.next = Some(next),
            Token::Pass(0, _) => drop(place.home.take()),
            Token::Pass(left, _) => {
                let next = place.next.as_ref().expect("the ring is closed first");
                next.cast(Token::Pass(left - 1, text()))?;
            }
        }
        Ok(())
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
            let (node, _) = Actor::spawn(None, Node, home).await.expect("it starts");
            ring.push(node);
        }
        for (node, next) in ring.iter().zip(ring.iter().cycle().skip(1)) {
            node.cast(Token::Next(next.clone())).expect("it lives");
        }
        let start = job.start();
        let token = Token::Pass(job.operations, text());
        ring[0].cast(token).expect("it lives");
        drop(arrived.await);
        job.stop(&start, job.operations)
    })
}
