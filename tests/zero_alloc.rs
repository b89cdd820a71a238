//! After warm-up nothing is allocated per message: counted by the allocator itself, on real sockets.
//!
//! On io_uring if `WINGBEAT_DRIVER=uring` says so. Worker and peers live on one thread. Counted is what happens within `Worker::turn` on that thread and nothing else,
//! so peers may allocate. The first allocation that a test did not expect prints where it came from.
#![cfg(feature = "epoll")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, UserSocket};
use wingbeat::driver::{Driver, DriverChoice, SystemDriver, SystemSeed};
use wingbeat::endpoint::{Endpoint, EndpointHandler};
use wingbeat::engine::{Handle, Worker, group};
use wingbeat::proto::{MaskingKey, Opcode, encoder};
use wingbeat::{
    Address, Config, Conn, Encoder, Encoding, Handler, Message, MessageKind, Never, Request, Scope, Upgrade,
};

/// Rounds before counting begins: buffers and lists reach the size that the operation needs.
const WARM_UP: usize = 8;
/// The same on io_uring, where it also takes a message that is cut by the end of a receive buffer.
const WARM_UP_URING: usize = 1024;
/// Cut by the end of a buffer, a message is gathered in a spill buffer, which is kept up to 64 KiB, with slack.
const LARGE_CUT: usize = 30_000;
const ROUNDS: usize = 64;

// ---- the counting allocator -------------------------------------------------------------------------------------

/// What was allocated while counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    allocations: u64,
    bytes: u64,
}

thread_local! {
    // `const` and without a destructor: touching them allocates nothing.
    static COUNTING: Cell<bool> = const { Cell::new(false) };
    static TELL: Cell<bool> = const { Cell::new(false) };
    static COST: Cell<Cost> = const { Cell::new(Cost { allocations: 0, bytes: 0 }) };
}

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

impl Counting {
    fn note(&self, bytes: usize) {
        if !COUNTING.get() {
            return;
        }
        let Cost { allocations, bytes: before } = COST.get();
        COST.set(Cost { allocations: allocations + 1, bytes: before + bytes as u64 });
        if TELL.replace(false) {
            COUNTING.set(false); // a backtrace allocates
            eprintln!("allocated {bytes} bytes:\n{}", Backtrace::force_capture());
            COUNTING.set(true);
        }
    }
}

// SAFETY: every method hands its arguments on to the system's allocator unchanged, whose guarantees these are; counting
// touches plain cells of this thread only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        // SAFETY: the caller's promises about `layout` are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.note(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        self.note(size);
        // SAFETY: `pointer` came from `System` with this layout, and the caller promises the rest.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: `pointer` came from `System` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

fn counted<T>(act: impl FnOnce() -> T) -> T {
    COUNTING.set(true);
    let result = act();
    COUNTING.set(false);
    result
}

/// What `rounds` cost after a warm-up.
fn cost<H: Handler>(fixture: &mut Fixture<H>, expected: u64, mut round: impl FnMut(&mut Fixture<H>)) -> Cost {
    let warm_up = if on_uring() { WARM_UP_URING } else { WARM_UP };
    (0..warm_up).for_each(|_| round(fixture));
    COST.set(Cost::default());
    TELL.set(expected == 0);
    (0..ROUNDS).for_each(|_| round(fixture));
    TELL.set(false);
    let cost = COST.get();
    assert_eq!(cost.allocations, expected * ROUNDS as u64, "{cost:?} in {ROUNDS} rounds");
    cost
}

// ---- workers and peers on one thread ----------------------------------------------------------------------------

/// Does what the first byte of a message says.
#[derive(Default)]
struct Service {
    received: u64,
    pongs: u64,
}

impl Handler for Service {
    type State = ();
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        self.received += 1;
        match message.payload.first() {
            Some(b'e') => _ = conn.send(message),
            Some(b'w') => _ = conn.send_with(message.kind, |out| out.extend_from_slice(message.payload)),
            Some(b'p') => _ = conn.publish("room", message),
            Some(b'q') => _ = conn.publish_with("room", message.kind, |out| out.extend_from_slice(message.payload)),
            // In the class that the second byte names: before its answer the connection has it.
            Some(b'c') => {
                conn.subscribe_as("room", message.payload[1] - b'0').expect("within the limits");
                conn.send(message);
            }
            Some(b's') => {
                conn.subscribe("room").expect("within the limits");
                conn.send(message);
            }
            Some(b'u') => {
                conn.unsubscribe("room");
                conn.send(message);
            }
            _ => {}
        }
    }

    fn pong(&mut self, _: &mut Conn<'_>, _: &mut (), _: &[u8]) {
        self.pongs += 1;
    }

    fn encoder(&self) -> Option<Box<dyn Encoder>> {
        Some(Box::new(Prefix))
    }

    fn delivery(&mut self, conn: &mut Conn<'_>, _: &mut (), topic: &str, message: Message<'_>) {
        conn.send_with(MessageKind::Text, |out| {
            out.push_str(topic);
            out.extend_from_slice(message.payload);
        });
    }
}

/// Writes the class before the payload; class 3 gets a callback.
struct Prefix;

impl Encoder for Prefix {
    fn encode(&mut self, class: u8, _: &str, message: Message<'_>, out: &mut Vec<u8>) -> Encoding {
        out.push(b'0' + class);
        out.extend_from_slice(message.payload);
        if class == 3 { Encoding::DELIVER } else { Encoding::frame(MessageKind::Text) }
    }
}

fn on_uring() -> bool {
    std::env::var_os("WINGBEAT_DRIVER").is_some_and(|driver| driver == "uring")
}

struct Fixture<H: Handler = Service> {
    workers: Vec<(Worker<H, SystemDriver>, SocketAddr)>,
    target: &'static str,
    now: Instant,
}

impl Fixture {
    fn new(workers: usize) -> Self {
        Fixture::with("/", workers, |_, _| Service::default())
    }

    /// Peers of `worker` that are subscribed.
    fn subscribers(&mut self, worker: usize, count: usize) -> Vec<TcpStream> {
        let (subscribe, answer) = (masked(b"s"), plain(b"s"));
        let peers = (0..count).map(|_| {
            let mut peer = self.peer(worker);
            peer.write_all(&subscribe).unwrap();
            self.receive(std::slice::from_mut(&mut peer), &answer);
            peer
        });
        peers.collect()
    }

    fn received(&mut self) -> u64 {
        self.workers.iter_mut().map(|(worker, _)| worker.with(|service, _| service.received)).sum()
    }

    /// Sends `bytes` and waits until the handler has had `messages` of them.
    fn handled(&mut self, peer: &mut TcpStream, bytes: &[u8], messages: u64) {
        let before = self.received();
        peer.write_all(bytes).unwrap();
        self.until(|fixture| fixture.received() == before + messages);
    }
}

impl<H: Handler> Fixture<H> {
    /// Workers with handlers of any kind, whose peers ask for `target`.
    fn with(target: &'static str, workers: usize, make: impl Fn(usize, &Handle<H::Mail>) -> H) -> Self {
        let mut config = Config::default();
        let choice = if on_uring() { DriverChoice::Uring } else { DriverChoice::Epoll };
        let chosen = choice.resolve().unwrap();
        if on_uring() {
            config.driver.receive_buffer = 16 << 10; // small: messages are cut while it is counted
        }
        let drivers = (0..workers).map(|_| SystemSeed::new(chosen, config.driver).and_then(SystemSeed::start).unwrap());
        let drivers: Vec<_> = drivers.collect();
        let wakers: Vec<_> = drivers.iter().map(Driver::waker).collect();
        let (seeds, _) = group(&wakers, config);
        let workers = seeds.into_iter().zip(drivers).enumerate().map(|(index, (seed, driver))| {
            let handler = make(index, seed.handle());
            let mut worker = seed.start(driver, handler);
            let Ok(Address::Tcp(address)) = worker.listen(&"127.0.0.1:0".parse().unwrap()) else { panic!("no port") };
            (worker, address)
        });
        Fixture { workers: workers.collect(), target, now: Instant::now() }
    }

    fn turn(&mut self) {
        for (worker, _) in &mut self.workers {
            counted(|| worker.turn(self.now)).unwrap();
        }
    }

    /// Turns until `done`. The kernel's loopback may hand bytes over late, hence the patience.
    fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for patience in 0.. {
            self.turn();
            if done(self) {
                return;
            }
            assert!(patience < 5_000, "it does not come");
            if patience > 100 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// A peer of `worker`, past the opening handshake.
    fn peer(&mut self, worker: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.workers[worker].1).unwrap();
        stream.set_nonblocking(true).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.target
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        self.until(|_| {
            read_more(&mut stream, &mut answer);
            answer.ends_with(b"\r\n\r\n")
        });
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        stream
    }

    /// Turns until each peer has received exactly `expected`.
    fn receive(&mut self, peers: &mut [TcpStream], expected: &[u8]) {
        let mut got = Vec::new();
        for peer in peers {
            got.clear();
            self.until(|_| {
                read_more(peer, &mut got);
                got.len() >= expected.len()
            });
            assert!(got == expected, "{} bytes, not those that were to come", got.len());
        }
    }

    fn received_bytes(&self) -> u64 {
        self.workers[0].0.handle().metrics().counters.received_bytes
    }
}

fn read_more(stream: &mut TcpStream, into: &mut Vec<u8>) {
    let mut chunk = [0; 16 << 10];
    match stream.read(&mut chunk) {
        Ok(0) => panic!("closed by the worker"),
        Ok(bytes) => into.extend_from_slice(&chunk[..bytes]),
        Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
    }
}

/// A frame as the client sends it.
fn masked(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder::frame(&mut out, Opcode::Text, true, payload, Some(MaskingKey([1, 2, 3, 4])));
    out
}

/// The same as the server sends it.
fn plain(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encoder::frame(&mut out, Opcode::Text, true, payload, None);
    out
}

fn payload(first: u8, len: usize) -> Vec<u8> {
    (0..len).map(|at| if at == 0 { first } else { b'a' + (at % 26) as u8 }).collect()
}

// ---- receiving --------------------------------------------------------------------------------------------------

#[test]
fn receive() {
    let mut fixture = Fixture::new(1);
    let mut peer = fixture.peer(0);
    for len in [1, 20, 1000, if on_uring() { LARGE_CUT } else { 60_000 }] {
        let frame = masked(&payload(b'r', len));
        cost(&mut fixture, 0, |fixture| fixture.handled(&mut peer, &frame, 1));
    }
}

#[test]
fn receive_of_a_cut_message() {
    let mut fixture = Fixture::new(1);
    let mut peer = fixture.peer(0);
    let frame = masked(&payload(b'r', 3000));
    // In the header, between header and payload, in the payload.
    for cut in [1, 3, 8, 9, 1500, frame.len() - 1] {
        cost(&mut fixture, 0, |fixture| {
            let before = fixture.received_bytes();
            peer.write_all(&frame[..cut]).unwrap();
            fixture.until(|fixture| fixture.received_bytes() == before + cut as u64);
            fixture.handled(&mut peer, &frame[cut..], 1);
        });
    }
}

#[test]
fn receive_of_a_fragmented_message_with_a_ping_within() {
    let mut fixture = Fixture::new(1);
    let mut peer = fixture.peer(0);
    let (mut bytes, mut pong, key) = (Vec::new(), Vec::new(), Some(MaskingKey([9, 8, 7, 6])));
    encoder::frame(&mut bytes, Opcode::Binary, false, &payload(b'r', 700), key);
    encoder::frame(&mut bytes, Opcode::Ping, true, b"here?", key);
    encoder::frame(&mut bytes, Opcode::Continuation, true, &payload(b'x', 700), key);
    encoder::frame(&mut pong, Opcode::Pong, true, b"here?", None);
    cost(&mut fixture, 0, |fixture| {
        fixture.handled(&mut peer, &bytes, 1);
        fixture.receive(std::slice::from_mut(&mut peer), &pong);
    });
}

// ---- sending ----------------------------------------------------------------------------------------------------

#[test]
fn echo() {
    let mut fixture = Fixture::new(1);
    let mut peer = [fixture.peer(0)];
    for (first, len) in [
        (b'e', 1),
        (b'e', 20),
        (b'w', 20),
        (b'e', 1000),
        (b'w', 1000),
        (b'e', 16 << 10),
        (b'e', if on_uring() { LARGE_CUT } else { 100_000 }),
    ] {
        let payload = payload(first, len);
        let (request, answer) = (masked(&payload), plain(&payload));
        cost(&mut fixture, 0, |fixture| {
            let mut rest = &request[..];
            while let [_, ..] = rest {
                match peer[0].write(rest) {
                    Ok(bytes) => rest = &rest[bytes..],
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                fixture.turn();
            }
            fixture.receive(&mut peer, &answer);
        });
    }
}

#[test]
fn echo_of_16_pipelined() {
    let mut fixture = Fixture::new(1);
    let mut peer = [fixture.peer(0)];
    for (first, len) in [(b'e', 20), (b'w', 20), (b'e', 1000)] {
        let payload = payload(first, len);
        let (requests, answers) = (masked(&payload).repeat(16), plain(&payload).repeat(16));
        cost(&mut fixture, 0, |fixture| {
            peer[0].write_all(&requests).unwrap();
            fixture.receive(&mut peer, &answers);
        });
    }
}

#[test]
fn ping_and_pong() {
    let mut fixture = Fixture::new(1);
    let mut peer = [fixture.peer(0)];
    let (mut ping, mut pong) = (Vec::new(), Vec::new());
    encoder::frame(&mut ping, Opcode::Ping, true, b"are you there?", Some(MaskingKey([1, 2, 3, 4])));
    encoder::frame(&mut pong, Opcode::Pong, true, b"are you there?", None);
    cost(&mut fixture, 0, |fixture| {
        peer[0].write_all(&ping).unwrap();
        fixture.receive(&mut peer, &pong);
    });
}

// ---- topics -----------------------------------------------------------------------------------------------------

/// What a publish of `burst` messages costs that reaches `subscribers`, of which the publisher is none.
fn publish(first: u8, burst: usize, subscribers: usize) -> Cost {
    let mut fixture = Fixture::new(1);
    let mut subscribers = fixture.subscribers(0, subscribers);
    let mut publisher = fixture.peer(0);
    let payload = payload(first, 20);
    let (request, delivery) = (masked(&payload).repeat(burst), plain(&payload).repeat(burst));
    cost(&mut fixture, 0, |fixture| {
        publisher.write_all(&request).unwrap();
        fixture.receive(&mut subscribers, &delivery);
    })
}

#[test]
fn publish_to_1() {
    publish(b'p', 1, 1);
    publish(b'q', 1, 1);
}

#[test]
fn publish_to_1_000() {
    publish(b'p', 1, 1000);
}

#[test]
fn publish_of_a_joined_burst_to_1() {
    publish(b'p', 16, 1);
}

#[test]
fn publish_of_a_joined_burst_to_1_000() {
    publish(b'p', 16, 1000);
}

/// What a publish of `burst` messages costs that reaches `each` subscribers of classes 1, 2 and 3, who get a frame, another
/// one, and a callback.
fn publish_in_classes(burst: usize, each: usize) -> Cost {
    let mut fixture = Fixture::new(1);
    let payload = payload(b'p', 20);
    let mut peers = Vec::new();
    for class in b'1'..=b'3' {
        let (subscribe, answer) = (masked(&[b'c', class]), plain(&[b'c', class]));
        let mut subscribers: Vec<_> = (0..each).map(|_| fixture.peer(0)).collect();
        for peer in &mut subscribers {
            peer.write_all(&subscribe).unwrap();
            fixture.receive(std::slice::from_mut(peer), &answer);
        }
        let before: &[u8] = if class == b'3' { b"room" } else { &[class] };
        peers.push((subscribers, plain(&[before, &payload].concat()).repeat(burst)));
    }
    let mut publisher = fixture.peer(0);
    let request = masked(&payload).repeat(burst);
    cost(&mut fixture, 0, |fixture| {
        publisher.write_all(&request).unwrap();
        for (subscribers, delivery) in &mut peers {
            fixture.receive(subscribers, delivery);
        }
    })
}

#[test]
fn publish_in_several_classes_to_1_and_to_1_000() {
    assert_eq!(publish_in_classes(1, 1), publish_in_classes(1, 334));
}

#[test]
fn publish_of_a_joined_burst_in_several_classes() {
    publish_in_classes(16, 1);
    publish_in_classes(16, 100);
}

#[test]
fn a_change_of_class() {
    let mut fixture = Fixture::new(1);
    let _keeps_it_alive = fixture.subscribers(0, 1);
    let mut peer = [fixture.peer(0)];
    cost(&mut fixture, 0, |fixture| {
        for command in [b"c1", b"c2", b"c0"] {
            peer[0].write_all(&masked(command)).unwrap();
            fixture.receive(&mut peer, &plain(command));
        }
    });
}

#[test]
fn subscribe_to_an_existing_topic_and_unsubscribe() {
    let mut fixture = Fixture::new(1);
    let _keeps_it_alive = fixture.subscribers(0, 1);
    let mut peer = [fixture.peer(0)];
    cost(&mut fixture, 0, |fixture| {
        for command in [b"s", b"u"] {
            peer[0].write_all(&masked(command)).unwrap();
            fixture.receive(&mut peer, &plain(command));
        }
    });
}

/// What a publish costs that crosses from one worker to another, with this many subscribers there.
fn publish_across(subscribers: usize) -> Cost {
    let mut fixture = Fixture::new(2);
    let mut subscribers = fixture.subscribers(1, subscribers);
    let mut publisher = fixture.peer(0);
    let payload = payload(b'p', 100);
    let (request, delivery) = (masked(&payload), plain(&payload));
    cost(&mut fixture, 1, |fixture| {
        publisher.write_all(&request).unwrap();
        fixture.receive(&mut subscribers, &delivery);
    })
}

#[test]
fn publish_across_workers_costs_one_allocation_however_many_subscribe() {
    let (one, thousand) = (publish_across(1), publish_across(1000));
    assert_eq!(one, thousand);
    // Topic, payload, and the two counts of an `Arc`.
    assert_eq!(one.bytes, ROUNDS as u64 * (4 + 100 + 16));
}

#[test]
fn publish_from_another_thread_costs_it_one_allocation() {
    let mut fixture = Fixture::new(1);
    let mut subscriber = fixture.subscribers(0, 1);
    let handle = fixture.workers[0].0.handle();
    let payload = payload(b'p', 100);
    let delivery = plain(&payload);
    let message = Message { kind: wingbeat::MessageKind::Text, payload: &payload };
    cost(&mut fixture, 1, |fixture| {
        counted(|| handle.publish("room", message));
        fixture.receive(&mut subscriber, &delivery);
    });
}

// ---- channels ---------------------------------------------------------------------------------------------------

struct Room;

impl Channel for Room {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "echo" => return Outcome::ok(payload),
            "push" => _ = ctx.push("pushed", payload),
            _ => _ = ctx.broadcast_from(event, payload),
        }
        Outcome::NoReply
    }
}

fn endpoint() -> Fixture<EndpointHandler> {
    let endpoint = Endpoint::new().socket("/socket", UserSocket::new().channel("room:*", || Room));
    Fixture::with("/socket/websocket?vsn=2.0.0", 1, endpoint.handlers().unwrap())
}

/// Peers that have joined.
fn members(fixture: &mut Fixture<EndpointHandler>, count: usize) -> Vec<TcpStream> {
    let join = masked(br#"["1","1","room:a","phx_join",{}]"#);
    let reply = plain(br#"["1","1","room:a","phx_reply",{"status":"ok","response":{}}]"#);
    let peers = (0..count).map(|_| {
        let mut peer = fixture.peer(0);
        peer.write_all(&join).unwrap();
        fixture.receive(std::slice::from_mut(&mut peer), &reply);
        peer
    });
    peers.collect()
}

/// What a broadcast of a channel costs that reaches `subscribers`.
fn broadcast(subscribers: usize) -> Cost {
    let mut fixture = endpoint();
    let mut subscribers = members(&mut fixture, subscribers);
    let mut publisher = members(&mut fixture, 1).pop().unwrap();
    let request = masked(br#"["1","2","room:a","shout",{"text":"hello, all of you"}]"#);
    let delivery = plain(br#"[null,null,"room:a","shout",{"text":"hello, all of you"}]"#);
    cost(&mut fixture, 0, |fixture| {
        publisher.write_all(&request).unwrap();
        fixture.receive(&mut subscribers, &delivery);
    })
}

#[test]
fn a_broadcast_of_a_channel_to_1_and_to_1_000() {
    assert_eq!(broadcast(1), broadcast(1000));
}

#[test]
fn a_push_in_and_a_push_out() {
    let mut fixture = endpoint();
    let mut peer = members(&mut fixture, 1);
    let request = masked(br#"["1","2","room:a","push",{"text":"hello"}]"#);
    let answer = plain(br#"["1",null,"room:a","pushed",{"text":"hello"}]"#);
    cost(&mut fixture, 0, |fixture| {
        peer[0].write_all(&request).unwrap();
        fixture.receive(&mut peer, &answer);
    });
}

#[test]
fn a_heartbeat() {
    let mut fixture = endpoint();
    let mut peer = members(&mut fixture, 1);
    let request = masked(br#"[null,"2","phoenix","heartbeat",{}]"#);
    let answer = plain(br#"[null,"2","phoenix","phx_reply",{"status":"ok","response":{}}]"#);
    cost(&mut fixture, 0, |fixture| {
        peer[0].write_all(&request).unwrap();
        fixture.receive(&mut peer, &answer);
    });
}

#[test]
fn a_push_and_its_reply() {
    let mut fixture = endpoint();
    let mut peer = members(&mut fixture, 1);
    let request = masked(br#"["1","2","room:a","echo",{"text":"hello"}]"#);
    let answer = plain(br#"["1","2","room:a","phx_reply",{"status":"ok","response":{"text":"hello"}}]"#);
    // The outcome owns its response.
    let cost = cost(&mut fixture, 1, |fixture| {
        peer[0].write_all(&request).unwrap();
        fixture.receive(&mut peer, &answer);
    });
    assert_eq!(cost.bytes, ROUNDS as u64 * r#"{"text":"hello"}"#.len() as u64);
}

// ---- time -------------------------------------------------------------------------------------------------------

#[test]
fn activity_re_arms_the_idle_timer() {
    let mut fixture = Fixture::new(1);
    let mut peer = fixture.peer(0);
    let frame = masked(b"r");
    // Each step is more than half of the time until a ping: without activity the second would bring one.
    cost(&mut fixture, 0, |fixture| {
        fixture.now += Duration::from_secs(25);
        fixture.handled(&mut peer, &frame, 1);
    });
    fixture.turn();
    let nothing = peer.read(&mut [0; 64]).expect_err("no ping was due");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
}

#[test]
fn keepalive() {
    let mut fixture = Fixture::new(1);
    let mut peer = [fixture.peer(0)];
    let (mut ping, mut pong) = (Vec::new(), Vec::new());
    encoder::frame(&mut ping, Opcode::Ping, true, b"", None);
    encoder::frame(&mut pong, Opcode::Pong, true, b"", Some(MaskingKey([1, 2, 3, 4])));
    let mut pongs = 0;
    cost(&mut fixture, 0, |fixture| {
        fixture.now += Duration::from_secs(41);
        fixture.receive(&mut peer, &ping);
        peer[0].write_all(&pong).unwrap();
        pongs += 1;
        fixture.until(|fixture| fixture.workers[0].0.with(|service, _| service.pongs) == pongs);
    });
}
