//! The bodies of requests: how large one may be, how long it may take, and what all of them may hold together.
//!
//! A request is routed once its body is there as a whole, so that no handler waits for a slow client.

use std::fmt::Display;
use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Bytes, HttpBody};

use super::budget::{Budget, Share};
use super::error::RestError;
use super::limits::RestLimits;
use super::places::RETRY_AFTER_MILLIS;

/// Reads bodies within the limits.
#[derive(Debug)]
pub(super) struct BodyReader {
    limits: RestLimits,
    budget: Budget,
}

/// A body that arrived whole.
#[derive(Debug)]
pub(super) struct WholeBody {
    bytes: Bytes,
    share: Share,
}

impl WholeBody {
    /// Its bytes, and what is to be kept for as long as they are.
    pub(super) fn into_parts(self) -> (Bytes, Share) {
        (self.bytes, self.share)
    }
}

impl BodyReader {
    pub(super) fn new(limits: RestLimits) -> Self {
        Self {
            limits,
            budget: Budget::new(limits.bodies_bytes_max),
        }
    }

    /// Reads a body whole.
    pub(super) async fn read<B>(&self, body: B) -> Result<WholeBody, RestError>
    where
        B: HttpBody<Data = Bytes, Error: Display> + Unpin,
    {
        let timeout = self.limits.body_timeout;
        // Nothing is timed where it is here already.
        tokio::time::timeout(timeout, self.collect(body))
            .await
            .unwrap_or(Err(RestError::TooSlow { timeout }))
    }

    async fn collect<B>(&self, mut body: B) -> Result<WholeBody, RestError>
    where
        B: HttpBody<Data = Bytes, Error: Display> + Unpin,
    {
        let bytes_max = self.limits.body_bytes_max;
        let too_large = || RestError::TooLarge { bytes_max };
        if usize::try_from(body.size_hint().lower()).map_or(true, |least| least > bytes_max) {
            return Err(too_large());
        }
        let mut share = self.budget.share();
        let mut whole = Gathered::default();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let frame = frame.map_err(|error| {
                RestError::Malformed(format!("the body cannot be read: {error}"))
            })?;
            // What follows a body says nothing to us.
            let Ok(piece) = frame.into_data() else {
                continue;
            };
            if share.bytes().saturating_add(piece.len()) > bytes_max {
                return Err(too_large());
            }
            if !share.grow(piece.len()) {
                return Err(RestError::Busy {
                    reason: format!(
                        "requests under way hold {} bytes already (aloha.master.rest.bodiesBytesMax), try again",
                        self.limits.bodies_bytes_max
                    ),
                    retry_after_millis: RETRY_AFTER_MILLIS,
                });
            }
            whole.push(piece);
        }
        Ok(WholeBody {
            bytes: whole.into_bytes(),
            share,
        })
    }
}

/// Pieces put together; a single one is not copied.
#[derive(Debug, Default)]
enum Gathered {
    #[default]
    Nothing,
    One(Bytes),
    Many(Vec<u8>),
}

impl Gathered {
    fn push(&mut self, piece: Bytes) {
        *self = match std::mem::take(self) {
            Self::Nothing => Self::One(piece),
            Self::One(first) => Self::Many([first, piece].concat()),
            Self::Many(mut bytes) => {
                bytes.extend_from_slice(&piece);
                Self::Many(bytes)
            }
        };
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::Nothing => Bytes::new(),
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::time::Duration;

    use axum::body::Body;
    use hyper::body::Frame;
    use tokio_util::sync::CancellationToken;

    use super::*;

    /// A body that comes in pieces, and after them ends, or never does.
    struct Pieces {
        pieces: Vec<&'static str>,
        ends: bool,
    }

    impl HttpBody for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            use std::task::Poll;
            if self.pieces.is_empty() {
                return if self.ends {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            }
            let piece = Bytes::from(self.pieces.remove(0));
            Poll::Ready(Some(Ok(Frame::data(piece))))
        }
    }

    fn pieces(pieces: &[&'static str], ends: bool) -> Body {
        Body::new(Pieces {
            pieces: pieces.to_vec(),
            ends,
        })
    }

    fn reader() -> BodyReader {
        BodyReader::new(RestLimits {
            body_bytes_max: 6,
            bodies_bytes_max: 10,
            body_timeout: Duration::from_secs(3),
            ..RestLimits::default()
        })
    }

    #[tokio::test]
    async fn pieces_are_put_together_in_their_order() {
        for parts in [&[][..], &["ab"], &["ab", "cd"], &["a", "b", "c", "d"]] {
            let read = reader().read(pieces(parts, true)).await.expect("read");
            assert_eq!(read.bytes, parts.concat());
        }
    }

    #[tokio::test]
    async fn a_body_is_too_large_as_soon_as_that_is_known() {
        let announced = reader().read(Body::from("1234567")).await;
        assert!(matches!(
            announced,
            Err(RestError::TooLarge { bytes_max: 6 })
        ));
        let arrived = reader().read(pieces(&["1234", "567"], false)).await;
        assert!(matches!(arrived, Err(RestError::TooLarge { bytes_max: 6 })));
        reader()
            .read(pieces(&["123", "456"], true))
            .await
            .expect("as large as may be");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_end_is_given_up_and_counts_no_more() {
        let reader = reader();
        let read = reader.read(pieces(&["123456"], false)).await;
        assert!(matches!(read, Err(RestError::TooSlow { .. })), "{read:?}");
        assert_eq!(reader.budget.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_bodies_hold_together_is_bounded_until_they_are_dropped() {
        let reader = Arc::new(reader());
        let first = reader.read(Body::from("123456")).await.expect("room");
        // One that is half there, and one that came whole and is worked on, count alike.
        let cut = CancellationToken::new();
        let (slow, stop) = (Arc::clone(&reader), cut.clone());
        let slow = tokio::spawn(async move {
            let reading = slow.read(pieces(&["123"], false));
            stop.run_until_cancelled(reading).await.is_none()
        });
        tokio::task::yield_now().await;
        let refused = reader.read(Body::from("12")).await.expect_err("no room");
        assert!(refused.to_string().contains("bodiesBytesMax"), "{refused}");
        reader.read(Body::from("1")).await.expect("room for one");
        cut.cancel();
        assert!(slow.await.expect("no panic"));
        reader.read(Body::from("1234")).await.expect("room again");
        drop(first);
        assert_eq!(reader.budget.held(), 0);
    }
}
