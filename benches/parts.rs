//! The small parts one by one: codecs, the cutting of frames, an inbox.
//!
//! ```text
//! cargo bench -p aloha-benches --bench parts
//! ```

use std::hint::black_box;
use std::task::{Context, Waker};

use aloha_benches::text;
use aloha_rpc::Codec;
use aloha_rpc::benching::{Mail, decode, encode};
use aloha_transport::{Message, cut_frame};
use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::{Deserialize, Serialize};

/// What the workloads send, and something with more fields.
#[derive(Debug, Clone, Serialize, Deserialize)]
enum Load {
    Note(String),
    Registration {
        name: String,
        address: String,
        cores: u32,
        memory_mib: u64,
        labels: Vec<(String, String)>,
    },
}

impl Load {
    fn registration() -> Self {
        Self::Registration {
            name: "worker-20261121-0007".to_owned(),
            address: "aloha://worker@10.0.0.7:7078".to_owned(),
            cores: 16,
            memory_mib: 65_536,
            labels: vec![("zone".to_owned(), "b".to_owned()); 4],
        }
    }
}

fn codecs(criterion: &mut Criterion) {
    for (name, codec) in [("bincode", Codec::Bincode), ("postcard", Codec::Postcard)] {
        let mut group = criterion.benchmark_group(name);
        let loads = [
            ("note", Load::Note(text())),
            ("registration", Load::registration()),
        ];
        for (name, load) in loads {
            let mut bytes = Vec::new();
            encode(codec, &load, &mut bytes);
            group.throughput(Throughput::Bytes(bytes.len() as u64));
            let mut out = Vec::new();
            group.bench_function(format!("encode {name}"), |bencher| {
                bencher.iter(|| {
                    out.clear();
                    encode(codec, black_box(&load), &mut out);
                });
            });
            group.bench_function(format!("decode {name}"), |bencher| {
                bencher.iter(|| decode::<Load>(codec, black_box(&bytes)));
            });
        }
        group.finish();
    }
}

/// As many frames as a read of 64 KiB brings, each a one-way message of 40 bytes.
fn frames(criterion: &mut Criterion) {
    let mut frame = 41_u32.to_le_bytes().to_vec();
    frame.push(2);
    frame.extend_from_slice(&[b'x'; 40]);
    let frames = (64 << 10) / frame.len();
    let read = frame.repeat(frames);
    let mut group = criterion.benchmark_group("frames");
    group.throughput(Throughput::Elements(frames as u64));
    group.bench_function("cut and decode", |bencher| {
        bencher.iter_batched_ref(
            || BytesMut::from(&read[..]),
            |buffer| {
                let mut cut = 0;
                while let Some(frame) = cut_frame(buffer, 1 << 20).expect("all are short") {
                    let message = Message::decode(frame).expect("all are whole");
                    cut += usize::from(matches!(message, Message::OneWay { .. }));
                }
                assert_eq!(cut, frames);
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// Without anybody who waits at either end: what is timed is the lock and the moves.
fn inbox(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inbox");
    let context = Context::from_waker(Waker::noop());
    for messages in [1_u64, 64, 1024] {
        group.throughput(Throughput::Elements(messages));
        let mut mail = Mail::new(2048);
        group.bench_function(format!("post and take {messages}"), |bencher| {
            bencher.iter(|| {
                for number in 0..messages {
                    mail.post(black_box(number));
                }
                let mut taken = 0;
                mail.take(&context, |_| taken += 1);
                assert_eq!(taken, messages);
            });
        });
    }
    group.finish();
}

criterion_group!(parts, codecs, frames, inbox);
criterion_main!(parts);
