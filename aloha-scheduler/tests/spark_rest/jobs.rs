//! What comes in Spark's form, run by a worker.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::{TempDir, tempdir};

use crate::common::{Daemon, Pipe, command};
use crate::{Rest, assert_driver_id, request};

/// The directory of a Spark whose `spark-submit` is this script.
fn spark_home(script: &str) -> TempDir {
    let home = tempdir().expect("a directory");
    let program = home.path().join("bin/spark-submit");
    fs::create_dir(program.parent().expect("it has one")).expect("made");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("made executable");
    home
}

/// A master and a worker of two cores with this Spark.
fn cluster(spark: &Path, work: &Path, variables: &[(&str, &str)]) -> Rest {
    let mut command = command();
    command
        .env("SPARK_HOME", spark)
        .envs(variables.iter().copied());
    let work = work.to_str().expect("UTF-8");
    let arguments = [
        "local",
        "-c",
        "2",
        "-m",
        "8G",
        "-p",
        "0",
        "--rest-port",
        "0",
        "-d",
        work,
    ];
    let listen = ["-D", "aloha.extraListeners=log"];
    let daemon = Daemon::start_by(command, &[&arguments[..], &listen].concat());
    daemon.wait_for_line("worker registered");
    Rest::of(daemon)
}

#[tokio::test]
async fn of_two_that_run_the_one_that_is_killed_ends() {
    let ground = tempdir().expect("a directory");
    let spark = spark_home("echo running > \"$PIPE\"; exec tail -f /dev/null");
    let rest = cluster(spark.path(), &ground.path().join("work"), &[]);
    let mut ids = Vec::new();
    for name in ["first", "second"] {
        let pipe = Pipe::new(ground.path(), name);
        let mut request = request();
        request["environmentVariables"] = json!({"PIPE": pipe.path()});
        ids.push(rest.submit(&request).await);
        assert_eq!(pipe.read(), "running\n");
    }
    let runs = |id: &String| format!("{} state=RUNNING", id.replace("driver-", "app-"));
    rest.daemon()
        .wait_for_lines(&ids.iter().map(runs).collect::<Vec<_>>());
    for id in &ids {
        let (_, status) = rest.get(&format!("/v1/submissions/status/{id}")).await;
        assert_eq!(status["driverState"], "RUNNING");
        let worker = status["workerId"].as_str().expect("it has one");
        let address = status["workerHostPort"].as_str().expect("it has one");
        assert!(
            worker.starts_with("worker-") && address.contains(':'),
            "{status}"
        );
    }
    let (_, killed) = rest
        .post(&format!("/v1/submissions/kill/{}", ids[0]), "")
        .await;
    assert_eq!(killed["success"], true);
    let ended = rest
        .daemon()
        .ask(&["wait", &ids[0].replace("driver-", "app-")]);
    assert_eq!(ended.code, Some(137));
    assert_eq!(rest.state(&ids[0]).await, "KILLED");
    assert_eq!(rest.state(&ids[1]).await, "RUNNING");
}

#[tokio::test]
async fn recorded_requests_run_as_they_would_on_sparks_server() {
    let ground = tempdir().expect("a directory");
    let spark = spark_home("printf '%s\\n' \"$@\"; env | sort >&2");
    let endpoint = ("ALOHA_TEST_ENDPOINT", "http://of.the.worker");
    let work = ground.path().join("work");
    let rest = cluster(spark.path(), &work, &[endpoint]);
    let mut replayed = 0;
    for body in recorded() {
        let request = fs::read(&body).expect("recorded");
        let (code, created) = rest.post("/v1/submissions/create", request).await;
        assert_eq!(
            (code, created.get("unknownFields")),
            (200, None),
            "{body:?}: {created}"
        );
        let id = created["submissionId"].as_str().expect("an id");
        assert_driver_id(id);
        let app = id.replace("driver-", "app-");
        let ended = rest.daemon().ask(&["wait", &app]);
        assert_eq!(
            (ended.code, rest.state(id).await),
            (Some(0), json!("FINISHED")),
            "{body:?}"
        );
        let args = fs::read_to_string(work.join(&app).join("stdout")).expect("it ran");
        let expected = fs::read_to_string(body.with_extension("args")).expect("recorded");
        assert_eq!(args, expected, "{body:?}");
        let variables = fs::read_to_string(work.join(&app).join("stderr")).expect("it ran");
        let has = |line: &str| variables.lines().any(|variable| variable == line);
        assert!(
            has(&format!("SPARK_HOME={}", spark.path().display())),
            "{variables}"
        );
        assert!(!variables.contains("SPARK_ENV_LOADED="), "{variables}");
        if body.ends_with("with-placeholders.json") {
            assert!(has("ENDPOINT=http://of.the.worker"), "{variables}");
            assert!(has("UNKNOWN={{ALOHA_TEST_NOWHERE}}"), "{variables}");
        }
        replayed += 1;
    }
    assert_eq!(replayed, 10);
}

fn recorded() -> impl Iterator<Item = PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spark_rest/requests");
    let entries = fs::read_dir(directory).expect("there are some");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    paths.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    })
}

#[tokio::test]
async fn a_worker_without_spark_makes_a_final_error_that_says_what_to_do() {
    let ground = tempdir().expect("a directory");
    let none = ground.path().join("none");
    let rest = cluster(&none, &ground.path().join("work"), &[]);
    let mut supervised = request();
    supervised["sparkProperties"]["spark.driver.supervise"] = json!("true");
    let id = rest.submit(&supervised).await;
    let ended = rest.daemon().ask(&["wait", &id.replace("driver-", "app-")]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let (_, status) = rest.get(&format!("/v1/submissions/status/{id}")).await;
    assert_eq!(
        (&status["driverState"], &status["attempt"]),
        (&json!("ERROR"), &json!(1))
    );
    let message = status["message"].as_str().expect("a reason");
    let expected =
        format!("SPARK_HOME of this worker is {none:?}, where there is no bin/spark-submit");
    assert!(
        message.contains(&expected) && message.contains("set it to"),
        "{message}"
    );
}
