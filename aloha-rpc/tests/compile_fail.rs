//! What must not compile, and what is then said to whoever wrote it.

use std::process::Command;

/// After a change of messages: `TRYBUILD=overwrite cargo test -p aloha-rpc --test compile_fail`, and read the difference.
#[test]
fn what_is_wrong_does_not_compile_and_is_told_why() {
    // Every compiler words it its own way; what is kept here is what the oldest supported one says.
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.expect("a compiler has built this").stdout;
    let oldest = concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), ".");
    if version.starts_with(oldest.as_bytes()) {
        trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
    }
}
