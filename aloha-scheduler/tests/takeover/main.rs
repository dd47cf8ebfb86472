//! One master takes over from another: what runs goes on, what waits waits on, and nothing is lost or doubled.

mod ground;
#[path = "../common/paused.rs"]
mod paused;

use std::collections::BTreeSet;
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEndpointRef};
use aloha_scheduler::election::Standing;
use aloha_scheduler::master::WorkerState;
use aloha_scheduler::{
    AppPhase, MASTER, MasterMessage, MasterRole, Outcome, SubmitAnswer, WORKER, WorkerMessage,
};
use ground::{description, run, until};
use paused::{accepted, now};
use tokio::time::sleep;

#[test]
fn what_runs_goes_on_and_workers_come_at_once_to_a_leader_they_were_never_told_of() {
    run(async |ground| {
        let (_worker, apps) = ground.worker("w0").await;
        let [first, second, ..] = &ground.masters[..] else {
            panic!("there are three")
        };
        first.has_workers(1).await;
        let running = accepted(first.client().submit(description("runs", 4)).await);
        let waiting = accepted(first.client().submit(description("waits", 4)).await);
        first.reaches(&running, AppPhase::Running).await;
        let before = first.leads().await;

        ground.ballot.tell(Standing::Lost);
        let epoch = second.leads().await;
        assert!(epoch > before, "{epoch} follows {before}");
        let begun = now();
        second.has_workers(1).await;
        second.reaches(&running, AppPhase::Running).await;
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(second.status(&running).await.attempt, 1);
        assert_eq!(second.status(&waiting).await.phase, AppPhase::Submitted);
        first.stands_by().await;

        apps.end(&running, Outcome::Exited(0));
        second.reaches(&running, AppPhase::Finished).await;
        second.reaches(&waiting, AppPhase::Running).await;
        let expected = [(running.to_string(), 1), (waiting.to_string(), 1)];
        assert_eq!(apps.started(), expected);
    });
}

#[test]
fn once_elections_can_be_held_again_somebody_leads_however_long_they_could_not() {
    run(async |ground| {
        ground.ballot.away(true);
        ground.ballot.tell(Standing::Lost);
        sleep(Duration::from_secs(615)).await;
        for master in &ground.masters {
            master.stands_by().await;
        }
        ground.ballot.away(false);
        let back = now();
        until(async || {
            let mut roles = ground.masters.iter().map(|it| it.master.role());
            roles.any(|role| matches!(*role.borrow(), MasterRole::Leading { .. }))
        })
        .await;
        assert!(
            back.elapsed() < Duration::from_secs(2),
            "{:?}",
            back.elapsed()
        );
        // What kept the others from standing for election is no news of them any more.
        for master in &ground.masters {
            let mut role = master.master.role();
            let is_well = |role: &MasterRole| {
                let leads = matches!(role, MasterRole::Leading { .. });
                leads || *role == MasterRole::Standby { reason: None }
            };
            drop(role.wait_for(is_well).await.expect("it lives"));
        }
    });
}

#[test]
fn masters_win_and_lose_again_and_again_and_nothing_is_lost() {
    run(async |ground| {
        let (_worker, apps) = ground.worker("w0").await;
        let client = ground.connect().await.expect("one leads");
        let mut submitted = Vec::new();
        let mut epochs = BTreeSet::new();
        for round in 0..30 {
            let leader = &ground.masters[round % 3];
            assert!(epochs.insert(leader.leads().await), "an epoch twice");
            leader.has_workers(1).await;
            let app = accepted(client.submit(description("a", 1)).await);
            submitted.push(app);
            ground.ballot.tell(Standing::Lost);
            leader.stands_by().await;
        }
        let leader = &ground.masters[0];
        leader.leads().await;
        leader.has_workers(1).await;
        assert_eq!(leader.apps().await, submitted, "in the order of submission");
        for app in submitted.iter().take(4) {
            leader.reaches(app, AppPhase::Running).await;
        }
        let started: BTreeSet<_> = apps.started().into_iter().collect();
        assert_eq!(started.len(), 4, "each runs once");
        assert_eq!(apps.started().len(), 4, "each runs once");
    });
}

#[test]
fn a_leader_that_does_not_know_it_is_deposed_does_no_harm_and_learns_it() {
    run(async |ground| {
        let (_worker, apps) = ground.worker("w0").await;
        let [first, second, ..] = &ground.masters[..] else {
            panic!("there are three")
        };
        first.has_workers(1).await;
        let running = accepted(first.client().submit(description("runs", 1)).await);
        first.reaches(&running, AppPhase::Running).await;

        ground.ballot.forget_leader();
        second.leads().await;
        // The worker is connected to the first, which is there and says nothing.
        second.has_workers(1).await;
        second.reaches(&running, AppPhase::Running).await;

        let refused = first.client().submit(description("never", 1)).await;
        assert!(
            !matches!(refused, Ok(SubmitAnswer::Accepted { .. })),
            "{refused:?}"
        );
        first.stands_by().await;
        assert_eq!(second.apps().await, std::slice::from_ref(&running));
        sleep(Duration::from_secs(120)).await;
        assert_eq!(apps.started(), [(running.to_string(), 1)]);
        let workers = second.client().workers().await.expect("it leads");
        assert_eq!(workers[0].state, WorkerState::Alive);
    });
}

#[test]
fn an_end_that_the_old_leader_never_acknowledged_is_the_new_ones_to_know() {
    run(async |ground| {
        let (_worker, apps) = ground.worker("w0").await;
        let [first, second, ..] = &ground.masters[..] else {
            panic!("there are three")
        };
        first.has_workers(1).await;
        let mut once = description("once", 1);
        once.supervise = false;
        let app = accepted(first.client().submit(once).await);
        first.reaches(&app, AppPhase::Running).await;

        ground.ballot.tell(Standing::Suspended);
        apps.end(&app, Outcome::Exited(3));
        sleep(Duration::from_secs(1)).await;
        ground.ballot.tell(Standing::Lost);
        second.leads().await;
        second.reaches(&app, AppPhase::Failed).await;
        assert_eq!(second.status(&app).await.exit_code, Some(3));
    });
}

#[test]
fn a_leader_that_is_suspended_takes_nothing_on_until_it_is_sure_again() {
    run(async |ground| {
        let (_worker, apps) = ground.worker("w0").await;
        let first = &ground.masters[0];
        first.has_workers(1).await;
        ground.ballot.tell(Standing::Suspended);
        // Longer than the worker is trusted without word.
        sleep(Duration::from_secs(20)).await;
        let refused = first.client().submit(description("later", 1)).await;
        assert!(
            matches!(refused, Ok(SubmitAnswer::Busy { .. })),
            "{refused:?}"
        );
        ground.ballot.tell(Standing::Held);
        let app = accepted(first.client().submit(description("now", 1)).await);
        first.reaches(&app, AppPhase::Running).await;
        assert_eq!(apps.started(), [(app.to_string(), 1)]);
    });
}

#[test]
fn a_leader_that_hands_over_leaves_no_gap_of_a_second_and_no_doubt() {
    run(async |ground| {
        let (_worker, apps) = ground.worker("w0").await;
        let [first, second, ..] = &ground.masters[..] else {
            panic!("there are three")
        };
        first.has_workers(1).await;
        let client = ground.connect().await.expect("one leads");
        let hand_over = async {
            sleep(Duration::from_millis(500)).await;
            first.master.hand_over().await;
            second.leads().await;
            first.env.shutdown().await;
        };
        let submit = async {
            let (mut submitted, mut longest) = (Vec::new(), Duration::ZERO);
            let mut last = now();
            for _ in 0..400 {
                let app = accepted(client.submit(description("a", 1)).await);
                longest = longest.max(last.elapsed());
                last = now();
                submitted.push(app);
                sleep(Duration::from_millis(5)).await;
            }
            (submitted, longest)
        };
        let ((), (submitted, gap)) = tokio::join!(hand_over, submit);
        assert!(
            gap < Duration::from_secs(1),
            "nothing was accepted for {gap:?}"
        );
        assert_eq!(second.apps().await, submitted, "none lost, none doubled");
        second.has_workers(1).await;
        until(async || apps.started().len() == 4).await;
        assert!(apps.started().iter().all(|(_, attempt)| *attempt == 1));
    });
}

#[test]
fn a_master_that_handed_over_or_was_a_standby_never_leads_again() {
    run(async |ground| {
        let [first, second, third] = &ground.masters[..] else {
            panic!("there are three")
        };
        second.master.hand_over().await;
        let begun = now();
        first.master.hand_over().await;
        assert!(begun.elapsed() < Duration::from_secs(1));
        third.leads().await;
        ground.ballot.tell(Standing::Lost);
        third.stands_by().await;
        third.leads().await;
        first.stands_by().await;
        second.stands_by().await;
    });
}

#[test]
fn a_master_that_stood_still_holds_no_silence_against_anybody() {
    run(async |ground| {
        let (_worker, apps) = ground.worker("w0").await;
        let first = &ground.masters[0];
        first.has_workers(1).await;
        let app = accepted(first.client().submit(description("runs", 1)).await);
        first.reaches(&app, AppPhase::Running).await;
        let mut events = first.master.events();

        tokio::time::advance(Duration::from_secs(300)).await;
        sleep(Duration::from_secs(120)).await;
        let mut happened = Vec::new();
        while let Ok(event) = events.try_recv() {
            happened.push(event);
        }
        assert_eq!(happened, [], "nothing has happened");
        assert_eq!(apps.started(), [(app.to_string(), 1)]);
    });
}

#[test]
fn a_deposed_leader_that_stood_still_acknowledges_no_heartbeat() {
    run(async |ground| {
        let (_worker, _) = ground.worker("w0").await;
        let [first, second, ..] = &ground.masters[..] else {
            panic!("there are three")
        };
        first.has_workers(1).await;
        let asker = ground.sim.client("asker").await;
        let master: RpcEndpointRef<MasterMessage> = asker
            .retrieve_endpoint_ref(&first.address(), MASTER)
            .await
            .expect("it is there");
        let worker: RpcEndpointRef<WorkerMessage> = asker
            .retrieve_endpoint_ref(&RpcAddress::new("w0", 7077), WORKER)
            .await
            .expect("it is there");
        let id = first.client().workers().await.expect("it leads")[0]
            .id
            .clone();
        ground.ballot.forget_leader();
        second.leads().await;
        second.has_workers(1).await;

        let heartbeat = |call| MasterMessage::Heartbeat { id, worker, call };
        tokio::time::advance(Duration::from_secs(10)).await;
        let answer = master.ask(heartbeat).await;
        assert!(answer.is_err(), "it would have renewed a lease");
        first.stands_by().await;
    });
}
