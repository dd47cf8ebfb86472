//! Every queue has a bound: what happens there, who waits, and that control does not.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aloha_rpc::{
    AskError, ConcurrentEndpoint, DeadLetterReason, EndpointContext, EndpointError, Overflow,
    RpcAddress, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv, SendError, Termination,
};
use common::{Pair, until};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

#[derive(Debug, Serialize, Deserialize)]
enum Feed {
    Number(u32),
    Text(String),
    Ask(RpcCallContext<u32>),
    Seen(RpcCallContext<Vec<u32>>),
}

/// Takes one message for each permit of its gate, and notes numbers.
struct Slow {
    gate: Arc<Semaphore>,
    seen: Vec<u32>,
    begun: Arc<AtomicUsize>,
    connected: Arc<AtomicUsize>,
}

impl Slow {
    fn new(gate: &Arc<Semaphore>) -> Self {
        Self {
            gate: Arc::clone(gate),
            seen: Vec::new(),
            begun: Arc::default(),
            connected: Arc::default(),
        }
    }
}

impl RpcEndpoint for Slow {
    type Message = Feed;

    async fn receive(
        &mut self,
        message: Feed,
        _: &EndpointContext<Feed>,
    ) -> Result<(), EndpointError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await?.forget();
        match message {
            Feed::Number(number) => self.seen.push(number),
            Feed::Text(_) => {}
            Feed::Ask(call) => call.reply(0),
            Feed::Seen(call) => call.reply(self.seen.clone()),
        }
        Ok(())
    }

    async fn on_connected(
        &mut self,
        _: &RpcAddress,
        _: &EndpointContext<Feed>,
    ) -> Result<(), EndpointError> {
        self.connected.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

/// Sends until it is refused; gives how many were taken, and the refusal.
fn fill(slow: &RpcEndpointRef<Feed>) -> (u32, SendError) {
    for number in 0.. {
        if let Err(refused) = slow.send(Feed::Number(number)) {
            return (number, refused);
        }
    }
    unreachable!("no queue is without end")
}

async fn a_slow_endpoint_holds_its_senders_back_and_nobody_else(pair: Pair) {
    let gate = Arc::new(Semaphore::new(0));
    let slow = Slow::new(&gate);
    let begun = Arc::clone(&slow.begun);
    pair.server
        .endpoint("slow")
        .messages_max(100)
        .setup(slow)
        .expect("a new name");
    let open = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS / 2));
    let quick = pair.set_up("quick", Slow::new(&open)).await;
    let slow: RpcEndpointRef<Feed> = pair.look_up("slow").await;
    slow.send(Feed::Text("held".into())).expect("room");
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    let (mut sent, refused) = fill(&slow);
    assert!(refused.is_overload(), "{refused}");
    assert!(refused.to_string().contains("reserve"), "{refused}");
    let full = slow.ask(Feed::Ask).await.expect_err("there is no room");
    assert!(full.is_overload() && !full.may_have_been_seen(), "{full}");
    assert_eq!(quick.ask(Feed::Ask).await.expect("it has room"), 0);

    // Who waits for a place gets one when the endpoint goes on.
    let gate_opens = async {
        until(|| pair.server.snapshot().endpoints[1].waiting > 0).await;
        gate.add_permits(Semaphore::MAX_PERMITS / 2);
    };
    let more = async {
        for _ in 0..1_000 {
            let place = slow.reserve().await.expect("it lives");
            place.send(Feed::Number(sent)).expect("a place");
            sent += 1;
        }
    };
    tokio::join!(more, gate_opens);
    let place = slow.reserve().await.expect("it lives");
    let seen = place.ask(Feed::Seen).await.expect("a reply");
    assert_eq!(seen, (0..sent).collect::<Vec<_>>(), "all, once, in order");
    assert_eq!(pair.server.dead_letters() + pair.caller.dead_letters(), 0);
    pair.shutdown().await;
}

async fn a_window_shrinks_to_the_limit_of_a_small_inbox(pair: Pair) {
    let gate = Arc::new(Semaphore::new(0));
    pair.server
        .endpoint("slow")
        .messages_max(8)
        .setup(Slow::new(&gate))
        .expect("a new name");
    let slow: RpcEndpointRef<Feed> = pair.look_up("slow").await;
    let (first, _) = fill(&slow);
    gate.add_permits(first as usize);
    until(|| pair.server.snapshot().endpoints[0].handled == u64::from(first)).await;
    // Asked for by the last of them, so that all credit is back.
    let place = slow.reserve().await.expect("it lives");
    let answered = place.ask(Feed::Ask);
    gate.add_permits(1);
    answered.await.expect("a reply");
    let (second, _) = fill(&slow);
    assert!(second <= 9, "{second} were taken at once");
    gate.close();
    pair.shutdown().await;
}

async fn the_oldest_makes_room_and_becomes_a_dead_letter(pair: Pair) {
    let gate = Arc::new(Semaphore::new(0));
    let news = Slow::new(&gate);
    let begun = Arc::clone(&news.begun);
    pair.server
        .endpoint("news")
        .messages_max(10)
        .overflow(Overflow::DropOldest)
        .setup(news)
        .expect("a new name");
    let mut letters = pair.server.observe_dead_letters();
    let news: RpcEndpointRef<Feed> = pair.look_up("news").await;
    let first = news.ask(Feed::Ask);
    until(|| begun.load(Ordering::SeqCst) == 1).await;
    let displaced = news.ask(Feed::Ask);
    for number in 0..50_000 {
        // Over a network what is on the way still has a bound.
        if news.send(Feed::Number(number)).is_err() {
            assert!(!pair.is_local(), "there is always room");
            let place = news.reserve().await.expect("it lives");
            place.send(Feed::Number(number)).expect("a place");
        }
        if number % 1_000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let overloaded = displaced.await.expect_err("newer ones came");
    assert!(
        matches!(&overloaded, AskError::Overloaded { .. }),
        "{overloaded}"
    );
    let letter = letters.next().await.expect("it is seen");
    assert_eq!(
        (&*letter.receiver, letter.reason),
        ("news", DeadLetterReason::Displaced)
    );
    gate.add_permits(Semaphore::MAX_PERMITS / 2);
    first.await.expect("it was being handled");
    let seen = news.ask(Feed::Seen).await.expect("a reply");
    assert!(seen.is_sorted() && seen.last() == Some(&49_999));
    assert_eq!(
        seen.len() as u64 + pair.server.dead_letters(),
        50_001,
        "each was handled or counted"
    );
    pair.shutdown().await;
}

async fn stop_and_connection_news_pass_a_full_inbox(pair: Pair) {
    let gate = Arc::new(Semaphore::new(0));
    let slow = Slow::new(&gate);
    let connected = Arc::clone(&slow.connected);
    let begun = Arc::clone(&slow.begun);
    let there = pair
        .server
        .endpoint("slow")
        .messages_max(50)
        .setup(slow)
        .expect("a new name");
    let slow: RpcEndpointRef<Feed> = pair.look_up("slow").await;
    let (taken, _) = fill(&slow);
    let before = connected.load(Ordering::SeqCst);
    // One message is at work; news comes right after it, before the others.
    let visitor = pair.third(false).await;
    if !pair.is_local() {
        let address = pair.server.address().expect("it listens");
        let _seen: RpcEndpointRef<Feed> = visitor
            .retrieve_endpoint_ref(address, "slow")
            .await
            .expect("it is there");
        gate.add_permits(taken as usize);
        until(|| connected.load(Ordering::SeqCst) > before).await;
        visitor.shutdown().await;
        let taken = taken as usize;
        until(|| pair.server.snapshot().endpoints[0].handled == taken as u64).await;
        for _ in 0..2 {
            let place = slow.reserve().await.expect("it lives");
            place.send(Feed::Number(taken as u32)).expect("a place");
        }
        let waiting = || pair.server.snapshot().endpoints[0].waiting;
        until(|| begun.load(Ordering::SeqCst) == taken + 1 && waiting() == 1).await;
    }
    let drained = pair.server.drain(&there, Duration::from_millis(1));
    let goes_on = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        gate.add_permits(1);
    };
    let (ended, ()) = tokio::join!(drained, goes_on);
    assert_eq!(ended, Termination::Stopped);
    assert!(pair.server.dead_letters() > 0, "what waited is counted");
    pair.shutdown().await;
}

/// Holds every message until its gate opens, and notes how many it holds.
struct Crowd {
    gate: Arc<Semaphore>,
    inside: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl ConcurrentEndpoint for Crowd {
    type Message = Feed;

    async fn receive(&self, message: Feed, _: &EndpointContext<Feed>) -> Result<(), EndpointError> {
        let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(inside, Ordering::SeqCst);
        self.gate.acquire().await?.forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
        match message {
            Feed::Ask(call) => call.reply(7),
            Feed::Text(text) => return Err(EndpointError::new("text", text)),
            Feed::Number(_) => panic!("on purpose"),
            Feed::Seen(call) => call.reply(Vec::new()),
        }
        Ok(())
    }

    async fn on_stop(&self) -> Result<(), EndpointError> {
        assert_eq!(self.inside.load(Ordering::SeqCst), 0, "all have ended");
        Ok(())
    }
}

async fn a_concurrent_endpoint_handles_so_many_at_once(pair: Pair) {
    let gate = Arc::new(Semaphore::new(0));
    let (inside, most) = (Arc::default(), Arc::default());
    let crowd = Crowd {
        gate: Arc::clone(&gate),
        inside: Arc::clone(&inside),
        most: Arc::clone(&most),
    };
    let there = pair.server.endpoint("crowd").setup_concurrent(4, crowd);
    let there = there.expect("a new name");
    let crowd: RpcEndpointRef<Feed> = pair.look_up("crowd").await;
    let asks: Vec<_> = (0..20).map(|_| crowd.ask(Feed::Ask)).collect();
    crowd.send(Feed::Number(1)).expect("room");
    crowd.send(Feed::Text("wrong".into())).expect("room");
    until(|| inside.load(Ordering::SeqCst) == 4).await;
    gate.add_permits(22);
    for ask in asks {
        assert_eq!(ask.await.expect("a reply"), 7);
    }
    until(|| pair.server.snapshot().endpoints[0].errors == 2).await;
    assert_eq!(most.load(Ordering::SeqCst), 4, "never more");
    // A stop waits for those inside.
    let last = crowd.ask(Feed::Ask);
    until(|| inside.load(Ordering::SeqCst) == 1).await;
    let ended = pair.server.watch(&there);
    pair.server.stop(&there);
    gate.add_permits(1);
    assert_eq!(last.await.expect("a reply"), 7);
    assert_eq!(ended.await.reason, Termination::Stopped);
    pair.shutdown().await;
}

everywhere!(
    a_slow_endpoint_holds_its_senders_back_and_nobody_else,
    a_window_shrinks_to_the_limit_of_a_small_inbox,
    the_oldest_makes_room_and_becomes_a_dead_letter,
    stop_and_connection_news_pass_a_full_inbox,
    a_concurrent_endpoint_handles_so_many_at_once,
);

async fn bytes_bound_what_waits(pair: Pair) {
    let gate = Arc::new(Semaphore::new(0));
    pair.server
        .endpoint("texts")
        .bytes_max(64 << 10)
        .weight(|message| match message {
            Feed::Text(text) => text.len(),
            _ => 8,
        })
        .setup(Slow::new(&gate))
        .expect("a new name");
    let texts: RpcEndpointRef<Feed> = pair.look_up("texts").await;
    let mut taken = 0;
    while texts.send(Feed::Text("x".repeat(16 << 10))).is_ok() {
        taken += 1;
    }
    // Locally four, or five when one is being handled already; over a network a megabyte of credit to begin with.
    let most = if pair.is_local() { 5 } else { 65 };
    assert!((4..=most).contains(&taken), "{taken} texts were taken");
    gate.close();
    pair.shutdown().await;
}

async fn an_endpoint_on_its_own_thread_may_block(pair: Pair) {
    struct Blocking(std::sync::mpsc::Receiver<u32>);
    impl RpcEndpoint for Blocking {
        type Message = Feed;
        async fn receive(
            &mut self,
            message: Feed,
            _: &EndpointContext<Feed>,
        ) -> Result<(), EndpointError> {
            if let Feed::Ask(call) = message {
                call.reply(self.0.recv()?);
            }
            Ok(())
        }
    }
    let (release, released) = std::sync::mpsc::channel();
    pair.server
        .endpoint("blocking")
        .own_thread()
        .setup(Blocking(released))
        .expect("a new name");
    let blocking: RpcEndpointRef<Feed> = pair.look_up("blocking").await;
    let open = Arc::new(Semaphore::new(100));
    let free = pair.set_up("free", Slow::new(&open)).await;
    let blocked = blocking.ask(Feed::Ask);
    assert_eq!(free.ask(Feed::Ask).await.expect("it is not held up"), 0);
    release.send(5).expect("it waits");
    assert_eq!(blocked.await.expect("a reply"), 5);
    pair.shutdown().await;
}

everywhere!(
    bytes_bound_what_waits,
    an_endpoint_on_its_own_thread_may_block,
);

#[tokio::test(flavor = "current_thread")]
async fn permits_of_a_full_inbox_go_round_in_order() {
    let env = RpcEnv::client("alone").await.expect("it starts");
    let gate = Arc::new(Semaphore::new(0));
    let slow = env
        .endpoint("slow")
        .messages_max(1)
        .setup(Slow::new(&gate))
        .expect("a name");
    slow.send(Feed::Number(100)).expect("room");
    tokio::task::yield_now().await;
    slow.send(Feed::Number(101)).expect("room");
    let waiting: Vec<_> = (0..5)
        .map(|number| {
            let slow = slow.clone();
            tokio::spawn(async move {
                let place = slow.reserve().await.expect("it lives");
                place.send(Feed::Number(number)).expect("a place");
            })
        })
        .collect();
    // Each has asked for its place before any is free.
    tokio::task::yield_now().await;
    gate.add_permits(100);
    for sender in waiting {
        sender.await.expect("no panic");
    }
    let place = slow.reserve().await.expect("it lives");
    drop(place);
    let seen = slow
        .reserve()
        .await
        .expect("a permit that was dropped is free");
    drop(seen);
    until(|| env.snapshot().endpoints[0].handled == 7).await;
    let seen = slow.ask(Feed::Seen).await.expect("a reply");
    assert_eq!(seen, [100, 101, 0, 1, 2, 3, 4]);
    env.shutdown().await;
}
