//! The program `wingbeat`, as its users run it: flags, exit codes, serve and load against each other.
#![cfg(feature = "cli")]
#![forbid(unsafe_code)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::Once;
use std::time::{Duration, Instant};
use wingbeat::{Conn, Drain, Handler, Message, MessageKind, Never, Request, Scope, Upgrade};

/// No command here takes a tenth of it; one that hangs fails instead of blocking all tests.
const PATIENCE: Duration = Duration::from_secs(60);
const BRIEFLY: [&str; 4] = ["-d", "400ms", "--warmup", "50ms"];
/// Where a load ends by itself, as no connection is left: however slow the machine is.
const UNTIL_NONE_IS_LEFT: [&str; 4] = ["-d", "60s", "--warmup", "0s"];

fn wingbeat() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wingbeat"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a child whose output fits into pipes.
fn ended(mut child: Child) -> Output {
    let began = Instant::now();
    while child.try_wait().expect("the child can be waited for").is_none() {
        if began.elapsed() > PATIENCE {
            let _ = child.kill();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("its output can be read")
}

/// Exit code, standard output, and the lines of standard error.
fn run(arguments: &[&str]) -> (i32, String, Vec<String>) {
    let output = ended(wingbeat().args(arguments).spawn().expect("the program starts"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    let lines = text(output.stderr).lines().map(str::to_owned).collect();
    (output.status.code().unwrap_or(-1), text(output.stdout), lines)
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("the child is there");
}

/// `wingbeat serve` on a free port.
struct Server {
    child: Child,
    address: String,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    fn start(flags: &[&str]) -> Server {
        let mut command = wingbeat();
        command.stderr(Stdio::null());
        Server::of(command, flags)
    }

    fn of(mut command: Command, flags: &[&str]) -> Server {
        command.args(["serve", "--bind", "127.0.0.1:0"]).args(flags);
        Server::running(command)
    }

    /// The example `fixture`: channels of every kind. `cargo test --test cli` does not build it, so that is done here,
    /// once, as this test was built.
    fn fixture() -> Server {
        static BUILT: Once = Once::new();
        // target/debug/deps/cli-0123456789abcdef
        let profile = std::env::current_exe().expect("it has a path").ancestors().nth(2).expect("target").to_owned();
        BUILT.call_once(|| {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--quiet", "--example", "fixture", "--features", "cli", "--target-dir"]);
            cargo.arg(profile.parent().expect("the target directory"));
            cargo.args(if cfg!(debug_assertions) { &[][..] } else { &["--release"] });
            assert!(cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs").success());
        });
        let mut command = Command::new(profile.join("examples").join("fixture"));
        command.args(["--port", "0"]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Some of its panics are asked for: nobody reads what they were called by, which takes long to find out.
        command.env("RUST_BACKTRACE", "0");
        Server::running(command)
    }

    /// A program that says where it listens.
    fn running(mut command: Command) -> Server {
        let mut child = command.spawn().expect("the server starts");
        let stdout = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        let mut server = Server { child, address: String::new(), stdout };
        server.address = server.listening();
        server
    }

    /// The address of the next line that says one.
    fn listening(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("the server says where it listens");
        line.strip_prefix("listening on ").expect("a line for each listener").trim().to_owned()
    }

    fn url(&self, resource: &str) -> String {
        format!("ws://{}{resource}", self.address)
    }

    /// Status and body of a plain request.
    fn get(&self, request_line: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).expect("the server accepts");
        write!(stream, "{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("it takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers and closes");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        (status, answer.split_once("\r\n\r\n").expect("an empty line").1.to_owned())
    }

    /// A connection that has upgraded, and says nothing more.
    fn upgrade(&self) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("the server accepts");
        let head = "GET /echo HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("it takes a request");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("it answers");
        assert_eq!(&status, b"HTTP/1.1 101");
        stream
    }

    /// Ends it with SIGTERM: its exit code.
    fn stop(mut self) -> i32 {
        signal(&self.child, Signal::TERM);
        let began = Instant::now();
        while self.child.try_wait().expect("the server can be waited for").is_none() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.child.wait().ok().and_then(|status| status.code()).unwrap_or(-1)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Exit code and JSON of `wingbeat load ARGUMENTS`, which ran.
fn report(arguments: &[&str]) -> (i32, Value) {
    let (code, stdout, stderr) = run(&[&["load", "--json", "-"], arguments].concat());
    let json =
        serde_json::from_str(&stdout).unwrap_or_else(|_| panic!("{arguments:?}: {stderr:?}, not JSON: {stdout}"));
    (code, json)
}

/// The JSON of `wingbeat load ARGUMENTS` that succeeded.
fn load(arguments: &[&str]) -> Value {
    let (code, json) = report(arguments);
    assert_eq!(code, 0, "{arguments:?}: {json}");
    assert_eq!((json["lost_messages"].as_u64().unwrap_or(0), json["connections_failed"].as_u64()), (0, Some(0)));
    assert_eq!(json["errors"], serde_json::json!({}));
    json
}

/// `wingbeat load ARGUMENTS` without an end, its messages on their way, and what `act` is done to then: as
/// [`report`].
fn cut_short(arguments: &[&str], act: impl FnOnce(&Child)) -> (i32, Value) {
    let mut command = wingbeat();
    command.arg("load").args(arguments).args(["--warmup", "0s", "-d", "10m", "--json", "-"]);
    let mut child = command.spawn().expect("the program starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("a pipe"));
    stderr.read_line(&mut String::new()).expect("a line per second");
    act(&child);
    let output = ended(child);
    (output.status.code().unwrap_or(-1), serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// The kinds of errors that a report tells.
fn kinds(json: &Value) -> Vec<&str> {
    json["errors"].as_object().expect("an object").keys().map(String::as_str).collect()
}

fn count(json: &Value, key: &str) -> u64 {
    json[key].as_u64().unwrap_or_else(|| panic!("{key} in {json}"))
}

#[test]
fn help_goes_to_standard_output() {
    for arguments in [&["--help"][..], &["serve", "--help"], &["load", "--help"], &["demo", "--help"], &["--version"]] {
        let (code, stdout, stderr) = run(arguments);
        assert_eq!((code, stderr.len()), (0, 0), "{arguments:?}");
        assert!(stdout.contains("wingbeat"), "{stdout}");
    }
}

#[test]
fn a_bad_flag_is_one_line_and_exit_2() {
    for (line, named) in [
        ("", "subcommand"),
        ("dance", "dance"),
        ("serve --nonsense", "--nonsense"),
        ("serve --bind nowhere", "nowhere"),
        ("serve --bind unix:", "unix:"),
        ("serve --bind 127.0.0.1:4000 --bind 127.0.0.1:4000", "twice"),
        ("serve --max-message 5GiB", "--max-message"),
        ("serve --workers 0", "--workers"),
        ("load echo", "<URL>"),
        ("load echo wss://localhost/", "TLS"),
        ("load echo ws://127.0.0.1/ --subscribers 2", "--subscribers"),
        ("load fanout ws://127.0.0.1/ --payload 15", "--payload"),
        ("load echo ws://127.0.0.1/ --payload 1MiB -p 1000", "--pipeline"),
        ("load idle ws://127.0.0.1/ -c 100000000 -t 1", "--threads"),
        ("load channels ws://127.0.0.1/socket --vsn 3.0.0", "--vsn"),
        ("load channels ws://127.0.0.1/socket -c 2 --topics 3", "--topics"),
        ("load echo ws://127.0.0.1/ --traffic both", "--traffic"),
        ("demo -d 5", "5"),
    ] {
        let (code, stdout, stderr) = run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!((code, stdout.as_str(), stderr.len()), (2, "", 1), "{line}: {stderr:?}");
        assert!(stderr[0].starts_with("wingbeat: ") && stderr[0].contains(named), "{line}: {}", stderr[0]);
    }
}

#[test]
fn what_cannot_be_done_is_one_line_and_exit_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    for (arguments, named) in [
        (vec!["serve", "--bind", &address], address.as_str()),
        (vec!["load", "echo", "ws://127.0.0.1:9/", "--json", "/nowhere/at/all"], "/nowhere/at/all"),
        (vec!["load", "echo", "ws://127.0.0.1:9/", "--server-pid", "4294967295"], "4294967295"),
    ] {
        let (code, _, stderr) = run(&arguments);
        assert_eq!((code, stderr.len()), (1, 1), "{arguments:?}: {stderr:?}");
        assert!(stderr[0].contains(named), "{}", stderr[0]);
    }
}

/// On a machine without io_uring the flag is refused, with the reason.
#[test]
fn a_driver_that_is_insisted_on_serves_or_is_refused() {
    let works = wingbeat::driver::DriverChoice::Uring.resolve();
    if let Err(why) = works {
        let (code, _, stderr) = run(&["serve", "--driver", "uring"]);
        assert_eq!((code, stderr.len()), (1, 1), "{stderr:?}");
        assert!(stderr[0].contains(&why.to_string()), "{}", stderr[0]);
        return;
    }
    for driver in ["uring", "epoll", "auto"] {
        let server = Server::start(&["--driver", driver]);
        assert_eq!(server.get("GET /healthz"), (200, "ok\n".to_owned()), "{driver}");
        let flags = ["-c", "3", "-d", "300ms", "--warmup", "50ms", "--driver", driver];
        let (code, _, stderr) = run(&[&["load", "echo", &server.url("/echo")][..], &flags].concat());
        assert_eq!(code, 0, "{driver}: {stderr:?}");
    }
}

#[test]
fn connections_that_fail_are_told_by_kind() {
    let server = Server::start(&[]);
    let unused = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    for (url, kind) in [
        (server.url("/topic/x"), "handshake_status_404 3 (the server answered 404 to /topic/x)"),
        (server.url("/topics"), "handshake_status_400 3 (the server answered 400 to /topics)"),
        (format!("ws://{unused}/"), "connect_refused 3 (connection refused"),
    ] {
        let (code, _, stderr) = run(&["load", "echo", &url, "-c", "3", "-d", "5s"]);
        assert_eq!((code, stderr.len()), (1, 1), "{stderr:?}");
        assert!(stderr[0].contains(kind), "{}", stderr[0]);
    }
}

#[test]
fn plain_requests_are_answered() {
    let server = Server::start(&["--workers", "1"]);
    assert_eq!(server.get("GET /healthz"), (200, "ok\n".to_owned()));
    assert_eq!(server.get("HEAD /healthz"), (200, String::new()));
    for (request_line, status) in [
        ("GET /echo", 426),
        ("GET /topics?topic=a", 426),
        ("GET /topics?topic=", 400),
        ("GET /publish?topic=%zz", 400),
        ("GET /", 200),
        ("GET /elsewhere", 404),
        ("GET /socket/websocket", 400),
        ("DELETE /healthz", 405),
        ("DELETE /", 405),
    ] {
        assert_eq!(server.get(request_line).0, status, "{request_line}");
    }
}

#[test]
fn serve_ends_with_0_and_a_second_signal_ends_it_at_once() {
    assert_eq!(Server::start(&[]).stop(), 0);
    // A peer that never answers our Close keeps the drain waiting.
    let mut server = Server::start(&[]);
    let mut silent = server.upgrade();
    signal(&server.child, Signal::INT);
    let mut rest = Vec::new();
    let mut byte = [0];
    while !rest.ends_with(b"\x03\xf4") {
        silent.read_exact(&mut byte).expect("a Close with 1012");
        rest.push(byte[0]);
    }
    assert!(server.child.try_wait().expect("the server can be waited for").is_none());
    signal(&server.child, Signal::TERM);
    assert_eq!(server.child.wait().expect("it ends").code(), Some(143));
}

#[test]
fn serve_raises_the_limit_of_descriptors() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -S -n 64 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_wingbeat")]);
    command.stdout(Stdio::piped());
    let server = Server::of(command, &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.child.id())).expect("it runs");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a line for descriptors");
    let values: Vec<&str> = line.split_whitespace().collect();
    assert_ne!(values[0], "64");
    assert_eq!(values[0], values[1], "soft and hard");
}

#[test]
fn a_spin_that_is_not_used_is_told() {
    let mut server = Server::of(wingbeat(), &["--spin-us", "5"]);
    let mut stderr = BufReader::new(server.child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line of its log");
    assert!(line.contains("--spin-us is not used"), "{line}");
}

#[test]
fn echo_is_measured() {
    let server = Server::start(&["--workers", "2"]);
    let pid = server.child.id().to_string();
    let json =
        load(&[&["echo", &server.url("/echo"), "-c", "8", "-p", "3", "--server-pid", &pid], &BRIEFLY[..]].concat());
    assert!(count(&json, "messages") > 0);
    assert_eq!(count(&json, "bytes"), 64 * count(&json, "messages"));
    let slices: u64 = json["messages_per_slice"].as_array().expect("a list").iter().filter_map(Value::as_u64).sum();
    assert_eq!(slices, count(&json, "messages"));
    let latency = |key: &str| json["latency_us"][key].as_f64().expect("a number");
    assert!(0.0 < latency("p50") && latency("p50") <= latency("p99") && latency("p99") <= latency("max"));
    assert!(json["server_cpu_us_per_message"].as_f64().expect("a number") > 0.0);
    assert!(count(&json, "server_rss_bytes") > 100_000);
    assert_eq!(server.stop(), 0);
}

#[test]
fn echo_takes_any_size_and_kind() {
    let server = Server::start(&["--max-message", "200KiB"]);
    for flags in
        [&["--payload", "0"][..], &["--payload", "200KiB", "-p", "4"], &["--payload", "126", "--binary", "-t", "2"]]
    {
        let json = load(&[&["echo", &server.url("/echo"), "-c", "4"], flags, &BRIEFLY[..]].concat());
        assert!(count(&json, "messages") > 0, "{flags:?}");
    }
}

#[test]
fn an_open_loop_sends_what_was_asked_for() {
    let server = Server::start(&[]);
    let json = load(&["echo", &server.url("/echo"), "-c", "7", "-t", "2", "-r", "2000", "-d", "1s", "--warmup", "0s"]);
    // What was wanted is sent or told as unsent; what came after the end is in neither figure.
    assert!(count(&json, "messages") <= 2000);
    assert_eq!(count(&json, "rate_per_s"), 2000);
    assert!(json["unsent_messages"].is_u64());
}

#[test]
fn every_subscriber_gets_every_message() {
    let server = Server::start(&["--workers", "2"]);
    let topics = server.url("/topics?topic=a%20room");
    let publish = server.url("/publish?topic=a%20room");
    for flags in [
        &["--publish-url", &publish, "--subscribers", "40"][..],
        &["--publish-url", &publish, "--subscribers", "40", "-c", "3", "-t", "3", "-p", "8", "--binary"],
        &["--subscribers", "40", "-c", "2", "-t", "2", "-r", "200"],
    ] {
        let json = load(&[&["fanout", &topics], flags, &BRIEFLY[..]].concat());
        assert_eq!(count(&json, "subscribers"), 40);
        assert!(count(&json, "messages") > 0 && count(&json, "published") > 0, "{flags:?}");
    }
}

#[test]
fn connections_are_held_and_made() {
    let directory = std::env::temp_dir().join(format!("wingbeat-cli-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory of our own");
    let socket = directory.join("serve.sock");
    let mut server = Server::start(&["--bind", &format!("unix:{}", socket.display())]);
    assert_eq!(server.listening(), format!("unix:{}", socket.display()));
    let idle = load(&[&["idle", &server.url("/echo"), "-c", "300", "--source-addresses", "3"], &BRIEFLY[..2]].concat());
    assert_eq!((count(&idle, "connections"), &idle["messages"]), (300, &Value::Null));
    let connect = load(&[&["connect", &server.url("/echo"), "-c", "4"], &BRIEFLY[..]].concat());
    assert!(count(&connect, "handshakes") > 0);
    let unix = load(&[&["echo", &format!("ws+unix:{}:/echo", socket.display())], &BRIEFLY[..]].concat());
    assert!(count(&unix, "messages") > 0);
    drop(server);
    std::fs::remove_dir_all(directory).expect("it can go");
}

/// Server and client hold more connections than a descriptor table may have entries: each message reaches all of them, and
/// each ends with its closing handshake.
#[test]
fn connections_beyond_one_descriptor_table_get_every_message_and_their_close() {
    const SUBSCRIBERS: &str = "2499";
    let limited = || {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 600 && exec \"$@\"", "sh", env!("CARGO_BIN_EXE_wingbeat")]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    };
    let uring = wingbeat::driver::DriverChoice::Uring.resolve().is_ok();
    for driver in if uring { &["epoll", "uring"][..] } else { &["epoll"] } {
        // The kernel spreads connections by chance: 313 for each worker, give or take 18.
        let mut server = Server::of(limited(), &["--workers", "8", "--own-fd-table", "--driver", driver]);
        let (topics, publish) = (server.url("/topics?topic=all"), server.url("/publish?topic=all"));
        let mut load = limited();
        load.args(["load", "fanout", &topics, "--publish-url", &publish, "--subscribers", SUBSCRIBERS]);
        load.args(["-r", "2.5", "-d", "1s", "--warmup", "0s", "--driver", driver, "--json", "-"]);
        let output = ended(load.spawn().expect("the program starts"));
        assert_eq!(output.status.code(), Some(0), "{driver}: {}", String::from_utf8_lossy(&output.stderr));
        let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        assert_eq!((count(&json, "connections"), count(&json, "published")), (2500, 3));
        assert!(count(&json, "threads") >= 5, "a table holds less than 600");
        assert_eq!((count(&json, "lost_messages"), &json["errors"]), (0, &serde_json::json!({})));
        let mut stderr = server.child.stderr.take().expect("a pipe");
        assert_eq!(server.stop(), 0);
        let mut log = String::new();
        stderr.read_to_string(&mut log).expect("its log is text");
        assert!(log.contains("2500 connections were opened, closed: 2500 with 1000 (peer)"), "{driver}: {log}");
    }
}

/// What a server refuses is told, with how many stand.
#[test]
fn connections_beyond_the_limit_of_the_server_are_told() {
    let server = Server::start(&["--max-connections", "3"]);
    let (code, stdout, stderr) = run(&["load", "idle", &server.url("/echo"), "-c", "5", "-d", "300ms"]);
    assert_eq!(code, 1, "{stderr:?}");
    assert!(stdout.contains("3 in ") && stdout.contains(", 2 failed"), "{stdout}");
    assert!(stdout.contains("handshake_status_503 2 (the server answered 503 to /echo)"), "{stdout}");
}

#[test]
fn an_interrupted_load_prints_what_it_has() {
    let server = Server::start(&[]);
    let (code, json) = cut_short(&["echo", &server.url("/echo")], |load| signal(load, Signal::INT));
    assert_eq!((code, &json["interrupted"]), (0, &Value::Bool(true)));
    assert!(count(&json, "messages") > 0);
}

#[test]
fn a_server_that_dies_is_a_failure() {
    let server = Server::start(&[]);
    let (code, json) = cut_short(&["echo", &server.url("/echo"), "-c", "5"], |_| signal(&server.child, Signal::KILL));
    assert_eq!((code, count(&json, "connections_failed")), (1, 5));
    assert_eq!((count(&json["errors"], "connection_lost"), count(&json, "lost_messages")), (5, 5));
}

#[test]
fn answers_that_are_none_are_a_failure() {
    let server = Server::start(&[]);
    // On a topic each connection gets the messages of the others too.
    let topic = server.url("/topics?topic=x");
    let (code, json) = report(&[&["echo", &topic, "-c", "3"], &BRIEFLY[..]].concat());
    assert_eq!(code, 1);
    assert!(count(&json["errors"], "wrong_contents") > 0, "{json}");
}

#[test]
fn the_page_and_the_report_are_written() {
    let server = Server::start(&[]);
    let page = std::env::temp_dir().join(format!("wingbeat-cli-{}.html", std::process::id()));
    let path = page.display().to_string();
    let (code, stdout, _) = run(&[&["load", "echo", &server.url("/echo"), "--html", &path], &BRIEFLY[..]].concat());
    let html = std::fs::read_to_string(&page).expect("the page is there");
    std::fs::remove_file(&page).expect("it can go");
    assert_eq!(code, 0);
    assert!(stdout.contains("latency      p50 ") && stdout.contains("errors       none"), "{stdout}");
    assert_eq!(html.matches("<svg").count(), 2);
}

#[test]
fn the_demo_runs_and_ends() {
    let (code, stdout, stderr) = run(&["demo", "-d", "1500ms", "-c", "5", "--subscribers", "10"]);
    assert_eq!(code, 0, "{stderr:?}");
    assert_eq!(stdout.matches("errors       none").count(), 2, "{stdout}");
    assert!(stderr.iter().any(|line| line.contains("echo") && line.contains("fanout")), "{stderr:?}");
}

#[test]
fn channels_reply() {
    let server = Server::fixture();
    let (mount, pid) = (server.url("/socket"), server.child.id().to_string());
    for flags in [
        &["--server-pid", &pid][..],
        &["-p", "3", "--topics", "3", "-t", "2", "--payload", "1KiB"],
        &["--vsn", "1.0.0", "--topics", "8", "--payload", "0"],
        &["-r", "2000", "-t", "2", "--topic-prefix", "realtime:\"x\" "],
    ] {
        let json = load(&[&["channels", &mount, "-c", "8"], flags, &BRIEFLY[..]].concat());
        let (messages, channels) = (count(&json, "messages"), &json["channels"]);
        assert!(messages > 0, "{flags:?}");
        assert_eq!((count(&json, "connections"), count(channels, "replies")), (8, messages), "{flags:?}");
        assert_eq!(count(&json, "bytes"), messages * count(&json, "payload_bytes"));
        assert_eq!((&channels["deliveries"], &json["published"]), (&Value::Null, &Value::Null));
        assert!(channels["join_latency_us"]["max"].as_f64() > Some(0.0), "{json}");
        assert_eq!(channels["reply_latency_us"], json["latency_us"]);
        assert_eq!(json["server_cpu_us_per_message"].is_f64(), flags[0] == "--server-pid");
    }
}

#[test]
fn channels_broadcast_to_all_of_a_topic() {
    let server = Server::fixture();
    let mount = server.url("/socket?uid=7");
    for flags in [
        &[][..],
        &["--topics", "7", "-t", "3", "-p", "8", "--vsn", "1.0.5"],
        &["--topics", "2", "-t", "2", "-r", "200", "--payload", "1000"],
        &["--broadcast-event", "shout_reply"],
    ] {
        let base = ["channels", &mount, "-c", "40", "--traffic", "broadcast"];
        let json = load(&[&base[..], flags, &BRIEFLY].concat());
        assert!(count(&json, "messages") > 0 && count(&json, "published") > 0, "{flags:?}");
        assert_eq!(count(&json["channels"], "deliveries"), count(&json, "messages"), "{flags:?}");
        assert_eq!(json["channels"]["replies"], Value::Null);
    }
}

#[test]
fn channels_do_both_at_once() {
    let server = Server::fixture();
    for flags in [&["-t", "2", "-p", "2"][..], &["-r", "1000"]] {
        let base = ["channels", &server.url("/socket"), "-c", "12", "--topics", "4", "--traffic", "both"];
        let json = load(&[&base[..], flags, &BRIEFLY].concat());
        let (replies, deliveries) = (count(&json["channels"], "replies"), count(&json["channels"], "deliveries"));
        assert!(replies > 0 && deliveries > 0, "{flags:?}");
        assert_eq!(replies + deliveries, count(&json, "messages"));
    }
}

/// The mount closes connections that are silent for 1.5 s.
#[test]
fn heartbeats_keep_channels() {
    let server = Server::fixture();
    let mount = server.url("/quick");
    let base = ["channels", &mount, "-c", "4", "--traffic", "none", "-d", "4s"];
    let json = load(&[&base[..], &["--heartbeat", "300ms"]].concat());
    assert_eq!((count(&json, "connections"), &json["messages"]), (4, &Value::Null));
    let (code, json) = report(&base);
    assert_eq!((code, count(&json["errors"], "closed_1002")), (1, 4), "{json}");
}

#[test]
fn joins_that_fail_are_told() {
    let server = Server::fixture();
    for (mount, prefix, told) in [
        ("/socket", "room:deny", "join_refused 3"),
        ("/socket", "nowhere:", "join_refused 3"),
        ("/socket?reject=1", "room:", "handshake_status_403 3"),
        ("/nothing", "room:", "handshake_status_404 3"),
    ] {
        let (code, _, stderr) = run(&["load", "channels", &server.url(mount), "-c", "3", "--topic-prefix", prefix]);
        assert_eq!((code, stderr.len()), (1, 1), "{stderr:?}");
        assert!(stderr[0].contains(told), "{}", stderr[0]);
    }
}

#[test]
fn channels_that_fail_are_told() {
    let server = Server::fixture();
    let mount = server.url("/socket");
    for (flags, kind, at_least) in [
        (["--reply-event", "custom"], "reply_status", 5),
        (["--reply-event", "str"], "", 0),
        (["--reply-event", "crash"], "phx_error", 5),
        (["--reply-event", "stop_normal"], "phx_close", 5),
        (["--reply-event", "stop_shutdown"], "phx_close", 5),
    ] {
        let times = if kind.starts_with("phx") { UNTIL_NONE_IS_LEFT } else { BRIEFLY };
        let (code, json) = report(&[&["channels", &mount, "-c", "5"], &flags[..], &times].concat());
        assert_eq!(code, i32::from(at_least > 0), "{flags:?}: {json}");
        assert_eq!(kinds(&json), if kind.is_empty() { vec![] } else { vec![kind] }, "{flags:?}");
        assert!(kind.is_empty() || count(&json["errors"], kind) >= at_least, "{flags:?}: {json}");
        assert_eq!(count(&json, "connections_failed"), if kind.starts_with("phx") { 5 } else { 0 });
    }
    // What nobody answers is lost, and what is not broadcast too.
    for flags in [["--reply-event", "shout"], ["--broadcast-event", "echo"]] {
        let traffic = if flags[0] == "--reply-event" { "reply" } else { "broadcast" };
        let base = ["channels", &mount, "-c", "2", "--traffic", traffic];
        let (code, json) = report(&[&base[..], &flags, &BRIEFLY].concat());
        assert_eq!((code, count(&json, "lost_messages"), count(&json, "messages")), (1, 2, 0), "{flags:?}");
    }
}

#[test]
fn channels_of_a_server_that_dies_are_a_failure() {
    let server = Server::fixture();
    let arguments = ["channels", &server.url("/socket"), "-c", "5", "--traffic", "both"];
    let (code, json) = cut_short(&arguments, |_| signal(&server.child, Signal::KILL));
    assert_eq!((code, count(&json, "connections_failed")), (1, 5));
    assert_eq!(count(&json["errors"], "connection_lost"), 5);
    assert!(count(&json, "lost_messages") >= 5);
}

/// A server of channels that keeps its word only as far as its path says. It understands what `load channels` sends.
struct Unsound;

impl Handler for Unsound {
    type State = String;
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<String> {
        Upgrade::Accept(request.path().trim_matches('/').trim_end_matches("/websocket").to_owned())
    }

    fn message(&mut self, conn: &mut Conn<'_>, fault: &mut String, message: Message<'_>) {
        let pushed: [Value; 5] = serde_json::from_slice(message.payload).expect("five slots");
        let [_, reference, topic, event, mut payload] = pushed;
        if fault == "deaf" || fault == "heartless" && event == "heartbeat" {
            return;
        }
        if fault == "wrong" && event == "echo" {
            payload["data"] = "x".into();
        }
        let reply = serde_json::json!(["1", reference, topic, "phx_reply", { "status": "ok", "response": payload }]);
        let times = if fault == "twice" && event == "echo" { 2 } else { 1 };
        let text = if fault == "garbled" && event == "echo" { "{}".to_owned() } else { reply.to_string() };
        let answer = Message { kind: MessageKind::Text, payload: text.as_bytes() };
        (0..times).for_each(|_| _ = conn.send(answer));
    }
}

#[test]
fn servers_that_break_the_rules_are_told() {
    let running =
        wingbeat::Server::bind("127.0.0.1:0").and_then(|server| server.spawn(|_| Unsound)).expect("it serves");
    let address = running.tcp_address().expect("TCP");
    let mount = |fault| format!("ws://{address}/{fault}");
    std::thread::scope(|scope| {
        let deaf = scope.spawn(|| run(&["load", "channels", &mount("deaf"), "-c", "3"])); // 10 s, as a join may take
        for (fault, flags, kind) in [
            ("sound", &[][..], ""),
            ("wrong", &[], "wrong_contents"),
            ("twice", &[], "out_of_order"),
            ("garbled", &[], "wrong_contents"),
            ("heartless", &["--heartbeat", "100ms", "--traffic", "none"], "heartbeat_timeout"),
        ] {
            let times = if fault == "heartless" { UNTIL_NONE_IS_LEFT } else { BRIEFLY };
            let (code, json) = report(&[&["channels", &mount(fault), "-c", "3"], flags, &times].concat());
            assert_eq!(kinds(&json), if kind.is_empty() { vec![] } else { vec![kind] }, "{fault}: {json}");
            assert_eq!(code, i32::from(!kind.is_empty()), "{fault}");
        }
        let (code, _, stderr) = deaf.join().expect("it ends");
        assert!(code == 1 && stderr.iter().any(|line| line.contains("join_timeout 3")), "{stderr:?}");
    });
    running.drain(Drain::default());
    running.join().expect("it ends");
}
