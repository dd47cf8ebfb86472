//! Address → client: one connection per peer, made when it is first needed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::TransportClient;
use crate::connection::Connection;
use crate::context::TransportContext;
use crate::error::{CloseReason, ConnectError};
use crate::handshake::{Answer, HANDSHAKE_BYTES_MAX, Hello, read_answer};
use crate::stream::Stream;

/// Makes clients and keeps one per address.
#[derive(Debug)]
pub struct TransportClientFactory {
    context: TransportContext,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
enum Pool {
    Open(BTreeMap<Arc<str>, TransportClient>),
    Closed,
}

impl TransportClientFactory {
    pub(crate) fn new(context: TransportContext) -> Self {
        Self {
            context,
            pool: Mutex::new(Pool::Open(BTreeMap::new())),
        }
    }

    /// The client for `address` (`host:port`), at once: what is sent waits until it is connected. A
    /// client whose connection has ended is replaced by a new one.
    ///
    /// # Errors
    ///
    /// The factory is closed.
    pub fn client(&self, address: &str) -> Result<TransportClient, ConnectError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let Pool::Open(clients) = &mut *pool else {
            return Err(ConnectError::Closed {
                address: address.into(),
            });
        };
        if let Some(client) = clients.get(address).filter(|client| client.is_active()) {
            return Ok(client.clone());
        }
        let connection = self.context.connection(address, true);
        let client = TransportClient::of(Arc::clone(&connection));
        clients.retain(|_, client| client.is_active());
        clients.insert(Arc::clone(connection.peer()), client.clone());
        drop(pool);
        let context = self.context.clone();
        connection.keep();
        self.context
            .spawn(async move { connect_and_run(&context, &connection).await });
        Ok(client)
    }

    /// The client for `address`, connected.
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

    /// Closes every client; what is queued is written first. No client is made after that.
    pub fn close(&self) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Pool::Open(clients) = std::mem::replace(&mut *pool, Pool::Closed) {
            drop(pool);
            clients.values().for_each(TransportClient::close);
        }
    }
}

async fn connect_and_run(context: &TransportContext, connection: &Arc<Connection>) {
    match connect(context, connection.peer()).await {
        Ok((stream, hello, received)) => {
            let client = TransportClient::of(Arc::clone(connection));
            let handler = || context.handler(&client);
            connection
                .run(hello, stream.reader, stream.writer, received, handler)
                .await;
        }
        Err(error) => connection.close(CloseReason::NotConnected(error)),
    }
}

async fn connect(
    context: &TransportContext,
    address: &Arc<str>,
) -> Result<(Stream, Hello, BytesMut), ConnectError> {
    let io = |source| ConnectError::Io {
        address: Arc::clone(address),
        source: Arc::new(source),
    };
    let timed_out = |timeout| ConnectError::TimedOut {
        address: Arc::clone(address),
        timeout,
    };
    let timeout = context.limits().connect_timeout;
    let stream = tokio::time::timeout(timeout, context.net().connect(address))
        .await
        .map_err(|_| timed_out(timeout))?
        .map_err(io)?;
    let timeout = context.limits().handshake_timeout;
    tokio::time::timeout(timeout, shake_hands(context, address, stream))
        .await
        .map_err(|_| timed_out(timeout))?
}

async fn shake_hands(
    context: &TransportContext,
    address: &Arc<str>,
    mut stream: Stream,
) -> Result<(Stream, Hello, BytesMut), ConnectError> {
    let io = |source| ConnectError::Io {
        address: Arc::clone(address),
        source: Arc::new(source),
    };
    stream
        .writer
        .write_all(&context.hello().encode())
        .await
        .map_err(io)?;
    stream.writer.flush().await.map_err(io)?;
    let mut received = BytesMut::with_capacity(HANDSHAKE_BYTES_MAX);
    loop {
        if stream.reader.read_buf(&mut received).await.map_err(io)? == 0 {
            return Err(io(io::ErrorKind::UnexpectedEof.into()));
        }
        let answer = read_answer(&received).map_err(|error| ConnectError::NotAloha {
            address: Arc::clone(address),
            reason: error.to_string(),
        })?;
        match answer {
            Some((Answer::Welcome(hello), consumed)) => {
                drop(received.split_to(consumed));
                return Ok((stream, hello, received));
            }
            Some((Answer::Refusal(refusal), _)) => {
                return Err(ConnectError::Refused {
                    address: Arc::clone(address),
                    refusal,
                });
            }
            None => {}
        }
    }
}
