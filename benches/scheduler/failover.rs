//! How soon another master takes submissions after the one that leads was killed or asked to end, and how fast they are
//! stored on ZooKeeper.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::{AppDescription, MasterClient};

use crate::ports::free_port;
use crate::submissions::{Master, report, submit_all};
use crate::zookeeper::{self, Ensemble, TICK};
use crate::{millis, now, quantile};

const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// What a killed master may cost beyond its session: ZooKeeper looks at sessions once a tick.
const LIMIT: Duration = Duration::from_millis(2000 + 750 + 300);
/// What one that is asked to end may cost.
const GAP_MAX: Duration = Duration::from_secs(1);
/// Between two questions whether a master is ready.
const PAUSE: Duration = Duration::from_millis(10);
/// What a standby has to read what is stored before the leader ends.
const WARM_UP: Duration = Duration::from_secs(2);

pub(crate) fn run(
    aloha: &Path,
    work: &Path,
    rounds: u32,
    waiting: u32,
) -> Result<(), Box<dyn Error>> {
    if !zookeeper::is_installed() {
        println!("failover is skipped: apt-get install zookeeper default-jre-headless");
        return Ok(());
    }
    assert_eq!(
        LIMIT,
        SESSION_TIMEOUT + TICK * 3 / 2 + Duration::from_millis(300)
    );
    std::fs::create_dir_all(work)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(aloha, work, rounds, waiting))
}

async fn measure(
    aloha: &Path,
    work: &Path,
    rounds: u32,
    waiting: u32,
) -> Result<(), Box<dyn Error>> {
    let ensemble = Ensemble::start(work, 3);
    ensemble.wait_for_quorum();
    stored(aloha, work, &ensemble, waiting / 5).await?;
    let mut pair = Pair::start(aloha, &ensemble, "/bench")?;
    pair.hand_over(rounds).await?;
    pair.fail_over(rounds, "nothing waits").await?;
    let leader = pair.leader()?;
    let master = pair.masters[leader].as_ref().ok_or("it runs")?;
    submit_all(master, waiting).await?;
    pair.fail_over(rounds, &format!("{waiting} applications wait"))
        .await
}

/// Durable submissions a second, on ZooKeeper and in a file.
async fn stored(
    aloha: &Path,
    work: &Path,
    ensemble: &Ensemble,
    count: u32,
) -> Result<(), Box<dyn Error>> {
    let file = Master::start(aloha, Some(&work.join("recovery")))?;
    report("durable in a file", &submit_all(&file, count).await?);
    drop(file);
    let alone = Seat::new(aloha, ensemble, "/stored");
    let master = alone.start()?;
    until(|| alone.is_ready())?;
    let figures = submit_all(&master, count).await?;
    report("durable on three ZooKeeper servers", &figures);
    Ok(())
}

/// A place for a master: it comes back at its address.
struct Seat {
    aloha: PathBuf,
    port: u16,
    rest: u16,
    settings: Vec<String>,
}

impl Seat {
    fn new(aloha: &Path, ensemble: &Ensemble, directory: &str) -> Self {
        Self {
            aloha: aloha.to_owned(),
            port: free_port(),
            rest: free_port(),
            settings: vec![
                "aloha.deploy.recoveryMode=ZOOKEEPER".into(),
                format!("aloha.deploy.zookeeper.url={}", ensemble.url()),
                format!("aloha.deploy.zookeeper.dir={directory}"),
                format!(
                    "aloha.deploy.zookeeper.sessionTimeout={}",
                    SESSION_TIMEOUT.as_secs()
                ),
            ],
        }
    }

    fn start(&self) -> Result<Master, Box<dyn Error>> {
        Master::start_at(&self.aloha, self.port, self.rest, &self.settings)
    }

    fn address(&self) -> Result<RpcAddress, Box<dyn Error>> {
        Ok(format!("127.0.0.1:{}", self.port).parse()?)
    }

    /// Whether it says that it leads.
    fn is_ready(&self) -> bool {
        self.readiness().is_some_and(|code| code == "200")
    }

    fn is_standby(&self) -> bool {
        self.readiness().is_some_and(|code| code != "200")
    }

    /// The status of its answer, if there is one.
    fn readiness(&self) -> Option<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.rest));
        let mut connection = TcpStream::connect_timeout(&address, GAP_MAX).ok()?;
        connection.set_read_timeout(Some(GAP_MAX)).ok()?;
        let request =
            "GET /v1/submissions/readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).ok()?;
        answer.split_whitespace().nth(1).map(str::to_owned)
    }
}

/// Two masters of one cluster.
struct Pair {
    seats: [Seat; 2],
    masters: [Option<Master>; 2],
}

impl Pair {
    fn start(aloha: &Path, ensemble: &Ensemble, directory: &str) -> Result<Self, Box<dyn Error>> {
        let seats = [(); 2].map(|()| Seat::new(aloha, ensemble, directory));
        let masters = [Some(seats[0].start()?), Some(seats[1].start()?)];
        Ok(Self { seats, masters })
    }

    /// Waits until one leads and the other stands by; gives the one that leads.
    fn leader(&self) -> Result<usize, Box<dyn Error>> {
        let mut leader = None;
        until(|| {
            leader = (0..2)
                .find(|place| self.seats[*place].is_ready() && self.seats[1 - place].is_standby());
            leader.is_some()
        })?;
        leader.ok_or_else(|| "nobody leads".into())
    }

    async fn client(&self) -> Result<(RpcEnv, MasterClient), Box<dyn Error>> {
        let env = RpcEnv::client("bench").await?;
        let masters = [self.seats[0].address()?, self.seats[1].address()?];
        let client = MasterClient::connect(&env, &masters).await?;
        Ok((env, client))
    }

    async fn fail_over(&mut self, rounds: u32, how: &str) -> Result<(), Box<dyn Error>> {
        let mut times = Vec::new();
        for round in 0..rounds {
            let leader = self.leader()?;
            tokio::time::sleep(WARM_UP).await;
            let (env, client) = self.client().await?;
            // It knows who leads, as clients at work do.
            accept(&client, &format!("before-{how}-{round}")).await;
            let killed = now();
            drop(self.masters[leader].take());
            accept(&client, &format!("after-{how}-{round}")).await;
            times.push(killed.elapsed());
            env.shutdown().await;
            self.masters[leader] = Some(self.seats[leader].start()?);
        }
        let worst = quantile(&mut times, 1.0);
        println!(
            "kill -9 of the leader to the next submission accepted, {how}, {rounds} times: median {:.0} ms, worst {:.0} (limit: \
             session of {:.0}, 1.5 ticks and 300, {:.0}: {})",
            millis(quantile(&mut times, 0.5)),
            millis(worst),
            millis(SESSION_TIMEOUT),
            millis(LIMIT),
            kept(worst <= LIMIT)
        );
        Ok(())
    }

    async fn hand_over(&mut self, rounds: u32) -> Result<(), Box<dyn Error>> {
        let mut gaps = Vec::new();
        for round in 0..rounds {
            let leader = self.leader()?;
            tokio::time::sleep(WARM_UP).await;
            let (env, client) = self.client().await?;
            let mut last = now();
            let mut gap = Duration::ZERO;
            let mut ended = None;
            for number in 0.. {
                if number == 50 {
                    let master = self.masters[leader].as_ref();
                    master.ok_or("it runs")?.terminate()?;
                    ended = Some(now());
                }
                accept(&client, &format!("hand-over-{round}-{number}")).await;
                gap = gap.max(last.elapsed());
                last = now();
                if ended.is_some_and(|ended| ended.elapsed() > GAP_MAX + GAP_MAX / 2) {
                    break;
                }
            }
            gaps.push(gap);
            env.shutdown().await;
            drop(self.masters[leader].take());
            self.masters[leader] = Some(self.seats[leader].start()?);
        }
        let worst = quantile(&mut gaps, 1.0);
        println!(
            "longest gap between two accepted submissions while the leader hands over, {rounds} times: median {:.0} ms, worst {:.0} \
             (limit: {:.0}: {})",
            millis(quantile(&mut gaps, 0.5)),
            millis(worst),
            millis(GAP_MAX),
            kept(worst <= GAP_MAX)
        );
        Ok(())
    }
}

fn kept(is_kept: bool) -> &'static str {
    if is_kept { "kept" } else { "MISSED" }
}

/// Submits again and again until somebody accepts it.
async fn accept(client: &MasterClient, key: &str) {
    let key = key.replace(' ', "-");
    let description = AppDescription {
        name: "waits".to_owned(),
        entry_point: "SimpleProcess".to_owned(),
        args: vec!["echo there is no worker".to_owned()],
        cores: 1,
        memory_mib: 64,
        ..AppDescription::default()
    };
    loop {
        let answer = client.submit_once(description.clone(), &key).await;
        if answer.is_ok_and(|answer| answer.accepted().is_ok()) {
            return;
        }
    }
}

fn until(mut is_so: impl FnMut() -> bool) -> Result<(), Box<dyn Error>> {
    let started = now();
    while !is_so() {
        if started.elapsed() > Duration::from_secs(60) {
            return Err("no master leads".into());
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
