//! Who may talk to the REST server: it runs commands for whoever reaches it.
//!
//! A browser sends requests for every page it shows. Two headers give such requests away, and no page can forge them:
//! `Origin` names the page's own server, which must be this one; `Host` names the server the page believes to talk to,
//! which is a foreign name where an attacker's DNS answers with our address. Beyond loopback, a token is due.

use std::fmt;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, HeaderName, Uri, Version, header, uri::Authority};
use subtle::ConstantTimeEq as _;

use super::VERSION;
use super::error::RestError;

/// A file longer than this holds no token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The secret that requests must carry as `Authorization: Bearer …`. It is never shown.
#[derive(Clone)]
pub struct RestToken(String);

impl fmt::Debug for RestToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RestToken(…)")
    }
}

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file could not be read.
    #[error("cannot read the token file {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
    /// The file holds something else.
    #[error("the token file {} must hold one line of 16 to {TOKEN_BYTES_MAX} visible ASCII characters", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
    },
}

impl RestToken {
    /// Reads the one line of a token file.
    ///
    /// # Errors
    ///
    /// Also for a token that is short enough to be guessed, or that no header could carry.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(TOKEN_BYTES_MAX + 2).read_to_string(&mut text));
        read.map_err(|cause| TokenError::Unreadable {
            path: path.to_owned(),
            cause,
        })?;
        let token = text.trim();
        let lengths = 16..=usize::try_from(TOKEN_BYTES_MAX).expect("small");
        if !lengths.contains(&token.len()) || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenError::Unusable {
                path: path.to_owned(),
            });
        }
        Ok(Self(token.to_owned()))
    }

    /// Compares in a time that depends on nothing but the length.
    fn matches(&self, given: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(given).into()
    }
}

/// REST would run commands for anybody on the network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "REST would listen on {host} without a token: set aloha.master.rest.token.file, \
     or aloha.master.rest.insecure=true if everybody who reaches it may run commands"
)]
pub struct ExposureError {
    /// Where it would listen.
    pub host: String,
}

/// Decides which requests are heard.
#[derive(Debug)]
pub struct RestGuard {
    /// The address listened on.
    address: Option<IpAddr>,
    /// Names by which the server may be addressed, in lower case.
    names: Vec<String>,
    token: Option<RestToken>,
}

impl RestGuard {
    /// Guards a server that listens on `host`, a name or an address, and is also known by `further_names`.
    ///
    /// # Errors
    ///
    /// If the server would listen beyond loopback without a token, and `insecure` does not allow it.
    pub fn new(
        host: &str,
        further_names: &[String],
        token: Option<RestToken>,
        insecure: bool,
    ) -> Result<Self, ExposureError> {
        let address = bare(host).parse::<IpAddr>().ok();
        let is_local = match address {
            Some(address) => address.is_loopback(),
            None => host.eq_ignore_ascii_case("localhost"),
        };
        if !is_local && token.is_none() && !insecure {
            return Err(ExposureError {
                host: host.to_owned(),
            });
        }
        let names = further_names.iter().map(String::as_str);
        let names = names.chain(["localhost", host]).map(normalise).collect();
        Ok(Self {
            address,
            names,
            token,
        })
    }

    /// Whether requests need a token.
    pub(super) fn wants_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether a request is heard, by what stands before its body.
    pub(super) fn check(
        &self,
        version: Version,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), RestError> {
        let host = match uri.authority() {
            // In the absolute form of a request this wins over the header.
            Some(authority) => Some(authority.clone()),
            None => authority(headers, header::HOST)?,
        };
        // Only HTTP/1.0 knows requests without it, and no browser speaks that any more.
        if host.is_none() && version > Version::HTTP_10 {
            let text = "the header host is missing, which HTTP/1.1 wants";
            return Err(RestError::Malformed(text.to_owned()));
        }
        if let Some(host) = &host
            && !self.is_ours(host.host())
        {
            return Err(RestError::Forbidden(format!(
                "this server is not {:?}; see aloha.master.rest.allowedHosts",
                host.host()
            )));
        }
        self.check_origin(headers, host.as_ref())?;
        // Probes have no token, and learn nothing that matters.
        let is_probe = uri.path() == format!("/{VERSION}/submissions/readyz");
        match &self.token {
            Some(token) if !is_probe && !is_authorized(token, headers)? => {
                Err(RestError::Unauthorized)
            }
            _ => Ok(()),
        }
    }

    /// A page may only talk to the server it came from.
    fn check_origin(&self, headers: &HeaderMap, host: Option<&Authority>) -> Result<(), RestError> {
        let Some(origin) = single(headers, header::ORIGIN)? else {
            return Ok(());
        };
        let refused = || {
            let origin = String::from_utf8_lossy(origin);
            RestError::Forbidden(format!("requests from pages of {origin:?} are refused"))
        };
        let text = std::str::from_utf8(origin).map_err(|_| refused())?;
        let (port, rest) = [("http://", 80), ("https://", 443)]
            .into_iter()
            .find_map(|(scheme, port)| Some((port, text.strip_prefix(scheme)?)))
            .ok_or_else(refused)?;
        let page: Authority = rest.parse().map_err(|_| refused())?;
        let host = host.ok_or_else(refused)?;
        let is_same = normalise(page.host()) == normalise(host.host())
            && page.port_u16().unwrap_or(port) == host.port_u16().unwrap_or(port);
        is_same.then_some(()).ok_or_else(refused)
    }

    fn is_ours(&self, host: &str) -> bool {
        match bare(host).parse::<IpAddr>() {
            // Nobody's DNS is asked for an address: where all are listened on, any may be ours.
            Ok(address) => {
                address.is_loopback()
                    || self
                        .address
                        .is_some_and(|ours| ours == address || ours.is_unspecified())
            }
            Err(_) => self.names.contains(&normalise(host)),
        }
    }
}

fn is_authorized(token: &RestToken, headers: &HeaderMap) -> Result<bool, RestError> {
    let Some(value) = single(headers, header::AUTHORIZATION)? else {
        return Ok(false);
    };
    // The name of the scheme may be in any case.
    Ok(match value.split_at_checked(b"Bearer ".len()) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token.matches(given),
        _ => false,
    })
}

/// A header that must not be repeated: two of them, and a proxy in between may have read the other one.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&[u8]>, RestError> {
    let mut values = headers.get_all(&name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(RestError::Malformed(format!(
            "the header {name} is repeated"
        )));
    }
    Ok(first.map(|value| value.as_bytes()))
}

fn authority(headers: &HeaderMap, name: HeaderName) -> Result<Option<Authority>, RestError> {
    let Some(value) = single(headers, name.clone())? else {
        return Ok(None);
    };
    let authority = Authority::try_from(value);
    authority
        .map(Some)
        .map_err(|_| RestError::Malformed(format!("the header {name} is no host")))
}

/// The address in the brackets of an IPv6 host.
fn bare(host: &str) -> &str {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    inner.unwrap_or(host)
}

fn normalise(host: &str) -> String {
    bare(host).trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::response::IntoResponse as _;

    use super::*;

    fn guard(host: &str) -> RestGuard {
        RestGuard::new(host, &["Proxy.example".into()], None, true).expect("allowed")
    }

    fn status(guard: &RestGuard, headers: &[(HeaderName, &str)]) -> u16 {
        status_of(Version::HTTP_10, guard, headers)
    }

    fn status_of(version: Version, guard: &RestGuard, headers: &[(HeaderName, &str)]) -> u16 {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("valid")))
            .collect();
        let uri = Uri::from_static("/v1/submissions/create");
        match guard.check(version, &uri, &headers) {
            Ok(()) => 200,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[test]
    fn only_names_and_addresses_of_this_server_are_hosts() {
        let loopback = guard("127.0.0.1");
        for host in [
            "127.0.0.1:6066",
            "localhost",
            "LOCALHOST.:1",
            "[::1]:6066",
            "proxy.example",
        ] {
            assert_eq!(status(&loopback, &[(header::HOST, host)]), 200, "{host}");
        }
        for host in [
            "evil.example",
            "10.0.0.1:6066",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
        ] {
            assert_eq!(status(&loopback, &[(header::HOST, host)]), 403, "{host}");
        }
        assert_eq!(status(&loopback, &[(header::HOST, "a b")]), 400);
        assert_eq!(status(&loopback, &[]), 200);
        let current = |headers| status_of(Version::HTTP_11, &loopback, headers);
        assert_eq!(current(&[]), 400);
        assert_eq!(current(&[(header::HOST, "localhost")]), 200);
        let everywhere = guard("0.0.0.0");
        assert_eq!(status(&everywhere, &[(header::HOST, "10.0.0.1:6066")]), 200);
        assert_eq!(status(&everywhere, &[(header::HOST, "evil.example")]), 403);
        assert_eq!(
            status(&guard("m1.example"), &[(header::HOST, "M1.example:6066")]),
            200
        );
    }

    #[test]
    fn a_page_may_only_talk_to_its_own_server() {
        let guard = guard("127.0.0.1");
        let with = |origin| {
            let host = (header::HOST, "localhost:6066");
            status(&guard, &[host, (header::ORIGIN, origin)])
        };
        assert_eq!(with("http://localhost:6066"), 200);
        for origin in [
            "null",
            "http://evil.example",
            "http://localhost:3000",
            "http://localhost",
            "http://127.0.0.1:6066",
            "file://",
            "chrome-extension://abc",
            "",
        ] {
            assert_eq!(with(origin), 403, "{origin}");
        }
        assert_eq!(
            status(&guard, &[(header::ORIGIN, "http://localhost:6066")]),
            403
        );
    }

    #[test]
    fn beyond_loopback_a_token_or_a_word_is_needed() {
        for host in ["127.0.0.1", "localhost", "::1", "127.3.2.1"] {
            assert!(RestGuard::new(host, &[], None, false).is_ok(), "{host}");
        }
        for host in ["0.0.0.0", "10.0.0.1", "::", "m1.example"] {
            let refused = RestGuard::new(host, &[], None, false).expect_err(host);
            assert_eq!(refused, ExposureError { host: host.into() });
            let token = Some(RestToken("0123456789abcdef".into()));
            assert!(RestGuard::new(host, &[], token, false).is_ok(), "{host}");
            assert!(RestGuard::new(host, &[], None, true).is_ok(), "{host}");
        }
    }

    #[test]
    fn the_token_must_match_whole() {
        let token = Some(RestToken("0123456789abcdef".into()));
        let guard = RestGuard::new("127.0.0.1", &[], token, false).expect("allowed");
        let with = |value| status(&guard, &[(header::AUTHORIZATION, value)]);
        assert_eq!(with("Bearer 0123456789abcdef"), 200);
        assert_eq!(with("bearer 0123456789abcdef"), 200);
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer 0123456789abcde",
            "Bearer 0123456789abcdefg",
            "Basic 0123456789abcdef",
        ] {
            assert_eq!(with(value), 401, "{value}");
        }
        assert_eq!(status(&guard, &[]), 401);
        let probe = Uri::from_static("/v1/submissions/readyz");
        assert!(
            guard
                .check(Version::HTTP_10, &probe, &HeaderMap::new())
                .is_ok()
        );
        assert!(!format!("{guard:?}").contains("0123"));
    }

    #[test]
    fn a_token_file_holds_one_line() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "0123456789abcdef\n").expect("written");
        assert!(
            RestToken::read(file.path())
                .expect("usable")
                .matches(b"0123456789abcdef")
        );
        for text in [
            "",
            "short",
            "0123456789 abcdef",
            "0123456789abcdef\nsecond line",
        ] {
            std::fs::write(file.path(), text).expect("written");
            let refused = RestToken::read(file.path());
            assert!(
                matches!(refused, Err(TokenError::Unusable { .. })),
                "{text:?}"
            );
        }
    }
}
