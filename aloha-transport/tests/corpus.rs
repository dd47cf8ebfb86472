//! Every input of the fuzz corpus, through the functions that the fuzz targets call.
#![cfg(feature = "fuzzing")]

use std::path::Path;

use proptest::prelude::*;

#[expect(clippy::print_stdout, reason = "shown when a test fails")]
fn replay(target: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let inputs = std::fs::read_dir(corpus.join(target)).expect("a corpus");
    let mut replayed = 0;
    for input in inputs {
        let path = input.expect("an input").path();
        println!("{}", path.display());
        check(&std::fs::read(path).expect("a file"));
        replayed += 1;
    }
    assert!(replayed > 0, "an empty corpus");
}

#[test]
fn any_bytes_are_the_same_messages_however_they_are_cut() {
    replay("frame", aloha_transport::fuzzing::frame);
}

#[test]
fn any_bytes_are_met_as_a_handshake() {
    replay("handshake", aloha_transport::fuzzing::handshake);
}

proptest! {
    /// Frames of all types with small numbers, so that parts and streams meet their like more often than by chance.
    #[test]
    fn any_frames_are_the_same_messages_however_they_are_cut(
        frames in prop::collection::vec(
            (0_u8..20, 0_u32..4, 0_u32..12, prop::collection::vec(0_u8..20, 0..12)),
            0..30,
        ),
        lengths in prop::collection::vec(1_u8..40, 1..8),
    ) {
        let count = u8::try_from(lengths.len()).expect("a few");
        let mut input = vec![0xff, 0x0f, count];
        input.extend_from_slice(&lengths);
        for (kind, number, second, rest) in frames {
            let mut frame = vec![kind];
            frame.extend_from_slice(&number.to_le_bytes());
            frame.extend_from_slice(&second.to_le_bytes()[..if second % 3 == 0 { 1 } else { 4 }]);
            frame.extend_from_slice(&rest);
            input.extend_from_slice(&u32::try_from(frame.len()).expect("small").to_le_bytes());
            input.extend_from_slice(&frame);
        }
        aloha_transport::fuzzing::frame(&input);
    }
}
