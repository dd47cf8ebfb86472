//! What must hold for any bytes at all: one function each for the fuzz targets in `fuzz/` and for the tests that
//! replay their corpus. They panic where it does not hold.

use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};

use crate::connection::assembly::Assembly;
use crate::error::{CloseReason, Failure};
use crate::handshake::{
    Answer, HANDSHAKE_BYTES_MAX, HandshakeError, Hello, RefusalCode, parting_words, read_answer,
    read_hello,
};
use crate::message::{Message, RPC_FAILURE, encode_failure};
use crate::streams::Streams;
use crate::write_queue::WriteQueue;

/// The messages of a connection do not depend on how its bytes were cut on their way, and none is over the limit;
/// what holds frames in parts grows with the bytes that came.
///
/// The input is the limit (u16 LE), a count (u8), as many lengths of pieces (u8 each, used over and over), and then
/// what is received.
///
/// # Panics
///
/// If that is not so.
pub fn frame(input: &[u8]) {
    let Some(([low, high, count], rest)) = input.split_first_chunk() else {
        return;
    };
    let frame_bytes_max = usize::from(u16::from_le_bytes([*low, *high]));
    let (lengths, wire) = rest.split_at(rest.len().min(usize::from(*count)));
    let whole = received([wire], frame_bytes_max);
    assert_eq!(received(pieces(wire, lengths), frame_bytes_max), whole);
    streams_are_bounded(&whole.messages);
    for message in whole.messages {
        if let Message::RpcFailure { failure, .. } = message {
            let once = passed_on(&failure);
            assert_eq!(passed_on(&once), once, "what was cut is short enough");
        }
    }
}

/// Whatever a peer says of streams, no more of them is held than it had credit for.
fn streams_are_bounded(messages: &[Message]) {
    let mut streams = Streams::default();
    let ours = streams.begin(None);
    assert_eq!(ours, Some(0));
    for message in messages {
        let taken = match message {
            Message::StreamRequest { stream, .. } | Message::StreamResponse { stream, .. } => {
                let opened = streams.opened(*stream);
                // Some are read once, some dropped, some left alone.
                if opened.is_ok() && stream % 2 == 0 {
                    let cx = Context::from_waker(Waker::noop());
                    let (polled, _) = streams.poll_read(*stream, &mut BytesMut::new(), &cx);
                    assert!(polled.is_pending());
                } else if opened.is_ok() && stream % 3 == 0 {
                    assert!(streams.on_reader_gone(*stream));
                }
                opened.map(|()| None)
            }
            Message::StreamData { stream, bytes } => streams.on_data(*stream, bytes),
            Message::StreamEnd { stream, failure } => streams.on_end(*stream, failure.clone()),
            Message::StreamCredit { stream, bytes } => streams.grant(*stream, *bytes),
            Message::StreamStop { stream } => streams.stop(*stream),
            _ => Ok(None),
        };
        streams.check();
        streams.take(&mut WriteQueue::default(), 1);
        if taken.is_err() {
            break;
        }
    }
    streams.close(&CloseReason::Peer);
    assert!(streams.is_empty());
}

/// What a connection has made of its bytes.
#[derive(Debug, PartialEq)]
struct Received {
    messages: Vec<Message>,
    broken: Option<String>,
    /// Nobody looks at what follows an error.
    unfinished: Option<BytesMut>,
    assembly: Option<Assembly>,
}

fn received<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, frame_bytes_max: usize) -> Received {
    let mut buffer = BytesMut::new();
    let mut assembly = Assembly::default();
    let mut messages = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let next = assembly.next_frame(&mut buffer, frame_bytes_max);
            assembly.check(frame_bytes_max);
            let message = match next {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!((1..=frame_bytes_max).contains(&frame.len()), "{frame:?}");
                    Message::decode(frame).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            match message {
                Ok(message) => messages.push(message),
                Err(error) => {
                    return Received {
                        messages,
                        broken: Some(error),
                        unfinished: None,
                        assembly: None,
                    };
                }
            }
        }
    }
    Received {
        messages,
        broken: None,
        unfinished: Some(buffer),
        assembly: Some(assembly),
    }
}

fn pieces<'a>(mut wire: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    // A piece of no bytes would be the last.
    let mut lengths = lengths
        .iter()
        .map(|length| usize::from(*length).max(1))
        .cycle();
    while let Some(length) = lengths.next().filter(|length| *length < wire.len()) {
        let (piece, rest) = wire.split_at(length);
        pieces.push(piece);
        wire = rest;
    }
    pieces.push(wire);
    pieces
}

/// A failure as whoever gets it sees it.
fn passed_on(failure: &Failure) -> Failure {
    let id = [0; 4];
    let frame = [&[RPC_FAILURE][..], &id, &encode_failure(failure)].concat();
    match Message::decode(Bytes::from(frame)) {
        Ok(Message::RpcFailure { failure, .. }) => failure,
        other => panic!("a failure became {other:?}"),
    }
}

/// A handshake is read whole or not at all, from either end; what was read can be said again, and whatever a server
/// answers can be read.
///
/// # Panics
///
/// If that is not so.
pub fn handshake(input: &[u8]) {
    match read_hello(input) {
        Ok(Some((caller, used))) => {
            is_whole(input, used, |bytes| {
                read_hello(bytes).map(|read| read.map(|(_, used)| used))
            });
            let said = caller.encode();
            let (again, _) = read_hello(&said).expect("ours").expect("whole");
            assert_eq!(again.encode(), said);
            servers().iter().for_each(|server| is_met(server, &caller));
        }
        Ok(None) => assert!(input.len() < HANDSHAKE_BYTES_MAX, "it would never end"),
        Err(error) => is_sent_away(&error),
    }
    match read_answer(input) {
        Ok(Some((answer, used))) => {
            is_whole(input, used, |bytes| {
                read_answer(bytes).map(|read| read.map(|(_, used)| used))
            });
            let said = answer.encode();
            let (again, _) = read_answer(&said).expect("ours").expect("whole");
            assert_eq!(again.encode(), said);
        }
        Ok(None) => assert!(input.len() < HANDSHAKE_BYTES_MAX, "it would never end"),
        Err(_) => {}
    }
}

fn is_whole(
    input: &[u8],
    used: usize,
    read: impl Fn(&[u8]) -> Result<Option<usize>, HandshakeError>,
) {
    assert!(used <= HANDSHAKE_BYTES_MAX, "{used} bytes");
    assert_eq!(read(&input[..used]), Ok(Some(used)));
    for end in 0..used {
        assert_eq!(read(&input[..end]), Ok(None));
    }
}

/// One of this build, and one that is ahead of it.
fn servers() -> [Hello; 2] {
    let now = Hello::new(1, 1 << 20, 5000, "now");
    let later = Hello {
        versions: 3..=7,
        address: Some("later:1".to_owned()),
        ..Hello::new(2, usize::MAX, u32::MAX, "later")
    };
    [now, later]
}

fn is_met(server: &Hello, caller: &Hello) {
    let answer = server.meet(caller);
    if let Answer::Welcome(welcome) = &answer {
        let (version, newest) = (welcome.versions.start(), welcome.versions.end());
        assert_eq!(version, newest, "one was chosen");
        assert!(server.versions.contains(version) && caller.versions.contains(version));
        assert_eq!(welcome.codec, caller.codec);
    }
    let said = answer.encode();
    assert_eq!(read_answer(&said), Ok(Some((answer, said.len()))));
}

fn is_sent_away(error: &HandshakeError) {
    let words = parting_words(error);
    if *error == HandshakeError::Http {
        assert!(words.starts_with(b"HTTP/1.1 400 "));
        return;
    }
    match read_answer(&words) {
        Ok(Some((Answer::Refusal(refusal), used))) => {
            assert_eq!((refusal.code, used), (RefusalCode::NOT_ALOHA, words.len()));
        }
        other => panic!("a stranger is told {other:?}"),
    }
}
