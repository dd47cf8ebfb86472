//! What a large message under way costs others, over TCP. Alone in its program, for it measures.
#![expect(clippy::disallowed_methods, reason = "a test measures")]

use std::time::Duration;

use aloha_transport::{
    Body, Charge, RpcHandler, RpcResponseCallback, TransportClient, TransportConfig,
    TransportContext,
};
use bytes::Bytes;
use tokio::time::Instant;

/// Answers with the length.
#[derive(Debug)]
struct Length;

impl RpcHandler for Length {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        callback.on_success(message.len().to_string().as_bytes());
    }
}

const LONG: Duration = Duration::from_secs(120);

/// One after another, each of them behind whatever of the large one is on its way at that time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::print_stdout, reason = "a figure for whoever asks for it")]
async fn small_requests_are_answered_at_once_while_256_mib_are_under_way() {
    let context = TransportContext::new("test", Length).config(TransportConfig {
        frame_bytes_max: 512 << 20,
        ..TransportConfig::default()
    });
    let server = context.create_server("127.0.0.1:0").await;
    let server = server.expect("a free port");
    let factory = context.create_client_factory();
    let client = factory.create_client(server.address()).await;
    let client = client.expect("it listens");
    let body = Body::Shared(Bytes::from(vec![1; 256 << 20]));
    let large = client.request(Charge::Flow(1), &[], &body, Some(LONG));
    let mut large = tokio::spawn(large.expect("one of any size may pass"));
    let mut took = Vec::new();
    let reply = loop {
        let asked = Instant::now();
        let small = client.send_rpc(b"small", LONG);
        tokio::select! {
            biased;
            reply = &mut large => break reply,
            small = small => assert_eq!(small.expect("a reply"), "5"),
        }
        took.push(asked.elapsed());
    };
    assert_eq!(reply.expect("no panic").expect("a reply"), "268435456");
    took.sort();
    let (count, longest) = (took.len(), took.last().copied().unwrap_or_default());
    let at_most = |tenths| took.get(count * tenths / 10).copied().unwrap_or_default();
    let (half, most) = (at_most(5), at_most(9));
    println!(
        "{count} small requests beside 256 MiB: half within {half:?}, nine of ten within {most:?}, all within {longest:?}"
    );
    assert!(count > 20, "{count}");
    // A machine with other work to do may hold up any single one.
    assert!(most < Duration::from_millis(50), "{most:?}");
}
