//! What holds for asks and messages, whether they stay in one environment or cross a network.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aloha_rpc::{
    AskError, Directive, EndpointContext, EndpointError, LookupError, RpcAddress, RpcCallContext,
    RpcEndpoint, RpcEndpointRef, RpcEnv, SendError, SetupError,
};
use common::Pair;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc};

/// Fails to be encoded when told so, and to be decoded otherwise.
#[derive(Debug)]
struct Poison {
    on_encode: bool,
}

impl Serialize for Poison {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.on_encode {
            return Err(serde::ser::Error::custom("poison"));
        }
        serializer.serialize_unit()
    }
}

impl<'de> Deserialize<'de> for Poison {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("poison"))
    }
}

#[derive(Debug, Serialize, Deserialize)]
enum Say {
    Note(u32),
    Count(RpcCallContext<u32>),
    Echo(String, RpcCallContext<String>),
    Fail(RpcCallContext<String>),
    Forget(RpcCallContext<String>),
    Never(RpcCallContext<String>),
    Panic(RpcCallContext<String>),
    Me(RpcCallContext<RpcEndpointRef<Self>>),
    Both(RpcCallContext<String>, RpcCallContext<String>),
    Poisoned(RpcCallContext<String>, Poison),
    BothPoisoned(RpcCallContext<String>, RpcCallContext<String>, Poison),
    Relay(RpcEndpointRef<Self>, RpcCallContext<String>),
    RelayPoisoned(RpcEndpointRef<Self>, RpcCallContext<String>),
    Unencodable(RpcCallContext<Poison>),
    Collect(RpcEndpointRef<Self>, RpcCallContext<String>),
    Lend(RpcCallContext<RpcCallContext<String>>),
}

#[derive(Default)]
struct Talker {
    notes: Vec<u32>,
    kept: Vec<RpcCallContext<String>>,
    errors: Option<mpsc::Sender<String>>,
    cancelled: Option<Arc<Notify>>,
    pending: Option<RpcCallContext<String>>,
}

impl Talker {
    /// One that tells the kinds of the errors that it is told of.
    fn with_errors() -> (Self, mpsc::Receiver<String>) {
        let (errors, seen) = mpsc::channel(8);
        let talker = Self {
            errors: Some(errors),
            ..Self::default()
        };
        (talker, seen)
    }
}

impl RpcEndpoint for Talker {
    type Message = Say;

    async fn receive(
        &mut self,
        message: Say,
        _: &EndpointContext<Say>,
    ) -> Result<(), EndpointError> {
        if let Say::Note(note) = message {
            self.notes.push(note);
        }
        Ok(())
    }

    async fn receive_and_reply(
        &mut self,
        message: Say,
        ctx: &EndpointContext<Say>,
    ) -> Result<(), EndpointError> {
        match message {
            Say::Note(_) => unreachable!("notes are sent"),
            Say::Count(call) => {
                assert!(self.notes.is_sorted(), "order holds");
                call.reply(u32::try_from(self.notes.len())?);
            }
            Say::Echo(text, call) => call.reply(text),
            Say::Fail(call) => call.send_failure(EndpointError::new("broke", "no money left")),
            Say::Forget(call) => drop(call),
            Say::Never(call) => {
                if let Some(cancelled) = self.cancelled.clone() {
                    tokio::spawn(async move {
                        call.cancelled().await;
                        cancelled.notify_one();
                    });
                } else {
                    self.kept.push(call);
                }
            }
            Say::Panic(call) => {
                let _held = call;
                panic!("on purpose");
            }
            Say::Me(call) => call.reply(ctx.self_ref().clone()),
            Say::Both(one, two) => {
                two.reply("two".to_owned());
                one.reply("one".to_owned());
            }
            Say::Poisoned(call, _) => call.reply("not poisoned".to_owned()),
            Say::BothPoisoned(one, two, _) => {
                one.reply("not poisoned".to_owned());
                two.reply("not poisoned".to_owned());
            }
            Say::Relay(next, call) => next.forward(Say::Echo("relayed".to_owned(), call))?,
            Say::RelayPoisoned(next, call) => {
                next.forward(Say::Poisoned(call, Poison { on_encode: true }))?
            }
            Say::Unencodable(call) => call.reply(Poison { on_encode: true }),
            Say::Lend(call) => call.reply(self.pending.take().expect("one was collected")),
            // The second asker's call and the first one's go on in one message.
            Say::Collect(next, call) => match self.pending.take() {
                None => self.pending = Some(call),
                Some(first) => next.forward(Say::Both(first, call))?,
            },
        }
        Ok(())
    }

    async fn on_error(&mut self, error: EndpointError, _: &EndpointContext<Say>) -> Directive {
        if let Some(errors) = &self.errors {
            errors
                .send(error.kind().to_owned())
                .await
                .expect("the test listens");
        }
        Directive::Resume
    }
}

async fn replies_and_failures_reach_the_asker(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    let echo = talker.ask(|call| Say::Echo("hi".into(), call)).await;
    assert_eq!(echo.expect("a reply"), "hi");
    let failed: AskError = talker.ask(Say::Fail).await.expect_err("it fails");
    assert!(
        matches!(&failed, AskError::Failed { kind, text, .. } if kind == "broke" && text == "no money left")
    );
    let dropped = talker.ask(Say::Forget).await.expect_err("it forgets");
    assert!(matches!(dropped, AskError::Dropped { .. }), "{dropped}");
    pair.shutdown().await;
}

async fn messages_arrive_in_order_and_before_a_later_ask(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    for note in 0..5_000 {
        talker.send(Say::Note(note)).expect("room");
    }
    assert_eq!(talker.ask(Say::Count).await.expect("a reply"), 5_000);
    pair.shutdown().await;
}

async fn a_panic_is_told_to_the_asker_and_ends_nothing(pair: Pair) {
    let (talker, mut seen) = Talker::with_errors();
    let talker = pair.set_up("talker", talker).await;
    let panicked = talker.ask(Say::Panic).await.expect_err("it panics");
    assert!(matches!(panicked, AskError::Panicked { .. }), "{panicked}");
    assert_eq!(seen.recv().await.as_deref(), Some(EndpointError::PANIC));
    assert_eq!(
        talker
            .ask(|call| Say::Echo("still here".into(), call))
            .await
            .expect("a reply"),
        "still here"
    );
    pair.shutdown().await;
}

async fn an_ask_ends_at_its_limit_and_names_the_key(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    let limit = Duration::from_millis(1);
    let late = talker
        .ask(Say::Never)
        .timeout(limit)
        .await
        .expect_err("nobody answers");
    assert!(
        matches!(&late, AskError::TimedOut { timeout, .. } if *timeout == limit),
        "{late}"
    );
    assert!(late.to_string().contains("aloha.rpc.askTimeout"), "{late}");
    let late = talker
        .ask_for(limit, Say::Never)
        .await
        .expect_err("nobody answers");
    assert!(
        matches!(&late, AskError::TimedOut { timeout, .. } if *timeout == limit),
        "{late}"
    );
    pair.shutdown().await;
}

async fn a_dropped_ask_is_seen_by_the_handler(pair: Pair) {
    let cancelled = Arc::new(Notify::new());
    let talker = Talker {
        cancelled: Some(Arc::clone(&cancelled)),
        ..Talker::default()
    };
    let talker = pair.set_up("talker", talker).await;
    let ask = talker.ask(Say::Never);
    // Answered behind the first, so the first is being handled.
    talker
        .ask(|call| Say::Echo(String::new(), call))
        .await
        .expect("a reply");
    drop(ask);
    cancelled.notified().await;
    pair.shutdown().await;
}

async fn a_reference_travels_in_a_reply(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    let me = talker.ask(Say::Me).await.expect("a reply");
    assert_eq!(me, talker);
    assert_eq!(
        me.ask(|call| Say::Echo("me".into(), call))
            .await
            .expect("a reply"),
        "me"
    );
    pair.shutdown().await;
}

async fn a_call_is_answered_by_whom_it_was_forwarded_to(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    let next = pair.server.setup_endpoint("next", Talker::default());
    let next = next.expect("a new name");
    let relayed = talker.ask(|call| Say::Relay(next, call)).await;
    assert_eq!(relayed.expect("a reply"), "relayed");
    let third = pair.third(true).await;
    let far = third.setup_endpoint("far", Talker::default());
    let far = far.expect("a new name");
    let relayed = talker.ask(|call| Say::Relay(far, call)).await;
    assert_eq!(relayed.expect("a reply"), "relayed");
    if !pair.is_local() {
        third.shutdown().await;
    }
    pair.shutdown().await;
}

async fn two_calls_in_one_message_are_both_answered(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    let next = pair
        .caller
        .setup_endpoint("next", Talker::default())
        .expect("a new name");
    let first = talker.ask(|call| Say::Collect(next.clone(), call));
    let second = talker.ask(|call| Say::Collect(next.clone(), call));
    let (first, second) = tokio::join!(first, second);
    assert_eq!(
        (first.expect("a reply"), second.expect("a reply")),
        ("one".to_owned(), "two".to_owned())
    );
    pair.shutdown().await;
}

async fn an_ask_must_carry_its_own_context(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    let missing = talker
        .ask::<String>(|_| Say::Note(1))
        .await
        .expect_err("no context in it");
    assert!(
        matches!(
            missing,
            AskError::ContextMissing { .. } | AskError::Dropped { .. } | AskError::Panicked { .. }
        ),
        "{missing}"
    );
    pair.shutdown().await;
}

async fn a_stopped_endpoint_says_so(pair: Pair) {
    let talker = pair.set_up("talker", Talker::default()).await;
    let here = pair
        .server
        .retrieve_endpoint_ref::<Say>(pair.server.address().expect("it listens"), "talker")
        .await;
    let here = here.expect("it is there");
    // Asked before the stop, so answered.
    let before = here.ask(|call| Say::Echo("before".into(), call));
    pair.server.stop(&here);
    pair.server.stop(&here);
    assert_eq!(before.await.expect("a reply"), "before");
    assert!(matches!(
        here.send(Say::Note(1)),
        Err(SendError::EndpointStopped { .. })
    ));
    let gone = talker
        .ask(|call| Say::Echo("after".into(), call))
        .await
        .expect_err("it is stopped");
    assert!(
        matches!(
            gone,
            AskError::NotSent(SendError::EndpointStopped { .. })
                | AskError::EndpointStopped { .. }
                | AskError::EndpointNotFound { .. }
        ),
        "{gone}"
    );
    pair.shutdown().await;
}

async fn a_look_up_names_what_is_wrong(pair: Pair) {
    pair.set_up("talker", Talker::default()).await;
    let address = pair.server.address().expect("it listens");
    let missing = pair
        .caller
        .retrieve_endpoint_ref::<Say>(address, "nobody")
        .await
        .expect_err("nobody there");
    assert_eq!(
        missing.to_string(),
        format!("no endpoint aloha://nobody@{address}")
    );
    let wrong = pair
        .caller
        .retrieve_endpoint_ref::<String>(address, "talker")
        .await
        .expect_err("another type");
    assert!(
        matches!(&wrong, LookupError::WrongType { expected, .. } if expected.starts_with("Say{Note,Count,"))
    );
    let taken = pair
        .server
        .setup_endpoint("talker", Talker::default())
        .expect_err("the name is taken");
    assert_eq!(taken, SetupError::NameTaken("talker".to_owned()));
    pair.shutdown().await;
}

async fn one_message_at_a_time_from_many_threads(pair: Pair) {
    let talker = pair.set_up("talker", Counter::default()).await;
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let talker = talker.clone();
        senders.spawn(async move {
            for _ in 0..1_000 {
                talker.send(Tally::Add).expect("room");
            }
        });
    }
    senders.join_all().await;
    // Behind all of this environment's messages.
    assert_eq!(talker.ask(Tally::Sum).await.expect("a reply"), 10_000);
    pair.shutdown().await;
}

#[derive(Debug, Serialize, Deserialize)]
enum Tally {
    Add,
    Sum(RpcCallContext<u32>),
}

#[derive(Default)]
struct Counter(u32);

impl RpcEndpoint for Counter {
    type Message = Tally;

    async fn receive(
        &mut self,
        message: Tally,
        _: &EndpointContext<Tally>,
    ) -> Result<(), EndpointError> {
        match message {
            Tally::Add => self.0 += 1,
            Tally::Sum(call) => call.reply(self.0),
        }
        Ok(())
    }
}

everywhere!(
    replies_and_failures_reach_the_asker,
    messages_arrive_in_order_and_before_a_later_ask,
    a_panic_is_told_to_the_asker_and_ends_nothing,
    an_ask_ends_at_its_limit_and_names_the_key,
    a_dropped_ask_is_seen_by_the_handler,
    a_reference_travels_in_a_reply,
    a_call_is_answered_by_whom_it_was_forwarded_to,
    two_calls_in_one_message_are_both_answered,
    an_ask_must_carry_its_own_context,
    a_stopped_endpoint_says_so,
    a_look_up_names_what_is_wrong,
    one_message_at_a_time_from_many_threads,
);

// ---- what only a wire can do ---------------------------------------------------------------------

async fn joined() -> Pair {
    Pair::new(common::Join::Memory, aloha_rpc::Codec::Bincode).await
}

async fn assert_answers(talker: &RpcEndpointRef<Say>) {
    let answer = talker.ask(|call| Say::Echo("next".into(), call)).await;
    assert_eq!(answer.expect("a reply"), "next");
}

#[tokio::test]
async fn a_decode_that_fails_after_a_call_answers_it_once() {
    let pair = joined().await;
    let (talker, mut seen) = Talker::with_errors();
    let talker = pair.set_up("talker", talker).await;
    let failed = talker
        .ask(|call| Say::Poisoned(call, Poison { on_encode: false }))
        .await
        .expect_err("undecodable");
    assert!(
        matches!(&failed, AskError::Undecodable { text, .. } if text.contains("poison")),
        "{failed}"
    );
    assert_eq!(
        seen.recv().await.as_deref(),
        Some(EndpointError::UNDECODABLE)
    );
    // Had the call been answered twice, this one would be given the second answer.
    assert_answers(&talker).await;
    pair.shutdown().await;
}

#[tokio::test]
async fn a_decode_that_fails_after_two_calls_answers_both_once() {
    let pair = joined().await;
    let talker = pair.set_up("talker", Talker::default()).await;
    let (calls, mut kept) = mpsc::channel(2);
    let keeper = pair
        .caller
        .setup_endpoint("keeper", Keeper(calls))
        .expect("a new name");
    let first = keeper.ask(Keep);
    let second = keeper.ask(Keep);
    let (one, two) = (
        kept.recv().await.expect("kept"),
        kept.recv().await.expect("kept"),
    );
    talker
        .forward(Say::BothPoisoned(one, two, Poison { on_encode: false }))
        .expect("queued");
    for answer in [first.await, second.await] {
        let failed = answer.expect_err("undecodable");
        assert!(matches!(failed, AskError::Undecodable { .. }), "{failed}");
    }
    assert_answers(&talker).await;
    pair.shutdown().await;
}

#[derive(Debug, Serialize, Deserialize)]
struct Keep(RpcCallContext<String>);

struct Keeper(mpsc::Sender<RpcCallContext<String>>);

impl RpcEndpoint for Keeper {
    type Message = Keep;

    async fn receive_and_reply(
        &mut self,
        message: Keep,
        _: &EndpointContext<Keep>,
    ) -> Result<(), EndpointError> {
        self.0.send(message.0).await?;
        Ok(())
    }
}

#[tokio::test]
async fn an_encode_that_fails_half_way_answers_the_call_inside_once() {
    let pair = joined().await;
    let (talker, mut seen) = Talker::with_errors();
    let talker = pair.set_up("talker", talker).await;
    // Of the asker itself.
    let failed = talker
        .ask(|call| Say::Poisoned(call, Poison { on_encode: true }))
        .await
        .expect_err("unencodable");
    assert!(
        matches!(&failed, AskError::NotSent(SendError::Unencodable { .. })),
        "{failed}"
    );
    // Of somebody who passes a call on: back to the asker, over the wire.
    let next = pair
        .caller
        .setup_endpoint("next", Talker::default())
        .expect("a new name");
    let lost = talker
        .ask(|call| Say::RelayPoisoned(next, call))
        .await
        .expect_err("the relay cannot pass it on");
    assert!(matches!(lost, AskError::Dropped { .. }), "{lost}");
    assert_eq!(seen.recv().await.as_deref(), Some("error"));
    assert_answers(&talker).await;
    pair.shutdown().await;
}

#[tokio::test]
async fn a_reply_that_cannot_be_encoded_is_a_failure_at_once() {
    let pair = joined().await;
    let talker = pair.set_up("talker", Talker::default()).await;
    let failed = talker.ask(Say::Unencodable).await.expect_err("unencodable");
    assert!(
        matches!(&failed, AskError::BadReply { text, .. } if text.contains("poison")),
        "{failed}"
    );
    pair.shutdown().await;
}

#[tokio::test]
async fn a_call_inside_a_reply_is_refused_and_both_askers_are_told() {
    let pair = joined().await;
    let talker = pair.set_up("talker", Talker::default()).await;
    let collected = talker.ask(|call| Say::Collect(talker.clone(), call));
    let lent = talker.ask(Say::Lend).await.expect_err("not in a reply");
    assert!(
        matches!(&lent, AskError::BadReply { text, .. } if text.contains("a reply cannot carry")),
        "{lent}"
    );
    assert!(matches!(collected.await, Err(AskError::Dropped { .. })));
    pair.shutdown().await;
}

#[tokio::test]
async fn a_context_outside_a_message_cannot_be_encoded() {
    let pair = joined().await;
    let (calls, mut kept) = mpsc::channel(1);
    let keeper = pair.set_up("keeper", Keeper(calls)).await;
    let ask = keeper.ask(Keep);
    let call = kept.recv().await.expect("kept");
    let outside = serde_json::to_string(&call)
        .expect_err("no scope")
        .to_string();
    assert!(outside.contains("only inside a message"), "{outside}");
    drop(call);
    assert!(matches!(ask.await, Err(AskError::Dropped { .. })));
    pair.shutdown().await;
}

#[tokio::test]
async fn a_lost_server_ends_its_asks_and_the_next_one_names_the_address() {
    let pair = Pair::new(common::Join::Tcp, aloha_rpc::Codec::Bincode).await;
    let talker = pair.set_up("talker", Talker::default()).await;
    let waiting = talker.ask(Say::Never);
    talker
        .ask(|call| Say::Echo(String::new(), call))
        .await
        .expect("a reply");
    let address = pair.server.address().expect("it listens").to_string();
    let (events, mut seen) = mpsc::channel(8);
    pair.caller
        .setup_endpoint("watcher", Watcher(events))
        .expect("a new name");
    assert_eq!(seen.recv().await, Some((Seen::Started, None)));
    pair.server.shutdown().await;
    assert!(matches!(
        seen.recv().await,
        Some((Seen::Disconnected, Some(_)))
    ));
    let lost = waiting.await.expect_err("the server is gone");
    assert!(
        matches!(
            lost,
            AskError::Disconnected { .. }
                | AskError::EndpointStopped { .. }
                | AskError::Dropped { .. }
        ),
        "{lost}"
    );
    let refused = talker
        .ask(|call| Say::Echo(String::new(), call))
        .await
        .expect_err("nobody listens");
    assert!(
        matches!(refused, AskError::NotConnected { .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains(&address), "{refused}");
    pair.caller.shutdown().await;
}

#[tokio::test]
async fn an_endpoint_of_a_client_is_called_over_the_clients_connection() {
    let pair = joined().await;
    let talker = pair.set_up("talker", Talker::default()).await;
    let mine = pair
        .caller
        .setup_endpoint("mine", Talker::default())
        .expect("a new name");
    assert_eq!(mine.address(), None);
    assert_eq!(
        talker
            .ask(|call| Say::Relay(mine, call))
            .await
            .expect("a reply"),
        "relayed"
    );
    pair.shutdown().await;
}

#[derive(Debug, PartialEq)]
enum Seen {
    Started,
    Connected,
    Disconnected,
    Stopped,
}

struct Watcher(mpsc::Sender<(Seen, Option<RpcAddress>)>);

impl RpcEndpoint for Watcher {
    type Message = Tally;

    async fn on_start(&mut self, _: &EndpointContext<Tally>) -> Result<(), EndpointError> {
        Ok(self.0.send((Seen::Started, None)).await?)
    }

    async fn on_connected(
        &mut self,
        remote: &RpcAddress,
        _: &EndpointContext<Tally>,
    ) -> Result<(), EndpointError> {
        Ok(self.0.send((Seen::Connected, Some(remote.clone()))).await?)
    }

    async fn on_disconnected(
        &mut self,
        remote: &RpcAddress,
        _: &EndpointContext<Tally>,
    ) -> Result<(), EndpointError> {
        Ok(self
            .0
            .send((Seen::Disconnected, Some(remote.clone())))
            .await?)
    }

    async fn on_stop(&mut self) -> Result<(), EndpointError> {
        Ok(self.0.send((Seen::Stopped, None)).await?)
    }
}

#[tokio::test]
async fn a_servers_coming_and_going_is_seen_by_its_address_and_ones_own_shutdown_is_not() {
    let pair = Pair::new(common::Join::Tcp, aloha_rpc::Codec::Bincode).await;
    let (events, mut seen) = mpsc::channel(8);
    pair.server
        .setup_endpoint("watcher", Watcher(events))
        .expect("a new name");
    assert_eq!(seen.recv().await, Some((Seen::Started, None)));
    let other = RpcEnv::builder("other")
        .bind("127.0.0.1:0")
        .start()
        .await
        .expect("a free port");
    let address = other.address().expect("it listens").clone();
    let watcher = other
        .retrieve_endpoint_ref::<Tally>(pair.server.address().expect("it listens"), "watcher")
        .await;
    assert!(watcher.is_ok());
    assert_eq!(
        seen.recv().await,
        Some((Seen::Connected, Some(address.clone())))
    );
    other.shutdown().await;
    assert_eq!(seen.recv().await, Some((Seen::Disconnected, Some(address))));
    let client = pair
        .caller
        .retrieve_endpoint_ref::<Tally>(pair.server.address().expect("it listens"), "watcher")
        .await;
    assert!(client.is_ok());
    assert!(matches!(
        seen.recv().await,
        Some((Seen::Connected, Some(_)))
    ));
    pair.server.shutdown().await;
    assert_eq!(seen.recv().await, Some((Seen::Stopped, None)));
    assert_eq!(seen.recv().await, None);
    pair.caller.shutdown().await;
}

/// Panics before it has made its future.
struct Hasty;

impl RpcEndpoint for Hasty {
    type Message = Tally;

    fn receive(
        &mut self,
        message: Tally,
        _: &EndpointContext<Tally>,
    ) -> impl Future<Output = Result<(), EndpointError>> + Send {
        let call = match message {
            Tally::Add => panic!("on purpose"),
            Tally::Sum(call) => call,
        };
        async move {
            call.reply(0);
            Ok(())
        }
    }
}

#[tokio::test]
async fn a_panic_before_the_first_await_does_not_wedge_the_endpoint() {
    let pair = Pair::new(common::Join::Local, aloha_rpc::Codec::Bincode).await;
    let hasty = pair.set_up("hasty", Hasty).await;
    hasty.send(Tally::Add).expect("room");
    assert_eq!(hasty.ask(Tally::Sum).await.expect("a reply"), 0);
    pair.shutdown().await;
}

#[tokio::test]
async fn an_ask_that_nobody_answers_ends_with_its_environment() {
    for join in [common::Join::Local, common::Join::Tcp] {
        let pair = Pair::new(join, aloha_rpc::Codec::Bincode).await;
        let (calls, mut kept) = mpsc::channel(1);
        let keeper = pair.set_up("keeper", Keeper(calls)).await;
        let ask = tokio::spawn(keeper.ask(Keep));
        let _call = kept.recv().await.expect("kept");
        pair.caller.shutdown().await;
        let ended = ask.await.expect("no panic").expect_err("nobody answers");
        assert!(
            matches!(ended, AskError::EnvironmentStopped { .. }),
            "{ended}"
        );
        pair.server.shutdown().await;
    }
}

#[test]
fn a_blocking_ask_works_outside_async() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let pair = runtime.block_on(Pair::new(common::Join::Tcp, aloha_rpc::Codec::Bincode));
    let talker = runtime.block_on(pair.set_up("talker", Talker::default()));
    assert_eq!(
        talker
            .ask_blocking(|call| Say::Echo("hi".into(), call))
            .expect("a reply"),
        "hi"
    );
    let late = talker
        .ask_for::<String>(Duration::from_millis(5), Say::Never)
        .wait();
    assert!(matches!(late, Err(AskError::TimedOut { .. })));
    runtime.block_on(pair.shutdown());
}

#[tokio::test]
async fn a_permit_waits_for_a_place() {
    let pair = Pair::new(common::Join::Local, aloha_rpc::Codec::Bincode).await;
    let gate = Arc::new(Notify::new());
    let handled = Arc::new(AtomicUsize::new(0));
    let config = aloha_rpc::RpcConfig {
        inbox_messages_max: 2,
        ..common::config(aloha_rpc::Codec::Bincode)
    };
    let env = RpcEnv::builder("small")
        .config(config)
        .start()
        .await
        .expect("it starts");
    let slow = env
        .setup_endpoint("slow", Slow(Arc::clone(&gate), Arc::clone(&handled)))
        .expect("a new name");
    while slow.send(Tally::Add).is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(
        slow.send(Tally::Add),
        Err(SendError::InboxFull { limit: 2, .. })
    ));
    let (permit, ()) = tokio::join!(slow.reserve(), async {
        tokio::task::yield_now().await;
        for _ in 0..3 {
            gate.notify_one();
            tokio::task::yield_now().await;
        }
    });
    gate.notify_waiters();
    permit
        .expect("a place")
        .send(Tally::Add)
        .expect("it is open");
    drop(slow);
    pair.shutdown().await;
}

struct Slow(Arc<Notify>, Arc<AtomicUsize>);

impl RpcEndpoint for Slow {
    type Message = Tally;

    async fn receive(&mut self, _: Tally, _: &EndpointContext<Tally>) -> Result<(), EndpointError> {
        self.0.notified().await;
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
