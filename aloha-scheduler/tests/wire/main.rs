//! The bytes of every message between master, worker and client, held against those of the version before: a rolling
//! upgrade has both at once.
//!
//! `before.txt` was written by the version that rolling upgrades must start from, and stays as it is until that version
//! is another. What was appended since is in `since.txt`. `ALOHA_WIRE=print` prints all lines as they are now.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a test")]

mod bytes;
mod samples;

use std::collections::BTreeMap;

use bytes::Wire;

const ADVICE: &str = "A rolling upgrade would break on this. What travels changes in one way alone: a variant is appended \
    behind the last, with a struct of its own if need be. No field is added to, taken from or moved in what is there. \
    What is new gets a line in tests/wire/since.txt (ALOHA_WIRE=print prints it).";

fn held() -> BTreeMap<&'static str, Vec<u8>> {
    let texts = [include_str!("before.txt"), include_str!("since.txt")];
    let lines = texts.iter().flat_map(|text| text.lines());
    let parse = |line: &'static str| {
        let (name, hex) = line.split_once(' ').expect("a name and bytes");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        (name, (0..hex.len()).step_by(2).map(byte).collect())
    };
    lines.map(parse).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn what_travels_has_the_bytes_it_had() {
    let wire = Wire::new().await;
    let now = samples::all(&wire).await;
    if std::env::var("ALOHA_WIRE").is_ok_and(|what| what == "print") {
        for sample in &now {
            println!("{} {}", sample.name, hex(&sample.bytes));
        }
        return;
    }
    let mut held = held();
    for sample in now {
        let name = sample.name;
        let before = held.remove(name);
        let before = before.unwrap_or_else(|| panic!("{name} has no line. {ADVICE}"));
        assert_eq!(
            hex(&sample.bytes),
            hex(&before),
            "{name} is encoded otherwise than it was. {ADVICE}"
        );
        assert!(
            sample.is_read_back,
            "the bytes of {name} are not read as what they are. {ADVICE}"
        );
    }
    let gone: Vec<_> = held.into_keys().collect();
    assert!(gone.is_empty(), "{gone:?} are not sent any more. {ADVICE}");
}
