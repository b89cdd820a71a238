//! Every peer answers correctly before anything is measured: a peer that loses or garbles messages is no yardstick.
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const RAW: (&str, &[&str]) = (env!("CARGO_BIN_EXE_raw-epoll"), &[]);
const URING: (&str, &[&str]) = (env!("CARGO_BIN_EXE_raw-uring"), &[]);
const TUNGSTENITE: (&str, &[&str]) = (env!("CARGO_BIN_EXE_tungstenite"), &[]);
const TUNED: (&str, &[&str]) = (env!("CARGO_BIN_EXE_tungstenite"), &["--read-buffer", "4KiB", "--batch"]);
const FASTWEBSOCKETS: (&str, &[&str]) = (env!("CARGO_BIN_EXE_fastwebsockets"), &[]);
const UWS: (&str, &[&str]) = (env!("UWS_PEER"), &[]);

const ALL: [(&str, &[&str]); 6] = [RAW, URING, TUNGSTENITE, TUNED, FASTWEBSOCKETS, UWS];
const WITH_TOPICS: [(&str, &[&str]); 4] = [RAW, URING, TUNED, UWS];
const FLOORS: [(&str, &[&str]); 2] = [RAW, URING];

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

#[test]
fn every_peer_echoes_every_size_and_depth() {
    for peer in ALL {
        let server = Server::start(peer);
        let mut client = server.connect("/echo");
        for size in [0, 1, 20, 125, 126, 1_024, 16_384, 65_535, 65_536, 300_000] {
            for depth in [1, 16] {
                let payloads: Vec<_> = (0..depth).map(|index| payload(size, index)).collect();
                let wire: Vec<u8> = payloads.iter().flat_map(|payload| frame(TEXT, payload)).collect();
                let mut sender = client.0.get_ref().try_clone().unwrap();
                let sending = std::thread::spawn(move || sender.write_all(&wire).unwrap());
                for payload in &payloads {
                    assert!(client.receive() == (TEXT, payload.clone()), "{} at {size} x {depth}", peer.0);
                }
                sending.join().unwrap();
            }
        }
    }
}

#[test]
fn every_peer_joins_frames_that_arrive_in_pieces() {
    for peer in ALL {
        let server = Server::start(peer);
        let mut client = server.connect("/echo");
        let wire = [frame(TEXT, &payload(20, 0)), frame(TEXT, &payload(200, 1)), frame(TEXT, &payload(7, 2))].concat();
        for piece in wire.chunks(9) {
            client.send(piece);
            std::thread::sleep(Duration::from_millis(1));
        }
        for (size, index) in [(20, 0), (200, 1), (7, 2)] {
            assert_eq!(client.receive(), (TEXT, payload(size, index)), "{}", peer.0);
        }
    }
}

#[test]
fn every_peer_ends_a_connection_on_close() {
    for peer in ALL {
        let server = Server::start(peer);
        let mut client = server.connect("/echo");
        client.send(&frame(CLOSE, &1000u16.to_be_bytes()));
        assert_eq!(client.receive(), (CLOSE, 1000u16.to_be_bytes().to_vec()), "{}", peer.0);
        assert_eq!(client.0.read(&mut [0]).unwrap(), 0, "{}", peer.0);
    }
}

#[test]
fn a_publication_reaches_every_subscriber_of_its_topic_and_the_sender() {
    for peer in WITH_TOPICS {
        let server = Server::start(peer);
        let mut subscribers: Vec<_> = (0..5).map(|_| server.connect("/topics?topic=red")).collect();
        let mut stranger = server.connect("/topics?topic=blue");
        let burst: Vec<u8> = (0..16).flat_map(|index| frame(TEXT, &payload(64, index))).collect();
        subscribers[0].send(&burst);
        for subscriber in &mut subscribers {
            for index in 0..16 {
                assert_eq!(subscriber.receive(), (TEXT, payload(64, index)), "{}", peer.0);
            }
        }
        stranger.send(&frame(TEXT, b"own"));
        assert_eq!(stranger.receive(), (TEXT, b"own".to_vec()), "{}: red must not reach blue", peer.0);
    }
}

#[test]
fn the_floors_echo_many_connections_whose_messages_do_not_fit_into_their_buffers() {
    for peer in FLOORS {
        let server = Server::start(peer);
        let mut clients: Vec<_> = (0..64).map(|_| server.connect("/echo")).collect();
        // All at once, before any of them reads: 4 MiB on their way, cut anywhere.
        for round in 0..4 {
            for (index, client) in clients.iter_mut().enumerate() {
                client.send(&frame(TEXT, &payload(65_536 - index, index + round)));
            }
            for (index, client) in clients.iter_mut().enumerate() {
                assert!(client.receive() == (TEXT, payload(65_536 - index, index + round)), "{}", peer.0);
            }
        }
    }
}

#[test]
fn a_client_that_does_not_read_costs_the_others_of_a_floor_nothing() {
    for peer in FLOORS {
        let server = Server::start(peer);
        let wire = frame(TEXT, &payload(65_536, 0));
        let mut deaf = server.connect("/echo");
        deaf.0.get_mut().set_nonblocking(true).unwrap();
        // Until the server's answers fill the client's receive buffer, and more than all buffers of the server.
        for _ in 0..256 {
            let mut rest = &wire[..];
            while let Ok(sent @ 1..) = deaf.0.get_mut().write(rest) {
                rest = &rest[sent..];
            }
            if !rest.is_empty() {
                break;
            }
        }
        let mut client = server.connect("/echo");
        for index in 0..100 {
            client.send(&frame(TEXT, &payload(300, index)));
            assert_eq!(client.receive(), (TEXT, payload(300, index)), "{}", peer.0);
        }
    }
}

#[test]
fn a_publisher_of_a_floor_gets_nothing_back_and_its_control_frames_stay_its_own() {
    for peer in FLOORS {
        let server = Server::start(peer);
        let mut members: Vec<_> = (0..300).map(|_| server.connect("/topics?topic=red")).collect();
        let mut publisher = server.connect("/publish?topic=red");
        let wire = [frame(TEXT, b"one"), frame(PING, b"mine"), frame(TEXT, b"two"), frame(CLOSE, b"")].concat();
        publisher.send(&wire);
        assert_eq!(publisher.receive(), (PONG, b"mine".to_vec()), "{}", peer.0);
        assert_eq!(publisher.receive(), (CLOSE, Vec::new()), "{}", peer.0);
        // One that has left is sent nothing, and the others miss nothing.
        let mut leaving = members.swap_remove(0);
        leaving.send(&frame(CLOSE, b""));
        for member in members.iter_mut().chain([&mut leaving]) {
            assert_eq!(member.receive(), (TEXT, b"one".to_vec()), "{}", peer.0);
            assert_eq!(member.receive(), (TEXT, b"two".to_vec()), "{}", peer.0);
        }
        assert_eq!(leaving.receive(), (CLOSE, Vec::new()), "{}", peer.0);
        members[0].send(&frame(TEXT, &payload(70_000, 0)));
        for member in &mut members {
            assert!(member.receive() == (TEXT, payload(70_000, 0)), "{}", peer.0);
        }
    }
}

struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start((program, flags): (&str, &[&str])) -> Self {
        let mut process = Command::new(program)
            .args(["--bind", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{program:?}: {error} {}", env!("UWS_MISSING")));
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening on ").expect("the announcement").to_owned();
        Self { process, address }
    }

    fn connect(&self, path: &str) -> Client {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: peer\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut accepted = false;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            // The value of RFC 6455 §1.3 for that key.
            accepted |= line.to_ascii_lowercase().starts_with("sec-websocket-accept:")
                && line.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert!(!line.is_empty(), "the peer hung up during the handshake");
            if line == "\r\n" {
                break;
            }
        }
        assert!(accepted, "the peer must prove that it has read the key");
        Client(reader)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _killed = self.process.kill();
        let _status = self.process.wait();
    }
}

struct Client(BufReader<TcpStream>);

impl Client {
    fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        let [first, second] = self.bytes();
        let length = match second {
            126 => u64::from(u16::from_be_bytes(self.bytes())),
            127 => u64::from_be_bytes(self.bytes()),
            short => u64::from(short),
        };
        assert_eq!(first & 0xf0, 0x80, "one whole frame per message");
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.0.read_exact(&mut payload).unwrap();
        (first & 0x0f, payload)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }
}

fn payload(size: usize, index: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + ((at + index) % 26) as u8).collect()
}

fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(KEY);
    frame.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    frame
}
