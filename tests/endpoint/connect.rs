//! What `connect` is told of a client: its session, and its header fields. On real sockets, as browsers come.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::time::Duration;
use wingbeat::Drain;
use wingbeat::channels::UserSocket;
use wingbeat::channels::token::Signer;
use wingbeat::endpoint::{Connect, ConnectInfo, Endpoint, LongPollOptions, Mount, Serving};
use wingbeat::http::{Router, SessionCookie};

const LONG: Duration = Duration::from_secs(20);

/// What one `connect` saw.
#[derive(Debug, PartialEq)]
struct Seen {
    user: Option<String>,
    x: Vec<String>,
    sec_websocket: Vec<String>,
    trace: Vec<String>,
    user_agent: Option<String>,
}

struct Site {
    serving: Serving,
    address: SocketAddr,
    seen: mpsc::Receiver<Seen>,
}

fn cookie() -> SessionCookie {
    SessionCookie::new(Signer::new(b"0123456789abcdef0123456789abcdef").unwrap())
}

fn list<'a>(fields: impl Iterator<Item = (&'a str, &'a [u8])>) -> Vec<String> {
    let mut list: Vec<_> = fields.map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value))).collect();
    list.sort();
    list
}

impl Site {
    /// Pages with a session at `/page`, sockets that read it at `/socket`, and sockets that do not at `/blind`.
    fn new() -> Site {
        let (sender, seen) = mpsc::channel();
        let mount = || {
            let sender = sender.clone();
            let look = move |info: &ConnectInfo<'_>| {
                let seen = Seen {
                    user: info.session().map(|session| session.text("user").unwrap_or("nobody").to_owned()),
                    x: list(info.x_headers()),
                    sec_websocket: list(info.sec_websocket_headers()),
                    trace: list(info.trace_context()),
                    user_agent: info.user_agent().map(str::to_owned),
                };
                sender.send(seen).unwrap();
                Connect::accept()
            };
            Mount::new(UserSocket::new()).connect(look).longpoll(LongPollOptions::default())
        };
        let router = Router::new().plug(cookie()).get("/page/:user", |context| {
            let user = context.var("user").unwrap().to_owned();
            context.session_mut().put("user", user);
            context.csrf_token()
        });
        let endpoint = Endpoint::new().router(router).workers(1);
        let endpoint = endpoint.socket("/socket", mount().session(cookie())).socket("/blind", mount());
        let serving = endpoint.spawn("127.0.0.1:0").unwrap();
        let address = serving.running().tcp_address().unwrap();
        Site { serving, address, seen }
    }

    fn request(&self, target: &str, fields: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: site.test\r\n{fields}\r\n").as_bytes()).unwrap();
        BufReader::new(stream)
    }

    /// A page's visit: the cookie that it sets, and the token that it shows.
    fn visit(&self, user: &str) -> (String, String) {
        let mut answer = String::new();
        self.request(&format!("/page/{user}"), "Connection: close\r\n").read_to_string(&mut answer).unwrap();
        let (head, token) = answer.split_once("\r\n\r\n").unwrap();
        let set = head
            .lines()
            .find_map(|line| line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")));
        (set.unwrap().1.split(';').next().unwrap().to_owned(), token.to_owned())
    }

    /// What `connect` saw of an opening handshake, which is accepted.
    fn connect(&self, target: &str, fields: &str) -> Seen {
        let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let mut status = String::new();
        self.request(target, &format!("{upgrade}{fields}")).read_line(&mut status).unwrap();
        assert!(status.starts_with("HTTP/1.1 101 "), "{status}");
        self.seen.recv_timeout(LONG).unwrap()
    }

    fn end(self) {
        self.serving.handle().drain(Drain::default());
        self.serving.join().unwrap();
    }
}

#[test]
fn a_session_is_read_only_with_its_own_csrf_token() {
    let site = Site::new();
    let (anna, annas) = site.visit("anna");
    let (bert, berts) = site.visit("bert");
    let mut tampered = anna.clone();
    let last = tampered.pop().unwrap();
    tampered.push(if last == 'A' { 'B' } else { 'A' });
    let forged = anna.replacen('=', "=x", 1);
    for (why, cookie, query, user) in [
        ("hers", &anna, format!("?_csrf_token={annas}"), Some("anna")),
        ("his", &bert, format!("?_csrf_token={berts}"), Some("bert")),
        ("no token", &anna, String::new(), None),
        ("an empty token", &anna, "?_csrf_token=".to_owned(), None),
        ("another session's token", &anna, format!("?_csrf_token={berts}"), None),
        ("a cut token", &anna, format!("?_csrf_token={}", &annas[..annas.len() - 4]), None),
        ("a token in a list", &anna, format!("?_csrf_token[]={annas}"), None),
        ("another signature", &tampered, format!("?_csrf_token={annas}"), None),
        ("another beginning", &forged, format!("?_csrf_token={annas}"), None),
        ("no cookie", &String::new(), format!("?_csrf_token={annas}"), None),
    ] {
        let fields = if cookie.is_empty() { String::new() } else { format!("Cookie: {cookie}\r\n") };
        let seen = site.connect(&format!("/socket/websocket{query}"), &fields);
        assert_eq!(seen.user.as_deref(), user, "{why}");
        let blind = site.connect(&format!("/blind/websocket{query}"), &fields);
        assert_eq!(blind.user, None, "{why}: the mount does not read sessions");
    }
    let polls = format!("/socket/longpoll?vsn=2.0.0&_csrf_token={annas}");
    let answer = site.request(&polls, &format!("Cookie: {anna}\r\nConnection: close\r\n")).lines().next().unwrap();
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 "));
    assert_eq!(site.seen.recv_timeout(LONG).unwrap().user.as_deref(), Some("anna"), "by long-poll");
    site.end();
}

#[test]
fn header_fields_are_told_by_their_kind() {
    let site = Site::new();
    let fields = "X-Real-Ip: 192.0.2.7\r\nx-request-id: 1\r\nXylophone: no\r\nX: no\r\nTraceParent: 00-ab-cd-01\r\n\
                  tracestate: a=1\r\nTraceparents: no\r\nUser-Agent: test/1\r\n\
                  Sec-WebSocket-Protocol: one, two\r\nSec-Fetch-Mode: no\r\n";
    let seen = site.connect("/blind/websocket", fields);
    let lower = |list: &[String]| -> Vec<String> {
        let lower = |field: &String| field.split_once('=').map(|(a, b)| format!("{}={b}", a.to_lowercase())).unwrap();
        let mut list: Vec<_> = list.iter().map(lower).collect();
        list.sort();
        list
    };
    assert_eq!(lower(&seen.x), ["x-real-ip=192.0.2.7", "x-request-id=1"]);
    assert_eq!(lower(&seen.trace), ["traceparent=00-ab-cd-01", "tracestate=a=1"]);
    assert_eq!(
        lower(&seen.sec_websocket),
        ["sec-websocket-key=dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-protocol=one, two", "sec-websocket-version=13",]
    );
    assert_eq!(seen.user_agent.as_deref(), Some("test/1"));
    site.end();
}
