//! One host of a simulated network: its calls and its listeners.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use tokio::time::sleep_until;

use super::now;
use super::sim_connection::Side;
use super::sim_links::Pair;
use super::sim_network::{Bound, SimNetwork};
use super::sim_stream::stream;
use crate::stream::{Listener, Network, Stream};

/// The network as one host sees it.
#[derive(Debug)]
pub(super) struct SimHost {
    network: SimNetwork,
    name: Arc<str>,
}

impl SimHost {
    /// The host is one of the network's.
    pub(super) fn new(network: SimNetwork, name: Arc<str>) -> Self {
        Self { network, name }
    }

    /// Lets a connect cross from one host to the other; after a partition it sets out anew.
    async fn cross(&self, pair: &Pair, crashes: u64) -> io::Result<()> {
        loop {
            let changed = self.network.changed();
            let due = self.network.with(|state| {
                if state.host(&self.name).crashes == crashes {
                    Ok(state.links.signal(pair, now()))
                } else {
                    Err(io::ErrorKind::ConnectionAborted)
                }
            })?;
            let Some(due) = due else {
                changed.await;
                continue;
            };
            sleep_until(due).await;
            if !self.network.with(|state| state.links.are_parted(pair)) {
                return Ok(());
            }
        }
    }
}

#[async_trait]
impl Network for SimHost {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        let (host, port) = parse(address)?;
        let pair = Pair::of(&self.name, host);
        let (from, crashes) = self.network.with(|state| {
            let caller = state.host(&self.name);
            (caller.ephemeral_port(), caller.crashes)
        });
        let from = from.ok_or(io::ErrorKind::AddrNotAvailable)?;
        self.cross(&pair, crashes).await?;
        let caller = format!("{}:{from}", self.name);
        let accepted = self
            .network
            .with(|state| state.arrive(pair.clone(), (host, port), caller));
        // The stream is made here, so that a connect that is given up lets go of its connection.
        let connected =
            accepted.map(|id| (id, stream(&self.network, id, Side::Caller, address.into())));
        self.cross(&pair, crashes).await?;
        let (id, stream) = connected.ok_or(io::ErrorKind::ConnectionRefused)?;
        if self
            .network
            .with(|state| state.connection(id).0.is_broken())
        {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(stream)
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let (host, port) = parse(address)?;
        if *host != *self.name {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        self.network.with(|state| {
            let id = state.next_id();
            let host = state.host(&self.name);
            let port = match port {
                0 => host.ephemeral_port().ok_or(io::ErrorKind::AddrInUse)?,
                port => port,
            };
            if host.listeners.contains_key(&port) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let bound = Bound {
                id,
                queue: VecDeque::new(),
                acceptor: None,
            };
            host.listeners.insert(port, bound);
            let listener: Box<dyn Listener> = Box::new(SimListener {
                network: self.network.clone(),
                host: Arc::clone(&self.name),
                port,
                id,
            });
            Ok(listener)
        })
    }
}

struct SimListener {
    network: SimNetwork,
    host: Arc<str>,
    port: u16,
    id: u64,
}

#[async_trait]
impl Listener for SimListener {
    fn local_address(&self) -> io::Result<String> {
        Ok(format!("{}:{}", self.host, self.port))
    }

    async fn accept(&mut self) -> io::Result<Stream> {
        let (id, caller) = std::future::poll_fn(|cx| {
            self.network.with(|state| {
                let bound = state.host(&self.host).listeners.get_mut(&self.port);
                let Some(bound) = bound.filter(|bound| bound.id == self.id) else {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionAborted));
                };
                if let Some(accepted) = bound.queue.pop_front() {
                    return Poll::Ready(Ok(accepted));
                }
                bound.acceptor = Some(cx.waker().clone());
                Poll::Pending
            })
        })
        .await?;
        Ok(stream(&self.network, id, Side::Acceptor, caller))
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.with(|state| {
            let listeners = &mut state.host(&self.host).listeners;
            if listeners
                .get(&self.port)
                .is_some_and(|bound| bound.id == self.id)
                && let Some(bound) = listeners.remove(&self.port)
            {
                state.close(bound);
            }
        });
    }
}

fn parse(address: &str) -> io::Result<(&str, u16)> {
    let invalid = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("no host:port: {address}"),
        )
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    Ok((host, port.parse().map_err(|_| invalid())?))
}
