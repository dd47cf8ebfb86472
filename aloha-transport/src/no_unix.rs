//! Unix domain sockets on a system without them.

use std::io;

use crate::stream::{Listener, Stream};

pub(crate) async fn connect(_: &str) -> io::Result<Stream> {
    Err(absent())
}

pub(crate) async fn bind(_: &str) -> io::Result<Box<dyn Listener>> {
    Err(absent())
}

fn absent() -> io::Error {
    let text = "this system has no Unix domain sockets";
    io::Error::new(io::ErrorKind::Unsupported, text)
}
