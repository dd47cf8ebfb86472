//! Events as a master publishes them.

use std::time::Duration;

use aloha_rpc::RpcEnv;

use super::*;
use crate::app::AppDescription;
use crate::attempt::Outcome;
use crate::clock;
use crate::constraint::Attributes;
use crate::master::{Effect, Event, Master, MasterCore, ReplyTo};
use crate::resources::Resources;
use crate::runner::CgroupSupport;
use crate::worker::WorkerRegistration;

pub(super) fn changed(from: Option<AppPhase>, to: AppPhase) -> AlohaEvent {
    let id: AppId = "app-1".parse().unwrap();
    let status = AppStatus {
        id: id.clone(),
        name: "etl".into(),
        entry_point: "Process".into(),
        cores: 1,
        memory_mib: 1,
        supervise: false,
        phase: to,
        exit_code: None,
        attempt: 0,
        worker: None,
        waiting_for: None,
        message: None,
        submitted_at: Some(0),
        started_at: None,
        ended_at: None,
        priority: 0,
        not_before: None,
        history: Vec::new(),
    };
    AlohaEvent::AppStateChanged {
        id,
        from,
        to,
        status: Box::new(status),
    }
}

fn registration(id: &str) -> Event {
    Event::WorkerRegistered {
        registration: WorkerRegistration {
            id: id.parse().unwrap(),
            host: id.into(),
            port: 1,
            offers: Resources {
                cores: 1,
                memory_mib: 1024,
            },
            attempts: Vec::new(),
            enforces: CgroupSupport::default(),
            attributes: Attributes::new(),
            epoch: 0,
        },
        reply: ReplyTo(0),
    }
}

#[tokio::test]
async fn a_relaunch_is_heard_in_order_with_the_states_around_it() {
    let env = RpcEnv::builder("listeners").start().await.unwrap();
    let now = clock::now(&**env.runtime());
    let mut master = MasterCore::new(Master::default_settings(&env), now);
    let (recorder, heard) = Recorder::new();
    let bus = Listeners::new()
        .add("recorder", recorder)
        .start(&ListenerSettings::default())
        .unwrap();
    // One that is lost at once would wait for a second.
    let mut now = now;
    let mut tell = |event| {
        now.instant += Duration::from_secs(2);
        for effect in master.handle(event, now) {
            if let Effect::Publish(event) = effect {
                bus.publish(&event);
            }
        }
        master.apps().pop().map(|app| app.id)
    };

    tell(registration("w1"));
    let description = AppDescription {
        name: "etl".into(),
        entry_point: "Process".into(),
        cores: 1,
        supervise: true,
        ..AppDescription::default()
    };
    let app = tell(Event::Submitted {
        key: None,
        description: description.into(),
        reply: ReplyTo(0),
    });
    let app = app.expect("it was accepted");
    for (attempt, outcome) in [(1, Outcome::Lost("gone".into())), (2, Outcome::Exited(0))] {
        tell(Event::AttemptStarted {
            worker: "w1".parse().unwrap(),
            app: app.clone(),
            attempt,
            reply: ReplyTo(0),
        });
        tell(Event::AttemptEnded {
            worker: "w1".parse().unwrap(),
            app: app.clone(),
            attempt,
            outcome,
            reply: ReplyTo(0),
        });
    }
    bus.drained().await;
    let of_app = heard.try_iter().filter(|line| !line.starts_with("w1"));
    assert_eq!(
        of_app.collect::<Vec<_>>(),
        [
            "- SUBMITTED 0",
            "SUBMITTED LAUNCHING 1",
            "LAUNCHING RUNNING 1",
            "RUNNING RELAUNCHING 1",
            "relaunched 1 gone",
            "RELAUNCHING LAUNCHING 2",
            "LAUNCHING RUNNING 2",
            "RUNNING FINISHED 2",
        ]
    );
}

#[test]
fn an_event_is_json_that_names_its_kind() {
    let json = serde_json::to_value(relaunched(1)).unwrap();
    let expected = serde_json::json!(
        {"event": "AppRelaunched", "id": "app-1", "attempt": 1, "reason": "lost"}
    );
    assert_eq!(json, expected);
    let event = changed(Some(AppPhase::Launching), AppPhase::Running);
    let json = serde_json::to_value(&event).unwrap();
    assert_eq!(json["event"], "AppStateChanged");
    assert_eq!(json["status"]["phase"], "RUNNING");
    assert_eq!(serde_json::from_value::<AlohaEvent>(json).unwrap(), event);
}
