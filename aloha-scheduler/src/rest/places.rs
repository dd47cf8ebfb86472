//! How many requests are worked on at once.

use std::sync::Arc;

use axum::http::{Method, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::RestError;
use super::limits::RestLimits;

/// What a client is told to wait before it asks again: places are freed within milliseconds.
pub(super) const RETRY_AFTER_MILLIS: u64 = 1_000;

/// The places for requests. Those that wait for news have their own, or a thousand waiters would keep everybody out.
#[derive(Debug)]
pub(super) struct Places {
    short: Arc<Semaphore>,
    short_max: usize,
    long: Arc<Semaphore>,
    long_max: usize,
}

/// The place of one request, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    is_long: bool,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Whether its request waits for news.
    pub(super) fn is_long(&self) -> bool {
        self.is_long
    }
}

impl Places {
    pub(super) fn new(limits: &RestLimits) -> Self {
        let short_max = limits.requests_max;
        // Nobody takes the connection from one that waits for news: half of them are left to others.
        let connections_max = limits.connections_max.div_ceil(2);
        let long_max = limits.long_requests_max.min(connections_max);
        Self {
            short: Arc::new(Semaphore::new(short_max)),
            short_max,
            long: Arc::new(Semaphore::new(long_max)),
            long_max,
        }
    }

    /// A place for a request, or what it is answered instead.
    pub(super) fn take(&self, method: &Method, uri: &Uri) -> Result<Place, RestError> {
        // What changes something is never broken off, whatever its path looks like.
        let is_long = method.is_safe() && waits_for_news(uri);
        let places = if is_long { &self.long } else { &self.short };
        match Arc::clone(places).try_acquire_owned() {
            Ok(permit) => Ok(Place {
                is_long,
                _permit: permit,
            }),
            Err(_) => Err(RestError::Busy {
                reason: if is_long {
                    format!(
                        "{} requests wait for news already (aloha.master.rest.longRequestsMax, and half of connectionsMax at the most), \
                         try again",
                        self.long_max
                    )
                } else {
                    format!(
                        "{} requests are worked on already (aloha.master.rest.requestsMax), try again",
                        self.short_max
                    )
                },
                retry_after_millis: RETRY_AFTER_MILLIS,
            }),
        }
    }

    /// Requests that are worked on.
    pub(super) fn short_taken(&self) -> usize {
        self.short_max - self.short.available_permits()
    }

    /// Requests that wait for news.
    pub(super) fn long_taken(&self) -> usize {
        self.long_max - self.long.available_permits()
    }
}

/// Whether a request asks for what may come later: it waits for an application, or for output, which a worker has that
/// may have fallen silent.
fn waits_for_news(uri: &Uri) -> bool {
    let follows = |query: &str| {
        query.split('&').any(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            // Whoever writes a name in this way has something to hide.
            name == "follow" || name.contains('%')
        })
    };
    let path = uri.path();
    path.ends_with("/wait") || path.ends_with("/logs") || uri.query().is_some_and(follows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(requests_max: usize, long_requests_max: usize) -> Places {
        Places::new(&RestLimits {
            requests_max,
            long_requests_max,
            ..RestLimits::default()
        })
    }

    #[test]
    fn what_changes_something_does_not_wait_for_news() {
        let places = places(1, 1);
        for uri in ["/v1/submissions/create/wait", "/v1/applications?follow=1"] {
            let place = places.take(&Method::POST, &Uri::from_static(uri));
            assert!(!place.expect("a place").is_long(), "{uri}");
        }
    }

    #[test]
    fn those_that_wait_for_news_leave_the_places_of_others_free() {
        let places = places(1, 2);
        let take = |uri: &Uri| places.take(&Method::GET, uri);
        let output = Uri::from_static("/v1/applications/a/logs");
        let wait = Uri::from_static("/v1/applications/a/wait?seconds=30");
        let short = Uri::from_static("/v1/submissions/create?wait=1");
        let long = [output, wait].map(|uri| take(&uri).expect("a place"));
        assert!(long.iter().all(Place::is_long));
        let third = Uri::from_static("/v1/applications/a/other?%66ollow=true");
        let refused = take(&third).expect_err("no place").to_string();
        assert!(refused.contains("longRequestsMax"), "{refused}");
        let place = take(&short).expect("a place");
        assert!(!place.is_long());
        let refused = take(&short).expect_err("no place").to_string();
        assert!(refused.contains("requestsMax"), "{refused}");
        assert_eq!((places.short_taken(), places.long_taken()), (1, 2));
        drop((place, long));
        assert_eq!((places.short_taken(), places.long_taken()), (0, 0));
        take(&short).expect("a place again");
    }

    #[test]
    fn those_that_wait_for_news_leave_half_of_the_connections_to_others() {
        for (connections_max, long_max) in [(1, 1), (2, 1), (5, 3), (100, 8)] {
            let places = Places::new(&RestLimits {
                connections_max,
                long_requests_max: 8,
                ..RestLimits::default()
            });
            let wait = Uri::from_static("/v1/applications/a/wait");
            let taken: Vec<_> =
                std::iter::from_fn(|| places.take(&Method::GET, &wait).ok()).collect();
            assert_eq!(taken.len(), long_max, "{connections_max}");
        }
    }
}
