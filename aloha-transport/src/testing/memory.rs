//! The network in memory that delivers at once.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use crate::stream::{Listener, Network, Stream};

/// Bytes that one direction of a connection holds before its writer waits.
const PIPE_BYTES: usize = 64 << 10;
/// Connections that wait to be accepted.
const BACKLOG: usize = 1024;

/// Names to listeners. Clones are the same network.
#[derive(Debug, Clone, Default)]
pub struct MemoryNetwork {
    ports: Arc<Mutex<Ports>>,
}

#[derive(Debug, Default)]
struct Ports {
    listeners: HashMap<String, mpsc::Sender<Stream>>,
    next_port: u16,
    connections: u64,
}

#[async_trait]
impl Network for MemoryNetwork {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        let (listener, caller) = {
            let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
            ports.connections += 1;
            let caller = format!("memory:{}", ports.connections);
            (ports.listeners.get(address).cloned(), caller)
        };
        let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (here, there) = tokio::io::duplex(PIPE_BYTES);
        let accepted = split(there, caller);
        listener
            .send(accepted)
            .await
            .map_err(|_| io::ErrorKind::ConnectionRefused)?;
        Ok(split(here, address.to_owned()))
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut address = address.to_owned();
        if let Some(host) = address.strip_suffix(":0") {
            ports.next_port += 1;
            address = format!("{host}:{}", ports.next_port);
        }
        if ports
            .listeners
            .get(&address)
            .is_some_and(|listener| !listener.is_closed())
        {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (calls, queue) = mpsc::channel(BACKLOG);
        ports.listeners.insert(address.clone(), calls);
        Ok(Box::new(MemoryListener { address, queue }))
    }
}

struct MemoryListener {
    address: String,
    queue: mpsc::Receiver<Stream>,
}

#[async_trait]
impl Listener for MemoryListener {
    fn local_address(&self) -> io::Result<String> {
        Ok(self.address.clone())
    }

    async fn accept(&mut self) -> io::Result<Stream> {
        self.queue
            .recv()
            .await
            .ok_or_else(|| io::ErrorKind::BrokenPipe.into())
    }
}

fn split(pipe: tokio::io::DuplexStream, peer_address: String) -> Stream {
    let (reader, writer) = tokio::io::split(pipe);
    Stream {
        reader: Box::new(reader),
        writer: Box::new(writer),
        peer_address,
    }
}
