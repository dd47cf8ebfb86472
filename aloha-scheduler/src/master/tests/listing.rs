use super::*;
use crate::app::AppPhase;
use crate::app_query::{AppsQuery, AppsSort};

/// Applications 0 to 5: names, priorities and ends in orders of their own; 0 and 1 run, 4 was killed.
fn some() -> Harness {
    let mut t = Harness::new();
    t.register("w1", 4, 2048);
    for (name, priority, tag) in [
        ("delta", 3, "x"),
        ("alpha", 1, "y"),
        ("echo", -1, "x"),
        ("alpha", 0, "x"),
        ("bravo", -2, "y"),
        ("charlie", -1, "x"),
    ] {
        t.submit_as(AppDescription {
            name: name.into(),
            priority,
            tags: [tag.to_owned()].into(),
            ..description()
        });
    }
    let ids: Vec<_> = t.master.apps().into_iter().map(|app| app.id).collect();
    t.started("w1", &ids[0], 1);
    t.kill(&ids[4]);
    t.ignore();
    t
}

/// The numbers of the applications, page by page.
fn listed(t: &Harness, mut query: AppsQuery) -> Vec<Vec<u64>> {
    let mut pages = Vec::new();
    loop {
        let page = t.master.apps_page(&query);
        pages.push(page.apps.iter().filter_map(|app| app.id.number()).collect());
        query.after = page.next;
        if query.after.is_none() {
            return pages;
        }
    }
}

#[test]
fn each_order_is_kept_over_pages_both_ways() {
    let t = some();
    let cases = [
        (AppsSort::Submitted, [0, 1, 2, 3, 4, 5]),
        (AppsSort::Name, [1, 3, 4, 5, 0, 2]),
        (AppsSort::Priority, [4, 2, 5, 3, 1, 0]),
        (AppsSort::Started, [1, 2, 3, 4, 5, 0]),
        (AppsSort::Ended, [0, 1, 2, 3, 5, 4]),
    ];
    for (sort, expected) in cases {
        for limit in [1, 2, 4, 5, 6, 7] {
            let query = AppsQuery {
                sort,
                limit: Some(limit),
                ..AppsQuery::default()
            };
            let pages = listed(&t, query.clone());
            assert_eq!(pages.concat(), expected, "{sort:?} by {limit}");
            let full = pages.iter().rev().skip(1);
            assert!(full.into_iter().all(|page| page.len() == limit as usize));
            let mut expected = expected;
            expected.reverse();
            let descending = AppsQuery {
                descending: true,
                ..query
            };
            assert_eq!(
                listed(&t, descending).concat(),
                expected,
                "-{sort:?} by {limit}"
            );
        }
    }
}

#[test]
fn filters_leave_out_what_does_not_match_all_of_them() {
    let t = some();
    let all = AppsQuery::default();
    let numbers = |query: AppsQuery| listed(&t, query).concat();
    let running = AppsQuery {
        states: [AppPhase::Running, AppPhase::Launching].into(),
        ..all.clone()
    };
    assert_eq!(numbers(running.clone()), [0, 1]);
    let on = |worker| AppsQuery {
        worker: Some(id(worker)),
        ..all.clone()
    };
    assert_eq!(numbers(on("w1")), [0, 1]);
    assert_eq!(numbers(on("w2")), [0; 0]);
    let named = AppsQuery {
        name: Some("ph".into()),
        sort: AppsSort::Priority,
        ..all.clone()
    };
    assert_eq!(numbers(named.clone()), [3, 1]);
    let tagged = AppsQuery {
        tag: Some("x".into()),
        limit: Some(3),
        ..named
    };
    assert_eq!(numbers(tagged), [3]);
    let none = AppsQuery {
        name: Some("Alpha".into()),
        limit: Some(0),
        ..running
    };
    assert_eq!(numbers(none), [0; 0]);
}

#[test]
fn the_cluster_is_counted() {
    let mut t = some();
    t.register("w2", 8, 4096);
    t.ignore();
    let cluster = t.master.cluster();
    let expected = [
        (AppPhase::Launching, 4),
        (AppPhase::Running, 1),
        (AppPhase::Killed, 1),
    ];
    assert_eq!(cluster.apps, expected.into());
    assert_eq!(cluster.workers, [(WorkerState::Alive, 2)].into());
    assert_eq!((cluster.cores, cluster.cores_used), (12, 10));
    assert_eq!((cluster.memory_mib, cluster.memory_mib_used), (6144, 2560));
    t.disconnect("w2");
    t.ignore();
    let cluster = t.master.cluster();
    assert_eq!((cluster.cores, cluster.cores_used), (4, 4));
    assert_eq!(cluster.workers[&WorkerState::Disconnected], 1);
}

#[test]
fn all_that_has_not_ended_is_killed_and_all_that_has_is_forgotten() {
    let mut t = Harness::new();
    t.register("w1", 2, 2048);
    let running = t.submit(2, 512, false);
    t.started("w1", &running, 1);
    let waiting = t.submit(2, 512, true);
    t.ignore();
    t.tell(Event::KillAllRequested { reply: ReplyTo(1) });
    assert_eq!(
        t.unclaimed.last().map(String::as_str),
        Some("reply 1: killed 2")
    );
    t.ignore();
    assert_eq!(t.status(&waiting).phase, AppPhase::Killed);
    t.tell(Event::ForgetRequested {
        app: running.clone(),
        reply: ReplyTo(1),
    });
    t.expect(["reply 1: NotEnded { phase: Running }"]);
    t.ended("w1", &running, 1, Outcome::Killed);
    t.ignore();
    assert_eq!(t.status(&running).phase, AppPhase::Killed);
    t.tell(Event::KillAllRequested { reply: ReplyTo(1) });
    t.expect(["reply 1: killed 0"]);
    t.tell(Event::ForgetRequested {
        app: running.clone(),
        reply: ReplyTo(1),
    });
    t.expect(["unstore app 0", "reply 1: Forgotten"]);
    t.tell(Event::ForgetRequested {
        app: running,
        reply: ReplyTo(1),
    });
    t.expect(["reply 1: NoSuchApp"]);
    t.tell(Event::ClearRequested { reply: ReplyTo(1) });
    t.expect(["unstore app 1", "reply 1: cleared 1"]);
    assert_eq!(t.master.apps(), []);
    t.master.check_invariants();
}
