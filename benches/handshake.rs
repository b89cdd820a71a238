//! What one opening handshake costs: reading and judging the request, the accept key, the answer.
//!
//! `cargo bench --bench handshake --no-default-features`
#![forbid(unsafe_code)]

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use wingbeat::proto::extensions::Offers;
use wingbeat::proto::handshake::client::{self, RequestHead};
use wingbeat::proto::handshake::server::{self, Parsed};
use wingbeat::proto::handshake::{HandshakeError, RequestLimits};

/// What a tool sends: the five fields and nothing else.
const SHORT: &[u8] = b"GET /echo HTTP/1.1\r\nHost: 127.0.0.1:4000\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// What a browser sends.
const BROWSER: &[u8] = b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: example.com:4000\r\n\
    Connection: keep-alive, Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\nOrigin: https://example.com\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: _session=SFMyNTY.g3QAAAABbQAAAAtfY3NyZl90b2tlbm0AAAAYcm5MOGtvbVlZVFZSTXdJbXpTYTZZaVZI; theme=dark\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

fn accept(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), HandshakeError> {
    let Parsed::Request(request) = server::parse(bytes, &RequestLimits::default())? else {
        panic!("the request is whole");
    };
    let upgrade = server::upgrade(&request)?.expect("it asks for an upgrade");
    server::write_accept(out, &upgrade, None, &[])
}

fn server_side(c: &mut Criterion) {
    let limits = RequestLimits::default();
    for (name, bytes) in [("short", SHORT), ("browser", BROWSER)] {
        let mut group = c.benchmark_group(format!("handshake/{name}"));
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function("parse", |b| b.iter(|| server::parse(black_box(bytes), &limits)));
        let mut out = Vec::with_capacity(256);
        group.bench_function("accept", |b| {
            b.iter(|| {
                out.clear();
                accept(black_box(bytes), &mut out)
            });
        });
        group.finish();
    }
    let key = b"dGhlIHNhbXBsZSBub25jZQ==";
    c.bench_function("handshake/accept_key", |b| b.iter(|| server::accept_key(black_box(key))));
    // The head comes in one byte at a time: each call starts over.
    c.bench_function("handshake/short/byte_by_byte", |b| {
        b.iter(|| (0..=SHORT.len()).filter(|end| server::parse(black_box(&SHORT[..*end]), &limits).is_ok()).count());
    });
}

fn client_side(c: &mut Criterion) {
    let head = RequestHead::new("127.0.0.1:4000", "/echo").expect("valid");
    let nonce = *b"the sample nonce";
    let mut answer = Vec::new();
    accept(SHORT, &mut answer).expect("a good request");
    let limits = RequestLimits::default();
    c.bench_function("handshake/client/write", |b| {
        b.iter_batched_ref(|| Vec::with_capacity(512), |out| head.write(out, black_box(&nonce)), BatchSize::SmallInput);
    });
    c.bench_function("handshake/client/judge", |b| {
        b.iter(|| client::parse_response(black_box(&answer), &head, &nonce, &limits));
    });
}

fn extensions(c: &mut Criterion) {
    let many = ["permessage-deflate; client_max_window_bits"; 100].join(", ");
    c.bench_function("extensions/100_offers", |b| b.iter(|| Offers::new(black_box(many.as_bytes())).count()));
}

criterion_group!(benches, server_side, client_side, extensions);
criterion_main!(benches);
