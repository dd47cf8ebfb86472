//! One server for all tests that need no more, and masters' ends of it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use aloha_scheduler::ZooKeeperSettings;
use aloha_scheduler::persistence::{Change, PersistenceEngine, PersistenceError, StoredRecord};
use aloha_scheduler::zookeeper::ZooKeeper;
use tempfile::TempDir;
use zookeeper_client::{Acls, Client, CreateMode};

use crate::common::gates::{Network, Party};
use crate::common::zookeeper::Ensemble;

/// What the server is on a network.
pub(crate) const SERVER: Party = Party::ZooKeeper(0);

/// A server that goes when no test uses it any more.
pub(crate) struct Server {
    ensemble: Ensemble,
    _directory: TempDir,
}

impl Server {
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Server>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = shared.upgrade() {
            return server;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let server = Arc::new(Self {
            ensemble: Ensemble::start(directory.path(), 1),
            _directory: directory,
        });
        *shared = Arc::downgrade(&server);
        server
    }

    pub(crate) fn url(&self) -> String {
        self.ensemble.url()
    }

    /// Where it is reached through a gate.
    pub(crate) fn behind(&self, network: &Network) -> String {
        let (listen, server) = ((Ipv4Addr::LOCALHOST, 0), self.ensemble.client_address(0));
        network.open(listen.into(), SERVER, server).to_string()
    }

    /// What a master that uses this directory is told.
    pub(crate) fn settings(&self, dir: &str) -> ZooKeeperSettings {
        settings(&self.url(), dir)
    }

    pub(crate) fn zookeeper(&self, dir: &str) -> ZooKeeper {
        ZooKeeper::new(&self.settings(dir)).expect("good settings")
    }

    /// Somebody who looks at the nodes themselves.
    pub(crate) async fn client(&self) -> Client {
        let client = Client::connect(&self.url()).await;
        client.expect("the server is there")
    }
}

pub(crate) fn settings(url: &str, dir: &str) -> ZooKeeperSettings {
    let mut settings = ZooKeeperSettings::default();
    settings.url = Some(url.to_owned());
    settings.dir = dir.to_owned();
    settings.session_timeout = Duration::from_secs(2);
    settings
}

pub(crate) async fn create(client: &Client, path: &str, data: &[u8]) {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let parent = path.rsplit_once('/').expect("absolute").0;
    if !parent.is_empty() {
        client.mkdir(parent, &options).await.expect("made");
    }
    client.create(path, data, &options).await.expect("made");
}

pub(crate) type Map = BTreeMap<String, Vec<u8>>;

pub(crate) fn put(key: &str, value: &[u8]) -> Change {
    Change::Put(StoredRecord {
        key: key.to_owned(),
        value: value.to_vec(),
    })
}

pub(crate) fn apply(map: &mut Map, changes: Vec<Change>) {
    for change in changes {
        match change {
            Change::Put(StoredRecord { key, value }) => map.insert(key, value),
            Change::Delete { key } => map.remove(&key),
        };
    }
}

pub(crate) async fn read(store: &impl PersistenceEngine) -> Map {
    let records = store.read_all().await.expect("it can be read");
    let mut map = Map::new();
    apply(&mut map, records.into_iter().map(Change::Put).collect());
    map
}

pub(crate) fn assert_fenced(written: Result<(), PersistenceError>, epochs: (u64, u64)) {
    match written {
        Err(PersistenceError::Fenced { ours, newest }) => assert_eq!((ours, newest), epochs),
        other => panic!("{epochs:?}: {other:?}"),
    }
}
