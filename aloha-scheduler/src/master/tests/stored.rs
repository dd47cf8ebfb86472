use super::model::Rng;
use super::*;
use crate::app::{AppState, Ending, Placement};

/// Anything that could be read from a store whose records were damaged one by one, or written by somebody else.
fn anything(rng: &mut Rng, now: u64) -> Stored {
    let wall = |rng: &mut Rng| [0, 1, now - 5_000, now, now + 5_000, u64::MAX][pick(rng, 6)];
    let place = |rng: &mut Rng| Placement {
        worker: id(["w0", "w1", "w2"][pick(rng, 3)]),
        address: ["h:1", "", ":", "h:99999999"][pick(rng, 4)].into(),
    };
    let apps = (0..rng.below(6)).map(|n| {
        let state = match rng.below(7) {
            0 => AppState::Submitted,
            1 => AppState::Relaunching {
                reason: "r".into(),
                not_before: (rng.below(2) == 0).then(|| wall(rng)),
            },
            2 => AppState::Launching { on: place(rng) },
            3 => AppState::Running {
                on: place(rng),
                since: wall(rng),
            },
            4 => AppState::Unknown {
                on: place(rng),
                since: (rng.below(2) == 0).then(|| wall(rng)),
            },
            _ => AppState::Ended {
                how: [Ending::Finished, Ending::Killed, Ending::Error][pick(rng, 3)],
                on: (rng.below(2) == 0).then(|| place(rng)),
                since: None,
                at: wall(rng),
                message: None,
            },
        };
        AppRecord {
            id: format!("app-{}", n - rng.below(n + 1))
                .parse()
                .expect("a good id"),
            number: [0, 1, 2, 1 << 40][pick(rng, 4)],
            key: None,
            description: AppDescription {
                supervise: rng.below(2) == 0,
                run_millis_max: (rng.below(2) == 0).then_some(1_000),
                ..description()
            }
            .into(),
            state,
            attempt: [0, 1, 2, u32::MAX][pick(rng, 4)],
            kill_requested: rng.below(4) == 0,
            submitted_at: wall(rng),
            restarts_in_a_row: [0, 3, u32::MAX][pick(rng, 3)],
            overran: rng.below(4) == 0,
            evicted: false,
            history: Vec::new(),
        }
    });
    let apps = apps.collect();
    let workers = (0..rng.below(3)).map(|n| WorkerRecord {
        id: id(&format!("w{n}")),
        host: "h".into(),
        port: 1,
        offers: Resources {
            cores: 2 * u32::try_from(n).expect("small"),
            memory_mib: 1024,
        },
        enforces: CgroupSupport::default(),
        attributes: Attributes::new(),
        drain: None,
    });
    Stored {
        apps,
        workers: workers.collect(),
        next_number: [0, 1, 1000, 1 << 50][pick(rng, 4)],
        set_aside: (0..rng.below(2))
            .map(|_| "app-7".parse().expect("a good id"))
            .collect(),
        keys: Vec::new(),
    }
}

fn pick(rng: &mut Rng, count: u64) -> usize {
    usize::try_from(rng.below(count)).expect("small")
}

#[test]
fn whatever_was_stored_is_survived_and_comes_to_an_end() {
    for seed in 0..3_000 {
        let mut rng = Rng(seed);
        let mut t = Harness::with(|settings| {
            settings.durable = true;
            settings.retained_apps = pick(&mut rng, 4);
        });
        let stored = anything(&mut rng, t.now.unix_millis());
        t.restart_from(stored.clone());
        t.master.check_invariants();
        for worker in ["w0", "w1", "w2"] {
            if rng.below(2) == 0 {
                let holds = stored.apps.iter().filter(|_| rng.below(2) == 0);
                let holds: Vec<_> = holds
                    .map(|app| held(&app.id, app.attempt, AttemptState::Running))
                    .collect();
                t.register_with(worker, 4, 1024, holds);
            }
        }
        t.submit(1, 1, false);
        t.advance(Duration::from_secs(30));
        t.advance(TIMEOUT);
        t.ignore();
        assert!(!t.master.is_recovering(), "seed {seed}: {stored:?}");
    }
}
