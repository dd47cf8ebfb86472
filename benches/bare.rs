//! What the local workloads cost with tokio's tasks and channels alone: an endpoint's work, and nothing an endpoint is for.

use std::time::Instant;

use aloha_benches::{rate, text};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use crate::local::{PRODUCERS, RING, TASKS};
use crate::{Server, drive};

fn counter() -> (mpsc::Sender<String>, JoinHandle<u64>) {
    let (notes, mut inbox) = mpsc::channel::<String>(2_000_000);
    let counting = tokio::spawn(async move {
        let mut count = 0;
        while let Some(text) = inbox.recv().await {
            count += u64::from(text.len() == 32);
        }
        count
    });
    (notes, counting)
}

fn echo() -> mpsc::Sender<(String, oneshot::Sender<String>)> {
    let (inbox, mut calls) = mpsc::channel::<(String, oneshot::Sender<String>)>(1024);
    tokio::spawn(async move {
        while let Some((text, reply)) = calls.recv().await {
            drop(reply.send(text));
        }
    });
    inbox
}

async fn ask(echo: &mpsc::Sender<(String, oneshot::Sender<String>)>) {
    let (reply, answer) = oneshot::channel();
    echo.send((text(), reply)).await.expect("it listens");
    assert_eq!(answer.await.expect("a reply").len(), 32);
}

pub(crate) fn l1(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let messages = 1_000_000 / divisor;
    drive(runtime, async move {
        let (notes, counting) = counter();
        let started = Instant::now();
        for _ in 0..messages {
            notes.try_send(text()).expect("room");
        }
        drop(notes);
        assert_eq!(counting.await.expect("no panic"), messages);
        rate(messages, started.elapsed())
    })
}

pub(crate) fn l2(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let each = 1_000_000 / divisor / PRODUCERS;
    drive(runtime, async move {
        let (notes, counting) = counter();
        let started = Instant::now();
        for _ in 0..PRODUCERS {
            let notes = notes.clone();
            tokio::spawn(async move {
                for _ in 0..each {
                    notes.try_send(text()).expect("room");
                }
            });
        }
        drop(notes);
        assert_eq!(counting.await.expect("no panic"), each * PRODUCERS);
        rate(each * PRODUCERS, started.elapsed())
    })
}

pub(crate) fn l3(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let asks = 200_000 / divisor;
    drive(runtime, async move {
        let echo = echo();
        let started = Instant::now();
        for _ in 0..asks {
            ask(&echo).await;
        }
        rate(asks, started.elapsed())
    })
}

pub(crate) fn l4(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let each = 500_000 / divisor / TASKS;
    drive(runtime, async move {
        let echo = echo();
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..TASKS {
            let echo = echo.clone();
            tasks.spawn(async move {
                for _ in 0..each {
                    ask(&echo).await;
                }
            });
        }
        tasks.join_all().await;
        rate(each * TASKS, started.elapsed())
    })
}

pub(crate) fn l5(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let tasks = 100_000 / divisor;
    drive(runtime, async move {
        let started = Instant::now();
        let mut set_up = Vec::new();
        for _ in 0..tasks {
            let (inbox, mut messages) = mpsc::channel::<String>(1024);
            let running = tokio::spawn(async move { while messages.recv().await.is_some() {} });
            set_up.push((inbox, running));
        }
        let (inboxes, running): (Vec<_>, Vec<_>) = set_up.into_iter().unzip();
        drop(inboxes);
        for task in running {
            task.await.expect("no panic");
        }
        rate(tasks, started.elapsed())
    })
}

pub(crate) fn l6(runtime: &Runtime, _: &Server, divisor: u64) -> f64 {
    let passes = 1_000_000 / divisor;
    drive(runtime, async move {
        let (home, mut arrived) = mpsc::channel(1);
        let (nodes, inboxes): (Vec<_>, Vec<_>) = (0..RING)
            .map(|_| mpsc::channel::<(u64, String)>(1024))
            .unzip();
        let mut nexts = nodes.iter().cycle().skip(1).cloned();
        let mut ring = JoinSet::new();
        for mut inbox in inboxes {
            let (next, home) = (nexts.next().expect("a ring has no end"), home.clone());
            ring.spawn(async move {
                while let Some((left, _)) = inbox.recv().await {
                    match left {
                        0 => home.try_send(()).expect("one token"),
                        left => next.try_send((left - 1, text())).expect("one token"),
                    }
                }
            });
        }
        let started = Instant::now();
        nodes[0].try_send((passes, text())).expect("room");
        arrived.recv().await.expect("it comes round");
        rate(passes, started.elapsed())
    })
}
