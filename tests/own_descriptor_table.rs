//! `Config::own_descriptor_table`: a process holds more connections than one descriptor table may have entries.
//!
//! In a file of its own, with one test: the limit is the process's, and a table of one's own starts as a copy of the
//! process's, which would keep the sockets of other tests open.
#![forbid(unsafe_code)]
#![cfg(all(feature = "epoll", target_os = "linux"))]

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wingbeat::client::{Client, Message};
use wingbeat::driver::DriverChoice;
use wingbeat::{Config, Conn, Drain, Handler, Never, Request, Scope, Server, Upgrade};

const LONG: Duration = Duration::from_secs(30);
const DESCRIPTORS: u64 = 128;
const THREADS: usize = 4;
/// Per thread. The kernel spreads connections over the workers by chance: 75 each, give or take 8.
const CLIENTS: usize = 75;

struct Topic;

impl Handler for Topic {
    type State = ();
    type Mail = Never;
    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }
    fn open(&mut self, conn: &mut Conn<'_>, _: &mut ()) {
        conn.subscribe("all").expect("within the limits");
        conn.send(wingbeat::Message::text("subscribed"));
    }
    fn message(&mut self, _: &mut Conn<'_>, _: &mut (), _: wingbeat::Message<'_>) {}
}

#[test]
fn four_tables_hold_more_than_one_may() {
    let before = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(DESCRIPTORS), maximum: before.maximum }).unwrap();
    let config = Config { own_descriptor_table: true, ..Config::default() };
    let uring = std::env::var_os("WINGBEAT_DRIVER").is_some_and(|driver| driver == "uring");
    let driver = if uring { DriverChoice::Uring } else { DriverChoice::Epoll };
    let server = Server::bind("127.0.0.1:0").unwrap().workers(THREADS).driver(driver).config(config);
    let server = server.spawn(|_| Topic).unwrap();
    let url = format!("ws://{}/", server.tcp_address().unwrap());
    let (connected, ready) = channel();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            let (url, connected) = (url.as_str(), connected.clone());
            scope.spawn(move || {
                unshare(CloneFlags::CLONE_FILES).unwrap(); // the clients need descriptors too
                let connect = || Client::builder(url).read_timeout(LONG).connect().unwrap();
                let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect()).collect();
                let next = |client: &mut Client| client.receive().unwrap();
                clients.iter_mut().for_each(|client| assert_eq!(next(client), Message::Text("subscribed".into())));
                let (tell, told) = channel();
                connected.send(tell).unwrap();
                told.recv().unwrap();
                clients.iter_mut().for_each(|client| assert_eq!(next(client), Message::Text("news".into())));
            });
        }
        let threads: Vec<_> = (0..THREADS).map(|_| ready.recv_timeout(LONG).unwrap()).collect();
        assert!((THREADS * CLIENTS) as u64 > 2 * DESCRIPTORS, "else this shows nothing");
        let counters = server.handle().metrics().counters;
        // The wakers work across the tables.
        assert_eq!(server.handle().publish("all", wingbeat::Message::text("news")).workers, THREADS as u32);
        threads.iter().for_each(|tell| tell.send(()).unwrap());
        assert_eq!((counters.accept_exhausted, counters.refused), (0, 0));
    });
    server.drain(Drain::default());
    server.join().unwrap();
    setrlimit(Resource::Nofile, before).unwrap();
}
