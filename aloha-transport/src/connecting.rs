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
