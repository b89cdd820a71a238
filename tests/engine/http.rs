//! Plain HTTP/1.1: kept connections, pipelining, bodies, late answers, mounts.
#![forbid(unsafe_code)]

use crate::common::wire;
use crate::common::world::config;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use wingbeat::driver::Driver;
use wingbeat::driver::sim::{Faults, Net, Peer, Sim};
use wingbeat::engine::{Counters, Drain, Handle, Worker, group};
use wingbeat::{Address, Answer, Config, Conn, ConnId, Handler, Message, Request, Response, Scope, Upgrade};

#[derive(Default)]
struct Seen {
    requests: Vec<String>,
    waiting: Vec<ConnId>,
    gone: Vec<ConnId>,
    closed: u32,
}

/// Answers with what it was asked, so that an answer tells which request it belongs to.
struct Web(Rc<RefCell<Seen>>);

impl Handler for Web {
    type State = ();
    type Mail = String;

    fn mounts(&self, request: &Request<'_>) -> bool {
        request.path().starts_with("/mount") || request.path() == "/ws"
    }

    fn upgrade(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<()> {
        match request.path() {
            "/mount/no" => Upgrade::Reject(Response::text(403, "")),
            "/mount/later" => {
                self.0.borrow_mut().waiting.push(request.id());
                Upgrade::Later
            }
            _ => Upgrade::Accept(()),
        }
    }

    fn upgrade_later(&mut self, _: &mut Scope<'_>, _: ConnId, _: String) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn body_limit(&self, request: &Request<'_>) -> u32 {
        if request.path() == "/large" { 64 << 10 } else { request.body_limit() }
    }

    fn request(&mut self, scope: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        let body = String::from_utf8_lossy(request.body());
        let what = format!("{} {} {body}", request.method(), request.path());
        self.0.borrow_mut().requests.push(what.clone());
        match request.path() {
            "/later" => {
                self.0.borrow_mut().waiting.push(request.id());
                Answer::Later
            }
            "/in-callback" => {
                assert!(scope.respond(request.id(), Response::text(200, "early")));
                assert!(!scope.respond(request.id(), Response::text(200, "twice")));
                Answer::Later
            }
            "/no-content" => Response::text(204, "left out").into(),
            "/close" => Response::text(200, what).header("connection", "Close").into(),
            "/huge" => Response::with_type(200, "text/plain", vec![b'x'; 300_000]).into(),
            "/panic" => std::panic::resume_unwind(Box::new("scripted")),
            _ => Response::text(200, what).into(),
        }
    }

    fn request_gone(&mut self, _: &mut Scope<'_>, id: ConnId) {
        self.0.borrow_mut().gone.push(id);
    }

    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        conn.send(message);
    }

    fn close(&mut self, _: &mut Scope<'_>, (): (), _: wingbeat::CloseReason) {
        self.0.borrow_mut().closed += 1;
    }
}

struct Site {
    net: Net,
    worker: Worker<Web, Sim>,
    handle: Handle<String>,
    seen: Rc<RefCell<Seen>>,
    address: Address,
}

/// An answer, read the naive way.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn keeps(&self) -> bool {
        self.head.contains("\r\nConnection: keep-alive\r\n")
    }
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

impl Site {
    fn new(config: Config) -> Site {
        let net = Net::new(1);
        let driver = net.driver(config.driver);
        let (mut seeds, handle) = group(&[driver.waker()], config);
        let seen = Rc::new(RefCell::new(Seen::default()));
        let seed = seeds.pop().unwrap();
        let mut worker = seed.start_at(driver, Web(Rc::clone(&seen)), net.now(), Some(1));
        let address = worker.listen(&"127.0.0.1:80".parse().unwrap()).unwrap();
        Site { net, worker, handle, seen, address }
    }

    fn settle(&mut self) {
        (0..12).for_each(|_| self.worker.turn(self.net.now()).unwrap());
    }

    fn pass(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(4) {
            self.net.advance(ms(4));
            self.worker.turn(self.net.now()).unwrap();
        }
        self.settle();
    }

    fn connect(&self) -> Peer {
        self.net.connect(&self.address).unwrap()
    }

    /// A connection with this sent.
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> Peer {
        let peer = self.connect();
        peer.send(bytes.as_ref());
        self.settle();
        peer
    }

    /// One request on a connection of its own; its answer, and whether the connection was ended.
    fn ask(&mut self, bytes: impl AsRef<[u8]>) -> (Reply, bool) {
        let peer = self.send(bytes);
        let mut replies = replies(&peer.take(), &["GET"]);
        assert_eq!(replies.len(), 1, "{replies:?}");
        let ended = peer.is_eof();
        peer.close();
        self.settle();
        (replies.remove(0), ended)
    }

    fn counters(&self) -> Counters {
        self.handle.metrics().counters
    }

    fn waiting(&self) -> ConnId {
        *self.seen.borrow().waiting.last().unwrap()
    }

    fn quiet(&mut self) {
        self.settle();
        assert_eq!((self.worker.sockets(), self.counters().frames_live), (0, 0));
    }
}

/// The answers in `bytes`, the last of `methods` for those beyond them.
fn replies(bytes: &[u8], methods: &[&str]) -> Vec<Reply> {
    let (mut rest, mut replies) = (bytes, Vec::new());
    while !rest.is_empty() {
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("whole heads") + 4;
        let head = String::from_utf8(rest[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head.split("\r\nContent-Length: ").nth(1).map(|rest| rest.split('\r').next().unwrap());
        assert_eq!(length.is_none(), matches!(status, 100 | 204 | 304), "{head}");
        assert!(status != 200 || head.contains(" GMT\r\n"), "{head}");
        let method = methods.get(replies.len()).or(methods.last()).unwrap();
        let length = if *method == "HEAD" { 0 } else { length.map_or(0, |length| length.parse().unwrap()) };
        let body = String::from_utf8(rest[end..end + length].to_vec()).unwrap();
        replies.push(Reply { status, head, body });
        rest = &rest[end + length..];
    }
    replies
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n")
}

fn post(path: &str, fields: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n{body}")
}

fn bodies(replies: &[Reply]) -> Vec<&str> {
    replies.iter().map(|reply| reply.body.as_str()).collect()
}

#[test]
fn pipelined_requests_are_answered_in_their_order_however_they_are_cut() {
    let stream = [
        get("/1"),
        post("/2", "Content-Length: 5\r\n", "hello"),
        "\r\n".into(),
        post("/3", "Transfer-Encoding: chunked\r\n", "2;x\r\nhe\r\n3\r\nllo\r\n0\r\nA: b\r\n\r\n"),
        "HEAD /4 HTTP/1.1\r\nHost: sim\r\n\r\n".into(),
        post("/5", "Content-Length: 0\r\n", ""),
        get("/no-content"),
        get("/in-callback"),
        "GET /8 HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n".into(),
        get("/never"),
    ]
    .concat();
    let expected = ["GET /1 ", "POST /2 hello", "POST /3 hello", "", "POST /5 ", "", "early", "GET /8 "];
    let check = |peer: &Peer, what: &str| {
        let replies = replies(&peer.take(), &["GET", "GET", "GET", "HEAD", "GET"]);
        assert_eq!(bodies(&replies), expected, "{what}");
        assert_eq!(replies.iter().filter(|reply| reply.keeps()).count(), 7);
        assert!(replies[3].head.contains("Content-Length: 8\r\n"), "HEAD tells the length of GET's body");
        assert!(peer.is_eof() && !peer.is_reset());
    };
    for at in 0..stream.len() {
        let mut site = Site::new(config());
        let peer = site.send(&stream[..at]);
        peer.send(&stream.as_bytes()[at..]);
        site.settle();
        check(&peer, &format!("cut at {at}"));
        peer.close();
        site.quiet();
        assert_eq!((site.counters().accepted, site.counters().requests), (1, 8));
    }
    let mut site = Site::new(config());
    site.net.set_faults(Faults { partial_receive: 1000, ..Faults::default() });
    let peer = site.send(&stream);
    (0..stream.len()).for_each(|_| site.settle());
    check(&peer, "byte by byte");
}

#[test]
fn old_clients_say_that_they_stay() {
    let mut site = Site::new(config());
    let (reply, ended) = site.ask("GET /a HTTP/1.0\r\n\r\n");
    assert_eq!((reply.status, reply.keeps(), ended), (200, false, true));
    let (reply, ended) = site.ask("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!((reply.status, reply.keeps(), ended), (200, true, false));
    let (reply, ended) = site.ask(get("/close"));
    assert_eq!((reply.status, reply.keeps(), ended), (200, false, true), "the handler may end it");
    site.quiet();
}

#[test]
fn what_cannot_be_read_ends_the_connection_behind_the_answers_before_it() {
    for (bad, status) in [
        ("BROKEN\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n", 413),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: tea\r\n\r\nabc", 417),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc", 400),
    ] {
        let mut site = Site::new(config());
        let peer = site.send([&get("/fine"), bad, &get("/never")].concat());
        let replies = replies(&peer.take(), &["GET"]);
        assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [200, status], "{bad:?}");
        assert!(!replies[1].keeps() && peer.is_eof() && !peer.is_reset());
        assert_eq!(site.counters().bad_requests, 1);
        assert_eq!(site.seen.borrow().requests, ["GET /fine "]);
        peer.close();
        site.quiet();
    }
}

#[test]
fn a_panic_is_500_and_the_last_answer() {
    let mut site = Site::new(config());
    let (reply, ended) = site.ask([get("/panic"), get("/never")].concat());
    assert_eq!((reply.status, ended, site.counters().panics), (500, true, 1));
}

#[test]
fn body_limits_are_exact_and_the_handlers() {
    let mut small = config();
    small.limits.body_bytes = 10;
    let mut site = Site::new(small);
    let sized = |path: &str, size: usize| post(path, &format!("Content-Length: {size}\r\n"), &"x".repeat(size));
    let chunked = |size: usize| {
        let chunks: String = (0..size).map(|_| "1\r\nx\r\n").collect();
        post("/", "Transfer-Encoding: chunked\r\n", &format!("{chunks}0\r\n\r\n"))
    };
    for (request, status) in [
        (sized("/", 10), 200),
        (sized("/", 11), 413),
        (chunked(10), 200),
        (chunked(11), 413),
        (sized("/large", 64 << 10), 200),
        (sized("/large", (64 << 10) + 1), 413),
    ] {
        assert_eq!(site.ask(&request).0.status, status, "{} bytes", request.len());
    }
    // The refusal does not wait for the body.
    assert_eq!(site.ask(post("/", "Content-Length: 11\r\nExpect: 100-continue\r\n", "")).0.status, 413);
    site.quiet();
}

#[test]
fn a_client_that_waits_for_100_is_told_once() {
    let mut site = Site::new(config());
    for fields in ["Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"] {
        let peer = site.send(post("/", &format!("{fields}Expect: 100-Continue\r\n"), ""));
        assert_eq!(peer.take(), b"HTTP/1.1 100 Continue\r\n\r\n");
        peer.send(if fields.starts_with('C') { b"hello" } else { b"5\r\nhello\r\n0\r\n\r\n" });
        site.settle();
        assert_eq!(bodies(&replies(&peer.take(), &["GET"])), ["POST / hello"]);
        peer.close();
    }
    let (reply, ended) = site.ask(post("/", "Content-Length: 5\r\nExpect: 100-continue\r\n", "hello"));
    assert_eq!((reply.status, ended), (200, false), "who has sent the body is not told");
    let (reply, _) = site.ask("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(reply.status, 200, "no body, nothing to wait for");
    site.quiet();
}

#[test]
fn silence_ends_a_connection_in_each_stage() {
    let mut quick = config();
    quick.limits.handshake_timeout = ms(200);
    quick.limits.body_timeout = ms(400);
    quick.limits.keep_alive_timeout = ms(1000);
    let stage = |bytes: &str, before: u64, status: Option<u16>| {
        let mut site = Site::new(quick);
        let peer = site.send(bytes);
        let first = peer.take();
        site.pass(before - 40);
        assert_eq!((peer.take(), peer.is_eof()), (vec![], false), "{bytes:?}");
        site.pass(80);
        let last = replies(&peer.take(), &["GET"]);
        assert_eq!(last.first().map(|reply| reply.status), status, "{bytes:?} {first:?}");
        assert!(peer.is_eof() && !peer.is_reset());
        peer.close();
        site.quiet();
        site.counters().handshake_timeouts
    };
    assert_eq!(stage("", 200, Some(408)), 1);
    assert_eq!(stage("GET / HTTP/1.1\r\n", 200, Some(408)), 1);
    assert_eq!(stage(&post("/", "Content-Length: 5\r\n", "hell"), 400, Some(408)), 1);
    assert_eq!(stage(&post("/", "Transfer-Encoding: chunked\r\n", "5\r\n"), 400, Some(408)), 1);
    assert_eq!(stage(&get("/"), 1000, None), 0);
    assert_eq!(stage(&(get("/") + "\r\n"), 1000, None), 0);
    assert_eq!(stage(&(get("/") + "GET"), 200, Some(408)), 1);
}

#[test]
fn each_request_has_its_time_again() {
    let mut quick = config();
    quick.limits.handshake_timeout = ms(200);
    quick.limits.keep_alive_timeout = ms(400);
    let mut site = Site::new(quick);
    let peer = site.connect();
    for _ in 0..5 {
        peer.send(b"POST / HTTP/1.1\r\nHost: a\r\n");
        site.pass(150);
        peer.send(b"Content-Length: 2\r\n\r\na");
        site.pass(150);
        peer.send(b"b");
        site.settle();
        assert_eq!(bodies(&replies(&peer.take(), &["GET"])), ["POST / ab"]);
        site.pass(350);
    }
}

#[test]
fn a_late_answer_comes_before_those_behind_it() {
    let mut site = Site::new(config());
    let peer = site.send([get("/later"), get("/2"), get("/later")].concat());
    peer.send(get("/4").as_bytes());
    site.settle();
    assert_eq!((peer.take(), site.seen.borrow().requests.len()), (vec![], 1), "one is in work at a time");
    let first = site.waiting();
    site.handle.respond(first, Response::text(200, "late")).unwrap();
    site.settle();
    assert_eq!(bodies(&replies(&peer.take(), &["GET"])), ["late", "GET /2 "]);
    // The first one's id is not that of the next on this connection.
    let third = site.waiting();
    assert_eq!(first.socket, third.socket);
    assert_ne!(first, third);
    site.handle.respond(first, Response::text(200, "twice")).unwrap();
    site.settle();
    assert_eq!((peer.take(), site.counters().mail_stale), (vec![], 1));
    let answered = site.worker.with(|_, scope| {
        assert!(!scope.respond(first, Response::new(200)));
        scope.respond(third, Response::text(200, "from here"))
    });
    assert!(answered);
    site.settle();
    assert_eq!(bodies(&replies(&peer.take(), &["GET"])), ["from here", "GET /4 "]);
    assert!(site.seen.borrow().gone.is_empty());
    peer.close();
    site.quiet();
}

#[test]
fn an_answer_that_does_not_come_is_503_and_the_end() {
    let mut quick = config();
    quick.limits.answer_timeout = ms(300);
    let mut site = Site::new(quick);
    let peer = site.send([get("/later"), get("/2")].concat());
    site.pass(260);
    assert_eq!(peer.take(), b"");
    site.pass(80);
    let replies = replies(&peer.take(), &["GET"]);
    assert_eq!((replies.len(), replies[0].status, replies[0].keeps()), (1, 503, false));
    let id = site.waiting();
    assert_eq!(site.seen.borrow().gone, [id]);
    site.handle.respond(id, Response::new(200)).unwrap();
    site.settle();
    assert_eq!((peer.take(), site.counters().mail_stale), (vec![], 1));
    assert!(peer.is_eof());
    peer.close();
    site.quiet();
}

#[test]
fn a_peer_that_leaves_before_its_answer_is_noticed_once() {
    let endings: [fn(&Peer); 3] = [Peer::close, Peer::reset, Peer::shutdown];
    for end in endings {
        let mut site = Site::new(config());
        let peer = site.send([get("/1"), get("/later"), get("/3")].concat());
        end(&peer);
        site.settle();
        let id = site.waiting();
        assert_eq!(site.seen.borrow().gone, [id]);
        site.handle.respond(id, Response::new(200)).unwrap();
        peer.close();
        site.quiet();
        assert_eq!(site.counters().mail_stale, 1);
        assert_eq!(site.seen.borrow().gone, [id]);
    }
}

#[test]
fn requests_before_the_end_of_the_peers_side_are_answered() {
    let mut site = Site::new(config());
    let peer = site.connect();
    peer.send([get("/1"), get("/2")].concat().as_bytes());
    peer.shutdown();
    site.settle();
    assert_eq!(bodies(&replies(&peer.take(), &["GET"])), ["GET /1 ", "GET /2 "]);
    assert!(peer.is_eof() && !peer.is_reset());
    peer.close();
    site.quiet();
}

#[test]
fn a_peer_that_takes_no_answers_is_read_from_no_further() {
    let mut site = Site::new(config());
    site.net.set_buffer(16 << 10);
    let peer = site.connect();
    peer.send(get("/huge").repeat(40).as_bytes());
    site.settle();
    let asked = site.seen.borrow().requests.len();
    assert!(asked < 5, "{asked} answers of 300 kB wait");
    peer.shutdown();
    let mut bytes = Vec::new();
    for _ in 0..4000 {
        bytes.extend(peer.take());
        site.settle();
    }
    let replies = replies(&bytes, &["GET"]);
    assert_eq!((replies.len(), replies.iter().filter(|reply| reply.body.len() == 300_000).count()), (40, 40));
    peer.close();
    site.quiet();
}

#[test]
fn a_kept_connection_becomes_a_websocket() {
    let mut site = Site::new(config());
    let hello = wire::masked(wire::TEXT, b"hello");
    let peer = site.send([get("/1").as_bytes(), &wire::request("/ws", ""), &hello].concat());
    let bytes = peer.take();
    let at = bytes.windows(12).position(|at| at == b"HTTP/1.1 101").expect("an upgrade behind the answer");
    assert_eq!(bodies(&replies(&bytes[..at], &["GET"])), ["GET /1 "]);
    assert!(bytes.ends_with(b"\r\n\r\n\x81\x05hello"));
    peer.close();
    site.quiet();
    assert_eq!(site.seen.borrow().closed, 1);
}

#[test]
fn a_handshake_that_is_not_mounted_is_a_plain_request_and_the_last() {
    let mut site = Site::new(config());
    let behind = get("/never");
    let (reply, ended) = site.ask([&wire::request("/page", "")[..], behind.as_bytes()].concat());
    assert_eq!((reply.status, reply.body.as_str(), ended), (200, "GET /page ", true));
    // An invalid one is refused as ever.
    let invalid = "GET /page HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
    assert_eq!(site.ask(invalid).0.status, 400);
    assert_eq!(site.seen.borrow().requests.len(), 1);
    site.quiet();
}

#[test]
fn a_mount_admits_before_the_handshake_is_judged() {
    let fields = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let cases = [
        ("GET /mount HTTP/1.1\r\nHost: a\r\n".to_owned(), "'connection' header must contain 'upgrade', got []\n"),
        (
            "GET /mount HTTP/1.1\r\nHost: a\r\nConnection: close\r\nConnection: x\r\n".to_owned(),
            "'connection' header must contain 'upgrade', got [\"close\", \"x\"]\n",
        ),
        (
            "GET /mount HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n".to_owned(),
            "'upgrade' header must contain 'websocket', got []\n",
        ),
        (format!("POST /mount HTTP/1.1\r\n{fields}{key}"), "HTTP method POST unsupported\n"),
        (format!("GET /mount HTTP/1.1\r\n{fields}"), "'sec-websocket-key' header is absent\n"),
        (
            format!("GET /mount HTTP/1.1\r\n{fields}{key}Sec-WebSocket-Version: 8\r\n"),
            "'sec-websocket-version' header must equal '13', got [\"8\"]\n",
        ),
    ];
    for (request, text) in cases {
        let mut site = Site::new(config());
        let (reply, ended) = site.ask(format!("{request}\r\n"));
        assert_eq!((reply.status, reply.body.as_str(), ended), (400, text, true));
        assert_eq!((site.counters().opened, site.seen.borrow().closed), (0, 0));
        // Who may not connect learns that first.
        let refused = site.ask(format!("{request}\r\n").replace("/mount", "/mount/no")).0;
        assert_eq!((refused.status, refused.body.as_str()), (403, ""));
        // It may be decided later.
        let peer = site.send(format!("{request}\r\n").replace("/mount", "/mount/later"));
        site.handle.answer_upgrade(site.waiting(), "accept".into()).unwrap();
        site.settle();
        assert_eq!(bodies(&replies(&peer.take(), &["GET"])), [text]);
        peer.close();
        site.quiet();
    }
    // The rules against smuggling come first.
    let mut site = Site::new(config());
    let smuggled = "GET /mount HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let peer = site.send(smuggled);
    assert!(peer.take().ends_with(b"invalid or conflicting Content-Length\n"));
}

#[test]
fn a_drain_ends_idle_connections_and_those_in_work_with_their_answer() {
    let mut site = Site::new(config());
    let idle = site.send(get("/1"));
    let busy = site.send([get("/later"), get("/never")].concat());
    idle.take();
    site.handle.drain(Drain { interval: ms(100), deadline: ms(2000), ..Drain::default() });
    site.settle();
    assert!(idle.is_eof() && idle.take().is_empty());
    assert!(!busy.is_eof());
    site.handle.respond(site.waiting(), Response::text(200, "last")).unwrap();
    site.settle();
    let replies = replies(&busy.take(), &["GET"]);
    assert_eq!((bodies(&replies), replies[0].keeps(), busy.is_eof()), (vec!["last"], false, true));
    idle.close();
    busy.close();
    site.pass(2100);
    assert!(site.worker.is_drained());
    assert!(site.seen.borrow().gone.is_empty());
}

#[test]
fn a_drain_does_not_wait_for_an_answer_beyond_its_end() {
    let mut quick = config();
    quick.limits.close_timeout = ms(200);
    let mut site = Site::new(quick);
    let _busy = site.send(get("/later"));
    site.handle.drain(Drain { interval: ms(100), deadline: ms(500), ..Drain::default() });
    site.pass(1000);
    assert!(site.worker.is_drained());
    assert_eq!(site.seen.borrow().gone.len(), 1);
}

#[test]
fn without_a_keep_alive_timeout_each_connection_serves_one_request() {
    let mut once = config();
    once.limits.keep_alive_timeout = Duration::ZERO;
    let (reply, ended) = Site::new(once).ask(get("/"));
    assert_eq!((reply.keeps(), ended), (false, true));
}
