//! The two halves of one end of a simulated connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::sim_connection::{Attempt, Side};
use super::sim_network::{ConnectionId, SimNetwork};
use crate::stream::Stream;

/// One end of a connection, which holds it for as long as either half is there.
pub(super) fn stream(
    network: &SimNetwork,
    connection: ConnectionId,
    side: Side,
    peer_address: String,
) -> Stream {
    let half = || Half {
        network: network.clone(),
        connection,
        side,
        alarm: Alarm::default(),
    };
    Stream {
        reader: Box::new(SimReader(half())),
        writer: Box::new(SimWriter(half())),
        peer_address,
    }
}

struct SimReader(Half);

struct SimWriter(Half);

struct Half {
    network: SimNetwork,
    connection: ConnectionId,
    side: Side,
    alarm: Alarm,
}

/// A timer that is made when it is first needed.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Half {
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut attempt: impl FnMut(&SimNetwork, ConnectionId, Side, &Waker) -> Attempt<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt(&self.network, self.connection, self.side, cx.waker()) {
                Attempt::Done(outcome) => return Poll::Ready(outcome),
                Attempt::At(due) => ready!(self.alarm.poll(due, cx)),
                Attempt::Later => return Poll::Pending,
            }
        }
    }
}

impl AsyncRead for SimReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.poll(cx, |network, connection, side, waker| {
            network.read(connection, side, buffer, waker)
        })
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        self.0.network.drop_reader(self.0.connection, self.0.side);
    }
}

impl AsyncWrite for SimWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll(cx, |network, connection, side, waker| {
            network.write(connection, side, bytes, waker)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.network.finish(self.0.connection, self.0.side);
        Poll::Ready(Ok(()))
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        self.0.network.drop_writer(self.0.connection, self.0.side);
    }
}
