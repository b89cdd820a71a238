//! The opening handshake against RFC 6455 §4 and RFC 9112: every rule with the status it causes, in any chunking.
#![forbid(unsafe_code)]

use std::error::Error;

use proptest::prelude::*;
use wingbeat::proto::handshake::client::{self, RequestHead};
use wingbeat::proto::handshake::server::{self, Expectation, Framing, Parsed, Request};
use wingbeat::proto::handshake::{HandshakeError, RequestLimits};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const NONCE: [u8; 16] = *b"the sample nonce";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// The five fields of a good handshake.
const GOOD: [(&str, &str); 5] = [
    ("Host", "example.com"),
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Key", KEY),
    ("Sec-WebSocket-Version", "13"),
];

fn head(line: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("{line}\r\n{fields}\r\n").into_bytes()
}

/// A good handshake with one field's value replaced.
fn with(name: &str, value: &str) -> Vec<u8> {
    head("GET / HTTP/1.1", &GOOD.map(|field| if field.0 == name { (name, value) } else { field }))
}

/// A good handshake without one field.
fn without(name: &str) -> Vec<u8> {
    let fields: Vec<_> = GOOD.into_iter().filter(|field| field.0 != name).collect();
    head("GET / HTTP/1.1", &fields)
}

/// A good handshake with one more line, put in as it is.
fn plus(line: &str) -> Vec<u8> {
    let mut bytes = head("GET / HTTP/1.1", &GOOD);
    bytes.truncate(bytes.len() - 2);
    [&bytes, line.as_bytes(), b"\r\n\r\n"].concat()
}

fn parse(bytes: &[u8]) -> Result<Parsed<'_>, HandshakeError> {
    server::parse(bytes, &RequestLimits::default())
}

fn request(bytes: &[u8]) -> Request<'_> {
    match parse(bytes) {
        Ok(Parsed::Request(request)) => request,
        other => panic!("{:?} gave {other:?}", String::from_utf8_lossy(bytes)),
    }
}

/// The status a server answers with: 101, 200 for a plain request, or what the error says; 0 to read on.
fn status(bytes: &[u8]) -> u16 {
    match parse(bytes) {
        Ok(Parsed::NeedMore) => 0,
        Ok(Parsed::Request(request)) => match server::upgrade(&request) {
            Ok(Some(_)) => 101,
            Ok(None) => 200,
            Err(error) => error.status(),
        },
        Err(error) => error.status(),
    }
}

#[track_caller]
fn expect(wanted: u16, cases: &[Vec<u8>]) {
    for bytes in cases {
        assert_eq!(status(bytes), wanted, "{}", bytes.escape_ascii());
    }
}

fn answer_to(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let request = request(bytes);
    let upgrade = server::upgrade(&request).unwrap().unwrap();
    server::write_accept(&mut out, &upgrade, None, &[]).unwrap();
    out
}

fn text(out: &[u8]) -> &str {
    std::str::from_utf8(out).unwrap()
}

// ------------------------------------------------------------------------------------------------ accepted requests

#[test]
fn a_good_handshake_is_answered_as_the_rfc_shows() {
    let expected = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    assert_eq!(text(&answer_to(&head("GET /chat HTTP/1.1", &GOOD))), expected);
}

#[test]
fn accepted_variants() {
    expect(
        101,
        &[
            with("Connection", "keep-alive, Upgrade"),
            with("Connection", "\tkeep-alive ,\t uPgRaDe  "),
            with("Upgrade", "  WebSocket\t "),
            with("Upgrade", "h2c, websocket"),
            with("Host", ""),
            with("Host", "[::1]:4000"),
            [
                without("Connection").split_last_chunk::<2>().unwrap().0,
                b"Connection: keep-alive\r\nconnection:upgrade\r\n\r\n",
            ]
            .concat(),
            text(&head("GET / HTTP/1.1", &GOOD)).replace(": ", ":").into_bytes(),
            text(&head("GET / HTTP/1.1", &GOOD)).to_uppercase().replace(&KEY.to_uppercase(), KEY).into_bytes(),
            [b"\r\n\r\n", &head("GET / HTTP/1.1", &GOOD)[..]].concat(),
            head("GET ws://example.com/ HTTP/1.1", &GOOD),
            plus("Content-Length: 0"),
            plus(&format!("Cookie: {}", "c=d; ".repeat(600))),
            plus("Sec-WebSocket-Extensions: constructor, __proto__, toString; hasOwnProperty=1"),
            plus("Sec-WebSocket-Extensions:"),
            plus("X-Latin: \u{fc}"),
            plus("X-Empty:"),
        ],
    );
}

#[test]
fn parts_of_a_request_are_found() {
    let bytes = [&head("GET /a%20b?c=d HTTP/1.1", &GOOD)[..], b"\x81\x80rest"].concat();
    let request = request(&bytes);
    assert_eq!((request.method(), request.target()), ("GET", "/a%20b?c=d"));
    assert_eq!((request.path(), request.query()), ("/a%20b", Some("c=d")));
    assert_eq!(request.header("hOST"), Some(&b"example.com"[..]));
    assert_eq!(request.header("Origin"), None);
    assert_eq!(&bytes[request.head_len()..], b"\x81\x80rest", "frames behind the head are the caller's");
    assert_eq!((request.framing(), request.wants_keep_alive()), (Framing::Length(0), true));
    assert_eq!(request.headers().map(|(name, _)| name).collect::<Vec<_>>(), GOOD.map(|(name, _)| name));
}

#[test]
fn a_plain_request_is_not_an_upgrade() {
    let bytes = b"POST /healthz HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\nContent-Length: 12\r\nA: 1\r\na: 2\r\n\r\nhello, body!";
    let request = request(bytes);
    assert!(server::upgrade(&request).unwrap().is_none());
    assert_eq!((request.framing(), request.wants_keep_alive()), (Framing::Length(12), false));
    assert_eq!(request.header_values("A").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(&bytes[request.head_len()..], b"hello, body!");
}

#[test]
fn what_does_not_list_websocket_is_plain() {
    expect(
        200,
        &[
            without("Upgrade"),
            with("Upgrade", "h2c"),
            with("Upgrade", "notwebsocketatall"),
            with("Upgrade", "websocket/13"),
        ],
    );
}

#[test]
fn subprotocols_are_read_over_fields_and_chosen_among_the_offered() {
    let bytes = plus("Sec-WebSocket-Protocol: chat ,\tv2.chat,base64/+==\r\nsec-websocket-protocol: x");
    let request = request(&bytes);
    let upgrade = server::upgrade(&request).unwrap().unwrap();
    assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["chat", "v2.chat", "base64/+==", "x"]);
    assert!(upgrade.offers_protocol("x") && !upgrade.offers_protocol("X") && !upgrade.offers_protocol("v2"));

    let mut out = Vec::new();
    let wrong = server::write_accept(&mut out, &upgrade, Some("Chat"), &[]);
    assert_eq!((wrong, out.len()), (Err(HandshakeError::ProtocolNotOffered), 0));
    server::write_accept(&mut out, &upgrade, Some("v2.chat"), &[("Set-Cookie", "a=b; c")]).unwrap();
    assert!(text(&out).ends_with("\r\nSec-WebSocket-Protocol: v2.chat\r\nSet-Cookie: a=b; c\r\n\r\n"));
}

#[test]
fn extensions_are_read_over_fields() {
    let bytes = plus("Sec-WebSocket-Extensions: a; b=1, c\r\nSec-WebSocket-Extensions: d");
    let request = request(&bytes);
    let upgrade = server::upgrade(&request).unwrap().unwrap();
    assert_eq!(upgrade.extensions().map(|offer| offer.name()).collect::<Vec<_>>(), ["a", "c", "d"]);
    let none = head("GET / HTTP/1.1", &GOOD);
    let request = self::request(&none);
    assert_eq!(server::upgrade(&request).unwrap().unwrap().extensions().count(), 0);
}

// ------------------------------------------------------------------------------------------------- refused requests

#[test]
fn the_request_line_must_be_of_http_1_1() {
    for line in ["GET / HTTP/1.0", "GET / HTTP/2.0", "GET / HTTP/0.9", "PRI * HTTP/2.0", "\r\n\r\nPRI * HTTP/2.0"] {
        assert_eq!(status(&head(line, &GOOD)), 505, "{line:?}");
    }
    for line in [
        "GET / http/1.1",
        "GET / HTTP/1.12",
        "GET / HTTP",
        "GET / junk",
        "GET /",
        "GET",
        "GET /a b HTTP/1.1",
        "GET  / HTTP/1.1",
        "GET /  HTTP/1.1",
        "GET / HTTP/1.1 ",
        " GET / HTTP/1.1",
        "G\0T / HTTP/1.1",
        "G(T / HTTP/1.1",
        "GET a HTTP/1.1",
        "GET * HTTP/1.1",
        "GET /a\x01\x7f HTTP/1.1",
        "GET /\t HTTP/1.1",
        "GET /é HTTP/1.1",
        "GET /a#b HTTP/1.1",
        "GET http:///a HTTP/1.1",
    ] {
        assert_eq!(status(&head(line, &GOOD)), 400, "{line:?}");
    }
}

#[test]
fn another_method_is_refused_by_405() {
    expect(
        405,
        &["POST", "HEAD", "OPTIONS", "CONNECT", "get", "GETS"]
            .map(|method| head(&format!("{method} / HTTP/1.1"), &GOOD)),
    );
}

#[test]
fn host_comes_exactly_once() {
    expect(
        400,
        &[
            without("Host"),
            plus("Host: example.com"),
            plus("hOST: evil.example"),
            with("Host", "a b"),
            with("Host", "a/b"),
            with("Host", "u@a"),
        ],
    );
    expect(400, &[b"GET / HTTP/1.1\r\n\r\n".to_vec()]);
}

#[test]
fn malformed_fields_are_refused() {
    let bare_line_feeds = text(&head("GET / HTTP/1.1", &GOOD)).replace("\r\n", "\n").into_bytes();
    expect(
        400,
        &[
            plus("X-A: a\0b"),
            plus("X-A: a\rX-B: b"),
            plus("X-A: a\nX-B: b"),
            plus("X-A: a\x7f"),
            plus("X-Folded: a\r\n b"),
            plus("X-Folded: a\r\n\tb"),
            plus(" X-A: b"),
            plus("X-A : b"),
            plus("X(A): b"),
            plus("X-\u{fc}: b"),
            plus(": b"),
            plus("this is no header"),
            bare_line_feeds,
            [b"\n", &head("GET / HTTP/1.1", &GOOD)[..]].concat(),
            text(&head("GET / HTTP/1.1", &GOOD)).replace("Upgrade: ", "Upgrade : ").into_bytes(),
        ],
    );
}

#[test]
fn framing_must_be_beyond_doubt() {
    let lengths = ["-1", "+1", "1, 1", "0x1", "1.5", "", "a", "18446744073709551616"];
    expect(400, &lengths.map(|length| plus(&format!("Content-Length: {length}"))));
    expect(
        400,
        &[
            plus("Content-Length: 5"),
            plus("Content-Length: 0\r\nContent-Length: 0"),
            plus("Transfer-Encoding: chunked"),
            plus("Transfer-Encoding: gzip"),
            plus("Transfer-Encoding:"),
            plus("Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ],
    );
    let plain = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n").into_bytes();
    expect(200, &[plain("Content-Length: 5"), plain("Transfer-Encoding: Chunked")]);
    assert_eq!(request(&plain("Transfer-Encoding: Chunked")).framing(), Framing::Chunked);
    expect(501, &[plain("Transfer-Encoding: gzip, chunked"), plain("Transfer-Encoding: xchunked")]);
    expect(
        400,
        &[
            plain("Content-Length: 5\r\nContent-Length: 5"),
            plain("Content-Length: 5\r\nTransfer-Encoding: chunked"),
            plain("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        ],
    );
}

#[test]
fn connection_must_list_upgrade() {
    expect(400, &[without("Connection"), with("Connection", "close"), with("Connection", "no-upgrade-please")]);
}

#[test]
fn the_version_is_exactly_13() {
    expect(
        400,
        &[without("Sec-WebSocket-Version"), plus("Sec-WebSocket-Version: 13"), plus("Sec-WebSocket-Version: 8")],
    );
    let huge = format!("13{}", "0".repeat(400));
    let versions = ["8", "12", "14", "99", "0", "255", "", "13abc", "13.0", "0x0d", "+13", "013", "13, 8", &huge];
    expect(426, &versions.map(|version| with("Sec-WebSocket-Version", version)));
}

#[test]
fn the_key_is_16_bytes_of_base64() {
    let long = "eHh4".repeat(1000);
    let keys = [
        "",
        "eHh4eHh4eHh4eHh4eHh4",
        "eHh4eHh4eHh4eHh4eHh4eHg=",
        "eHh4eHh4eHh4eHh4eHh4eHh4",
        "!!!!!!!!!!!!!!!!!!!!!!==",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBs ZSBub25jZQ==",
        "dGhlIHNhbXBs-SBub25jZQ==",
        &long,
    ];
    expect(400, &keys.map(|key| with("Sec-WebSocket-Key", key)));
    expect(400, &[without("Sec-WebSocket-Key"), plus(&format!("Sec-WebSocket-Key: {KEY}"))]);
}

#[test]
fn malformed_offers_are_refused() {
    for protocol in ["", "a,,b", "a, ", ",a", "a b", "a;b", "\"q\"", "a%0d%0a(", "b       x"] {
        expect(400, &[plus(&format!("Sec-WebSocket-Protocol: {protocol}"))]);
    }
    for extension in ["a; b=\"c", "a b", "a;", ";a", "a; b=\"\\c\""] {
        expect(400, &[plus(&format!("Sec-WebSocket-Extensions: {extension}"))]);
    }
}

#[test]
fn too_large_is_refused_by_431_at_the_limit() {
    let limits = RequestLimits::default();
    let base = plus("X-Big: ").len();
    let exact = plus(&format!("X-Big: {}", "a".repeat(limits.max_bytes as usize - base)));
    assert_eq!(exact.len(), limits.max_bytes as usize);
    assert_eq!(status(&exact), 101);
    assert_eq!(status(&plus(&format!("X-Big: {}", "a".repeat(exact.len() - base + 1)))), 431);

    let endless = [b"GET / HTTP/1.1\r\nHost: a\r\nX: ", "a".repeat(1 << 20).as_bytes()].concat();
    assert_eq!(status(&endless[..limits.max_bytes as usize - 1]), 0);
    assert_eq!(status(&endless[..limits.max_bytes as usize]), 431, "as soon as no end can come in time");
    assert_eq!(status(&endless), 431);
    assert_eq!(status(format!("GET /{}", "a".repeat(1 << 18)).as_bytes()), 431);
    assert_eq!(status("\r\n".repeat(1 << 16).as_bytes()), 431, "empty lines are bytes too");

    let fields = |count: usize| plus(&vec!["X: y"; count].join("\r\n"));
    assert_eq!(status(&fields(64 - GOOD.len())), 101);
    assert_eq!(status(&fields(65 - GOOD.len())), 431);
    let few = RequestLimits { max_headers: 4, ..limits };
    assert!(matches!(server::parse(&head("GET / HTTP/1.1", &GOOD), &few), Err(HandshakeError::TooLarge)));
    let many = RequestLimits { max_headers: 1000, ..limits };
    assert!(matches!(server::parse(&fields(60), &many), Err(HandshakeError::TooLarge)), "64 are the most");
}

#[test]
fn what_is_no_http_is_refused_before_its_end() {
    for bytes in [
        &b"\x16\x03\x01\x00\xc8"[..],
        b"\0",
        b"\x88\x80",
        b"GET / FTP",
        b"GET / HTTP/2",
        b"GET / HTTP/1.1\r\nA\n",
        b"\n",
    ] {
        assert!(parse(bytes).is_err(), "{}", bytes.escape_ascii());
    }
}

#[test]
fn http_1_0_is_read_but_opens_no_websocket() {
    let old = |fields: &str| format!("GET / HTTP/1.0\r\n{fields}\r\n").into_bytes();
    assert!(!request(&old("")).wants_keep_alive());
    assert!(request(&old("Connection: a, Keep-Alive\r\n")).wants_keep_alive());
    assert!(!request(&old("Connection: keep-alive, close\r\n")).wants_keep_alive());
    expect(200, &[old("Host: a\r\n"), old("Content-Length: 1\r\n")]);
    expect(400, &[old("Host: a\r\nHost: a\r\n"), old("Host: a b\r\n"), old("Transfer-Encoding: chunked\r\n")]);
    expect(505, &[head("GET / HTTP/1.0", &GOOD)]);
}

#[test]
fn expectations_are_told_apart() {
    let expectation = |version: &str, fields: &str| {
        request(format!("POST / HTTP/{version}\r\nHost: a\r\n{fields}\r\n").as_bytes()).expectation()
    };
    assert_eq!(expectation("1.1", ""), Expectation::None);
    assert_eq!(expectation("1.1", "Expect: 100-Continue\r\n"), Expectation::Continue);
    for fields in ["Expect: 100-continue, more\r\n", "Expect:\r\n", &"Expect: 100-continue\r\n".repeat(2)] {
        assert_eq!(expectation("1.1", fields), Expectation::Unknown, "{fields}");
    }
    assert_eq!(expectation("1.0", "Expect: 100-continue\r\n"), Expectation::None);
}

#[test]
fn any_prefix_of_a_good_request_needs_more() {
    let long =
        format!("Cookie: {}\r\nSec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: c; d=\"e\"", "f".repeat(300));
    for bytes in
        [head("GET /chat?x HTTP/1.1", &GOOD), plus(&long), [b"\r\n", &head("GET / HTTP/1.1", &GOOD)[..]].concat()]
    {
        for end in 0..bytes.len() {
            assert_eq!(status(&bytes[..end]), 0, "{}", bytes[..end].escape_ascii());
        }
        assert_eq!(status(&bytes), 101);
    }
}

// ------------------------------------------------------------------------------------------------- written answers

#[test]
fn refusals_say_what_their_status_asks_for() {
    let refusal = |error| {
        let mut out = Vec::new();
        server::write_error(&mut out, error);
        let (head, body) = text(&out).split_once("\r\n\r\n").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        assert!(head.contains(&format!("\r\nContent-Length: {}", body.len())), "{head}");
        assert!(head.contains("\r\nConnection: close") && head.contains("\r\nContent-Type: text/plain"), "{head}");
        assert_eq!(body, format!("{}\n", error.body()));
        head
    };
    let version = refusal(HandshakeError::WebSocketVersion);
    assert!(version.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    assert!(version.contains("\r\nSec-WebSocket-Version: 13\r\n") && version.contains("\r\nUpgrade: websocket\r\n"));
    assert!(version.contains("\r\nConnection: close, Upgrade\r\n"));
    let method = refusal(HandshakeError::Method);
    assert!(method.starts_with("HTTP/1.1 405 Method Not Allowed\r\n") && method.contains("\r\nAllow: GET\r\n"));
    assert!(refusal(HandshakeError::TooLarge).starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
    assert!(refusal(HandshakeError::HttpVersion).starts_with("HTTP/1.1 505 HTTP Version Not Supported\r\n"));
    assert!(refusal(HandshakeError::InvalidHeader).starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
    assert!(refusal(HandshakeError::Refused(200)).starts_with("HTTP/1.1 502 Bad Gateway\r\n"));
}

#[test]
fn plain_responses_are_framed() {
    let response = |status, headers: &[_], body: &str, keep_alive, head_only| {
        let mut out = b"before".to_vec();
        server::write_response(&mut out, status, headers, body.as_bytes(), keep_alive, head_only)
            .map(|()| text(&out).strip_prefix("before").unwrap().to_owned())
    };
    let json = [("Content-Type", "application/json")];
    assert_eq!(
        response(200, &json, "{}", true, false).unwrap(),
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    );
    assert_eq!(
        response(404, &[], "gone", false, true).unwrap(),
        "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 4\r\n\r\n"
    );
    assert_eq!(
        response(204, &[], "lost", true, false).unwrap(),
        "HTTP/1.1 204 No Content\r\nConnection: keep-alive\r\n\r\n"
    );
    assert_eq!(
        response(299, &[("Upgrade", "websocket")], "", true, false).unwrap(),
        "HTTP/1.1 299 \r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(response(101, &[], "", true, false), Err(HandshakeError::InvalidStatus));
    assert_eq!(response(1000, &[], "", true, false), Err(HandshakeError::InvalidStatus));
    assert_eq!(response(200, &[("content-length", "9")], "", true, false), Err(HandshakeError::ReservedHeader));
    assert_eq!(response(200, &[("A", "b\r\nC: d")], "", true, false), Err(HandshakeError::InvalidHeader));
}

#[test]
fn a_response_cannot_be_split_by_its_values() {
    let bytes = head("GET / HTTP/1.1", &GOOD);
    let request = request(&bytes);
    let upgrade = server::upgrade(&request).unwrap().unwrap();
    for (extra, error) in [
        (("X-A", "b\r\nSet-Cookie: evil"), HandshakeError::InvalidHeader),
        (("X-A", "b\n"), HandshakeError::InvalidHeader),
        (("X-A", "\0"), HandshakeError::InvalidHeader),
        (("X A", "b"), HandshakeError::InvalidHeader),
        (("sec-websocket-ACCEPT", "b"), HandshakeError::ReservedHeader),
        (("Content-Length", "0"), HandshakeError::ReservedHeader),
    ] {
        let mut out = b"before".to_vec();
        let result = server::write_accept(&mut out, &upgrade, None, &[("X-Good", "yes"), extra]);
        assert_eq!((result, &out[..]), (Err(error), &b"before"[..]), "{extra:?}");
    }
}

// ------------------------------------------------------------------------------------------------------- the client

fn client_head() -> RequestHead {
    let mut head = RequestHead::new("example.com", "/chat?a=b").unwrap();
    head.header("Origin", "http://example.com").unwrap();
    head.protocol("chat").unwrap().protocol("superchat").unwrap();
    head
}

fn judge(answer: &str) -> Result<Option<client::Response>, HandshakeError> {
    client::parse_response(answer.as_bytes(), &client_head(), &NONCE, &RequestLimits::default())
}

fn good_answer() -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    )
}

#[test]
fn the_request_is_written_as_the_rfc_shows() {
    let mut out = Vec::new();
    client_head().write(&mut out, &NONCE);
    let expected = format!(
        "GET /chat?a=b HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nOrigin: http://example.com\r\nSec-WebSocket-Key: {KEY}\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\n\r\n"
    );
    assert_eq!(text(&out), expected);
}

#[test]
fn both_sides_agree() -> Result<(), Box<dyn Error>> {
    let head = client_head();
    let (mut sent, mut answer) = (Vec::new(), Vec::new());
    head.write(&mut sent, &NONCE);
    let request = request(&sent);
    let upgrade = server::upgrade(&request)?.ok_or("no upgrade")?;
    assert_eq!(upgrade.protocols().collect::<Vec<_>>(), head.protocols().collect::<Vec<_>>());
    server::write_accept(&mut answer, &upgrade, Some("superchat"), &[("Server", "test")])?;
    let head_len = answer.len();
    answer.extend_from_slice(b"\x81\x05hello");
    for end in 0..head_len {
        assert_eq!(client::parse_response(&answer[..end], &head, &NONCE, &RequestLimits::default()), Ok(None));
    }
    let response = client::parse_response(&answer, &head, &NONCE, &RequestLimits::default())?.ok_or("incomplete")?;
    assert_eq!((response.head_len(), response.protocol(&head)), (head_len, Some("superchat")));
    Ok(())
}

#[test]
fn values_of_the_request_are_checked() {
    for (host, target) in
        [("", "/"), ("a b", "/"), ("a\r\n", "/"), ("a", ""), ("a", "b"), ("a", "/ b"), ("a", "/\r\n"), ("a", "/#b")]
    {
        assert_eq!(RequestHead::new(host, target).err(), Some(HandshakeError::InvalidHeader), "{host:?} {target:?}");
    }
    let mut head = client_head();
    for (name, value) in [("A", "b\r\nC: d"), ("A", "\0"), ("A B", "c"), ("", "b")] {
        assert_eq!(head.header(name, value).err(), Some(HandshakeError::InvalidHeader), "{name:?} {value:?}");
    }
    for name in ["host", "Upgrade", "CONNECTION", "Sec-WebSocket-Key", "Sec-WebSocket-Extensions", "Content-Length"] {
        assert_eq!(head.header(name, "b").err(), Some(HandshakeError::ReservedHeader), "{name}");
    }
    for protocol in ["", "a b", "a,b", "chat"] {
        assert_eq!(head.protocol(protocol).err(), Some(HandshakeError::InvalidHeader), "{protocol:?}");
    }
}

#[test]
fn good_answers_are_accepted() {
    let plain = judge(&good_answer()).unwrap().unwrap();
    assert_eq!((plain.head_len(), plain.protocol(&client_head())), (good_answer().len(), None));
    for (from, to) in [
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Connection: Upgrade", "connection: keep-alive, upgrade"),
        (" Switching Protocols", ""),
        (" Switching Protocols", " "),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions:\r\n\r\n"),
    ] {
        assert!(matches!(judge(&good_answer().replacen(from, to, 1)), Ok(Some(_))), "{to:?}");
    }
}

#[test]
fn bad_answers_are_refused() {
    use HandshakeError::*;
    for (from, to, error) in [
        ("101", "200", Refused(200)),
        ("101", "301", Refused(301)),
        ("HTTP/1.1 101", "HTTP/1.0 503", Refused(503)),
        ("HTTP/1.1", "HTTP/1.0", HttpVersion),
        ("HTTP/1.1", "HTTP/2.0", Malformed),
        ("HTTP/1.1", "ICY", Malformed),
        ("Upgrade: websocket\r\n", "", NotUpgraded),
        ("Upgrade: websocket", "Upgrade: h2c", NotUpgraded),
        ("Upgrade: websocket", "Upgrade: websocket, h2c", NotUpgraded),
        ("Connection: Upgrade\r\n", "", NotUpgraded),
        ("Connection: Upgrade", "Connection: close", NotUpgraded),
        ("s3pP", "s3pQ", Accept),
        ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", "", Accept),
        ("\r\n\r\n", "\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", Accept),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: other\r\n\r\n", UnrequestedProtocol),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: Chat\r\n\r\n", UnrequestedProtocol),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n", UnrequestedProtocol),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n\r\n", UnrequestedProtocol),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol:\r\n\r\n", UnrequestedProtocol),
        ("\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", UnrequestedExtension),
        ("\r\n\r\n", "\r\nX: a\r\n b\r\n\r\n", Malformed),
        ("\r\n\r\n", "\r\nX : a\r\n\r\n", Malformed),
        ("\r\n\r\n", "\r\nX: a\nY: b\r\n\r\n", Malformed),
    ] {
        assert_eq!(judge(&good_answer().replacen(from, to, 1)), Err(error), "{to:?}");
    }
    assert_eq!(judge("HTTP/1.1 404 "), Err(Refused(404)), "known before the head ends");
    assert_eq!(judge(&format!("HTTP/1.1 101 a\r\nX: {}", "a".repeat(1 << 16))), Err(TooLarge));
    assert_eq!(judge(&good_answer().replace("\r\n\r\n", &"\r\nX: y".repeat(64))), Err(TooLarge));
}

// ------------------------------------------------------------------------------------------------------- properties

fn token() -> impl Strategy<Value = String> {
    "[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}"
}

/// A field that no rule looks at.
fn harmless() -> impl Strategy<Value = (String, String)> {
    ("X-[A-Za-z0-9]{1,8}", "([!-~]([ -~]{0,20}[!-~])?)?")
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600), max_bytes in 0u32..700, max_headers: u16) {
        let limits = RequestLimits { max_bytes, max_headers };
        if let Ok(Parsed::Request(request)) = server::parse(&bytes, &limits) {
            prop_assert!(request.head_len() <= bytes.len());
            let _ = server::upgrade(&request);
        }
        let _ = client::parse_response(&bytes, &client_head(), &NONCE, &limits);
    }

    #[test]
    fn one_changed_byte_is_never_a_panic(at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
        let mut bytes = plus("Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: c; d=\"e\"");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let whole = status(&bytes);
        // Whatever an early look finds wrong is wrong; the whole head may only add to it.
        let early = status(&bytes[..cut.index(bytes.len())]);
        prop_assert!(early == 0 || early >= 400 && whole >= 400 || early == whole, "{early} then {whole}");
        let mut answer = good_answer().into_bytes();
        let at = at % answer.len();
        answer[at] = byte;
        let _ = client::parse_response(&answer, &client_head(), &NONCE, &RequestLimits::default());
    }

    #[test]
    fn generated_requests_read_as_they_were_written(
        path in "/[a-z0-9/._~%-]{0,20}",
        query in prop::option::of("[a-z0-9=&?/]{0,20}"),
        before in prop::collection::vec(harmless(), 0..5),
        after in prop::collection::vec(harmless(), 0..5),
        protocols in prop::collection::vec(token(), 0..4),
        extensions in prop::collection::vec((token(), prop::collection::vec((token(), prop::option::of(token()), any::<bool>()), 0..3)), 0..4),
        blanks in "[ \t]{0,3}",
        behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let target = query.as_ref().map_or(path.clone(), |query| format!("{path}?{query}"));
        let mut fields: Vec<(String, String)> = before;
        fields.extend(GOOD.map(|(name, value)| (name.to_owned(), value.to_owned())));
        fields.extend(after);
        if !protocols.is_empty() {
            fields.push(("Sec-WebSocket-Protocol".into(), protocols.join(&format!("{blanks},{blanks}"))));
        }
        for (name, params) in &extensions {
            let params: String = params.iter().map(|(name, value, quoted)| match value {
                Some(value) if *quoted => format!("{blanks};{blanks}{name}{blanks}={blanks}\"{value}\""),
                Some(value) => format!("{blanks};{blanks}{name}{blanks}={blanks}{value}"),
                None => format!("{blanks};{blanks}{name}"),
            }).collect();
            fields.push(("Sec-WebSocket-Extensions".into(), format!("{name}{params}")));
        }
        let lines: String = fields.iter().map(|(name, value)| format!("{name}:{blanks}{value}{blanks}\r\n")).collect();
        let mut bytes = format!("GET {target} HTTP/1.1\r\n{lines}\r\n").into_bytes();
        let head_len = bytes.len();
        for end in 0..head_len {
            prop_assert!(matches!(parse(&bytes[..end]), Ok(Parsed::NeedMore)));
        }
        bytes.extend_from_slice(&behind);

        let request = request(&bytes);
        prop_assert_eq!(request.head_len(), head_len);
        prop_assert_eq!((request.target(), request.path(), request.query()), (&target[..], &path[..], query.as_deref()));
        let read: Vec<_> = request.headers().map(|(name, value)| (name.to_owned(), text(value).to_owned())).collect();
        prop_assert_eq!(&read, &fields);
        let upgrade = server::upgrade(&request).unwrap().unwrap();
        prop_assert_eq!(upgrade.protocols().collect::<Vec<_>>(), protocols);
        let offers: Vec<_> = upgrade.extensions().collect();
        prop_assert_eq!(offers.len(), extensions.len());
        for (offer, (name, params)) in offers.iter().zip(&extensions) {
            let params: Vec<_> = params.iter().map(|(name, value, _)| (&name[..], value.as_deref())).collect();
            prop_assert_eq!((offer.name(), offer.params().collect::<Vec<_>>()), (&name[..], params));
        }
    }
}
