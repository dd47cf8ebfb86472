//! Listens, shakes hands, and runs a connection for each peer.

use std::future::Future;
use std::io;
use std::net::Ipv6Addr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::client::TransportClient;
use crate::connection::Connection;
use crate::context::TransportContext;
use crate::error::{BindError, CloseReason};
use crate::handshake::{
    Answer, HANDSHAKE_BYTES_MAX, Hello, Refusal, RefusalCode, parting_words, read_hello,
};
use crate::handshakes::{Crowd, Handshakes, Unfinished};
use crate::stream::{Listener, Stream, UNIX_PREFIX};

/// How long the accept loop rests after the system refused a connection (out of descriptors, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port and its connections. Dropped, it stops listening; its connections live on until
/// [`stop`](Self::stop) or the peer ends them.
#[derive(Debug)]
pub struct TransportServer {
    address: String,
    connections: Arc<Connections>,
    stopped: CancellationToken,
    /// The listener is gone.
    deaf: CancellationToken,
    flush_timeout: Duration,
}

/// The connections of a server; none once it has stopped.
#[derive(Debug)]
struct Connections(Mutex<Option<Vec<Weak<Connection>>>>);

impl TransportServer {
    pub(crate) async fn bind(
        context: &TransportContext,
        address: &str,
        advertised_host: Option<&str>,
    ) -> Result<Self, BindError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse {
                address: address.to_owned(),
            },
            _ => BindError::Io {
                address: address.to_owned(),
                source,
            },
        };
        context
            .limits()
            .check()
            .map_err(|source| BindError::Config {
                address: address.to_owned(),
                source,
            })?;
        let listener = context.net().bind(address).await.map_err(failed)?;
        let mut address = listener.local_address().map_err(failed)?;
        if let Some(host) = advertised_host
            && !address.starts_with(UNIX_PREFIX)
        {
            let port = address.rsplit(':').next().unwrap_or_default();
            address = match host.parse::<Ipv6Addr>() {
                Ok(ip) => format!("[{ip}]:{port}"),
                Err(_) => format!("{host}:{port}"),
            };
        }
        context.advertise(address.clone());
        let server = Self {
            address,
            connections: Arc::new(Connections(Mutex::new(Some(Vec::new())))),
            stopped: CancellationToken::new(),
            deaf: CancellationToken::new(),
            flush_timeout: context.limits().flush_timeout,
        };
        let accepting = accept_loop(context.clone(), listener, Arc::clone(&server.connections));
        let (stopped, deaf) = (server.stopped.clone(), server.deaf.clone().drop_guard());
        context.spawn(async move {
            let _deaf = deaf;
            stopped.run_until_cancelled_owned(accepting).await;
        });
        Ok(server)
    }

    /// Where peers are told to call: `host:port`, with the real port; or `unix:/path`.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Stops listening; on each connection writes what is queued and answers what was asked, then closes it; waits for
    /// that no longer than [`TransportConfig::flush_timeout`](crate::TransportConfig::flush_timeout).
    pub async fn stop(self) {
        self.stopped.cancel();
        let open = self.connections.close();
        for connection in &open {
            connection.close_gracefully();
        }
        for connection in open {
            TransportClient::of(connection).closed().await;
        }
        // Then the address is free again, and the file of a socket gone.
        drop(tokio::time::timeout(self.flush_timeout, self.deaf.cancelled()).await);
    }
}

impl Drop for TransportServer {
    fn drop(&mut self) {
        self.stopped.cancel();
    }
}

impl Connections {
    /// Takes no more in; gives those that are open.
    fn close(&self) -> Vec<Arc<Connection>> {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = list.take().unwrap_or_default();
        open.iter().filter_map(Weak::upgrade).collect()
    }

    /// Takes a connection in, unless `connections_max` are there or the server has stopped.
    fn admit(&self, connection: &Arc<Connection>, connections_max: usize) -> Admission {
        let mut list = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(list) = list.as_mut() else {
            return Admission::Stopped;
        };
        if list.len() >= connections_max {
            list.retain(|connection| connection.strong_count() > 0);
        }
        if list.len() >= connections_max {
            return Admission::Busy;
        }
        list.push(Arc::downgrade(connection));
        Admission::Admitted
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Admission {
    Admitted,
    Busy,
    Stopped,
}

async fn accept_loop(
    context: TransportContext,
    mut listener: Box<dyn Listener>,
    connections: Arc<Connections>,
) {
    let mut handshakes = Handshakes::default();
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let unfinished = match handshakes.begin(&stream.peer_address, context.limits()) {
                    Ok(unfinished) => unfinished,
                    Err(crowd) => {
                        handshakes.log(&crowd, &stream.peer_address, context.now());
                        turn_away(stream, &crowd);
                        continue;
                    }
                };
                let connection = context.connection(&stream.peer_address, false);
                let admitted = connections.admit(&connection, context.limits().connections_max);
                if admitted == Admission::Stopped {
                    return;
                }
                let admitted = admitted == Admission::Admitted;
                let serving = context.clone();
                context.spawn(async move {
                    serve(&serving, &connection, stream, admitted, unfinished).await
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(
    context: &TransportContext,
    connection: &Arc<Connection>,
    mut stream: Stream,
    admitted: bool,
    unfinished: Unfinished,
) {
    let timeout = context.limits().handshake_timeout;
    let meeting = shake_hands(context, &mut stream, admitted);
    let met = {
        let meeting = pin!(tokio::time::timeout(timeout, meeting));
        let Some(met) = connection.unless_closed(meeting).await else {
            return;
        };
        met.unwrap_or(Err(Stranger::Silent(timeout)))
    };
    drop(unfinished);
    match met {
        Ok((hello, received)) => {
            info!(peer = %connection.peer(), name = hello.name, "connected");
            let client = TransportClient::of(Arc::clone(connection));
            let handler = || context.handler(&client);
            if let Some(writing) = connection.start(hello, stream, received, handler) {
                context.spawn(writing);
            }
        }
        Err(stranger) => {
            warn!(peer = %connection.peer(), reason = %stranger, "connection refused");
            connection.close(CloseReason::Protocol(stranger.to_string()));
        }
    }
}

/// Why a caller was turned away.
#[derive(Debug, thiserror::Error)]
enum Stranger {
    #[error("no handshake within {0:?}")]
    Silent(Duration),
    #[error("closed before the handshake was done")]
    Gone,
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not Aloha's protocol: {0}")]
    Protocol(String),
    #[error("{0}")]
    Refused(String),
}

async fn shake_hands(
    context: &TransportContext,
    stream: &mut Stream,
    admitted: bool,
) -> Result<(Hello, BytesMut), Stranger> {
    let mut received = BytesMut::with_capacity(512);
    loop {
        if stream.reader.read_buf(&mut received).await? == 0 {
            return Err(Stranger::Gone);
        }
        match read_hello(&received) {
            Ok(None) if received.len() < HANDSHAKE_BYTES_MAX => {}
            Ok(None) => return Err(Stranger::Protocol("its handshake does not end".to_owned())),
            Ok(Some((caller, consumed))) => {
                let ours = context.hello();
                let answer = if admitted {
                    ours.meet(&caller)
                } else {
                    busy(context)
                };
                stream.writer.write_all(&answer.encode()).await?;
                stream.writer.flush().await?;
                return match answer {
                    Answer::Welcome(welcome) => {
                        drop(received.split_to(consumed));
                        Ok((
                            Hello {
                                versions: welcome.versions,
                                ..caller
                            },
                            received,
                        ))
                    }
                    Answer::Refusal(refusal) => {
                        drop(stream.writer.shutdown().await);
                        Err(Stranger::Refused(refusal.text))
                    }
                };
            }
            Err(error) => {
                stream.writer.write_all(&parting_words(&error)).await?;
                drop(stream.writer.shutdown().await);
                return Err(Stranger::Protocol(error.to_string()));
            }
        }
    }
}

fn busy(context: &TransportContext) -> Answer {
    let text = format!(
        "it holds {} connections, and that is its limit",
        context.limits().connections_max
    );
    Answer::Refusal(Refusal {
        code: RefusalCode::BUSY,
        text,
    })
}

/// Says why, as far as that takes no waiting, and hangs up.
fn turn_away(mut stream: Stream, crowd: &Crowd) {
    let refusal = Answer::Refusal(Refusal {
        code: RefusalCode::BUSY,
        text: crowd.to_string(),
    })
    .encode();
    let mut cx = Context::from_waker(Waker::noop());
    let written = pin!(stream.writer.write_all(&refusal)).poll(&mut cx);
    if written.is_ready() {
        let _hint = pin!(stream.writer.shutdown()).poll(&mut cx);
    }
}
