use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::drain::{DrainMode, DrainRequest};

/// One step of a random life, with small numbers that are likely to meet.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Register {
        worker: u8,
        cores: u32,
        held: Vec<(u8, u32, u8)>,
    },
    Heartbeat(u8),
    Disconnect(u8),
    Leave(u8),
    Drain(u8, u8),
    Submit {
        cores: u32,
        memory_mib: u64,
        supervise: bool,
    },
    Kill(u8),
    Wait(u8),
    Start {
        worker: u8,
        app: u8,
        attempt: u32,
    },
    End {
        worker: u8,
        app: u8,
        attempt: u32,
        outcome: u8,
    },
    /// The worker that has an application reports about its current attempt.
    Truth {
        app: u8,
        outcome: Option<u8>,
    },
    Advance(u64),
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let (worker, app, attempt) = (0u8..4, 0u8..8, 1u32..4);
    prop_oneof![
        (
            worker.clone(),
            0u32..9,
            prop::collection::vec((app.clone(), attempt.clone(), 0u8..3), 0..4)
        )
            .prop_map(|(worker, cores, held)| Step::Register {
                worker,
                cores,
                held
            }),
        worker.clone().prop_map(Step::Heartbeat),
        worker.clone().prop_map(Step::Disconnect),
        worker.clone().prop_map(Step::Leave),
        (worker.clone(), 0u8..6).prop_map(|(worker, how)| Step::Drain(worker, how)),
        (0u32..6, 0u64..900, any::<bool>()).prop_map(|(cores, memory_mib, supervise)| {
            Step::Submit {
                cores,
                memory_mib,
                supervise,
            }
        }),
        (0u32..6, 0u64..900, any::<bool>()).prop_map(|(cores, memory_mib, supervise)| {
            Step::Submit {
                cores,
                memory_mib,
                supervise,
            }
        }),
        app.clone().prop_map(Step::Kill),
        app.clone().prop_map(Step::Wait),
        (worker.clone(), app.clone(), attempt.clone()).prop_map(|(worker, app, attempt)| {
            Step::Start {
                worker,
                app,
                attempt,
            }
        }),
        (worker, app.clone(), attempt, 0u8..6).prop_map(|(worker, app, attempt, outcome)| {
            Step::End {
                worker,
                app,
                attempt,
                outcome,
            }
        }),
        (app, prop::option::of(0u8..6)).prop_map(|(app, outcome)| Step::Truth { app, outcome }),
        (0u64..90).prop_map(Step::Advance),
    ]
}

fn outcome(n: u8) -> Outcome {
    match n {
        0 => Outcome::Exited(0),
        1 => Outcome::Exited(1),
        2 => Outcome::Killed,
        3 => Outcome::Lost("lost".into()),
        4 => Outcome::Declined("declined".into()),
        _ => Outcome::CouldNotStart("no".into()),
    }
}

/// Turns a step into an event, if it makes one now.
pub(super) fn event(t: &Harness, step: Step, token: u64) -> Option<Event> {
    let reply = ReplyTo(token);
    let worker = |n: u8| id(&format!("w{n}"));
    let apps = t.master.apps();
    let app = |n: u8| match apps.get(usize::from(n)) {
        Some(app) => app.id.clone(),
        None => format!("app-unknown-{n}").parse().unwrap(),
    };
    Some(match step {
        Step::Register {
            worker: n,
            cores,
            held,
        } => {
            let attempts = held
                .into_iter()
                .map(|(n, attempt, state)| {
                    let states = [
                        AttemptState::Starting,
                        AttemptState::Running,
                        AttemptState::Ended,
                    ];
                    super::held(&app(n), attempt, states[usize::from(state)])
                })
                .collect();
            let offers = Resources {
                cores,
                memory_mib: 1024,
            };
            let registration = WorkerRegistration {
                id: worker(n),
                host: "h".into(),
                port: 1,
                offers,
                attempts,
                enforces: CgroupSupport::default(),
                attributes: Attributes::new(),
                epoch: 0,
            };
            Event::WorkerRegistered {
                registration,
                reply,
            }
        }
        Step::Heartbeat(n) => Event::Heartbeat {
            worker: worker(n),
            reply,
        },
        Step::Disconnect(n) => Event::WorkerDisconnected { worker: worker(n) },
        Step::Leave(n) => Event::WorkerLeaving { worker: worker(n) },
        Step::Drain(n, how) => Event::DrainRequested {
            worker: worker(n),
            request: match how {
                0 | 1 => DrainRequest::Cancel,
                2 => DrainRequest::begin(DrainMode::Move, None),
                3 => DrainRequest::begin(DrainMode::Wait, None),
                4 => DrainRequest::begin(DrainMode::Wait, Some(Duration::from_secs(20))),
                _ => DrainRequest::begin(DrainMode::Move, Some(Duration::ZERO)),
            },
            reply,
        },
        Step::Submit {
            cores,
            memory_mib,
            supervise,
        } => {
            let (name, entry_point) = ("a".to_owned(), "Process".to_owned());
            let description = AppDescription {
                name,
                entry_point,
                cores,
                memory_mib,
                supervise,
                ..AppDescription::default()
            };
            Event::Submitted {
                description: description.into(),
                key: None,
                reply,
            }
        }
        Step::Kill(n) => Event::KillRequested { app: app(n), reply },
        Step::Wait(n) => {
            let deadline = t.now.instant + Duration::from_secs(30);
            Event::WaitRequested {
                app: app(n),
                reply,
                deadline,
            }
        }
        Step::Start {
            worker: w,
            app: n,
            attempt,
        } => Event::AttemptStarted {
            worker: worker(w),
            app: app(n),
            attempt,
            reply,
        },
        Step::End {
            worker: w,
            app: n,
            attempt,
            outcome: o,
        } => Event::AttemptEnded {
            worker: worker(w),
            app: app(n),
            attempt,
            outcome: outcome(o),
            reply,
        },
        Step::Truth { app: n, outcome: o } => {
            let status = apps.get(usize::from(n))?;
            let (worker, app, attempt) = (
                status.worker.clone()?.worker,
                status.id.clone(),
                status.attempt,
            );
            match o {
                Some(o) => Event::AttemptEnded {
                    worker,
                    app,
                    attempt,
                    outcome: outcome(o),
                    reply,
                },
                None => Event::AttemptStarted {
                    worker,
                    app,
                    attempt,
                    reply,
                },
            }
        }
        Step::Advance(_) => Event::Tick,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// `check_invariants` holds after every event; ends are final, attempts only rise, a launch goes only to a worker
    /// that has room for it, and every caller is answered at most once.
    #[test]
    fn whatever_happens_the_tables_agree_and_nothing_is_promised_twice(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut t = Harness::retaining(6);
        let mut attempts: BTreeMap<AppId, u32> = BTreeMap::new();
        let mut ended: BTreeMap<AppId, AppStatus> = BTreeMap::new();
        let mut answered = std::collections::BTreeSet::new();
        for (token, step) in (1..).zip(steps) {
            if let Step::Advance(seconds) = &step {
                t.now.instant += Duration::from_secs(*seconds);
                t.now.wall += Duration::from_secs(*seconds);
            }
            let Some(event) = event(&t, step, token) else { continue };
            let effects = t.master.handle(event, t.now);
            t.master.check_invariants();
            for effect in &effects {
                match effect {
                    Effect::Send(worker, WorkerCommand::LaunchApp { app, attempt, .. }) => {
                        let known = attempts.insert(app.clone(), *attempt).unwrap_or(0);
                        prop_assert!(known <= *attempt, "attempts fell");
                        let status = t.worker(worker.as_str());
                        // What it was given before it was drained, it may be told again.
                        let again = known == *attempt && status.state == WorkerState::Leaving;
                        prop_assert!(again || status.state == WorkerState::Alive);
                    }
                    Effect::Reply(to, _) => prop_assert!(answered.insert(*to), "{:?} was answered twice", to),
                    Effect::Send(..) | Effect::Persist(_) | Effect::Publish(_) => {}
                }
            }
            for status in t.master.apps() {
                if let Some(before) = ended.get(&status.id) {
                    prop_assert_eq!(before, &status);
                }
                if status.phase.is_final() {
                    ended.insert(status.id.clone(), status);
                }
            }
            if let Some(deadline) = t.master.next_deadline() {
                let late = t.now.instant.saturating_duration_since(deadline);
                prop_assert!(late <= Duration::from_secs(90));
            }
        }
    }

    /// When workers claim no more than they have, what is promised of one never exceeds it.
    #[test]
    fn honest_workers_are_never_given_more_than_they_have(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut t = Harness::retaining(6);
        // What each worker was given and has not reported ended, counted apart from the master.
        let mut given: BTreeMap<WorkerId, BTreeMap<(AppId, u32), Resources>> = BTreeMap::new();
        for (token, step) in (1..).zip(steps) {
            let (Some(event), registers) = (match step {
                Step::Register { worker, .. } => {
                    let id = id(&format!("w{worker}"));
                    let attempts = given.get(&id).into_iter().flatten().map(|((app, attempt), occupies)| HeldAttempt {
                        app: app.clone(), attempt: *attempt, occupies: *occupies, state: AttemptState::Running, epoch: EPOCH, description: None,
                    });
                    let offers = Resources { cores: 6, memory_mib: 1024 };
                    let registration =
                        WorkerRegistration {
                            id, host: "h".into(), port: 1, offers, attempts: attempts.collect(),
                            enforces: CgroupSupport::default(), attributes: Attributes::new(), epoch: 0,
                        };
                    (Some(Event::WorkerRegistered { registration, reply: ReplyTo(token) }), true)
                }
                Step::Start { .. } | Step::End { .. } => (None, false),
                Step::Advance(seconds) => {
                    t.now.instant += Duration::from_secs(seconds);
                    (Some(Event::Tick), false)
                }
                step => (event(&t, step, token), false),
            }) else { continue };
            if let Event::AttemptEnded { worker, app, attempt, .. } = &event
                && let Some(given) = given.get_mut(worker)
            {
                given.remove(&(app.clone(), *attempt));
            }
            let effects = t.master.handle(event, t.now);
            t.master.check_invariants();
            for effect in effects {
                if let Effect::Send(worker, WorkerCommand::LaunchApp { app, attempt, description, .. }) = effect {
                    let given = given.entry(worker).or_default();
                    given.insert((app, attempt), description.needs());
                    let used = given.values().copied().fold(Resources::default(), Resources::plus);
                    let offers = Resources { cores: 6, memory_mib: 1024 };
                    prop_assert!(used.fits_in(&offers), "promised {} (registering: {})", used, registers);
                }
            }
        }
    }
}
