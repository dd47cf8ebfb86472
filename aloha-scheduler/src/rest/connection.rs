//! One connection, from its first byte to its close.

use std::convert::Infallible;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::RestError;
use super::server::Shared;
use super::watch::{Phase, Watch};
use super::watched::{Answer, Kept, Stranger, WatchedBody, WatchedStream};

/// How long a client may take to read the last answer and to close its side. Were it closed before that, the system
/// would throw away what the client has not read yet.
const LINGER: Duration = Duration::from_secs(1);
/// What is read at once of what nobody wants.
const IGNORED_BYTES: usize = 16 << 10;

/// How a connection ends.
#[derive(Debug)]
enum End {
    /// As HTTP has it: the client left, or an answer was the last.
    Proper,
    /// Without a word.
    Silent,
    /// With a last answer, which says why.
    Told(RestError),
}

/// Serves one connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    watch: &Arc<Watch>,
    router: &TowerToHyperService<Router>,
    shared: &Shared,
) {
    let io = TokioIo::new(WatchedStream::new(stream, Arc::clone(watch)));
    let service = service_fn(|request| answer(request, watch, router, shared));
    let mut http = shared.http().serve_connection(io, service);
    let end = {
        let mut woken = pin!(watch.woken());
        let mut is_finishing = false;
        let served = poll_fn(|cx| {
            loop {
                if !is_finishing && shared.is_stopping() {
                    is_finishing = true;
                    Pin::new(&mut http).graceful_shutdown();
                }
                if Pin::new(&mut http).poll(cx).is_ready() {
                    return Poll::Ready(End::Proper);
                }
                if woken.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                woken.set(watch.woken());
                if let Some(end) = end_of(watch, shared) {
                    return Poll::Ready(end);
                }
            }
        });
        served.await
    };
    let is_stalled = watch.stalled_since().is_some();
    watch.enter(Phase::Closing);
    let (stream, stranger) = http.into_parts().io.into_inner().into_parts();
    let last = match (end, stranger) {
        (End::Proper, Some(Stranger::Rpc)) => Some(RestError::Malformed(
            "this port speaks HTTP; Aloha's RPC has a port of its own".into(),
        )),
        (End::Proper, Some(Stranger::Http2)) => Some(RestError::Http2),
        (End::Proper, None) => None,
        (End::Told(error), _) => Some(error),
        (End::Silent, _) => {
            if is_stalled {
                // Or the system would go on for minutes to send what nobody takes.
                drop(stream.set_zero_linger());
            }
            return;
        }
    };
    part(stream, last).await;
}

/// Whether a connection must end now, and how.
fn end_of(watch: &Watch, shared: &Shared) -> Option<End> {
    let phase = watch.phase();
    if shared.is_stopping() && (matches!(phase, Phase::Idle | Phase::Head) || watch.is_long()) {
        return Some(End::Silent);
    }
    if watch.take_eviction() {
        return Some(match phase {
            Phase::Head | Phase::Body => End::Told(RestError::evicted()),
            _ => End::Silent,
        });
    }
    shared.is_overdue(watch).then(|| match phase {
        Phase::Head => End::Told(RestError::SlowHead {
            timeout: shared.limits().header_timeout,
        }),
        _ => End::Silent,
    })
}

async fn answer(
    request: Request<Incoming>,
    watch: &Arc<Watch>,
    router: &TowerToHyperService<Router>,
    shared: &Shared,
) -> Result<axum::http::Response<Answer>, Infallible> {
    watch.enter(Phase::Busy);
    let (response, kept) = match process(request, watch, router, shared).await {
        Ok(answered) => answered,
        Err(refused) => (refused, Kept::default()),
    };
    Ok(response.map(|body| Answer::new(body, Arc::clone(watch), kept)))
}

/// Has a request answered, once it is there as a whole: until then it costs nobody a place.
async fn process(
    request: Request<Incoming>,
    watch: &Arc<Watch>,
    router: &TowerToHyperService<Router>,
    shared: &Shared,
) -> Result<(Response, Kept), Response> {
    let (head, body) = request.into_parts();
    let uri = head.uri.clone();
    let refused = |error: RestError| error.response_for(&uri);
    shared.check(&head).map_err(refused)?;
    let (body, share) = if body.is_end_stream() {
        (Body::empty(), None)
    } else {
        let read = shared.read_body(WatchedBody::new(body, Arc::clone(watch)));
        let whole = read.await.map_err(refused)?;
        let (bytes, share) = whole.into_parts();
        (Body::from(bytes), Some(share))
    };
    let place = shared.places().take(&head.method, &uri).map_err(refused)?;
    let (response, place) = if place.is_long() {
        watch.set_long(true);
        // It stays for long, and nobody reads what it brought.
        drop((body, share));
        let request = Request::from_parts(head, Body::empty());
        let response = tokio::select! {
            biased;
            Ok(response) = router.call(request) => response,
            () = shared.stopping() => refused(RestError::stopping()),
        };
        // An answer of known length is there as a whole; another one goes on.
        let goes_on = response.body().size_hint().exact().is_none();
        watch.set_long(goes_on);
        (response, goes_on.then_some(place))
    } else {
        let request = Request::from_parts(head, body);
        let Ok(response) = router.call(request).await;
        drop((place, share));
        (response, None)
    };
    let share = shared.share_of(response.body()).map_err(refused)?;
    Ok((response, Kept::new(place, share)))
}

/// Says a last word where there is one, and lets the client read it.
pub(super) async fn part(mut stream: TcpStream, last: Option<RestError>) {
    let parting = async {
        if let Some(error) = last {
            stream.write_all(&error.to_bytes()).await?;
        }
        stream.shutdown().await?;
        let mut ignored = vec![0; IGNORED_BYTES];
        while stream.read(&mut ignored).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that is gone, or does not read, is not waited for.
    drop(tokio::time::timeout(LINGER, parting).await);
}
