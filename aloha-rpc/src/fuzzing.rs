//! What must hold for any bytes at all: a function for the fuzz target in `fuzz/` and for the test that replays its
//! corpus. It panics where it does not hold.

use std::collections::BTreeMap;
use std::fmt::Debug;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::codec::Codec;
use crate::envelope::Envelope;

/// An envelope that can be read can be written and read again, and so can the body behind it, whatever its codec; a
/// body has no bytes to spare.
///
/// # Panics
///
/// If that is not so.
pub fn envelope(input: &[u8]) {
    let mut body = input;
    let Ok(envelope) = Envelope::decode(&mut body) else {
        return;
    };
    let mut written = Vec::new();
    envelope.encode(&mut written);
    let mut rest = &written[..];
    assert_eq!(Envelope::decode(&mut rest), Ok(envelope));
    assert!(rest.is_empty(), "{} bytes are no envelope", rest.len());
    for codec in [Codec::Bincode, Codec::Postcard] {
        survives::<Sample>(codec, body);
    }
}

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(codec: Codec, bytes: &[u8]) {
    let Ok(message) = codec.decode::<T>(bytes) else {
        return;
    };
    let mut written = Vec::new();
    codec
        .encode(&message, &mut written)
        .expect("it was decoded");
    assert_eq!(codec.decode(&written), Ok(message), "{codec:?}");
    written.push(0);
    assert!(
        codec.decode::<T>(&written).is_err(),
        "{codec:?}, one byte more"
    );
}

/// A little of everything that a message may hold.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Sample {
    Unit,
    Numbers(u8, i16, u32, i64, u128),
    Flags(Vec<bool>, Option<char>),
    Text { name: String, lines: Vec<String> },
    Table(BTreeMap<String, Vec<u64>>),
    Either(Box<Result<u16, String>>, Vec<Result<i8, ()>>),
}
