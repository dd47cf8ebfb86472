//! Where bytes come from: the seam for TLS, in-memory pipes and simulated networks.

use std::fmt;
use std::io;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};

use crate::unix;

/// What an address begins with that is the path of a Unix domain socket.
pub(crate) const UNIX_PREFIX: &str = "unix:";

/// A network that can be called and listened on. Addresses are `host:port`, or `unix:/path`.
#[async_trait]
pub trait Network: fmt::Debug + Send + Sync + 'static {
    /// Connects to a listener; names are resolved anew at each call.
    async fn connect(&self, address: &str) -> io::Result<Stream>;
    /// Listens; port 0 picks a free one.
    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>>;
}

/// A bound port.
#[async_trait]
pub trait Listener: Send {
    /// The address bound, with the real port.
    fn local_address(&self) -> io::Result<String>;
    /// The next connection. Cancel safe.
    async fn accept(&mut self) -> io::Result<Stream>;
}

/// One connection, as two halves.
pub struct Stream {
    /// Bytes from the peer.
    pub reader: Box<dyn AsyncRead + Send + Unpin>,
    /// Bytes to the peer.
    pub writer: Box<dyn AsyncWrite + Send + Unpin>,
    /// The peer's address as the network knows it.
    pub peer_address: String,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("peer_address", &self.peer_address)
            .finish_non_exhaustive()
    }
}

/// How many bytes the system may hold that it has not sent yet. A small frame waits for all of them: beside a
/// large message over a link of 100 Mbit/s that is 40 ms, and 300 ms without this limit.
#[cfg(any(target_os = "android", target_os = "linux"))]
const UNSENT_BYTES: u32 = 256 << 10;

/// TCP, without Nagle's delay; and Unix domain sockets, at addresses of the form `unix:/path`.
///
/// A socket file is for its user alone (mode 0600). One that was left behind by a process that ended is replaced, and a
/// server that stops removes its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

#[async_trait]
impl Network for Tcp {
    async fn connect(&self, address: &str) -> io::Result<Stream> {
        if let Some(path) = address.strip_prefix(UNIX_PREFIX) {
            return unix::connect(path).await;
        }
        Ok(tcp_stream(TcpStream::connect(address).await?)?)
    }

    async fn bind(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        if let Some(path) = address.strip_prefix(UNIX_PREFIX) {
            return unix::bind(path).await;
        }
        Ok(Box::new(TcpListener::bind(address).await?))
    }
}

#[async_trait]
impl Listener for TcpListener {
    fn local_address(&self) -> io::Result<String> {
        Ok(self.local_addr()?.to_string())
    }

    async fn accept(&mut self) -> io::Result<Stream> {
        tcp_stream(Self::accept(self).await?.0)
    }
}

fn tcp_stream(stream: TcpStream) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    // Where the system does not know it, small frames wait longer beside large ones; no more than that.
    #[cfg(any(target_os = "android", target_os = "linux"))]
    drop(socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT_BYTES));
    let peer_address = stream.peer_addr()?.to_string();
    let (reader, writer) = stream.into_split();
    Ok(Stream {
        reader: Box::new(reader),
        writer: Box::new(writer),
        peer_address,
    })
}
