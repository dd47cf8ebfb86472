//! References and call contexts that go from hand to hand, over several environments.

mod common;

use std::time::Duration;

use aloha_rpc::testing::{Probe, Simulation};
use aloha_rpc::{
    AskError, EndpointContext, EndpointError, LookupError, RpcCallContext, RpcEndpoint,
    RpcEndpointRef, RpcEnv, Termination,
};
use common::Pair;
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
enum Name {
    Who(RpcCallContext<String>),
    Note(u32),
    Count(RpcCallContext<u32>),
    Never(RpcCallContext<String>),
}

struct Named {
    name: &'static str,
    notes: u32,
    kept: Vec<RpcCallContext<String>>,
}

fn named(name: &'static str) -> Named {
    Named {
        name,
        notes: 0,
        kept: Vec::new(),
    }
}

impl RpcEndpoint for Named {
    type Message = Name;

    async fn receive(
        &mut self,
        message: Name,
        _: &EndpointContext<Name>,
    ) -> Result<(), EndpointError> {
        match message {
            Name::Who(call) => call.reply(self.name.to_owned()),
            Name::Note(number) => {
                assert_eq!(number, self.notes, "in order");
                self.notes += 1;
            }
            Name::Count(call) => call.reply(self.notes),
            Name::Never(call) => self.kept.push(call),
        }
        Ok(())
    }
}

/// Keeps references for others.
#[derive(Debug, Serialize, Deserialize)]
enum Board {
    Post(String, RpcEndpointRef<Name>, RpcCallContext<()>),
    Find(String, RpcCallContext<Option<RpcEndpointRef<Name>>>),
}

#[derive(Default)]
struct Notices(Vec<(String, RpcEndpointRef<Name>)>);

impl RpcEndpoint for Notices {
    type Message = Board;

    async fn receive(
        &mut self,
        message: Board,
        _: &EndpointContext<Board>,
    ) -> Result<(), EndpointError> {
        match message {
            Board::Post(name, endpoint, call) => {
                self.0.push((name, endpoint));
                call.reply(());
            }
            Board::Find(name, call) => {
                let found = self.0.iter().find(|(known, _)| *known == name);
                call.reply(found.map(|(_, endpoint)| endpoint.clone()));
            }
        }
        Ok(())
    }
}

async fn post_and_find(
    board: &RpcEndpointRef<Board>,
    finder: &RpcEndpointRef<Board>,
    endpoint: RpcEndpointRef<Name>,
) -> RpcEndpointRef<Name> {
    let name = endpoint.name().to_owned();
    let posted = name.clone();
    board
        .ask(|call| Board::Post(posted, endpoint, call))
        .await
        .expect("posted");
    let found = finder.ask(|call| Board::Find(name, call)).await;
    found.expect("a reply").expect("it was posted")
}

async fn a_client_reaches_an_endpoint_of_another_client(pair: Pair) {
    let board = pair.set_up("board", Notices::default()).await;
    let other = pair.third(false).await;
    let address = pair.server.address().expect("it listens");
    let others_board: RpcEndpointRef<Board> = other
        .retrieve_endpoint_ref(address, "board")
        .await
        .expect("it is there");
    let mine = pair.caller.setup_endpoint("mine", named("mine"));
    let mine = mine.expect("a new name");
    let found = post_and_find(&board, &others_board, mine.clone()).await;
    assert_eq!(found.ask(Name::Who).await.expect("relayed"), "mine");
    for note in 0..2_000 {
        found.send(Name::Note(note)).expect("room");
    }
    assert_eq!(found.ask(Name::Count).await.expect("relayed"), 2_000);
    // The same again, found a second time, and from its own environment.
    let again = post_and_find(&board, &others_board, mine.clone()).await;
    assert_eq!(again, found);
    let home = post_and_find(&board, &board, mine.clone()).await;
    assert_eq!(home.ask(Name::Who).await.expect("a reply"), "mine");
    assert_eq!(home, mine, "at home it is the endpoint itself");

    // A cancel goes all the way, and the end of the endpoint comes back.
    let asked = found.ask(Name::Never);
    assert_eq!(found.ask(Name::Count).await.expect("behind it"), 2_000);
    pair.caller.stop(&mine);
    let error = asked.await.expect_err("it has ended");
    assert!(
        matches!(
            &error,
            AskError::EndpointStopped { .. }
                | AskError::RelayLost { .. }
                | AskError::Dropped { .. }
        ),
        "{error}"
    );
    if !pair.is_local() {
        other.shutdown().await;
    }
    pair.shutdown().await;
}

async fn a_call_is_answered_by_a_third_environment(pair: Pair) {
    #[derive(Debug, Serialize, Deserialize)]
    enum Desk {
        To(RpcEndpointRef<Name>, RpcCallContext<String>),
    }
    struct Clerk;
    impl RpcEndpoint for Clerk {
        type Message = Desk;
        async fn receive_and_reply(
            &mut self,
            Desk::To(next, call): Desk,
            _: &EndpointContext<Desk>,
        ) -> Result<(), EndpointError> {
            Ok(next.forward(Name::Who(call))?)
        }
    }
    let desk = pair.set_up("desk", Clerk).await;
    let third = pair.third(true).await;
    let listens = third.setup_endpoint("listens", named("listens"));
    let listens = listens.expect("a new name");
    // Its reference is made known to the caller, who hands it to the desk.
    let found: RpcEndpointRef<Name> = pair
        .caller
        .retrieve_endpoint_ref(third.address().expect("it listens"), "listens")
        .await
        .expect("it is there");
    let answer = desk.ask(|call| Desk::To(found, call)).await;
    assert_eq!(answer.expect("answered by the third"), "listens");
    // And back to the asker itself, whose environment does not listen.
    let own = pair.caller.setup_endpoint("own", named("own"));
    let own = own.expect("a new name");
    let answer = desk.ask(|call| Desk::To(own, call)).await;
    assert_eq!(answer.expect("answered by the asker"), "own");
    drop(listens);
    if !pair.is_local() {
        third.shutdown().await;
    }
    pair.shutdown().await;
}

async fn a_look_up_by_another_type_says_which_was_expected(pair: Pair) {
    pair.set_up("named", named("named")).await;
    let address = pair.server.address().expect("it listens");
    let wrong = pair
        .caller
        .retrieve_endpoint_ref::<Board>(address, "named")
        .await
        .expect_err("another type");
    assert!(
        matches!(&wrong, LookupError::WrongType { expected, given, .. }
            if expected.starts_with("Name{Who,Note") && given.starts_with("Board{Post")),
        "{wrong}"
    );
    pair.shutdown().await;
}

everywhere!(
    a_client_reaches_an_endpoint_of_another_client,
    a_call_is_answered_by_a_third_environment,
    a_look_up_by_another_type_says_which_was_expected,
);

async fn look_up<M: Serialize + serde::de::DeserializeOwned + Send + 'static>(
    env: &RpcEnv,
    at: &RpcEnv,
    name: &str,
) -> RpcEndpointRef<M> {
    let address = at.address().expect("it listens");
    let found = env.retrieve_endpoint_ref(address, name).await;
    found.expect("it is there")
}

#[test]
fn the_death_of_a_relay_is_an_error_at_both_ends() {
    Simulation::run(5, async |sim| {
        let relay = sim.env("relay").await;
        let (one, two) = (sim.client("one").await, sim.client("two").await);
        relay
            .setup_endpoint("board", Notices::default())
            .expect("a name");
        let ones_board = look_up(&one, &relay, "board").await;
        let twos_board = look_up(&two, &relay, "board").await;
        let mut probe = Probe::<Name>::set_up(&one, "probe");
        let found = post_and_find(&ones_board, &twos_board, probe.endpoint_ref().clone()).await;
        let watch = two.watch(&found);
        let asked = found.ask(Name::Never);
        let Name::Never(call) = probe.next().await else {
            panic!("it was asked");
        };
        // The connection between relay and asker goes first.
        sim.network().cut("relay", "two");
        call.cancelled().await;
        let error = asked.await.expect_err("the way is gone");
        assert!(matches!(error, AskError::Disconnected { .. }), "{error}");
        assert!(matches!(
            watch.await.reason,
            Termination::Disconnected { .. }
        ));

        // Then that between relay and answerer, with a fresh reference.
        let found = post_and_find(&ones_board, &twos_board, probe.endpoint_ref().clone()).await;
        let watch = two.watch(&found);
        let asked = found.ask(Name::Never);
        let Name::Never(call) = probe.next().await else {
            panic!("it was asked");
        };
        sim.network().cut("relay", "one");
        let error = asked.await.expect_err("the way is gone");
        assert!(matches!(error, AskError::RelayLost { .. }), "{error}");
        call.cancelled().await;
        let reason = watch.await.reason;
        assert!(
            matches!(&reason, Termination::Failed { kind, .. } if kind == EndpointError::DISCONNECTED),
            "{reason}"
        );
        // What is sent by a way that is lost does not hang.
        let later = found.ask(Name::Who).await.expect_err("the relay has ended");
        assert!(
            matches!(
                later,
                AskError::EndpointNotFound { .. } | AskError::EndpointStopped { .. }
            ),
            "{later}"
        );
    });
}

#[test]
fn a_slow_end_holds_back_who_sends_through_a_relay() {
    Simulation::run(6, async |sim| {
        let relay = sim.env("relay").await;
        let (one, two) = (sim.client("one").await, sim.client("two").await);
        relay
            .setup_endpoint("board", Notices::default())
            .expect("a name");
        let ones_board = look_up(&one, &relay, "board").await;
        let twos_board = look_up(&two, &relay, "board").await;
        // It takes nothing until it is asked to.
        let mut probe = Probe::<Name>::set_up(&one, "probe");
        let found = post_and_find(&ones_board, &twos_board, probe.endpoint_ref().clone()).await;
        let mut sent = 0;
        while let Ok(Ok(place)) =
            tokio::time::timeout(Duration::from_secs(5), found.reserve()).await
        {
            place.send(Name::Note(sent)).expect("a place");
            sent += 1;
        }
        assert!(
            (16_384..600_000).contains(&sent),
            "{sent} messages were on the way"
        );
        for expected in 0..sent {
            let Name::Note(note) = probe.next().await else {
                panic!("only notes were sent");
            };
            assert_eq!(note, expected);
        }
        assert_eq!(relay.dead_letters() + two.dead_letters(), 0);
    });
}
