//! Whether others can reach a server by what it calls itself.

use std::net::IpAddr;

use aloha_rpc::RpcEnv;
use tracing::warn;

/// Warns where a server is known to others by an address that leads nowhere.
pub(crate) fn warn_if_nowhere(env: &RpcEnv) {
    let address = env.address();
    if let Some(caution) = address.and_then(|address| caution(address.host())) {
        warn!("{caution}");
    }
}

/// Whether this is no host, but all addresses of whichever machine it is said on.
pub(crate) fn is_nowhere(host: &str) -> bool {
    let bare = host.trim_matches(['[', ']']);
    bare.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified())
}

fn caution(host: &str) -> Option<String> {
    is_nowhere(host).then(|| {
        format!(
            "others are told to reach this at {host}, which no other machine can: set aloha.rpc.advertisedHost to the \
             host they know"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_everywhere_is_to_say_where_it_is() {
        for host in ["0.0.0.0", "::", "[::]"] {
            let caution = caution(host).expect(host);
            assert!(caution.contains(host) && caution.contains("aloha.rpc.advertisedHost"));
        }
        for host in ["127.0.0.1", "::1", "[::1]", "h1", "10.0.0.1"] {
            assert_eq!(caution(host), None);
        }
    }
}
