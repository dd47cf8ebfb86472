//! One application under its runner, beside the same without one.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aloha_scheduler::runner::{Enforcement, RunnerSettings};
use aloha_scheduler::worker::{LaunchSpec, Launcher, RunnerLauncher, Signal};
use aloha_scheduler::{AppDescription, Outcome, application::ShutdownReason};

use crate::{bare, millis, now, quantile};

/// How many runners are looked at.
const SLEEPERS: u32 = 20;

pub(crate) fn run(aloha: &Path, work: &Path, rounds: u32) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(aloha, work, rounds))
}

async fn measure(aloha: &Path, work: &Path, rounds: u32) -> Result<(), Box<dyn Error>> {
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
        with.push(with_runner(&plain, work, &format!("plain-{round}")).await?);
        with_group.push(with_runner(&grouped, work, &format!("grouped-{round}")).await?);
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
    resident(&grouped, work).await
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

/// The memory of runners whose applications sleep.
async fn resident(launcher: &RunnerLauncher, work: &Path) -> Result<(), Box<dyn Error>> {
    let (mut apps, mut pids) = (Vec::new(), Vec::new());
    for n in 0..SLEEPERS {
        let id = format!("sleeper-{n}");
        apps.push(launcher.start(spec(work, &id, "exec sleep 1000")).await?);
        let record = std::fs::read(work.join(&id).join(".aloha/run.json"))?;
        let record: serde_json::Value = serde_json::from_slice(&record)?;
        pids.push(record["pid"].to_string());
    }
    // By then the worker has asked each for its end, and the question is kept there.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mean = |name: &str| -> Result<f64, Box<dyn Error>> {
        let mut kib = 0.0;
        for pid in &pids {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
            kib += number.ok_or("no such line")?.trim().parse::<f64>()?;
        }
        Ok(kib / f64::from(SLEEPERS) / 1024.0)
    };
    println!(
        "memory of a runner, {SLEEPERS} at once (to reach: at most 5 MB): {:.2} MB resident, executable and C library \
         included; {:.2} MB of its own and its share of what all use; {:.2} MB of its own alone",
        mean("Rss:")?,
        mean("Pss:")?,
        mean("Anonymous:")?
    );
    for app in apps {
        app.signal(Signal::Kill(ShutdownReason::Killed)).await?;
        app.wait().await;
    }
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
        alone_max: None,
    }
}
