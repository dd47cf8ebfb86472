//! What listeners hear and when, and that none of them harms another. Nobody sleeps: a gate holds a listener where a
//! test wants it, and `drained` says when all is told.

mod command;
mod order;

use std::io::Write;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::*;
use crate::master::WorkerState;

/// Writes down what it hears.
struct Recorder(Sender<String>);

impl Recorder {
    fn new() -> (Self, Receiver<String>) {
        let (said, heard) = channel();
        (Self(said), heard)
    }
}

impl AlohaEventListener for Recorder {
    fn on_app_state_changed(&mut self, from: Option<AppPhase>, status: &AppStatus) {
        let from = from.map_or("-".to_owned(), |from| from.to_string());
        self.0
            .send(format!("{from} {} {}", status.phase, status.attempt))
            .unwrap();
    }

    fn on_app_relaunched(&mut self, _: &AppId, attempt: u32, reason: &str) {
        self.0
            .send(format!("relaunched {attempt} {reason}"))
            .unwrap();
    }

    fn on_other_event(&mut self, event: &AlohaEvent) {
        let AlohaEvent::WorkerStateChanged { id, to, .. } = event else {
            panic!("{event:?}");
        };
        self.0.send(format!("{id} {to}")).unwrap();
    }
}

/// Says that it has an event, and keeps it until it is let go on.
struct Gated {
    arrived: Sender<u32>,
    go_on: Receiver<()>,
}

impl AlohaEventListener for Gated {
    fn on_app_relaunched(&mut self, _: &AppId, attempt: u32, _: &str) {
        self.arrived.send(attempt).unwrap();
        self.go_on.recv().unwrap();
    }
}

fn gated() -> (Gated, Receiver<u32>, Sender<()>) {
    let (arrived, arrivals) = channel();
    let (gate, go_on) = channel();
    (Gated { arrived, go_on }, arrivals, gate)
}

/// Panics at every second event.
struct Clumsy(Sender<u32>);

impl AlohaEventListener for Clumsy {
    fn on_app_relaunched(&mut self, _: &AppId, attempt: u32, _: &str) {
        assert!(attempt.is_multiple_of(2), "attempt {attempt} is odd");
        self.0.send(attempt).unwrap();
    }
}

/// The events of a test: one for each number.
fn relaunched(attempt: u32) -> AlohaEvent {
    AlohaEvent::AppRelaunched {
        id: "app-1".parse().unwrap(),
        attempt,
        reason: "lost".into(),
    }
}

fn worker(to: WorkerState) -> AlohaEvent {
    AlohaEvent::WorkerStateChanged {
        id: "w1".parse().unwrap(),
        from: None,
        to,
        reason: "new".into(),
    }
}

fn named(names: &[&str]) -> ListenerSettings {
    ListenerSettings {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        ..ListenerSettings::default()
    }
}

fn statistics(name: &str, delivered: u64, dropped: u64, panicked: u64) -> ListenerStatistics {
    ListenerStatistics {
        name: name.into(),
        delivered,
        dropped,
        panicked,
        waiting: 0,
    }
}

/// What is logged by this thread meanwhile.
fn logged(act: impl FnOnce()) -> Vec<String> {
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);
    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let lines = Lines::default();
    let written = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_writer(move || written.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = lines.0.lock().unwrap().clone();
    let text = String::from_utf8(bytes).unwrap();
    text.lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test]
async fn a_slow_listener_holds_up_neither_the_master_nor_the_others() {
    let (slow, arrivals, gate) = gated();
    let (recorder, heard) = Recorder::new();
    let listeners = Listeners::new().add("slow", slow).add("quick", recorder);
    let bus = listeners.start(&ListenerSettings::default()).unwrap();
    for attempt in 1..=3 {
        bus.publish(&relaunched(attempt));
    }
    assert_eq!(arrivals.recv(), Ok(1));
    // The slow one is still at the first; the other has all.
    for attempt in 1..=3 {
        assert_eq!(heard.recv().unwrap(), format!("relaunched {attempt} lost"));
    }
    let waiting = ListenerStatistics {
        waiting: 3,
        ..statistics("slow", 0, 0, 0)
    };
    assert_eq!(bus.statistics()[0], waiting);
    for _ in 1..=3 {
        gate.send(()).unwrap();
    }
    bus.drained().await;
    assert_eq!(arrivals.try_iter().collect::<Vec<_>>(), [2, 3]);
    let all = [statistics("slow", 3, 0, 0), statistics("quick", 3, 0, 0)];
    assert_eq!(bus.statistics(), all);
}

#[tokio::test]
async fn what_finds_a_full_queue_is_dropped_counted_and_logged_once() {
    let (slow, arrivals, gate) = gated();
    let settings = ListenerSettings {
        queue_max: 2,
        ..ListenerSettings::default()
    };
    let bus = Listeners::new().add("slow", slow).start(&settings).unwrap();
    bus.publish(&relaunched(1));
    assert_eq!(arrivals.recv(), Ok(1));
    let lines = logged(|| (2..=100).for_each(|attempt| bus.publish(&relaunched(attempt))));
    assert_eq!(
        lines,
        ["WARN its queue is full: events are dropped listener=\"slow\""]
    );
    for _ in 1..=3 {
        gate.send(()).unwrap();
    }
    bus.drained().await;
    assert_eq!(arrivals.try_iter().collect::<Vec<_>>(), [2, 3]);
    assert_eq!(bus.statistics(), [statistics("slow", 3, 97, 0)]);
    // It has caught up, and hears what comes.
    gate.send(()).unwrap();
    bus.publish(&relaunched(101));
    assert_eq!(arrivals.recv(), Ok(101));
}

#[tokio::test]
async fn a_panic_costs_one_event_of_one_listener() {
    let (said, clumsy_heard) = channel();
    let (recorder, heard) = Recorder::new();
    let listeners = Listeners::new()
        .add("clumsy", Clumsy(said))
        .add("careful", recorder);
    let bus = listeners.start(&ListenerSettings::default()).unwrap();
    for attempt in 1..=4 {
        bus.publish(&relaunched(attempt));
    }
    bus.drained().await;
    assert_eq!(clumsy_heard.try_iter().collect::<Vec<_>>(), [2, 4]);
    assert_eq!(heard.try_iter().count(), 4);
    let all = [
        statistics("clumsy", 2, 0, 2),
        statistics("careful", 4, 0, 0),
    ];
    assert_eq!(bus.statistics(), all);
}

#[tokio::test]
async fn a_listener_is_done_with_its_queue_before_its_thread_ends() {
    let (recorder, heard) = Recorder::new();
    let bus = Listeners::new()
        .add("late", recorder)
        .start(&ListenerSettings::default())
        .unwrap();
    bus.publish(&worker(WorkerState::Alive));
    bus.publish(&worker(WorkerState::Dead));
    drop(bus);
    // The iteration ends when the listener is dropped.
    let all: Vec<_> = heard.iter().collect();
    assert_eq!(all, ["w1 ALIVE", "w1 DEAD"]);
}

#[tokio::test]
async fn a_subscriber_hears_what_listeners_hear() {
    let bus = EventBus::default();
    bus.publish(&relaunched(1));
    let mut events = bus.subscribe();
    bus.publish(&relaunched(2));
    assert_eq!(events.recv().await.unwrap(), relaunched(2));
}

#[tokio::test]
async fn a_listener_that_is_made_known_listens_where_it_is_named() {
    let (first, first_heard) = Recorder::new();
    let (second, second_heard) = Recorder::new();
    let listeners = Listeners::new()
        .with("first", || first)
        .with("second", || second);
    let bus = listeners.start(&named(&["second", "log"])).unwrap();
    bus.publish(&relaunched(1));
    bus.drained().await;
    assert_eq!(first_heard.try_iter().count(), 0);
    assert_eq!(second_heard.try_iter().count(), 1);
    let names: Vec<_> = bus.statistics().into_iter().map(|of| of.name).collect();
    assert_eq!(names, ["second", "log"]);
}

#[test]
fn what_cannot_listen_is_an_error_that_says_what_to_do() {
    let (mine, _heard) = Recorder::new();
    let known = Listeners::new().with("mine", || mine);
    let refusal = |listeners: Listeners, settings: &ListenerSettings| {
        listeners.start(settings).unwrap_err().to_string()
    };
    assert_eq!(
        refusal(known, &named(&["log", "yours"])),
        "aloha.extraListeners names \"yours\", which is no listener; there are mine, command, log"
    );
    assert_eq!(
        refusal(Listeners::new(), &named(&["log", "log"])),
        "there are two listeners \"log\"; leave one of them out"
    );
    assert_eq!(
        refusal(Listeners::new(), &named(&["command"])),
        "aloha.extraListeners names command, which needs the path of an executable in aloha.listeners.command"
    );
    let settings = ListenerSettings {
        command: Some("/dev/null".into()),
        ..named(&["command"])
    };
    assert_eq!(
        refusal(Listeners::new(), &settings),
        "aloha.listeners.command is /dev/null, which is no executable file"
    );
    let (mine, _heard) = Recorder::new();
    assert_eq!(
        refusal(
            Listeners::new().add("a b", mine),
            &ListenerSettings::default()
        ),
        "\"a b\" cannot name a listener; use 1 to 64 characters of A-Z a-z 0-9 . _ -"
    );
}

#[test]
fn the_log_has_a_line_for_each_event() {
    let lines = logged(|| {
        let mut log = log::LogListener;
        log.on_event(&order::changed(None, AppPhase::Submitted));
        log.on_event(&relaunched(1));
        log.on_event(&worker(WorkerState::Alive));
    });
    assert_eq!(
        lines,
        [
            "INFO application app=app-1 state=SUBMITTED attempt=0",
            "INFO application to be relaunched app=app-1 attempt=1 reason=\"lost\"",
            "INFO worker worker=w1 state=ALIVE reason=\"new\"",
        ]
    );
}
