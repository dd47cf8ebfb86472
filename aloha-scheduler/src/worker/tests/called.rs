//! How a worker comes to a new leader.

use super::*;

const M9: &str = "m9:7077";

impl Harness {
    fn called_by(&mut self, master: &str, epoch: u64) {
        let command = WorkerCommand::Reregister { epoch };
        let master = master.to_owned();
        self.tell(Event::Commanded { master, command });
    }
}

#[test]
fn a_newer_leader_that_calls_is_registered_with_though_the_older_is_still_there() {
    let mut t = Harness::registered();
    t.called_by(M2, 8);
    t.expect([register(M2, vec![])]);
    t.answer(M2, 8);
    assert_eq!(t.worker.registration().master(), Some(M2));
}

#[test]
fn a_leader_is_registered_with_that_was_never_heard_of_and_looked_for_from_then_on() {
    let mut t = Harness::registered();
    t.called_by(M9, 8);
    t.expect([register(M9, vec![])]);
    t.answer(M9, 8);
    assert_eq!(t.worker.registration().master(), Some(M9));
    t.tell(Event::MasterDisconnected { master: M9.into() });
    t.answer_no(M9);
    t.answer_no(M1);
    t.answer_no(M2);
    t.expect([
        register(M9, vec![]),
        register(M1, vec![]),
        register(M2, vec![]),
    ]);
    t.advance_to_deadline();
    t.expect([register(M9, vec![])]);
}

#[test]
fn a_call_of_an_older_leader_is_not_heard() {
    let mut t = Harness::registered();
    t.called_by(M9, 6);
    t.expect([]);
    assert_eq!(t.worker.registration().master(), Some(M1));
}

#[test]
fn a_master_is_known_by_its_epoch_whatever_it_calls_itself() {
    let mut t = Harness::registered();
    t.called_by("10.0.0.1:7077", 7);
    t.expect([register(M1, vec![])]);
}

#[test]
fn a_call_ends_the_wait_between_two_rounds() {
    let mut t = Harness::registered();
    t.lose_master();
    t.answer_no(M1);
    t.answer_no(M2);
    t.expect([register(M1, vec![]), register(M2, vec![])]);
    t.called_by(M2, 8);
    t.called_by(M2, 8);
    t.expect([register(M2, vec![])]);
}

#[test]
fn a_leader_that_calls_and_then_is_silent_is_passed_over() {
    let mut t = Harness::registered();
    t.called_by(M9, 8);
    t.advance_to_deadline();
    t.expect([register(M9, vec![]), register(M1, vec![])]);
}

#[test]
fn a_master_that_leads_no_more_is_asked_last() {
    let mut t = Harness::registered();
    t.tell(Event::MasterSteppedDown { master: M1.into() });
    t.answer_no(M2);
    t.answer_no(M1);
    t.expect([register(M2, vec![]), register(M1, vec![])]);
    // Another's word changes nothing.
    let mut t = Harness::registered();
    t.tell(Event::MasterSteppedDown { master: M2.into() });
    t.expect([]);
}

#[test]
fn only_so_many_masters_are_remembered() {
    let mut t = Harness::registered();
    for n in 0..100 {
        t.called_by(&format!("m{n}.example:7077"), 8 + n);
    }
    assert!(t.worker.knows(M1) && t.worker.knows(M2));
    assert!(t.worker.knows("m99.example:7077") && t.worker.knows("m92.example:7077"));
    assert!(!t.worker.knows("m91.example:7077"));
    t.called_by("no address", 200);
    assert!(!t.worker.knows("no address"));
    t.unclaimed.clear();
}

#[test]
fn an_end_that_the_old_leader_did_not_acknowledge_is_told_to_the_new_one() {
    let mut t = Harness::running();
    t.exited("app-0", 1, Outcome::Exited(3));
    t.expect([report(M1, ended("app-0", 1, Outcome::Exited(3)))]);
    t.called_by(M9, 8);
    t.expect([register(M9, vec![held("app-0", 1, AttemptState::Ended)])]);
    t.answer(M9, 8);
    t.expect([report(M9, ended("app-0", 1, Outcome::Exited(3)))]);
}
