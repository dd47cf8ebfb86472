//! A network of hosts that delays, loses, holds back and breaks, by a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;

use tokio::io::ReadBuf;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::now;
use super::sim_connection::{Attempt, Side, SimConnection};
use super::sim_host::SimHost;
use super::sim_links::{Links, Pair, SimConditions};
use crate::stream::Network;

/// Connections that wait to be accepted; more are refused.
const BACKLOG: usize = 1024;
/// The ports of callers, and of listeners that left the choice to the network.
const EPHEMERAL_PORTS: RangeInclusive<u16> = 49_152..=u16::MAX;

/// A simulated network of hosts. Clones are the same network.
///
/// What is simulated is the byte stream that TCP gives, not TCP's packets. The bytes of one write, at
/// most 16 KiB, are one segment. It arrives after a delay drawn from [`SimConditions`], or later if it is
/// lost on the way, but nothing that follows overtakes it. One direction of a connection holds at most
/// 256 KiB, under way or unread; then its writer waits. Nothing times out by itself.
///
/// **What a seed promises.** All chance comes from one generator, which is drawn from in the order of events.
/// The same seed and the same program give the same run: what arrives, when, and what breaks. For
/// this the program must do the same at each run:
///
/// - it runs on a current-thread runtime whose clock is paused from the start (`start_paused`), so that
///   tasks and timers have one order, and waiting takes no time;
/// - it draws its time and its numbers from a [`SimRuntime`](super::SimRuntime);
/// - it lets no other chance decide what it sends: no `select!` without `biased`, no walk over a `HashMap`.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use aloha_transport::testing::SimNetwork;
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> std::io::Result<()> {
/// let network = SimNetwork::new(7);
/// let mut listener = network.host("b").bind("b:7077").await?;
/// let mut caller = network.host("a").connect("b:7077").await?;
/// let mut accepted = listener.accept().await?;
/// assert_eq!(accepted.peer_address, "a:49152");
///
/// network.partition("a", "b");
/// caller.writer.write_all(b"held back").await?;
/// let mut bytes = [0; 9];
/// let read = accepted.reader.read_exact(&mut bytes);
/// assert!(tokio::time::timeout(Duration::from_secs(3600), read).await.is_err());
///
/// network.heal("a", "b");
/// accepted.reader.read_exact(&mut bytes).await?;
/// assert_eq!(&bytes, b"held back");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SimNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    seed: u64,
    state: Mutex<State>,
    /// A partition was healed or a host crashed: those who wait to connect look again.
    changed: Notify,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionId(u64);

pub(super) struct State {
    pub(super) links: Links,
    hosts: BTreeMap<Arc<str>, Host>,
    /// Apart from hosts not known yet, too.
    isolated: BTreeSet<Arc<str>>,
    connections: BTreeMap<ConnectionId, Open>,
    /// For connections and listeners.
    last_id: u64,
    /// Whom to wake once the lock is free.
    woken: Vec<Waker>,
}

/// A connection, until all its halves are gone.
struct Open {
    connection: SimConnection,
    halves: u8,
}

pub(super) struct Host {
    pub(super) listeners: BTreeMap<u16, Bound>,
    next_port: u16,
    pub(super) crashes: u64,
}

pub(super) struct Bound {
    pub(super) id: u64,
    /// Not accepted yet, with the addresses of the callers.
    pub(super) queue: VecDeque<(ConnectionId, String)>,
    pub(super) acceptor: Option<Waker>,
}

impl SimNetwork {
    /// A network without hosts, under default conditions.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            links: Links::new(seed),
            hosts: BTreeMap::new(),
            isolated: BTreeSet::new(),
            connections: BTreeMap::new(),
            last_id: 0,
            woken: Vec::new(),
        };
        Self {
            shared: Arc::new(Shared {
                seed,
                state: Mutex::new(state),
                changed: Notify::new(),
            }),
        }
    }

    /// The network as seen from a host, which listens and calls under its own name alone.
    ///
    /// Ports that are left to the network, and those of callers, count from 49152 on each host.
    #[must_use]
    pub fn host(&self, name: &str) -> Arc<dyn Network> {
        let name: Arc<str> = name.into();
        self.with(|state| state.add_host(&name));
        Arc::new(SimHost::new(self.clone(), name))
    }

    /// Sets the conditions between all pairs that have none of their own. What is under way is not changed.
    ///
    /// # Panics
    ///
    /// The range of delays is empty, or a probability is out of range.
    pub fn set_conditions(&self, conditions: SimConditions) {
        self.with(|state| state.links.set_conditions(conditions));
    }

    /// Sets the conditions between two hosts, or of a host with itself, in both directions. What is under way is not changed.
    ///
    /// # Panics
    ///
    /// The range of delays is empty, or a probability is out of range.
    pub fn set_conditions_between(&self, one: &str, other: &str, conditions: SimConditions) {
        let pair = Pair::of(one, other);
        self.with(|state| state.links.set_conditions_between(pair, conditions));
    }

    /// Holds back what is under way between two hosts, and what they send, until they are healed; connects
    /// hang so long.
    pub fn partition(&self, one: &str, other: &str) {
        self.with(|state| state.partition(Pair::of(one, other)));
    }

    /// Partitions a host from all others, also from those made later.
    pub fn isolate(&self, host: &str) {
        self.with(|state| {
            let others = state.hosts.keys().filter(|other| ***other != *host);
            let pairs: Vec<_> = others.map(|other| Pair::of(host, other)).collect();
            state.isolated.insert(host.into());
            pairs.into_iter().for_each(|pair| state.partition(pair));
        });
    }

    /// Ends the partition of two hosts: what was held back is sent anew.
    pub fn heal(&self, one: &str, other: &str) {
        self.with(|state| state.heal(&Pair::of(one, other)));
        self.shared.changed.notify_waiters();
    }

    /// Ends all partitions of a host.
    pub fn rejoin(&self, host: &str) {
        self.with(|state| {
            state.isolated.remove(host);
            let pairs = state.links.partitions();
            for pair in pairs.iter().filter(|pair| pair.has(host)) {
                state.heal(pair);
            }
        });
        self.shared.changed.notify_waiters();
    }

    /// Ends all partitions.
    pub fn heal_all(&self) {
        self.with(|state| {
            state.isolated.clear();
            for pair in state.links.partitions() {
                state.heal(&pair);
            }
        });
        self.shared.changed.notify_waiters();
    }

    /// Breaks the connections between two hosts at once, partition or not: both ends get `ConnectionReset`
    /// after what had arrived. New ones can be made.
    pub fn cut(&self, one: &str, other: &str) {
        let pair = Pair::of(one, other);
        self.with(|state| state.break_off(|connection| *connection.pair() == pair));
    }

    /// Ends what a host has on the network, at once: breaks its connections, fails its connects under way,
    /// and closes its listeners, whose `accept` fails from then on.
    ///
    /// The host may listen and connect anew. Its tasks live on: a test that lets a whole process die ends
    /// them too.
    pub fn crash(&self, host: &str) {
        self.with(|state| {
            state.break_off(|connection| connection.pair().has(host));
            let Some(crashed) = state.hosts.get_mut(host) else {
                return;
            };
            crashed.crashes += 1;
            for bound in std::mem::take(&mut crashed.listeners).into_values() {
                state.close(bound);
            }
        });
        self.shared.changed.notify_waiters();
    }

    /// A partition will be healed, or a host crash, after this call.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.shared.changed.notified()
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let state = &self.shared.state;
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = act(&mut state);
        let woken = std::mem::take(&mut state.woken);
        drop(state);
        woken.into_iter().for_each(Waker::wake);
        outcome
    }

    // ---- the halves of connections -------------------------------------------------------------

    pub(super) fn read(
        &self,
        id: ConnectionId,
        side: Side,
        buffer: &mut ReadBuf<'_>,
        reader: &Waker,
    ) -> Attempt<()> {
        self.with(|state| {
            let (connection, _, woken) = state.connection(id);
            connection.read(side, buffer, now(), reader, woken)
        })
    }

    pub(super) fn write(
        &self,
        id: ConnectionId,
        side: Side,
        bytes: &[u8],
        writer: &Waker,
    ) -> Attempt<usize> {
        self.with(|state| {
            let (connection, links, woken) = state.connection(id);
            connection.write(side, bytes, links, now(), writer, woken)
        })
    }

    pub(super) fn finish(&self, id: ConnectionId, side: Side) {
        self.with(|state| {
            let (connection, links, woken) = state.connection(id);
            connection.finish(side, links, now(), woken);
        });
    }

    pub(super) fn drop_writer(&self, id: ConnectionId, side: Side) {
        self.finish(id, side);
        self.with(|state| state.drop_halves(id, 1));
    }

    pub(super) fn drop_reader(&self, id: ConnectionId, side: Side) {
        self.with(|state| {
            let (connection, links, woken) = state.connection(id);
            connection.refuse(side, links, now(), woken);
            state.drop_halves(id, 1);
        });
    }
}

impl fmt::Debug for SimNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimNetwork")
            .field("seed", &self.shared.seed)
            .finish_non_exhaustive()
    }
}

impl State {
    fn add_host(&mut self, name: &Arc<str>) {
        if self.hosts.contains_key(name) {
            return;
        }
        let host = Host {
            listeners: BTreeMap::new(),
            next_port: *EPHEMERAL_PORTS.start(),
            crashes: 0,
        };
        self.hosts.insert(Arc::clone(name), host);
        for other in &self.isolated {
            if other != name {
                self.links.partition(Pair::of(name, other));
            }
        }
    }

    fn partition(&mut self, pair: Pair) {
        if self.links.partition(pair.clone()) {
            for open in self.connections.values_mut() {
                if *open.connection.pair() == pair {
                    open.connection.hold(now());
                }
            }
        }
    }

    fn heal(&mut self, pair: &Pair) {
        if self.links.heal(pair) {
            for open in self.connections.values_mut() {
                if open.connection.pair() == pair {
                    open.connection
                        .release(&mut self.links, now(), &mut self.woken);
                }
            }
        }
    }

    fn break_off(&mut self, which: impl Fn(&SimConnection) -> bool) {
        for open in self.connections.values_mut() {
            if which(&open.connection) {
                open.connection.break_off(now(), &mut self.woken);
            }
        }
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    pub(super) fn host(&mut self, name: &str) -> &mut Host {
        self.hosts
            .get_mut(name)
            .expect("a host that was made is never removed")
    }

    pub(super) fn connection(
        &mut self,
        id: ConnectionId,
    ) -> (&mut SimConnection, &mut Links, &mut Vec<Waker>) {
        let open = self.connections.get_mut(&id);
        let open = open.expect("a connection is there for as long as a half of it");
        (&mut open.connection, &mut self.links, &mut self.woken)
    }

    fn drop_halves(&mut self, id: ConnectionId, halves: u8) {
        if let Some(open) = self.connections.get_mut(&id) {
            open.halves -= halves;
            if open.halves == 0 {
                self.connections.remove(&id);
            }
        }
    }

    /// A caller's first sign has arrived. None: nobody listens, or too many wait.
    pub(super) fn arrive(
        &mut self,
        pair: Pair,
        to: (&str, u16),
        caller: String,
    ) -> Option<ConnectionId> {
        let id = ConnectionId(self.next_id());
        let bound = self.hosts.get_mut(to.0)?.listeners.get_mut(&to.1)?;
        if bound.queue.len() >= BACKLOG {
            return None;
        }
        bound.queue.push_back((id, caller));
        self.woken.extend(bound.acceptor.take());
        let connection = SimConnection::new(pair);
        self.connections.insert(
            id,
            Open {
                connection,
                halves: 4,
            },
        );
        Some(id)
    }

    /// Breaks the connections that nobody will accept.
    pub(super) fn close(&mut self, bound: Bound) {
        self.woken.extend(bound.acceptor);
        for (id, _) in bound.queue {
            let (connection, _, woken) = self.connection(id);
            connection.break_off(now(), woken);
            self.drop_halves(id, 2);
        }
    }
}

impl Host {
    pub(super) fn ephemeral_port(&mut self) -> Option<u16> {
        EPHEMERAL_PORTS.into_iter().find_map(|_| {
            let port = self.next_port;
            self.next_port = port.checked_add(1).unwrap_or(*EPHEMERAL_PORTS.start());
            (!self.listeners.contains_key(&port)).then_some(port)
        })
    }
}
