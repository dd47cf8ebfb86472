//! Several endpoints behind a name, and topics that go to all who want them.

mod common;

use std::sync::Arc;

use aloha_rpc::{
    AskError, DeadLetterReason, EndpointContext, EndpointError, LookupError, RpcCallContext,
    RpcEndpoint, RpcEndpointRef,
};
use common::{Pair, until};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, mpsc};

#[derive(Debug, Serialize, Deserialize)]
enum Work {
    Who(RpcCallContext<u32>),
    Note,
    Notes(RpcCallContext<u32>),
    Held(RpcCallContext<u32>),
}

struct Member {
    number: u32,
    notes: u32,
    gate: Arc<Semaphore>,
}

fn member(number: u32) -> Member {
    Member {
        number,
        notes: 0,
        gate: Arc::new(Semaphore::new(0)),
    }
}

impl RpcEndpoint for Member {
    type Message = Work;

    async fn receive(
        &mut self,
        message: Work,
        _: &EndpointContext<Work>,
    ) -> Result<(), EndpointError> {
        match message {
            Work::Who(call) => call.reply(self.number),
            Work::Note => self.notes += 1,
            Work::Notes(call) => call.reply(self.notes),
            Work::Held(call) => {
                self.gate.acquire().await?.forget();
                call.reply(self.number);
            }
        }
        Ok(())
    }
}

async fn a_group_gives_to_its_members_in_turn(pair: Pair) {
    let group = pair.server.setup_group::<Work>("group").expect("a name");
    let here = pair.set_up("member-0", member(0)).await;
    let there = pair.caller.setup_endpoint("member-1", member(1));
    let there = there.expect("a name");
    let at_server: RpcEndpointRef<Work> = pair
        .server
        .retrieve_endpoint_ref(pair.server.address().expect("it listens"), "member-0")
        .await
        .expect("it is there");
    group.join(&at_server);
    group.join(&at_server);
    let remote: RpcEndpointRef<Work> = pair.look_up("group").await;
    assert_eq!(group.members().len(), 1, "a member joins once");
    // A member at the other side, whose environment may not listen: its reference goes in a message.
    let third = pair.third(true).await;
    let third_member = third.setup_endpoint("member-2", member(2));
    let third_member = third_member.expect("a name");
    let by_server: RpcEndpointRef<Work> = pair
        .server
        .retrieve_endpoint_ref(third.address().expect("it listens"), "member-2")
        .await
        .expect("it is there");
    group.join(&by_server);
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(remote.ask(Work::Who).await.expect("a reply"));
    }
    assert_eq!(answers, [0, 2, 0, 2]);
    for _ in 0..100 {
        remote.send(Work::Note).expect("room");
    }
    assert_eq!(remote.ask(Work::Who).await.expect("behind the notes"), 0);
    let notes = group.ask_all(Work::Notes);
    let mut counted = Vec::new();
    for notes in notes {
        counted.push(notes.await.expect("a reply"));
    }
    assert_eq!(counted, [50, 50]);
    assert!(group.broadcast(|| Work::Note).is_empty(), "all took it");

    // One that ends leaves, and the others go on.
    third.stop(&third_member);
    until(|| group.members().len() == 1).await;
    for _ in 0..3 {
        assert_eq!(remote.ask(Work::Who).await.expect("a reply"), 0);
    }
    group.leave(&at_server);
    let error = remote.ask(Work::Who).await.expect_err("nobody is left");
    assert!(matches!(error, AskError::Overloaded { .. }), "{error}");
    assert_eq!(pair.server.dead_letters(), 1);
    drop((here, there));
    if !pair.is_local() {
        third.shutdown().await;
    }
    pair.shutdown().await;
}

async fn a_busy_member_is_passed_over(pair: Pair) {
    let group = pair.server.setup_group::<Work>("group").expect("a name");
    let busy = member(0);
    let gate = Arc::clone(&busy.gate);
    let busy = pair.server.endpoint("busy").messages_max(1).setup(busy);
    let busy = busy.expect("a name");
    let free = pair.server.setup_endpoint("free", member(1));
    let free = free.expect("a name");
    group.join(&busy);
    group.join(&free);
    let held = busy.ask(Work::Held);
    let snapshot = || pair.server.snapshot().endpoints;
    until(|| snapshot().iter().all(|endpoint| endpoint.waiting == 0)).await;
    // One more waits, and the inbox is full.
    let waits = busy.ask(Work::Who);
    let remote: RpcEndpointRef<Work> = pair.look_up("group").await;
    for _ in 0..5 {
        assert_eq!(remote.ask(Work::Who).await.expect("the free one"), 1);
    }
    gate.add_permits(1);
    assert_eq!(held.await.expect("a reply"), 0);
    assert_eq!(waits.await.expect("a reply"), 0);
    pair.shutdown().await;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Price {
    item: String,
    cents: u32,
}

#[derive(Debug, Serialize, Deserialize)]
enum Shop {
    Price(Price),
    Closed,
}

struct Collector<T>(mpsc::Sender<T>);

impl<T: Serialize + serde::de::DeserializeOwned + Send + 'static> RpcEndpoint for Collector<T> {
    type Message = T;

    async fn receive(&mut self, message: T, _: &EndpointContext<T>) -> Result<(), EndpointError> {
        // The test may have ended first.
        drop(self.0.send(message).await);
        Ok(())
    }
}

fn price(cents: u32) -> Price {
    Price {
        item: "tea".into(),
        cents,
    }
}

async fn a_topic_reaches_all_subscribers_in_order(pair: Pair) {
    let at_server = pair.server.setup_topic::<Price>("prices").expect("a name");
    let address = pair.server.address().expect("it listens").clone();
    let prices = pair.caller.retrieve_topic::<Price>(&address, "prices");
    let prices = prices.await.expect("it is there");
    let (to_one, mut one) = mpsc::channel(1024);
    let (to_two, mut two) = mpsc::channel(1024);
    let first = pair.caller.setup_endpoint("first", Collector(to_one));
    let first = first.expect("a name");
    let second = pair.server.setup_endpoint("second", Collector(to_two));
    let second = second.expect("a name");
    prices.subscribe(&first).await.expect("subscribed");
    prices.subscribe(&first).await.expect("once is enough");
    let subscription = at_server.subscribe_as(&second, Shop::Price).await;
    let subscription = subscription.expect("subscribed");
    for cents in 0..300 {
        prices.publish(price(cents)).expect("room");
    }
    for cents in 0..300 {
        assert_eq!(one.recv().await, Some(price(cents)));
        assert!(matches!(two.recv().await, Some(Shop::Price(got)) if got == price(cents)));
    }
    second
        .send(Shop::Closed)
        .expect("it has messages of its own");
    assert!(matches!(two.recv().await, Some(Shop::Closed)));

    subscription.end();
    prices.unsubscribe(&first).await.expect("unsubscribed");
    prices.publish(price(1_000)).expect("room");
    // Asked behind the publication.
    prices.unsubscribe(&first).await.expect("again is no harm");
    assert!(one.try_recv().is_err());

    let wrong = pair.caller.retrieve_topic::<String>(&address, "prices");
    let wrong = wrong.await.expect_err("another type");
    assert!(
        matches!(&wrong, LookupError::WrongType { expected, given, .. }
            if (pair.is_local() || expected == "Price{item,cents}") && given == "a string"),
        "{wrong}"
    );
    pair.shutdown().await;
}

async fn a_full_subscriber_misses_what_comes_and_is_counted(pair: Pair) {
    let prices = pair.server.setup_topic::<Price>("prices").expect("a name");
    let (to_slow, slow_side) = mpsc::channel(1);
    let (to_quick, mut quick_side) = mpsc::channel(4096);
    let slow = pair.server.endpoint("slow").messages_max(10);
    let slow = slow.setup(Collector(to_slow)).expect("a name");
    let quick = pair.server.setup_endpoint("quick", Collector(to_quick));
    let quick = quick.expect("a name");
    prices.subscribe(&slow).await.expect("subscribed");
    prices.subscribe(&quick).await.expect("subscribed");
    let mut letters = pair.server.observe_dead_letters();
    for cents in 0..1_000 {
        prices.publish(price(cents)).expect("room");
    }
    for cents in 0..1_000 {
        assert_eq!(quick_side.recv().await, Some(price(cents)));
    }
    let letter = letters.next().await.expect("it is seen");
    assert_eq!(letter.reason, DeadLetterReason::NotTaken);
    assert!(letter.receiver.contains("slow"));
    // Ten wait, one is in the channel, one is with the handler.
    until(|| pair.server.dead_letters() >= 988).await;
    drop(slow_side);
    pair.shutdown().await;
}

everywhere!(
    a_group_gives_to_its_members_in_turn,
    a_busy_member_is_passed_over,
    a_topic_reaches_all_subscribers_in_order,
    a_full_subscriber_misses_what_comes_and_is_counted,
);
