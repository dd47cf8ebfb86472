use super::*;
use crate::app::{AppState, Ending};

const DAY: Duration = Duration::from_secs(86_400);

/// A master with a store that remembers no more than `keys_max` keys of forgotten applications.
fn remembering(keys_max: usize) -> Harness {
    Harness::with(|settings| {
        settings.durable = true;
        settings.keys_max = keys_max;
    })
}

/// The application that a submission under this key gave.
fn submitted(t: &mut Harness, key: &str) -> String {
    t.submit_under(key, description());
    let reply = t.unclaimed.iter().find(|line| line.contains("reply 1: "));
    let reply = reply.expect("an answer").clone();
    t.ignore();
    reply.replace("reply 1: submitted ", "")
}

fn newest(t: &Harness) -> AppId {
    t.master.apps().pop().expect("there is one").id
}

#[test]
fn the_same_key_gives_the_same_application_at_any_time() {
    let mut t = remembering(10);
    assert_eq!(submitted(&mut t, "k"), "app 0");
    assert_eq!(submitted(&mut t, "k"), "app 0 before");
    assert_eq!(submitted(&mut t, "other"), "app 1");
    t.restart();
    t.ignore();
    assert_eq!(submitted(&mut t, "k"), "app 0 before");
    t.kill(&t.master.apps()[0].id.clone());
    t.ignore();
    assert_eq!(submitted(&mut t, "k"), "app 0 before");
    t.tell(Event::ClearRequested { reply: ReplyTo(2) });
    t.expect([
        "store key k of app 0",
        "unstore app 0",
        "reply 2: cleared 1",
    ]);
    assert_eq!(submitted(&mut t, "k"), "app 0 before");
    t.restart();
    t.ignore();
    assert_eq!(submitted(&mut t, "k"), "app 0 before");
    t.master.check_invariants();
}

#[test]
fn a_key_of_another_submission_is_refused() {
    let mut t = remembering(10);
    submitted(&mut t, "k");
    let other = AppDescription {
        cores: 3,
        ..description()
    };
    t.submit_under("k", other);
    t.expect(["reply 1: the key of app 0"]);
    let long = "k".repeat(129);
    for key in ["", "a b", "\u{e4}", &long] {
        t.submit_under(key, description());
        t.expect(["reply 1: no: the idempotency key must be 1 to 128 visible ASCII characters"]);
    }
    assert_eq!(t.master.apps().len(), 1);
}

#[test]
fn a_key_is_known_for_a_day_and_for_as_long_as_its_application() {
    let mut t = remembering(10);
    submitted(&mut t, "listed");
    submitted(&mut t, "forgotten");
    let app = newest(&t);
    t.kill(&app);
    t.tell(Event::ForgetRequested {
        app,
        reply: ReplyTo(2),
    });
    t.ignore();
    t.now.wall += DAY - Duration::from_secs(1);
    assert_eq!(submitted(&mut t, "forgotten"), "app 1 before");
    t.now.wall += Duration::from_secs(1);
    t.submit_under("forgotten", description());
    assert_eq!(t.unclaimed[0], "unstore key of app 1");
    t.ignore();
    assert_eq!(submitted(&mut t, "listed"), "app 0 before");
    // A day later its application is forgotten, and the key is not worth keeping any more.
    t.kill(&t.master.apps()[0].id.clone());
    t.ignore();
    t.tell(Event::ClearRequested { reply: ReplyTo(2) });
    t.expect(["unstore app 0", "reply 2: cleared 1"]);
    t.master.check_invariants();
}

#[test]
fn of_too_many_keys_the_first_to_go_goes_early() {
    let mut t = remembering(2);
    for key in ["a", "b", "c"] {
        submitted(&mut t, key);
        t.kill(&newest(&t));
        t.ignore();
    }
    t.tell(Event::ClearRequested { reply: ReplyTo(2) });
    t.ignore();
    t.master.check_invariants();
    assert_eq!(submitted(&mut t, "c"), "app 2 before");
    assert_eq!(submitted(&mut t, "b"), "app 1 before");
    assert_eq!(submitted(&mut t, "a"), "app 3");
}

#[test]
fn a_submission_that_came_to_nothing_leaves_its_key_free() {
    let mut t = remembering(2);
    submitted(&mut t, "k");
    let app = newest(&t);
    t.tell(Event::SubmissionWithdrawn { app });
    t.ignore();
    assert_eq!(submitted(&mut t, "k"), "app 1");
}

#[test]
fn a_submission_that_came_to_nothing_leaves_its_key_free_though_it_was_forgotten_meanwhile() {
    let mut t = remembering(2);
    submitted(&mut t, "k");
    let app = newest(&t);
    t.kill(&app);
    t.tell(Event::ClearRequested { reply: ReplyTo(2) });
    t.ignore();
    t.tell(Event::SubmissionWithdrawn { app });
    t.expect(["unstore key of app 0"]);
    assert_eq!(submitted(&mut t, "k"), "app 1");
    t.master.check_invariants();
}

#[test]
fn a_key_that_was_stored_twice_is_its_applications() {
    // A crash between the two records of a forgotten application.
    let mut t = remembering(2);
    submitted(&mut t, "k");
    let mut stored = t.store.read();
    stored.keys.push(KeyRecord {
        key: "k".into(),
        app: stored.apps[0].id.clone(),
        digest: 0,
        until: u64::MAX,
    });
    t.restart_from(stored);
    assert_eq!(t.unclaimed, ["unstore key of app 0"]);
    t.ignore();
    assert_eq!(submitted(&mut t, "k"), "app 0 before");
    t.master.check_invariants();
}

#[test]
fn a_key_that_was_stored_before_its_application_was_forgotten_is_kept() {
    let mut t = remembering(2);
    t.settings.retained_apps = 0;
    submitted(&mut t, "k");
    let mut stored = t.store.read();
    stored.apps[0].state = AppState::Ended {
        how: Ending::Killed,
        on: None,
        since: None,
        at: 0,
        message: None,
    };
    stored.keys.push(KeyRecord {
        key: "k".into(),
        app: stored.apps[0].id.clone(),
        digest: 0,
        until: u64::MAX,
    });
    t.restart_from(stored);
    t.expect(["store key k of app 0", "unstore app 0"]);
    assert_eq!(submitted(&mut t, "k"), "app 0 before");
    t.master.check_invariants();
}
