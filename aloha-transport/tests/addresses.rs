//! Where a server can be: IPv6, and Unix domain sockets.

use std::io;
use std::time::Duration;

use aloha_transport::{RpcHandler, RpcResponseCallback, TransportClient, TransportContext};
use bytes::Bytes;

const LONG: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Echo;

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        callback.on_success(&message);
    }
}

/// Whether this machine has IPv6; says so where it has not.
fn has_ipv6() -> bool {
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => true,
        Err(error) => {
            let text = format!("skipped: this machine has no IPv6 loopback: {error}\n");
            drop(io::Write::write_all(&mut io::stderr(), text.as_bytes()));
            false
        }
    }
}

async fn is_served_at(address: &str) {
    let context = TransportContext::new("caller", Echo);
    let factory = context.create_client_factory();
    let client = factory.create_client(address).await.expect("it listens");
    let reply = client.send_rpc(b"hello", LONG).await;
    assert_eq!(reply.expect("a reply"), "hello");
    client.close();
    client.closed().await;
}

#[tokio::test]
async fn a_server_at_an_ipv6_address_is_called_there() {
    if !has_ipv6() {
        return;
    }
    let context = TransportContext::new("server", Echo);
    let server = context.create_server("[::1]:0").await;
    let server = server.expect("a free port");
    let address = server.address();
    assert!(
        address.starts_with("[::1]:") && !address.ends_with(":0"),
        "{address}"
    );
    is_served_at(address).await;
    server.stop().await;
}

#[tokio::test]
async fn an_ipv6_host_is_advertised_in_brackets() {
    if !has_ipv6() {
        return;
    }
    for host in ["::1", "[::1]"] {
        let context = TransportContext::new("server", Echo);
        let server = context.create_server_as("[::]:0", host).await;
        let server = server.expect("a free port");
        assert!(
            server.address().starts_with("[::1]:"),
            "{}",
            server.address()
        );
        is_served_at(server.address()).await;
        server.stop().await;
    }
}

#[cfg(unix)]
mod unix {
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};
    use std::path::Path;

    use aloha_transport::{BindError, ConnectError};

    use super::*;

    /// A directory of a test's own.
    struct Directory(std::path::PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("aloha-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a directory of its own");
            Self(path)
        }

        fn address(&self) -> String {
            format!("unix:{}", self.0.join("socket").display())
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn path_of(address: &str) -> &Path {
        Path::new(&address["unix:".len()..])
    }

    #[tokio::test]
    async fn a_server_at_a_path_is_called_there_and_removes_its_file_when_it_stops() {
        let directory = Directory::new("called");
        let address = directory.address();
        let context = TransportContext::new("server", Echo);
        let server = context.create_server_as(&address, "elsewhere").await;
        let server = server.expect("a free path");
        assert_eq!(server.address(), address);
        let file = std::fs::symlink_metadata(path_of(&address)).expect("it is there");
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        is_served_at(&address).await;
        is_served_at(&address).await;
        server.stop().await;
        let left = std::fs::read_dir(&directory.0).expect("a directory");
        assert_eq!(left.count(), 0);
    }

    #[tokio::test]
    async fn a_live_socket_is_in_use_and_a_stale_one_is_replaced() {
        let directory = Directory::new("stale");
        let address = directory.address();
        let context = TransportContext::new("server", Echo);
        let server = context.create_server(&address).await;
        let server = server.expect("a free path");
        let second = context.create_server(&address).await;
        assert!(matches!(second, Err(BindError::InUse { .. })), "{second:?}");
        is_served_at(&address).await;
        server.stop().await;

        // What a process leaves that was killed.
        drop(std::os::unix::net::UnixListener::bind(path_of(&address)).expect("a free path"));
        assert!(path_of(&address).exists());
        let server = context.create_server(&address).await;
        let server = server.expect("nobody listens there");
        is_served_at(&address).await;
        server.stop().await;
        assert!(!path_of(&address).exists());
    }

    #[tokio::test]
    async fn what_is_no_socket_is_not_replaced() {
        let directory = Directory::new("file");
        let address = directory.address();
        std::fs::write(path_of(&address), "precious").expect("a free path");
        let context = TransportContext::new("server", Echo);
        let refused = context.create_server(&address).await;
        let Err(BindError::Io { source, .. }) = refused else {
            panic!("{refused:?}");
        };
        assert!(source.to_string().contains("is no socket"), "{source}");
        let kept = std::fs::read_to_string(path_of(&address));
        assert_eq!(kept.expect("it is there"), "precious");
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_or_none_is_said_to_be() {
        let context = TransportContext::new("server", Echo);
        let long = format!("unix:/tmp/{}", "x".repeat(200));
        for address in [&*long, "unix:"] {
            let Err(BindError::Io { source, .. }) = context.create_server(address).await else {
                panic!("it cannot be");
            };
            assert!(
                source.to_string().contains("cannot name a Unix"),
                "{source}"
            );
            let factory = context.create_client_factory();
            let refused = factory.create_client(address).await.expect_err("no socket");
            assert!(
                refused.to_string().contains("cannot name a Unix"),
                "{refused}"
            );
        }
    }

    #[tokio::test]
    async fn nobody_there_is_said_at_once() {
        let directory = Directory::new("nobody");
        let context = TransportContext::new("caller", Echo);
        let factory = context.create_client_factory();
        let refused = factory.create_client(&directory.address()).await;
        let error = refused.expect_err("nobody");
        assert!(matches!(error, ConnectError::Io { .. }), "{error}");
        assert!(error.to_string().contains(&directory.address()), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_another_took_over_is_left_alone() {
        let directory = Directory::new("taken");
        let address = directory.address();
        let context = TransportContext::new("server", Echo);
        let server = context.create_server(&address).await;
        let server = server.expect("a free path");
        std::fs::remove_file(path_of(&address)).expect("it is there");
        let other = TransportContext::new("other", Echo);
        let other = other.create_server(&address).await.expect("a free path");
        server.stop().await;
        is_served_at(&address).await;
        other.stop().await;
    }
}
