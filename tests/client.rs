//! The blocking client against a scripted server: what it sends, what it makes of what it gets, how it ends.
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wingbeat::client::{Client, ClientError, Message};
use wingbeat::proto::handshake::client::UrlError;
use wingbeat::proto::handshake::server::{self, Parsed};
use wingbeat::proto::handshake::{HandshakeError, RequestLimits};
use wingbeat::proto::{
    self, CloseCode, Incoming, MaskingKey, MessageKind, MessageReader, ProtoError, ReadLimits, WriteError, Writer,
};

/// Far more than any step takes: it ends a test that hangs.
const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(50);

/// What the server's side of a connection sees.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Eof,
}

/// The server's side of one connection, behind the opening handshake.
struct Peer<S> {
    stream: S,
    reader: MessageReader,
    writer: Writer,
    /// Bytes read and not taken yet.
    unread: Vec<u8>,
}

impl<S: Read + Write> Peer<S> {
    /// Reads the request, lets `answer` write the answer to it, and whatever is to follow it at once.
    fn accept(mut stream: S, answer: impl FnOnce(&server::Request<'_>, &mut Vec<u8>)) -> Self {
        let mut unread = Vec::new();
        let head_len = loop {
            if let Parsed::Request(request) = server::parse(&unread, &RequestLimits::default()).unwrap() {
                let mut out = Vec::new();
                answer(&request, &mut out);
                stream.write_all(&out).unwrap();
                break request.head_len();
            }
            let mut chunk = [0; 1000];
            let bytes = stream.read(&mut chunk).unwrap();
            assert!(bytes > 0, "the client left within its request");
            unread.extend_from_slice(&chunk[..bytes]);
        };
        let (reader, writer) = proto::server(ReadLimits::default());
        Peer { stream, reader, writer, unread: unread.split_off(head_len) }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    fn close(&mut self, code: CloseCode, reason: &str) {
        let mut out = Vec::new();
        self.writer.close(&mut out, Some(code), reason, MaskingKey::default()).unwrap();
        self.send(&out);
    }

    fn next(&mut self) -> Seen {
        loop {
            let mut data = &mut self.unread[..];
            let seen =
                self.reader.next(&mut data).expect("the client keeps to the protocol").map(|incoming| match incoming {
                    Incoming::Message { kind: MessageKind::Text, payload } => {
                        Seen::Text(String::from_utf8(payload.to_vec()).unwrap())
                    }
                    Incoming::Message { kind: MessageKind::Binary, payload } => Seen::Binary(payload.to_vec()),
                    Incoming::Ping(payload) => Seen::Ping(payload.to_vec()),
                    Incoming::Pong(payload) => Seen::Pong(payload.to_vec()),
                    Incoming::Close(None) => Seen::Close(None, String::new()),
                    Incoming::Close(Some((code, reason))) => Seen::Close(Some(code.get()), reason.to_owned()),
                });
            let rest = data.len();
            self.unread.drain(..self.unread.len() - rest);
            if let Some(seen) = seen {
                return seen;
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk).unwrap() {
                0 => return Seen::Eof,
                bytes => self.unread.extend_from_slice(&chunk[..bytes]),
            }
        }
    }

    /// Echoes until the client closes, and answers that.
    fn echo(&mut self) {
        loop {
            let (mut out, key) = (Vec::new(), MaskingKey::default());
            match self.next() {
                Seen::Text(text) => self.writer.message(&mut out, MessageKind::Text, text.as_bytes(), key).unwrap(),
                Seen::Binary(bytes) => self.writer.message(&mut out, MessageKind::Binary, &bytes, key).unwrap(),
                Seen::Ping(payload) => self.writer.pong(&mut out, &payload, key).unwrap(),
                Seen::Pong(_) => {}
                Seen::Close(code, reason) => return self.close(CloseCode::new(code.unwrap()).unwrap(), &reason),
                Seen::Eof => return,
            }
            self.send(&out);
        }
    }
}

fn plain(request: &server::Request<'_>, out: &mut Vec<u8>) {
    let upgrade = server::upgrade(request).unwrap().unwrap();
    server::write_accept(out, &upgrade, None, &[]).unwrap();
}

/// Runs `script` on the first connection; gives the URL to reach it.
fn serve(script: impl FnOnce(TcpStream) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/path?query", listener.local_addr().unwrap());
    let script = move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        script(stream);
    };
    (url, thread::spawn(script))
}

/// The same behind the opening handshake.
fn serve_open(script: impl FnOnce(&mut Peer<TcpStream>) + Send + 'static) -> (Client, JoinHandle<()>) {
    let (url, server) = serve(|stream| script(&mut Peer::accept(stream, plain)));
    (Client::builder(&url).read_timeout(LONG).connect().unwrap(), server)
}

fn status(code: CloseCode, reason: &str) -> Option<(CloseCode, String)> {
    Some((code, reason.to_owned()))
}

#[test]
fn messages_and_pings_go_there_and_back() {
    let (mut client, server) = serve_open(Peer::echo);
    client.send_text("héllo").unwrap();
    assert_eq!(client.receive().unwrap(), Message::Text("héllo".into()));
    for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
        let bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
        client.send_binary(&bytes).unwrap();
        assert_eq!(client.receive().unwrap(), Message::Binary(bytes));
    }
    client.ping(b"there?").unwrap();
    client.send_text("").unwrap();
    assert_eq!(client.receive().unwrap(), Message::Pong(b"there?".to_vec()));
    assert_eq!(client.receive().unwrap(), Message::Text(String::new()));
    assert!(matches!(client.ping(&[0; 126]), Err(ClientError::Write(WriteError::ControlTooLong))));
    assert_eq!(client.close(CloseCode::NORMAL, "done").unwrap(), status(CloseCode::NORMAL, "done"));
    assert!(matches!(client.receive(), Err(ClientError::Ended)));
    assert!(matches!(client.send_text("late"), Err(ClientError::Ended)));
    server.join().unwrap();
}

#[test]
fn headers_and_subprotocols_are_negotiated() {
    let (url, server) = serve(|stream| {
        let answer = |request: &server::Request<'_>, out: &mut Vec<u8>| {
            assert_eq!((request.path(), request.query()), ("/path", Some("query")));
            assert_eq!(request.header("authorization"), Some(&b"Bearer x"[..]));
            let upgrade = server::upgrade(request).unwrap().unwrap();
            assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["a", "b"]);
            server::write_accept(out, &upgrade, Some("b"), &[]).unwrap();
        };
        Peer::accept(stream, answer).echo();
    });
    let mut client =
        Client::builder(&url).header("Authorization", "Bearer x").protocol("a").protocol("b").connect().unwrap();
    assert_eq!(client.protocol(), Some("b"));
    client.close(CloseCode::NORMAL, "").unwrap();
    server.join().unwrap();
}

#[test]
fn frames_behind_the_answer_are_not_lost() {
    let (url, server) = serve(|stream| {
        let mut peer = Peer::accept(stream, |request, out| {
            plain(request, out);
            out.extend_from_slice(b"\x81\x05early\x82\x02");
        });
        peer.send(b"on");
        peer.echo();
    });
    let mut client = Client::builder(&url).read_timeout(LONG).connect().unwrap();
    assert_eq!(client.protocol(), None);
    assert_eq!(client.receive().unwrap(), Message::Text("early".into()));
    assert_eq!(client.receive().unwrap(), Message::Binary(b"on".to_vec()));
    client.close(CloseCode::NORMAL, "").unwrap();
    server.join().unwrap();
}

#[test]
fn pings_are_answered_within_fragmented_messages() {
    let (mut client, server) = serve_open(|peer| {
        peer.send(b"\x01\x03one\x89\x02hi\x8a\x00\x80\x03two");
        assert_eq!(peer.next(), Seen::Pong(b"hi".to_vec()));
        peer.echo();
    });
    assert_eq!(client.receive().unwrap(), Message::Pong(vec![]));
    assert_eq!(client.receive().unwrap(), Message::Text("onetwo".into()));
    client.close(CloseCode::NORMAL, "").unwrap();
    server.join().unwrap();
}

#[test]
fn the_servers_close_is_answered_and_is_the_last() {
    for (frame, code, reason) in [
        (&b"\x88\x00"[..], None, ""),
        (b"\x88\x02\x03\xf4", Some(1012), ""),
        (b"\x88\x05\x0b\xb8bye", Some(3000), "bye"),
    ] {
        let (mut client, server) = serve_open(move |peer| {
            peer.send(b"\x81\x04last");
            peer.send(frame);
            assert_eq!(peer.next(), Seen::Close(code, String::new()));
        });
        assert_eq!(client.receive().unwrap(), Message::Text("last".into()));
        let code = code.and_then(CloseCode::new);
        assert_eq!(client.receive().unwrap(), Message::Closed(code.map(|code| (code, reason.to_owned()))));
        assert!(matches!(client.receive(), Err(ClientError::Ended)));
        assert!(matches!(client.close(CloseCode::NORMAL, ""), Err(ClientError::Ended)));
        server.join().unwrap();
    }
}

#[test]
fn closing_waits_for_the_answer_and_discards_what_comes_before() {
    let (mut client, server) = serve_open(|peer| {
        assert_eq!(peer.next(), Seen::Close(Some(4000), "why".into()));
        peer.send(b"\x81\x04late\x89\x00");
        peer.close(CloseCode::GOING_AWAY, "so");
    });
    let long = "r".repeat(124);
    let unsendable = client.close(CloseCode::NO_STATUS, "");
    assert!(matches!(unsendable, Err(ClientError::Write(WriteError::UnsendableCode))));
    assert!(matches!(client.close(CloseCode::NORMAL, &long), Err(ClientError::Write(WriteError::ReasonTooLong))));
    let answer = client.close(CloseCode::new(4000).unwrap(), "why").unwrap();
    assert_eq!(answer, status(CloseCode::GOING_AWAY, "so"));
    server.join().unwrap();
}

#[test]
fn closing_does_not_wait_forever() {
    let (go, wait) = mpsc::channel::<()>();
    let (url, server) = serve(move |stream| {
        let mut peer = Peer::accept(stream, plain);
        assert!(matches!(peer.next(), Seen::Close(Some(1000), _)));
        _ = wait.recv();
        assert_eq!(peer.next(), Seen::Eof, "nothing follows our Close frame");
    });
    let mut client = Client::builder(&url).close_timeout(SHORT).connect().unwrap();
    assert!(matches!(client.close(CloseCode::NORMAL, ""), Err(ClientError::Timeout)));
    assert!(matches!(client.receive(), Err(ClientError::Ended)));
    go.send(()).unwrap();
    server.join().unwrap();
}

#[test]
fn an_end_without_a_close_frame_is_an_error() {
    let (mut client, server) = serve_open(|peer| peer.send(b"\x81\x03abc\x81\x03a"));
    assert_eq!(client.receive().unwrap(), Message::Text("abc".into()));
    server.join().unwrap();
    assert!(matches!(client.receive(), Err(ClientError::Disconnected)));
    assert!(matches!(client.receive(), Err(ClientError::Ended)));
}

#[test]
fn a_breach_of_the_protocol_is_answered_with_its_code() {
    for (frame, error, code) in [
        (&b"\x81\x81abcdx"[..], ProtoError::MaskedFrame, 1002),
        (b"\xc1\x00", ProtoError::ReservedBits, 1002),
        (b"\x81\x01\xff", ProtoError::InvalidUtf8, 1007),
        (b"\x82\x7e\x04\x01", ProtoError::MessageTooBig, 1009),
        (b"\x88\x02\x03\xed", ProtoError::BadCloseCode, 1002),
    ] {
        let (url, server) = serve(move |stream| {
            let mut peer = Peer::accept(stream, plain);
            peer.send(b"\x81\x02ok");
            peer.send(frame);
            assert_eq!(peer.next(), Seen::Close(Some(code), String::new()));
        });
        let mut client = Client::builder(&url).max_message(1024).read_timeout(LONG).connect().unwrap();
        assert_eq!(client.receive().unwrap(), Message::Text("ok".into()));
        assert!(matches!(client.receive(), Err(ClientError::Protocol(found)) if found == error), "{error}");
        assert!(matches!(client.receive(), Err(ClientError::Ended)));
        server.join().unwrap();
    }
}

#[test]
fn a_message_of_exactly_the_limit_passes() {
    let (url, server) = serve(|stream| {
        let mut peer = Peer::accept(stream, plain);
        peer.send(&[&b"\x82\x7e\x04\x00"[..], &[7; 1024]].concat());
        peer.echo();
    });
    let mut client = Client::builder(&url).max_message(1024).connect().unwrap();
    assert_eq!(client.receive().unwrap(), Message::Binary(vec![7; 1024]));
    client.close(CloseCode::NORMAL, "").unwrap();
    server.join().unwrap();
}

#[test]
fn a_timeout_loses_nothing() {
    let (go, wait) = mpsc::channel::<()>();
    let (url, server) = serve(move |stream| {
        let mut peer = Peer::accept(stream, plain);
        peer.send(b"\x81\x05he");
        wait.recv().unwrap();
        peer.send(b"llo");
        peer.echo();
    });
    let mut client = Client::builder(&url).read_timeout(SHORT).connect().unwrap();
    assert!(matches!(client.receive(), Err(ClientError::Timeout)));
    go.send(()).unwrap();
    let message = loop {
        match client.receive() {
            Err(ClientError::Timeout) => {}
            other => break other.unwrap(),
        }
    };
    assert_eq!(message, Message::Text("hello".into()));
    client.close(CloseCode::NORMAL, "").unwrap();
    server.join().unwrap();
}

#[test]
fn what_came_before_a_failed_write_is_still_received() {
    let (mut client, server) = serve_open(|peer| {
        peer.send(b"\x81\x04last");
        peer.close(CloseCode::TRY_AGAIN_LATER, "slow");
        peer.stream.shutdown(Shutdown::Both).unwrap();
    });
    server.join().unwrap();
    let error = loop {
        match client.send_text("are you there?") {
            Ok(()) => thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Io(_)), "{error:?}");
    assert!(matches!(client.send_text("late"), Err(ClientError::Ended)));
    assert_eq!(client.receive().unwrap(), Message::Text("last".into()));
    assert_eq!(client.receive().unwrap(), Message::Closed(status(CloseCode::TRY_AGAIN_LATER, "slow")));
}

#[test]
fn a_refused_handshake_says_the_status() {
    let (url, server) = serve(|stream| {
        Peer::accept(stream, |_, out| server::write_response(out, 503, &[], b"full", false, false).unwrap());
    });
    let refused = Client::connect(&url).map(drop);
    assert!(matches!(refused, Err(ClientError::Handshake(HandshakeError::Refused(503)))), "{refused:?}");
    server.join().unwrap();
}

#[test]
fn an_opening_handshake_without_an_answer_fails() {
    let (url, server) = serve(|mut stream| _ = stream.read(&mut [0; 1024]).unwrap());
    assert!(matches!(Client::connect(&url), Err(ClientError::Disconnected | ClientError::Io(_))));
    server.join().unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    assert!(matches!(Client::builder(&url).connect_timeout(SHORT).connect(), Err(ClientError::Timeout)));
    drop(listener);
    assert!(matches!(Client::connect(&url), Err(ClientError::Io(_))));
}

#[test]
fn what_is_wrong_in_the_builder_is_reported_before_anything_is_sent() {
    let failure = |builder: wingbeat::client::Builder| builder.connect().map(drop).unwrap_err();
    assert!(matches!(failure(Client::builder("wss://a")), ClientError::Url(UrlError::Unsupported)));
    assert!(matches!(failure(Client::builder("http://a")), ClientError::Url(UrlError::Scheme)));
    let builder = || Client::builder("ws://192.0.2.1");
    assert!(matches!(failure(builder().header("a b", "")), ClientError::Handshake(HandshakeError::InvalidHeader)));
    assert!(matches!(
        failure(builder().header("a", "\n").header("b", "c")),
        ClientError::Handshake(HandshakeError::InvalidHeader)
    ));
    assert!(matches!(
        failure(builder().header("Upgrade", "x")),
        ClientError::Handshake(HandshakeError::ReservedHeader)
    ));
    assert!(matches!(failure(builder().protocol("a b")), ClientError::Handshake(HandshakeError::InvalidHeader)));
}

#[cfg(unix)]
#[test]
fn unix_sockets_are_reached_by_their_path() {
    let dir = std::env::temp_dir().join(format!("wingbeat-client-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        let answer = |request: &server::Request<'_>, out: &mut Vec<u8>| {
            assert_eq!((request.target(), request.header("Host")), ("/echo", Some(&b"localhost"[..])));
            plain(request, out);
        };
        Peer::accept(listener.accept().unwrap().0, answer).echo();
    });
    let mut client = Client::connect_unix(&path, "/echo").unwrap();
    client.send_text("local").unwrap();
    assert_eq!(client.receive().unwrap(), Message::Text("local".into()));
    client.close(CloseCode::NORMAL, "").unwrap();
    server.join().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}
