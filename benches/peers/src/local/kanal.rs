//! A bare task that reads a kanal channel: no actor library, but a faster channel than tokio's.

use std::future::ready;

use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, RING, drive, idle_memory as idle, perform, runtime,
    start_and_stop as start_stop, text,
};
use kanal::{AsyncReceiver, AsyncSender, unbounded_async};
use tokio::sync::oneshot;

use crate::entries;

pub(crate) const ENTRIES: [Entry; 7] = entries(
    "kanal",
    Kind::Limit,
    common,
    start_and_stop,
    idle_memory,
    ring,
);

enum Load {
    Note(String),
    Echo(String, oneshot::Sender<String>),
    Count(oneshot::Sender<u64>),
}

async fn count(inbox: AsyncReceiver<Load>) {
    let mut count = 0;
    while let Ok(load) = inbox.recv().await {
        match load {
            Load::Note(text) => count += u64::from(text.len() == 32),
            Load::Echo(text, reply) => drop(reply.send(text)),
            Load::Count(reply) => drop(reply.send(count)),
        }
    }
}

#[derive(Clone)]
struct Counter(AsyncSender<Load>);

impl Handle for Counter {
    async fn tell(&mut self, text: String) {
        self.0.send(Load::Note(text)).await.expect("it listens");
    }

    async fn ask(&mut self, text: String) -> String {
        let (reply, answer) = oneshot::channel();
        self.0
            .send(Load::Echo(text, reply))
            .await
            .expect("it listens");
        answer.await.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        let (reply, answer) = oneshot::channel();
        self.0.send(Load::Count(reply)).await.expect("it listens");
        answer.await.expect("a reply")
    }
}

fn common(job: Job) -> Figures {
    drive(&runtime(), async move {
        let (sender, inbox) = unbounded_async();
        tokio::spawn(count(inbox));
        perform(&job, Counter(sender)).await
    })
}

fn start_and_stop(job: Job) -> Figures {
    drive(&runtime(), async move {
        let set_up = || {
            let (sender, inbox) = unbounded_async();
            ready((sender, tokio::spawn(count(inbox))))
        };
        start_stop(job, set_up, |tasks| async move {
            let (senders, running): (Vec<_>, Vec<_>) = tasks.into_iter().unzip();
            drop(senders);
            for task in running {
                task.await.expect("no panic");
            }
        })
        .await
    })
}

fn idle_memory(job: Job) -> Figures {
    drive(&runtime(), async move {
        idle(job, || {
            let (sender, inbox) = unbounded_async();
            tokio::spawn(count(inbox));
            ready(sender)
        })
        .await
    })
}

fn ring(job: Job) -> Figures {
    drive(&runtime(), async move {
        let (home, arrived) = oneshot::channel::<()>();
        let mut home = Some(home);
        let (nodes, inboxes): (Vec<_>, Vec<_>) = (0..RING)
            .map(|_| unbounded_async::<(u64, String)>())
            .unzip();
        let mut nexts = nodes.iter().cycle().skip(1).cloned();
        let last = job.operations % RING as u64;
        for (number, inbox) in (0..).zip(inboxes) {
            let next = nexts.next().expect("a ring has no end");
            let home = if number == last { home.take() } else { None };
            tokio::spawn(async move {
                while let Ok((left, _)) = inbox.recv().await {
                    if left == 0 {
                        break;
                    }
                    next.send((left - 1, text())).await.expect("it listens");
                }
                drop(home);
            });
        }
        let start = job.start();
        nodes[0]
            .send((job.operations, text()))
            .await
            .expect("it listens");
        drop(arrived.await);
        job.stop(&start, job.operations)
    })
}
