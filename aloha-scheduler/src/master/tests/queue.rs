use super::*;

/// Submits an application of one core, with what `change` makes of it.
pub(super) fn submit(t: &mut Harness, change: impl FnOnce(&mut AppDescription)) -> AppId {
    let mut description = AppDescription {
        name: "a".into(),
        entry_point: "Process".into(),
        cores: 1,
        memory_mib: 1,
        ..AppDescription::default()
    };
    change(&mut description);
    t.tell(Event::Submitted {
        key: None,
        description: description.into(),
        reply: ReplyTo(0),
    });
    t.master.apps().pop().expect("it was accepted").id
}

/// Registers a worker that has 1,024 MiB and these attributes.
pub(super) fn register_with_attributes(
    t: &mut Harness,
    worker: &str,
    cores: u32,
    attributes: &[(&str, &str)],
) {
    let attributes = attributes.iter();
    let attributes = attributes.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let memory_mib = 1024;
    let registration = WorkerRegistration {
        id: id(worker),
        host: worker.to_owned(),
        port: 1,
        offers: Resources { cores, memory_mib },
        attempts: Vec::new(),
        enforces: CgroupSupport::default(),
        attributes: attributes.collect(),
        epoch: 0,
    };
    t.tell(Event::WorkerRegistered {
        registration,
        reply: ReplyTo(0),
    });
}

#[test]
fn small_applications_spread_over_the_workers() {
    let mut t = Harness::new();
    for worker in ["w1", "w2", "w3"] {
        t.register(worker, 10, 4096);
    }
    for _ in 0..3 {
        t.submit(1, 1, false);
    }
    t.ignore();
    for worker in ["w1", "w2", "w3"] {
        assert_eq!(
            t.used(worker),
            Resources {
                cores: 1,
                memory_mib: 1
            }
        );
    }
}

#[test]
fn room_that_becomes_free_goes_to_who_came_first_and_fits() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let first = t.submit(4, 1, false);
    for cores in [8, 3, 2, 1] {
        t.submit(cores, 1, false);
    }
    t.ignore();
    // The one with eight cores fits no worker that there is, and lets the others pass.
    t.ended("w1", &first, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: LAUNCHING -> FINISHED",
        "reply: noted",
        "store app 2: LAUNCHING #1 on w1",
        "publish app 2: SUBMITTED -> LAUNCHING",
        "tell w1: launch app 2 #1",
    ]);
}

#[test]
fn a_higher_priority_is_placed_first_and_among_equals_who_came_first() {
    let mut t = Harness::new();
    let priorities = [0, 5, -1, 5, i32::MAX, i32::MIN, 0];
    let apps = priorities.map(|priority| submit(&mut t, |app| app.priority = priority));
    t.register("w1", 1, 1024);
    t.ignore();
    let mut order = Vec::new();
    for _ in priorities {
        let placed = t.worker("w1").apps.remove(0);
        order.push(apps.iter().position(|app| *app == placed).unwrap());
        t.ended("w1", &placed, 1, Outcome::Exited(0));
    }
    assert_eq!(order, [4, 1, 3, 0, 6, 2, 5]);
    t.ignore();
}

#[test]
fn small_applications_fill_one_worker_after_the_other_where_they_are_to_be_packed() {
    let mut t = Harness::with(|settings| settings.spread_out = false);
    for worker in ["w1", "w2", "w3"] {
        t.register(worker, 10, 4096);
    }
    for _ in 0..3 {
        t.submit(1, 1, false);
    }
    t.ignore();
    assert_eq!(
        ["w1", "w2", "w3"].map(|worker| t.used(worker).cores),
        [3, 0, 0]
    );
}

#[test]
fn an_application_goes_only_to_a_worker_that_meets_its_constraints() {
    let mut t = Harness::new();
    register_with_attributes(&mut t, "w1", 1, &[("zone", "a")]);
    register_with_attributes(&mut t, "w2", 1, &[("zone", "b"), ("gpu", "")]);
    register_with_attributes(&mut t, "w3", 8, &[]);
    let constrained = |constraints: &'static [&str]| {
        move |app: &mut AppDescription| {
            app.constraints = constraints
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        }
    };
    let a = submit(&mut t, constrained(&["zone=a"]));
    let not_a = submit(&mut t, constrained(&["zone!=a", "gpu"]));
    let no_gpu = submit(&mut t, constrained(&["!gpu"]));
    let second_a = submit(&mut t, constrained(&["zone=a"]));
    t.ignore();
    let on = |t: &Harness, app| t.status(app).worker.map(|on| on.worker.to_string());
    let place = [&a, &not_a, &no_gpu, &second_a].map(|app| on(&t, app));
    let expected = [Some("w1"), Some("w2"), Some("w3"), None];
    assert_eq!(place, expected.map(|worker| worker.map(str::to_owned)));
    // A worker that comes with what was missed is used at once.
    register_with_attributes(&mut t, "w4", 1, &[("zone", "a")]);
    assert_eq!(on(&t, &second_a).as_deref(), Some("w4"));
    t.ignore();
}

/// SPARK-45174: six are submitted, four run, two wait.
#[test]
fn no_more_run_at_once_than_their_tags_allow() {
    let mut t = Harness::with(|settings| {
        settings.tag_limits = [("etl".into(), 2), ("*".into(), 4)].into();
    });
    t.register("w1", 64, 4096);
    let apps: Vec<_> = (0..6).map(|_| submit(&mut t, |_| {})).collect();
    assert_eq!(t.worker("w1").apps, apps[..4]);
    let etl: Vec<_> = (0..3)
        .map(|_| {
            submit(&mut t, |app| {
                app.tags = ["etl".into(), "other".into()].into()
            })
        })
        .collect();
    for app in &apps {
        t.ended("w1", app, 1, Outcome::Exited(0));
    }
    // Two of the tag run, the third waits, whatever room there is.
    assert_eq!(t.worker("w1").apps, etl[..2]);
    // One that is away still counts.
    t.disconnect("w1");
    t.register("w2", 64, 4096);
    assert_eq!(t.worker("w2").apps, []);
    t.register_with(
        "w1",
        64,
        4096,
        etl[..2]
            .iter()
            .map(|app| held(app, 1, AttemptState::Running))
            .collect(),
    );
    t.kill(&etl[0]);
    t.ended("w1", &etl[0], 1, Outcome::Killed);
    assert_eq!(t.status(&etl[2]).attempt, 1);
    t.ignore();
}

#[test]
fn a_submission_says_nothing_of_the_others_that_wait() {
    let mut t = Harness::new();
    t.register("w1", 1, 1);
    for _ in 0..1000 {
        t.submit(2, 1, false);
    }
    t.ignore();
    t.submit(2, 1, false);
    t.expect([
        "store app 1000: SUBMITTED #0",
        "publish app 1000: SUBMITTED",
        "reply: submitted app 1000",
    ]);
}

#[test]
fn a_relaunched_application_keeps_its_place_in_the_queue() {
    let (mut t, first) = Harness::with_one_running(true);
    t.submit(4, 1, false);
    t.ignore();
    t.disconnect("w1");
    t.advance(TIMEOUT);
    t.ignore();
    t.register("w2", 4, 1024);
    assert_eq!(
        t.used("w2"),
        Resources {
            cores: 2,
            memory_mib: 512
        }
    );
    assert_eq!(t.worker("w2").apps, [first]);
    t.ignore();
}
