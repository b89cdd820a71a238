//! The library as a program uses it: servers on real sockets, blocking clients, other threads.
#![forbid(unsafe_code)]
#![cfg(feature = "epoll")]

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use wingbeat::client::{Client, ClientError, Message};
use wingbeat::driver::DriverChoice;
use wingbeat::proto::handshake::HandshakeError;
use wingbeat::server::ToAddress;
use wingbeat::{
    Address, Answer, CloseCode, CloseReason, Config, Conn, ConnId, Drain, Handle, Handler, MessageKind, Request,
    Response, Running, Scope, Server, Snapshot, Upgrade,
};

/// Far more than any step takes: it ends a test that hangs.
const LONG: Duration = Duration::from_secs(30);
const LOCAL: &str = "127.0.0.1:0";

/// What connections do is chosen by the path: `/echo`, `/who`, `/topics?NAME` (hears NAME), `/publish?NAME` (says
/// what it gets to NAME), `/panic` (panics at the first message).
#[derive(Clone)]
struct Service {
    name: &'static str,
    opened: Sender<ConnId>,
    closed: Sender<CloseReason>,
}

enum Role {
    Echo,
    Who(String),
    Topic(String),
    Publisher(String),
    Panic,
}

impl Handler for Service {
    type State = Role;
    type Mail = String;

    fn upgrade(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<Role> {
        let topic = || request.query().unwrap_or_default().to_owned();
        Upgrade::Accept(match request.path() {
            "/echo" => Role::Echo,
            "/who" => Role::Who(format!("{} {:?}", self.name, request.peer())),
            "/topics" => Role::Topic(topic()),
            "/publish" => Role::Publisher(topic()),
            "/panic" => Role::Panic,
            _ => return Upgrade::Reject(Response::not_found()),
        })
    }

    fn request(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        let response = match request.path() {
            "/echo" => Response::upgrade_required(),
            "/healthz" => Response::text(200, "fine\n"),
            _ => Response::not_found(),
        };
        response.into()
    }

    fn open(&mut self, conn: &mut Conn<'_>, role: &mut Role) {
        if let Role::Topic(topic) = role {
            conn.subscribe(topic).expect("within the limits");
            conn.send(wingbeat::Message::text("subscribed"));
        }
        let _ = self.opened.send(conn.id());
    }

    fn message(&mut self, conn: &mut Conn<'_>, role: &mut Role, message: wingbeat::Message<'_>) {
        match role {
            Role::Echo => _ = conn.send(message),
            Role::Who(who) => _ = conn.send(wingbeat::Message::text(who)),
            Role::Publisher(topic) => assert_eq!(conn.publish(topic, message).refused, 0),
            Role::Topic(_) => {}
            Role::Panic => panic!("as the test wants it"),
        }
    }

    fn mail(&mut self, conn: &mut Conn<'_>, _: &mut Role, mail: String) {
        conn.send(wingbeat::Message::text(&format!("mail: {mail}")));
    }

    fn close(&mut self, _: &mut Scope<'_>, _: Role, reason: CloseReason) {
        let _ = self.closed.send(reason);
    }
}

/// A running service, and what its callbacks report.
struct Fixture {
    server: Running<String>,
    opened: Receiver<ConnId>,
    closed: Receiver<CloseReason>,
}

impl Fixture {
    fn new(server: Server) -> Self {
        Fixture::named("server", server)
    }

    fn named(name: &'static str, server: Server) -> Self {
        let ((opened, opened_here), (closed, closed_here)) = (channel(), channel());
        let service = Service { name, opened, closed };
        let server = server.spawn(move |_worker| service.clone()).unwrap();
        Fixture { server, opened: opened_here, closed: closed_here }
    }

    fn address(&self) -> SocketAddr {
        self.server.tcp_address().unwrap()
    }

    fn client(&self, target: &str) -> Client {
        client(self.address(), target)
    }

    /// A client that is open on the server's side too, and its id.
    fn known_client(&self, target: &str) -> (Client, ConnId) {
        let client = self.client(target);
        (client, self.opened.recv_timeout(LONG).unwrap())
    }

    fn handle(&self) -> Handle<String> {
        self.server.handle().clone()
    }

    /// Drains, and gives what was counted.
    fn end(self) -> Snapshot {
        let handle = self.handle();
        self.server.drain(Drain::default());
        self.server.join().unwrap();
        handle.metrics()
    }
}

fn client(address: SocketAddr, target: &str) -> Client {
    Client::builder(&format!("ws://{address}{target}")).read_timeout(LONG).connect().unwrap()
}

/// A server on the driver that `WINGBEAT_DRIVER` names (`uring`; else epoll).
fn bind(address: impl ToAddress) -> Server {
    let uring = env::var_os("WINGBEAT_DRIVER").is_some_and(|driver| driver == "uring");
    Server::bind(address).unwrap().driver(if uring { DriverChoice::Uring } else { DriverChoice::Epoll })
}

fn server(workers: usize) -> Server {
    bind(LOCAL).workers(workers)
}

fn text(text: &str) -> Message {
    Message::Text(text.into())
}

/// Counters are stored at the end of a turn, which may be a moment after its effects.
fn eventually(mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + LONG;
    while !holds() {
        assert!(Instant::now() < patience, "it does not come");
        thread::sleep(Duration::from_millis(5));
    }
}

fn echoes(client: &mut Client, payload: &str) {
    client.send_text(payload).unwrap();
    assert_eq!(client.receive().unwrap(), text(payload));
}

fn unix_path(name: &str) -> PathBuf {
    env::temp_dir().join(format!("wingbeat-server-{name}-{}.sock", std::process::id()))
}

fn unix(path: &std::path::Path) -> Server {
    bind(Address::Unix(path.to_owned())).workers(2)
}

fn spawn_error(server: Server) -> ErrorKind {
    let ((opened, _), (closed, _)) = (channel(), channel());
    let service = Service { name: "", opened, closed };
    server.spawn(move |_| service.clone()).expect_err("it cannot be").kind()
}

// ---- listening --------------------------------------------------------------------------------------------------

#[test]
fn listens_on_ipv4_ipv6_and_unix_at_once() {
    let path = unix_path("several");
    let server = server(2).listen("[::1]:0").unwrap().listen(Address::Unix(path.clone())).unwrap();
    let fixture = Fixture::new(server);
    let [Address::Tcp(v4), Address::Tcp(v6), Address::Unix(unix)] = fixture.server.addresses() else {
        panic!("{:?}", fixture.server.addresses())
    };
    assert!(v4.port() != 0 && v6.port() != 0);
    assert_eq!(unix, &path);
    let unix = Client::builder_unix(&path, "/who").read_timeout(LONG).connect().unwrap();
    let clients = [client(*v4, "/who"), client(*v6, "/who"), unix];
    let peers = ["server Some(127.0.0.1)", "server Some(::1)", "server None"];
    for (mut client, peer) in clients.into_iter().zip(peers) {
        client.send_text("who am I?").unwrap();
        assert_eq!(client.receive().unwrap(), text(peer));
    }
    assert_eq!(fixture.end().counters.accepted, 3);
}

#[test]
fn a_port_in_use_is_an_error() {
    let occupant = TcpListener::bind(LOCAL).unwrap();
    let address = occupant.local_addr().unwrap();
    assert_eq!(spawn_error(bind(address)), ErrorKind::AddrInUse);
    drop(occupant);
    // Even one that would share: this server was not told to.
    let sharing = Fixture::new(server(1).config(Config { reuse_port: true, ..Config::default() }));
    for workers in [1, 2] {
        let other = bind(sharing.address()).workers(workers);
        assert_eq!(spawn_error(other), ErrorKind::AddrInUse);
    }
    echoes(&mut sharing.client("/echo"), "undisturbed");
    sharing.end();
}

#[test]
fn reuse_port_shares_a_port() {
    let config = Config { reuse_port: true, ..Config::default() };
    let a = Fixture::named("a", server(1).config(config));
    let b = Fixture::named("b", bind(a.address()).workers(1).config(config));
    let mut served = BTreeMap::new();
    for _ in 0..64 {
        let mut client = a.client("/who");
        client.send_text("who are you?").unwrap();
        *served.entry(format!("{:?}", client.receive().unwrap())).or_insert(0) += 1;
    }
    assert_eq!((served.len(), served.values().sum::<i32>()), (2, 64), "{served:?}");
    a.end();
    b.end();
}

#[test]
fn a_server_that_cannot_start_whole_leaves_nothing_behind() {
    let free = TcpListener::bind(LOCAL).unwrap().local_addr().unwrap();
    let ((opened, _), (closed, _)) = (channel(), channel());
    let service = Service { name: "", opened, closed };
    let made = bind(free).workers(3).spawn(move |worker| {
        assert_ne!(worker, 1, "as the test wants it");
        service.clone()
    });
    assert_eq!(made.expect_err("one worker is missing").kind(), ErrorKind::Other);
    assert!(TcpListener::bind(free).is_ok(), "nobody listens any more");
}

#[test]
fn an_address_that_is_none_is_told_at_once() {
    for address in ["localhost:1", "127.0.0.1", "unix:"] {
        assert_eq!(Server::bind(address).expect_err("no address").kind(), ErrorKind::InvalidInput);
    }
}

#[test]
fn a_stale_unix_socket_is_replaced_and_nothing_else() {
    let path = unix_path("stale");
    drop(UnixListener::bind(&path).unwrap()); // its file stays
    let fixture = Fixture::new(unix(&path));
    let mut client = Client::builder_unix(&path, "/echo").read_timeout(LONG).connect().unwrap();
    echoes(&mut client, "anew");
    assert_eq!(spawn_error(unix(&path)), ErrorKind::AddrInUse, "this one answers");
    echoes(&mut client, "still here");
    drop(client);
    fixture.end();
    assert!(!path.exists(), "a server takes its file with it");
    fs::write(&path, "somebody's data").unwrap();
    assert_eq!(spawn_error(unix(&path)), ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's data");
    fs::remove_file(&path).unwrap();
}

// ---- HTTP -------------------------------------------------------------------------------------------------------

/// The whole answer to a request; the server closes after it.
fn http(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn plain_requests_get_the_handlers_answer() {
    let fixture = Fixture::new(server(2));
    let get =
        |path: &str| http(fixture.address(), &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    let nothing = get("/nothing");
    assert!(nothing.starts_with("HTTP/1.1 404 Not Found\r\n"), "{nothing}");
    let fine = get("/healthz");
    assert!(fine.starts_with("HTTP/1.1 200 OK\r\n") && fine.ends_with("\r\n\r\nfine\n"), "{fine}");
    let upgrade = get("/echo");
    assert!(upgrade.starts_with("HTTP/1.1 426 Upgrade Required\r\n"), "{upgrade}");
    assert!(upgrade.contains("\r\nSec-WebSocket-Version: 13\r\n") && upgrade.contains("\r\nUpgrade: websocket\r\n"));
    assert_eq!(fixture.end().counters.requests, 3);
}

#[test]
fn handshakes_that_cannot_be_get_a_status() {
    let fixture = Fixture::new(server(1));
    let head = "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    let version = format!("{head}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 12\r\n\r\n");
    let version = http(fixture.address(), &version);
    assert!(version.starts_with("HTTP/1.1 426 ") && version.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    let key = format!("{head}Sec-WebSocket-Key: short\r\nSec-WebSocket-Version: 13\r\n\r\n");
    assert!(http(fixture.address(), &key).starts_with("HTTP/1.1 400 "));
    let long = format!("{head}X: {}\r\n\r\n", "x".repeat(9000));
    assert!(http(fixture.address(), &long).starts_with("HTTP/1.1 431 "));
    let refused = Client::connect(&format!("ws://{}/nothing", fixture.address())).expect_err("the handler rejects it");
    assert!(matches!(refused, ClientError::Handshake(HandshakeError::Refused(404))), "{refused}");
    assert_eq!(fixture.end().counters.bad_requests, 3);
}

// ---- messages ---------------------------------------------------------------------------------------------------

#[test]
fn messages_of_several_mebibytes_pass_up_to_the_limit_exactly() {
    const LIMIT: u32 = 5 << 20;
    let mut config = Config::default();
    config.limits.message_bytes = LIMIT;
    let fixture = Fixture::new(server(1).config(config));
    let url = format!("ws://{}/echo", fixture.address());
    let mut client = Client::builder(&url).read_timeout(LONG).max_message(LIMIT).connect().unwrap();
    let binary: Vec<u8> = (0..LIMIT).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
    client.send_binary(&binary).unwrap();
    assert!(client.receive().unwrap() == Message::Binary(binary.clone()), "{LIMIT} bytes, as they were sent");
    let words = "Größe ".repeat(3 << 17); // 3 MiB
    client.send_text(&words).unwrap();
    assert!(client.receive().unwrap() == Message::Text(words));
    // The server answers before it has all of it, so the send may fail; the answer stands.
    let _ = client.send_binary(&[&binary[..], &[0]].concat());
    assert_eq!(client.receive().unwrap(), Message::Closed(Some((CloseCode::TOO_BIG, String::new()))));
    fixture.end();
}

#[test]
fn two_hundred_clients_at_once() {
    const CLIENTS: usize = 200;
    let fixture = Fixture::new(server(4));
    thread::scope(|scope| {
        for id in 0..CLIENTS {
            let fixture = &fixture.server;
            scope.spawn(move || {
                let mut client = client(fixture.tcp_address().unwrap(), "/echo");
                (0..20).for_each(|round| echoes(&mut client, &format!("{id}: {round} {}", "x".repeat(id * round))));
                let status = client.close(CloseCode::NORMAL, "done").unwrap();
                assert_eq!(status.map(|(code, _)| code), Some(CloseCode::NORMAL));
            });
        }
    });
    let Snapshot { counters, closes, .. } = fixture.end();
    let all = CLIENTS as u64;
    assert_eq!((counters.opened, counters.open, counters.received_messages), (all, 0, 20 * all));
    assert_eq!((counters.messages_accepted, counters.messages_sent), (20 * all, 20 * all));
    assert_eq!(closes, BTreeMap::from([((1000, "peer"), all)]));
}

#[test]
fn a_panic_ends_its_connection_and_nothing_else() {
    let fixture = Fixture::new(server(1));
    let mut bystander = fixture.client("/echo");
    let mut unlucky = fixture.client("/panic");
    unlucky.send_text("now").unwrap();
    assert_eq!(unlucky.receive().unwrap(), Message::Closed(Some((CloseCode::INTERNAL, String::new()))));
    echoes(&mut bystander, "nothing happened");
    echoes(&mut fixture.client("/echo"), "nor here");
    let Snapshot { counters, closes, .. } = fixture.end();
    assert_eq!((counters.panics, closes.get(&(1011, "panic"))), (1, Some(&1)));
}

// ---- from other threads -----------------------------------------------------------------------------------------

#[test]
fn a_handle_reaches_one_connection_or_a_topic_from_any_thread() {
    let fixture = Fixture::new(server(4));
    let (mut one, id) = fixture.known_client("/topics?news");
    assert_eq!(one.receive().unwrap(), text("subscribed"));
    let handle = fixture.handle();
    thread::scope(|scope| {
        scope.spawn(|| handle.send(id, wingbeat::Message::text("to you")).unwrap());
    });
    assert_eq!(one.receive().unwrap(), text("to you"));
    handle.mail(id, "a word".into()).unwrap();
    assert_eq!(one.receive().unwrap(), text("mail: a word"));
    let published = handle.publish("news", wingbeat::Message::binary(b"to all"));
    assert_eq!((published.workers, published.refused), (1, 0), "the others have no subscriber, and are not told");
    assert_eq!(one.receive().unwrap(), Message::Binary(b"to all".into()));
    // One thread's mail to one worker keeps its order.
    (0..100).for_each(|n| handle.send(id, wingbeat::Message::text(&n.to_string())).unwrap());
    handle.disconnect(id, CloseCode::POLICY, "enough").unwrap();
    (0..100).for_each(|n| assert_eq!(one.receive().unwrap(), text(&n.to_string())));
    assert_eq!(one.receive().unwrap(), Message::Closed(Some((CloseCode::POLICY, "enough".into()))));
    assert_eq!(fixture.closed.recv_timeout(LONG).unwrap().code, 1008);

    eventually(|| handle.metrics().counters.open == 0);
    handle.send(id, wingbeat::Message::text("too late")).unwrap();
    eventually(|| handle.metrics().counters.mail_stale == 1);
    let Snapshot { counters, closes, .. } = fixture.end();
    assert_eq!((counters.opened, counters.topics, counters.mail_stale), (1, 0, 1));
    assert_eq!(closes, BTreeMap::from([((1008, "remote"), 1)]));
    assert!(handle.send(id, wingbeat::Message::text("")).is_err(), "there is no worker any more");
}

#[test]
fn subscribers_on_four_workers_get_each_message_once_in_each_publishers_order() {
    const SUBSCRIBERS: usize = 40;
    const EACH: u32 = 200;
    let fixture = Fixture::new(server(4));
    let mut subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| fixture.client("/topics?room")).collect();
    subscribers.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap(), text("subscribed")));
    let mut workers: Vec<_> = (0..SUBSCRIBERS).map(|_| fixture.opened.recv_timeout(LONG).unwrap().worker).collect();
    workers.sort_unstable();
    workers.dedup();
    assert!(workers.len() > 1, "the kernel put all of them on one worker");

    let handle = fixture.handle();
    let say = |publisher: usize, n: u32| format!("{publisher} {n}");
    thread::scope(|scope| {
        for publisher in 0..4 {
            let mut client = fixture.client("/publish?room");
            scope.spawn(move || {
                (0..EACH).for_each(|n| client.send_text(&say(publisher, n)).unwrap());
                client.close(CloseCode::NORMAL, "").unwrap();
            });
        }
        for publisher in 4..6 {
            let handle = &handle;
            scope.spawn(move || {
                for n in 0..EACH {
                    let payload = say(publisher, n);
                    let message = wingbeat::Message { kind: MessageKind::Text, payload: payload.as_bytes() };
                    assert_eq!(handle.publish("room", message).refused, 0);
                }
            });
        }
        for client in &mut subscribers {
            scope.spawn(move || {
                let mut next = [0; 6];
                for _ in 0..6 * EACH {
                    let Ok(Message::Text(heard)) = client.receive() else { panic!("cut off at {next:?}") };
                    let (publisher, n) = heard.split_once(' ').unwrap();
                    let expected = &mut next[publisher.parse::<usize>().unwrap()];
                    assert_eq!(n.parse::<u32>().unwrap(), *expected, "from {publisher}");
                    *expected += 1;
                }
                assert_eq!(next, [EACH; 6]);
            });
        }
    });
    drop(subscribers);
    let Snapshot { counters, .. } = fixture.end();
    let deliveries = SUBSCRIBERS as u64 * (6 * u64::from(EACH) + 1);
    assert_eq!((counters.messages_accepted, counters.messages_sent), (deliveries, deliveries));
    assert_eq!((counters.publish_refused, counters.messages_dropped), (0, 0));
}

// ---- draining ---------------------------------------------------------------------------------------------------

/// Exchanges messages until the server says goodbye; returns how often it got an answer.
fn chat_until_closed(client: &mut Client) -> (usize, Option<(CloseCode, String)>) {
    for answers in 0.. {
        let said = client.send_text("are you there?");
        match client.receive().unwrap_or_else(|error| panic!("1006 after {answers} answers: {error}, {said:?}")) {
            Message::Closed(status) => return (answers, status),
            answer => assert_eq!(answer, text("are you there?")),
        }
    }
    unreachable!()
}

/// As a well-behaved client does it: a server that is going away refuses, and another one answers the next time.
fn reconnect(address: SocketAddr, target: &str) -> Client {
    let patience = Instant::now() + LONG;
    loop {
        match Client::builder(&format!("ws://{address}{target}")).read_timeout(LONG).connect() {
            Ok(client) => return client,
            Err(error) => assert!(Instant::now() < patience, "{error}"),
        }
    }
}

#[test]
fn a_rolling_restart_closes_everybody_with_1012_and_nobody_with_1006() {
    const CLIENTS: usize = 60;
    let config = Config { reuse_port: true, ..Config::default() };
    let old = Fixture::named("old", server(2).config(config));
    let address = old.address();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| old.client("/echo")).collect();
    clients.iter_mut().for_each(|client| echoes(client, "hello"));
    let new = Fixture::named("new", bind(address).workers(2).config(config));
    let handle = old.handle();
    thread::scope(|scope| {
        for mut client in clients {
            scope.spawn(move || {
                let (answers, status) = chat_until_closed(&mut client);
                assert_eq!(status, Some((CloseCode::SERVICE_RESTART, String::new())), "after {answers} answers");
                let mut again = reconnect(address, "/who");
                again.send_text("who are you?").unwrap();
                assert_eq!(again.receive().unwrap(), text("new Some(127.0.0.1)"));
                again.close(CloseCode::NORMAL, "").unwrap();
            });
        }
        old.server.drain(Drain { batch: 10, interval: Duration::from_millis(20), ..Drain::default() });
        old.server.join().unwrap();
    });
    let Snapshot { counters, closes, .. } = handle.metrics();
    assert_eq!(closes, BTreeMap::from([((1012, "drain"), CLIENTS as u64)]));
    assert_eq!((counters.open, counters.messages_undelivered, counters.messages_dropped), (0, 0, 0));
    assert_eq!(new.end().closes, BTreeMap::from([((1000, "peer"), CLIENTS as u64)]));
}

#[test]
fn a_drain_ends_at_its_deadline_whoever_does_not_answer() {
    let fixture = Fixture::new(server(2));
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let (client, _) = fixture.known_client("/echo");
        deaf.push(client); // it never reads the Close
    }
    let _never_a_request = TcpStream::connect(fixture.address()).unwrap();
    let handle = fixture.handle();
    fixture.server.drain(Drain { deadline: Duration::from_millis(100), ..Drain::default() });
    fixture.server.join().unwrap();
    assert_eq!(handle.metrics().closes, BTreeMap::from([((1012, "drain"), 4)]));
    for mut client in deaf {
        assert_eq!(client.receive().unwrap(), Message::Closed(Some((CloseCode::SERVICE_RESTART, String::new()))));
    }
}

#[test]
fn a_server_that_drains_refuses_newcomers() {
    let fixture = Fixture::new(server(1));
    let mut stays = fixture.client("/echo");
    echoes(&mut stays, "hello");
    // In the kernel's queue, or accepted and silent, when the drain begins.
    let address = fixture.address();
    let mut early = TcpStream::connect(address).unwrap();
    fixture.server.drain(Drain::default());
    assert!(matches!(stays.receive().unwrap(), Message::Closed(Some((CloseCode::SERVICE_RESTART, _)))));
    early.set_read_timeout(Some(LONG)).unwrap();
    let mut answer = String::new();
    early.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(early);
    fixture.server.join().unwrap();
    assert_eq!(TcpStream::connect(address).expect_err("gone").kind(), ErrorKind::ConnectionRefused);
}

/// Mail that panics when it is dropped: nothing of a handler runs then.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as the test wants it");
    }
}

#[derive(Clone)]
struct Quiet(Sender<ConnId>);

impl Handler for Quiet {
    type State = ();
    type Mail = Bomb;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn open(&mut self, conn: &mut Conn<'_>, (): &mut ()) {
        let _ = self.0.send(conn.id());
    }

    fn message(&mut self, _: &mut Conn<'_>, (): &mut (), _: wingbeat::Message<'_>) {}

    fn mail(&mut self, _: &mut Conn<'_>, (): &mut (), mail: Bomb) {
        std::mem::forget(mail);
    }
}

#[test]
fn a_worker_that_cannot_go_on_ends_the_others() {
    let (opened, ids) = channel();
    let server = bind(LOCAL).workers(2).spawn(move |_| Quiet(opened.clone())).unwrap();
    let address = server.tcp_address().unwrap();
    // A client on each worker; the kernel spreads them.
    let mut clients = BTreeMap::new();
    while clients.len() < 2 {
        let client = client(address, "/");
        let id = ids.recv_timeout(LONG).unwrap();
        clients.entry(id.worker).or_insert((client, id));
    }
    let (bystander, victim) = (clients.remove(&0).unwrap(), clients.remove(&1).unwrap());
    let (_, mut gone) = victim;
    gone.socket.generation += 1;
    server.handle().mail(gone, Bomb).unwrap();
    let (mut bystander, _) = bystander;
    assert_eq!(bystander.receive().unwrap(), Message::Closed(Some((CloseCode::SERVICE_RESTART, String::new()))));
    drop(bystander);
    let error = server.join().unwrap_err();
    assert!(error.to_string().contains("panicked outside a handler"), "{error}");
}

/// However long the worker has not run, its time is then that of the call.
#[test]
fn a_timer_set_between_turns_counts_from_then() {
    let (opened, _ids) = channel();
    let mut worker = wingbeat::Worker::new(Config::default(), Quiet(opened)).unwrap();
    for turns in 0..2 {
        thread::sleep(Duration::from_millis(50));
        let before = Instant::now();
        let id = worker.with(|_, scope| scope.set_timer(Duration::from_millis(40), 0));
        assert!(worker.next_timeout(before).unwrap() >= Duration::from_millis(40), "after {turns} turns");
        assert!(worker.with(|_, scope| scope.cancel_timer(id)));
        worker.wait(Some(Duration::ZERO)).unwrap();
    }
}

/// Passes on what its worker is mailed.
struct Mailbox {
    worker: u16,
    got: Sender<(u16, String)>,
}

impl Handler for Mailbox {
    type State = ();
    type Mail = String;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn message(&mut self, _: &mut Conn<'_>, _: &mut (), _: wingbeat::Message<'_>) {}

    fn worker_mail(&mut self, scope: &mut Scope<'_>, mail: String) {
        assert_eq!(scope.worker(), self.worker);
        self.got.send((self.worker, mail)).expect("the test waits for it");
    }
}

/// A handler has the handle from the start: what it mails before the others exist waits for them.
#[test]
fn handlers_mail_each_others_workers() {
    let (got, mails) = channel();
    let server = Server::bind(LOCAL).unwrap().workers(3);
    let running = server.spawn_with(move |worker, handle| {
        for to in 0..handle.workers() {
            handle.mail_worker(to, format!("from {worker}")).unwrap();
        }
        Mailbox { worker: worker as u16, got: got.clone() }
    });
    let running = running.unwrap();
    let mut all: Vec<_> = (0..9).map(|_| mails.recv_timeout(LONG).unwrap()).collect();
    all.sort();
    let expected = (0..3).flat_map(|to| (0..3).map(move |from| (to, format!("from {from}"))));
    assert!(all.iter().cloned().eq(expected), "{all:?}");
    running.drain(Drain { deadline: Duration::ZERO, ..Drain::default() });
    running.join().unwrap();
}
