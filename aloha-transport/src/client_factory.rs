//! Address → clients: a few connections per peer, each made when it is first needed.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::back_off::BackOff;
use crate::client::TransportClient;
use crate::connecting;
use crate::connection::Connection;
use crate::context::TransportContext;
use crate::error::{CloseReason, ConnectError};

/// Makes clients and keeps up to [`connections_per_peer`](crate::TransportConfig::connections_per_peer) per address.
///
/// A connection that was closed in good order still brings its last messages to their receiver; the one that takes its
/// place is made after that, so that nothing overtakes. After an attempt has failed, further ones to the same
/// address fail at once for a while: see [`ConnectError::FastFail`].
#[derive(Debug)]
pub struct TransportClientFactory {
    context: TransportContext,
    pool: Arc<Mutex<Pool>>,
}

#[derive(Debug)]
enum Pool {
    Open(BTreeMap<Arc<str>, Peer>),
    Closed,
}

/// The connections to one address.
#[derive(Debug, Default)]
struct Peer {
    slots: Vec<Slot>,
    /// The slot of the next who does not care which.
    next: usize,
    back_off: BackOff,
}

#[derive(Debug, Default)]
struct Slot {
    client: Option<TransportClient>,
    /// Take nothing new, and are not over yet.
    leaving: Vec<TransportClient>,
}

impl TransportClientFactory {
    pub(crate) fn new(context: TransportContext) -> Self {
        Self {
            context,
            pool: Arc::new(Mutex::new(Pool::Open(BTreeMap::new()))),
        }
    }

    /// A client for `address`, at once: what is sent waits until it is connected. Calls take the connections to
    /// the address in turn; a client whose connection takes nothing any more is replaced by a new one.
    ///
    /// # Errors
    ///
    /// The factory is closed.
    pub fn client(&self, address: &str) -> Result<TransportClient, ConnectError> {
        self.client_of(address, None)
    }

    /// As [`client`](Self::client), but always by the same connection, which `key` chooses: what is sent with one key
    /// keeps its order.
    ///
    /// # Errors
    ///
    /// The factory is closed.
    pub fn client_at(&self, address: &str, key: usize) -> Result<TransportClient, ConnectError> {
        self.client_of(address, Some(key))
    }

    fn client_of(
        &self,
        address: &str,
        key: Option<usize>,
    ) -> Result<TransportClient, ConnectError> {
        let mut pool = lock(&self.pool);
        let Pool::Open(peers) = &mut *pool else {
            return Err(ConnectError::Closed {
                address: address.into(),
            });
        };
        let count = self.context.limits().connections_per_peer.max(1);
        if let Some(peer) = peers.get_mut(address) {
            let at = peer.choose(key, count);
            if let Some(client) = peer.slots[at].active() {
                return Ok(client.clone());
            }
        } else {
            // A map that grows looks for what nobody needs any more.
            let now = self.context.now();
            peers.retain(|_, peer| peer.is_in_use() || peer.back_off.retry_in(now).is_some());
            let mut peer = Peer::default();
            peer.slots.resize_with(count, Slot::default);
            peers.insert(address.into(), peer);
        }
        let connection = self.context.connection(address, true);
        let client = TransportClient::of(Arc::clone(&connection));
        let peer = peers.get_mut(address).expect("found or made above");
        let at = match key {
            Some(key) => key % count,
            None => peer.last(count),
        };
        let leaving = peer.slots[at].replace(client.clone());
        drop(pool);
        connection.keep();
        let (context, pool) = (self.context.clone(), Arc::clone(&self.pool));
        self.context.spawn(async move {
            let ended = pin!(end_of(&context, leaving));
            if connection.unless_closed(ended).await.is_some() {
                connect_and_run(&context, &pool, &connection).await;
            }
        });
        Ok(client)
    }

    /// A client for `address`, connected.
    ///
    /// # Errors
    ///
    /// The connection cannot be made, or the factory is closed.
    pub async fn create_client(&self, address: &str) -> Result<TransportClient, ConnectError> {
        let client = self.client(address)?;
        match client.connected().await {
            Ok(()) => Ok(client),
            Err(CloseReason::NotConnected(error)) => Err(error),
            Err(_) => Err(ConnectError::Closed {
                address: address.into(),
            }),
        }
    }

    /// Closes every client; what is queued is written, and what peers asked is answered first. No client is made after
    /// that.
    pub fn close(&self) {
        let pool = std::mem::replace(&mut *lock(&self.pool), Pool::Closed);
        if let Pool::Open(peers) = pool {
            let slots = peers.values().flat_map(|peer| &peer.slots);
            slots
                .filter_map(|slot| slot.client.as_ref())
                .for_each(TransportClient::close);
        }
    }
}

fn lock(pool: &Mutex<Pool>) -> MutexGuard<'_, Pool> {
    pool.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Peer {
    /// The slot of this call.
    fn choose(&mut self, key: Option<usize>, count: usize) -> usize {
        match key {
            Some(key) => key % count,
            None => {
                self.next = (self.next + 1) % count;
                self.next
            }
        }
    }

    /// The slot that was chosen last.
    fn last(&self, count: usize) -> usize {
        self.next % count
    }

    fn is_in_use(&self) -> bool {
        let mut slots = self.slots.iter();
        slots.any(|slot| slot.active().is_some() || slot.leaving().next().is_some())
    }
}

impl Slot {
    fn active(&self) -> Option<&TransportClient> {
        self.client.as_ref().filter(|client| client.is_active())
    }

    /// Those whose last messages may still be under way.
    fn leaving(&self) -> impl Iterator<Item = &TransportClient> {
        let all = self.leaving.iter().chain(&self.client);
        all.filter(|client| !client.is_active() && !client.is_closed())
    }

    /// Puts a new client in its place; gives those it must not overtake.
    fn replace(&mut self, client: TransportClient) -> Vec<TransportClient> {
        self.leaving = self.leaving().cloned().collect();
        self.client = Some(client);
        self.leaving.clone()
    }
}

/// Waits for the last messages of earlier connections, no longer than the flush may take.
async fn end_of(context: &TransportContext, leaving: Vec<TransportClient>) {
    if leaving.is_empty() {
        return;
    }
    let ended = async {
        for client in leaving {
            client.closed().await;
        }
    };
    drop(tokio::time::timeout(context.limits().flush_timeout, ended).await);
}

async fn connect_and_run(
    context: &TransportContext,
    pool: &Mutex<Pool>,
    connection: &Arc<Connection>,
) {
    let address = connection.peer();
    if let Some(error) = with_back_off(pool, address, |back_off| {
        back_off.fast_fail(address, context.now())
    }) {
        return connection.close(CloseReason::NotConnected(error));
    }
    let connecting = pin!(connecting::connect(context, address));
    let Some(connected) = connection.unless_closed(connecting).await else {
        return;
    };
    match connected {
        Ok((stream, hello, received)) => {
            with_back_off(pool, address, |back_off| {
                back_off.reset();
                None
            });
            let client = TransportClient::of(Arc::clone(connection));
            let handler = || context.handler(&client);
            if let Some(writing) = connection.start(hello, stream, received, handler) {
                context.spawn(writing);
            }
        }
        Err(error) => {
            with_back_off(pool, address, |back_off| {
                back_off.failed(&error, context);
                None
            });
            connection.close(CloseReason::NotConnected(error));
        }
    }
}

fn with_back_off(
    pool: &Mutex<Pool>,
    address: &Arc<str>,
    act: impl FnOnce(&mut BackOff) -> Option<ConnectError>,
) -> Option<ConnectError> {
    match &mut *lock(pool) {
        Pool::Open(peers) => peers
            .get_mut(address)
            .and_then(|peer| act(&mut peer.back_off)),
        Pool::Closed => None,
    }
}
