//! The real Spark: its client submits, asks and kills, and its `spark-submit` runs what was submitted.
//!
//! `ALOHA_SPARK_HOME` names the directory of a Spark 3.5 or 4.0, such as that of PyPI's `pyspark`, and there is a JDK; without the
//! first nothing here runs.

#![expect(clippy::print_stdout, reason = "what is skipped or failed shows")]

#[path = "../common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Daemon, command};
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};

/// A cluster whose worker has Spark, and what is submitted to it.
struct Ground {
    spark: PathBuf,
    daemon: Daemon,
    home: TempDir,
}

impl Ground {
    /// None where there is no Spark to test with.
    fn new() -> Option<Self> {
        let Some(spark) = std::env::var_os("ALOHA_SPARK_HOME") else {
            println!("skipped: ALOHA_SPARK_HOME names no Spark");
            return None;
        };
        let spark = PathBuf::from(spark);
        let home = tempdir().expect("a directory");
        let mut command = command();
        command.env("SPARK_HOME", &spark);
        let work = home.path().join("work");
        let work = work.to_str().expect("UTF-8");
        let local = [
            "local",
            "-c",
            "2",
            "-m",
            "4G",
            "-p",
            "0",
            "--rest-port",
            "0",
        ];
        let more = ["-d", work, "-D", "aloha.extraListeners=log"];
        let daemon = Daemon::start_by(command, &[&local[..], &more].concat());
        daemon.wait_for_line("worker registered");
        Some(Self {
            spark,
            daemon,
            home,
        })
    }

    fn address(&self) -> &str {
        let url = self.daemon.rest();
        url.strip_prefix("http://").expect("a URL")
    }

    /// A jar with `SparkPi`, which PyPI's pyspark does not bring.
    fn jar(&self) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/spark_submit/SparkPi.java");
        let classes = self.home.path().join("classes");
        let class_path = self.spark.join("jars/*");
        succeed(
            Command::new("javac")
                .args(["--release", "8", "-Xlint:-options", "-cp"])
                .arg(class_path)
                .arg("-d")
                .args([&classes, &source]),
        );
        let jar = self.home.path().join("pi.jar");
        succeed(
            Command::new("jar")
                .arg("cf")
                .arg(&jar)
                .arg("-C")
                .arg(&classes)
                .arg("."),
        );
        jar
    }

    /// `spark-submit` of a user, who sees what it logs.
    fn client(&self, master: &str) -> Command {
        let log = self.home.path().join("log4j2.properties");
        // Told to kill or to ask, Spark's client sets the level of the root logger, but not that of others.
        let settings = "rootLogger.level = info\nlogger.rest.name = org.apache.spark.deploy.rest\n\
                        logger.rest.level = info\nrootLogger.appenderRef.e.ref = e\nappender.e.type = Console\n\
                        appender.e.name = e\nappender.e.target = SYSTEM_ERR\nappender.e.layout.type = PatternLayout\n\
                        appender.e.layout.pattern = %m%n%ex\n";
        std::fs::write(&log, settings).expect("written");
        let mut client = Command::new(self.spark.join("bin/spark-submit"));
        client
            .env("SPARK_HOME", &self.spark)
            .env(
                "SPARK_SUBMIT_OPTS",
                format!("-Dlog4j2.configurationFile={}", log.display()),
            )
            .args(["--master", master]);
        client
    }

    /// `SparkPi` in so many slices, submitted to a master; gives its id.
    fn submit(&self, master: &str, slices: &str) -> String {
        let mut client = self.client(master);
        client
            .args(["--deploy-mode", "cluster", "--driver-memory", "512m"])
            .args(["--conf", "spark.master.rest.enabled=true"])
            .args(["--class", "org.apache.spark.examples.SparkPi"])
            .arg(self.jar())
            .arg(slices);
        let said = succeed(&mut client);
        let created = said.split_once("Submission successfully created as ");
        let id = created.and_then(|(_, rest)| rest.split_once(". Polling submission state"));
        let (id, _) = id.expect("the client's words");
        assert!(id.starts_with("driver-"), "{id}");
        id.to_owned()
    }

    /// Waits for the end of an application; gives its exit code and what it printed.
    fn output(&self, id: &str) -> (Option<i32>, String) {
        let app = id.replace("driver-", "app-");
        let ended = self.daemon.ask(&["wait", &app]);
        let output = self.daemon.ask(&["logs", &app]);
        if ended.code != Some(0) {
            println!("{}", self.daemon.ask(&["logs", "--stderr", &app]).stdout);
        }
        (ended.code, output.stdout)
    }

    async fn create(&self, request: &Value) -> String {
        let url = format!("{}/v1/submissions/create", self.daemon.rest());
        let client = reqwest::Client::new();
        let answer = client.post(url).body(request.to_string()).send().await;
        let created: Value = answer.expect("an answer").json().await.expect("JSON");
        assert_eq!(created["success"], true, "{created}");
        created["submissionId"].as_str().expect("an id").to_owned()
    }
}

/// What a command said on standard output and error.
fn said(output: &Output) -> String {
    let texts = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    texts.concat()
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = said(&output);
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

#[track_caller]
fn assert_says(said: &str, expected: &str) {
    assert!(said.contains(expected), "no {expected:?} in: {said}");
}

#[test]
fn spark_pi_goes_to_its_end_also_past_a_master_that_is_dead() {
    let Some(ground) = Ground::new() else { return };
    // Nobody listens on that port, and no port that is free now would stay so.
    let dead = "127.0.0.1:1";
    let master = format!("spark://{dead},{}", ground.address());
    let id = ground.submit(&master, "10");
    let (code, output) = ground.output(&id);
    assert_eq!(code, Some(0));
    assert_says(&output, "Pi is roughly 3.1");
    let said = succeed(ground.client(&master).args(["--status", &id]));
    assert_says(&said, "\"driverState\" : \"FINISHED\",");
    assert_says(&said, "\"workerId\" : \"worker-");
    let unknown = "driver-20190311221731-0000";
    let said = succeed(ground.client(&master).args(["--status", unknown]));
    // Its words for an answer without success.
    assert_says(&said, "message of unexpected type SubmissionStatusResponse");
}

#[test]
fn spark_pi_is_killed_by_sparks_client() {
    let Some(ground) = Ground::new() else { return };
    let master = format!("spark://{}", ground.address());
    let id = ground.submit(&master, "1000000");
    let app = id.replace("driver-", "app-");
    ground.daemon.wait_for_line(&format!("{app} state=RUNNING"));
    let said = succeed(ground.client(&master).args(["--kill", &id]));
    assert_says(&said, &format!("{id} is killed successfully."));
    assert_eq!(ground.output(&id).0, Some(137));
    let said = succeed(ground.client(&master).args(["--status", &id]));
    assert_says(&said, "\"driverState\" : \"KILLED\",");
}

#[tokio::test]
async fn python_goes_to_its_end_though_sparks_client_would_not_submit_it() {
    let Some(ground) = Ground::new() else { return };
    let script = ground.home.path().join("pi.py");
    let lines = "import os, sys\nfrom pyspark.sql import SparkSession\n\
                 spark = SparkSession.builder.getOrCreate()\n\
                 print(spark.sparkContext.appName, spark.sparkContext.master, os.environ['KEY'])\n\
                 print(spark.sparkContext.parallelize(range(int(sys.argv[1])), 2).sum())\nspark.stop()\n";
    std::fs::write(&script, lines).expect("written");
    let script = script.to_str().expect("UTF-8");

    let master = format!("spark://{}", ground.address());
    let refused = ground
        .client(&master)
        .args(["--deploy-mode", "cluster"])
        .args(["--conf", "spark.master.rest.enabled=true", script])
        .output()
        .expect("it runs");
    assert!(!refused.status.success());
    let why = "Cluster deploy mode is currently not supported for python applications";
    assert_says(&said(&refused), why);

    let request = |resource: &str, class: Value, args: Value| {
        json!({
            "action": "CreateSubmissionRequest",
            "appResource": resource,
            "mainClass": class,
            "appArgs": args,
            "clientSparkVersion": "3.5.9",
            "environmentVariables": {"KEY": "{{LANG_OF_NOBODY}}", "SPARK_ENV_LOADED": "1"},
            "sparkProperties": {"spark.app.name": "sum", "spark.master": master, "spark.submit.deployMode": "cluster"},
        })
    };
    let nested = "org.apache.spark.deploy.SparkSubmit";
    for (resource, class, args) in [
        (script, Value::Null, json!(["101"])),
        ("", json!(nested), json!([script, "101"])),
    ] {
        let id = ground.create(&request(resource, class, args)).await;
        let expected = "sum local[1] {{LANG_OF_NOBODY}}\n5050\n";
        assert_eq!(ground.output(&id), (Some(0), expected.to_owned()));
    }
}
