//! Ports for those who come back at theirs.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port that is free, from below the range that the system gives to outgoing connections: none takes it meanwhile.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 20_000).expect("it is small");
    loop {
        let offset = (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let port = 10_000 + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}
