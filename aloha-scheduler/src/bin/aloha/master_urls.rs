//! The addresses of a cluster's masters, as `aloha://h1:7077,h2:7077`.

use std::fmt;
use std::str::FromStr;

const SCHEME: &str = "aloha://";

/// The `HOST:PORT` of one or more masters, in the order they were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MasterUrls(Vec<String>);

impl MasterUrls {
    pub(crate) fn host_ports(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for MasterUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0.join(","))
    }
}

impl FromStr for MasterUrls {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || format!("expected aloha://HOST:PORT[,HOST:PORT]..., not {text:?}");
        let list = text.strip_prefix(SCHEME).ok_or_else(invalid)?;
        let host_ports = list.split(',').map(|host_port| {
            let (host, port) = host_port.rsplit_once(':')?;
            let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
            let is_host = match host.strip_prefix('[') {
                Some(rest) => rest
                    .strip_suffix(']')
                    .is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()),
                None => {
                    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
                    !host.is_empty() && host.chars().all(allowed)
                }
            };
            (is_port && is_host && !port.starts_with('+')).then(|| host_port.to_owned())
        });
        host_ports
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(invalid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_without_scheme_host_or_port_is_refused() {
        for url in [
            "h1:7077",
            "spark://h1:7077",
            "aloha://",
            "aloha://h1",
            "aloha://h1:0",
            "aloha://h1:70777",
            "aloha://:7077",
            "aloha://h1:7077,",
            "aloha://h 1:7077",
            "aloha://[h]:1",
            "aloha://a/b:1",
            "aloha://h:+1",
        ] {
            assert!(url.parse::<MasterUrls>().is_err(), "{url}");
        }
    }
}
