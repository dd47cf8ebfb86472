//! Restarts, watches, links, timers, messages put aside, changes of behaviour, and orderly ends.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aloha_rpc::testing::{Probe, Simulation};
use aloha_rpc::{
    AskError, Behavior, BehaviorEndpoint, DeadLetterReason, Directive, EndpointContext,
    EndpointError, Next, RestartPolicy, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
    Terminated, Termination,
};
use common::{Pair, until};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

#[derive(Debug, Serialize, Deserialize)]
enum Job {
    Add(u32),
    Total(RpcCallContext<u32>),
    Panic,
    PanicAsked(RpcCallContext<u32>),
    Fail(RpcCallContext<u32>),
    Stash(u32),
    Unstash,
    Hold(RpcCallContext<u32>),
}

/// Adds up. What it does with errors is told from outside.
#[derive(Default)]
struct Adder {
    total: u32,
    directive: Option<Directive>,
    ends: Option<mpsc::Sender<Terminated>>,
    gate: Option<Arc<Semaphore>>,
    started: Option<Arc<AtomicU32>>,
    stopped: Option<Arc<AtomicU32>>,
}

impl RpcEndpoint for Adder {
    type Message = Job;

    async fn on_start(&mut self, _: &EndpointContext<Job>) -> Result<(), EndpointError> {
        if let Some(started) = &self.started {
            started.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    async fn receive(
        &mut self,
        message: Job,
        ctx: &EndpointContext<Job>,
    ) -> Result<(), EndpointError> {
        match message {
            Job::Add(number) => self.total += number,
            Job::Total(call) => call.reply(self.total),
            Job::Panic => panic!("on purpose"),
            Job::PanicAsked(call) => {
                let _held = call;
                panic!("on purpose");
            }
            Job::Fail(call) => {
                call.reply(self.total);
                return Err(EndpointError::new("broke", "no money left"));
            }
            Job::Stash(number) => {
                if self.total == 0 {
                    ctx.stash(Job::Stash(number)).expect("there is room");
                } else {
                    self.total = self.total * 10 + number;
                }
            }
            Job::Unstash => {
                self.total = 1;
                ctx.unstash_all();
            }
            Job::Hold(call) => {
                if let Some(started) = &self.started {
                    started.fetch_add(1, Ordering::SeqCst);
                }
                let gate = self.gate.clone().expect("there is a gate");
                let _place = gate.acquire().await;
                call.reply(self.total);
            }
        }
        Ok(())
    }

    async fn on_error(&mut self, error: EndpointError, ctx: &EndpointContext<Job>) -> Directive {
        self.directive
            .unwrap_or_else(|| ctx.default_directive(&error))
    }

    async fn on_terminated(
        &mut self,
        ended: &Terminated,
        _: &EndpointContext<Job>,
    ) -> Result<(), EndpointError> {
        if let Some(ends) = &self.ends {
            ends.send(ended.clone()).await?;
        }
        Ok(())
    }

    async fn on_stop(&mut self) -> Result<(), EndpointError> {
        if let Some(stopped) = &self.stopped {
            stopped.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

const QUICK: RestartPolicy = RestartPolicy {
    restarts_max: 3,
    window: Duration::from_secs(60),
    backoff_min: Duration::from_millis(1),
    backoff_max: Duration::from_millis(4),
};

async fn a_restart_keeps_the_inbox_and_not_the_panicking_message(pair: Pair) {
    let made = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&made);
    pair.server
        .endpoint("adder")
        .setup_with(QUICK, move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Adder::default()
        })
        .expect("a new name");
    let adder: RpcEndpointRef<Job> = pair.look_up("adder").await;
    adder.send(Job::Add(1)).expect("room");
    let panicked = adder.ask(Job::PanicAsked);
    adder.send(Job::Add(20)).expect("room");
    adder.send(Job::Add(300)).expect("room");
    let total = adder.ask(Job::Total).await.expect("it lives again");
    assert_eq!(
        total, 320,
        "what came after is there, the state before is not"
    );
    assert!(matches!(panicked.await, Err(AskError::Panicked { .. })));
    assert_eq!(made.load(Ordering::SeqCst), 2);
    assert_eq!(pair.server.snapshot().endpoints[0].restarts, 1);
    pair.shutdown().await;
}

async fn a_budget_that_is_used_up_ends_the_endpoint(pair: Pair) {
    let stopped = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&stopped);
    pair.server
        .endpoint("adder")
        .setup_with(QUICK, move || Adder {
            stopped: Some(Arc::clone(&seen)),
            ..Adder::default()
        })
        .expect("a new name");
    let adder: RpcEndpointRef<Job> = pair.look_up("adder").await;
    let watch = pair.caller.watch(&adder);
    pair.watched("adder").await;
    for _ in 0..4 {
        adder.send(Job::Panic).expect("room");
    }
    let left = adder.ask(Job::Total);
    let ended = watch.await;
    assert!(
        matches!(&ended.reason, Termination::Failed { kind, text } if kind == EndpointError::PANIC && text == "on purpose"),
        "{ended}"
    );
    assert!(matches!(left.await, Err(AskError::EndpointStopped { .. })));
    assert_eq!(stopped.load(Ordering::SeqCst), 1);
    pair.shutdown().await;
}

async fn an_error_resumes_or_stops_as_on_error_decides(pair: Pair) {
    let resumes = pair.set_up("resumes", Adder::default()).await;
    assert_eq!(resumes.ask(Job::Fail).await.expect("answered first"), 0);
    assert_eq!(resumes.ask(Job::Total).await.expect("it goes on"), 0);
    let stops = Adder {
        directive: Some(Directive::Stop),
        ..Adder::default()
    };
    let stops = pair.set_up("stops", stops).await;
    let watch = pair.caller.watch(&stops);
    pair.watched("stops").await;
    drop(stops.ask(Job::Fail).await);
    assert!(matches!(watch.await.reason, Termination::Failed { kind, .. } if kind == "broke"));
    pair.shutdown().await;
}

async fn a_watch_hears_of_the_end_once_and_of_one_that_was_never_there(pair: Pair) {
    let (ends, mut heard) = mpsc::channel(8);
    let watched = pair.set_up("watched", Adder::default()).await;
    struct Watcher(RpcEndpointRef<Job>, mpsc::Sender<Terminated>);
    impl RpcEndpoint for Watcher {
        type Message = Job;
        async fn on_start(&mut self, ctx: &EndpointContext<Job>) -> Result<(), EndpointError> {
            ctx.watch(&self.0);
            Ok(())
        }
        async fn on_terminated(
            &mut self,
            ended: &Terminated,
            _: &EndpointContext<Job>,
        ) -> Result<(), EndpointError> {
            Ok(self.1.send(ended.clone()).await?)
        }
    }
    let watcher = Watcher(watched.clone(), ends);
    let watcher = pair
        .caller
        .setup_endpoint("watcher", watcher)
        .expect("a new name");
    let ended = pair.caller.watch(&watched);
    // Answered behind its start.
    drop(watcher.ask(Job::Total).await);
    pair.watched("watched").await;
    let server_side: RpcEndpointRef<Job> = pair
        .server
        .retrieve_endpoint_ref(pair.server.address().expect("it listens"), "watched")
        .await
        .expect("it is there");
    pair.server.stop(&server_side);
    assert_eq!(ended.await.reason, Termination::Stopped);
    let told = heard.recv().await.expect("it is told");
    assert!(told.endpoint.contains("watched@"), "{told}");
    // It takes a moment until the name is free; the watch ends with either answer.
    let gone = pair.caller.watch(&watched).await.reason;
    assert!(matches!(gone, Termination::NotFound | Termination::Stopped));
    pair.shutdown().await;
    assert!(heard.recv().await.is_none(), "it is told once");
}

async fn linked_endpoints_end_together(pair: Pair) {
    let far = pair.set_up("far", Adder::default()).await;
    struct Near(RpcEndpointRef<Job>);
    impl RpcEndpoint for Near {
        type Message = Job;
        async fn on_start(&mut self, ctx: &EndpointContext<Job>) -> Result<(), EndpointError> {
            ctx.link(&self.0);
            Ok(())
        }
        async fn receive(
            &mut self,
            message: Job,
            _: &EndpointContext<Job>,
        ) -> Result<(), EndpointError> {
            if let Job::Total(call) = message {
                call.reply(7);
            }
            Ok(())
        }
    }
    let near = pair.caller.setup_endpoint("near", Near(far.clone()));
    let near = near.expect("a new name");
    assert_eq!(near.ask(Job::Total).await.expect("it is linked"), 7);
    let far_ended = pair.caller.watch(&far);
    pair.watched("far").await;
    pair.caller.stop(&near);
    let reason = far_ended.await.reason;
    assert!(
        matches!(&reason, Termination::Failed { kind, .. } if kind == EndpointError::LINKED),
        "{reason}"
    );

    let far = pair.set_up("far-2", Adder::default()).await;
    let near = pair.caller.setup_endpoint("near-2", Near(far.clone()));
    let near = near.expect("a new name");
    let near_ended = pair.caller.watch(&near);
    assert_eq!(near.ask(Job::Total).await.expect("it is linked"), 7);
    pair.watched("far-2").await;
    far.send(Job::Panic).expect("room");
    assert_eq!(
        far.ask(Job::Total)
            .await
            .expect("a panic alone ends nothing"),
        0
    );
    let far: RpcEndpointRef<Job> = pair
        .server
        .retrieve_endpoint_ref(pair.server.address().expect("it listens"), "far-2")
        .await
        .expect("it is there");
    pair.server.stop(&far);
    let reason = near_ended.await.reason;
    assert!(matches!(reason, Termination::Failed { kind, .. } if kind == EndpointError::LINKED));
    pair.shutdown().await;
}

async fn what_is_put_aside_is_replayed_in_order_before_what_waits(pair: Pair) {
    let adder = pair.set_up("adder", Adder::default()).await;
    for number in [2, 3] {
        adder.send(Job::Stash(number)).expect("room");
    }
    adder.send(Job::Unstash).expect("room");
    adder.send(Job::Stash(4)).expect("room");
    assert_eq!(adder.ask(Job::Total).await.expect("a reply"), 1234);
    pair.shutdown().await;
}

async fn a_drain_handles_what_waits_and_gives_up_at_its_limit(pair: Pair) {
    let gate = Arc::new(Semaphore::new(0));
    let begun = Arc::new(AtomicU32::new(0));
    let adder = Adder {
        gate: Some(Arc::clone(&gate)),
        started: Some(Arc::clone(&begun)),
        ..Adder::default()
    };
    let adder = pair.set_up("adder", adder).await;
    let mut letters = pair.server.observe_dead_letters();
    let running = adder.ask(Job::Hold);
    let waits = adder.ask(Job::Total);
    let there: RpcEndpointRef<Job> = pair
        .server
        .retrieve_endpoint_ref(pair.server.address().expect("it listens"), "adder")
        .await
        .expect("it is there");
    // Its start and the handler that holds.
    let holds = || begun.load(Ordering::SeqCst) == 2;
    until(|| holds() && pair.server.snapshot().endpoints[0].waiting == 1).await;
    let drained = pair.server.drain(&there, Duration::from_millis(20));
    let opened = async {
        // What waited is refused at the limit, while the handler still runs.
        tokio::time::sleep(Duration::from_millis(60)).await;
        gate.add_permits(1);
    };
    let (ended, ()) = tokio::join!(drained, opened);
    assert_eq!(ended, Termination::Stopped);
    assert_eq!(running.await.expect("a handler is never cut short"), 0);
    assert!(matches!(waits.await, Err(AskError::EndpointStopped { .. })));
    let letter = letters.next().await.expect("it was given up");
    assert_eq!(
        (&*letter.receiver, letter.reason, letter.count),
        ("adder", DeadLetterReason::Stopped, 1)
    );

    let adder = pair.set_up("adder-2", Adder::default()).await;
    for _ in 0..100 {
        adder.send(Job::Add(1)).expect("room");
    }
    let total = adder.ask(Job::Total);
    let there: RpcEndpointRef<Job> = pair
        .server
        .retrieve_endpoint_ref(pair.server.address().expect("it listens"), "adder-2")
        .await
        .expect("it is there");
    if !pair.is_local() {
        // What is on the way when the drain begins may be refused; what was answered for is not.
        assert_eq!(adder.ask(Job::Total).await.expect("a reply"), 100);
    }
    let limit = Duration::from_secs(20);
    assert_eq!(pair.server.drain(&there, limit).await, Termination::Stopped);
    assert_eq!(total.await.expect("it waited before"), 100);
    pair.shutdown().await;
}

everywhere!(
    a_restart_keeps_the_inbox_and_not_the_panicking_message,
    a_budget_that_is_used_up_ends_the_endpoint,
    an_error_resumes_or_stops_as_on_error_decides,
    a_watch_hears_of_the_end_once_and_of_one_that_was_never_there,
    linked_endpoints_end_together,
    what_is_put_aside_is_replayed_in_order_before_what_waits,
    a_drain_handles_what_waits_and_gives_up_at_its_limit,
);

async fn alone() -> RpcEnv {
    RpcEnv::client("alone").await.expect("it starts")
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_restart_waits_twice_as_long_each_time() {
    let env = alone().await;
    let policy = RestartPolicy {
        restarts_max: 5,
        backoff_min: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        ..RestartPolicy::default()
    };
    let adder = env
        .endpoint("adder")
        .setup_with(policy, Adder::default)
        .expect("a new name");
    let began = tokio::time::Instant::from_std(env.runtime().now().into_std());
    for _ in 0..3 {
        adder.send(Job::Panic).expect("room");
    }
    assert_eq!(adder.ask(Job::Total).await.expect("it lives"), 0);
    let took = began.elapsed();
    // 1 + 2 + 4 seconds, each up to a quarter more or less.
    assert!(
        (Duration::from_millis(5_250)..Duration::from_millis(8_760)).contains(&took),
        "{took:?}"
    );
    env.shutdown().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_stop_does_not_wait_for_a_long_pause() {
    let env = alone().await;
    let policy = RestartPolicy {
        backoff_min: Duration::from_secs(3_000),
        backoff_max: Duration::from_secs(3_000),
        ..RestartPolicy::default()
    };
    let adder = env
        .endpoint("adder")
        .setup_with(policy, Adder::default)
        .expect("a new name");
    adder.send(Job::Panic).expect("room");
    adder.send(Job::Add(5)).expect("room");
    let total = adder.ask(Job::Total);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = tokio::time::Instant::from_std(env.runtime().now().into_std());
    let watch = env.watch(&adder);
    env.stop(&adder);
    assert_eq!(total.await.expect("what waited is handled"), 5);
    assert_eq!(watch.await.reason, Termination::Stopped);
    assert!(began.elapsed() < Duration::from_secs(1));
    env.shutdown().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_factory_that_panics_uses_the_budget_up() {
    let env = alone().await;
    let made = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&made);
    let adder = env
        .endpoint("adder")
        .setup_with(QUICK, move || {
            assert!(counted.fetch_add(1, Ordering::SeqCst) == 0, "only once");
            Adder::default()
        })
        .expect("a new name");
    let watch = env.watch(&adder);
    adder.send(Job::Panic).expect("room");
    assert!(matches!(watch.await.reason, Termination::Failed { .. }));
    assert_eq!(
        made.load(Ordering::SeqCst),
        4,
        "the first and three restarts"
    );
    env.shutdown().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_restart_without_a_factory_ends_the_endpoint() {
    let env = alone().await;
    let adder = Adder {
        directive: Some(Directive::Restart),
        ..Adder::default()
    };
    let adder = env.setup_endpoint("adder", adder).expect("a new name");
    let watch = env.watch(&adder);
    adder.send(Job::Panic).expect("room");
    assert!(matches!(watch.await.reason, Termination::Failed { .. }));
    env.shutdown().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_message_whose_drop_panics_ends_neither_endpoint_nor_environment() {
    #[derive(Serialize, Deserialize)]
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("on drop");
        }
    }
    struct Holder(Arc<Semaphore>);
    impl RpcEndpoint for Holder {
        type Message = Bomb;
        async fn receive(
            &mut self,
            bomb: Bomb,
            _: &EndpointContext<Bomb>,
        ) -> Result<(), EndpointError> {
            std::mem::forget(bomb);
            let _place = self.0.acquire().await;
            Ok(())
        }
    }
    let env = alone().await;
    let gate = Arc::new(Semaphore::new(0));
    let holder = env.setup_endpoint("holder", Holder(Arc::clone(&gate)));
    let holder = holder.expect("a new name");
    holder.send(Bomb).expect("room");
    holder.send(Bomb).expect("room");
    tokio::task::yield_now().await;
    let watch = env.watch(&holder);
    let drained = env.drain(&holder, Duration::from_millis(1));
    let (ended, ()) = tokio::join!(drained, async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        gate.add_permits(1);
    });
    assert_eq!(ended, Termination::Stopped);
    assert_eq!(watch.await.reason, Termination::Stopped);
    env.shutdown().await;
}

#[derive(Debug, Serialize, Deserialize)]
enum Tick {
    Count(u32),
    Cancel,
    Panic,
    Seen(RpcCallContext<Vec<u32>>),
}

struct Clockwork {
    seen: Vec<u32>,
    every: Option<aloha_rpc::TimerKey>,
}

impl RpcEndpoint for Clockwork {
    type Message = Tick;

    async fn on_start(&mut self, ctx: &EndpointContext<Tick>) -> Result<(), EndpointError> {
        ctx.send_after(Duration::from_secs(5), Tick::Count(5));
        let mut count = 100;
        self.every = Some(ctx.send_every(Duration::from_secs(2), move || {
            count += 1;
            Tick::Count(count)
        }));
        Ok(())
    }

    async fn receive(
        &mut self,
        message: Tick,
        ctx: &EndpointContext<Tick>,
    ) -> Result<(), EndpointError> {
        match message {
            Tick::Count(number) => self.seen.push(number),
            Tick::Cancel => ctx.cancel_timer(self.every.take().expect("it runs")),
            Tick::Panic => panic!("on purpose"),
            Tick::Seen(call) => call.reply(self.seen.clone()),
        }
        Ok(())
    }
}

fn clockwork() -> Clockwork {
    Clockwork {
        seen: Vec::new(),
        every: None,
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn timers_fire_at_their_time_repeat_and_are_cancelled() {
    let env = alone().await;
    let clock = env.setup_endpoint("clock", clockwork()).expect("a name");
    tokio::time::sleep(Duration::from_millis(7_500)).await;
    let seen = clock.ask(Tick::Seen).await.expect("a reply");
    assert_eq!(seen, [101, 102, 5, 103]);
    clock.send(Tick::Cancel).expect("room");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let seen = clock.ask(Tick::Seen).await.expect("a reply");
    assert_eq!(seen, [101, 102, 5, 103]);
    env.shutdown().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn timers_do_not_outlive_a_restart() {
    let env = alone().await;
    let policy = RestartPolicy {
        backoff_min: Duration::ZERO,
        ..RestartPolicy::default()
    };
    let clock = env.endpoint("clock").setup_with(policy, clockwork);
    let clock = clock.expect("a name");
    tokio::time::sleep(Duration::from_secs(1)).await;
    clock.send(Tick::Panic).expect("room");
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let seen = clock.ask(Tick::Seen).await.expect("a reply");
    assert_eq!(
        seen,
        [101],
        "two seconds after the restart, and not also one"
    );
    env.shutdown().await;
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_timer_comes_between_batches_of_a_busy_endpoint() {
    let env = alone().await;
    struct Busy(mpsc::Sender<u32>);
    impl RpcEndpoint for Busy {
        type Message = u32;
        async fn on_start(&mut self, ctx: &EndpointContext<u32>) -> Result<(), EndpointError> {
            ctx.send_after(Duration::from_millis(10), 0);
            Ok(())
        }
        async fn receive(
            &mut self,
            n: u32,
            ctx: &EndpointContext<u32>,
        ) -> Result<(), EndpointError> {
            self.0.send(n).await?;
            tokio::time::sleep(Duration::from_millis(4)).await;
            if n > 0 && n < 20 {
                ctx.self_ref().send(n + 1)?;
            }
            Ok(())
        }
    }
    let (seen, mut order) = mpsc::channel(64);
    let busy = env.setup_endpoint("busy", Busy(seen)).expect("a name");
    busy.send(1).expect("room");
    let mut position = 0;
    while order.recv().await.expect("it goes on") != 0 {
        position += 1;
    }
    assert!((2..=4).contains(&position), "after {position} messages");
    env.shutdown().await;
}

#[derive(Debug, Serialize, Deserialize)]
enum Door {
    Open,
    Enter(u32),
    Count(RpcCallContext<u32>),
    Lock,
}

struct Closed;
struct Opened(u32);

#[async_trait::async_trait]
impl Behavior<Door> for Closed {
    async fn receive(
        &mut self,
        message: Door,
        ctx: &EndpointContext<Door>,
    ) -> Result<Next<Door>, EndpointError> {
        match message {
            Door::Open => {
                ctx.unstash_all();
                Ok(Next::become_now(Opened(0)))
            }
            Door::Lock => Ok(Next::Stop),
            waits => {
                ctx.stash(waits)?;
                Ok(Next::Same)
            }
        }
    }
}

#[async_trait::async_trait]
impl Behavior<Door> for Opened {
    async fn receive(
        &mut self,
        message: Door,
        _: &EndpointContext<Door>,
    ) -> Result<Next<Door>, EndpointError> {
        match message {
            Door::Enter(people) => self.0 += people,
            Door::Count(call) => call.reply(self.0),
            Door::Lock => return Ok(Next::become_now(Closed)),
            Door::Open => {}
        }
        Ok(Next::Same)
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn an_endpoint_becomes_another_and_takes_up_what_it_put_aside() {
    let env = alone().await;
    let door = env.setup_endpoint("door", BehaviorEndpoint::new(Closed));
    let door = door.expect("a name");
    door.send(Door::Enter(2)).expect("room");
    let count = door.ask(Door::Count);
    door.send(Door::Enter(3)).expect("room");
    door.send(Door::Open).expect("room");
    assert_eq!(count.await.expect("put aside and answered"), 2);
    assert_eq!(door.ask(Door::Count).await.expect("a reply"), 5);
    door.send(Door::Lock).expect("room");
    door.send(Door::Lock).expect("room");
    assert_eq!(env.watch(&door).await.reason, Termination::Stopped);
    env.shutdown().await;
}

#[test]
fn a_watch_and_a_link_see_the_loss_of_the_other_environment() {
    Simulation::run(1, async |sim| {
        let (server, client) = (sim.env("server").await, sim.client("client").await);
        let probe = Probe::<Job>::set_up(&server, "probe");
        let address = server.address().expect("it listens");
        let far: RpcEndpointRef<Job> = client
            .retrieve_endpoint_ref(address, "probe")
            .await
            .expect("it is there");
        let watch = client.watch(&far);
        let near = client.setup_endpoint("near", Adder::default());
        let near = near.expect("a name");
        drop(near);
        tokio::time::sleep(Duration::from_secs(1)).await;
        sim.network().cut("server", "client");
        let ended = watch.await;
        assert!(
            matches!(ended.reason, Termination::Disconnected { .. }),
            "{ended}"
        );
        drop(probe);
        client.shutdown().await;
        server.shutdown().await;
    });
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_shutdown_with_a_limit_does_not_wait_for_a_handler_that_hangs() {
    let env = alone().await;
    let adder = Adder {
        gate: Some(Arc::new(Semaphore::new(0))),
        ..Adder::default()
    };
    let adder = env.setup_endpoint("adder", adder).expect("a name");
    let hangs = adder.ask(Job::Hold);
    let waits = adder.ask(Job::Total);
    tokio::task::yield_now().await;
    env.shutdown_within(Duration::from_secs(2)).await;
    assert!(matches!(
        hangs.await,
        Err(AskError::EnvironmentStopped { .. })
    ));
    drop(waits);
}
