//! Where environments and endpoints live: `host:port` or `unix:/path`, and `aloha://name@host:port`. Pure.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const SCHEME: &str = "aloha://";
const UNIX: &str = "unix:";

/// The address of an environment: a host and a port, or the path of a Unix domain socket.
///
/// # Examples
///
/// ```
/// use aloha_rpc::RpcAddress;
///
/// let address: RpcAddress = "127.0.0.1:7077".parse()?;
/// assert_eq!((address.host(), address.port()), ("127.0.0.1", 7077));
/// assert_eq!(address.to_url(), "aloha://127.0.0.1:7077");
/// assert_eq!(RpcAddress::from_url("aloha://[::0:1]:80")?.to_string(), "[::1]:80");
///
/// let socket: RpcAddress = "unix:/run/aloha.sock".parse()?;
/// assert_eq!(socket.unix_path(), Some("/run/aloha.sock"));
/// assert_eq!(socket.to_url(), "aloha://unix:/run/aloha.sock");
/// # Ok::<(), aloha_rpc::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RpcAddress(At);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum At {
    Port(Arc<str>, u16),
    Unix(Arc<str>),
}

/// The address of an endpoint: a name at an environment, or at a client that nobody can call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    /// The environment; none for one that does not listen.
    pub address: Option<RpcAddress>,
    /// The endpoint's name there.
    pub name: Arc<str>,
}

/// A text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither `host:port` nor `unix:/path`.
    #[error("invalid address {0:?}, expected host:port or unix:/path")]
    Address(String),
    /// Not `aloha://host:port`.
    #[error("invalid URL {0:?}, expected aloha://host:port")]
    Url(String),
    /// Not `aloha://name@host:port`.
    #[error("invalid endpoint URI {0:?}, expected aloha://name@host:port")]
    Uri(String),
}

impl RpcAddress {
    /// The address of `host` and `port`. An IPv6 address is written in its short form, with brackets.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        let host = match bare.parse::<Ipv6Addr>() {
            Ok(ip) => format!("[{ip}]").into(),
            Err(_) => host.into(),
        };
        Self(At::Port(host, port))
    }

    /// The address of a Unix domain socket.
    ///
    /// # Errors
    ///
    /// The path is not absolute, or has control characters.
    pub fn unix(path: &str) -> Result<Self, AddressError> {
        if path.starts_with('/') && path.len() > 1 && !path.chars().any(char::is_control) {
            return Ok(Self(At::Unix(path.into())));
        }
        Err(AddressError::Address(format!("{UNIX}{path}")))
    }

    /// The host; IPv6 in brackets. `localhost` for a Unix domain socket, which is on this machine.
    #[must_use]
    pub fn host(&self) -> &str {
        match &self.0 {
            At::Port(host, _) => host,
            At::Unix(_) => "localhost",
        }
    }

    /// The port; 0 for a Unix domain socket, which has none.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self.0 {
            At::Port(_, port) => port,
            At::Unix(_) => 0,
        }
    }

    /// The path, if this is a Unix domain socket.
    #[must_use]
    pub fn unix_path(&self) -> Option<&str> {
        match &self.0 {
            At::Port(..) => None,
            At::Unix(path) => Some(path),
        }
    }

    /// Parses `aloha://host:port` or `aloha://unix:/path`.
    ///
    /// # Errors
    ///
    /// The text is of another form.
    pub fn from_url(url: &str) -> Result<Self, AddressError> {
        url.strip_prefix(SCHEME)
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| AddressError::Url(url.to_owned()))
    }

    /// `aloha://host:port` or `aloha://unix:/path`.
    #[must_use]
    pub fn to_url(&self) -> String {
        format!("{SCHEME}{self}")
    }
}

impl FromStr for RpcAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return Self::unix(path);
        }
        let parsed = text.rsplit_once(':').and_then(|(host, port)| {
            let port = port.parse().ok()?;
            let bracketed = host.starts_with('[') && host.ends_with(']');
            let plain = !host.is_empty()
                && host
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
            let ipv6 = bracketed && host[1..host.len() - 1].parse::<Ipv6Addr>().is_ok();
            (plain || ipv6).then(|| Self::new(host, port))
        });
        parsed.ok_or_else(|| AddressError::Address(text.to_owned()))
    }
}

impl fmt::Display for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            At::Port(host, port) => write!(f, "{host}:{port}"),
            At::Unix(path) => write!(f, "{UNIX}{path}"),
        }
    }
}

impl fmt::Debug for RpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for RpcAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RpcAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.address {
            Some(address) => write!(f, "{SCHEME}{}@{address}", self.name),
            None => write!(f, "{SCHEME}{}@client", self.name),
        }
    }
}

impl FromStr for EndpointAddress {
    type Err = AddressError;

    fn from_str(uri: &str) -> Result<Self, Self::Err> {
        let parsed = uri.strip_prefix(SCHEME).and_then(|rest| {
            let (name, address) = rest.split_once('@')?;
            let address = Some(address.parse().ok()?);
            (!name.is_empty()).then(|| Self {
                address,
                name: name.into(),
            })
        });
        parsed.ok_or_else(|| AddressError::Uri(uri.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn host_and_port_are_taken_apart() {
        let address = RpcAddress::from_url("aloha://1.2.3.4:1234").unwrap();
        assert_eq!((address.host(), address.port()), ("1.2.3.4", 1234));
        assert_eq!(address.to_url(), "aloha://1.2.3.4:1234");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for url in [
            "aloha:// 1.2.3.4:1",
            "aloha://1.2. 3.4:1",
            "http://h:1",
            "h:1",
            "aloha://h",
            "aloha://h:99999",
            "aloha://:1",
        ] {
            assert_eq!(
                RpcAddress::from_url(url),
                Err(AddressError::Url(url.to_owned()))
            );
        }
    }

    #[test]
    fn ipv6_is_shortened_and_bracketed() {
        assert_eq!(RpcAddress::new("::0:1", 80).host(), "[::1]");
        assert_eq!(RpcAddress::new("[2600::]", 80).host(), "[2600::]");
        assert_eq!(
            RpcAddress::from_url("aloha://[2600::]:80")
                .unwrap()
                .to_url(),
            "aloha://[2600::]:80"
        );
    }

    #[test]
    fn an_endpoint_prints_as_its_uri() {
        let endpoint: EndpointAddress = "aloha://hello@h:1".parse().unwrap();
        assert_eq!(
            (&*endpoint.name, endpoint.to_string()),
            ("hello", "aloha://hello@h:1".to_owned())
        );
        assert_eq!(
            "aloha://h:1".parse::<EndpointAddress>(),
            Err(AddressError::Uri("aloha://h:1".to_owned()))
        );
    }

    #[test]
    fn a_unix_domain_socket_is_a_path_in_addresses_and_uris() {
        let address = RpcAddress::unix("/run/a b@c:1.sock").unwrap();
        assert_eq!(address.to_string(), "unix:/run/a b@c:1.sock");
        assert_eq!(address.to_string().parse(), Ok(address.clone()));
        assert_eq!(RpcAddress::from_url(&address.to_url()), Ok(address.clone()));
        assert_eq!((address.host(), address.port()), ("localhost", 0));
        let endpoint: EndpointAddress = "aloha://hello@unix:/run/a b@c:1.sock".parse().unwrap();
        assert_eq!(
            endpoint,
            EndpointAddress {
                address: Some(address),
                name: "hello".into()
            }
        );
        assert_eq!(endpoint.to_string(), "aloha://hello@unix:/run/a b@c:1.sock");
        for text in ["unix:", "unix:/", "unix:relative", "unix:/a\0b"] {
            let refused = Err(AddressError::Address(text.to_owned()));
            assert_eq!(text.parse::<RpcAddress>(), refused);
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_not_without_panic(text in ".{0,40}") {
            if let Ok(address) = text.parse::<RpcAddress>() {
                prop_assert_eq!(address.to_string().parse::<RpcAddress>(), Ok(address));
            }
        }
    }
}
