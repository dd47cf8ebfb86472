use super::queue::{register_with_attributes, submit};
use super::*;
use crate::app::AppPhase;

/// Small applications arrive as fast as they end, for as many rounds; whether the large one ran.
fn large_one_runs(large: u32, workers: [u32; 2]) -> bool {
    let mut t = Harness::new();
    for (name, cores) in ["w1", "w2"].iter().zip(workers) {
        t.register(name, cores, 1024);
    }
    let mut small: Vec<_> = (0..workers.iter().sum())
        .map(|_| submit(&mut t, |_| {}))
        .collect();
    let large = submit(&mut t, |app| app.cores = large);
    for _ in 0..100 {
        small.push(submit(&mut t, |_| {}));
        let oldest = small.iter().position(|app| t.status(app).attempt == 1);
        let oldest = small.remove(oldest.expect("some small one runs"));
        let on = t.status(&oldest).worker.expect("it runs").worker;
        t.ended(on.as_str(), &oldest, 1, Outcome::Exited(0));
        if t.status(&large).attempt == 1 {
            break;
        }
    }
    t.ignore();
    t.status(&large).attempt == 1
}

/// D15: without a reservation no more than a core of either worker is ever free.
#[test]
fn d15_a_large_application_does_not_starve_behind_small_ones() {
    assert!(large_one_runs(8, [8, 8]));
    assert!(large_one_runs(3, [4, 2]));
}

#[test]
fn others_pass_where_nothing_is_reserved() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.register("w2", 2, 1024);
    let first = submit(&mut t, |app| app.cores = 3);
    let large = submit(&mut t, |app| app.cores = 4);
    let small = [(); 3].map(|()| submit(&mut t, |_| {}));
    t.ignore();
    // One core of w1 is free and kept; w2 is there for the others.
    assert_eq!((t.used("w1").cores, t.used("w2").cores), (3, 2));
    assert_eq!(t.status(&small[2]).attempt, 0);
    t.ended("w1", &first, 1, Outcome::Exited(0));
    assert_eq!(t.worker("w1").apps, [large]);
    t.ignore();
}

#[test]
fn the_head_goes_wherever_it_fits_first_and_what_was_kept_is_there_for_all() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let first = submit(&mut t, |app| app.cores = 3);
    let head = submit(&mut t, |app| app.cores = 4);
    let small = submit(&mut t, |_| {});
    t.register("w2", 4, 1024);
    t.ignore();
    assert_eq!(t.worker("w2").apps, [head]);
    assert_eq!(t.worker("w1").apps, [first, small]);
}

#[test]
fn a_reservation_ends_with_who_holds_it() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    submit(&mut t, |app| app.cores = 3);
    let head = submit(&mut t, |app| app.cores = 4);
    let small = submit(&mut t, |_| {});
    assert_eq!(t.status(&small).attempt, 0);
    t.kill(&head);
    assert_eq!(t.status(&small).attempt, 1);
    t.ignore();
}

#[test]
fn a_reservation_ends_when_no_worker_would_hold_its_holder_any_more() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    t.register("w2", 2, 1024);
    submit(&mut t, |app| app.cores = 1);
    submit(&mut t, |app| app.cores = 1);
    submit(&mut t, |app| app.cores = 2);
    let head = submit(&mut t, |app| app.cores = 4);
    t.disconnect("w1");
    t.ignore();
    assert_eq!(
        t.status(&head).waiting_for.as_deref(),
        Some("needs 4 cores; the largest worker has 2")
    );
    t.register("w3", 1, 1024);
    let small = submit(&mut t, |_| {});
    assert_eq!(t.status(&small).attempt, 1);
    t.ignore();
}

#[test]
fn a_higher_priority_takes_the_reservation_over_and_gives_it_back() {
    let mut t = Harness::new();
    t.register("w1", 8, 1024);
    let first = submit(&mut t, |app| app.cores = 6);
    let head = submit(&mut t, |app| app.cores = 8);
    // It fits in what is kept for one of lower priority, and takes it.
    let urgent = submit(&mut t, |app| (app.cores, app.priority) = (2, 1));
    assert_eq!(t.status(&urgent).attempt, 1);
    // This one does not fit, and is first from now on.
    let large = submit(&mut t, |app| (app.cores, app.priority) = (7, 1));
    t.ended("w1", &first, 1, Outcome::Exited(0));
    assert_eq!((t.status(&head).attempt, t.status(&large).attempt), (0, 0));
    t.ended("w1", &urgent, 1, Outcome::Exited(0));
    assert_eq!((t.status(&head).attempt, t.status(&large).attempt), (0, 1));
    let small = submit(&mut t, |_| {});
    assert_eq!(t.status(&small).attempt, 0, "kept for the head again");
    t.ended("w1", &large, 1, Outcome::Exited(0));
    assert_eq!((t.status(&head).attempt, t.status(&small).attempt), (1, 0));
    t.ignore();
}

#[test]
fn nothing_is_reserved_for_one_that_a_limit_keeps_back() {
    let mut t = Harness::with(|settings| settings.tag_limits = [("etl".into(), 1)].into());
    t.register("w1", 4, 1024);
    let tagged = |cores| {
        move |app: &mut AppDescription| {
            (app.cores, app.tags) = (cores, ["etl".to_owned()].into());
        }
    };
    submit(&mut t, tagged(2));
    submit(&mut t, tagged(4));
    let small = submit(&mut t, |_| {});
    assert_eq!(t.status(&small).attempt, 1);
    t.ignore();
}

#[test]
fn a_reservation_meets_the_constraints_of_its_holder() {
    let mut t = Harness::new();
    register_with_attributes(&mut t, "w1", 8, &[("zone", "a")]);
    register_with_attributes(&mut t, "w2", 8, &[("zone", "b")]);
    submit(&mut t, |app| app.cores = 4);
    submit(&mut t, |app| app.cores = 2);
    let head = submit(&mut t, |app| {
        (app.cores, app.constraints) = (8, ["zone=a".parse().unwrap()].into());
    });
    let others = [(); 8].map(|()| submit(&mut t, |_| {}));
    t.ignore();
    assert_eq!(t.worker("w2").cores_used, 8);
    assert!(
        others
            .iter()
            .filter(|app| t.status(app).attempt == 0)
            .count()
            >= 2
    );
    let on_w1 = t.worker("w1").apps;
    assert_eq!(on_w1.len(), 1);
    t.ended("w1", &on_w1[0], 1, Outcome::Exited(0));
    assert_eq!(t.worker("w1").apps, [head]);
    t.ignore();
}

/// A worker whose room never comes, for what runs there runs for ever, is not waited for for ever.
#[test]
fn a_reservation_moves_to_where_room_is_more_likely() {
    let mut t = Harness::new();
    t.register("w1", 4, 1024);
    let service = submit(&mut t, |app| app.memory_mib = 512);
    t.register("w2", 4, 512);
    let mut short: Vec<_> = (0..4)
        .map(|_| submit(&mut t, |app| app.memory_mib = 128))
        .collect();
    let head = submit(&mut t, |app| app.cores = 4);
    for _ in 0..200 {
        short.push(submit(&mut t, |app| app.memory_mib = 128));
        let Some(oldest) = short.iter().position(|app| t.status(app).attempt == 1) else {
            break;
        };
        let oldest = short.remove(oldest);
        let on = t.status(&oldest).worker.expect("it runs").worker;
        t.ended(on.as_str(), &oldest, 1, Outcome::Exited(0));
        if t.status(&head).attempt == 1 {
            break;
        }
    }
    assert_eq!(t.worker("w2").apps, [head]);
    assert_eq!(t.worker("w1").apps.first(), Some(&service));
    t.ignore();
}

#[test]
fn the_last_place_under_a_limit_is_kept_for_who_holds_the_reservation() {
    let mut t = Harness::with(|settings| settings.tag_limits = [("t".to_owned(), 2)].into());
    t.register("w1", 4, 1024);
    t.register("w2", 4, 1024);
    let tagged = |cores: u32| {
        move |app: &mut AppDescription| {
            app.cores = cores;
            app.tags = ["t".to_owned()].into();
        }
    };
    submit(&mut t, |app| app.cores = 3);
    let first = submit(&mut t, tagged(1));
    let large = submit(&mut t, tagged(4));
    // There is a core for it elsewhere, but were it placed, the large one might not run when there is room for it.
    let small = submit(&mut t, tagged(1));
    assert_eq!(t.status(&small).phase, AppPhase::Submitted);
    let behind = format!("behind {large}, which came first; tag t: 1 of 2 run");
    assert_eq!(t.status(&small).waiting_for, Some(behind));
    let on = t.status(&first).worker.expect("it is placed").worker;
    t.ended(on.as_str(), &first, 1, Outcome::Exited(0));
    assert_eq!(t.status(&large).phase, AppPhase::Launching);
    assert_eq!(t.status(&small).phase, AppPhase::Launching);
    t.ignore();
}

#[test]
fn a_place_under_a_limit_that_was_kept_is_free_again_when_its_holder_is_killed() {
    let mut t = Harness::with(|settings| settings.tag_limits = [("t".to_owned(), 1)].into());
    t.register("w1", 4, 1024);
    let tagged = |t: &mut Harness, cores: u32| {
        submit(t, |app| {
            app.cores = cores;
            app.tags = ["t".to_owned()].into();
        })
    };
    submit(&mut t, |app| app.cores = 3);
    let large = tagged(&mut t, 4);
    t.register("w2", 2, 1024);
    let small = tagged(&mut t, 1);
    assert_eq!(t.status(&small).phase, AppPhase::Submitted);
    t.kill(&large);
    assert_eq!(t.status(&small).phase, AppPhase::Launching);
    t.ignore();
}

#[test]
fn one_that_a_kept_place_kept_back_is_placed_as_soon_as_a_limit_allows_both() {
    let mut t = Harness::with(|settings| settings.tag_limits = [("t".to_owned(), 3)].into());
    let tagged = |t: &mut Harness, cores: u32| {
        submit(t, |app| {
            app.cores = cores;
            app.tags = ["t".to_owned()].into();
        })
    };
    t.register("w1", 4, 1024);
    submit(&mut t, |app| app.cores = 3);
    let first = tagged(&mut t, 1);
    t.register("w2", 4, 1024);
    tagged(&mut t, 1);
    let large = tagged(&mut t, 4);
    t.register("w3", 2, 1024);
    let small = tagged(&mut t, 2);
    assert_eq!(t.status(&small).phase, AppPhase::Submitted);
    // The room that this leaves is too small for both, and there was room for the small one all the while.
    t.ended("w1", &first, 1, Outcome::Exited(0));
    assert_eq!(t.status(&small).phase, AppPhase::Launching);
    assert_eq!(t.status(&large).phase, AppPhase::Submitted);
    t.ignore();
}
