//! Every input of the fuzz corpus, through the functions that the fuzz targets call.
#![cfg(feature = "fuzzing")]

use std::path::Path;

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
fn any_envelope_that_can_be_read_can_be_written() {
    replay("envelope", aloha_rpc::fuzzing::envelope);
}
