//! Standbys say who leads once they hear it.

use std::time::Duration;

use aloha_rpc::{AskError, RpcEndpointRef};
use aloha_scheduler::{LeaderAnswer, MASTER, MasterClient, MasterMessage};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::ground::{Candidate, Ground, run};
use crate::handled;
use crate::paused::{accepted, description, now};

async fn endpoint(ground: &Ground, master: &Candidate) -> RpcEndpointRef<MasterMessage> {
    let address = master.address();
    let found = ground.client.retrieve_endpoint_ref(&address, MASTER);
    found.await.expect("it is there")
}

/// Asks a master as clients do.
async fn ask(
    ground: &Ground,
    master: &Candidate,
    besides: Option<&str>,
    patience: Duration,
) -> Result<LeaderAnswer, AskError> {
    let master = endpoint(ground, master).await;
    let answer = master.ask_for(Duration::from_secs(600), |call| {
        MasterMessage::AwaitLeader {
            besides: besides.map(str::to_owned),
            patience_millis: patience.as_millis().try_into().expect("a few minutes"),
            call,
        }
    });
    answer.await
}

fn named(answer: Result<LeaderAnswer, AskError>) -> (Option<String>, bool) {
    let LeaderAnswer { leader, epoch } = answer.expect("an answer");
    (leader.map(|leader| leader.rpc), epoch > 0)
}

#[test]
fn every_master_says_at_once_who_leads_and_the_leader_in_which_epoch() {
    run(async |ground| {
        let _leads = ground.masters[0].elect().await;
        for (place, itself) in [(0, true), (1, false), (2, false)] {
            let answer = ask(&ground, &ground.masters[place], None, Duration::ZERO);
            let leader = Some("m0:7077".to_owned());
            assert_eq!(named(answer.await), (leader, itself));
        }
    });
}

#[test]
fn nobody_waits_longer_than_asked_nor_than_a_minute() {
    run(async |ground| {
        for (asked, waited) in [(0, 0), (5, 5), (600, 60)] {
            let begun = now();
            let asked = Duration::from_secs(asked);
            let answer = ask(&ground, &ground.masters[1], None, asked).await;
            assert_eq!(named(answer), (None, false));
            assert_eq!(begun.elapsed().as_secs(), waited);
        }
    });
}

#[test]
fn a_leader_that_is_known_already_is_no_news() {
    run(async |ground| {
        let _led = ground.masters[0].elect().await;
        let elect = async {
            sleep(Duration::from_secs(7)).await;
            ground.masters[1].elect().await
        };
        let begun = now();
        let known = Some("m0:7077");
        let minute = Duration::from_secs(60);
        let (heard, won, _leads) = tokio::join!(
            ask(&ground, &ground.masters[2], known, minute),
            ask(&ground, &ground.masters[1], known, minute),
            elect
        );
        let leader = Some("m1:7077".to_owned());
        assert_eq!(named(heard), (leader.clone(), false));
        assert_eq!(named(won), (leader, true));
        assert_eq!(begun.elapsed().as_secs(), 7);
    });
}

#[test]
fn who_is_elected_and_does_not_lead_yet_is_not_named_by_itself() {
    run(async |ground| {
        let address = ground.masters[1].address().to_string();
        ground
            .known
            .send_replace(Some(aloha_scheduler::election::MasterAddress {
                rpc: address,
                rest: None,
            }));
        let answer = ask(&ground, &ground.masters[1], None, Duration::from_secs(1)).await;
        assert_eq!(named(answer), (None, false));
    });
}

#[test]
fn who_goes_away_is_forgotten() {
    run(async |ground| {
        let minute = Duration::from_secs(60);
        // More than may wait at once.
        for _ in 0..12 {
            let mut askers = JoinSet::new();
            let master = endpoint(&ground, &ground.masters[1]).await;
            for _ in 0..1_000 {
                askers.spawn(master.ask(|call| MasterMessage::AwaitLeader {
                    besides: None,
                    patience_millis: 60_000,
                    call,
                }));
            }
            sleep(Duration::from_secs(1)).await;
            assert!(
                askers.try_join_next().is_none(),
                "there is room for all of them"
            );
            drop(askers);
            sleep(Duration::from_secs(1)).await;
        }
        let elect = async {
            sleep(Duration::from_secs(5)).await;
            ground.masters[1].elect().await
        };
        let (answer, _leads) = tokio::join!(ask(&ground, &ground.masters[1], None, minute), elect);
        assert_eq!(named(answer), (Some("m1:7077".to_owned()), true));
    });
}

async fn leader_of(client: &MasterClient) -> String {
    client.cluster().await.expect("one leads").master
}

#[test]
fn a_client_that_knows_one_standby_follows_it_from_leader_to_leader() {
    run(async |ground| {
        let led = ground.masters[0].elect().await;
        let begun = now();
        let client = ground.connect_to(2).await.expect("one leads");
        assert_eq!(leader_of(&client).await, "m0:7077");
        assert!(
            begun.elapsed() < Duration::from_millis(100),
            "{:?}",
            begun.elapsed()
        );
        ground.sim.network().crash("m0");
        drop(led);
        let elect = async {
            sleep(Duration::from_secs(12)).await;
            ground.masters[1].elect().await
        };
        let (leader, _leads) = tokio::join!(leader_of(&client), elect);
        assert_eq!(leader, "m1:7077");
    });
}

#[test]
fn a_client_that_waits_for_an_election_hears_of_it_at_once() {
    run(async |ground| {
        let led = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        for host in ["m0", "m2"] {
            ground.sim.network().crash(host);
        }
        drop(led);
        let elect = async {
            sleep(Duration::from_secs(25)).await;
            let leads = ground.masters[1].elect().await;
            (leads, now())
        };
        let (leader, (_leads, elected)) = tokio::join!(leader_of(&client), elect);
        assert_eq!(leader, "m1:7077");
        assert!(
            elected.elapsed() < Duration::from_millis(50),
            "{:?}",
            elected.elapsed()
        );
    });
}

#[test]
fn a_submission_with_a_key_leaves_a_leader_that_stands_still_once_another_is_elected() {
    for after in [0, 3, 20] {
        run(async |ground| {
            let led = ground.masters[0].elect().await;
            let client = ground.connect().await.expect("one leads");
            // Its connections stay open, and nothing comes back.
            ground.sim.network().isolate("m0");
            let elect = async {
                sleep(Duration::from_secs(after)).await;
                let leads = ground.masters[1].elect().await;
                drop(led);
                (leads, now())
            };
            let submit = client.submit_once(description("a"), "k");
            let (answer, (_leads, elected)) = tokio::join!(submit, elect);
            let taken = elected.elapsed();
            assert_eq!(ground.masters[1].apps().await, [accepted(answer)]);
            assert!(
                taken < Duration::from_millis(1_100),
                "{taken:?} after the election"
            );
        });
    }
}

#[test]
fn a_leader_that_is_slow_is_left_to_answer() {
    run(async |ground| {
        let _leads = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        ground.slow_down(Duration::from_secs(3));
        let answer = client.submit_once(description("a"), "k").await;
        assert_eq!(ground.masters[0].apps().await, [accepted(answer)]);
    });
}

#[test]
fn a_thousand_clients_that_lose_their_leader_make_no_storm() {
    run(async |ground| {
        const CLIENTS: u64 = 1_000;
        let led = ground.masters[0].elect().await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(ground.connect().await.expect("one leads"));
        }
        ground.sim.network().crash("m0");
        let before = [1, 2].map(|place| handled(&ground.masters[place]));
        drop(led);
        let mut callers = JoinSet::new();
        for (number, client) in clients.into_iter().enumerate() {
            callers.spawn(async move {
                let key = number.to_string();
                client.submit_once(description(&key), &key).await
            });
        }
        sleep(Duration::from_secs(25)).await;
        let [_, waiting] = [1, 2].map(|place| handled(&ground.masters[place]) - before[place - 1]);
        // Each looked once, was told of the dead leader, and then asked for another.
        assert!(waiting <= 3 * CLIENTS, "{waiting} messages to a standby");
        let _leads = ground.masters[1].elect().await;
        let elected = now();
        for answer in callers.join_all().await {
            accepted(answer);
        }
        let taken = elected.elapsed();
        assert!(taken < Duration::from_secs(1), "{taken:?}");
        let [leader, standby] =
            [1, 2].map(|place| handled(&ground.masters[place]) - before[place - 1]);
        assert!(leader <= 6 * CLIENTS, "{leader} messages to the new leader");
        assert!(standby <= 4 * CLIENTS, "{standby} messages to a standby");
        assert_eq!(ground.masters[1].apps().await.len(), 1_000);
    });
}
