//! Each example, run as the program it is, does what its first lines promise.
//!
//! They listen on Unix sockets: a path is nobody else's, a port may be.
#![forbid(unsafe_code)]
#![cfg(feature = "epoll")]

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Once;
use std::thread;
use std::time::{Duration, Instant};

use wingbeat::client::{Client, ClientError, Message};
use wingbeat::proto::handshake::HandshakeError;
use wingbeat::{Conn, Drain, Handler, Never, Request, Running, Scope, Server, Upgrade};

/// Far more than any step takes: it ends a test that hangs.
const LONG: Duration = Duration::from_secs(30);

/// A directory for one test's sockets, gone with it.
struct Sockets(PathBuf);

impl Sockets {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("wingbeat-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Sockets(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Sockets {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

/// A running example; it ends with the test.
struct Example {
    process: Child,
    output: BufReader<ChildStdout>,
}

impl Example {
    fn run(name: &str, socket: &Path) -> Self {
        let mut process = Command::new(program(name))
            .arg(format!("unix:{}", socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Example { process, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        _ = self.process.kill();
        _ = self.process.wait();
    }
}

/// Cargo tells tests where the package's programs are (`CARGO_BIN_EXE_*`), but not its examples; and it builds them for
/// `cargo test`, but not for `cargo test --test examples`. So they are brought up to date here, once, as this test was
/// built, and found beside it.
fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    // target/debug/deps/examples-0123456789abcdef
    let profile = env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--examples", "--target-dir"]).arg(profile.parent().unwrap());
        cargo.args(if cfg!(feature = "cli") { &["--features", "cli"][..] } else { &[] });
        cargo.args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] });
        assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    });
    profile.join("examples").join(name)
}

/// A client of the example that listens on `socket`, as soon as it does.
fn connect(socket: &Path, target: &str) -> Client {
    let patience = Instant::now() + LONG;
    loop {
        match Client::builder_unix(socket, target).read_timeout(LONG).connect() {
            Ok(client) => return client,
            Err(ClientError::Io(_)) if Instant::now() < patience => thread::sleep(Duration::from_millis(20)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn text(text: &str) -> Message {
    Message::Text(text.into())
}

#[test]
fn echo() {
    let sockets = Sockets::new("echo");
    let _example = Example::run("echo", &sockets.path("s"));
    let mut client = connect(&sockets.path("s"), "/");
    client.send_text("hello").unwrap();
    assert_eq!(client.receive().unwrap(), text("hello"));
    client.send_binary(&[0, 255]).unwrap();
    assert_eq!(client.receive().unwrap(), Message::Binary(vec![0, 255]));
}

#[test]
fn chat_keeps_its_rooms_apart() {
    let sockets = Sockets::new("chat");
    let socket = sockets.path("s");
    let _example = Example::run("chat", &socket);
    let mut tea = [connect(&socket, "/?room=tea"), connect(&socket, "/?room=tea")];
    let mut coffee = connect(&socket, "/?room=coffee");
    tea[0].send_text("milk first").unwrap();
    coffee.send_text("black").unwrap();
    tea.iter_mut().for_each(|member| assert_eq!(member.receive().unwrap(), text("milk first")));
    assert_eq!(coffee.receive().unwrap(), text("black"));
    let roomless = Client::connect_unix(&socket, "/?room=").expect_err("there is no such room");
    assert!(matches!(roomless, ClientError::Handshake(HandshakeError::Refused(400))), "{roomless}");
}

#[test]
fn channels_reply_broadcast_and_refuse() {
    let sockets = Sockets::new("channels");
    let socket = sockets.path("s");
    let _example = Example::run("channels", &socket);
    let mut client = connect(&socket, "/socket/websocket?vsn=2.0.0");
    let reply = |join_ref, reference, topic, status, response| {
        let payload = format!(r#"{{"status":"{status}","response":{response}}}"#);
        text(&format!(r#"["{join_ref}","{reference}","{topic}","phx_reply",{payload}]"#))
    };
    client.send_text(r#"["1","1","room:secret","phx_join",{}]"#).unwrap();
    assert_eq!(client.receive().unwrap(), reply(1, 1, "room:secret", "error", r#"{"reason":"unauthorized"}"#));
    client.send_text(r#"["2","2","room:tea","phx_join",{}]"#).unwrap();
    assert_eq!(client.receive().unwrap(), reply(2, 2, "room:tea", "ok", "{}"));
    client.send_text(r#"["2","3","room:tea","post",{"text":"milk first"}]"#).unwrap();
    assert_eq!(client.receive().unwrap(), text(r#"[null,null,"room:tea","posted",{"text":"milk first"}]"#));
    assert_eq!(client.receive().unwrap(), reply(2, 3, "room:tea", "ok", r#"{"posts":1}"#));
}

#[test]
fn embed_waits_for_its_input_and_for_the_worker() {
    let sockets = Sockets::new("embed");
    let socket = sockets.path("s");
    let mut example = Example::run("embed", &socket);
    let mut clients = [connect(&socket, "/"), connect(&socket, "/")];
    writeln!(example.process.stdin.as_ref().unwrap(), "to all of you").unwrap();
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap(), text("to all of you")));
    clients[1].send_text("thank you").unwrap();
    assert_eq!(example.line(), "thank you");
    drop(example.process.stdin.take());
    assert!(example.process.wait().unwrap().success(), "it ends with its input");
}

#[test]
fn tokio_bridge_publishes_and_answers() {
    let sockets = Sockets::new("tokio");
    let socket = sockets.path("s");
    let _example = Example::run("tokio_bridge", &socket);
    let mut client = connect(&socket, "/");
    client.send_text("question").unwrap();
    let (mut ticks, mut answers) = (Vec::new(), Vec::new());
    while ticks.len() < 2 || answers.is_empty() {
        match client.receive().unwrap() {
            Message::Text(tick) if tick.starts_with("tick ") => ticks.push(tick[5..].parse::<u64>().unwrap()),
            other => answers.push(other),
        }
    }
    assert_eq!(answers, [text("QUESTION")]);
    assert!(ticks.windows(2).all(|pair| pair[1] == pair[0] + 1), "{ticks:?}");
}

struct Echo;

impl Handler for Echo {
    type State = ();
    type Mail = Never;
    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }
    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: wingbeat::Message<'_>) {
        conn.send(message);
    }
}

#[test]
fn client_greets_and_comes_back() {
    let sockets = Sockets::new("client");
    let socket = sockets.path("s");
    let serve = || -> Running<Never> {
        Server::bind(format!("unix:{}", socket.display())).unwrap().workers(1).spawn(|_| Echo).unwrap()
    };
    let server = serve();
    let mut example = Example::run("client", &socket);
    assert_eq!(example.line(), "echo: hello");
    server.drain(Drain::default());
    server.join().unwrap();
    assert_eq!(example.line(), "closed: 1012");
    let server = serve();
    // Between the two it may have tried in vain, any number of times.
    let again = std::iter::repeat_with(|| example.line()).find(|line| !line.starts_with("not connected: "));
    assert_eq!(again.as_deref(), Some("echo: hello"));
    server.drain(Drain::default());
    server.join().unwrap();
}
