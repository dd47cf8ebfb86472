//! Corners in which something went wrong once, and that need the inside of the crate to be reached.
#![allow(
    clippy::unwrap_used,
    clippy::use_self,
    reason = "short tests of rare cases"
)]

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::mail::{Discard, discard};
use crate::verifier::{self, Verify};
use crate::{
    EndpointContext, EndpointError, RpcAddress, RpcCallContext, RpcEndpoint, RpcEndpointRef, RpcEnv,
};

#[derive(Debug, Serialize, Deserialize)]
enum Msg {
    Ref(RpcEndpointRef<Msg>, RpcCallContext<u32>),
}

struct Plain;

impl RpcEndpoint for Plain {
    type Message = Msg;
    async fn receive(
        &mut self,
        message: Msg,
        _: &EndpointContext<Msg>,
    ) -> Result<(), EndpointError> {
        let Msg::Ref(_, call) = message;
        call.reply(7);
        Ok(())
    }
}

async fn pair() -> (RpcEnv, RpcEnv, RpcEndpointRef<Msg>) {
    let server = RpcEnv::builder("server")
        .bind("127.0.0.1:0")
        .start()
        .await
        .unwrap();
    server.setup_endpoint("plain", Plain).unwrap();
    let client = RpcEnv::client("client").await.unwrap();
    let address = server.address().unwrap();
    let plain = client
        .retrieve_endpoint_ref(address, "plain")
        .await
        .unwrap();
    (server, client, plain)
}

/// Every address in a reference that a peer sends has an outbox from then on.
#[tokio::test]
async fn addresses_that_a_peer_names_are_forgotten() {
    let (server, client, plain) = pair().await;
    for port in 1..=1_000 {
        let address = RpcAddress::new("10.1.2.3", port);
        let outbox = client.inner().outbox(&address);
        let elsewhere = RpcEndpointRef::remote(Arc::clone(client.inner()), outbox, "x".into());
        assert_eq!(
            plain.ask(|call| Msg::Ref(elsewhere, call)).await.unwrap(),
            7
        );
    }
    let kept = server.inner().outboxes_kept();
    assert!(
        kept < 10,
        "{kept} addresses are kept, and nobody has a reference to one"
    );
}

/// Whoever links to the verifier takes it along.
#[tokio::test]
async fn a_client_cannot_stop_the_verifier() {
    struct Linked(RpcEndpointRef<Verify>);
    impl RpcEndpoint for Linked {
        type Message = Msg;
        async fn on_start(&mut self, ctx: &EndpointContext<Msg>) -> Result<(), EndpointError> {
            ctx.link(&self.0);
            Ok(())
        }
    }
    let (server, client, _plain) = pair().await;
    let address = server.address().unwrap();
    let outbox = client.inner().outbox(address);
    let verifier =
        RpcEndpointRef::remote(Arc::clone(client.inner()), outbox, verifier::NAME.into());
    let linked = client.setup_endpoint("linked", Linked(verifier)).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    client.stop(&linked);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let found = client.retrieve_endpoint_ref::<Msg>(address, "plain").await;
    assert!(found.is_ok(), "{}", found.unwrap_err());
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose");
    }
}

#[test]
#[ignore = "run by the test below, in a process of its own that it once aborted"]
fn child_discards_two_messages_that_panic() {
    discard(vec![Bomb, Bomb], Discard::Stopped);
}

/// All mail is dropped as one: the second panic comes while the first unwinds.
#[test]
fn two_messages_that_panic_in_drop_do_not_abort_the_process() {
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "--ignored",
            "review::child_discards_two_messages_that_panic",
        ])
        .output()
        .unwrap();
    assert!(
        child.status.success(),
        "{}: {}",
        child.status,
        String::from_utf8_lossy(&child.stderr)
    );
}
