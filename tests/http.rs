//! Pages, APIs and files over real sockets
#![cfg(feature = "epoll")]
#![forbid(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use std::{env, fs, process};
use wingbeat::channels::token::Signer;
use wingbeat::http::{
    Context, Csrf, JsonBody, Next, OriginCheck, OriginPolicy, RequestId, Router, SecureHeaders, SessionCookie,
    StaticFiles,
};
use wingbeat::{
    Answer, Conn, ConnId, Drain, Handler, Message, Never, Request, Response, Running, Scope, Server, Upgrade,
};

const LONG: Duration = Duration::from_secs(20);

#[derive(Clone)]
struct Site {
    router: Arc<Router>,
    gone: mpsc::Sender<ConnId>,
}

impl Handler for Site {
    type State = ();
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn request(&mut self, scope: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        self.router.answer(scope, request)
    }

    fn request_gone(&mut self, _: &mut Scope<'_>, id: ConnId) {
        self.gone.send(id).unwrap();
    }

    fn message(&mut self, conn: &mut Conn<'_>, (): &mut (), message: Message<'_>) {
        conn.send(message);
    }
}

/// A running site, and one connection to it that is kept.
struct Browser {
    server: Running<Never>,
    stream: BufReader<TcpStream>,
    gone: mpsc::Receiver<ConnId>,
}

#[derive(Debug)]
struct Reply {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Reply {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The cookie that was set, as it is sent back.
    fn cookie(&self) -> Option<String> {
        Some(format!("Cookie: {}\r\n", self.field("set-cookie")?.split(';').next()?))
    }
}

impl Browser {
    fn new(router: Router) -> Browser {
        let (sender, gone) = mpsc::channel();
        let site = Site { router: Arc::new(router), gone: sender };
        let server = Server::bind("127.0.0.1:0").unwrap().workers(1).spawn(move |_| site.clone()).unwrap();
        let stream = BufReader::new(connect(&server));
        Browser { server, stream, gone }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.get_mut().write_all(bytes).unwrap();
    }

    fn reply(&mut self, method: &str) -> Reply {
        let mut line = || {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line();
        let status = status.split(' ').nth(1).unwrap_or_else(|| panic!("{status:?}")).parse().unwrap();
        let fields = std::iter::from_fn(|| Some(line()).filter(|line| !line.is_empty()));
        let fields: Vec<_> =
            fields.map(|line| line.split_once(": ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap()).collect();
        let mut reply = Reply { status, fields, body: Vec::new() };
        let length = reply.field("content-length").map_or(0, |length| length.parse().unwrap());
        reply.body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.stream.read_exact(&mut reply.body).unwrap();
        reply
    }

    /// A request on the kept connection: all of them arrive on one.
    fn ask(&mut self, method: &str, target: &str, fields: &str, body: &str) -> Reply {
        let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        self.send(format!("{method} {target} HTTP/1.1\r\nHost: site.test\r\n{fields}{length}\r\n{body}").as_bytes());
        self.reply(method)
    }

    fn get(&mut self, target: &str) -> Reply {
        self.ask("GET", target, "", "")
    }

    fn end(self) {
        drop(self.stream);
        self.server.drain(Drain::default());
        self.server.join().unwrap();
    }
}

fn connect(server: &Running<Never>) -> TcpStream {
    let stream = TcpStream::connect(server.tcp_address().unwrap()).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn signer() -> Signer {
    Signer::new(b"0123456789abcdef0123456789abcdef").unwrap()
}

fn api() -> Router {
    Router::new()
        .get("/", |_| Response::html("<p>home"))
        .get("/text", |_| "text")
        .get("/rooms/first/users/:id", |_| "the first route wins")
        .get("/rooms/:room/users/:id", |context| {
            format!("{}|{}|{}", context.var("room").unwrap(), context.var("id").unwrap(), context.var("no").is_none())
        })
        .get("/files/*path", |context| context.var("path").unwrap().to_owned())
        .get("/search", |context| format!("{} {}", context.query("q").unwrap_or("-"), context.params().to_json()))
        .get("/old", |_| Response::redirect("/new"))
        .options("/own", |_| "own")
        .scope("/api", |api| {
            api.plug(JsonBody { limit: 20 })
                .post("/sum", |context| {
                    let numbers: Vec<i64> = context.json()?;
                    Ok::<_, Response>(Response::json(&numbers.iter().sum::<i64>()).with_status(201))
                })
                .put("/sum/:id", |context| format!("put {}", context.var("id").unwrap()))
                .delete("/sum/:id", |_| Response::no_content())
                .scope("/deep", |deep| deep.patch("/", |_| "patched"))
        })
        .post("/form", |context| {
            let form = context.form()?;
            Ok::<_, Response>(form.text("name").unwrap_or("nobody").to_owned())
        })
}

#[test]
fn routes_answer_by_method_and_path() {
    let mut browser = Browser::new(api());
    for (target, status, body) in [
        ("/", 200, "<p>home"),
        ("/text/", 200, "text"),
        ("//text", 200, "text"),
        ("/rooms/a%20b/users/%C3%A9%2F7", 200, "a b|é/7|true"),
        ("/rooms/first/users/1", 200, "the first route wins"),
        ("/rooms/new/users/1", 200, "new|1|true"),
        ("/files/a/b%20c", 200, "a/b c"),
        ("/files", 200, ""),
        ("/search?q=a+b&x[y][]=%26", 200, "a b {\"q\":\"a b\",\"x\":{\"y\":[\"&\"]}}"),
        ("/search?q=%zz", 400, "query: wrongly encoded\n"),
        ("/te%78t", 200, "text"),
        ("/te%zzxt", 400, "path: wrongly encoded\n"),
        ("/nowhere", 404, "Not Found"),
        ("/text/more", 404, "Not Found"),
    ] {
        let reply = browser.get(target);
        assert_eq!((reply.status, reply.text()), (status, body), "{target}");
    }
    let home = browser.get("/");
    assert_eq!(home.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(home.field("date").is_some());
    assert_eq!(browser.get("/old").field("location"), Some("/new"));
    let head = browser.ask("HEAD", "/text", "", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some("4")));
    browser.end();
}

#[test]
fn other_methods_are_405_with_allow_and_options_is_answered() {
    let mut browser = Browser::new(api());
    for (method, target, status, allow) in [
        ("POST", "/text", 405, Some("GET, HEAD, OPTIONS")),
        ("GET", "/api/sum/1", 405, Some("DELETE, OPTIONS, PUT")),
        ("get", "/text", 405, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", "/text", 204, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", "/api/sum/1", 204, Some("DELETE, OPTIONS, PUT")),
        ("OPTIONS", "*", 204, None),
        ("OPTIONS", "/own", 200, None),
        ("OPTIONS", "/nowhere", 404, None),
        ("PUT", "/api/sum/1", 200, None),
        ("PATCH", "/api/deep", 200, None),
        ("DELETE", "/api/sum/1", 204, None),
    ] {
        let reply = browser.ask(method, target, "", "");
        assert_eq!((reply.status, reply.field("allow")), (status, allow), "{method} {target}");
    }
    browser.end();
}

#[test]
fn bodies_are_json_or_forms_within_limits() {
    let mut browser = Browser::new(api());
    let json = "Content-Type: application/json; charset=utf-8\r\n";
    for (fields, body, status) in [
        (json, "[1,2,3]", 201),
        ("Content-Type: application/vnd.x+json\r\n", "[]", 201),
        (json, "[1,2", 400),
        (json, "{}", 400),
        (json, "", 400),
        ("", "[1]", 415),
        ("", "", 415),
        ("Content-Type: text/plain\r\n", "[1]", 415),
        (json, "[1,2,3,4,5,6,7,8,90]", 201),
        (json, "[1,2,3,4,5,6,7,8,900]", 413),
    ] {
        let reply = browser.ask("POST", "/api/sum", fields, body);
        assert_eq!(reply.status, status, "{fields:?} {body:?}: {}", reply.text());
    }
    assert_eq!(browser.ask("POST", "/api/sum", json, "[1,2]").text(), "3");
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    assert_eq!(browser.ask("POST", "/form", form, "name=J%C3%BCrgen+M").text(), "Jürgen M");
    assert_eq!(browser.ask("POST", "/form", form, "name=%ff").status, 400);
    assert_eq!(browser.ask("POST", "/form", json, "{}").status, 415);
    browser.end();
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_their_order() {
    let mut browser = Browser::new(api());
    for _ in 0..3 {
        let requests: String = (0..100).map(|n| format!("GET /files/{n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
        browser.send(requests.as_bytes());
        for n in 0..100 {
            assert_eq!(browser.reply("GET").text(), n.to_string());
        }
    }
    let handle = browser.server.handle().clone();
    browser.end();
    let counters = handle.metrics().counters;
    assert_eq!((counters.accepted, counters.requests), (1, 300));
}

#[test]
fn plugs_run_in_order_around_what_they_are_declared_for() {
    fn note(name: &'static str) -> impl Fn(&mut Context<'_>, Next<'_>) -> Response + Send + Sync + 'static {
        move |context, next| {
            let so_far = context.assigned::<String>().cloned().unwrap_or_default();
            context.assign(so_far + name);
            let response = next.run(context);
            response.header("X-Back", name)
        }
    }
    let seen = |context: &mut Context<'_>| context.assigned::<String>().cloned().unwrap_or_default();
    let mut browser = Browser::new(
        Router::new()
            .get("/top", seen)
            .plug(note("a"))
            .plug(note("b"))
            .scope("/in", |scope| {
                scope.plug(note("c")).get("/", seen).scope("/side", |scope| scope.plug(note("d")).get("/", seen))
            })
            .not_found(|context| format!("{:?} not here", context.segments())),
    );
    let backs = |reply: &Reply| {
        reply.fields.iter().filter(|(name, _)| name == "X-Back").map(|(_, back)| back.clone()).collect::<String>()
    };
    for (target, body, back) in
        [("/top", "ab", "ba"), ("/in", "abc", "cba"), ("/in/side", "abcd", "dcba"), ("/no", "[\"no\"] not here", "ba")]
    {
        let reply = browser.get(target);
        assert_eq!((reply.text(), backs(&reply).as_str()), (body, back), "{target}");
    }
    browser.end();
}

#[test]
fn an_answer_may_come_later_from_another_thread() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    let router = Router::new().get("/late", move |context| {
        keep.lock().unwrap().push(context.answer_later());
        "dropped"
    });
    let mut browser = Browser::new(router);
    let wait = |count: usize| {
        let patience = std::time::Instant::now() + LONG;
        while asked.lock().unwrap().len() < count {
            assert!(std::time::Instant::now() < patience, "the request does not come");
            std::thread::sleep(Duration::from_millis(2));
        }
        asked.lock().unwrap()[count - 1]
    };
    for round in 1..=3 {
        browser.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n");
        let id = wait(round);
        browser.server.handle().respond(id, Response::text(200, format!("answer {round}"))).unwrap();
        assert_eq!(browser.reply("GET").text(), format!("answer {round}"));
    }
    // A peer that leaves is noticed although nothing is read from it.
    let mut other = connect(&browser.server);
    other.write_all(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let id = wait(4);
    drop(other);
    assert_eq!(browser.gone.recv_timeout(LONG), Ok(id));
    browser.end();
}

#[test]
fn request_ids_are_taken_or_made_and_secure_fields_are_added() {
    let own = |_: &mut Context<'_>| Response::text(200, "").header("Referrer-Policy", "no-referrer");
    let mut browser = Browser::new(Router::new().plug(RequestId).plug(SecureHeaders).get("/", own));
    let sent = "12345678901234567890";
    let reply = browser.ask("GET", "/", &format!("X-Request-Id: {sent}\r\n"), "");
    assert_eq!(reply.field("x-request-id"), Some(sent));
    assert_eq!(
        (reply.field("referrer-policy"), reply.field("x-content-type-options")),
        (Some("no-referrer"), Some("nosniff"))
    );
    let made = browser.ask("GET", "/", "X-Request-Id: short\r\n", "");
    let again = browser.get("/nowhere");
    let ids = [&made, &again].map(|reply| reply.field("x-request-id").unwrap().to_owned());
    assert!(ids[0].len() == 20 && ids[0] != ids[1], "{ids:?}");
    browser.end();
}

#[test]
fn origins_are_checked() {
    let mut browser = Browser::new(
        Router::new()
            .scope("/host", |scope| scope.plug(OriginCheck(OriginPolicy::Host("site.test".into()))).get("/", |_| "in"))
            .scope("/conn", |scope| scope.plug(OriginCheck(OriginPolicy::Conn)).get("/", |_| "in"))
            .scope("/same", |scope| scope.plug(OriginCheck(OriginPolicy::SameHost)).get("/", |_| "in")),
    );
    for (target, origin, status) in [
        ("/host", "", 200),
        ("/host", "Origin: https://site.test:9\r\n", 200),
        ("/host", "Origin: null\r\n", 403),
        ("/host", "Origin: https://evilsite.test\r\n", 403),
        ("/conn", "Origin: http://site.test\r\n", 200),
        ("/conn", "Origin: https://site.test\r\n", 403),
        ("/same", "Origin: https://site.test\r\n", 200),
        ("/same", "Origin: https://site.test:8443\r\n", 403),
    ] {
        assert_eq!(browser.ask("GET", target, origin, "").status, status, "{target} {origin}");
    }
    browser.end();
}

fn visits(context: &mut Context<'_>) -> Response {
    let visits = context.session().get("visits").and_then(serde_json::Value::as_u64).unwrap_or(0) + 1;
    context.session_mut().put("visits", visits);
    visits.to_string().into()
}

#[test]
fn a_session_lives_in_a_signed_cookie() {
    let router = |cookie: SessionCookie| {
        Router::new()
            .plug(cookie)
            .get("/visits", visits)
            .get("/look", |context| context.session().is_empty().to_string())
            .get("/leave", |context| {
                context.session_mut().clear();
                "bye"
            })
            .get("/fat", |context| {
                context.session_mut().put("much", "x".repeat(4000));
                "never"
            })
    };
    let mut browser = Browser::new(router(SessionCookie::new(signer()).name("sid").secure(true)));
    let first = browser.get("/visits");
    let set = first.field("set-cookie").unwrap();
    assert!(
        set.starts_with("sid=") && set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=1209600; Secure"),
        "{set}"
    );
    let cookie = first.cookie().unwrap();
    let second = browser.ask("GET", "/visits", &cookie.replace("sid=", "other=1; sid="), "");
    assert_eq!(second.text(), "2");
    assert_ne!(second.cookie().unwrap(), cookie, "renewed as it changed");
    let look = browser.ask("GET", "/look", &cookie, "");
    assert_eq!((look.text(), look.field("set-cookie")), ("false", None), "nothing changed");
    let mut forged = cookie.clone();
    let at = forged.len() - 4;
    let last = if &forged[at..=at] == "A" { "B" } else { "A" };
    forged.replace_range(at..=at, last);
    assert_eq!(browser.ask("GET", "/look", &forged, "").text(), "true");
    let left = browser.ask("GET", "/leave", &cookie, "");
    assert!(left.field("set-cookie").unwrap().starts_with("sid=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"));
    assert_eq!(browser.get("/fat").status, 500);
    browser.end();
    let mut browser = Browser::new(router(SessionCookie::new(signer()).name("sid").max_age(Duration::ZERO)));
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(browser.ask("GET", "/look", &cookie, "").text(), "true", "too old");
    browser.end();
}

#[test]
fn forms_of_other_sites_are_refused() {
    let mut browser = Browser::new(
        Router::new()
            .plug(SessionCookie::new(signer()))
            .plug(Csrf)
            .get("/form", |context| context.csrf_token())
            .post("/form", |_| "done"),
    );
    let page = browser.get("/form");
    let (cookie, token) = (page.cookie().unwrap(), page.text().to_owned());
    let again = browser.ask("GET", "/form", &cookie, "");
    assert_ne!(again.text(), token, "masked afresh");
    assert_eq!(again.field("set-cookie"), None, "of the same session");
    let header = |cookie: &str, token: &str| format!("{cookie}X-CSRF-Token: {token}\r\n");
    let other = browser.get("/form").text().to_owned();
    for (fields, status) in [
        (header(&cookie, &token), 200),
        (header(&cookie, again.text()), 200),
        (header(&cookie, &other), 403),
        (header("", &token), 403),
        (header(&cookie, &token[..24]), 403),
        (header(&cookie, &token.repeat(2)), 403),
        (header(&cookie, ""), 403),
        (cookie.clone(), 403),
    ] {
        assert_eq!(browser.ask("POST", "/form", &fields, "").status, status, "{fields}");
    }
    let form = format!("{cookie}Content-Type: application/x-www-form-urlencoded\r\n");
    assert_eq!(browser.ask("POST", "/form", &form, &format!("a=b&_csrf_token={token}")).text(), "done");
    assert_eq!(browser.ask("POST", "/form", &form, "a=b&_csrf_token=x").status, 403);
    browser.end();
}

struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let base = env::temp_dir().join(format!("wingbeat-http-{name}-{}", process::id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir_all(root.join("empty")).unwrap();
        fs::write(base.join("secret.txt"), "secret").unwrap();
        fs::write(root.join("app.js"), "0123456789").unwrap();
        fs::write(root.join("a b.css"), "css").unwrap();
        fs::write(root.join("sub/index.html"), "index").unwrap();
        fs::write(root.join(".env"), "secret").unwrap();
        fs::write(root.join("large.bin"), [0; 101]).unwrap();
        symlink(base.join("secret.txt"), root.join("out.txt")).unwrap();
        symlink(&base, root.join("up")).unwrap();
        symlink(root.join(".env"), root.join("env.txt")).unwrap();
        symlink(root.join("app.js"), root.join("in.js")).unwrap();
        Directory(base)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_are_served_and_nothing_outside_their_root() {
    let directory = Directory::new("files");
    let mut browser = Browser::new(
        Router::new()
            .plug(StaticFiles::directory("/assets", directory.0.join("root")).limit(100))
            .get("/assets/route", |_| "a route behind"),
    );
    for (target, kind, body) in [
        ("/assets/app.js", "text/javascript; charset=utf-8", "0123456789"),
        ("/assets/in.js", "text/javascript; charset=utf-8", "0123456789"),
        ("/assets/a%20b.css", "text/css; charset=utf-8", "css"),
        ("/assets/sub/", "text/html; charset=utf-8", "index"),
        ("/assets/sub/index.html?v=1", "text/html; charset=utf-8", "index"),
        ("/assets/route", "text/plain; charset=utf-8", "a route behind"),
    ] {
        let reply = browser.get(target);
        assert_eq!((reply.status, reply.field("content-type"), reply.text()), (200, Some(kind), body), "{target}");
    }
    for target in [
        "/assets/../secret.txt",
        "/assets/%2e%2e/secret.txt",
        "/assets/.%2E/secret.txt",
        "/assets/..%2fsecret.txt",
        "/assets/..%5csecret.txt",
        "/assets/sub/../../secret.txt",
        "/assets/sub%2findex.html",
        "/assets/./app.js",
        "/assets/app.js%00",
        "/assets/%00/app.js",
        "/assets/.env",
        "/assets/%2eenv",
        "/assets/out.txt",
        "/assets/up/secret.txt",
        "/assets/env.txt",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets/empty",
        "/assets/empty/",
        "/assets/app.js/x",
        "/assets/large.bin",
        "/assets",
        "/app.js",
    ] {
        let reply = browser.get(target);
        assert_eq!((reply.status, reply.text()), (404, "Not Found"), "{target}");
    }
    assert_eq!(browser.get("/assets/%ff").status, 400);
    assert_eq!(browser.ask("POST", "/assets/app.js", "", "").status, 404);
    browser.end();
}

/// What is asked with fields, of a file with ten bytes.
fn conditional_requests(browser: &mut Browser, target: &str) {
    let plain = browser.get(target);
    let etag = plain.field("etag").unwrap().to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && plain.field("accept-ranges") == Some("bytes"));
    for (fields, status, range, body) in [
        (format!("If-None-Match: {etag}\r\n"), 304, None, ""),
        (format!("If-None-Match: \"x\", W/{etag}\r\nRange: bytes=0-1\r\n"), 304, None, ""),
        ("If-None-Match: *\r\n".into(), 304, None, ""),
        ("If-None-Match: \"x\"\r\n".into(), 200, None, "0123456789"),
        ("Range: bytes=2-4\r\n".into(), 206, Some("bytes 2-4/10"), "234"),
        ("Range: bytes=8-\r\n".into(), 206, Some("bytes 8-9/10"), "89"),
        ("Range: bytes=-1\r\n".into(), 206, Some("bytes 9-9/10"), "9"),
        ("Range: bytes=10-\r\n".into(), 416, Some("bytes */10"), "Range Not Satisfiable"),
        ("Range: bytes=0-1,3-4\r\n".into(), 200, None, "0123456789"),
        (format!("Range: bytes=2-4\r\nIf-Range: {etag}\r\n"), 206, Some("bytes 2-4/10"), "234"),
        ("Range: bytes=2-4\r\nIf-Range: \"x\"\r\n".into(), 200, None, "0123456789"),
        (format!("Range: bytes=2-4\r\nIf-Range: W/{etag}\r\n"), 200, None, "0123456789"),
    ] {
        let reply = browser.ask("GET", target, &fields, "");
        assert_eq!((reply.status, reply.field("content-range"), reply.text()), (status, range, body), "{fields}");
        assert_eq!(reply.field("etag"), Some(etag.as_str()));
    }
    let head = browser.ask("HEAD", target, "Range: bytes=2-4\r\n", "");
    assert_eq!((head.status, head.field("content-length")), (200, Some("10")));
}

#[test]
fn files_answer_conditional_and_range_requests() {
    let directory = Directory::new("ranges");
    let mut browser = Browser::new(
        Router::new()
            .plug(StaticFiles::directory("/disk", directory.0.join("root")))
            .plug(StaticFiles::embedded("/own").file("app.js", "0123456789").file("sub/index.html", "index"))
            .plug(StaticFiles::embedded("/").file("index.html", "start").cache_control("public")),
    );
    conditional_requests(&mut browser, "/disk/app.js");
    conditional_requests(&mut browser, "/own/app.js");
    assert_eq!(browser.get("/own/sub").text(), "index");
    let start = browser.get("/");
    assert_eq!((start.text(), start.field("cache-control")), ("start", Some("public")));
    let before = browser.get("/disk/app.js").field("etag").unwrap().to_owned();
    fs::write(directory.0.join("root/app.js"), "another ten").unwrap();
    assert_ne!(browser.get("/disk/app.js").field("etag"), Some(before.as_str()));
    browser.end();
}
