//! Corners in which something went wrong once. Each name says what holds now, each comment what was wrong.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "short tests of rare cases"
)]

mod common;

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aloha_rpc::testing::{Probe, Simulation};
use aloha_rpc::{
    Codec, ConcurrentEndpoint, Directive, EndpointContext, EndpointError, Metrics, Overflow,
    RestartPolicy, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv, Terminated, Termination,
};
use common::{Join, Pair, until};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

#[derive(Debug, Serialize, Deserialize)]
enum Msg {
    Note(u32),
    Blob(Vec<u8>),
    Ask(RpcCallContext<u32>),
    Keep(RpcCallContext<u32>),
    Refs(Vec<RpcEndpointRef<Self>>, RpcCallContext<u32>),
    Panic,
}

type Handled<'a> = Pin<Box<dyn Future<Output = Result<(), EndpointError>> + Send + 'a>>;

/// An endpoint made of a closure.
struct Act<F>(F);

impl<F> RpcEndpoint for Act<F>
where
    F: for<'a> FnMut(Msg, &'a EndpointContext<Msg>) -> Handled<'a> + Send + 'static,
{
    type Message = Msg;
    async fn receive(
        &mut self,
        message: Msg,
        ctx: &EndpointContext<Msg>,
    ) -> Result<(), EndpointError> {
        (self.0)(message, ctx).await
    }
}

fn act<F>(f: F) -> Act<F>
where
    F: for<'a> FnMut(Msg, &'a EndpointContext<Msg>) -> Handled<'a> + Send + 'static,
{
    Act(f)
}

/// Answers asks with 7, keeps what is to be kept, and panics where told.
fn plain() -> impl RpcEndpoint<Message = Msg> {
    let mut kept = Vec::new();
    act(move |message, _| {
        match message {
            Msg::Ask(call) => call.reply(7),
            Msg::Keep(call) => kept.push(call),
            Msg::Refs(_, call) => call.reply(1),
            Msg::Panic => panic!("on purpose"),
            Msg::Note(_) | Msg::Blob(_) => {}
        }
        Box::pin(async { Ok(()) })
    })
}

/// A [plain] endpoint whose inbox has one place.
async fn with_one_place() -> (RpcEnv, RpcEndpointRef<Msg>) {
    let env = RpcEnv::client("alone").await.unwrap();
    let narrow = env.endpoint("plain").messages_max(1);
    let plain = narrow.setup(plain()).unwrap();
    (env, plain)
}

/// Takes one message for each permit of its gate.
fn gated(gate: &Arc<Semaphore>, seen: &Arc<Mutex<Vec<u32>>>) -> impl RpcEndpoint<Message = Msg> {
    let (gate, seen) = (Arc::clone(gate), Arc::clone(seen));
    act(move |message, _| {
        let (gate, seen) = (Arc::clone(&gate), Arc::clone(&seen));
        Box::pin(async move {
            gate.acquire().await?.forget();
            match message {
                Msg::Note(number) => seen.lock().unwrap().push(number),
                Msg::Ask(call) => call.reply(7),
                _ => {}
            }
            Ok(())
        })
    })
}

async fn soon<F: Future>(future: F) -> Option<F::Output> {
    tokio::time::timeout(Duration::from_secs(4), future)
        .await
        .ok()
}

async fn yields() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

async fn memory() -> Pair {
    Pair::new(Join::Memory, Codec::Bincode).await
}

// ---- credit ------------------------------------------------------------------------------------

/// `handle_remote` gives nothing back for an inbox that displaces, and `deliver` does not either.
#[tokio::test]
async fn a_drop_oldest_endpoint_that_keeps_up_goes_on_taking_remote_messages() {
    let pair = memory().await;
    pair.server
        .endpoint("news")
        .overflow(Overflow::DropOldest)
        .setup(plain())
        .unwrap();
    let news: RpcEndpointRef<Msg> = pair.look_up("news").await;
    for number in 0..40_000_u32 {
        let answer = news.ask(Msg::Ask).await;
        assert_eq!(answer.as_ref().ok(), Some(&7), "ask {number}: {answer:?}");
    }
}

/// `Charge::Reserved` passes whatever credit of bytes is left; the receiver counts, and aborts the connection.
#[tokio::test]
async fn large_messages_by_permits_do_not_break_the_connection() {
    let pair = memory().await;
    let gate = Arc::new(Semaphore::new(0));
    let blobs = pair.set_up("blobs", gated(&gate, &Arc::default())).await;
    let asked = blobs.ask(Msg::Ask);
    let mut places = Vec::new();
    for _ in 0..3 {
        places.push(blobs.reserve().await.unwrap());
    }
    for place in places {
        // One that has a place may find that others, held at the same time, have used far more than their share.
        if let Err(refused) = place.send(Msg::Blob(vec![0; 700 << 10])) {
            assert!(refused.is_overload(), "{refused}");
        }
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    gate.add_permits(100);
    let answer = soon(asked).await;
    assert!(matches!(answer, Some(Ok(7))), "{answer:?}");
}

// ---- the local lane ----------------------------------------------------------------------------

/// `poll_reserve` always gives a place under `DropOldest`, and `post_reserved` displaces nothing.
#[tokio::test]
async fn permits_do_not_fill_a_drop_oldest_inbox_beyond_its_limit() {
    let env = RpcEnv::client("alone").await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let news = env
        .endpoint("news")
        .messages_max(10)
        .overflow(Overflow::DropOldest)
        .setup(gated(&gate, &Arc::default()))
        .unwrap();
    for number in 0..10_000 {
        news.reserve()
            .await
            .unwrap()
            .send(Msg::Note(number))
            .unwrap();
    }
    let waiting = env.snapshot().endpoints[0].waiting;
    assert!(waiting <= 20, "{waiting} wait, the limit is 10");
}

/// One message is displaced by each, however heavy the new one is.
#[tokio::test]
async fn a_drop_oldest_inbox_keeps_to_its_bytes() {
    let env = RpcEnv::client("alone").await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let news = env
        .endpoint("news")
        .bytes_max(1_000)
        .weight(|message| match message {
            Msg::Blob(bytes) => bytes.len(),
            _ => 1,
        })
        .overflow(Overflow::DropOldest)
        .setup(gated(&gate, &Arc::default()))
        .unwrap();
    for number in 0..1_000 {
        news.send(Msg::Note(number)).unwrap();
    }
    for _ in 0..500 {
        news.send(Msg::Blob(vec![0; 900])).unwrap();
    }
    let waiting = env.snapshot().endpoints[0].waiting;
    assert!(
        waiting <= 2,
        "{waiting} wait, 500 of them of 900 bytes; the limit is 1000 bytes"
    );
}

/// What the task took already is not displaced: then the newest is refused instead.
#[tokio::test]
async fn a_drop_oldest_inbox_never_refuses() {
    let env = RpcEnv::client("alone").await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let news = env
        .endpoint("news")
        .bytes_max(100)
        .weight(|_| 60)
        .overflow(Overflow::DropOldest)
        .setup(gated(&gate, &Arc::default()))
        .unwrap();
    for number in 0..3 {
        let sent = news.send(Msg::Note(number));
        assert!(sent.is_ok(), "{sent:?}");
    }
    drop(news);
    let news = env
        .endpoint("news2")
        .bytes_max(100)
        .weight(|message| {
            if let Msg::Note(n) = message {
                *n as usize
            } else {
                1
            }
        })
        .overflow(Overflow::DropOldest)
        .setup(gated(&gate, &Arc::default()))
        .unwrap();
    news.send(Msg::Note(30)).unwrap();
    news.send(Msg::Note(60)).unwrap();
    yields().await; // The first is at work, the second was taken with it.
    let sent = news.send(Msg::Note(60));
    assert!(sent.is_ok(), "{}", sent.unwrap_err());
}

/// While a batch is at work, those behind it are displaced: the newest, not the oldest.
#[tokio::test]
async fn the_oldest_is_displaced_and_not_the_newest() {
    let env = RpcEnv::client("alone").await.unwrap();
    let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::default());
    let news = env
        .endpoint("news")
        .messages_max(10)
        .overflow(Overflow::DropOldest)
        .setup(gated(&gate, &seen))
        .unwrap();
    for number in 0..10 {
        news.send(Msg::Note(number)).unwrap();
    }
    yields().await; // 0 is at work; 1 to 9 were taken with it.
    for number in 10..20 {
        news.send(Msg::Note(number)).unwrap();
    }
    gate.add_permits(100);
    yields().await;
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.ends_with(&[15, 16, 17, 18, 19]),
        "the newest five of 20 with room for ten: {seen:?}"
    );
}

/// A future that is dropped leaves its waker, which takes the wake of the one behind it.
#[tokio::test]
async fn a_reserve_that_was_dropped_does_not_swallow_the_wake_of_the_next() {
    let (_env, plain) = with_one_place().await;
    let place = plain.reserve().await.unwrap();
    // Gives up; on a task of its own, so that it has another waker.
    let gone = plain.clone();
    tokio::spawn(async move {
        let waited = tokio::time::timeout(Duration::from_millis(5), gone.reserve()).await;
        assert!(waited.is_err());
    })
    .await
    .unwrap();
    let waiting = plain.clone();
    let waiting = tokio::spawn(async move { drop(waiting.reserve().await.unwrap()) });
    yields().await;
    drop(place);
    assert!(
        soon(waiting).await.is_some(),
        "there is a place and nobody else wants it"
    );
}

/// `reserve`: "Who waits first comes first at a local endpoint."
#[tokio::test]
async fn a_newcomer_does_not_take_the_place_of_who_waits() {
    let (_env, plain) = with_one_place().await;
    let place = plain.reserve().await.unwrap();
    let waiter = plain.clone();
    let first = Arc::new(AtomicBool::new(false));
    let got = Arc::clone(&first);
    let waiting = tokio::spawn(async move {
        let place = waiter.reserve().await.unwrap();
        got.store(true, Ordering::SeqCst);
        drop(place);
    });
    yields().await;
    drop(place);
    let newcomer = plain.reserve().await.unwrap();
    assert!(
        first.load(Ordering::SeqCst),
        "the newcomer was served before who waited"
    );
    drop(newcomer);
    waiting.await.unwrap();
}

/// `Place::Local` has no drop of its own: a closure that panics keeps it for ever.
#[tokio::test]
async fn a_permit_whose_ask_panics_is_free_again() {
    let (_env, plain) = with_one_place().await;
    let asking = plain.clone();
    let panicked = tokio::spawn(async move {
        let place = asking.reserve().await.unwrap();
        let _ = place.ask::<u32>(|_| panic!("on purpose")).await;
    });
    assert!(panicked.await.is_err());
    assert!(soon(plain.reserve()).await.is_some(), "the place is lost");
}

/// The same where the weight function panics.
#[tokio::test]
async fn a_permit_whose_weight_panics_is_free_again() {
    let env = RpcEnv::client("alone").await.unwrap();
    let weighed = env
        .endpoint("weighed")
        .messages_max(1)
        .weight(|message| {
            if let Msg::Panic = message {
                panic!("on purpose")
            } else {
                1
            }
        })
        .setup(plain())
        .unwrap();
    let sending = weighed.clone();
    let panicked = tokio::spawn(async move {
        let place = sending.reserve().await.unwrap();
        drop(place.send(Msg::Panic));
    });
    assert!(panicked.await.is_err());
    assert!(soon(weighed.reserve()).await.is_some(), "the place is lost");
}

/// `poll_next` goes to sleep without a look at those who wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_waits_is_woken_when_the_inbox_runs_empty() {
    let (env, plain) = with_one_place().await;
    let done = Arc::new(AtomicU64::new(0));
    let (sending, counted) = (plain.clone(), Arc::clone(&done));
    tokio::spawn(async move {
        loop {
            sending.reserve().await.unwrap().send(Msg::Note(1)).unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let mut last = 0;
    let seconds = std::env::var("ALOHA_STRESS_SECONDS").map_or(2, |text| text.parse().unwrap());
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = done.load(Ordering::Relaxed);
        assert!(
            now > last,
            "stuck after {now}; {} wait",
            env.snapshot().endpoints[0].waiting
        );
        last = now;
    }
}

// ---- an endpoint's task ------------------------------------------------------------------------

/// The weight function was called on the endpoint's task too, unguarded: the task was gone, and nobody heard of it.
#[tokio::test]
async fn a_weight_function_that_panics_does_not_wedge_the_endpoint() {
    let env = RpcEnv::client("alone").await.unwrap();
    let times = AtomicU32::new(0);
    let weighed = env
        .endpoint("weighed")
        .weight(move |_| {
            assert!(times.fetch_add(1, Ordering::SeqCst) != 1, "on purpose");
            1
        })
        .setup(plain())
        .unwrap();
    assert!(matches!(soon(weighed.ask(Msg::Ask)).await, Some(Ok(7))));
    let asking = weighed.clone();
    let panicked = tokio::spawn(async move { asking.ask(Msg::Ask).await });
    assert!(panicked.await.is_err(), "the panic is the sender's own");
    assert!(matches!(soon(weighed.ask(Msg::Ask)).await, Some(Ok(7))));
}

/// So does a `Metrics` that panics.
#[tokio::test]
async fn metrics_that_panic_do_not_wedge_the_endpoint() {
    struct Broken;
    impl Metrics for Broken {
        fn on_handled(&self, _: &str, _: Duration) {
            panic!("on purpose");
        }
    }
    let env = RpcEnv::builder("alone")
        .metrics(Broken)
        .start()
        .await
        .unwrap();
    let plain = env.setup_endpoint("plain", plain()).unwrap();
    let ended = env.watch(&plain);
    assert_eq!(plain.ask(Msg::Ask).await.unwrap(), 7);
    yields().await;
    let lives = soon(plain.ask(Msg::Ask)).await;
    let ended = soon(ended).await;
    assert!(
        lives.is_some() || ended.is_some(),
        "it neither answers nor ends"
    );
}

/// Panics when it is dropped.
#[derive(Debug, Serialize, Deserialize)]
enum Bomb {
    Tick,
    Set,
}

static ARMED: AtomicBool = AtomicBool::new(false);

impl Drop for Bomb {
    fn drop(&mut self) {
        if matches!(self, Self::Tick) && ARMED.load(Ordering::SeqCst) && !std::thread::panicking() {
            panic!("on purpose");
        }
    }
}

/// `ctx.clear()` drops timers unguarded.
#[tokio::test]
async fn a_timer_whose_message_panics_in_drop_does_not_take_the_endpoint_along() {
    struct Setter;
    impl RpcEndpoint for Setter {
        type Message = Bomb;
        async fn receive(
            &mut self,
            _: Bomb,
            ctx: &EndpointContext<Bomb>,
        ) -> Result<(), EndpointError> {
            ctx.send_after(Duration::from_secs(3600), Bomb::Tick);
            Ok(())
        }
    }
    let env = RpcEnv::client("alone").await.unwrap();
    let setter = env.setup_endpoint("setter", Setter).unwrap();
    setter.send(Bomb::Set).unwrap();
    yields().await;
    ARMED.store(true, Ordering::SeqCst);
    let ended = env.watch(&setter);
    env.stop(&setter);
    assert!(soon(ended).await.is_some(), "nobody hears of its end");
}

/// A stop that came in the same batch as the panic waits for the whole pause.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_the_pause_of_a_restart() {
    let env = RpcEnv::client("alone").await.unwrap();
    let policy = RestartPolicy {
        backoff_min: Duration::from_secs(1_000),
        backoff_max: Duration::from_secs(1_000),
        ..RestartPolicy::default()
    };
    let failing = env.endpoint("failing").setup_with(policy, plain).unwrap();
    failing.send(Msg::Panic).unwrap();
    let began = tokio::time::Instant::now();
    let ended = env.drain(&failing, Duration::from_secs(1)).await;
    assert_eq!(ended, Termination::Stopped);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "it took {:?}",
        began.elapsed()
    );
}

/// Once stopped, `restart` neither waits nor looks at the stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_that_cannot_start_can_be_stopped() {
    static STARTS: AtomicU32 = AtomicU32::new(0);
    struct Unstartable;
    impl RpcEndpoint for Unstartable {
        type Message = Msg;
        async fn on_start(&mut self, _: &EndpointContext<Msg>) -> Result<(), EndpointError> {
            // Would go on for ever; the test is to end.
            if STARTS.fetch_add(1, Ordering::SeqCst) < 100_000 {
                return Err(EndpointError::new("database", "not there yet"));
            }
            Ok(())
        }
        async fn on_error(&mut self, _: EndpointError, _: &EndpointContext<Msg>) -> Directive {
            Directive::Restart
        }
    }
    let env = RpcEnv::client("alone").await.unwrap();
    let policy = RestartPolicy {
        restarts_max: u32::MAX,
        ..RestartPolicy::default()
    };
    let unstartable = env
        .endpoint("it")
        .setup_with(policy, || Unstartable)
        .unwrap();
    until(|| STARTS.load(Ordering::SeqCst) > 0).await;
    env.drain(&unstartable, Duration::from_secs(1)).await;
    let starts = STARTS.load(Ordering::SeqCst);
    assert!(
        starts < 100,
        "it was made {starts} times, without a pause, before it stopped"
    );
}

/// `on_controls` loses what is left of the batch's control lane when a callback leads to a restart.
#[tokio::test]
async fn news_of_the_control_lane_outlive_a_restart() {
    struct Watcher(Arc<AtomicU32>, Vec<RpcEndpointRef<Msg>>);
    impl RpcEndpoint for Watcher {
        type Message = Msg;
        async fn on_terminated(
            &mut self,
            _: &Terminated,
            _: &EndpointContext<Msg>,
        ) -> Result<(), EndpointError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("on purpose");
        }
        async fn receive(
            &mut self,
            message: Msg,
            ctx: &EndpointContext<Msg>,
        ) -> Result<(), EndpointError> {
            match message {
                Msg::Note(_) => self.1.iter().for_each(|other| ctx.watch(other)),
                Msg::Ask(call) => call.reply(1),
                _ => {}
            }
            Ok(())
        }
    }
    let env = RpcEnv::client("alone").await.unwrap();
    let others: Vec<_> = (0..3)
        .map(|n| env.setup_endpoint(&format!("other{n}"), plain()).unwrap())
        .collect();
    let heard = Arc::new(AtomicU32::new(0));
    let (counter, watched) = (Arc::clone(&heard), others.clone());
    let policy = RestartPolicy {
        backoff_min: Duration::from_millis(1),
        ..RestartPolicy::default()
    };
    let watcher = env
        .endpoint("watcher")
        .setup_with(policy, move || {
            Watcher(Arc::clone(&counter), watched.clone())
        })
        .unwrap();
    watcher.send(Msg::Note(0)).unwrap();
    assert_eq!(watcher.ask(Msg::Ask).await.unwrap(), 1);
    yields().await;
    others.iter().for_each(|other| env.stop(other));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(heard.load(Ordering::SeqCst), 3, "three ended");
}

/// "There was room for all of them a moment ago": the stash and what is replayed have a bound each.
#[tokio::test]
async fn what_was_put_aside_outlives_a_restart() {
    let env = RpcEnv::client("alone").await.unwrap();
    let started = Arc::new(AtomicU32::new(0));
    let policy = RestartPolicy {
        backoff_min: Duration::from_millis(1),
        ..RestartPolicy::default()
    };
    let life = Arc::clone(&started);
    let factory = move || {
        let life = life.fetch_add(1, Ordering::SeqCst);
        act(move |message, ctx| {
            match message {
                Msg::Note(_) if life == 0 => {
                    ctx.unstash_all();
                    // What is left is taken up later: behind what was put aside before.
                    panic!("on purpose");
                }
                Msg::Keep(call) if life == 0 => {
                    ctx.unstash_all();
                    drop(ctx.stash(Msg::Keep(call)));
                    panic!("on purpose");
                }
                Msg::Ask(call) if life == 0 => drop(ctx.stash(Msg::Ask(call))),
                Msg::Ask(call) | Msg::Keep(call) => call.reply(7),
                _ => {}
            }
            Box::pin(async { Ok(()) })
        })
    };
    let stashing = env
        .endpoint("stashing")
        .messages_max(2)
        .setup_with(policy, factory)
        .unwrap();
    let (one, two) = (stashing.ask(Msg::Ask), stashing.ask(Msg::Ask));
    yields().await;
    let three = stashing.ask(Msg::Keep);
    let answers = soon(async { (one.await, two.await, three.await) })
        .await
        .unwrap();
    assert!(matches!(&answers, (Ok(7), Ok(7), Ok(7))), "{answers:?}");
}

/// From a task of its own, `unstash_all` wakes nobody.
#[tokio::test]
async fn unstash_all_from_a_task_wakes_the_endpoint() {
    let env = RpcEnv::client("alone").await.unwrap();
    let mut first = true;
    let stashing = env
        .setup_endpoint(
            "stashing",
            act(move |message, ctx| {
                if let Msg::Ask(call) = message {
                    if std::mem::take(&mut first) {
                        ctx.stash(Msg::Ask(call)).unwrap();
                        let later = ctx.clone();
                        ctx.spawn(async move {
                            tokio::time::sleep(Duration::from_millis(20)).await;
                            later.unstash_all();
                        });
                    } else {
                        call.reply(7);
                    }
                }
                Box::pin(async { Ok(()) })
            }),
        )
        .unwrap();
    let answer = soon(stashing.ask(Msg::Ask)).await;
    assert!(matches!(answer, Some(Ok(7))), "{answer:?}");
}

/// A period of nothing never lets the endpoint see its mail, where time stands still.
#[tokio::test(start_paused = true)]
async fn a_period_of_zero_leaves_time_for_messages() {
    static TICKS: AtomicU32 = AtomicU32::new(0);
    static END: AtomicBool = AtomicBool::new(false);
    let env = RpcEnv::client("alone").await.unwrap();
    let mut set = false;
    let ticking = env
        .setup_endpoint(
            "ticking",
            act(move |message, ctx| {
                if !std::mem::replace(&mut set, true) {
                    ctx.send_every(Duration::ZERO, move || {
                        // Would go on for ever; the test is to end.
                        if TICKS.fetch_add(1, Ordering::SeqCst) == 10_000 {
                            END.store(true, Ordering::SeqCst);
                        }
                        Msg::Note(0)
                    });
                }
                if END.load(Ordering::SeqCst) {
                    return Box::pin(std::future::pending());
                }
                if let Msg::Ask(call) = message {
                    call.reply(TICKS.load(Ordering::SeqCst));
                }
                Box::pin(async { Ok(()) })
            }),
        )
        .unwrap();
    ticking.ask(Msg::Ask).await.unwrap();
    let ticks = soon(ticking.ask(Msg::Ask)).await;
    assert!(
        ticks.is_some(),
        "ten thousand ticks came before one message"
    );
}

/// `end_life` ends only what was spawned before.
#[tokio::test]
async fn what_a_context_spawns_after_the_end_does_not_run_on() {
    let env = RpcEnv::client("alone").await.unwrap();
    let (out, mut contexts) = mpsc::channel(1);
    let plain = env
        .setup_endpoint(
            "plain",
            act(move |_, ctx| {
                out.try_send(ctx.clone()).unwrap();
                Box::pin(async { Ok(()) })
            }),
        )
        .unwrap();
    plain.send(Msg::Note(0)).unwrap();
    let ctx = contexts.recv().await.unwrap();
    env.stop(&plain);
    env.watch(&plain).await;
    let ran = Arc::new(AtomicBool::new(false));
    let running = Arc::clone(&ran);
    ctx.spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        running.store(true, Ordering::SeqCst);
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        !ran.load(Ordering::SeqCst),
        "its endpoint had ended long before"
    );
}

/// Errors of the last handlers of a concurrent endpoint reach nobody.
#[tokio::test]
async fn an_error_of_the_last_concurrent_handler_is_heard_of() {
    struct Last(Arc<Semaphore>, Arc<AtomicU32>);
    impl ConcurrentEndpoint for Last {
        type Message = Msg;
        async fn receive(&self, _: Msg, _: &EndpointContext<Msg>) -> Result<(), EndpointError> {
            self.0.acquire().await?.forget();
            Err(EndpointError::new("broke", "no money left"))
        }
        async fn on_error(&self, _: EndpointError, _: &EndpointContext<Msg>) -> Directive {
            self.1.fetch_add(1, Ordering::SeqCst);
            Directive::Resume
        }
    }
    let env = RpcEnv::client("alone").await.unwrap();
    let (gate, errors) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU32::new(0)));
    let last = Last(Arc::clone(&gate), Arc::clone(&errors));
    let last = env.endpoint("last").setup_concurrent(2, last).unwrap();
    last.send(Msg::Note(0)).unwrap();
    yields().await;
    env.stop(&last);
    yields().await;
    gate.add_permits(1);
    env.watch(&last).await;
    assert_eq!(
        errors.load(Ordering::SeqCst),
        1,
        "errors of any callback go to on_error"
    );
}

// ---- asks --------------------------------------------------------------------------------------

/// Without a deadline a local ask has no slot that the shutdown could end.
#[tokio::test]
async fn the_shutdown_ends_every_ask() {
    let env = RpcEnv::client("alone").await.unwrap();
    let (out, mut calls) = mpsc::channel(1);
    let plain = env
        .setup_endpoint(
            "plain",
            act(move |message, _| {
                if let Msg::Keep(call) = message {
                    out.try_send(call).unwrap();
                }
                Box::pin(async { Ok(()) })
            }),
        )
        .unwrap();
    let asked = tokio::spawn(plain.ask_for(Duration::MAX, Msg::Keep));
    let _kept = calls.recv().await.unwrap();
    env.shutdown().await;
    assert!(soon(asked).await.is_some(), "the environment is shut down");
}

/// A local call has room for one waker.
#[tokio::test]
async fn all_who_wait_for_a_cancel_hear_of_it() {
    let env = RpcEnv::client("alone").await.unwrap();
    let (out, mut calls) = mpsc::channel(1);
    let plain = env
        .setup_endpoint(
            "plain",
            act(move |message, _| {
                if let Msg::Keep(call) = message {
                    out.try_send(call).unwrap();
                }
                Box::pin(async { Ok(()) })
            }),
        )
        .unwrap();
    let asked = plain.ask(Msg::Keep);
    let call = Arc::new(calls.recv().await.unwrap());
    let waiting = [0, 1].map(|_| {
        let call = Arc::clone(&call);
        tokio::spawn(async move { call.cancelled().await })
    });
    yields().await;
    drop(asked);
    for (number, waiting) in waiting.into_iter().enumerate() {
        assert!(
            soon(waiting).await.is_some(),
            "waiter {number} waits for ever"
        );
    }
}

/// The ask that is the link is skipped when its cancel comes before it is handled, as any other.
#[test]
fn a_link_of_an_endpoint_that_ends_at_once_ends_the_other() {
    struct Brief(RpcEndpointRef<Msg>);
    impl RpcEndpoint for Brief {
        type Message = Msg;
        async fn receive(
            &mut self,
            _: Msg,
            ctx: &EndpointContext<Msg>,
        ) -> Result<(), EndpointError> {
            ctx.link(&self.0);
            ctx.stop();
            Ok(())
        }
    }
    Simulation::run(9, async |sim| {
        let (server, client) = (sim.env("server").await, sim.client("client").await);
        let there = server.setup_endpoint("there", plain()).unwrap();
        let address = server.address().unwrap();
        let far: RpcEndpointRef<Msg> = client
            .retrieve_endpoint_ref(address, "there")
            .await
            .unwrap();
        assert_eq!(far.ask(Msg::Ask).await.unwrap(), 7);
        let brief = client.setup_endpoint("brief", Brief(far)).unwrap();
        // Link and cancel arrive together.
        sim.network().partition("server", "client");
        brief.send(Msg::Note(0)).unwrap();
        client.watch(&brief).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        sim.network().heal("server", "client");
        let ended = tokio::time::timeout(Duration::from_secs(60), server.watch(&there)).await;
        assert!(ended.is_ok(), "it lives on alone");
    });
}

/// The verifier and the timer of an environment that could not listen run on.
#[tokio::test]
async fn an_environment_that_could_not_start_leaves_nothing_behind() {
    struct Noted(Arc<AtomicBool>);
    impl Metrics for Noted {}
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let taken = RpcEnv::builder("taken")
        .bind("127.0.0.1:0")
        .start()
        .await
        .unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    let started = RpcEnv::builder("other")
        .bind(taken.address().unwrap().to_string())
        .metrics(Noted(Arc::clone(&gone)))
        .start()
        .await;
    assert!(started.is_err());
    yields().await;
    assert!(gone.load(Ordering::SeqCst), "its tasks run on");
}

/// The connection knows the inbox of before, and finds out by losing a message.
#[tokio::test]
async fn a_name_that_was_set_up_anew_is_reached_at_once() {
    let pair = memory().await;
    let first = pair.server.setup_endpoint("name", plain()).unwrap();
    let found: RpcEndpointRef<Msg> = pair.look_up("name").await;
    assert_eq!(found.ask(Msg::Ask).await.unwrap(), 7);
    let ended = pair.server.watch(&first);
    pair.server.stop(&first);
    ended.await;
    pair.server.setup_endpoint("name", plain()).unwrap();
    let answers = (found.ask(Msg::Ask).await, found.ask(Msg::Ask).await);
    assert!(matches!(answers, (Ok(7), Ok(7))), "{answers:?}");
}

/// Every read delivers to each inbox that the connection knows, also when there is nothing for it, and notes the time.
#[tokio::test]
async fn an_idle_endpoint_has_no_oldest_message() {
    struct Quiet;
    impl Metrics for Quiet {}
    let pair = Pair::with(Join::Memory, Codec::Bincode, |builder| {
        builder.metrics(Quiet)
    })
    .await;
    let idle = pair.set_up("idle", plain()).await;
    let busy = pair.set_up("busy", plain()).await;
    assert_eq!(idle.ask(Msg::Ask).await.unwrap(), 7);
    assert_eq!(busy.ask(Msg::Ask).await.unwrap(), 7);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let snapshot = pair.server.snapshot();
    let idle = snapshot
        .endpoints
        .iter()
        .find(|endpoint| &*endpoint.name == "idle")
        .unwrap();
    assert_eq!((idle.waiting, idle.oldest), (0, None));
}

// ---- shutdown ----------------------------------------------------------------------------------

/// A `shutdown` whose caller gave up is never finished, and everybody else waits for it.
#[tokio::test]
async fn a_shutdown_that_was_given_up_can_be_called_again() {
    let env = RpcEnv::client("alone").await.unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let slow = env
        .setup_endpoint("slow", gated(&gate, &Arc::default()))
        .unwrap();
    slow.send(Msg::Note(0)).unwrap();
    yields().await;
    assert!(
        tokio::time::timeout(Duration::from_millis(20), env.shutdown())
            .await
            .is_err()
    );
    gate.add_permits(10);
    yields().await;
    let second = soon(env.shutdown_within(Duration::from_millis(100))).await;
    assert!(
        second.is_some(),
        "every endpoint has stopped, and it does not end"
    );
}

/// An endpoint that is set up while `stop_all` walks is never stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_endpoint_set_up_during_the_shutdown_does_not_hang_it() {
    for round in 0..3_000 {
        let env = RpcEnv::client("alone").await.unwrap();
        let go = Arc::new(AtomicBool::new(false));
        let setting_up: Vec<_> = (0..3)
            .map(|thread| {
                let (env, go) = (env.clone(), Arc::clone(&go));
                tokio::spawn(async move {
                    for number in 0.. {
                        if env
                            .setup_endpoint(&format!("e{thread}-{number}"), plain())
                            .is_err()
                        {
                            return;
                        }
                        if number == 3 {
                            go.store(true, Ordering::SeqCst);
                        }
                    }
                })
            })
            .collect();
        until(|| go.load(Ordering::SeqCst)).await;
        let ended = soon(env.shutdown()).await;
        assert!(
            ended.is_some(),
            "round {round}: {} endpoints are left",
            env.snapshot().endpoints.len()
        );
        for task in setting_up {
            task.await.unwrap();
        }
    }
}

/// A relay whose client takes nothing more waits in `reserve`, and the shutdown for it.
#[test]
fn a_client_that_takes_nothing_does_not_hold_up_a_shutdown() {
    Simulation::run(6, async |sim| {
        let relay = sim.env("relay").await;
        let (one, two) = (sim.client("one").await, sim.client("two").await);
        relay.setup_endpoint("board", Board::default()).unwrap();
        let probe = Probe::<Msg>::set_up(&one, "probe");
        let found = post_and_find(&relay, &one, &two, probe.endpoint_ref()).await;
        while let Ok(Ok(place)) =
            tokio::time::timeout(Duration::from_secs(5), found.reserve()).await
        {
            place.send(Msg::Note(0)).unwrap();
        }
        let ended = tokio::time::timeout(Duration::from_secs(3_600), relay.shutdown()).await;
        assert!(ended.is_ok(), "an hour was not enough to shut down");
    });
}

// ---- relays, watches, topics -------------------------------------------------------------------

#[derive(Debug, Serialize, Deserialize)]
enum Notice {
    Post(RpcEndpointRef<Msg>, RpcCallContext<()>),
    Find(RpcCallContext<RpcEndpointRef<Msg>>),
}

#[derive(Default)]
struct Board(Option<RpcEndpointRef<Msg>>);

impl RpcEndpoint for Board {
    type Message = Notice;
    async fn receive(
        &mut self,
        message: Notice,
        _: &EndpointContext<Notice>,
    ) -> Result<(), EndpointError> {
        match message {
            Notice::Post(endpoint, call) => {
                self.0 = Some(endpoint);
                call.reply(());
            }
            Notice::Find(call) => call.reply(self.0.clone().unwrap()),
        }
        Ok(())
    }
}

async fn post_and_find(
    at: &RpcEnv,
    one: &RpcEnv,
    two: &RpcEnv,
    endpoint: &RpcEndpointRef<Msg>,
) -> RpcEndpointRef<Msg> {
    let address = at.address().unwrap();
    let board: RpcEndpointRef<Notice> = one.retrieve_endpoint_ref(address, "board").await.unwrap();
    let endpoint = endpoint.clone();
    board
        .ask(|call| Notice::Post(endpoint, call))
        .await
        .unwrap();
    let board: RpcEndpointRef<Notice> = two.retrieve_endpoint_ref(address, "board").await.unwrap();
    board.ask(Notice::Find).await.unwrap()
}

/// A watch by a relay watches the relay, which lives as long as the connection to the client.
#[test]
fn a_watch_by_a_relay_ends_with_the_endpoint() {
    Simulation::run(7, async |sim| {
        let relay = sim.env("relay").await;
        let (one, two) = (sim.client("one").await, sim.client("two").await);
        relay.setup_endpoint("board", Board::default()).unwrap();
        let theirs = one.setup_endpoint("theirs", plain()).unwrap();
        let found = post_and_find(&relay, &one, &two, &theirs).await;
        assert_eq!(found.ask(Msg::Ask).await.unwrap(), 7);
        let watch = two.watch(&found);
        tokio::time::sleep(Duration::from_secs(1)).await;
        one.stop(&theirs);
        one.watch(&theirs).await;
        let ended = tokio::time::timeout(Duration::from_secs(60), watch).await;
        assert!(ended.is_ok(), "it ended a minute ago, and nobody says so");
    });
}

/// Each subscription leaves a watch behind when it is ended: an ask without a limit for a remote one.
#[tokio::test]
async fn subscriptions_that_were_ended_leave_nothing_behind() {
    let pair = memory().await;
    let topic = pair.server.setup_topic::<u32>("topic").unwrap();
    drop(topic);
    let address = pair.server.address().unwrap();
    let topic = pair
        .caller
        .retrieve_topic::<u32>(address, "topic")
        .await
        .unwrap();
    let probe = Probe::<u32>::set_up(&pair.caller, "probe");
    for _ in 0..200 {
        topic.subscribe(probe.endpoint_ref()).await.unwrap();
        topic.unsubscribe(probe.endpoint_ref()).await.unwrap();
    }
    yields().await;
    let outstanding: u32 = pair
        .server
        .snapshot()
        .connections
        .iter()
        .map(|connection| connection.requests_outstanding)
        .sum();
    assert!(
        outstanding < 5,
        "{outstanding} asks of the topic are outstanding"
    );
}

/// The same for members of a group.
#[tokio::test]
async fn members_that_left_leave_nothing_behind() {
    let pair = memory().await;
    let remote = pair.set_up("member", plain()).await;
    let group = pair.caller.setup_group::<Msg>("group").unwrap();
    for _ in 0..200 {
        group.join(&remote);
        group.leave(&remote);
        tokio::task::yield_now().await;
    }
    yields().await;
    let outstanding = pair.caller.snapshot().connections[0].requests_outstanding;
    assert!(
        outstanding < 5,
        "{outstanding} asks of the group are outstanding"
    );
}

/// The router waits for one member, whatever the others do meanwhile.
#[tokio::test]
async fn a_member_that_is_stuck_does_not_hold_up_the_group() {
    let env = RpcEnv::client("alone").await.unwrap();
    let group = env.setup_group::<Msg>("group").unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let gates = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    for (number, gate) in gates.iter().enumerate() {
        let member = env.endpoint(format!("member{number}")).messages_max(1);
        group.join(&member.setup(gated(gate, &seen)).unwrap());
    }
    for number in 0..12 {
        group.endpoint_ref().send(Msg::Note(number)).unwrap();
        yields().await;
    }
    gates[1].add_permits(1_000);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.len() >= 10,
        "one member is free, and of 12 messages it got {seen:?}"
    );
}

/// What is over the frame limit is no overload: its subscribers count as gone.
#[tokio::test]
async fn a_publication_that_is_too_large_costs_nobody_the_subscription() {
    let pair = memory().await;
    let topic = pair.server.setup_topic::<Vec<u8>>("topic").unwrap();
    let address = pair.server.address().unwrap();
    let theirs = pair
        .caller
        .retrieve_topic::<Vec<u8>>(address, "topic")
        .await
        .unwrap();
    let mut probe = Probe::<Vec<u8>>::set_up(&pair.caller, "probe");
    theirs.subscribe(probe.endpoint_ref()).await.unwrap();
    topic.publish(vec![1]).unwrap();
    assert_eq!(
        probe.next_within(Duration::from_secs(2)).await,
        Some(vec![1])
    );
    topic.publish(vec![2; 3 << 20]).unwrap();
    topic.publish(vec![3]).unwrap();
    assert_eq!(
        probe.next_within(Duration::from_secs(2)).await,
        Some(vec![3])
    );
}

// ---- hostile peers -----------------------------------------------------------------------------

mod hostile {
    use super::*;
    use aloha_transport::{
        Body, Charge, Incoming, RequestHandler, TransportClient, TransportContext,
    };
    use bytes::Bytes;

    struct Deaf;
    impl RequestHandler for Deaf {
        fn on_messages(&mut self, _: &Bytes, _: &mut Vec<Incoming>) {}
    }

    async fn peer(server: &RpcEnv) -> TransportClient {
        let runtime = Arc::new(aloha_rpc::TokioRuntime::current());
        let context =
            TransportContext::with_handlers("hostile", runtime, |_| Box::new(Deaf)).codec(1);
        let address = server.address().unwrap().to_string();
        context
            .create_client_factory()
            .create_client(&address)
            .await
            .unwrap()
    }

    fn introduce(number: u8, name: &str) -> Vec<u8> {
        let mut head = vec![64 | 1, number, name.len() as u8];
        head.extend_from_slice(name.as_bytes());
        head
    }

    /// Each number is a flow with the initial credit, also for a name that has one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_name_that_is_introduced_again_and_again_gives_no_more_credit() {
        let server = RpcEnv::builder("server")
            .bind("127.0.0.1:0")
            .start()
            .await
            .unwrap();
        let gate = Arc::new(Semaphore::new(0));
        server
            .endpoint("slow")
            .messages_max(8)
            .setup(gated(&gate, &Arc::default()))
            .unwrap();
        let peer = peer(&server).await;
        'peer: for number in 0..20 {
            for message in 0..16_000 {
                let head = if message == 0 {
                    introduce(number, "slow")
                } else {
                    vec![64, number]
                };
                // Note(0) in bincode.
                let sent = peer.one_way(Charge::Free, &head, &Body::Copied(&[0, 0]));
                if sent.is_err() {
                    break 'peer;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let waiting = server.snapshot().endpoints[0].waiting;
        assert!(
            waiting <= 16_384 + 8,
            "{waiting} messages of one connection wait for an endpoint with a limit of 8"
        );
    }

    /// After an abort the rest of the read is still handed on; its calls are registered on a connection that is
    /// closed, and nobody tells those who wait for their cancel.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn calls_behind_an_abort_count_as_cancelled() {
        let server = RpcEnv::builder("server")
            .bind("127.0.0.1:0")
            .start()
            .await
            .unwrap();
        let (out, mut ends) = mpsc::channel(64);
        server
            .setup_endpoint(
                "keeper",
                act(move |message, _| {
                    if let Msg::Keep(call) = message {
                        let out = out.clone();
                        tokio::spawn(async move {
                            out.send("begun").await.unwrap();
                            call.cancelled().await;
                            out.send("cancelled").await.unwrap();
                        });
                    }
                    Box::pin(async { Ok(()) })
                }),
            )
            .unwrap();
        let peer = peer(&server).await;
        let mut head = introduce(0, "keeper");
        peer.one_way(Charge::Free, &head, &Body::Copied(&[0, 0]))
            .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        // In one write: one without a receiver, then Keep with call 1 of its envelope, id 9.
        peer.one_way(Charge::Free, &[0], &Body::Copied(&[0, 0]))
            .unwrap();
        head = vec![64 | 8, 0, 1];
        head.extend_from_slice(&9_u32.to_le_bytes());
        // The abort may be faster than this; then there is nothing to see.
        drop(peer.one_way(Charge::Free, &head, &Body::Copied(&[3, 1])));
        match tokio::time::timeout(Duration::from_secs(2), ends.recv()).await {
            Err(_) => return, // Not handed on: as well.
            Ok(begun) => assert_eq!(begun, Some("begun")),
        }
        let cancelled = tokio::time::timeout(Duration::from_secs(4), ends.recv()).await;
        assert!(
            cancelled.is_ok(),
            "the connection is closed, and its call waits for ever"
        );
    }

    /// A metric that panics ends the reader alone: the connection stays, deaf.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn metrics_that_panic_do_not_leave_a_deaf_connection() {
        struct Broken;
        impl Metrics for Broken {
            fn on_dead_letter(&self, _: &aloha_rpc::DeadLetter) {
                panic!("on purpose");
            }
        }
        let server = RpcEnv::builder("server")
            .bind("127.0.0.1:0")
            .metrics(Broken)
            .start()
            .await
            .unwrap();
        server.setup_endpoint("plain", plain()).unwrap();
        let stopped = server.setup_endpoint("stopped", plain()).unwrap();
        let client = RpcEnv::client("client").await.unwrap();
        let address = server.address().unwrap();
        let found: RpcEndpointRef<Msg> = client
            .retrieve_endpoint_ref(address, "plain")
            .await
            .unwrap();
        let gone: RpcEndpointRef<Msg> = client
            .retrieve_endpoint_ref(address, "stopped")
            .await
            .unwrap();
        server.stop(&stopped);
        server.watch(&stopped).await;
        gone.send(Msg::Note(1)).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = soon(found.ask(Msg::Ask)).await;
        assert!(
            answer.is_some(),
            "neither an answer nor the end of the connection"
        );
    }
}

/// `post` drops what it displaced under the lock of the inbox when a stop came in between.
#[test]
fn a_message_is_not_dropped_under_the_lock_of_an_inbox() {
    use std::sync::OnceLock;
    static NEWS: OnceLock<(RpcEnv, RpcEndpointRef<Told>)> = OnceLock::new();
    #[derive(Debug, Serialize, Deserialize)]
    struct Told(bool);
    impl Drop for Told {
        fn drop(&mut self) {
            if self.0
                && let Some((_, news)) = NEWS.get()
            {
                drop(news.send(Self(false)));
            }
        }
    }
    struct Silent;
    impl RpcEndpoint for Silent {
        type Message = Told;
    }
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let env = RpcEnv::client("alone").await.unwrap();
            let weighed = AtomicU32::new(0);
            let news = env
                .endpoint("news")
                .messages_max(1)
                .overflow(Overflow::DropOldest)
                .weight(move |_: &Told| {
                    // The third is the oldest, with the lock released. Another thread might as well.
                    if weighed.fetch_add(1, Ordering::SeqCst) == 2 {
                        let (env, news) = NEWS.get().unwrap();
                        env.stop(news);
                    }
                    1
                })
                .setup(Silent)
                .unwrap();
            NEWS.set((env.clone(), news.clone())).unwrap();
            news.send(Told(true)).unwrap();
            drop(news.send(Told(false)));
            done.send(()).unwrap();
        });
    });
    let ended = ended.recv_timeout(Duration::from_secs(4));
    assert!(ended.is_ok(), "a deadlock");
}
