//! What the frame codec costs by payload size: reading, writing, and its two inner loops.
#![forbid(unsafe_code)]

use criterion::{
    BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
    measurement::WallTime,
};
use std::hint::black_box;
use wingbeat::proto::{Event, MaskingKey, MessageKind, Opcode, ReadLimits, Reader, Role, Writer, encoder, mask, utf8};

const SIZES: [usize; 5] = [16, 128, 1 << 10, 16 << 10, 64 << 10];
const KEY: MaskingKey = MaskingKey([0x37, 0xfa, 0x21, 0x3d]);
/// Frames are read from a buffer of about this size, as a worker's receive buffer has it.
const BUFFER: usize = 64 << 10;

fn ascii(size: usize) -> Vec<u8> {
    b"the quick brown fox ".iter().copied().cycle().take(size).collect()
}

/// Two- and three-byte code points between ASCII.
fn mixed(size: usize) -> Vec<u8> {
    let mut text: String = "naïve café, 20 € or 25 ₣; ".chars().cycle().take(size).collect();
    while text.len() > size {
        text.pop();
    }
    text.push_str(&" ".repeat(size - text.len()));
    text.into_bytes()
}

fn sizes(group: &mut BenchmarkGroup<'_, WallTime>, mut bench: impl FnMut(&mut BenchmarkGroup<'_, WallTime>, usize)) {
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        bench(group, size);
    }
}

/// Reads all frames of a buffer; the copy of the buffer before each round is not measured.
fn decode(c: &mut Criterion) {
    for (name, kind, payload) in [
        ("decode/binary", MessageKind::Binary, ascii as fn(usize) -> Vec<u8>),
        ("decode/ascii", MessageKind::Text, ascii),
        ("decode/mixed", MessageKind::Text, mixed),
    ] {
        let mut group = c.benchmark_group(name);
        for size in SIZES {
            let frames = (BUFFER / size).max(1);
            let mut bytes = Vec::new();
            for _ in 0..frames {
                encoder::frame(&mut bytes, kind.into(), true, &payload(size), Some(KEY));
            }
            group.throughput(Throughput::ElementsAndBytes { elements: frames as u64, bytes: (frames * size) as u64 });
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                let limits = ReadLimits::default();
                b.iter_batched_ref(
                    || bytes.clone(),
                    |bytes| {
                        let (mut reader, mut data, mut read) = (Reader::new(Role::Server), &mut bytes[..], 0);
                        while let Ok(Event::Message { payload, .. }) = reader.next(&mut data, &limits) {
                            read += black_box(payload).len();
                        }
                        assert_eq!(read, frames * size);
                    },
                    BatchSize::NumIterations(32),
                );
            });
        }
        group.finish();
    }
}

fn encode(c: &mut Criterion) {
    for (name, role) in [("encode/server", Role::Server), ("encode/client", Role::Client)] {
        let mut group = c.benchmark_group(name);
        sizes(&mut group, |group, size| {
            let (payload, mut out) = (ascii(size), Vec::with_capacity(size + 14));
            let mut writer = Writer::new(role);
            group.bench_function(BenchmarkId::from_parameter(size), |b| {
                b.iter(|| {
                    out.clear();
                    writer.message(&mut out, MessageKind::Text, black_box(&payload), KEY).expect("not closed");
                    black_box(&out);
                });
            });
        });
        group.finish();
    }
    let mut group = c.benchmark_group("encode/in_place");
    sizes(&mut group, |group, size| {
        let (payload, mut out) = (ascii(size), Vec::with_capacity(size + 14));
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| {
                out.clear();
                encoder::frame_with(&mut out, Opcode::Text, None, |out| out.extend_from_slice(black_box(&payload)));
                black_box(&out);
            });
        });
    });
    group.finish();
}

fn masking(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask/plain");
    sizes(&mut group, |group, size| {
        let mut payload = ascii(size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| mask::apply(black_box(&mut payload), KEY))
        });
    });
    group.finish();
    let mut group = c.benchmark_group("mask/checking_ascii");
    sizes(&mut group, |group, size| {
        let mut payload = ascii(size);
        group.bench_function(BenchmarkId::from_parameter(size), |b| {
            b.iter(|| mask::apply_checking_ascii(black_box(&mut payload), KEY));
        });
    });
    group.finish();
}

fn text(c: &mut Criterion) {
    for (name, payload) in [("utf8/ascii", ascii as fn(usize) -> Vec<u8>), ("utf8/mixed", mixed)] {
        let mut group = c.benchmark_group(name);
        sizes(&mut group, |group, size| {
            let payload = payload(size);
            group.bench_function(BenchmarkId::new("whole", size), |b| b.iter(|| utf8::is_valid(black_box(&payload))));
            group.bench_function(BenchmarkId::new("validator", size), |b| {
                b.iter(|| utf8::Validator::new().push(black_box(&payload)));
            });
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(std::time::Duration::from_millis(200))
        .measurement_time(std::time::Duration::from_millis(500));
    targets = decode, encode, masking, text
}

criterion_main!(benches);
