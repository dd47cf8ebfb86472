use std::collections::BTreeMap;

use aloha_scheduler::master::WorkerState;
use aloha_scheduler::{AppPhase, AppStatus};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use serde_json::json;

use super::*;
use crate::cluster::Masters;
use crate::top::model::News;
use crate::top::snapshot::Snapshot;

pub(in crate::top) fn app(id: &str, name: &str, phase: AppPhase) -> AppStatus {
    let placed = phase
        .is_placed()
        .then(|| json!({"worker": "worker-1", "address": "h:1"}));
    let waits =
        (phase == AppPhase::Submitted).then_some("needs 8 cores; the largest free worker has 4");
    serde_json::from_value(json!({
        "id": id, "name": name, "entry_point": "Process", "cores": 1, "memory_mib": 512, "supervise": false,
        "phase": phase, "exit_code": null, "attempt": 1, "worker": placed, "waiting_for": waits, "message": null,
        "submitted_at": 1_000, "started_at": 2_000, "ended_at": null, "priority": 0, "not_before": null,
        "history": [{"at": 1_000, "to": "SUBMITTED", "attempt": 0, "reason": null}],
    }))
    .expect("a status")
}

/// Two hours after they began: one that runs, one that waits, one that has ended.
pub(in crate::top) fn model() -> Model {
    let cluster = ClusterStatus {
        version: "0.1.0".to_owned(),
        master: "127.0.0.1:7077".to_owned(),
        epoch: 3,
        cores: 8,
        cores_used: 2,
        memory_mib: 1024,
        memory_mib_used: 512,
        apps: BTreeMap::from([(AppPhase::Running, 1), (AppPhase::Finished, 1)]),
        workers: BTreeMap::from([(WorkerState::Alive, 1)]),
        ..ClusterStatus::default()
    };
    let snapshot = Snapshot {
        masters: Masters::default(),
        cluster,
        apps: vec![
            app("app-1", "first", AppPhase::Finished),
            app("app-2", "second", AppPhase::Running),
            app("app-3", "third", AppPhase::Submitted),
        ],
        workers: Vec::new(),
    };
    let mut model = Model::default();
    model.on_news(News::Snapshot(Box::new(snapshot), 7_202_000));
    model
}

fn drawn(model: &Model, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
    terminal
        .draw(|frame| draw(frame, model))
        .expect("in memory");
    let buffer = terminal.backend().buffer();
    let cells: Vec<_> = buffer.content().iter().map(|cell| cell.symbol()).collect();
    let lines = cells.chunks(width.into());
    lines
        .map(|line| line.concat().trim_end().to_owned())
        .collect()
}

#[test]
fn an_ordinary_terminal_shows_the_head_and_the_applications() {
    let lines = drawn(&model(), 80, 24);
    assert_eq!(lines[0], "Aloha 127.0.0.1:7077 epoch 3 version 0.1.0");
    assert!(
        lines[1].starts_with("cores 2/8 ") && lines[1].contains("MiB 512/1024 "),
        "{lines:#?}"
    );
    assert_eq!(
        lines[2..4],
        ["workers 1 ALIVE", "apps 1 RUNNING, 1 FINISHED"]
    );
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        words(&lines[4]),
        ["ID", "STATE", "NAME", "ELAPSED", "WAITS", "FOR"]
    );
    assert_eq!(words(&lines[5]), ["app-2", "RUNNING", "second", "2h00m"]);
    assert!(
        lines[6].starts_with("app-3") && lines[6].contains("needs"),
        "{lines:#?}"
    );
    assert!(lines[7].starts_with("app-1"), "{lines:#?}");
    assert!(lines[23].starts_with("q quit"), "{lines:#?}");
}

#[test]
fn a_tiny_terminal_shows_what_matters_most() {
    let lines = drawn(&model(), 40, 10);
    assert_eq!(lines[0], "Aloha 127.0.0.1:7077 epoch 3 version 0.1");
    assert_eq!(lines[1], "apps 1 RUNNING, 1 FINISHED");
    assert!(
        lines[2].starts_with("ID") && lines[2].ends_with("STATE"),
        "{lines:#?}"
    );
    assert!(
        lines[3].starts_with("app-2") && lines[3].ends_with("RUNNING"),
        "{lines:#?}"
    );
    assert!(lines[9].starts_with("q quit"), "{lines:#?}");
}

#[test]
fn a_large_terminal_shows_every_column() {
    let lines = drawn(&model(), 200, 60);
    for (header, ..) in APP_COLUMNS {
        assert!(lines[4].contains(header), "{lines:#?}");
    }
    assert!(lines[5].contains("worker-1") && lines[6].contains("the largest free worker has 4"));
}

#[test]
fn no_size_is_too_small() {
    let mut model = model();
    for width in [1, 2, 5, 20] {
        for height in [1, 2, 3, 6] {
            for overlay in [
                Overlay::None,
                Overlay::Help,
                Overlay::Detail("app-2".parse().expect("an id"), None),
            ] {
                model.overlay = overlay;
                assert_eq!(drawn(&model, width, height).len(), usize::from(height));
            }
        }
    }
}

#[test]
fn a_lost_master_is_said_and_what_was_known_stays() {
    let mut model = model();
    model.on_news(News::Trouble("no master leads".to_owned()));
    let lines = drawn(&model, 80, 24);
    assert_eq!(lines[4], "not up to date: no master leads");
    assert!(lines[6].starts_with("app-2"), "{lines:#?}");
    let again = model.snapshot.clone().expect("there is one");
    model.on_news(News::Snapshot(Box::new(again), 1));
    assert!(!drawn(&model, 80, 24).concat().contains("not up to date"));
}

#[test]
fn before_the_first_answer_it_says_whom_it_asks() {
    assert_eq!(drawn(&Model::default(), 40, 10)[0], "asking the master");
}

#[test]
fn one_application_is_shown_with_its_history_and_the_end_of_its_output() {
    let mut model = model();
    let id: aloha_scheduler::AppId = "app-2".parse().expect("an id");
    model.overlay = Overlay::Detail(id.clone(), None);
    let detail = Detail {
        status: app("app-2", "second", AppPhase::Running),
        tail: Ok("line 1\n\u{1b}[31mline 2\n".to_owned()),
    };
    model.on_news(News::Detail(id, Some(Box::new(detail))));
    let text = drawn(&model, 80, 40).join("\n");
    for expected in [
        "1970-01-01 00:00:01.000 UTC  SUBMITTED",
        "line 1",
        "[31mline 2",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    assert!(!text.contains('\u{1b}'), "{text}");
    // Of a long one, the end.
    let id = "app-2".parse().expect("an id");
    let lines: Vec<String> = (0..1000).map(|line| format!("line {line}")).collect();
    let detail = Detail {
        status: app("app-2", "second", AppPhase::Running),
        tail: Ok(lines.join("\n")),
    };
    model.on_news(News::Detail(id, Some(Box::new(detail))));
    assert!(drawn(&model, 80, 24).join("\n").contains("line 999"));
}

#[test]
fn a_question_stands_at_the_bottom() {
    let mut model = model();
    model.overlay = Overlay::Kill("app-2".parse().expect("an id"));
    assert_eq!(drawn(&model, 80, 24)[23], "kill app-2? y/n");
}

#[test]
fn times_are_short() {
    for (seconds, text) in [
        (0, "0s"),
        (61, "1m01s"),
        (3_660, "1h01m"),
        (90_000_000, "1041d16h"),
    ] {
        assert_eq!(short(Duration::from_secs(seconds)), text);
    }
}
