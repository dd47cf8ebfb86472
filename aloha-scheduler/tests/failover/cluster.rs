//! Three ZooKeeper servers, two masters and three workers, each behind its gate.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcConfig, RpcEnv, TransportConfig};
use aloha_scheduler::MasterClient;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::common::gates::{Network, Party};
use crate::common::ports::free_port;
use crate::common::zookeeper::Ensemble;
use crate::common::{self, now};

/// Two ticks would do, but three servers, five of ours and their applications may share two processors.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// Far longer than a worker is ever away here: none is to be given up.
const WORKER_TIMEOUT: Duration = Duration::from_secs(60);
/// Far above what anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);
pub(crate) const MASTERS: usize = 2;
pub(crate) const WORKERS: usize = 3;

pub(crate) struct Cluster {
    // Ended in this order.
    pub(crate) workers: Vec<Seat>,
    pub(crate) masters: Vec<Seat>,
    pub(crate) zookeeper: Ensemble,
    pub(crate) network: Network,
    pub(crate) runtime: Runtime,
    home: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts all, and waits until a master leads and has its workers. One cluster is there at a time: the machine is to
    /// have the time for it that its timeouts assume.
    pub(crate) fn start() -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let home = tempfile::tempdir().expect("a directory");
        let network = Network::new();
        let zookeeper = Ensemble::start_via(home.path(), 3, |from, to, address| {
            network.open_between(Party::ZooKeeper(from), Party::ZooKeeper(to), address)
        });
        let masters = (0..MASTERS).map(|place| master(place, &home, &network, &zookeeper));
        let masters: Vec<Seat> = masters.collect();
        let workers = (0..WORKERS).map(|place| worker(place, &home, &network, &masters));
        let mut this = Self {
            workers: workers.collect(),
            masters,
            zookeeper,
            network,
            runtime: Runtime::new().expect("a runtime"),
            home,
            _turn: turn,
        };
        this.zookeeper.wait_for_quorum();
        for seat in this.masters.iter_mut().chain(&mut this.workers) {
            seat.start(&this.network);
        }
        this.wait_for_leader();
        this.wait_for_workers();
        this
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Where clients find the masters.
    pub(crate) fn addresses(&self) -> Vec<RpcAddress> {
        self.masters.iter().map(Seat::address).collect()
    }

    /// A client of all masters that gives up soon.
    #[track_caller]
    pub(crate) fn client(&self) -> MasterClient {
        // A machine that is busy may not connect it within its short timeouts.
        self.wait_until("a client is connected", || {
            self.runtime.block_on(connect(self.addresses())).ok()
        })
    }

    /// The master that says it is ready, if exactly one does.
    pub(crate) fn leader(&self) -> Option<usize> {
        let mut leaders = (0..MASTERS).filter(|place| self.leads(*place));
        let leader = leaders.next();
        leader.filter(|_| leaders.next().is_none())
    }

    /// Whether this master says that it is ready; none where it says nothing.
    fn readiness(&self, place: usize) -> Option<bool> {
        let seat = &self.masters[place];
        let rest = seat.rest.filter(|_| seat.is_running())?;
        let url = format!("http://{rest}/v1/submissions/readyz");
        let asked = async {
            let http = reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .timeout(Duration::from_secs(1))
                .build()?;
            http.get(url).send().await
        };
        let answer = self.runtime.block_on(asked).ok()?;
        Some(answer.status() == 200)
    }

    pub(crate) fn leads(&self, place: usize) -> bool {
        self.readiness(place) == Some(true)
    }

    /// Waits until this master answers and does not lead.
    #[track_caller]
    pub(crate) fn wait_for_standby(&self, place: usize) {
        self.wait_until("it stands by", || {
            (self.readiness(place) == Some(false)).then_some(())
        });
    }

    #[track_caller]
    pub(crate) fn wait_for_leader(&self) -> usize {
        self.wait_until("one master leads", || self.leader())
    }

    #[track_caller]
    pub(crate) fn wait_for_leader_besides(&self, before: usize) -> usize {
        self.wait_until("another master leads", || {
            self.leader().filter(|leader| *leader != before)
        })
    }

    #[track_caller]
    pub(crate) fn wait_for_workers(&self) {
        let client = self.client();
        self.wait_until("all workers are there", || {
            let workers = self.runtime.block_on(client.workers()).ok()?;
            let alive = workers
                .iter()
                .filter(|worker| worker.state == aloha_scheduler::master::WorkerState::Alive);
            (alive.count() == WORKERS).then_some(())
        });
    }

    /// Asks again and again.
    #[track_caller]
    pub(crate) fn wait_until<T>(&self, what: &str, mut answer: impl FnMut() -> Option<T>) -> T {
        let give_up_at = now() + PATIENCE;
        while now() < give_up_at {
            if let Some(found) = answer() {
                return found;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("not within {PATIENCE:?}: {what}\n{}", self.ends_of_logs());
    }

    /// Continues, starts and heals whatever does not run, and waits until a master leads.
    #[track_caller]
    pub(crate) fn heal(&mut self) {
        self.network.heal();
        for place in 0..self.zookeeper.size() {
            if self.zookeeper.pid(place).is_none() {
                self.zookeeper.restart(place);
            } else if !self.zookeeper.is_running(place) {
                self.zookeeper.resume(place);
            }
        }
        for seat in self.masters.iter_mut().chain(&mut self.workers) {
            if seat.process.is_none() {
                seat.start(&self.network);
            } else if seat.is_stopped {
                seat.resume();
            }
        }
        self.zookeeper.wait_for_quorum();
        self.wait_for_leader();
    }

    /// Asserts that no process has ended by itself.
    #[track_caller]
    pub(crate) fn assert_all_run(&mut self) {
        for seat in self.masters.iter_mut().chain(&mut self.workers) {
            if let Some(status) = seat.has_ended() {
                panic!("{} has ended: {status}\n{}", seat.name, seat.end_of_log(40));
            }
        }
    }

    pub(crate) fn ends_of_logs(&self) -> String {
        let seats = self.masters.iter().chain(&self.workers);
        let ends: Vec<String> = seats.map(|seat| seat.end_of_log(25)).collect();
        ends.join("\n")
    }

    /// All lines of masters and workers with this text.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        let seats = self.masters.iter().chain(&self.workers);
        let lines = seats.flat_map(|seat| {
            let log = fs::read_to_string(&seat.log).unwrap_or_default();
            let lines = log.lines().filter(|line| line.contains(text));
            lines
                .map(|line| format!("{}: {line}", seat.name))
                .collect::<Vec<_>>()
        });
        lines.collect()
    }
}

/// A client that hears soon of whoever is gone.
pub(crate) async fn connect(
    masters: Vec<RpcAddress>,
) -> Result<MasterClient, aloha_scheduler::ClientError> {
    let config = RpcConfig {
        ask_timeout: Duration::from_secs(5),
        lookup_timeout: Duration::from_secs(1),
        transport: TransportConfig {
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(1),
            reconnect_backoff_max: Duration::from_millis(200),
            ping_interval: Some(Duration::from_millis(500)),
            ping_timeout: Some(Duration::from_secs(1)),
            ..TransportConfig::default()
        },
        ..RpcConfig::default()
    };
    let env = RpcEnv::builder("failover-test").config(config).start();
    let env = env.await.expect("a client needs no port");
    let client = MasterClient::connect(&env, &masters).await?;
    Ok(client.with_patience(Duration::from_secs(10)))
}

/// What masters and workers have in common.
fn fixed(role: &str, port: u16, host: Ipv4Addr) -> Vec<String> {
    let mut arguments: Vec<String> = [role, "-h", "127.0.0.1", "-p"].map(Into::into).into();
    arguments.push(port.to_string());
    for setting in [
        format!("aloha.rpc.advertisedHost={host}"),
        "aloha.rpc.connectTimeout=1s".into(),
        "aloha.rpc.handshakeTimeout=1s".into(),
        "aloha.rpc.lookupTimeout=1s".into(),
        "aloha.rpc.reconnect.backoffMax=200ms".into(),
        "aloha.rpc.pingInterval=500ms".into(),
        "aloha.rpc.pingTimeout=1s".into(),
    ] {
        arguments.extend(["-D".into(), setting]);
    }
    arguments
}

fn master(place: usize, home: &TempDir, network: &Network, zookeeper: &Ensemble) -> Seat {
    let party = Party::Master(place);
    let (port, rest) = (free_port(), free_port());
    let host = Ipv4Addr::new(127, 0, 1, u8::try_from(place + 1).expect("small"));
    network.open(
        (host, port).into(),
        party,
        (Ipv4Addr::LOCALHOST, port).into(),
    );
    // A standby sends clients of REST to the host that the leader advertises.
    network.open(
        (host, rest).into(),
        party,
        (Ipv4Addr::LOCALHOST, rest).into(),
    );
    let servers = (0..zookeeper.size()).map(|server| {
        let address = zookeeper.client_address(server);
        let gate = network.open_between(party, Party::ZooKeeper(server), address);
        gate.to_string()
    });
    let servers: Vec<String> = servers.collect();
    let mut arguments = fixed("master", port, host);
    arguments.extend(["--rest-port".into(), rest.to_string()]);
    for setting in [
        "aloha.deploy.recoveryMode=ZOOKEEPER".into(),
        format!("aloha.deploy.zookeeper.url={}", servers.join(",")),
        format!(
            "aloha.deploy.zookeeper.sessionTimeout={}",
            SESSION_TIMEOUT.as_secs()
        ),
        format!("aloha.worker.timeout={}", WORKER_TIMEOUT.as_secs()),
        "aloha.deploy.retainedApplications=100000".into(),
    ] {
        arguments.extend(["-D".into(), setting]);
    }
    let rest = (Ipv4Addr::LOCALHOST, rest).into();
    Seat::new(
        party,
        home.path(),
        arguments,
        (host, port).into(),
        Some(rest),
    )
}

fn worker(place: usize, home: &TempDir, network: &Network, masters: &[Seat]) -> Seat {
    let party = Party::Worker(place);
    let port = free_port();
    let host = Ipv4Addr::new(127, 0, 2, u8::try_from(place + 1).expect("small"));
    network.open(
        (host, port).into(),
        party,
        (Ipv4Addr::LOCALHOST, port).into(),
    );
    let mut arguments = fixed("worker", port, host);
    let directory = home.path().join(format!("work-{place}"));
    arguments.extend(["-c", "8", "-m", "8G", "--stop-applications", "-d"].map(Into::into));
    arguments.push(directory.display().to_string());
    for setting in [
        "aloha.worker.register.backoff.initial=50ms",
        "aloha.worker.register.backoff.max=500ms",
        "aloha.worker.killGrace=1",
        // What a test that failed leaves behind ends soon.
        "aloha.worker.runner.timeout=60",
    ] {
        arguments.extend(["-D".into(), setting.into()]);
    }
    let masters: Vec<String> = masters
        .iter()
        .map(|seat| seat.address().to_string())
        .collect();
    arguments.push(format!("aloha://{}", masters.join(",")));
    Seat::new(party, home.path(), arguments, (host, port).into(), None)
}

/// A master or worker that comes back at its address.
pub(crate) struct Seat {
    pub(crate) name: String,
    party: Party,
    arguments: Vec<String>,
    address: SocketAddr,
    pub(crate) rest: Option<SocketAddr>,
    log: PathBuf,
    process: Option<Child>,
    is_stopped: bool,
}

impl Seat {
    fn new(
        party: Party,
        home: &Path,
        arguments: Vec<String>,
        address: SocketAddr,
        rest: Option<SocketAddr>,
    ) -> Self {
        let name = match party {
            Party::Master(place) => format!("master {place}"),
            Party::Worker(place) => format!("worker {place}"),
            other => unreachable!("{other:?} is none of ours"),
        };
        Self {
            log: home.join(format!("{}.log", name.replace(' ', "-"))),
            name,
            party,
            arguments,
            address,
            rest,
            process: None,
            is_stopped: false,
        }
    }

    pub(crate) fn address(&self) -> RpcAddress {
        self.address.to_string().parse().expect("host and port")
    }

    /// Starts it and waits for its `ready` line.
    #[track_caller]
    pub(crate) fn start(&mut self, network: &Network) {
        let log = File::options().create(true).append(true).open(&self.log);
        let mut process = common::command()
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.expect("a log"))
            .spawn()
            .expect("the binary is built");
        network.note(process.id(), self.party);
        let mut out = BufReader::new(process.stdout.take().expect("piped"));
        self.process = Some(process);
        self.is_stopped = false;
        let mut ready = String::new();
        out.read_line(&mut ready).expect("a line on stdout");
        assert!(ready.starts_with("ready "), "{}", self.end_of_log(20));
        // The rest is read, lest the pipe fills.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
    }

    /// Whether it is neither ended nor stopped by a signal.
    pub(crate) fn is_running(&self) -> bool {
        self.process.is_some() && !self.is_stopped
    }

    fn has_ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.try_wait().expect("it is our child")
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it was started");
        kill_process(Pid::from_child(process), signal).expect("it is our child and not reaped");
    }

    /// As `kill -9` does.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.reap();
    }

    /// SIGTERM, without waiting.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub(crate) fn reap(&mut self) -> Option<ExitStatus> {
        let mut process = self.process.take()?;
        self.is_stopped = false;
        process.wait().ok()
    }

    /// SIGSTOP.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::STOP);
        self.is_stopped = true;
    }

    /// SIGCONT.
    pub(crate) fn resume(&mut self) {
        self.signal(Signal::CONT);
        self.is_stopped = false;
    }

    pub(crate) fn end_of_log(&self, count: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let mut lines: Vec<&str> = text.lines().rev().take(count).collect();
        lines.reverse();
        format!("--- {}\n{}", self.name, lines.join("\n"))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.process.is_some() {
            // A worker ends its applications; whoever does not heed it within a while is killed.
            self.signal(Signal::CONT);
            self.signal(Signal::TERM);
            let give_up_at = now() + Duration::from_secs(10);
            while now() < give_up_at && self.has_ended().is_none() {
                std::thread::sleep(PAUSE);
            }
            let _ = self.process.as_mut().map(Child::kill);
            self.reap();
        }
    }
}
