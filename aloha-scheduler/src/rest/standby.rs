//! From a standby to the master that leads.
//!
//! Where a client is sent is what the leader said of itself when it stood for election, and nothing of the request: only who
//! may write to the election's store can name a place.

use axum::extract::Request;
use axum::http::{HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::election::MasterAddress;

/// Where the REST server of the master that leads is, on a response that sends its client there.
#[derive(Debug, Clone)]
pub(super) struct LeaderSite(String);

impl LeaderSite {
    /// The place of this master's server, if it has one that others can reach.
    pub(super) fn of(leader: &MasterAddress) -> Option<Self> {
        let url = leader.rest.as_deref()?;
        let uri: Uri = url.parse().ok()?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let is_bare = uri.path() == "/" && uri.query().is_none();
        let has_host = !uri.host()?.is_empty();
        (is_http && is_bare && has_host).then(|| Self(url.trim_end_matches('/').to_owned()))
    }

    /// The same path there, and the same query.
    fn location(&self, uri: &Uri) -> Option<HeaderValue> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        HeaderValue::try_from(format!("{}{path}", self.0)).ok()
    }
}

/// Says on each response that sends its client to the leader where that is.
pub(super) async fn add_location(request: Request, next: Next) -> Response {
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    if let Some(site) = response.extensions_mut().remove::<LeaderSite>()
        && let Some(location) = site.location(&uri)
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(rest: &str, uri: &'static str) -> Option<String> {
        let leader = MasterAddress {
            rpc: "m1:7077".to_owned(),
            rest: Some(rest.to_owned()),
        };
        let location = LeaderSite::of(&leader)?.location(&Uri::from_static(uri))?;
        Some(location.to_str().expect("ASCII").to_owned())
    }

    #[test]
    fn path_and_query_stay_as_they_are() {
        for uri in [
            "/v1/applications?name=a%2Fb&limit=1",
            "//evil.example/%0d%0a?x=http://y",
        ] {
            let expected = format!("http://m1:6066{uri}");
            assert_eq!(location("http://m1:6066", uri), Some(expected.clone()));
            assert_eq!(location("http://m1:6066/", uri), Some(expected));
        }
        let absolute = location("http://[::1]:6066", "http://m2:6066/v1/cluster");
        assert_eq!(absolute.as_deref(), Some("http://[::1]:6066/v1/cluster"));
    }

    #[test]
    fn a_place_that_no_http_client_can_go_to_is_none() {
        for rest in [
            "",
            "m1:6066",
            "/v1",
            "ftp://m1",
            "http://",
            "http://m1/a",
            "http://m1?a",
            "http://m1\r\nx: y",
        ] {
            assert_eq!(location(rest, "/v1"), None, "{rest:?}");
        }
    }
}
