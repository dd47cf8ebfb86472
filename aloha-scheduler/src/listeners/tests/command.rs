//! The listener that runs a program for each event.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

/// A bus whose one listener runs this script.
fn bus(directory: &TempDir, script: &str, command_timeout: Duration) -> EventBus {
    let program = directory.path().join("program");
    fs::write(
        &program,
        format!("#!/bin/bash\ncd {}\n{script}", directory.path().display()),
    )
    .unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let settings = ListenerSettings {
        command: Some(program),
        command_timeout,
        ..named(&["command"])
    };
    Listeners::new().start(&settings).unwrap()
}

fn said(directory: &TempDir, file: &str) -> String {
    fs::read_to_string(directory.path().join(file)).unwrap()
}

const LONG: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_command_gets_each_event_in_order_as_json_and_in_variables() {
    let directory = tempfile::tempdir().unwrap();
    let script = r#"echo "$ALOHA_EVENT $ALOHA_EVENT_ID $ALOHA_EVENT_FROM>$ALOHA_EVENT_TO $ALOHA_EVENT_ATTEMPT $ALOHA_EVENT_REASON" >> lines
cat >> json; echo >> json; echo "not for the master's ready line""#;
    let bus = bus(&directory, script, LONG);
    let events = [
        order::changed(Some(AppPhase::Submitted), AppPhase::Launching),
        relaunched(1),
        worker(WorkerState::Alive),
    ];
    for event in &events {
        bus.publish(event);
    }
    bus.drained().await;
    assert_eq!(
        said(&directory, "lines"),
        "AppStateChanged app-1 SUBMITTED>LAUNCHING 0 \n\
         AppRelaunched app-1 > 1 lost\n\
         WorkerStateChanged w1 >ALIVE  new\n"
    );
    let json = said(&directory, "json");
    let read: Vec<AlohaEvent> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(read, events);
    assert_eq!(bus.statistics(), [statistics("command", 3, 0, 0)]);
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_and_the_next_event_delivered() {
    let directory = tempfile::tempdir().unwrap();
    let script = "echo $$ >> pids; [ $ALOHA_EVENT_ATTEMPT = 2 ] || exec sleep 600";
    let bus = bus(&directory, script, Duration::from_millis(500));
    bus.publish(&relaunched(1));
    bus.publish(&relaunched(2));
    bus.drained().await;
    let pids = said(&directory, "pids");
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        // Not even as a zombie.
        assert!(!Path::new("/proc").join(pid).exists(), "{pid} is left");
    }
}

#[test]
fn a_command_that_fails_or_reads_nothing_is_said_so_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("program");
    fs::write(&program, "#!/bin/bash\nexit 3\n").unwrap();
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let settings = ListenerSettings {
        command: Some(program.clone()),
        ..ListenerSettings::default()
    };
    let mut listener = crate::listeners::command::CommandListener::new(&settings).unwrap();
    // More than a pipe holds.
    let large = AlohaEvent::AppRelaunched {
        id: "app-1".parse().unwrap(),
        attempt: 1,
        reason: "x".repeat(1 << 16) + "\0",
    };
    let path = program.display();
    assert_eq!(
        logged(|| listener.on_event(&large)),
        [format!(
            "WARN the command of a listener failed program={path} status=exit status: 3"
        )]
    );
    fs::remove_file(&program).unwrap();
    let lines = logged(|| listener.on_event(&relaunched(1)));
    let missing = "error=No such file or directory (os error 2)";
    assert_eq!(
        lines,
        [format!(
            "WARN the command of a listener could not be run program={path} {missing}"
        )]
    );
}
