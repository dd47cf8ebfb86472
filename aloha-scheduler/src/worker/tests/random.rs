//! Whatever happens.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn event() -> impl Strategy<Value = Event> {
    let id = || (0u8..5).prop_map(|n| app(&format!("app-{n}")));
    let (attempt, epoch) = (1u32..4, 5u64..9);
    let sent = || (0u64..1000).prop_map(|seconds| *START + Duration::from_secs(seconds));
    let master = || prop_oneof![Just(M1.to_owned()), Just(M2.to_owned())];
    let launch = (epoch.clone(), id(), attempt.clone(), 1u32..4, any::<bool>()).prop_map(
        |(epoch, app, attempt, cores, supervise)| {
            let description = Arc::new(AppDescription {
                cores,
                supervise,
                memory_mib: 100,
                ..AppDescription::default()
            });
            WorkerCommand::LaunchApp {
                epoch,
                app,
                attempt,
                description,
            }
        },
    );
    let kill = (epoch.clone(), id(), attempt.clone()).prop_map(|(epoch, app, attempt)| {
        WorkerCommand::KillApp {
            epoch,
            app,
            attempt,
        }
    });
    let again = epoch
        .clone()
        .prop_map(|epoch| WorkerCommand::Reregister { epoch });
    let leave = epoch
        .clone()
        .prop_map(|epoch| WorkerCommand::Leave { epoch });
    let command = prop_oneof![6 => launch, 4 => kill, 2 => again, 1 => leave];
    let outcome = prop_oneof![Just(Outcome::Exited(0)), Just(Outcome::Signaled(9))];
    let answer = prop_oneof![
        3 => epoch.prop_map(|epoch| RegistrationAnswer::Registered { epoch, heartbeat_interval: INTERVAL }),
        1 => Just(RegistrationAnswer::Standby),
        1 => Just(RegistrationAnswer::Unreachable),
    ];
    prop_oneof![
        1 => Just(Event::Started),
        3 => (master(), answer, sent()).prop_map(|(master, answer, sent)| answered(&master, answer, sent)),
        2 => (master(), sent()).prop_map(|(master, sent)| Event::HeartbeatAcknowledged { master, sent }),
        1 => master().prop_map(|master| Event::MasterDisconnected { master }),
        8 => (master(), command).prop_map(|(master, command)| Event::Commanded { master, command }),
        3 => (id(), attempt.clone()).prop_map(|(app, attempt)| Event::AppStarted { app, attempt }),
        5 => (id(), attempt.clone(), outcome).prop_map(|(app, attempt, outcome)| {
            Event::AppExited { app, attempt, outcome }
        }),
        3 => (id(), attempt).prop_map(|(app, attempt)| Event::ReportAcknowledged { app, attempt }),
        4 => Just(Event::Tick),
        1 => Just(Event::StopRequested { stop_apps: true }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// `check_invariants` holds after every event (no more is used than there is, one attempt of an application at a
    /// time); what is reported ended once was started or refused, and nothing follows the exit.
    #[test]
    fn whatever_happens_the_tables_agree_and_every_attempt_is_accounted_for(
        left in prop::collection::btree_map(0u8..5, (1u32..4, 0u8..3), 0..4),
        events in prop::collection::vec((event(), 0u64..20), 0..150),
        cut_off in any::<bool>(),
    ) {
        let mut t = Harness::stopping_when_cut_off(cut_off.then_some(60 * SECOND));
        let mut running = BTreeSet::new();
        for (n, (attempt, state)) in left {
            let id = format!("app-{n}");
            let state = match state {
                0 => {
                    running.insert((app(&id), attempt));
                    FoundState::Running
                }
                1 => FoundState::Ended(Outcome::Exited(0)),
                _ => FoundState::Settled,
            };
            t.tell(found(&id, attempt, state));
        }
        let mut exited = false;
        for (event, seconds) in events {
            t.now.instant += Duration::from_secs(seconds);
            let ticked = event == Event::Tick;
            if let Event::AppExited { app, attempt, .. } = &event {
                running.remove(&(app.clone(), *attempt));
            }
            let effects = t.worker.handle(event, t.now);
            t.worker.check_invariants();
            prop_assert!(!exited || effects.is_empty(), "{:?} after the exit", effects);
            for effect in effects {
                match effect {
                    Effect::StartApp { app, attempt, .. } => {
                        let other = running.iter().any(|(running, _): &(AppId, u32)| *running == app);
                        prop_assert!(!other, "two attempts of {} run", app);
                        running.insert((app, attempt));
                    }
                    Effect::Report { report: AttemptReport::Ended { app, attempt, .. }, .. } => {
                        prop_assert!(!running.contains(&(app, attempt)), "reported ended while it runs");
                    }
                    Effect::SignalApp { app, attempt, .. } => {
                        prop_assert!(running.contains(&(app, attempt)), "signalled what does not run");
                    }
                    Effect::Exit(_) => exited = true,
                    Effect::Register { .. }
                    | Effect::SendHeartbeat { .. }
                    | Effect::Report { .. }
                    | Effect::Settle { .. }
                    | Effect::Leave { .. } => {}
                }
            }
            let due = t.worker.next_deadline().is_some_and(|deadline| deadline <= t.now.instant);
            prop_assert!(!(ticked && due), "a tick left a deadline that is due");
        }
    }
}
