//! How a worker finds who leads, and stays registered there.

use super::*;

#[test]
fn masters_are_asked_in_turn_and_then_after_a_pause_again() {
    let mut t = Harness::new();
    assert_eq!(t.worker.next_deadline(), None);
    t.tell(Event::Started);
    t.expect([register(M1, vec![])]);
    t.answer_no(M1);
    t.expect([register(M2, vec![])]);
    t.answer_no(M2);
    t.expect([]);
    let pause = t.advance_to_deadline();
    assert!(
        SECOND / 2 <= pause && pause <= SECOND,
        "paused for {pause:?}"
    );
    t.expect([register(M1, vec![])]);
}

#[test]
fn a_master_that_does_not_answer_is_passed_over() {
    let mut t = Harness::new();
    t.tell(Event::Started);
    t.advance(SECOND - Duration::from_millis(1));
    t.expect([register(M1, vec![])]);
    t.advance(Duration::from_millis(1));
    t.expect([register(M2, vec![])]);
    // What the first says too late is no answer of the second.
    t.answer_no(M1);
    t.expect([]);
}

#[test]
fn the_search_never_ends_and_its_pauses_stay_bounded() {
    let mut t = Harness::new();
    t.tell(Event::Started);
    for _ in 0..1000 {
        assert!(t.advance_to_deadline() <= 60 * SECOND);
    }
    assert!(matches!(
        t.worker.registration(),
        Registration::Searching { .. }
    ));
    t.unclaimed.clear();
}

#[test]
fn a_registered_worker_sends_heartbeats_at_the_interval_it_was_given() {
    let mut t = Harness::registered();
    for _ in 0..3 {
        assert_eq!(t.advance_to_deadline(), INTERVAL);
        t.expect([heartbeat()]);
    }
}

#[test]
fn registering_again_does_not_multiply_heartbeats() {
    let mut t = Harness::registered();
    for _ in 0..5 {
        t.command(WorkerCommand::Reregister { epoch: 7 });
        t.answer(M1, 7);
        t.expect([register(M1, vec![])]);
    }
    t.advance(INTERVAL);
    t.expect([heartbeat()]);
    assert_eq!(t.worker.next_deadline(), Some(t.now.instant + INTERVAL));
}

#[test]
fn being_told_twice_to_register_asks_once() {
    let mut t = Harness::registered();
    t.command(WorkerCommand::Reregister { epoch: 7 });
    t.command(WorkerCommand::Reregister { epoch: 7 });
    t.expect([register(M1, vec![])]);
}

#[test]
fn a_master_with_an_older_epoch_is_not_accepted() {
    let mut t = Harness::registered();
    t.lose_master();
    t.answer(M1, 6);
    t.expect([register(M1, vec![]), register(M2, vec![])]);
    t.answer(M2, 8);
    assert_eq!(t.worker.registration().master(), Some(M2));
}

#[test]
fn a_newer_leader_takes_over_and_an_older_one_does_not() {
    let mut t = Harness::registered();
    t.answer(M2, 7);
    assert_eq!(t.worker.registration().master(), Some(M1));
    t.answer(M2, 8);
    assert_eq!(t.worker.registration().master(), Some(M2));
    t.lose_master();
    assert_eq!(t.worker.registration().master(), Some(M2));
}
