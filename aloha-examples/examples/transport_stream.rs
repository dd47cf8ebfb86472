//! Streams behind a request and its reply, over a Unix domain socket: what is sent comes back in upper case, of any
//! length and in little memory.
#![expect(clippy::print_stdout, reason = "an example talks to whoever runs it")]

use std::io::{self, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aloha_transport::{
    BodyStream, RpcHandler, RpcResponseCallback, TransportClient, TransportContext,
};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

/// Answers each stream with the same in upper case, while it comes.
#[derive(Debug)]
struct Shout;

impl RpcHandler for Shout {
    fn receive(&self, _: &TransportClient, _: Bytes, _: RpcResponseCallback) {}

    fn receive_stream(
        &self,
        _: &TransportClient,
        message: Bytes,
        stream: BodyStream,
        callback: RpcResponseCallback,
    ) {
        callback.on_success_stream(&message, Upper(stream));
    }
}

/// Reads in upper case.
struct Upper(BodyStream);

impl AsyncRead for Upper {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        read: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = read.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, read))?;
        read.filled_mut()[before..].make_ascii_uppercase();
        Poll::Ready(Ok(()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = tempfile::tempdir()?;
    let address = format!("unix:{}", directory.path().join("shout").display());
    let context = TransportContext::new("shout", Shout);
    let server = context.create_server(&address).await?;
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await?;

    let verse = &b"it's all about falling in love\n"[..];
    let source = verse.chain(tokio::io::repeat(b'a').take(100 << 20));
    let limit = Duration::from_secs(60);
    let asked = client.send_rpc_with_and_for_stream(b"here it comes", source, limit);
    let (_, mut shouted) = asked.await?;
    let mut line = vec![0; verse.len()];
    shouted.read_exact(&mut line).await?;
    io::stdout().write_all(&line)?;
    let rest = tokio::io::copy(&mut shouted, &mut tokio::io::sink()).await?;
    println!("and {rest} bytes more");

    factory.close();
    server.stop().await;
    Ok(())
}
