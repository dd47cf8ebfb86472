//! What the remote workloads cost with blocking sockets, and a thread for each: no runtime at all.
#![expect(clippy::disallowed_methods, reason = "a bench reads the clock")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use aloha_benches::{Entry, Figures, Job, Kind, Lobby, Workload, median, text};

use crate::frames::{FrameKind, Incoming, append};

pub(crate) const ENTRIES: [Entry; 4] = [
    entry(Workload::R1, tell),
    entry(Workload::R2, ask),
    entry(Workload::R2p, ask),
    entry(Workload::R5, echo_large),
];

const fn entry(workload: Workload, run: fn(Job) -> Figures) -> Entry {
    Entry::remote("blocking threads", Kind::Aside, workload, run, serve)
}

/// So many bytes are gathered before they are written.
const BUFFER: usize = 64 << 10;

fn connect(job: &Job) -> TcpStream {
    let socket = TcpStream::connect(job.address()).expect("the server listens");
    socket.set_nodelay(true).expect("an open socket");
    socket
}

/// Waits for a whole frame; its text.
fn receive(socket: &mut TcpStream, incoming: &mut Incoming) -> Option<(FrameKind, u32, String)> {
    loop {
        if let Some(frame) = incoming.next() {
            return Some(frame);
        }
        match socket.read(incoming.space()) {
            Ok(0) | Err(_) => return None,
            Ok(bytes) => incoming.filled(bytes),
        }
    }
}

fn tell(job: Job) -> Figures {
    let mut socket = connect(&job);
    let (mut out, mut incoming) = (Vec::new(), Incoming::new());
    let start = job.start();
    for _ in 0..job.operations {
        append(&mut out, FrameKind::Note, 0, text().as_bytes());
        if out.len() > BUFFER {
            socket.write_all(&out).expect("the server lives");
            out.clear();
        }
    }
    append(&mut out, FrameKind::Count, 0, b"");
    socket.write_all(&out).expect("the server lives");
    let (_, _, count) = receive(&mut socket, &mut incoming).expect("a reply");
    let figures = job.stop(&start, job.operations);
    assert_eq!(count, job.operations.to_string());
    figures
}

fn ask(job: Job) -> Figures {
    let mut socket = connect(&job);
    let (mut out, mut incoming) = (Vec::new(), Incoming::new());
    let mut ask = || {
        out.clear();
        append(&mut out, FrameKind::Echo, 0, text().as_bytes());
        socket.write_all(&out).expect("the server lives");
        let (_, _, echo) = receive(&mut socket, &mut incoming).expect("a reply");
        assert_eq!(echo.len(), 32);
    };
    let start = job.start();
    (0..job.operations).for_each(|_| ask());
    let figures = job.stop(&start, job.operations);
    let asks = 0..(job.operations / 10).max(1);
    let timed = asks.map(|_| {
        let started = Instant::now();
        ask();
        started.elapsed()
    });
    let median = Some(median(timed.collect()));
    Figures { median, ..figures }
}

/// One thread writes while another reads, so that neither end waits for the other to read.
fn echo_large(job: Job) -> Figures {
    let mut socket = connect(&job);
    let mut writing = socket.try_clone().expect("an open socket");
    let start = job.start();
    let operations = job.operations;
    let (under_way, arrived) = sync_channel(8);
    let writer = std::thread::spawn(move || {
        let mut out = Vec::new();
        for _ in 0..operations {
            under_way.send(()).expect("somebody reads");
            out.clear();
            append(&mut out, FrameKind::Echo, 0, "x".repeat(1 << 20).as_bytes());
            writing.write_all(&out).expect("the server lives");
        }
    });
    let mut incoming = Incoming::new();
    for _ in 0..operations {
        let (_, _, echo) = receive(&mut socket, &mut incoming).expect("a reply");
        assert_eq!(echo.len(), 1 << 20);
        arrived.recv().expect("somebody writes");
    }
    writer.join().expect("no panic");
    job.stop(&start, operations)
}

fn serve(lobby: Lobby) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it listens");
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().expect("somebody comes");
        answer(socket);
    });
    lobby.open(&address.to_string());
}

fn answer(mut socket: TcpStream) {
    socket.set_nodelay(true).expect("an open socket");
    let (mut out, mut incoming, mut notes) = (Vec::new(), Incoming::new(), 0_u64);
    while let Some((kind, number, text)) = receive(&mut socket, &mut incoming) {
        out.clear();
        match kind {
            FrameKind::Note => notes += u64::from(text.len() == 32),
            FrameKind::Echo => append(&mut out, kind, number, text.as_bytes()),
            FrameKind::Count => append(&mut out, kind, number, notes.to_string().as_bytes()),
        }
        if socket.write_all(&out).is_err() {
            return;
        }
    }
}
