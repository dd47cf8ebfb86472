//! Real ZooKeeper servers, alone or three together, as processes that end with the test.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::ports::free_port;

const JAR: &str = "/usr/share/java/zookeeper.jar";
const MAIN: &str = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
const MISSING: &str = "ZooKeeper is missing: apt-get install zookeeper default-jre-headless";

/// A session ends after two of these at the earliest.
pub const TICK: Duration = Duration::from_millis(500);
/// How many ticks the servers wait for one another before they give each other up.
const SYNC_TICKS: u32 = 4;
/// Far above what a start or an election takes, also where six of them run on one core.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a server may take for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// How often other ports are tried where one was taken meanwhile.
const STARTS: u32 = 5;

#[expect(
    clippy::disallowed_methods,
    reason = "a test that fails shall not wait for ever"
)]
fn now() -> Instant {
    Instant::now()
}

/// Whether servers can be started here.
pub fn is_installed() -> bool {
    let java = Command::new("java")
        .arg("-version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    Path::new(JAR).exists() && java.is_ok_and(|status| status.success())
}

/// What a server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Standalone,
    Leader,
    Follower,
}

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
struct Ports {
    client: SocketAddr,
    quorum: SocketAddr,
    election: SocketAddr,
}

impl Ports {
    fn free() -> Self {
        let [client, quorum, election] =
            [(); 3].map(|()| SocketAddr::from((Ipv4Addr::LOCALHOST, free_port())));
        Self {
            client,
            quorum,
            election,
        }
    }
}

/// Some servers that know one another; all end when this is dropped, also by a panic.
pub struct Ensemble {
    servers: Vec<Server>,
}

/// One server and the directory that it comes back on.
struct Server {
    home: PathBuf,
    ports: Ports,
    process: Option<Child>,
    is_stopped: bool,
}

impl Ensemble {
    /// Starts so many servers with directories of their own in this one, and waits until they serve.
    pub fn start(directory: &Path, size: usize) -> Self {
        Self::start_via(directory, size, |_, _, address| address)
    }

    /// The same, where one server reaches another's quorum and election ports at the addresses that `via` gives for the one,
    /// the other and the real address. It is asked again where a port was taken.
    pub fn start_via(
        directory: &Path,
        size: usize,
        mut via: impl FnMut(usize, usize, SocketAddr) -> SocketAddr,
    ) -> Self {
        assert!(is_installed(), "{MISSING}");
        for attempt in 0..STARTS {
            let directory = directory.join(format!("zookeeper-{attempt}"));
            let mut this = Self::laid_out(&directory, size, &mut via);
            for server in &mut this.servers {
                server.start();
            }
            if this.comes_up() {
                return this;
            }
        }
        panic!("no ZooKeeper came up in {STARTS} attempts");
    }

    fn laid_out(
        directory: &Path,
        size: usize,
        via: &mut impl FnMut(usize, usize, SocketAddr) -> SocketAddr,
    ) -> Self {
        let ports: Vec<Ports> = (0..size).map(|_| Ports::free()).collect();
        let servers = ports.iter().enumerate().map(|(place, own)| {
            let peers: Vec<_> = ports
                .iter()
                .enumerate()
                .map(|(peer, ports)| match peer == place {
                    true => (own.quorum, own.election),
                    false => (
                        via(place, peer, ports.quorum),
                        via(place, peer, ports.election),
                    ),
                })
                .collect();
            Server::new(directory.join((place + 1).to_string()), place, *own, &peers)
        });
        Self {
            servers: servers.collect(),
        }
    }

    /// Waits until all serve; false where one of them ended.
    fn comes_up(&mut self) -> bool {
        let give_up_at = now() + PATIENCE;
        while now() < give_up_at {
            if self.servers.iter_mut().any(Server::has_ended) {
                return false;
            }
            if (0..self.servers.len()).all(|place| self.mode(place).is_some()) {
                return true;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("ZooKeeper did not come up: {:#?}", self.logs());
    }

    pub fn size(&self) -> usize {
        self.servers.len()
    }

    /// `host:port` of a server for its clients.
    pub fn client_address(&self, place: usize) -> SocketAddr {
        self.servers[place].ports.client
    }

    /// All servers as clients are told of them: `host:port,host:port,…`.
    pub fn url(&self) -> String {
        let addresses = self.servers.iter().map(|server| server.ports.client);
        let addresses: Vec<String> = addresses.map(|address| address.to_string()).collect();
        addresses.join(",")
    }

    /// What a server is now; none while it does not serve.
    pub fn mode(&self, place: usize) -> Option<Mode> {
        let said = self.ask(place, "srvr").ok()?;
        let mode = said.lines().find_map(|line| line.strip_prefix("Mode: "))?;
        match mode {
            "standalone" => Some(Mode::Standalone),
            "leader" => Some(Mode::Leader),
            "follower" => Some(Mode::Follower),
            _ => None,
        }
    }

    /// Who leads now: none where nobody does, or where one that was paused believes that it still does.
    pub fn leader(&self) -> Option<usize> {
        let leads = |place: &usize| {
            let mode = self.is_running(*place).then(|| self.mode(*place));
            matches!(mode, Some(Some(Mode::Leader | Mode::Standalone)))
        };
        let mut leaders = (0..self.size()).filter(leads);
        let leader = leaders.next();
        leader.filter(|_| leaders.next().is_none())
    }

    /// Waits until one leads and all that run serve.
    #[track_caller]
    pub fn wait_for_quorum(&self) -> usize {
        let give_up_at = now() + PATIENCE;
        while now() < give_up_at {
            let mut running = (0..self.size()).filter(|place| self.is_running(*place));
            let serve = running.all(|place| self.mode(place).is_some());
            if let Some(leader) = self.leader().filter(|_| serve) {
                return leader;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("ZooKeeper has no quorum: {:#?}", self.logs());
    }

    /// Waits until another than this one leads, and this one says so no more.
    #[track_caller]
    pub fn wait_for_leader_besides(&self, before: usize) -> usize {
        let give_up_at = now() + PATIENCE;
        while now() < give_up_at {
            if let Some(leader) = self.leader().filter(|leader| *leader != before) {
                return leader;
            }
            std::thread::sleep(PAUSE);
        }
        panic!("no other ZooKeeper leads: {:#?}", self.logs());
    }

    /// What a server answers to one of its words of four letters.
    pub fn ask(&self, place: usize, word: &str) -> io::Result<String> {
        let address = self.servers[place].ports.client;
        let mut connection = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        connection.set_read_timeout(Some(ANSWER_TIMEOUT))?;
        connection.write_all(word.as_bytes())?;
        let mut answer = String::new();
        match connection.read_to_string(&mut answer) {
            // It closes before it has read all.
            Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
            _ => Ok(answer),
        }
    }

    pub fn pid(&self, place: usize) -> Option<Pid> {
        self.servers[place].process.as_ref().map(Pid::from_child)
    }

    /// Whether a server is neither killed nor stopped by a signal.
    pub fn is_running(&self, place: usize) -> bool {
        let server = &self.servers[place];
        server.process.is_some() && !server.is_stopped
    }

    /// As `kill -9` does.
    pub fn kill(&mut self, place: usize) {
        self.servers[place].kill();
    }

    /// SIGSTOP.
    pub fn stop(&mut self, place: usize) {
        self.servers[place].signal(Signal::STOP);
        self.servers[place].is_stopped = true;
    }

    /// SIGCONT.
    pub fn resume(&mut self, place: usize) {
        self.servers[place].signal(Signal::CONT);
        self.servers[place].is_stopped = false;
    }

    /// Starts a killed server on its directory; whoever needs it waits for the quorum.
    pub fn restart(&mut self, place: usize) {
        let server = &mut self.servers[place];
        assert!(server.process.is_none(), "server {place} was not killed");
        server.start();
    }

    /// The end of each server's log.
    pub fn logs(&self) -> Vec<String> {
        let logs = self.servers.iter().map(|server| {
            let text = fs::read_to_string(server.home.join("log.txt")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(30).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        });
        logs.collect()
    }
}

impl Server {
    fn new(home: PathBuf, place: usize, ports: Ports, peers: &[(SocketAddr, SocketAddr)]) -> Self {
        fs::create_dir_all(home.join("data")).expect("a directory");
        let mut config = format!(
            "tickTime={}\ninitLimit=20\nsyncLimit={SYNC_TICKS}\ndataDir={home}/data\ndataLogDir={home}/log\n\
             clientPortAddress={}\nclientPort={}\nmaxClientCnxns=0\nadmin.enableServer=false\n4lw.commands.whitelist=*\n",
            TICK.as_millis(),
            ports.client.ip(),
            ports.client.port(),
            home = home.display(),
        );
        if peers.len() > 1 {
            config.push_str("standaloneEnabled=false\n");
            for (peer, (quorum, election)) in peers.iter().enumerate() {
                let line = format!("server.{}={quorum}:{}\n", peer + 1, election.port());
                config.push_str(&line);
            }
            fs::write(home.join("data/myid"), format!("{}\n", place + 1)).expect("written");
        }
        fs::write(home.join("zoo.cfg"), config).expect("written");
        Self {
            home,
            ports,
            process: None,
            is_stopped: false,
        }
    }

    fn start(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.join("log.txt"))
            .expect("a log");
        let process = Command::new("java")
            .args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .arg("-Dzookeeper.jmx.log4j.disable=true")
            .args(["-cp", JAR, MAIN])
            .arg(self.home.join("zoo.cfg"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn()
            .expect(MISSING);
        self.process = Some(process);
        self.is_stopped = false;
    }

    fn has_ended(&mut self) -> bool {
        let ended = self.process.as_mut().map(Child::try_wait);
        !matches!(ended, Some(Ok(None)))
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it was started");
        kill_process(Pid::from_child(process), signal).expect("it is our child and not reaped");
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            drop(process.wait());
        }
        self.is_stopped = false;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
