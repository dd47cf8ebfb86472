use super::queue::{register_with_attributes, submit};
use super::*;

fn waiting_for(t: &Harness, app: &AppId) -> String {
    t.status(app).waiting_for.unwrap_or_default()
}

#[test]
fn a_waiting_application_says_what_it_waits_for() {
    let mut t = Harness::new();
    let app = t.submit(8, 256, false);
    assert_eq!(waiting_for(&t, &app), "no worker is registered");
    t.register("w1", 4, 1024);
    assert_eq!(
        waiting_for(&t, &app),
        "needs 8 cores; the largest worker has 4"
    );
    t.register("w2", 8, 128);
    let both = t.submit(8, 1024, false);
    assert_eq!(
        waiting_for(&t, &both),
        "needs 8 cores and 1024 MiB; no worker has both"
    );
    let memory = t.submit(1, 4096, false);
    assert_eq!(
        waiting_for(&t, &memory),
        "needs 4096 MiB; the largest worker has 1024 MiB"
    );
    t.submit(2, 1, false);
    t.submit(7, 1, false);
    let busy = t.submit(7, 1, false);
    assert_eq!(
        waiting_for(&t, &busy),
        "needs 7 cores; the largest free worker has 6"
    );
    t.disconnect("w1");
    t.disconnect("w2");
    assert_eq!(
        waiting_for(&t, &busy),
        "every worker is disconnected, leaving or drained"
    );
    t.ignore();
}

#[test]
fn it_names_what_no_worker_has() {
    let mut t = Harness::new();
    register_with_attributes(&mut t, "w1", 4, &[("zone", "b"), ("gpu", "")]);
    register_with_attributes(&mut t, "w2", 8, &[("zone", "b"), ("gpu", ""), ("ssd", "")]);
    let cases: [(&[&str], u32, &str); 7] = [
        (&["zone=a"], 1, "no worker has zone=a"),
        (&["tpu"], 1, "no worker has tpu"),
        (&["!gpu"], 1, "every worker has gpu"),
        (&["zone!=b"], 1, "every worker has zone=b"),
        (
            &["!ssd"],
            5,
            "needs 5 cores; the largest worker with !ssd has 4",
        ),
        (
            &["ssd", "zone=b"],
            9,
            "needs 9 cores; the largest worker with zone=b and ssd has 8",
        ),
        (&[], 9, "needs 9 cores; the largest worker has 8"),
    ];
    for (constraints, cores, why) in cases {
        let app = submit(&mut t, |app| {
            app.cores = cores;
            app.constraints = constraints
                .iter()
                .map(|text| text.parse().unwrap())
                .collect();
        });
        assert_eq!(waiting_for(&t, &app), why);
    }
    register_with_attributes(&mut t, "w3", 8, &[("zone", "a")]);
    let apart = submit(&mut t, |app| {
        app.constraints = ["gpu", "zone=a"].map(|text| text.parse().unwrap()).into();
    });
    assert_eq!(waiting_for(&t, &apart), "no worker has zone=a and gpu");
    t.ignore();
}

#[test]
fn it_names_the_limit_that_is_reached() {
    let mut t = Harness::with(|settings| {
        settings.tag_limits = [("etl".into(), 1), ("*".into(), 2)].into();
    });
    t.register("w1", 4, 1024);
    let mut tagged = || submit(&mut t, |app| app.tags = ["etl".into()].into());
    let (first, second) = (tagged(), tagged());
    assert_eq!(t.status(&first).waiting_for, None);
    assert_eq!(waiting_for(&t, &second), "tag etl: 1 of 1 run");
    submit(&mut t, |_| {});
    let third = submit(&mut t, |_| {});
    assert_eq!(waiting_for(&t, &third), "all applications: 2 of 2 run");
    t.ignore();
}

#[test]
fn it_names_whom_the_room_is_kept_for() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    submit(&mut t, |app| app.cores = 2);
    let large = submit(&mut t, |app| app.cores = 4);
    let small = submit(&mut t, |_| {});
    assert_eq!(
        waiting_for(&t, &large),
        "needs 4 cores; the largest free worker has 2"
    );
    assert_eq!(
        waiting_for(&t, &small),
        format!("behind {large}, which came first")
    );
    let urgent = submit(&mut t, |app| (app.cores, app.priority) = (3, 1));
    assert_eq!(
        waiting_for(&t, &small),
        format!("behind {urgent} of higher priority")
    );
    t.ignore();
}
