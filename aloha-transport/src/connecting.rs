//! How the caller's end of a connection comes about.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::context::TransportContext;
use crate::error::ConnectError;
use crate::handshake::{Answer, HANDSHAKE_BYTES_MAX, Hello, read_answer};
use crate::stream::Stream;

/// Connects and shakes hands; gives the stream, the peer's hello, and what came behind it.
pub(crate) async fn connect(
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
    context
        .limits()
        .check()
        .map_err(|source| ConnectError::Config {
            address: Arc::clone(address),
            source,
        })?;
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
    // Who hangs up at once may have said why.
    let said = say(&mut stream, &context.hello().encode()).await;
    let mut received = BytesMut::with_capacity(HANDSHAKE_BYTES_MAX);
    loop {
        let read = stream.reader.read_buf(&mut received).await;
        let ended = match read {
            Ok(0) => Some(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        if let Some(ended) = ended {
            return Err(io(said.err().unwrap_or(ended)));
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

async fn say(stream: &mut Stream, bytes: &[u8]) -> io::Result<()> {
    stream.writer.write_all(bytes).await?;
    stream.writer.flush().await
}
