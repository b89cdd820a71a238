//! `wingbeat new`: what it writes builds, passes its own test and serves; what is there already stays
#![cfg(feature = "cli")]
#![forbid(unsafe_code)]

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;
use std::{env, fs};
use wingbeat::CloseCode;
use wingbeat::client::{Client, Message};

/// Far more than any step takes: it ends a test that hangs.
const LONG: Duration = Duration::from_secs(30);
const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// A directory to work in, gone with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = env::temp_dir().join(format!("wingbeat-new-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Place(path)
    }

    /// Runs `wingbeat new` here: exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        self.run_from(None, arguments)
    }

    /// The same, by `cargo run` in the directory of this crate; none: not by Cargo.
    fn run_from(&self, manifest_dir: Option<&Path>, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wingbeat"));
        command.env_remove("CARGO_MANIFEST_DIR");
        manifest_dir.map(|path| command.env("CARGO_MANIFEST_DIR", path));
        let output = command.arg("new").args(arguments).current_dir(&self.0).output().unwrap();
        let Output { status, stdout, stderr } = output;
        (status.code().unwrap(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program of a project; it ends with the test.
struct Program {
    process: Child,
    /// `IP:PORT`.
    address: String,
    log: BufReader<ChildStderr>,
}

impl Program {
    fn start(path: &Path) -> Program {
        let mut command = Command::new(path);
        command.arg("127.0.0.1:0").env("RUST_LOG", "info").stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://").expect("it says where").to_owned();
        let log = BufReader::new(process.stderr.take().unwrap());
        Program { process, address, log }
    }

    /// The next line of its log that fits.
    fn log_line(&mut self, fits: impl Fn(&str) -> bool) -> String {
        self.log.by_ref().lines().map(Result::unwrap).find(|line| fits(line)).expect("it says so before it ends")
    }

    /// Status and body of the answer to a request.
    fn request(&self, method: &str, path: &str, content_type: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.address);
        let fields = format!("Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + &fields + body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn client(&self, name: &str) -> Client {
        let url = format!("ws://{}/socket/websocket?vsn=2.0.0&name={name}", self.address);
        Client::builder(&url).read_timeout(LONG).connect().unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The next message of this event.
fn next(client: &mut Client, event: &str) -> Value {
    loop {
        let Message::Text(text) = client.receive().unwrap() else { panic!("only text is spoken here") };
        let message: Value = serde_json::from_str(&text).unwrap();
        if message[3] == event {
            return message;
        }
    }
}

/// Runs Cargo on a project, whose dependencies are those of this crate.
fn cargo(project: &Path, command: &str, target: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([command, "--quiet", "--offline", "--target-dir"]).arg(target).current_dir(project);
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo {command}:\n{}", String::from_utf8_lossy(&output.stderr));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(command != "test" || stdout.contains("3 passed"), "{stdout}");
}

#[test]
fn a_new_project_builds_passes_its_test_and_serves() {
    let place = Place::new("whole");
    let (code, said, _) = place.run(&["first-chat", "--path", CRATE]);
    assert_eq!(code, 0);
    assert!(said.contains("cd first-chat") && said.contains("cargo run"), "{said}");
    let project = place.0.join("first-chat");
    // Kept between runs: most of it is dependencies, which do not change.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("new");
    fs::copy(Path::new(CRATE).join("Cargo.lock"), project.join("Cargo.lock")).unwrap();
    cargo(&project, "test", &target);
    cargo(&project, "build", &target);

    let mut program = Program::start(&target.join("debug/first-chat"));
    let second = Command::new(target.join("debug/first-chat")).arg(&program.address).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.starts_with(&format!("first-chat: cannot serve at {}: ", program.address)), "{said}");
    assert_eq!((second.status.code(), said.lines().count()), (Some(1), 1), "one line, for people: {said}");
    let (status, page) = program.request("GET", "/", "text/plain", "");
    assert_eq!((status, page.contains("<title>first-chat</title>")), (200, true), "{page}");

    let mut anna = program.client("anna");
    anna.send_text(r#"["1","1","room:tea","phx_join",{}]"#).unwrap();
    let reply = next(&mut anna, "phx_reply");
    assert_eq!(reply, json!(["1", "1", "room:tea", "phx_reply", { "status": "ok", "response": {} }]));
    assert!(next(&mut anna, "presence_state")[4]["anna"]["metas"].is_array());

    let message = json!({ "from": "curl", "text": "hello" });
    let post = json!({ "room": "tea", "from": "curl", "text": "hello" }).to_string();
    assert_eq!(program.request("POST", "/api/messages", "application/json", &post).0, 204);
    assert_eq!(next(&mut anna, "message"), json!([null, null, "room:tea", "message", message]));
    assert_eq!(program.request("POST", "/api/messages", "text/plain", &post).0, 415);
    assert_eq!(program.request("POST", "/api/messages", "application/json", "{}").0, 400);

    let log = program.log_line(|line| line.contains("join"));
    assert!(log.contains("INFO") && log.contains("room:tea"), "{log}");
    kill_process(Pid::from_child(&program.process), Signal::TERM).unwrap();
    let closed = std::iter::repeat_with(|| anna.receive()).find(|got| !matches!(got, Ok(Message::Text(_))));
    let Some(Ok(Message::Closed(Some((code, _))))) = closed else { panic!("{closed:?}") };
    assert_eq!(code, CloseCode::SERVICE_RESTART, "a drain tells clients to come back");
    assert!(program.process.wait().unwrap().success());
}

#[test]
fn what_is_there_already_stays() {
    let place = Place::new("there");
    fs::create_dir_all(place.0.join("mine/src")).unwrap();
    fs::write(place.0.join("mine/src/main.rs"), "fn main() {}").unwrap();
    let (code, _, error) = place.run(&["mine"]);
    assert_eq!(code, 1);
    assert_eq!(error.trim_end(), "wingbeat: cannot make mine: it is there already, and not empty");
    assert_eq!(place.read("mine/src/main.rs"), "fn main() {}");
    assert_eq!(fs::read_dir(place.0.join("mine")).unwrap().count(), 1, "nothing was added");

    fs::write(place.0.join("file"), "text").unwrap();
    assert_eq!(place.run(&["file"]).0, 1);
    assert_eq!(place.read("file"), "text");

    fs::create_dir(place.0.join("empty")).unwrap();
    assert_eq!(place.run(&["empty"]).0, 0, "an empty directory is as good as none");
    assert!(place.read("empty/src/main.rs").contains("fn main()"));
}

#[test]
fn a_wrong_name_or_path_leaves_nothing_behind() {
    let place = Place::new("wrong");
    for (arguments, code, why) in [
        (&["2fast"][..], 2, "'2fast': it does not begin with a letter"),
        (&["../up"], 2, "'../up': '.' is none of a-z"),
        (&["async"], 2, "another meaning"),
        (&["chat", "--path", "."], 1, "cannot use --path .: "),
        (&[], 2, "<NAME>"),
    ] {
        let (exit, _, error) = place.run(arguments);
        assert_eq!(exit, code, "{arguments:?}: {error}");
        assert!(error.contains(why) && error.lines().count() == 1, "{arguments:?}: {error}");
    }
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

#[test]
fn the_crate_is_named_by_version_or_by_path() {
    let place = Place::new("named");
    let version = format!("wingbeat = \"{}\"", env!("CARGO_PKG_VERSION"));
    let has_version = |project: &str| place.read(&format!("{project}/Cargo.toml")).lines().any(|line| line == version);
    let (code, said, _) = place.run(&["by-version"]);
    assert_eq!((code, has_version("by-version")), (0, true));
    assert!(said.contains("from crates.io") && said.contains("--path"), "{said}");
    let odd = place.0.join("a \"quoted\" place");
    fs::create_dir(&odd).unwrap();
    fs::copy(Path::new(CRATE).join("Cargo.toml"), odd.join("Cargo.toml")).unwrap();
    assert_eq!(place.run(&["by-path", "--path", odd.to_str().unwrap()]).0, 0);
    let manifest = place.read("by-path/Cargo.toml");
    assert!(manifest.contains(r#"a \"quoted\" place" }"#), "{manifest}");

    let (code, said, _) = place.run_from(Some(&odd), &["by-checkout"]);
    assert_eq!((code, place.read("by-checkout/Cargo.toml")), (0, manifest.replace("by-path", "by-checkout")));
    assert!(!said.contains("from crates.io"), "{said}");
    // Another crate's `cargo run` may start this program, too.
    let project = place.0.join("by-path");
    assert_eq!(place.run_from(Some(&project), &["by-another"]).0, 0);
    assert!(has_version("by-another"));
}
