//! What the local workloads cost with a mutex around a vector, which the consumer swaps for an empty one.

use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Poll, Waker};

use aloha_benches::{
    Entry, Figures, Handle, Job, Kind, RING, Workload, drive, perform, resident_bytes, runtime,
    text,
};
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
    Entry::local("swapped buffer", Kind::Limit, workload, run)
}

/// Many may post, one takes.
pub(crate) struct Inbox<M>(Arc<Mutex<Mail<M>>>);

struct Mail<M> {
    waiting: Vec<M>,
    parked: Option<Waker>,
}

impl<M> Clone for Inbox<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> Inbox<M> {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Mail {
            waiting: Vec::new(),
            parked: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Mail<M>> {
        self.0.lock().expect("nothing panics under it")
    }

    fn post(&self, message: M) {
        let mut mail = self.lock();
        mail.waiting.push(message);
        let parked = mail.parked.take();
        drop(mail);
        if let Some(parked) = parked {
            parked.wake();
        }
    }

    /// Posts all at once and leaves none.
    pub(crate) fn post_all(&self, messages: &mut Vec<M>) {
        let mut mail = self.lock();
        mail.waiting.append(messages);
        let parked = mail.parked.take();
        drop(mail);
        if let Some(parked) = parked {
            parked.wake();
        }
    }

    /// Waits until there are some, and puts all of them where none may be.
    pub(crate) async fn take(&self, batch: &mut Vec<M>) {
        std::future::poll_fn(|context| {
            let mut mail = self.lock();
            if mail.waiting.is_empty() {
                mail.parked = Some(context.waker().clone());
                return Poll::Pending;
            }
            std::mem::swap(&mut mail.waiting, batch);
            Poll::Ready(())
        })
        .await;
    }
}

enum Load {
    Note(String),
    Echo(String, oneshot::Sender<String>),
    Count(oneshot::Sender<u64>),
    Stop,
}

async fn count(inbox: Inbox<Load>) {
    let (mut count, mut batch) = (0, Vec::new());
    loop {
        inbox.take(&mut batch).await;
        for load in batch.drain(..) {
            match load {
                Load::Note(text) => count += u64::from(text.len() == 32),
                Load::Echo(text, reply) => drop(reply.send(text)),
                Load::Count(reply) => drop(reply.send(count)),
                Load::Stop => return,
            }
        }
        tokio::task::consume_budget().await;
    }
}

#[derive(Clone)]
struct Counter(Inbox<Load>);

impl Handle for Counter {
    async fn tell(&mut self, text: String) {
        self.0.post(Load::Note(text));
    }

    async fn ask(&mut self, text: String) -> String {
        let (reply, answer) = oneshot::channel();
        self.0.post(Load::Echo(text, reply));
        answer.await.expect("a reply")
    }

    async fn count(&mut self) -> u64 {
        let (reply, answer) = oneshot::channel();
        self.0.post(Load::Count(reply));
        answer.await.expect("a reply")
    }
}

fn common(job: Job) -> Figures {
    drive(&runtime(), async move {
        let inbox = Inbox::new();
        tokio::spawn(count(inbox.clone()));
        perform(&job, Counter(inbox)).await
    })
}

fn start_and_stop(job: Job) -> Figures {
    drive(&runtime(), async move {
        let start = job.start();
        let (mut inboxes, mut running) = (Vec::new(), Vec::new());
        for _ in 0..job.operations {
            let inbox = Inbox::new();
            running.push(tokio::spawn(count(inbox.clone())));
            inboxes.push(inbox);
        }
        for inbox in inboxes {
            inbox.post(Load::Stop);
        }
        for task in running {
            task.await.expect("no panic");
        }
        job.stop(&start, job.operations)
    })
}

fn idle_memory(job: Job) -> Figures {
    drive(&runtime(), async move {
        let before = resident_bytes();
        let mut counters = Vec::new();
        for _ in 0..job.operations {
            let inbox = Inbox::new();
            tokio::spawn(count(inbox.clone()));
            counters.push(inbox);
        }
        // All have started and wait.
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let idle = |inbox: &Inbox<Load>| inbox.lock().parked.is_some();
        assert!(counters.iter().all(idle), "one has not started yet");
        let grown = resident_bytes().saturating_sub(before);
        Figures::memory(job.operations, grown)
    })
}

fn ring(job: Job) -> Figures {
    drive(&runtime(), async move {
        let (home, arrived) = oneshot::channel::<()>();
        let mut home = Some(home);
        let nodes: Vec<Inbox<(u64, String)>> = (0..RING).map(|_| Inbox::new()).collect();
        let last = job.operations % RING as u64;
        for (number, inbox) in (0..).zip(&nodes) {
            let inbox = inbox.clone();
            let next = nodes[(number + 1) % RING].clone();
            let home = (number as u64 == last).then(|| home.take());
            tokio::spawn(async move {
                let mut batch = Vec::new();
                loop {
                    inbox.take(&mut batch).await;
                    for (left, _) in batch.drain(..) {
                        if left == 0 {
                            return drop(home);
                        }
                        next.post((left - 1, text()));
                    }
                }
            });
        }
        let start = job.start();
        nodes[0].post((job.operations, text()));
        drop(arrived.await);
        job.stop(&start, job.operations)
    })
}
