#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| aloha_rpc::fuzzing::envelope(input));
