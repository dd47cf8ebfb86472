//! How fast a master takes submissions over RPC, durable and not, and how soon it is back with all of them.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aloha_rpc::{EndpointContext, EndpointError, RpcAddress, RpcEndpoint, RpcEndpointRef, RpcEnv};
use aloha_scheduler::runner::CgroupSupport;
use aloha_scheduler::worker::WorkerRegistration;
use aloha_scheduler::{
    AppDescription, AppId, MASTER, MasterClient, MasterMessage, RegisterAnswer, Resources,
    WorkerMessage,
};

use crate::{millis, now, quantile};

/// Tasks that submit in turn, over one connection.
const ASKERS: u32 = 16;
const WORKERS: u32 = 1000;
/// How often a start is timed.
const STARTS: u32 = 7;

pub(crate) fn run(aloha: &Path, work: &Path, count: u32) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(aloha, work, count))
}

async fn measure(aloha: &Path, work: &Path, count: u32) -> Result<(), Box<dyn Error>> {
    idle(aloha, work)?;
    let plain = Master::start(aloha, None)?;
    report("nothing stored", &submit_all(&plain, count).await?);
    println!(
        "  processor time of the master: {:.1} µs each",
        plain.cpu_micros()? / f64::from(count)
    );
    drop(plain);

    let store = work.join("recovery");
    let durable = Master::start(aloha, Some(&store))?;
    report(
        "durable (to reach: 20,000)",
        &submit_all(&durable, count).await?,
    );
    println!(
        "  its memory with {count} waiting (to reach: below 200 MB with 100,000): {:.1} MB",
        durable.resident_mb()?
    );
    register_workers(&durable).await?;
    drop(durable);
    let size = fs::metadata(store.join("recovery.redb"))?.len();

    let mut times = Vec::new();
    let mut memory = 0.0;
    for _ in 0..3 {
        let started = now();
        let back = Master::start(aloha, Some(&store))?;
        let (_env, client) = back.client().await?;
        let known = client.status("app-0".parse()?).await?;
        times.push(started.elapsed());
        assert!(known.is_none());
        let apps = client.apps().await?.len();
        assert_eq!(apps, usize::try_from(count)?, "all are back");
        memory = back.resident_mb()?;
    }
    println!(
        "kill -9 with {count} waiting and {WORKERS} workers, until a status is answered, from exec (to reach: 1 s with \
         100,000): {:.0} ms; the file has {:.1} MB, the master {memory:.1} MB",
        millis(quantile(&mut times, 0.5)),
        size as f64 / 1e6
    );
    Ok(())
}

/// From exec to the line that says the ports are open, and what an idle master and worker hold.
fn idle(aloha: &Path, work: &Path) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = now();
        let _master = Master::start(aloha, Some(&work.join("idle")))?;
        times.push(started.elapsed());
    }
    let master = Master::start(aloha, Some(&work.join("idle")))?;
    let mut worker_times = Vec::new();
    for _ in 0..STARTS {
        let started = now();
        let _worker = Master::start_worker(aloha, &work.join("work"), &master.rpc)?;
        worker_times.push(started.elapsed());
    }
    let worker = Master::start_worker(aloha, &work.join("work"), &master.rpc)?;
    std::thread::sleep(Duration::from_secs(1));
    println!(
        "exec to ports open (to reach: 50 ms): master {:.1} ms, worker {:.1}; resident and idle (to reach: below 15 MB): \
         master {:.1} MB, worker {:.1}",
        millis(quantile(&mut times, 0.5)),
        millis(quantile(&mut worker_times, 0.5)),
        master.resident_mb()?,
        worker.resident_mb()?
    );
    Ok(())
}

pub(crate) struct Submissions {
    took: Duration,
    times: Vec<Duration>,
}

pub(crate) fn report(how: &str, Submissions { took, times }: &Submissions) {
    let mut times = times.clone();
    println!(
        "submissions by {ASKERS} askers over RPC, {how}: {:.0} a second; p50 {:.2} ms, p99 {:.2}",
        times.len() as f64 / took.as_secs_f64(),
        millis(quantile(&mut times, 0.5)),
        millis(quantile(&mut times, 0.99))
    );
}

pub(crate) async fn submit_all(master: &Master, count: u32) -> Result<Submissions, Box<dyn Error>> {
    let (env, client) = master.client().await?;
    let taken = Arc::new(AtomicU32::new(0));
    let started = now();
    let askers: Vec<_> = (0..ASKERS)
        .map(|_| {
            let (client, taken) = (client.clone(), Arc::clone(&taken));
            tokio::spawn(async move {
                let mut times = Vec::new();
                while taken.fetch_add(1, Ordering::Relaxed) < count {
                    let asked = now();
                    let answer = client.submit(description()).await;
                    times.push(asked.elapsed());
                    match answer {
                        Ok(answer) => drop(answer.accepted()?),
                        Err(error) => return Err(error.to_string()),
                    }
                }
                Ok(times)
            })
        })
        .collect();
    let mut times = Vec::new();
    for asker in askers {
        times.extend(asker.await??);
    }
    let took = started.elapsed();
    env.shutdown().await;
    Ok(Submissions { took, times })
}

fn description() -> AppDescription {
    AppDescription {
        name: "waits".to_owned(),
        entry_point: "SimpleProcess".to_owned(),
        args: vec!["echo this one never runs".to_owned()],
        // More than a worker has.
        cores: 4,
        memory_mib: 64,
        ..AppDescription::default()
    }
}

/// A worker that does nothing.
#[derive(Debug)]
struct Idle;

impl RpcEndpoint for Idle {
    type Message = WorkerMessage;

    async fn receive(
        &mut self,
        _: WorkerMessage,
        _: &EndpointContext<WorkerMessage>,
    ) -> Result<(), EndpointError> {
        Ok(())
    }
}

async fn register_workers(master: &Master) -> Result<(), Box<dyn Error>> {
    let env = RpcEnv::builder("workers")
        .bind("127.0.0.1:0")
        .start()
        .await?;
    let worker: RpcEndpointRef<WorkerMessage> = env.setup_endpoint("Worker", Idle)?;
    let endpoint: RpcEndpointRef<MasterMessage> = env
        .retrieve_endpoint_ref(&master.address()?, MASTER)
        .await?;
    for n in 0..WORKERS {
        let registration = WorkerRegistration {
            id: format!("worker-{n}").parse()?,
            host: "127.0.0.1".to_owned(),
            port: 1,
            offers: Resources {
                cores: 2,
                memory_mib: 1024,
            },
            attempts: Vec::new(),
            enforces: CgroupSupport::default(),
            attributes: Default::default(),
            epoch: 0,
        };
        let worker = worker.clone();
        let answer = endpoint
            .ask(|call| MasterMessage::RegisterWorker {
                registration,
                worker,
                call,
            })
            .await?;
        assert!(
            matches!(answer, RegisterAnswer::Registered { .. }),
            "{answer:?}"
        );
    }
    // The last of them is stored by the time that this is.
    let client = MasterClient::connect(&env, &[master.address()?]).await?;
    let app: AppId = client.submit(description()).await?.accepted()?;
    client.kill(app).await?;
    env.shutdown().await;
    Ok(())
}

/// The process of a master or a worker, killed with this.
pub(crate) struct Master {
    process: Child,
    rpc: String,
    pub(crate) rest: Option<SocketAddr>,
}

impl Master {
    pub(crate) fn start(aloha: &Path, store: Option<&Path>) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(aloha);
        command.args(["master", "-p", "0", "--rest-port", "0"]);
        command.args(["-D", "aloha.deploy.retainedApplications=0"]);
        if let Some(store) = store {
            let directory = format!("aloha.deploy.recoveryDirectory={}", store.display());
            command.args([
                "-D",
                "aloha.deploy.recoveryMode=FILESYSTEM",
                "-D",
                &directory,
            ]);
        }
        Self::serve(command)
    }

    /// One at these ports, with these settings.
    pub(crate) fn start_at(
        aloha: &Path,
        port: u16,
        rest: u16,
        settings: &[String],
    ) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(aloha);
        command.args(["master", "-p", &port.to_string()]);
        command.args(["--rest-port", &rest.to_string()]);
        for setting in settings {
            command.args(["-D", setting]);
        }
        Self::serve(command)
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) -> Result<(), Box<dyn Error>> {
        let pid = rustix::process::Pid::from_child(&self.process);
        Ok(rustix::process::kill_process(
            pid,
            rustix::process::Signal::TERM,
        )?)
    }

    fn start_worker(aloha: &Path, work: &Path, master: &str) -> Result<Self, Box<dyn Error>> {
        let mut command = Command::new(aloha);
        command
            .args(["worker", "-c", "2", "-m", "2G", "-d"])
            .arg(work)
            .arg(master);
        Self::serve(command)
    }

    fn serve(mut command: Command) -> Result<Self, Box<dyn Error>> {
        command
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let mut out = BufReader::new(process.stdout.take().ok_or("no standard output")?);
        let mut ready = String::new();
        out.read_line(&mut ready)?;
        let (rpc, rest) = addresses(&ready).ok_or("it is not ready")?;
        Ok(Self { process, rpc, rest })
    }

    fn address(&self) -> Result<RpcAddress, Box<dyn Error>> {
        Ok(self.rpc.trim_start_matches("aloha://").parse()?)
    }

    async fn client(&self) -> Result<(RpcEnv, MasterClient), Box<dyn Error>> {
        let env = RpcEnv::client("bench").await?;
        let client = MasterClient::connect(&env, &[self.address()?]).await?;
        Ok((env, client))
    }

    /// The time it had of a processor, in user and system mode, since its start.
    pub(crate) fn cpu_micros(&self) -> Result<f64, Box<dyn Error>> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let after_name = stat.rsplit(')').next().ok_or("no name")?;
        let ticks: u64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|ticks| ticks.parse::<u64>().unwrap_or_default())
            .sum();
        Ok(ticks as f64 * 10_000.0) // a hundred a second
    }

    fn resident_mb(&self) -> Result<f64, Box<dyn Error>> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .ok_or("no VmRSS")?;
        Ok(number.trim().parse::<f64>()? * 1024.0 / 1e6)
    }
}

/// Where RPC and REST are served, by the line that says so.
pub(crate) fn addresses(ready: &str) -> Option<(String, Option<SocketAddr>)> {
    let mut words = ready.split_whitespace().skip(2);
    let rpc = words.next()?.to_owned();
    let rest = words.find_map(|word| word.strip_prefix("rest=http://"));
    Some((rpc, rest.and_then(|rest| rest.parse().ok())))
}

impl Drop for Master {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
