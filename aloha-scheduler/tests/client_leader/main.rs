//! A client among several masters of which one leads: on a simulated network, under a clock that jumps.

#[path = "../common/decided.rs"]
mod decided;
mod follow;
mod ground;
mod news;
mod old_master;
#[path = "../common/paused.rs"]
mod paused;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use aloha_rpc::testing::Simulation;
use aloha_scheduler::election::Standing;
use aloha_scheduler::{AppId, AppPhase, AppsQuery, ClientError, MasterClient, SubmitAnswer};
use ground::{Candidate, Ground, run};
use paused::{accepted, description, now};
use tokio::sync::watch;
use tokio::time::sleep;

#[test]
fn the_leader_is_found_wherever_it_stands_in_the_list() {
    for place in 0..3 {
        run(async |ground| {
            let _leads = ground.masters[place].elect().await;
            let client = ground.connect().await.expect("one leads");
            let app = accepted(client.submit(description("a")).await);
            assert_eq!(ground.masters[place].apps().await, [app]);
        });
    }
}

#[test]
fn a_client_waits_for_an_election_that_is_still_on() {
    run(async |ground| {
        let elect = async {
            sleep(Duration::from_secs(10)).await;
            ground.masters[2].elect().await
        };
        let (client, _leads) = tokio::join!(ground.connect(), elect);
        let cluster = client.expect("one leads").cluster().await;
        assert_eq!(
            cluster.expect("an answer").master,
            ground.masters[2].address().to_string()
        );
    });
}

#[test]
fn where_nobody_is_elected_the_error_names_each_master_and_why() {
    run(async |ground| {
        ground.sim.network().crash("m1");
        let error = ground.connect().await.expect_err("none leads").to_string();
        for expected in [
            "no master leads: m0:7077 and m2:7077 do not lead; ",
            "m1:7077 did not answer (",
        ] {
            assert!(error.contains(expected), "{error}");
        }
    });
}

#[test]
fn the_error_says_what_a_standby_has_found_out_since_it_was_first_asked() {
    run(async |ground| {
        let stop = async {
            sleep(Duration::from_secs(5)).await;
            ground.masters[0].master.hand_over().await;
        };
        let (client, ()) = tokio::join!(ground.connect(), stop);
        assert_eq!(
            client.expect_err("none leads").to_string(),
            "no master leads: m0:7077 does not lead (it is about to stop); m1:7077 and m2:7077 do not lead"
        );
    });
}

#[test]
fn who_wants_to_know_is_told_once_that_no_master_leads_and_for_how_long_that_is_waited_for() {
    run(async |ground| {
        let begun = now();
        let client = ground.unconnected();
        let mut told = Vec::new();
        let after = Duration::from_secs(2);
        let wait = async {
            client.reach().await.expect_err("none leads");
            let led = ground.masters[0].elect().await;
            client.cluster().await.expect("an answer");
            ground.sim.network().crash("m0");
            drop(led);
            // Two that wait are one wait.
            let patient = client.clone().with_patience(Duration::from_secs(60));
            let _ = tokio::join!(client.cluster(), patient.workers());
            let hasty = client.clone().with_patience(Duration::from_secs(3));
            drop(hasty.cluster().await);
        };
        tokio::select! {
            biased;
            () = wait => {}
            never = client.tell_of_waits(after, |left| told.push((begun.elapsed(), left))) => match never {},
        }
        let left: Vec<_> = told.iter().map(|(_, left)| left.as_secs()).collect();
        assert_eq!((told[0].0, left), (after, vec![28, 57]));
    });
}

#[test]
fn a_cluster_that_is_not_there_is_not_waited_for() {
    run(async |ground| {
        for host in ["m0", "m1", "m2"] {
            ground.sim.network().crash(host);
        }
        let begun = now();
        let error = ground.connect().await.expect_err("none is there");
        assert!(
            matches!(&error, ClientError::NoMaster { tried } if tried.len() == 3),
            "{error}"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
    });
}

#[test]
fn masters_that_swallow_everything_cost_the_others_no_time() {
    run(async |ground| {
        let _leads = ground.masters[2].elect().await;
        ground.sim.network().isolate("m0");
        ground.sim.network().isolate("m1");
        let begun = now();
        let client = ground.connect().await.expect("one leads");
        client.cluster().await.expect("an answer");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
    });
}

/// Any of the questions that may be asked twice.
type Question = fn(MasterClient, AppId) -> Pin<Box<dyn Future<Output = Result<Said, ClientError>>>>;

struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn said(answer: impl fmt::Debug) -> Said {
    Said(format!("{answer:?}"))
}

/// Each with what its answer has in it.
const QUESTIONS: [(Question, &str); 10] = [
    (
        |c, id| Box::pin(async move { c.status(id).await.map(said) }),
        "Submitted",
    ),
    (
        |c, id| Box::pin(async move { c.wait_for(&id, Duration::ZERO).await.map(said) }),
        "Submitted",
    ),
    (
        |c, _| Box::pin(async move { c.apps_page(AppsQuery::default()).await.map(said) }),
        "Submitted",
    ),
    (
        |c, _| Box::pin(async move { c.workers().await.map(said) }),
        "[]",
    ),
    (
        |c, _| Box::pin(async move { c.cluster().await.map(said) }),
        "m1:7077",
    ),
    (
        |c, id| Box::pin(async move { c.kill(id).await.map(said) }),
        "success: true",
    ),
    (
        |c, id| Box::pin(async move { c.forget(id).await.map(said) }),
        "NotEnded",
    ),
    (
        |c, _| Box::pin(async move { c.clear().await.map(said) }),
        "0",
    ),
    (
        |c, _| Box::pin(async move { c.kill_all().await.map(said) }),
        "1",
    ),
    (
        |c, _| Box::pin(async move { c.submit_once(description("b"), "k").await.map(said) }),
        "Accepted",
    ),
];

/// What becomes of the leader in the middle of each question.
fn every_question_outlives(end: impl Fn(&Simulation), limit: Duration) {
    for (question, expected) in QUESTIONS {
        run(async |ground| {
            ground.slow_down(Duration::from_millis(100));
            let _led = ground.masters[0].elect().await;
            let client = ground.connect().await.expect("one leads");
            let app = accepted(client.submit(description("a")).await);
            let begun = now();
            let change = async {
                // The question is on its way.
                sleep(Duration::from_millis(50)).await;
                end(&ground.sim);
                ground.masters[1].elect().await
            };
            let (answer, _leads) = tokio::join!(question(client, app), change);
            let answer = answer.expect(expected).to_string();
            assert!(answer.contains(expected), "{answer}");
            assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
        });
    }
}

#[test]
fn every_question_is_answered_though_the_leader_dies_meanwhile() {
    every_question_outlives(|sim| sim.network().crash("m0"), Duration::from_secs(2));
}

#[test]
fn every_question_is_answered_though_the_leader_is_cut_off_meanwhile() {
    every_question_outlives(|sim| sim.network().isolate("m0"), Duration::from_secs(2));
}

#[test]
fn a_leader_that_steps_down_is_not_asked_again() {
    run(async |ground| {
        let led = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        let first = accepted(client.submit(description("a")).await);
        led.send_replace(Standing::Lost);
        let _leads = ground.masters[1].elect().await;
        // Refused by a standby, it is certain that nothing was taken.
        let second = accepted(client.submit(description("b")).await);
        assert_eq!(ground.masters[1].apps().await, [first, second]);
    });
}

#[test]
fn a_submission_without_a_key_goes_elsewhere_where_it_cannot_have_arrived() {
    run(async |ground| {
        let led = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        let first = accepted(client.submit(description("a")).await);
        // Nobody is there any more, which the client knows before it submits.
        ground.masters[0].env.shutdown().await;
        drop(led);
        sleep(Duration::from_secs(1)).await;
        let elect = async {
            sleep(Duration::from_secs(5)).await;
            ground.masters[1].elect().await
        };
        let (second, _leads) = tokio::join!(client.submit(description("b")), elect);
        assert_eq!(ground.masters[1].apps().await, [first, accepted(second)]);
    });
}

/// Submits to a leader that takes it, stores it, and dies before its answer arrives.
async fn lose_the_answer(
    ground: &Ground,
    submit: impl AsyncFnOnce(MasterClient) -> Result<SubmitAnswer, ClientError>,
) -> (Result<SubmitAnswer, ClientError>, watch::Sender<Standing>) {
    ground.slow_down(Duration::from_millis(100));
    let led = ground.masters[0].elect().await;
    let client = ground.connect().await.expect("one leads");
    let change = async {
        sleep(Duration::from_millis(150)).await;
        assert_eq!(ground.masters[0].apps().await.len(), 1, "it is stored");
        ground.sim.network().crash("m0");
        drop(led);
        ground.masters[1].elect().await
    };
    tokio::join!(submit(client), change)
}

#[test]
fn a_submission_with_a_key_whose_answer_is_lost_is_repeated_and_runs_once() {
    run(async |ground| {
        let submit = async |client: MasterClient| client.submit_once(description("a"), "k").await;
        let (answer, _leads) = lose_the_answer(&ground, submit).await;
        assert_eq!(ground.masters[1].apps().await, [accepted(answer)]);
    });
}

#[test]
fn a_submission_without_a_key_whose_answer_is_lost_is_not_repeated_and_the_error_says_so() {
    run(async |ground| {
        let submit = async |client: MasterClient| client.submit(description("a")).await;
        let (answer, _leads) = lose_the_answer(&ground, submit).await;
        let error = answer.expect_err("nobody knows");
        assert!(
            matches!(error, ClientError::OutcomeUnknown { .. }),
            "{error}"
        );
        let error = error.to_string();
        for expected in [
            "may have taken",
            "`aloha apps --name 'a'` shows it if so",
            "m0:7077 did not answer",
        ] {
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(ground.masters[1].apps().await.len(), 1);
    });
}

#[test]
fn a_submission_with_a_key_whose_answer_stays_lost_names_the_key_that_makes_it_safe_to_repeat() {
    run(async |ground| {
        ground.slow_down(Duration::from_millis(100));
        let led = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        let vanish = async {
            sleep(Duration::from_millis(150)).await;
            ground.sim.network().crash("m0");
            drop(led);
        };
        let (answer, ()) = tokio::join!(client.submit_once(description("a"), "k"), vanish);
        let error = answer.expect_err("nobody knows");
        assert!(
            matches!(&error, ClientError::OutcomeUnknown { key: Some(key), .. } if key == "k"),
            "{error}"
        );
        let error = error.to_string();
        assert!(error.contains("under the key k it runs once"), "{error}");
        // Here it is certain that nobody heard of it.
        let error = client.submit_once(description("b"), "l").await;
        assert!(
            matches!(&error, Err(ClientError::NoMaster { .. })),
            "{error:?}"
        );
    });
}

#[test]
fn a_patience_without_end_is_one() {
    run(async |ground| {
        let _leads = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        let client = client.with_patience(Duration::MAX);
        client.cluster().await.expect("an answer");
    });
}

#[test]
fn a_wait_goes_on_at_the_next_leader() {
    run(async |ground| {
        let led = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        let app = accepted(client.submit(description("a")).await);
        let change = async {
            sleep(Duration::from_secs(100)).await;
            ground.sim.network().crash("m0");
            drop(led);
            sleep(Duration::from_secs(10)).await;
            let leads = ground.masters[1].elect().await;
            sleep(Duration::from_secs(100)).await;
            let killed = client.kill(app.clone()).await.expect("an answer");
            assert!(killed.success, "{killed:?}");
            leads
        };
        let (status, _leads) = tokio::join!(client.wait(&app), change);
        let status = status.expect("an answer").expect("it is remembered");
        assert_eq!(status.phase, AppPhase::Killed);
    });
}

/// How many messages a master was sent.
pub(crate) fn handled(candidate: &Candidate) -> u64 {
    let snapshot = candidate.env.snapshot();
    let masters = snapshot.endpoints.iter().filter(|e| &*e.name == "Master");
    masters.map(|endpoint| endpoint.handled).sum()
}

#[test]
fn many_who_wait_look_around_together() {
    run(async |ground| {
        let _leads = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        let app = accepted(client.submit(description("a")).await);
        let before = handled(&ground.masters[2]);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let (client, app) = (client.clone(), app.clone());
            callers.spawn(async move { client.wait_for(&app, Duration::from_secs(60)).await });
        }
        for answer in callers.join_all().await {
            let status = answer.expect("an answer").expect("it is remembered");
            assert_eq!(status.phase, AppPhase::Submitted);
        }
        let looks = handled(&ground.masters[2]) - before;
        assert!((2..40).contains(&looks), "{looks} looks in a minute");
    });
}

#[test]
fn many_callers_share_one_search() {
    run(async |ground| {
        let _led = ground.masters[0].elect().await;
        let client = ground.connect().await.expect("one leads");
        ground.sim.network().crash("m0");
        let before = handled(&ground.masters[2]);
        let mut callers = tokio::task::JoinSet::new();
        for _ in 0..500 {
            let client = client.clone();
            callers.spawn(async move { client.cluster().await });
        }
        sleep(Duration::from_secs(10)).await;
        let looks = handled(&ground.masters[2]) - before;
        let _leads = ground.masters[1].elect().await;
        for answer in callers.join_all().await {
            assert_eq!(answer.expect("one leads").master, "m1:7077");
        }
        // It is looked at once, and then asked to say who leads.
        assert!((2..4).contains(&looks), "{looks} looks at a standby");
    });
}
