//! `aloha master`, `worker` and `local`: start, say `ready`, serve until a signal.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aloha_rpc::{BindError, RpcConfig, RpcEnv, StartError, TransportConfig};
use aloha_scheduler::config::{self as settings, Config, RestSettings};
use aloha_scheduler::rest::{RestGuard, RestLimits, RestServer, RestToken};
use aloha_scheduler::runner::{CgroupSupport, RunnerSettings};
use aloha_scheduler::worker::{Backoff, ExitReason, RunnerLauncher, clean_regularly};
use aloha_scheduler::{
    Listeners, Master, MasterHandle, MasterRole, MasterSettings, RecoveryKind, RecoveryModes,
    Resources, Worker, WorkerHandle, WorkerSettings, with_causes,
};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::announce::announce;
use crate::args::{LocalArgs, MasterArgs, WorkerArgs};
use crate::reach::{is_nowhere, warn_if_nowhere};
use crate::work_directory::WorkDirectory;
use crate::{Failure, config, descriptors, machine, print};

/// How long applications of a cluster in one process outlive it where it was killed.
const LOCAL_RUNNER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a master that stops waits for those who listen to it.
const LISTENERS_TIMEOUT: Duration = Duration::from_secs(5);
/// What a shell says of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Runs a master until a signal; applications run on.
pub(crate) fn master(args: &MasterArgs) -> Result<u8, Failure> {
    let config = config::of_master(args)?;
    run(async |stop: Stop| {
        // Commands that listen to events are its only children.
        if config.listeners().command.is_none() {
            descriptors::raise();
        }
        let served = serve_master(&config).await?;
        if config.master().recovery.kind == RecoveryKind::ZooKeeper {
            warn_if_nowhere(&served.env);
        }
        print(format_args!(
            "ready master {}{}",
            served.url(),
            served.rest_suffix()
        ));
        let failed = tokio::select! {
            biased;
            () = stop.asked() => None,
            reason = served.failed() => Some(reason),
        };
        // While it still answers, so that clients are told to go elsewhere.
        served.master.hand_over().await;
        served.shutdown().await;
        match failed {
            None => Ok(0),
            Some(reason) => Err(Failure::new(format_args!(
                "this master cannot lead: {reason}"
            ))),
        }
    })
}

/// Runs a worker until a signal; applications run on unless they are to be ended.
pub(crate) fn worker(args: &WorkerArgs) -> Result<u8, Failure> {
    let config = config::of_worker(args)?;
    let masters = args.masters.host_ports().to_vec();
    run(async |stop: Stop| {
        let directory = WorkDirectory::take(&config.worker().directory)?;
        let launcher = launcher(&config, config.worker().runner_timeout).await?;
        let mut served = serve_worker(&config, masters, &directory, 0, launcher).await?;
        warn_if_nowhere(&served.env);
        keep_clean(&config, &served.env, &directory);
        print(format_args!("ready worker {}", url(&served.env)));
        let reason = tokio::select! {
            biased;
            reason = served.worker.ended() => reason,
            () = stop.asked() => served.stop(args.stop_applications).await,
        };
        served.env.shutdown().await;
        match reason {
            ExitReason::Stopped | ExitReason::Drained => Ok(0),
            ExitReason::GaveUpWaiting => Err(Failure::new("some applications did not end in time")),
            ExitReason::Refused(reason) => Err(Failure::new(format_args!(
                "the master refused this worker: {reason}"
            ))),
        }
    })
}

/// Runs a whole cluster in this process until a signal, then ends its applications.
pub(crate) fn local(args: &LocalArgs) -> Result<u8, Failure> {
    let config = config::of_local(args)?;
    run(async |stop: Stop| {
        let directory = WorkDirectory::take(&config.worker().directory)?;
        let master = serve_master(&config).await?;
        let masters = vec![master.env.address().expect("a master listens").to_string()];
        let mut workers = Vec::new();
        // Nobody comes back for what a cluster like this one leaves behind.
        let patience = config.worker().runner_timeout.min(LOCAL_RUNNER_TIMEOUT);
        let launcher = launcher(&config, patience).await?;
        for place in 0..args.workers {
            let launcher = Arc::clone(&launcher);
            let masters = masters.clone();
            workers.push(serve_worker(&config, masters, &directory, place, launcher).await?);
        }
        if let Some(worker) = workers.first() {
            keep_clean(&config, &worker.env, &directory);
        }
        print(format_args!(
            "ready local {}{}",
            master.url(),
            master.rest_suffix()
        ));
        introduce(&master, &workers, &directory);
        stop.asked().await;
        for worker in &workers {
            worker.worker.stop(true);
        }
        for worker in &mut workers {
            worker.worker.ended().await;
            worker.env.shutdown().await;
        }
        master.shutdown().await;
        Ok(0)
    })
}

fn introduce(master: &ServedMaster, workers: &[ServedWorker], directory: &WorkDirectory) {
    for worker in workers {
        print(format_args!("worker {}", url(&worker.env)));
    }
    print(format_args!(
        "applications run in {}",
        directory.path().display()
    ));
    if let Some(rest) = &master.rest {
        print("try, from another terminal:");
        print(format_args!(
            "  curl -X POST -d '{{\"action\":\"CreateSubmissionRequest\",\"name\":\"test\",\"entryPoint\":\"SimpleProcess\",\"libs\":[],\
             \"args\":\"i=0; while [ $i -le 10 ]; do echo $i; ((i++)); sleep 1; done\",\"cores\":1,\"memory\":256}}' \
             http://{}/v1/submissions/create",
            rest.address
        ));
    }
}

/// Runs a server to its end; the second signal ends it at once.
fn run(serve: impl AsyncFnOnce(Stop) -> Result<u8, Failure>) -> Result<u8, Failure> {
    crate::log_to_stderr();
    let runtime = crate::runtime()?;
    let result = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let stop = Stop(CancellationToken::new());
        let mut serving = std::pin::pin!(serve(stop.clone()));
        tokio::select! {
            biased;
            result = &mut serving => return result,
            () = signals.next() => info!("stopping"),
        }
        stop.0.cancel();
        tokio::select! {
            biased;
            result = serving => result,
            () = signals.next() => {
                warn!("ended at once");
                Ok(INTERRUPTED)
            }
        }
    });
    runtime.shutdown_background();
    result
}

/// Says when a server is to stop.
#[derive(Debug, Clone)]
struct Stop(CancellationToken);

impl Stop {
    async fn asked(&self) {
        self.0.cancelled().await;
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind)
                .map_err(|error| Failure::new(format_args!("cannot listen to signals: {error}")))
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

struct ServedMaster {
    env: RpcEnv,
    master: MasterHandle,
    rest: Option<ServedRest>,
}

struct ServedRest {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl ServedMaster {
    fn url(&self) -> String {
        url(&self.env)
    }

    fn rest_suffix(&self) -> String {
        let rest = self.rest.as_ref();
        rest.map(|rest| format!(" rest=http://{}", rest.address))
            .unwrap_or_default()
    }

    /// Waits until it is clear that this master never leads, and gives the reason.
    async fn failed(&self) -> String {
        let mut role = self.master.role();
        let failed = role.wait_for(|role| matches!(role, MasterRole::Failed { .. }));
        match failed.await.as_deref() {
            Ok(MasterRole::Failed { reason }) => reason.clone(),
            // It has ended without.
            _ => std::future::pending().await,
        }
    }

    async fn shutdown(self) {
        // First, for what is asked there is answered by the master.
        if let Some(rest) = self.rest {
            rest.stop.cancel();
            if let Err(error) = rest.serving.await {
                warn!(%error, "REST ended");
            }
        }
        self.env.shutdown().await;
        let told = self.master.event_bus().drained();
        if tokio::time::timeout(LISTENERS_TIMEOUT, told).await.is_err() {
            warn!("some listeners do not hear the last events");
        }
    }
}

fn url(env: &RpcEnv) -> String {
    env.address()
        .map(aloha_rpc::RpcAddress::to_url)
        .unwrap_or_default()
}

async fn serve_master(config: &Config) -> Result<ServedMaster, Failure> {
    let master = config.master();
    // Before any port is open: a configuration that is refused must not serve for a moment.
    let rest = config.rest();
    let guard = if rest.enabled {
        Some(guard(&rest)?)
    } else {
        None
    };
    let events = Listeners::new().start(&config.listeners());
    let events = events.map_err(|error| Failure::new(with_causes(&error)))?;
    // Likewise: a master that is kept out of its store has nothing to say.
    let recovery_mode = RecoveryModes::new().build(&master.recovery);
    let recovery_mode = recovery_mode.map_err(|error| Failure::new(with_causes(&error)))?;
    let env = listen(
        "master",
        &master.host,
        master.port,
        master.port_retries,
        config,
    )
    .await?;
    let settings = MasterSettings {
        worker_timeout: master.worker_timeout,
        retained_apps: master.retained_applications,
        dead_worker_persistence: master.dead_worker_persistence,
        spread_out: master.spread_out,
        tag_limits: master.tag_limits,
        key_ttl: master.key_ttl,
        keys_max: master.keys_max,
        ..Master::default_settings(&env)
    };
    // Before it stands for election: who leads is known by its addresses.
    let listening = match guard {
        Some(guard) => Some((listen_for_submissions(&rest).await?, guard)),
        None => None,
    };
    let rest_url = listening
        .as_ref()
        .and_then(|((_, address), _)| rest_url(&env, *address));
    let handle = Master::builder(&env)
        .settings(settings)
        .recovery_mode(recovery_mode)
        .rest_url(rest_url)
        .slow_store_after(master.slow_store_after)
        .events(events)
        .start()
        .map_err(Failure::new)?;
    let rest =
        listening.map(|(listening, guard)| serve_submissions(&rest, listening, guard, &handle));
    tokio::spawn(announce(
        handle.clone(),
        env.address().map(ToString::to_string),
    ));
    Ok(ServedMaster {
        env,
        master: handle,
        rest,
    })
}

fn guard(rest: &RestSettings) -> Result<RestGuard, Failure> {
    let token = rest
        .token_file
        .as_deref()
        .map(RestToken::read)
        .transpose()
        .map_err(Failure::new)?;
    RestGuard::new(&rest.host, &rest.allowed_hosts, token, rest.insecure).map_err(Failure::new)
}

/// Takes the port of the REST server, of which clients hear nothing yet.
async fn listen_for_submissions(rest: &RestSettings) -> Result<(TcpListener, SocketAddr), Failure> {
    let bind = async |port| TcpListener::bind((rest.host.as_str(), port)).await;
    let taken = |error: &io::Error| error.kind() == io::ErrorKind::AddrInUse;
    let listener = first_free(rest.port, rest.port_retries, bind, taken)
        .await
        .map_err(|error| {
            let hint = "set another with --rest-port, or 0 for any free one";
            Failure::new(format_args!(
                "cannot listen on REST port {}: {error}; {hint}",
                rest.port
            ))
        })?;
    let address = listener.local_addr().map_err(Failure::new)?;
    Ok((listener, address))
}

/// Where others find the REST server: at the host of this master, as they know it. One that listens everywhere does not
/// know where that is.
fn rest_url(env: &RpcEnv, address: SocketAddr) -> Option<String> {
    let host = env.address()?.host();
    if is_nowhere(host) {
        info!(
            host,
            "standbys cannot send REST clients here: this master listens everywhere"
        );
        return None;
    }
    Some(format!("http://{}:{}", bracketed(host), address.port()))
}

fn serve_submissions(
    rest: &RestSettings,
    (listener, address): (TcpListener, SocketAddr),
    guard: RestGuard,
    master: &MasterHandle,
) -> ServedRest {
    let stop = CancellationToken::new();
    let limits = RestLimits {
        connections_max: descriptors::rest_connections(rest.limits.connections_max),
        ..rest.limits
    };
    let server = RestServer::new(Arc::new(master.client().clone()), guard, limits);
    let serving = tokio::spawn(server.serve(listener, stop.clone()));
    ServedRest {
        address,
        stop,
        serving,
    }
}

struct ServedWorker {
    env: RpcEnv,
    worker: WorkerHandle,
}

impl ServedWorker {
    async fn stop(&mut self, stop_apps: bool) -> ExitReason {
        self.worker.stop(stop_apps);
        self.worker.ended().await
    }
}

/// What starts applications, under runners that wait so long for a worker that is away.
async fn launcher(
    config: &Config,
    worker_timeout: Duration,
) -> Result<Arc<RunnerLauncher>, Failure> {
    let settings = RunnerSettings {
        kill_grace: config.worker().kill_grace,
        worker_timeout,
        worker_lost_grace_max: None,
        configuration: config.in_force(),
        enforcement: config.worker().enforcement,
        logs: config.worker().logs,
    };
    let launcher = RunnerLauncher::new(settings).await.map_err(Failure::new)?;
    Ok(Arc::new(launcher))
}

/// Has the work directory cleaned for as long as this process runs.
fn keep_clean(config: &Config, env: &RpcEnv, directory: &WorkDirectory) {
    if let Some(settings) = config.worker().cleanup {
        let (runtime, path) = (Arc::clone(env.runtime()), directory.path().to_owned());
        tokio::spawn(clean_regularly(runtime, path, settings));
    }
}

async fn serve_worker(
    config: &Config,
    masters: Vec<String>,
    directory: &WorkDirectory,
    place: u32,
    launcher: Arc<RunnerLauncher>,
) -> Result<ServedWorker, Failure> {
    let worker = config.worker();
    let env = listen(
        "worker",
        &worker.host,
        worker.port,
        worker.port_retries,
        config,
    )
    .await?;
    let offers = Resources {
        cores: worker.cores.unwrap_or_else(machine::cores),
        memory_mib: worker.memory_mib.unwrap_or_else(machine::memory_mib),
    };
    let defaults = Worker::default_settings(&env, offers, masters);
    let settings = WorkerSettings {
        id: directory.worker_id(place, &defaults.id)?,
        backoff: Backoff {
            pause_min: worker.register_backoff_initial,
            pause_max: worker.register_backoff_max,
            ..defaults.backoff
        },
        kill_grace: worker.kill_grace,
        retained_apps: worker.retained_applications,
        enforces: CgroupSupport::detect(&worker.enforcement),
        attributes: worker.attributes,
        cut_off_timeout: worker.cut_off_timeout,
        ..defaults
    };
    let handle = Worker::start(&env, settings, directory.path().to_owned(), launcher)
        .map_err(Failure::new)?;
    Ok(ServedWorker {
        env,
        worker: handle,
    })
}

/// An environment on `port`, or on one of the next where it is taken.
async fn listen(
    name: &str,
    host: &str,
    port: u16,
    retries: u16,
    config: &Config,
) -> Result<RpcEnv, Failure> {
    let settings = config.rpc();
    let rpc = rpc_config(&settings);
    let bind = async |port| {
        let builder = RpcEnv::builder(name)
            .bind(format!("{}:{port}", bracketed(host)))
            .config(rpc.clone());
        match &settings.advertised_host {
            Some(host) => builder.advertise(host).start().await,
            None => builder.start().await,
        }
    };
    let taken = |error: &StartError| matches!(error, StartError::Bind(BindError::InUse { .. }));
    first_free(port, retries, bind, taken)
        .await
        .map_err(|error| {
            let hint = "set another with -p, or 0 for any free one";
            Failure::new(format_args!(
                "cannot listen on RPC port {port}: {}; {hint}",
                with_causes(&error)
            ))
        })
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

async fn first_free<T, E, F: Future<Output = Result<T, E>>>(
    port: u16,
    retries: u16,
    bind: impl Fn(u16) -> F,
    taken: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let last = if port == 0 {
        0
    } else {
        port.saturating_add(retries)
    };
    let mut next = port;
    loop {
        match bind(next).await {
            Err(error) if next < last && taken(&error) => next += 1,
            bound => return bound,
        }
    }
}

/// The RPC layer's settings in its own terms.
pub(crate) fn rpc_config(rpc: &settings::RpcSettings) -> RpcConfig {
    let transport = TransportConfig {
        connect_timeout: rpc.connect_timeout,
        handshake_timeout: rpc.handshake_timeout,
        frame_bytes_max: rpc.message_bytes_max,
        outbound_bytes_max: rpc.outbox_bytes_max,
        handshakes_max: rpc.handshakes_max,
        handshakes_per_address_max: rpc.handshakes_per_address_max,
        connections_per_peer: rpc.connections_per_peer,
        reconnect_backoff_min: rpc.reconnect_backoff_min,
        reconnect_backoff_max: rpc.reconnect_backoff_max,
        // Zero is never.
        ping_interval: Some(rpc.ping_interval),
        ping_timeout: Some(rpc.ping_timeout),
        idle_timeout: Some(rpc.idle_timeout),
        polling: Some(rpc.polling),
        ..TransportConfig::default()
    };
    let codec = match rpc.codec {
        settings::Codec::Postcard => aloha_rpc::Codec::Postcard,
        _ => aloha_rpc::Codec::Bincode,
    };
    RpcConfig {
        ask_timeout: rpc.ask_timeout,
        lookup_timeout: rpc.lookup_timeout,
        inbox_messages_max: rpc.inbox_messages_max,
        inbox_bytes_max: rpc.inbox_bytes_max,
        codec,
        transport,
        ..RpcConfig::default()
    }
}
