use super::*;

fn waiting_for(t: &Harness, app: &AppId) -> String {
    t.status(app).waiting_for.unwrap_or_default()
}

#[test]
fn a_waiting_application_says_what_it_waits_for() {
    let mut t = Harness::new();
    let app = t.submit(8, 256, false);
    assert_eq!(
        waiting_for(&t, &app),
        "needs 8 cores and 256 MiB; no worker is registered"
    );
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
    t.ignore();
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
    let (mut t, app) = Harness::with_one_running(false);
    for cores in [8, 4, 3, 2] {
        t.submit(cores, 1, false);
    }
    t.ignore();
    // The last fitted at once; now two more cores become free, too few for those before it.
    t.ended("w1", &app, 1, Outcome::Exited(0));
    t.expect([
        "store app 0: FINISHED #1 on w1",
        "publish app 0: RUNNING -> FINISHED",
        "reply: noted",
    ]);
    let last = t.master.apps().pop().unwrap().id;
    t.ended("w1", &last, 1, Outcome::Exited(0));
    t.expect([
        "store app 4: FINISHED #1 on w1",
        "publish app 4: LAUNCHING -> FINISHED",
        "reply: noted",
        "store app 2: LAUNCHING #1 on w1",
        "publish app 2: SUBMITTED -> LAUNCHING",
        "tell w1: launch app 2 #1",
    ]);
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
