//! The election: a line of ephemeral nodes, as Curator's LeaderLatch keeps it.
//!
//! Each candidate watches the node before its own, so that one that leaves wakes one other. The first in line leads for
//! as long as its session and its node last. The data of a node says how its master is reached.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{debug, error, info, warn};
use zookeeper_client::{Client, CreateMode, Error, EventType, OneshotWatcher};

use super::line::{self, Place};
use super::session::{Link, Links, Session, lost};
use super::settings::Checked;
use super::trouble::{Trouble, is_refusal};
use crate::election::{ElectionError, LeaderElectionAgent, Leadership, MasterAddress, Standing};

/// The pause before something is tried again; for who looks on in vain it doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The node by which this master leads, for the store to see to it that it still does.
#[derive(Debug, Clone, Default)]
pub(super) struct OwnLatch(Arc<Mutex<Claim>>);

/// What this master has won.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing yet: the store may be used without an election.
    #[default]
    None,
    /// It leads by this node.
    Node(String),
    /// It led, and does no more.
    Over,
}

impl OwnLatch {
    pub(super) fn get(&self) -> Claim {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Claim> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes part in the election on a ZooKeeper.
#[derive(Debug)]
pub struct ZooKeeperElection {
    session: Session,
    own: OwnLatch,
    leader: Arc<watch::Sender<Option<MasterAddress>>>,
    is_observing: AtomicBool,
    /// Those that are not deleted yet.
    nodes: TaskTracker,
}

impl ZooKeeperElection {
    pub(super) fn new(session: Session, own: OwnLatch) -> Self {
        let nodes = TaskTracker::new();
        // Whoever waits for it waits until there are none.
        nodes.close();
        Self {
            session,
            own,
            leader: Arc::new(watch::Sender::new(None)),
            is_observing: AtomicBool::new(false),
            nodes,
        }
    }

    /// Keeps `leader` up to date from now on.
    fn observe(&self) {
        if !self.is_observing.swap(true, Ordering::Relaxed) {
            let observer = Observer {
                links: self.session.links().clone(),
                leader: Arc::clone(&self.leader),
            };
            tokio::spawn(observer.run());
        }
    }

    async fn stand(&self, candidate: &MasterAddress) -> Result<Leadership, Trouble> {
        self.observe();
        let link = self.session.link().await?;
        let data = serde_json::to_vec(candidate).expect("texts are JSON");
        let settings = self.session.settings();
        let parent = super::latches(&settings.root);
        let mut node = Node::new(&link, parent, self.nodes.token());
        node.create(&link, &data, settings).await?;
        loop {
            let nodes = link.on(|| node.client.list_children(&node.parent)).await?;
            match line::place(nodes, &node.prefix) {
                Place::Nowhere => {
                    return Err(Trouble::Away(
                        "its node of the election was deleted".to_owned(),
                    ));
                }
                Place::Behind { whom } => {
                    let whom = format!("{}/{whom}", node.parent);
                    match link.on(|| node.client.get_and_watch_data(&whom)).await {
                        Ok((_, _, watcher)) => changed(&link, watcher).await?,
                        Err(Trouble::Refused(Error::NoNode)) => {}
                        Err(trouble) => return Err(trouble),
                    }
                }
                Place::First { own } => {
                    let own = format!("{}/{own}", node.parent);
                    match link.on(|| node.client.get_and_watch_data(&own)).await {
                        Ok((_, stat, watcher)) => {
                            let epoch = u64::try_from(stat.czxid).unwrap_or_default();
                            return self.tenure(link, node, own, epoch, watcher).await;
                        }
                        Err(Trouble::Refused(Error::NoNode)) => {}
                        Err(trouble) => return Err(trouble),
                    }
                }
            }
        }
    }

    async fn tenure(
        &self,
        link: Link,
        node: Node,
        path: String,
        epoch: u64,
        watcher: OneshotWatcher,
    ) -> Result<Leadership, Trouble> {
        let mut seen = link.standing.clone();
        let is_held = seen
            .wait_for(|standing| *standing != Standing::Suspended)
            .await;
        if is_held.map_or(true, |standing| *standing == Standing::Lost) {
            return Err(lost());
        }
        info!(node = path, "elected");
        *self.own.lock() = Claim::Node(path.clone());
        let (sender, standing) = watch::channel(Standing::Held);
        let tenure = Tenure {
            link,
            node,
            path,
            own: self.own.clone(),
            standing: sender,
        };
        tokio::spawn(tenure.run(watcher));
        Ok(Leadership { epoch, standing })
    }
}

#[async_trait]
impl LeaderElectionAgent for ZooKeeperElection {
    async fn campaign(&self, candidate: &MasterAddress) -> Result<Leadership, ElectionError> {
        self.stand(candidate)
            .await
            .map_err(|trouble| ElectionError {
                reason: trouble.to_string(),
            })
    }

    /// Who is first in line. Where it is called outside of a tokio runtime, nobody is before the first campaign.
    fn leader(&self) -> watch::Receiver<Option<MasterAddress>> {
        if tokio::runtime::Handle::try_current().is_ok() {
            self.observe();
        }
        self.leader.subscribe()
    }

    async fn withdrawn(&self) {
        self.nodes.wait().await;
    }
}

async fn changed(link: &Link, watcher: OneshotWatcher) -> Result<(), Trouble> {
    tokio::select! {
        biased;
        _event = watcher.changed() => Ok(()),
        () = link.lost() => Err(lost()),
    }
}

/// Our node in the line. Dropped, it is deleted.
#[derive(Debug)]
struct Node {
    client: Client,
    link: Link,
    parent: String,
    prefix: String,
    may_exist: bool,
    /// Kept until it is deleted.
    token: TaskTrackerToken,
}

impl Node {
    fn new(link: &Link, parent: String, token: TaskTrackerToken) -> Self {
        Self {
            client: link.client.clone(),
            link: link.clone(),
            parent,
            prefix: line::prefix(link.client.session_id().0),
            may_exist: false,
            token,
        }
    }

    async fn create(
        &mut self,
        link: &Link,
        data: &[u8],
        settings: &Checked,
    ) -> Result<(), Trouble> {
        let path = format!("{}/{}", self.parent, self.prefix);
        let options = CreateMode::EphemeralSequential.with_acls(settings.acls());
        self.may_exist = true;
        loop {
            let created = tokio::select! {
                biased;
                created = self.client.create(&path, data, &options) => created,
                () = link.lost() => return Err(lost()),
            };
            match created {
                Ok(_) => return Ok(()),
                Err(error) if is_refusal(&error) => {
                    self.may_exist = false;
                    return Err(Trouble::Refused(error));
                }
                // Nobody knows. What came before this is seen once the servers have caught up.
                Err(_) => {
                    tokio::time::sleep(PAUSE).await;
                    link.on(|| self.client.sync(&self.parent)).await?;
                    let nodes = link.on(|| self.client.list_children(&self.parent)).await?;
                    if line::place(nodes, &self.prefix) != Place::Nowhere {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        if !self.may_exist {
            return;
        }
        let (link, client) = (self.link.clone(), self.client.clone());
        let (parent, prefix) = (self.parent.clone(), self.prefix.clone());
        let token = self.token.clone();
        runtime.spawn(async move {
            let _until_deleted = token;
            // A session that is lost takes its nodes along.
            let Ok(nodes) = link.on(|| client.list_children(&parent)).await else {
                return;
            };
            for node in nodes.iter().filter(|node| node.starts_with(&prefix)) {
                let path = format!("{parent}/{node}");
                let _gone = link.on(|| client.delete(&path, None)).await;
            }
        });
    }
}

/// A leadership, for as long as it lasts.
struct Tenure {
    link: Link,
    node: Node,
    path: String,
    own: OwnLatch,
    standing: watch::Sender<Standing>,
}

impl Tenure {
    async fn run(self, watcher: OneshotWatcher) {
        let mut session = self.link.standing.clone();
        let mut change = Box::pin(watcher.changed());
        let standing = loop {
            let stands = *session.borrow_and_update();
            self.standing.send_if_modified(|told| {
                let changes = *told != stands;
                *told = stands;
                changes
            });
            if stands == Standing::Lost {
                break stands;
            }
            tokio::select! {
                biased;
                () = self.standing.closed() => break Standing::Held,
                changed = session.changed() => if changed.is_err() {
                    break Standing::Lost;
                },
                event = &mut change => {
                    if event.event_type == EventType::NodeDeleted {
                        warn!(node = self.path, "somebody deleted its node of the election");
                        break Standing::Lost;
                    }
                    let watched = self.link.on(|| self.node.client.get_and_watch_data(&self.path));
                    match watched.await {
                        Ok((_, _, watcher)) => change = Box::pin(watcher.changed()),
                        Err(_) => break Standing::Lost,
                    }
                }
            }
        };
        // Nothing is written by it any more.
        let mut own = self.own.lock();
        if *own == Claim::Node(self.path.clone()) {
            *own = Claim::Over;
        }
        drop(own);
        self.standing.send_replace(standing);
    }
}

/// Tells who is first in line.
struct Observer {
    links: Links,
    leader: Arc<watch::Sender<Option<MasterAddress>>>,
}

impl Observer {
    async fn run(self) {
        let mut pause = PAUSE;
        let mut said = None;
        while !self.links.is_closed() {
            if let Ok(link) = self.links.link().await {
                let trouble = self.observe(&link).await;
                if matches!(trouble, Trouble::Refused(_)) {
                    let reason = Some(trouble.to_string());
                    if said != reason {
                        error!(reason, "does not see who leads");
                    }
                    said = reason;
                    pause = (pause * 2).min(PAUSE_MAX);
                } else {
                    // The session says so itself.
                    debug!(reason = %trouble, "does not see who leads");
                    (said, pause) = (None, PAUSE);
                }
            }
            self.tell(None);
            tokio::time::sleep(pause).await;
        }
    }

    /// Returns why it cannot go on.
    async fn observe(&self, link: &Link) -> Trouble {
        let parent = super::latches(&self.links.settings.root);
        loop {
            if let Err(trouble) = self.look(link, &parent).await {
                return trouble;
            }
        }
    }

    /// Looks once, and waits for a change.
    async fn look(&self, link: &Link, parent: &str) -> Result<(), Trouble> {
        let client = &link.client;
        let nodes = link.on(|| client.list_children(parent)).await?;
        let Some(first) = line::first(nodes) else {
            let (nodes, watcher) = link.on(|| client.list_and_watch_children(parent)).await?;
            if line::first(nodes).is_some() {
                return Ok(());
            }
            self.tell(None);
            return changed(link, watcher).await;
        };
        let path = format!("{parent}/{first}");
        match link.on(|| client.get_and_watch_data(&path)).await {
            Ok((data, _, watcher)) => {
                self.tell(serde_json::from_slice(&data).ok());
                changed(link, watcher).await
            }
            Err(Trouble::Refused(Error::NoNode)) => Ok(()),
            Err(trouble) => Err(trouble),
        }
    }

    fn tell(&self, leader: Option<MasterAddress>) {
        self.leader.send_if_modified(|told| {
            let changes = *told != leader;
            *told = leader;
            changes
        });
    }
}
