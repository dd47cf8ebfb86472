//! One application under its runner, beside the same without one.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aloha_scheduler::runner::{Enforcement, RunnerSettings};
use aloha_scheduler::worker::{LaunchSpec, Launcher, RunnerLauncher, Signal};
use aloha_scheduler::{AppDescription, Outcome, application::ShutdownReason};

use crate::{bare, millis, now, quantile};

pub(crate) fn run(aloha: &Path, rounds: u32) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(aloha, rounds))
}

async fn measure(aloha: &Path, rounds: u32) -> Result<(), Box<dyn Error>> {
    let work = std::env::temp_dir().join(format!("aloha-bench-{}", std::process::id()));
    let launcher = |enforcement| {
        let settings = RunnerSettings {
            enforcement,
            ..RunnerSettings::default()
        };
        async {
            Ok::<_, Box<dyn Error>>(RunnerLauncher::new(settings).await?.program(aloha.into()))
        }
    };
    let grouped = launcher(Enforcement::default()).await?;
    let plain = launcher(Enforcement {
        cgroups: false,
        ..Enforcement::default()
    })
    .await?;
    let (mut without, mut with, mut with_group) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        without.push(without_runner().await?);
        with.push(with_runner(&plain, &work, &format!("plain-{round}")).await?);
        with_group.push(with_runner(&grouped, &work, &format!("grouped-{round}")).await?);
    }
    println!("one application after another, {rounds} times, interleaved (ms)");
    println!(
        "                          p50    p90    over the bare process, p50 (to reach: at most 10)"
    );
    let base = quantile(&mut without, 0.5);
    for (name, times) in [
        ("bash -c true", &mut without),
        ("under a runner", &mut with),
        ("… with a cgroup", &mut with_group),
    ] {
        let (half, most) = (quantile(times, 0.5), quantile(times, 0.9));
        let over = half.saturating_sub(base);
        println!(
            "{name:<22} {:>6.2} {:>6.2} {:>6.2}",
            millis(half),
            millis(most),
            millis(over)
        );
    }
    resident(&grouped, &work).await?;
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

async fn without_runner() -> Result<Duration, Box<dyn Error>> {
    let started = now();
    let status = tokio::task::spawn_blocking(|| bare().status()).await??;
    assert!(status.success(), "{status}");
    Ok(started.elapsed())
}

async fn with_runner(
    launcher: &RunnerLauncher,
    work: &Path,
    id: &str,
) -> Result<Duration, Box<dyn Error>> {
    let started = now();
    let app = launcher.start(spec(work, id, "true")).await?;
    let outcome = app.wait().await;
    assert_eq!(outcome, Outcome::Exited(0));
    Ok(started.elapsed())
}

/// The memory of a runner whose application sleeps.
async fn resident(launcher: &RunnerLauncher, work: &Path) -> Result<(), Box<dyn Error>> {
    let app = launcher
        .start(spec(work, "resident", "exec sleep 1000"))
        .await?;
    let record = std::fs::read(work.join("resident/.aloha/run.json"))?;
    let record: serde_json::Value = serde_json::from_slice(&record)?;
    // The worker's question for the end, which the runner keeps, is answered only after it has come.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", record["pid"]))?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok())
            .map_or(f64::NAN, |kib| kib / 1024.0)
    };
    println!(
        "resident memory of a runner: {:.2} MB (to reach: at most 5), of which its own {:.2}, shared with other runners {:.2}",
        line("VmRSS:"),
        line("RssAnon:"),
        line("RssFile:")
    );
    app.signal(Signal::Kill(ShutdownReason::Killed)).await?;
    app.wait().await;
    Ok(())
}

fn spec(work: &Path, id: &str, script: &str) -> LaunchSpec {
    let description = AppDescription {
        name: id.to_owned(),
        entry_point: "SimpleProcess".to_owned(),
        args: vec![script.to_owned()],
        cores: 1,
        memory_mib: 64,
        ..AppDescription::default()
    };
    LaunchSpec {
        app_id: id.to_owned(),
        attempt: 1,
        description: Arc::new(description),
        work_directory: work.to_owned(),
        master: "aloha://127.0.0.1:7077".to_owned(),
        worker_id: "bench".to_owned(),
    }
}
