//! What the examples share; each of them stands in `examples/`.

pub mod hello;

/// The README's Rust, compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeExamples;
