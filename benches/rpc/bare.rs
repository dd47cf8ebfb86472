//! What the local workloads cost with tokio's tasks and channels alone: an endpoint's work, and nothing an endpoint is for.
#![expect(
    clippy::disallowed_methods,
    reason = "the fastest channel, and the benches bound what is in it"
)]

use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, RING, Workload, drive, perform, resident_bytes, runtime,
    text,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

pub(crate) const ENTRIES: [Entry; 7] = [
    entry(Workload::L1, common),
    entry(Workload::L2, common),
    entry(Workload::L3, common),
    entry(Workload::L4, common),
    entry(Workload::L5, start_and_stop),
    entry(Workload::L5m, idle_memory),
    entry(Workload::L6, ring),
];

const fn entry(workload: Workload, run: fn(Job) -> Figures) -> Entry {
    Entry::local("tokio mpsc", Kind::Limit, workload, run)
}

enum Load {
    Note(String),
    Echo(String, oneshot::Sender<String>),
    Count(oneshot::Sender<u64>),
}

async fn count(mut inbox: UnboundedReceiver<Load>) {
    let mut count = 0;
    while let Some(load) = inbox.recv().await {
        match load {
            Load::Note(text) => count += u64::from(text.len() == 32),
            Load::Echo(text, reply) => drop(reply.send(text)),
            Load::Count(reply) => drop(reply.send(count)),
        }
    }
}

#[derive(Clone)]
struct Counter(UnboundedSender<Load>);

impl Handle for Counter {
    async fn tell(&mut self, text: String) {
        self.0.send(Load::Note(text)).expect("it listens");
    }

    async fn ask(&mut self, text: String) -> String {
        let (reply, answer) = oneshot::channel();
        self.0.send(Load::Echo(text, reply)).expect("it listens");
        answer.await.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        let (reply, answer) = oneshot::channel();
        self.0.send(Load::Count(reply)).expect("it listens");
        answer.await.expect("a reply")
    }
}

fn common(job: Job) -> Figures {
    drive(&runtime(), async move {
        let (sender, inbox) = unbounded_channel();
        tokio::spawn(count(inbox));
        perform(&job, Counter(sender)).await
    })
}

fn start_and_stop(job: Job) -> Figures {
    drive(&runtime(), async move {
        let start = job.start();
        let (mut senders, mut running) = (Vec::new(), Vec::new());
        for _ in 0..job.operations {
            let (sender, inbox) = unbounded_channel();
            running.push(tokio::spawn(count(inbox)));
            senders.push(sender);
        }
        drop(senders);
        for task in running {
            task.await.expect("no panic");
        }
        job.stop(&start, job.operations)
    })
}

fn idle_memory(job: Job) -> Figures {
    drive(&runtime(), async move {
        let before = resident_bytes();
        let mut senders = Vec::new();
        for _ in 0..job.operations {
            let (sender, inbox) = unbounded_channel();
            tokio::spawn(count(inbox));
            senders.push(Counter(sender));
        }
        for counter in &mut senders {
            assert_eq!(counter.count().await, 0);
        }
        let grown = resident_bytes().saturating_sub(before);
        Figures::memory(job.operations, grown)
    })
}

fn ring(job: Job) -> Figures {
    drive(&runtime(), async move {
        let (home, arrived) = oneshot::channel::<()>();
        let mut home = Some(home);
        let (nodes, inboxes): (Vec<_>, Vec<_>) = (0..RING)
            .map(|_| unbounded_channel::<(u64, String)>())
            .unzip();
        let mut nexts = nodes.iter().cycle().skip(1).cloned();
        let first = job.operations % RING as u64;
        for (number, mut inbox) in (0..).zip(inboxes) {
            let next = nexts.next().expect("a ring has no end");
            let home = if number == first { home.take() } else { None };
            tokio::spawn(async move {
                while let Some((left, _)) = inbox.recv().await {
                    if left == 0 {
                        break;
                    }
                    next.send((left - 1, text())).expect("it listens");
                }
                drop(home);
            });
        }
        let start = job.start();
        nodes[0].send((job.operations, text())).expect("it listens");
        drop(arrived.await);
        job.stop(&start, job.operations)
    })
}
