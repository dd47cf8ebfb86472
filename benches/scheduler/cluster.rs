//! A whole cluster in one process, and its clients in this one.

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::{AppDescription, AppId, AppPhase, MasterClient};

use crate::rest::{Connection, get, post};
use crate::submissions::addresses;
use crate::{bare, millis, now, quantile};

pub(crate) fn run(
    aloha: &Path,
    work: &Path,
    one_by_one: u32,
    together: u32,
    rounds: u32,
) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let cluster = Cluster::start(aloha, work)?;
    runtime.block_on(measure(&cluster, one_by_one, together, rounds))
}

async fn measure(
    cluster: &Cluster,
    one_by_one: u32,
    together: u32,
    rounds: u32,
) -> Result<(), Box<dyn Error>> {
    let env = RpcEnv::client("bench").await?;
    let address: RpcAddress = cluster.rpc.trim_start_matches("aloha://").parse()?;
    let master = MasterClient::connect(&env, &[address]).await?;

    let (mut with, mut over_rest, mut without) = (Vec::new(), Vec::new(), Vec::new());
    let mut rest = Connection::open(cluster.rest.ok_or("no REST server")?).await?;
    for _ in 0..one_by_one {
        let started = now();
        let status = bare().status()?;
        assert!(status.success(), "{status}");
        without.push(started.elapsed());
        let started = now();
        complete(&master, &submit(&master).await?).await?;
        with.push(started.elapsed());
        let started = now();
        complete_over_rest(&mut rest).await?;
        over_rest.push(started.elapsed());
    }
    let bare_p50 = quantile(&mut without, 0.5);
    for (how, mut times) in [("RPC", with), ("REST", over_rest)] {
        println!(
            "submit to FINISHED seen over {how}, {one_by_one} times: p50 {:.2} ms, p90 {:.2}; a bare bash -c true {:.2} \
             (to reach: that and 10 ms)",
            millis(quantile(&mut times, 0.5)),
            millis(quantile(&mut times, 0.9)),
            millis(bare_p50)
        );
    }

    let (mut rates, mut bare_rates) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        bare_rates.push(bare_rate(together / 4)?);
        rates.push(rate(&master, together).await?);
    }
    let (rate, bare_rate) = (median(&mut rates), median(&mut bare_rates));
    println!(
        "completed per second, {together} applications, {rounds} rounds: {rate:.0} (to reach: 480); \
         a bare loop {bare_rate:.0}, of which that is {:.2} (to reach: 0.5)",
        rate / bare_rate
    );
    env.shutdown().await;
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// How many processes a second a loop starts and waits for, one after another.
fn bare_rate(count: u32) -> Result<f64, Box<dyn Error>> {
    let started = now();
    for _ in 0..count {
        assert!(bare().status()?.success());
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

async fn rate(master: &MasterClient, count: u32) -> Result<f64, Box<dyn Error>> {
    let started = now();
    let mut apps = Vec::new();
    for _ in 0..count {
        apps.push(submit(master).await?);
    }
    for app in &apps {
        complete(master, app).await?;
    }
    Ok(f64::from(count) / started.elapsed().as_secs_f64())
}

async fn submit(master: &MasterClient) -> Result<AppId, Box<dyn Error>> {
    let description = AppDescription {
        name: "true".to_owned(),
        entry_point: "SimpleProcess".to_owned(),
        args: vec!["true".to_owned()],
        cores: 1,
        memory_mib: 64,
        ..AppDescription::default()
    };
    Ok(master.submit(description).await?.accepted()?)
}

/// Submits, and waits for the end in a long poll.
async fn complete_over_rest(rest: &mut Connection) -> Result<(), Box<dyn Error>> {
    let submission = r#"{"action":"CreateSubmissionRequest","name":"true","entryPoint":"SimpleProcess","libs":[],"args":"true","cores":1,"memory":64}"#;
    let request = post("/v1/submissions/create", submission);
    let created: serde_json::Value = serde_json::from_slice(rest.exchange(&request).await?)?;
    let id = created["submissionId"].as_str().ok_or("it was refused")?;
    let request = get(&format!("/v1/applications/{id}/wait?timeout=30"));
    let status: serde_json::Value = serde_json::from_slice(rest.exchange(&request).await?)?;
    match status["state"].as_str() {
        Some("FINISHED") => Ok(()),
        _ => Err(status.to_string().into()),
    }
}

async fn complete(master: &MasterClient, app: &AppId) -> Result<(), Box<dyn Error>> {
    let status = master
        .wait(app)
        .await?
        .ok_or("an application was forgotten")?;
    match status.phase {
        AppPhase::Finished => Ok(()),
        other => Err(format!("{app} ended as {other}: {:?}", status.message).into()),
    }
}

/// `aloha local`, ended with this.
struct Cluster {
    process: Child,
    rpc: String,
    rest: Option<SocketAddr>,
}

impl Cluster {
    fn start(aloha: &Path, work: &Path) -> Result<Self, Box<dyn Error>> {
        let mut process = Command::new(aloha)
            .args([
                "local",
                "-c",
                "8",
                "-m",
                "8G",
                "-p",
                "0",
                "--rest-port",
                "0",
            ])
            .args(["-D", "aloha.deploy.retainedApplications=100000"])
            .arg("-d")
            .arg(work)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut out = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut ready = String::new();
        out.read_line(&mut ready)?;
        // What else it says is read, lest the pipe fills.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        let (rpc, rest) = addresses(&ready).ok_or("it is not ready")?;
        // Its worker registers within a moment; until then applications only wait.
        std::thread::sleep(Duration::from_millis(500));
        Ok(Self { process, rpc, rest })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.process.wait();
    }
}
