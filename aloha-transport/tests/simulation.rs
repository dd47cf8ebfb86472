//! What the simulated network does to connections, and what its seed promises.
#![expect(clippy::disallowed_methods, reason = "tests look at the paused clock")]

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use aloha_transport::testing::{SimConditions, SimNetwork};
use aloha_transport::{
    Listener, RpcHandler, RpcResponseCallback, Stream, TransportClient, TransportContext,
};
use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

const HOUR: Duration = Duration::from_secs(3600);
const MS: Duration = Duration::from_millis(1);

fn harsh() -> SimConditions {
    SimConditions {
        delay: MS..=20 * MS,
        loss: 0.2,
        ..SimConditions::default()
    }
}

async fn listening(network: &SimNetwork) -> Box<dyn Listener> {
    let listener = network.host("b").bind("b:7077").await;
    listener.expect("a free port")
}

/// A connection from `a` to `b`: the caller's end, then the other.
async fn joined(network: &SimNetwork) -> (Stream, Stream) {
    let mut listener = listening(network).await;
    let caller = network.host("a").connect("b:7077").await;
    let accepted = listener.accept().await.expect("it was called");
    (caller.expect("it listens"), accepted)
}

async fn connect_error(network: &SimNetwork, from: &str, to: &str) -> ErrorKind {
    let refused = network.host(from).connect(to).await;
    refused.expect_err("nobody there").kind()
}

async fn read_error(stream: &mut Stream) -> ErrorKind {
    let read = stream.reader.read_u8().await;
    read.expect_err("broken").kind()
}

async fn write_error(stream: &mut Stream) -> ErrorKind {
    let written = stream.writer.write_u8(1).await;
    written.expect_err("broken").kind()
}

fn paused(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    runtime.expect("a runtime").block_on(test);
}

/// When each of fifty bytes arrives that are sent a millisecond apart.
async fn arrivals(seed: u64) -> Vec<Duration> {
    let network = SimNetwork::new(seed);
    network.set_conditions(harsh());
    let (mut caller, mut accepted) = joined(&network).await;
    let start = Instant::now();
    let sending = tokio::spawn(async move {
        for byte in 0..50 {
            caller.writer.write_u8(byte).await.expect("connected");
            tokio::time::sleep(MS).await;
        }
        // Its reader is needed until the end.
        caller
    });
    let mut times = Vec::new();
    for byte in 0..50 {
        assert_eq!(accepted.reader.read_u8().await.expect("connected"), byte);
        times.push(start.elapsed());
    }
    drop(sending.await.expect("it ends"));
    times
}

// ---- streams ---------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn bytes_arrive_in_order_and_then_the_end(
        seed: u64,
        chunks in proptest::collection::vec(1_usize..60_000, 1..20),
    ) {
        paused(async move {
            let network = SimNetwork::new(seed);
            network.set_conditions(harsh());
            let (mut caller, mut accepted) = joined(&network).await;
            let sent: Vec<u8> = (0..chunks.iter().sum()).map(|n| (n % 251) as u8).collect();
            let bytes = sent.clone();
            let sending = tokio::spawn(async move {
                let mut rest = &bytes[..];
                for chunk in chunks {
                    let (head, tail) = rest.split_at(chunk);
                    caller.writer.write_all(head).await.expect("connected");
                    rest = tail;
                }
            });
            let mut received = Vec::new();
            accepted.reader.read_to_end(&mut received).await.expect("an end");
            sending.await.expect("it ends");
            assert!(received == sent, "{} of {} bytes", received.len(), sent.len());
        });
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_times_and_another_seed_others() {
    let times = arrivals(7).await;
    assert_eq!(times, arrivals(7).await);
    assert_ne!(times, arrivals(8).await);
    assert!(times.is_sorted());
    assert!(times[49] > 200 * MS, "something was lost on the way");
}

#[tokio::test(start_paused = true)]
async fn addresses_are_those_of_the_hosts() {
    let network = SimNetwork::new(7);
    let (a, b) = (network.host("a"), network.host("b"));
    let bound = |listener: &dyn Listener| listener.local_address().expect("bound");
    let mut listener = b.bind("b:7077").await.expect("a free port");
    assert_eq!(bound(&*listener), "b:7077");
    for port in [49_152, 49_153] {
        let caller = a.connect("b:7077").await.expect("it listens");
        assert_eq!(caller.peer_address, "b:7077");
        let accepted = listener.accept().await.expect("it was called");
        assert_eq!(accepted.peer_address, format!("a:{port}"));
    }
    let picked = a.bind("a:0").await.expect("a free port");
    assert_eq!(bound(&*picked), "a:49154");

    let error = async |address| b.bind(address).await.err().map(|error| error.kind());
    assert_eq!(error("a:1").await, Some(ErrorKind::AddrNotAvailable));
    assert_eq!(error("b:7077").await, Some(ErrorKind::AddrInUse));
    assert_eq!(error("b").await, Some(ErrorKind::InvalidInput));
    drop(listener);
    assert_eq!(error("b:7077").await, None);
}

#[tokio::test(start_paused = true)]
async fn a_connect_takes_one_delay_each_way_also_if_it_is_refused() {
    let network = SimNetwork::new(7);
    network.set_conditions_between(
        "b",
        "a",
        SimConditions {
            delay: 30 * MS..=30 * MS,
            ..SimConditions::default()
        },
    );
    let start = Instant::now();
    let (_caller, _accepted) = joined(&network).await;
    assert_eq!(start.elapsed(), 60 * MS);
    for address in ["b:1", "b:7077"] {
        // The listener went with `joined`.
        assert_eq!(
            connect_error(&network, "a", address).await,
            ErrorKind::ConnectionRefused
        );
    }
    assert_eq!(start.elapsed(), 180 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_is_given_up_leaves_an_end_to_read() {
    let network = SimNetwork::new(7);
    network.set_conditions(SimConditions {
        delay: 30 * MS..=30 * MS,
        ..SimConditions::default()
    });
    let mut listener = listening(&network).await;
    let host = network.host("a");
    let connecting = timeout(45 * MS, host.connect("b:7077")).await;
    connecting.expect_err("it takes 60 ms");
    let mut accepted = listener.accept().await.expect("it was called");
    let read = accepted.reader.read_u8().await.expect_err("an end");
    assert_eq!(read.kind(), ErrorKind::UnexpectedEof);
    assert_eq!(write_error(&mut accepted).await, ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn a_writer_whose_reader_does_not_read_stops_at_the_window() {
    let network = SimNetwork::new(7);
    let (mut caller, mut accepted) = joined(&network).await;
    let mut written = 0;
    while let Ok(bytes) = timeout(HOUR, caller.writer.write(&[7; 10_000])).await {
        written += bytes.expect("connected");
    }
    assert_eq!(written, 256 << 10);

    let mut some = vec![0; 20_000];
    accepted.reader.read_exact(&mut some).await.expect("sent");
    let all = caller.writer.write_all(&some);
    timeout(HOUR, all).await.expect("room").expect("connected");
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_after_the_data_and_once_only_is_enough() {
    let network = SimNetwork::new(7);
    let (mut caller, mut accepted) = joined(&network).await;
    caller.writer.write_all(b"last words").await.expect("open");
    caller.writer.shutdown().await.expect("open");
    assert_eq!(write_error(&mut caller).await, ErrorKind::BrokenPipe);
    drop(caller.writer);
    let mut received = String::new();
    for _ in 0..2 {
        let read = accepted.reader.read_to_string(&mut received).await;
        read.expect("an end");
    }
    assert_eq!(received, "last words");
    // The other direction lives on.
    accepted.writer.write_all(b"yes").await.expect("open");
    drop(accepted);
    let read = caller.reader.read_to_string(&mut received).await;
    assert_eq!((read.expect("an end"), &*received), (3, "last wordsyes"));
}

#[tokio::test(start_paused = true)]
async fn a_writer_learns_that_its_reader_is_gone_also_while_it_waits() {
    let network = SimNetwork::new(7);
    let (mut caller, accepted) = joined(&network).await;
    network.partition("a", "b");
    drop(accepted.reader);
    let everything = vec![0; 1 << 20];
    let waiting = timeout(HOUR, caller.writer.write_all(&everything)).await;
    waiting.expect_err("no sign crosses a partition");
    network.heal("a", "b");
    let told = caller.writer.write_all(&everything).await;
    assert_eq!(told.expect_err("gone").kind(), ErrorKind::BrokenPipe);
}

// ---- faults ----------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn a_partition_holds_what_is_under_way_and_sent_until_it_is_healed() {
    let network = SimNetwork::new(7);
    let (mut caller, mut accepted) = joined(&network).await;
    caller.writer.write_all(b"under way, ").await.expect("open");
    network.partition("b", "a");
    caller.writer.write_all(b"sent").await.expect("open");
    let mut received = [0; 15];
    let read = timeout(HOUR, accepted.reader.read_exact(&mut received)).await;
    read.expect_err("held back");

    let healed = Instant::now();
    network.heal("a", "b");
    let read = accepted.reader.read_exact(&mut received).await;
    assert_eq!(read.expect("delivered"), 15);
    assert_eq!(&received, b"under way, sent");
    assert!(healed.elapsed() <= 5 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_connect_during_a_partition_is_made_after_it() {
    let network = SimNetwork::new(7);
    let mut listener = listening(&network).await;
    network.partition("a", "b");
    let host = network.host("a");
    let connecting = tokio::spawn(async move { host.connect("b:7077").await });
    timeout(HOUR, listener.accept())
        .await
        .expect_err("nobody gets through");
    network.heal("a", "b");
    listener.accept().await.expect("it was called");
    connecting.await.expect("it ends").expect("connected");
}

#[tokio::test(start_paused = true)]
async fn an_isolated_host_reaches_itself_alone_until_all_are_healed() {
    let network = SimNetwork::new(7);
    let _listener = listening(&network).await;
    network.isolate("b");
    let reaches = async |host: &str| {
        let host = network.host(host);
        let reached = timeout(HOUR, host.connect("b:7077")).await;
        reached.is_ok_and(|stream| stream.is_ok())
    };
    assert!(reaches("b").await);
    assert!(!reaches("a").await && !reaches("new here").await);
    network.heal("a", "b");
    assert!(reaches("a").await && !reaches("new here").await);
    network.heal_all();
    assert!(reaches("new here").await && reaches("even newer").await);
}

#[tokio::test(start_paused = true)]
async fn one_host_that_rejoins_brings_no_other_back() {
    let network = SimNetwork::new(7);
    let _listener = listening(&network).await;
    let reaches = async |host: &str| {
        let host = network.host(host);
        let reached = timeout(HOUR, host.connect("b:7077")).await;
        reached.is_ok_and(|stream| stream.is_ok())
    };
    network.isolate("b");
    network.isolate("a");
    network.rejoin("a");
    assert!(!reaches("new here").await && !reaches("even newer").await);
    network.rejoin("b");
    assert!(reaches("a").await && reaches("new here").await && reaches("newest").await);
}

#[tokio::test(start_paused = true)]
async fn a_cut_breaks_both_ends_after_what_had_arrived() {
    let network = SimNetwork::new(7);
    let (mut caller, mut accepted) = joined(&network).await;
    caller.writer.write_all(b"!").await.expect("open");
    tokio::time::sleep(5 * MS).await;
    caller.writer.write_all(b"lost").await.expect("open");
    let waiting = tokio::spawn(async move { (read_error(&mut caller).await, caller) });
    tokio::task::yield_now().await;
    network.cut("a", "b");
    let (error, mut caller) = waiting.await.expect("it is woken");
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!(write_error(&mut caller).await, ErrorKind::ConnectionReset);
    assert_eq!(accepted.reader.read_u8().await.expect("arrived"), b'!');
    assert_eq!(read_error(&mut accepted).await, ErrorKind::ConnectionReset);
    assert_eq!(write_error(&mut accepted).await, ErrorKind::ConnectionReset);
    // The next connection is not cut.
    joined(&network).await;
}

#[tokio::test(start_paused = true)]
async fn a_reset_breaks_both_ends() {
    let network = SimNetwork::new(7);
    network.set_conditions(SimConditions {
        reset: 0.1,
        ..SimConditions::default()
    });
    let (mut caller, mut accepted) = joined(&network).await;
    let mut segments = 0;
    let error = loop {
        match caller.writer.write_u8(1).await {
            Ok(()) => segments += 1,
            Err(error) => break error.kind(),
        }
        assert!(segments < 200, "one in ten breaks it");
    };
    assert_eq!(error, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut caller).await, ErrorKind::ConnectionReset);
    assert_eq!(write_error(&mut accepted).await, ErrorKind::ConnectionReset);
    assert_eq!(read_error(&mut accepted).await, ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn a_crash_breaks_connections_and_closes_listeners_until_the_host_listens_anew() {
    let network = SimNetwork::new(7);
    let mut listener = listening(&network).await;
    let host = network.host("a");
    let mut caller = host.connect("b:7077").await.expect("it listens");
    // Never accepted.
    network.crash("b");
    assert_eq!(read_error(&mut caller).await, ErrorKind::ConnectionReset);
    for _ in 0..2 {
        let accepted = listener.accept().await.expect_err("closed");
        assert_eq!(accepted.kind(), ErrorKind::ConnectionAborted);
    }
    assert_eq!(
        connect_error(&network, "a", "b:7077").await,
        ErrorKind::ConnectionRefused
    );
    // The old listener, dropped late, does not take the new one's port.
    let mut again = listening(&network).await;
    drop(listener);
    let _caller = host.connect("b:7077").await.expect("it listens");
    again.accept().await.expect("it was called");
}

#[tokio::test(start_paused = true)]
async fn a_crash_fails_the_connects_of_the_host() {
    let network = SimNetwork::new(7);
    let _listener = listening(&network).await;
    network.isolate("b");
    let failing = network.clone();
    let connecting = tokio::spawn(async move { connect_error(&failing, "a", "b:7077").await });
    tokio::task::yield_now().await;
    network.crash("a");
    assert_eq!(
        connecting.await.expect("it ends"),
        ErrorKind::ConnectionAborted
    );
}

/// Sends for a while from `a` to `b` under faults; what arrives, when, and how it ends.
async fn under_faults(seed: u64, faults: Vec<u8>) -> (Vec<(u8, Duration)>, Option<ErrorKind>) {
    let network = SimNetwork::new(seed);
    network.set_conditions(SimConditions {
        reset: 0.002,
        ..harsh()
    });
    let start = Instant::now();
    let (mut caller, mut accepted) = joined(&network).await;
    let sending = tokio::spawn(async move {
        for byte in 0..100 {
            if caller.writer.write_u8(byte).await.is_err() {
                return;
            }
            tokio::time::sleep(5 * MS).await;
        }
        caller.writer.shutdown().await.expect("open");
        drop(caller.reader.read_u8().await);
    });
    let weather = tokio::spawn(async move {
        for fault in faults {
            match fault {
                0..32 => network.partition("a", "b"),
                32..64 => network.heal("a", "b"),
                64..96 => network.isolate("a"),
                96..128 => network.heal_all(),
                128 => network.cut("a", "b"),
                129 => network.crash("a"),
                _ => {}
            }
            tokio::time::sleep(10 * MS).await;
        }
        network.heal_all();
    });
    let mut received = Vec::new();
    let ended = loop {
        let mut byte = [0];
        match accepted.reader.read(&mut byte).await {
            Ok(0) => break None,
            Ok(_) => received.push((byte[0], start.elapsed())),
            Err(error) => break Some(error.kind()),
        }
    };
    drop(accepted);
    sending.await.expect("it ends");
    weather.await.expect("it ends");
    (received, ended)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn under_any_faults_the_first_bytes_arrive_in_order_or_all_and_each_run_is_the_same(
        seed: u64,
        faults in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        paused(async move {
            let run = under_faults(seed, faults.clone()).await;
            let (received, ended) = &run;
            assert!(received.iter().map(|(byte, _)| *byte).eq(0..received.len() as u8));
            match ended {
                None => assert_eq!(received.len(), 100),
                Some(error) => assert_eq!(*error, ErrorKind::ConnectionReset),
            }
            assert_eq!(under_faults(seed, faults).await, run);
        });
    }
}

// ---- the transport on top ----------------------------------------------------------------------------

#[derive(Debug)]
struct Echo;

impl RpcHandler for Echo {
    fn receive(&self, _: &TransportClient, message: Bytes, callback: RpcResponseCallback) {
        callback.on_success(&message);
    }
}

/// When each of 200 requests is answered: ten askers, twenty requests each, one after the other.
async fn answers(seed: u64) -> Vec<Duration> {
    let network = SimNetwork::new(seed);
    network.set_conditions(SimConditions {
        loss: 0.05,
        ..SimConditions::default()
    });
    let context = |host| TransportContext::new(host, Echo).network(network.host(host));
    let server = context("server").create_server("server:0").await;
    let server = server.expect("a free port");
    let factory = context("client").create_client_factory();
    let client = factory.create_client(server.address()).await;
    let client = Arc::new(client.expect("it listens"));
    let start = Instant::now();
    // Each at its own pace, or else they would share their segments.
    let askers: Vec<_> = (1..=10)
        .map(|asker| {
            let client = Arc::clone(&client);
            tokio::spawn(async move {
                let mut times = Vec::new();
                for n in 0..20 {
                    tokio::time::sleep(asker * MS).await;
                    let text = format!("{asker} {n}");
                    let reply = client.send_rpc(text.as_bytes(), HOUR).await;
                    assert_eq!(reply.expect("a reply"), text);
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut times = Vec::new();
    for asker in askers {
        times.append(&mut asker.await.expect("all are answered"));
    }
    times
}

#[tokio::test(start_paused = true)]
async fn every_request_over_a_lossy_network_is_answered_at_the_time_the_seed_says() {
    let times = answers(7).await;
    assert_eq!(times.len(), 200);
    assert!(times[199] > 1000 * MS, "much was lost on the way");
    assert_eq!(times, answers(7).await);
    assert_ne!(times, answers(8).await);
}
