//! The configuration cut to what each part needs, as plain typed fields.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{Config, Origin, Value};
use crate::constraint::Attributes;
use crate::listeners::ListenerSettings;
use crate::recovery_mode::{RecoveryKind, RecoverySettings, ZooKeeperSettings};
use crate::rest::RestLimits;
use crate::runner::{CpuEnforcement, Enforcement, LogSettings};
use crate::worker::CleanupSettings;

/// What a master is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MasterSettings {
    /// Where RPC and REST listen.
    pub host: String,
    /// RPC port; 0 for any free one.
    pub port: u16,
    /// How many ports after `port` may be tried; 0 where the port was given by a flag.
    pub port_retries: u16,
    /// Silence after which a worker is given up.
    pub worker_timeout: Duration,
    /// How many times `worker_timeout` a dead worker stays listed.
    pub dead_worker_persistence: u32,
    /// Ended applications remembered.
    pub retained_applications: usize,
    /// What survives it.
    pub recovery: RecoverySettings,
    /// How long submissions may wait to be stored before more are refused.
    pub slow_store_after: Duration,
    /// Whether applications spread over the workers, or fill one after the other.
    pub spread_out: bool,
    /// How many applications of a tag may run at once, of `*` all together.
    pub tag_limits: BTreeMap<String, u32>,
    /// How long an idempotency key is known.
    pub key_ttl: Duration,
    /// How many keys of applications that are no longer listed are known.
    pub keys_max: usize,
}

/// What the REST server is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestSettings {
    /// Whether it is served at all.
    pub enabled: bool,
    /// Where it listens.
    pub host: String,
    /// Its port; 0 for any free one.
    pub port: u16,
    /// How many ports after `port` may be tried; 0 where the port was given by a flag.
    pub port_retries: u16,
    /// The file with the bearer token.
    pub token_file: Option<PathBuf>,
    /// Whether it may listen beyond loopback without a token.
    pub insecure: bool,
    /// Further host names by which it may be addressed.
    pub allowed_hosts: Vec<String>,
    /// What its clients may cost.
    pub limits: RestLimits,
}

/// What a worker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerSettings {
    /// Where it listens.
    pub host: String,
    /// RPC port; 0 for any free one.
    pub port: u16,
    /// How many ports after `port` may be tried; 0 where the port was given by a flag.
    pub port_retries: u16,
    /// Cores offered; none for all of the machine.
    pub cores: Option<u32>,
    /// Memory offered; none for all of the machine but 1 GiB.
    pub memory_mib: Option<u64>,
    /// What it is or has besides.
    pub attributes: Attributes,
    /// Where each application gets its directory.
    pub directory: PathBuf,
    /// Time between TERM and KILL.
    pub kill_grace: Duration,
    /// What of an application's resources is enforced, where the kernel lets it.
    pub enforcement: Enforcement,
    /// How long an application runs on without its worker.
    pub runner_timeout: Duration,
    /// The timeout that a master is taken to have, where supervised applications are stopped without its word.
    pub cut_off_timeout: Option<Duration>,
    /// First pause between two attempts to register.
    pub register_backoff_initial: Duration,
    /// Longest pause between two attempts to register.
    pub register_backoff_max: Duration,
    /// Ended applications remembered.
    pub retained_applications: usize,
    /// What is kept of the output of applications.
    pub logs: LogSettings,
    /// How the work directory is cleaned; none for not at all.
    pub cleanup: Option<CleanupSettings>,
}

/// What the RPC layer is told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RpcSettings {
    /// Under which host others reach this process, where that is not the one it listens on.
    pub advertised_host: Option<String>,
    /// How long an ask waits for its answer.
    pub ask_timeout: Duration,
    /// How long the search for a remote endpoint may take.
    pub lookup_timeout: Duration,
    /// How long a TCP connection may take.
    pub connect_timeout: Duration,
    /// How long a new peer may take to say who it is.
    pub handshake_timeout: Duration,
    /// Callers that may be connected without having said who they are.
    pub handshakes_max: usize,
    /// How many of those may come from one host.
    pub handshakes_per_address_max: usize,
    /// Connections to one peer.
    pub connections_per_peer: usize,
    /// How long a peer is left alone at first after it could not be reached.
    pub reconnect_backoff_min: Duration,
    /// The longest time for which a peer is left alone.
    pub reconnect_backoff_max: Duration,
    /// Silence after which a peer is asked whether it is there; zero for never.
    pub ping_interval: Duration,
    /// How long a peer that was asked may go on being silent; zero for ever.
    pub ping_timeout: Duration,
    /// How long a connection may go unused; zero for ever.
    pub idle_timeout: Duration,
    /// How long a connection looks for more before it waits; zero for never.
    pub polling: Duration,
    /// Largest message sent or accepted.
    pub message_bytes_max: usize,
    /// Messages that may wait at one endpoint.
    pub inbox_messages_max: usize,
    /// Bytes of messages that may wait at one endpoint.
    pub inbox_bytes_max: usize,
    /// Bytes that may wait for one peer.
    pub outbox_bytes_max: usize,
    /// Encoding of messages.
    pub codec: Codec,
}

/// The encoding of RPC messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// The default.
    Bincode,
    /// The alternative.
    Postcard,
}

impl Config {
    /// The master's part.
    pub fn master(&self) -> MasterSettings {
        MasterSettings {
            host: self.text("aloha.master.host"),
            port: self.port("aloha.master.port"),
            port_retries: self.port_retries("aloha.master.port"),
            worker_timeout: self.duration("aloha.worker.timeout"),
            dead_worker_persistence: self.count("aloha.dead.worker.persistence"),
            retained_applications: self.count("aloha.deploy.retainedApplications"),
            spread_out: self.is_on("aloha.deploy.spreadOut"),
            tag_limits: match self.value("aloha.deploy.tagLimits") {
                Some(Value::TagLimits(limits)) => limits.clone(),
                _ => BTreeMap::new(),
            },
            key_ttl: self.duration("aloha.master.idempotency.ttl"),
            keys_max: self.count("aloha.master.idempotency.keysMax"),
            recovery: self.recovery(),
            slow_store_after: self.duration("aloha.deploy.slowStoreAfter"),
        }
    }

    fn recovery(&self) -> RecoverySettings {
        RecoverySettings {
            kind: match self.value("aloha.deploy.recoveryMode") {
                Some(Value::Word("FILESYSTEM")) => RecoveryKind::FileSystem,
                Some(Value::Word("ZOOKEEPER")) => RecoveryKind::ZooKeeper,
                Some(Value::Word("CUSTOM")) => RecoveryKind::Custom,
                _ => RecoveryKind::None,
            },
            factory: self.name("aloha.deploy.recoveryMode.factory"),
            directory: self
                .path("aloha.deploy.recoveryDirectory")
                .unwrap_or_default(),
            zookeeper: ZooKeeperSettings {
                url: self.name("aloha.deploy.zookeeper.url"),
                dir: self.text("aloha.deploy.zookeeper.dir"),
                session_timeout: self.duration("aloha.deploy.zookeeper.sessionTimeout"),
                acl: self.list("aloha.deploy.zookeeper.acl"),
                auth_file: self.path("aloha.deploy.zookeeper.auth.file"),
            },
        }
    }

    fn name(&self, key: &str) -> Option<String> {
        match self.value(key) {
            Some(Value::Text(name)) => Some(name.clone()),
            _ => None,
        }
    }

    /// Who listens to what happens.
    pub fn listeners(&self) -> ListenerSettings {
        ListenerSettings {
            names: self.list("aloha.extraListeners"),
            queue_max: self.count("aloha.listeners.queueMax"),
            command: self.path("aloha.listeners.command"),
            command_timeout: self.duration("aloha.listeners.command.timeout"),
        }
    }

    /// The REST server's part.
    pub fn rest(&self) -> RestSettings {
        RestSettings {
            enabled: self.is_on("aloha.master.rest.enabled"),
            host: self.text("aloha.master.host"),
            port: self.port("aloha.master.rest.port"),
            port_retries: self.port_retries("aloha.master.rest.port"),
            token_file: self.path("aloha.master.rest.token.file"),
            insecure: self.is_on("aloha.master.rest.insecure"),
            allowed_hosts: self.list("aloha.master.rest.allowedHosts"),
            limits: RestLimits {
                connections_max: self.count("aloha.master.rest.connectionsMax"),
                requests_max: self.count("aloha.master.rest.requestsMax"),
                long_requests_max: self.count("aloha.master.rest.longRequestsMax"),
                header_bytes_max: self.bytes("aloha.master.rest.headerBytesMax"),
                headers_max: self.count("aloha.master.rest.headersMax"),
                header_timeout: self.duration("aloha.master.rest.headerTimeout"),
                body_bytes_max: self.bytes("aloha.master.rest.bodyBytesMax"),
                bodies_bytes_max: self.bytes("aloha.master.rest.bodiesBytesMax"),
                body_timeout: self.duration("aloha.master.rest.bodyTimeout"),
                answers_bytes_max: self.bytes("aloha.master.rest.answersBytesMax"),
                idle_timeout: self.duration("aloha.master.rest.idleTimeout"),
                write_timeout: self.duration("aloha.master.rest.writeTimeout"),
            },
        }
    }

    /// The worker's part.
    pub fn worker(&self) -> WorkerSettings {
        WorkerSettings {
            host: self.text("aloha.worker.host"),
            port: self.port("aloha.worker.port"),
            port_retries: self.port_retries("aloha.worker.port"),
            cores: self
                .value("aloha.worker.cores")
                .map(|_| self.count("aloha.worker.cores")),
            memory_mib: match self.value("aloha.worker.memory") {
                Some(Value::Bytes(bytes)) => Some(bytes >> 20),
                _ => None,
            },
            attributes: match self.value("aloha.worker.attributes") {
                Some(Value::Attributes(attributes)) => attributes.clone(),
                _ => Attributes::new(),
            },
            directory: self
                .path("aloha.worker.dir")
                .expect("the registry gives it a default"),
            kill_grace: self.duration("aloha.worker.killGrace"),
            enforcement: Enforcement {
                cgroups: self.is_on("aloha.worker.cgroup.enabled"),
                memory: self.is_on("aloha.worker.limits.memory"),
                cpu: match self.value("aloha.worker.limits.cpu") {
                    Some(Value::Word("off")) => CpuEnforcement::Off,
                    Some(Value::Word("quota")) => CpuEnforcement::Quota,
                    _ => CpuEnforcement::Share,
                },
            },
            runner_timeout: self.duration("aloha.worker.runner.timeout"),
            cut_off_timeout: self
                .is_on("aloha.worker.stopWhenCutOff")
                .then(|| self.duration("aloha.worker.timeout")),
            register_backoff_initial: self.duration("aloha.worker.register.backoff.initial"),
            register_backoff_max: self.duration("aloha.worker.register.backoff.max"),
            retained_applications: self.count("aloha.worker.retainedApplications"),
            logs: LogSettings {
                roll_bytes: self.size("aloha.worker.log.rollBytes"),
                roll_interval: self.duration("aloha.worker.log.rollInterval"),
                total_bytes_max: self.size("aloha.worker.log.bytesMax"),
            },
            cleanup: self
                .is_on("aloha.worker.cleanup.enabled")
                .then(|| CleanupSettings {
                    interval: self.duration("aloha.worker.cleanup.interval"),
                    app_data_ttl: self.duration("aloha.worker.cleanup.appDataTtl"),
                    bytes_max: self.size("aloha.worker.cleanup.bytesMax"),
                }),
        }
    }

    /// The RPC layer's part.
    pub fn rpc(&self) -> RpcSettings {
        RpcSettings {
            advertised_host: match self.value("aloha.rpc.advertisedHost") {
                Some(Value::Text(host)) => Some(host.clone()),
                _ => None,
            },
            ask_timeout: self.duration("aloha.rpc.askTimeout"),
            lookup_timeout: self.duration("aloha.rpc.lookupTimeout"),
            connect_timeout: self.duration("aloha.rpc.connectTimeout"),
            handshake_timeout: self.duration("aloha.rpc.handshakeTimeout"),
            handshakes_max: self.count("aloha.rpc.handshakes.max"),
            handshakes_per_address_max: self.count("aloha.rpc.handshakes.perAddressMax"),
            connections_per_peer: self.count("aloha.rpc.connectionsPerPeer"),
            reconnect_backoff_min: self.duration("aloha.rpc.reconnect.backoffMin"),
            reconnect_backoff_max: self.duration("aloha.rpc.reconnect.backoffMax"),
            ping_interval: self.duration("aloha.rpc.pingInterval"),
            ping_timeout: self.duration("aloha.rpc.pingTimeout"),
            idle_timeout: self.duration("aloha.rpc.idleTimeout"),
            polling: self.duration("aloha.rpc.polling"),
            message_bytes_max: self.bytes("aloha.rpc.message.maxSize"),
            inbox_messages_max: self.count("aloha.rpc.inbox.messagesMax"),
            inbox_bytes_max: self.bytes("aloha.rpc.inbox.bytesMax"),
            outbox_bytes_max: self.bytes("aloha.rpc.outbox.bytesMax"),
            codec: match self.value("aloha.rpc.codec") {
                Some(Value::Word("postcard")) => Codec::Postcard,
                _ => Codec::Bincode,
            },
        }
    }

    fn duration(&self, key: &str) -> Duration {
        match self.value(key) {
            Some(Value::Duration(value)) => *value,
            other => unreachable!("the registry makes {key} a duration, not {other:?}"),
        }
    }

    fn count<T: TryFrom<u64>>(&self, key: &str) -> T {
        let value = match self.value(key) {
            Some(Value::Count(value)) => T::try_from(*value).ok(),
            _ => None,
        };
        value.unwrap_or_else(|| unreachable!("the registry makes {key} a number that fits"))
    }

    fn bytes(&self, key: &str) -> usize {
        usize::try_from(self.size(key))
            .unwrap_or_else(|_| unreachable!("the registry makes {key} a size that fits"))
    }

    fn size(&self, key: &str) -> u64 {
        match self.value(key) {
            Some(Value::Bytes(value)) => *value,
            other => unreachable!("the registry makes {key} a size, not {other:?}"),
        }
    }

    fn is_on(&self, key: &str) -> bool {
        self.value(key) == Some(&Value::Bool(true))
    }

    fn list(&self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(Value::List(words)) => words.clone(),
            _ => Vec::new(),
        }
    }

    fn text(&self, key: &str) -> String {
        match self.value(key) {
            Some(Value::Text(value)) => value.clone(),
            other => unreachable!("the registry makes {key} a text, not {other:?}"),
        }
    }

    fn path(&self, key: &str) -> Option<PathBuf> {
        match self.value(key) {
            Some(Value::Path(path)) => Some(path.clone()),
            _ => None,
        }
    }

    fn port(&self, key: &str) -> u16 {
        self.count(key)
    }

    /// A port that was asked for by a flag is that port or an error.
    fn port_retries(&self, port: &str) -> u16 {
        match self.origin(port) {
            Some(Origin::Flag(_)) => 0,
            _ => self.count("aloha.port.maxRetries"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let config = Config::builder().load().expect("valid");
        let (master, rest) = (config.master(), config.rest());
        assert_eq!((master.host.as_str(), master.port), ("127.0.0.1", 7077));
        assert_eq!(master.worker_timeout, Duration::from_secs(60));
        assert_eq!(master.dead_worker_persistence, 15);
        assert_eq!(master.retained_applications, 200);
        assert_eq!(master.slow_store_after, Duration::from_secs(5));
        let recovery = (master.recovery.kind, master.recovery.factory);
        assert_eq!(recovery, (RecoveryKind::None, None));
        assert!(master.spread_out && master.tag_limits.is_empty());
        assert_eq!(
            (rest.enabled, rest.port, rest.insecure),
            (true, 6066, false)
        );
        assert_eq!(
            (rest.limits, rest.token_file),
            (RestLimits::default(), None)
        );
        assert_eq!(config.listeners(), ListenerSettings::default());
        let worker = config.worker();
        assert_eq!(
            (worker.port, worker.cores, worker.memory_mib),
            (0, None, None)
        );
        assert_eq!(
            (worker.attributes, worker.cut_off_timeout),
            Default::default()
        );
        assert_eq!(worker.kill_grace, Duration::from_secs(10));
        assert_eq!(worker.retained_applications, 1000);
        assert_eq!(worker.logs, LogSettings::default());
        let cleanup = CleanupSettings {
            interval: Duration::from_secs(1800),
            app_data_ttl: Duration::from_secs(604_800),
            bytes_max: 10 << 30,
        };
        assert_eq!(worker.cleanup, Some(cleanup));
        let off = Config::builder().overrides(["aloha.worker.cleanup.enabled=false"]);
        assert_eq!(off.load().expect("valid").worker().cleanup, None);
        assert_eq!(worker.enforcement, Enforcement::default());
        assert_eq!(worker.runner_timeout, Duration::from_secs(600));
        let rpc = config.rpc();
        assert_eq!(rpc.ask_timeout, Duration::from_secs(60));
        assert_eq!(rpc.message_bytes_max, 16 << 20);
        assert_eq!(rpc.codec, Codec::Bincode);
        assert_eq!(rpc.ping_interval, Duration::from_secs(15));
        assert_eq!(rpc.ping_timeout, Duration::from_secs(10));
        assert_eq!(rpc.idle_timeout, Duration::ZERO);
        assert_eq!(rpc.polling, Duration::ZERO);
        assert_eq!(rpc.connections_per_peer, 1);
    }

    #[test]
    fn what_a_worker_enforces_is_set_key_by_key() {
        let with = |overrides: [&str; 3]| {
            let config = Config::builder().overrides(overrides).load();
            config.expect("valid").worker().enforcement
        };
        let enforcement = with([
            "aloha.worker.cgroup.enabled=false",
            "aloha.worker.limits.memory=false",
            "aloha.worker.limits.cpu=QUOTA",
        ]);
        let expected = Enforcement {
            cgroups: false,
            memory: false,
            cpu: CpuEnforcement::Quota,
        };
        assert_eq!(enforcement, expected);
        let enforcement = with([
            "aloha.worker.cgroup.enabled=true",
            "aloha.worker.limits.memory=true",
            "aloha.worker.limits.cpu=off",
        ]);
        let expected = Enforcement {
            cpu: CpuEnforcement::Off,
            ..Enforcement::default()
        };
        assert_eq!(enforcement, expected);
    }

    #[test]
    fn a_worker_says_what_it_has_and_may_stop_applications_when_it_is_cut_off() {
        let builder = Config::builder().overrides([
            "aloha.worker.attributes=zone=a, gpu",
            "aloha.worker.stopWhenCutOff=true",
            "aloha.worker.timeout=4",
        ]);
        let worker = builder.load().expect("valid").worker();
        let attributes = [("zone".into(), "a".into()), ("gpu".into(), String::new())];
        assert_eq!(worker.attributes, attributes.into());
        assert_eq!(worker.cut_off_timeout, Some(Duration::from_secs(4)));
    }

    #[test]
    fn where_applications_go_is_set_by_two_keys() {
        let overrides = [
            "aloha.deploy.spreadOut=false",
            "aloha.deploy.tagLimits=etl=4,*=9",
        ];
        let master = Config::builder().overrides(overrides).load();
        let master = master.expect("valid").master();
        assert!(!master.spread_out);
        assert_eq!(
            master.tag_limits,
            [("*".into(), 9), ("etl".into(), 4)].into()
        );
    }

    #[test]
    fn an_explicit_port_is_not_searched_for() {
        let builder = || Config::builder().overrides(["aloha.port.maxRetries=3"]);
        let config = builder().load().expect("valid");
        assert_eq!(config.master().port_retries, 3);
        let config = builder().flag("-p", "aloha.master.port", Some(7077));
        let config = config.load().expect("valid");
        assert_eq!(
            (config.master().port_retries, config.rest().port_retries),
            (0, 3)
        );
    }

    #[test]
    fn the_zookeeper_is_as_it_was_asked_for() {
        let config = Config::builder().overrides([
            "aloha.deploy.recoveryMode=zookeeper",
            "aloha.deploy.zookeeper.url=h1:2181,h2:2181/chroot",
            "aloha.deploy.zookeeper.sessionTimeout=6",
            "aloha.deploy.zookeeper.acl=creator,ip:10.0.0.0/8:r",
            "aloha.deploy.zookeeper.auth.file=/etc/aloha/zookeeper",
        ]);
        let recovery = config.load().expect("valid").master().recovery;
        assert_eq!(recovery.kind, RecoveryKind::ZooKeeper);
        let expected = ZooKeeperSettings {
            url: Some("h1:2181,h2:2181/chroot".to_owned()),
            dir: "/aloha".to_owned(),
            session_timeout: Duration::from_secs(6),
            acl: vec!["creator".to_owned(), "ip:10.0.0.0/8:r".to_owned()],
            auth_file: Some("/etc/aloha/zookeeper".into()),
        };
        assert_eq!(recovery.zookeeper, expected);
        let untold = Config::builder().load().expect("valid").master().recovery;
        assert_eq!(untold.zookeeper, ZooKeeperSettings::default());
    }
}
