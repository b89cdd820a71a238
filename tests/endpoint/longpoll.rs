//! Long-polling, row by row of docs/phoenix-wire.md §7: sessions of worker 0, asked for mostly through worker 1.
#![forbid(unsafe_code)]

use crate::world::{Http, World};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use wingbeat::channels::{Channel, Ctx, Info, Join, JoinCtx, JoinRef, Outcome, Payload, Reason, UserSocket};
use wingbeat::endpoint::{Connect, Endpoint, LongPollOptions, Mount, Transport};
use wingbeat::engine::Drain;

const BATCH: &str = "application/x-ndjson";
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

#[derive(Clone, Default)]
struct Notes {
    reasons: Arc<Mutex<Vec<Reason>>>,
    joins: Arc<Mutex<Vec<JoinRef>>>,
}

struct Room(Notes);

impl Channel for Room {
    const INTERCEPT: &'static [&'static str] = &["loud"];

    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, _: Payload<'_>) -> Join {
        if topic == "room:slow" {
            self.0.joins.lock().unwrap().push(ctx.later());
            return Join::Later;
        }
        Join::Ok
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "echo" => return Outcome::ok(payload),
            "bytes" => return Outcome::ok(json!({ "len": payload.as_binary().map(<[u8]>::len) })),
            "say" => _ = ctx.broadcast("said", payload),
            "others" => _ = ctx.broadcast_from("said", payload),
            "loud" => _ = ctx.broadcast("loud", payload),
            "timer" => _ = ctx.set_timer(Duration::from_millis(100), 1),
            "forever" => _ = ctx.set_timer(Duration::from_secs(3600), 1),
            _ => return Outcome::Unhandled,
        }
        Outcome::ok(json!({}))
    }

    fn handle_info(&mut self, ctx: &mut Ctx<'_>, _: Info<'_>) -> Outcome {
        ctx.push("fired", json!({}));
        Outcome::NoReply
    }

    fn terminate(&mut self, _: &mut Ctx<'_>, reason: &Reason) {
        self.0.reasons.lock().unwrap().push(reason.clone());
    }
}

fn endpoint(notes: &Notes) -> Endpoint {
    let notes = notes.clone();
    let options = LongPollOptions { buffer_bytes: 10_000, ..LongPollOptions::default() };
    let mount = Mount::new(UserSocket::new().channel("room:*", move || Room(notes.clone())))
        .longpoll(options.clone())
        .connect(|info| match info.param("name") {
            Some("nobody") => Connect::Refuse,
            Some("broken") => Connect::Error("broken".into()),
            name => Connect::accept().id(format!("users:{}", name.unwrap_or("x"))),
        });
    let other = Mount::new(UserSocket::new()).longpoll(options);
    Endpoint::new().secret(SECRET).expect("long enough").socket("/socket", mount).socket("/other", other)
}

/// A world with two workers, and a client with a session on worker 0 that has joined `room:a`.
fn joined() -> (World, Notes, Poller) {
    let notes = Notes::default();
    let mut world = World::new(7, endpoint(&notes), 2);
    let poller = Poller::new(&mut world, 0);
    assert_eq!(poller.post(&mut world, "", r#"["1","1","room:a","phx_join",{}]"#), json!({ "status": 200 }));
    let reply = json!(["1", "1", "room:a", "phx_reply", { "status": "ok", "response": {} }]);
    assert_eq!(poller.messages(&mut world), [reply]);
    (world, notes, poller)
}

struct Poller {
    token: String,
}

impl Poller {
    fn new(world: &mut World, worker: usize) -> Poller {
        let answer = get(world, worker, "/socket/longpoll?vsn=2.0.0&name=me", "");
        assert_eq!((&answer["status"], &answer["messages"]), (&json!(410), &json!([])));
        Poller { token: answer["token"].as_str().expect("a token").to_owned() }
    }

    /// A poll through this worker, whose answer may take a while.
    fn poll(&self, world: &World, worker: usize) -> Http {
        let token = &self.token;
        world.http(
            worker,
            &format!(
                "GET /socket/longpoll?vsn=2.0.0 HTTP/1.1\r\nHost: sim\r\nx-phoenix-longpoll-token: {token}\r\n\r\n"
            ),
        )
    }

    /// A poll that is answered at once.
    fn now(&self, world: &mut World) -> Value {
        let mut poll = self.poll(world, 1);
        world.settle();
        body(&mut poll).expect("an answer at once")
    }

    /// A POST that was not waited for.
    fn request(&self, world: &World, content_type: &str, body_of: &str) -> Http {
        let length = body_of.len();
        world.http(
            1,
            &format!(
                "POST /socket/longpoll?vsn=2.0.0&token={} HTTP/1.1\r\nHost: sim\r\nContent-Type: {content_type}\r\n\
                 Content-Length: {length}\r\n\r\n{body_of}",
                self.token
            ),
        )
    }

    fn messages(&self, world: &mut World) -> Vec<Value> {
        read(&self.now(world))
    }

    fn post(&self, world: &mut World, content_type: &str, body_of: &str) -> Value {
        let mut post = self.request(world, content_type, body_of);
        world.settle();
        body(&mut post).expect("an answer at once")
    }
}

fn get(world: &mut World, worker: usize, target: &str, fields: &str) -> Value {
    let mut http = world.http(worker, &format!("GET {target} HTTP/1.1\r\nHost: sim\r\n{fields}\r\n"));
    world.settle();
    body(&mut http).expect("an answer at once")
}

/// The JSON of an answer that is there; each is a 200.
fn body(http: &mut Http) -> Option<Value> {
    let (head, body) = http.answer()?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for field in
        ["Content-Type: application/json; charset=utf-8", "Access-Control-Allow-Origin: *", "Cache-Control: no-store"]
    {
        assert!(head.lines().any(|line| line.eq_ignore_ascii_case(field)), "{field} is not in {head}");
    }
    Some(serde_json::from_str(&body).expect("JSON"))
}

/// The messages of a poll's answer: strings that hold JSON.
fn read(answer: &Value) -> Vec<Value> {
    assert_eq!(answer["status"], 200, "{answer}");
    let texts = answer["messages"].as_array().expect("messages").iter();
    texts.map(|text| serde_json::from_str(text.as_str().expect("text")).expect("JSON")).collect()
}

fn said(world: &World, number: u32) {
    world.handle.broadcast("room:a", "said", json!({ "n": number })).expect("there is room");
}

fn heard(number: u32) -> Value {
    json!([null, null, "room:a", "said", { "n": number }])
}

fn status(status: u16) -> Value {
    json!({ "status": status })
}

#[test]
fn who_may_connect() {
    let mut world = World::new(1, endpoint(&Notes::default()), 1);
    for (target, fields) in [
        ("/socket/longpoll?vsn=3.0.0", ""),
        ("/socket/longpoll?vsn[]=2.0.0", ""),
        ("/socket/longpoll?vsn=2.0.0&name=nobody", ""),
        ("/socket/longpoll?vsn=2.0.0&name=broken", ""),
        ("/socket/longpoll?vsn=2.0.0", "Origin: http://elsewhere\r\n"),
    ] {
        assert_eq!(get(&mut world, 0, target, fields), status(403), "{target} {fields}");
    }
    assert_eq!(get(&mut world, 0, "/socket/longpoll", "Origin: http://sim\r\n")["status"], 410);
    let mut post = world.http(
        0,
        "POST /socket/longpoll HTTP/1.1\r\nHost: sim\r\nOrigin: http://elsewhere\r\nContent-Length: 2\r\n\r\n[]",
    );
    world.settle();
    assert_eq!(body(&mut post), Some(status(403)));
}

#[test]
fn other_methods() {
    let mut world = World::new(1, endpoint(&Notes::default()), 1);
    for method in ["PUT", "DELETE", "PATCH", "HEAD"] {
        let mut http = world.http(0, &format!("{method} /socket/longpoll HTTP/1.1\r\nHost: sim\r\n\r\n"));
        world.settle();
        let head = String::from_utf8(http.peer.take()).expect("text");
        assert!(head.starts_with("HTTP/1.1 400 ") && http.answer().is_none(), "{method}: {head}");
    }
    let mut options = world.http(
        0,
        "OPTIONS /socket/longpoll HTTP/1.1\r\nHost: sim\r\nOrigin: http://elsewhere\r\n\
         Access-Control-Request-Headers: content-type,x-mine\r\n\r\n",
    );
    world.settle();
    let (head, _) = options.answer().expect("an answer");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for field in [
        "access-control-allow-origin: *",
        "access-control-allow-headers: content-type,x-mine",
        "access-control-allow-methods: get, post, options",
        "access-control-max-age: 3600",
    ] {
        assert!(head.to_ascii_lowercase().lines().any(|line| line == field), "{field} is not in {head}");
    }
}

#[test]
fn messages_wait_for_a_poll_and_a_poll_for_messages() {
    let (mut world, _, poller) = joined();
    said(&world, 1);
    said(&world, 2);
    world.settle();
    assert_eq!(poller.messages(&mut world), [heard(1), heard(2)]);
    let mut poll = poller.poll(&world, 1);
    world.pass(1000);
    assert_eq!(body(&mut poll), None, "nothing to give, and time");
    said(&world, 3);
    world.settle();
    let answer = body(&mut poll).expect("an answer");
    assert_eq!((read(&answer), answer["token"].as_str()), (vec![heard(3)], Some(&*poller.token)));
}

#[test]
fn an_empty_window_is_204_and_a_second_poll_ends_the_first() {
    let (mut world, _, poller) = joined();
    let nothing = json!({ "status": 204, "token": poller.token, "messages": [] });
    let mut poll = poller.poll(&world, 1);
    world.pass(9_900);
    assert_eq!(body(&mut poll), None);
    world.pass(200);
    assert_eq!(body(&mut poll), Some(nothing.clone()));
    let [mut first, mut second] = [0, 1].map(|worker| {
        let poll = poller.poll(&world, worker);
        world.settle();
        poll
    });
    assert_eq!((body(&mut first), body(&mut second)), (Some(nothing), None));
    said(&world, 1);
    world.settle();
    assert_eq!(read(&body(&mut second).expect("an answer")), [heard(1)]);
}

#[test]
fn a_session_that_is_not_polled_ends() {
    let (mut world, notes, poller) = joined();
    assert_eq!(poller.post(&mut world, "", r#"["1","2","room:a","forever",{}]"#), status(200));
    world.pass(14_900);
    assert!(notes.reasons.lock().unwrap().is_empty(), "posts do not count, but it is not time yet");
    world.pass(200);
    assert_eq!(*notes.reasons.lock().unwrap(), [Reason::Inactive]);
    assert_eq!(poller.post(&mut world, "", "[]"), status(410));
    assert_eq!(poller.now(&mut world), status(410));
    world.assert_no_sessions();
}

#[test]
fn tokens() {
    let (mut world, _, poller) = joined();
    // The header wins.
    said(&world, 1);
    world.settle();
    let field = format!("x-phoenix-longpoll-token: {}\r\n", poller.token);
    let answer = get(&mut world, 1, "/socket/longpoll?vsn=2.0.0&token=wrong", &field);
    assert_eq!(read(&answer), [heard(1)]);
    let mut changed = poller.token.clone();
    let last = if changed.ends_with('A') { "B" } else { "A" };
    changed.replace_range(changed.len() - 1.., last);
    let another = World::new(2, endpoint(&Notes::default()), 2);
    let elsewhere = Poller::new(&mut { another }, 0).token;
    for token in ["", "x", &changed, &elsewhere] {
        let fresh = get(&mut world, 1, &format!("/socket/longpoll?vsn=2.0.0&token={token}"), "");
        assert_eq!(fresh["status"], 410, "{token:?}");
        assert!(fresh["token"].as_str().is_some_and(|fresh| fresh != token && fresh != poller.token));
        assert_eq!(Poller { token: token.to_owned() }.post(&mut world, "", "[]"), status(410));
    }
    // At another mount it is nothing.
    let other = get(&mut world, 1, &format!("/other/longpoll?vsn=2.0.0&token={}", poller.token), "");
    assert_ne!(other["token"], poller.token);
    said(&world, 2);
    world.settle();
    assert_eq!(poller.messages(&mut world), [heard(2)], "the session is as it was");
}

#[test]
fn batches() {
    let (mut world, _, poller) = joined();
    let push = |number: usize| format!(r#"["1","{number}","room:a","echo",{{"n":{number}}}]"#);
    let batch: Vec<String> = (0..103).map(push).collect();
    assert_eq!(poller.post(&mut world, BATCH, &batch.join("\r\n")), status(200));
    let replies = poller.messages(&mut world);
    assert_eq!(replies.len(), 100, "those beyond are ignored");
    assert!(replies.iter().enumerate().all(|(at, reply)| reply[4]["response"]["n"] == at));
    let frame = [&b"\x00\x01\x01\x06\x05"[..], b"1", b"7", b"room:a", b"bytes", &[1, 2, 255]].concat();
    assert_eq!(poller.post(&mut world, BATCH, &format!("{}\n{}", STANDARD.encode(frame), push(8))), status(200));
    let replies = poller.messages(&mut world);
    assert_eq!((&replies[0][4]["response"]["len"], &replies[1][1]), (&json!(3), &json!("8")));
    // With parameters it is another type: the whole body is one message.
    assert_eq!(poller.post(&mut world, "application/x-ndjson; charset=utf-8", &push(9)), status(200));
    assert_eq!(poller.messages(&mut world).len(), 1);
}

#[test]
fn an_item_that_cannot_be_read_ends_the_session_after_those_before_it() {
    let push = r#"["1","2","room:a","say",{"n":7}]"#;
    for (rest, end) in [("no base64", "an item"), ("", "behind the line end is an empty message")] {
        let (mut world, notes, poller) = joined();
        let watcher = Poller::new(&mut world, 1);
        assert_eq!(watcher.post(&mut world, "", r#"["1","1","room:a","phx_join",{}]"#), status(200));
        assert_eq!(watcher.messages(&mut world).len(), 1);
        let batch = format!("{push}\n{rest}\n{push}");
        assert_eq!(poller.post(&mut world, BATCH, &batch), status(408), "{end}");
        assert_eq!(watcher.messages(&mut world), [heard(7)], "{end}");
        assert_eq!(*notes.reasons.lock().unwrap(), [Reason::Closed]);
        assert_eq!(poller.now(&mut world), status(410));
    }
}

#[test]
fn what_cannot_be_read_ends_the_session() {
    for bad in ["nonsense", "[]", "{}", ""] {
        let (mut world, notes, poller) = joined();
        assert_eq!(poller.post(&mut world, "", bad), status(408));
        assert_eq!(*notes.reasons.lock().unwrap(), [Reason::Closed]);
        assert_eq!(poller.now(&mut world), status(410));
        world.assert_no_sessions();
    }
}

#[test]
fn a_join_that_is_decided_later_holds_what_follows() {
    let (mut world, notes, poller) = joined();
    let batch = r#"["2","2","room:slow","phx_join",{}]
["2","3","room:slow","echo",{}]
["1","4","room:a","echo",{}]"#;
    assert_eq!(poller.post(&mut world, BATCH, batch), status(200));
    assert_eq!(poller.post(&mut world, "", r#"["1","5","room:a","echo",{}]"#), status(200));
    let mut poll = poller.poll(&world, 1);
    world.settle();
    assert_eq!(body(&mut poll), None);
    notes.joins.lock().unwrap().pop().expect("a join waits").ok(json!({})).expect("there is room");
    world.settle();
    let replies = read(&body(&mut poll).expect("an answer"));
    assert_eq!(replies.iter().map(|reply| &reply[1]).collect::<Vec<_>>(), ["2", "3", "4", "5"]);
}

#[test]
fn what_is_held_has_a_limit() {
    // Many bytes, or many messages without any.
    for body in [format!(r#"["1","1","room:a","echo","{}"]"#, "x".repeat(300_000)), "\n".repeat(99)] {
        let (mut world, _, poller) = joined();
        assert_eq!(poller.post(&mut world, "", r#"["2","2","room:slow","phx_join",{}]"#), status(200));
        let taken = (0..1000).take_while(|_| poller.post(&mut world, BATCH, &body) == status(200)).count();
        assert!((1..999).contains(&taken), "{taken}");
        assert_eq!(poller.now(&mut world), status(410));
        world.assert_no_sessions();
    }
}

#[test]
fn bodies_on_their_way_to_another_worker_have_a_limit() {
    let mut config = crate::world::config();
    config.limits.mail_overflow_bytes = 100_000;
    let mut world = World::with(7, endpoint(&Notes::default()), 2, config);
    let poller = Poller::new(&mut world, 0);
    let text = format!(r#"[null,"1","phoenix","heartbeat",{{"x":"{}"}}]"#, "x".repeat(40_000));
    let mut posts: Vec<Http> = (0..4).map(|_| poller.request(&world, "", &text)).collect();
    let now = world.net.now();
    (0..10).for_each(|_| world.workers[1].turn(now).expect("a turn"));
    let refused = posts.iter_mut().filter_map(Http::answer).collect::<Vec<_>>();
    assert!(refused.iter().all(|(head, _)| head.starts_with("HTTP/1.1 503 ")), "{refused:?}");
    assert_eq!(refused.len(), 2, "two are 80,000 bytes");
    world.settle();
    assert_eq!(posts.iter_mut().filter_map(body).collect::<Vec<_>>(), [status(200), status(200)]);
    assert_eq!(poller.messages(&mut world).len(), 2);
    // Answers too are mail, on their way back.
    assert_eq!(poller.post(&mut world, "", &text), status(200));
    assert_eq!(poller.messages(&mut world).len(), 1);
}

#[test]
fn one_message_larger_than_the_buffer_is_sent() {
    let (mut world, notes, poller) = joined();
    let text = "x".repeat(20_000);
    world.handle.broadcast("room:a", "said", json!({ "text": text })).expect("there is room");
    world.settle();
    let messages = poller.messages(&mut world);
    assert_eq!((messages.len(), &messages[0][4]["text"]), (1, &json!(text)));
    world.settle();
    assert!(notes.reasons.lock().unwrap().is_empty());
    // But nothing goes behind it.
    world.handle.broadcast("room:a", "said", json!({ "text": text })).expect("there is room");
    said(&world, 1);
    world.settle();
    assert_eq!((notes.reasons.lock().unwrap().len(), poller.now(&mut world)), (1, status(410)));
}

#[test]
fn what_waits_for_a_poll_has_a_limit() {
    let (mut world, notes, poller) = joined();
    let (text, mut sent) = ("x".repeat(1000), 0);
    while notes.reasons.lock().unwrap().is_empty() {
        world.handle.broadcast("room:a", "said", json!({ "text": text })).expect("there is room");
        world.settle();
        sent += 1;
        assert!(sent < 20, "10,000 bytes may wait");
    }
    assert_eq!((sent, poller.now(&mut world)), (10, status(410)));
    world.assert_no_sessions();
}

#[test]
fn a_poll_that_goes_away_loses_nothing() {
    // Through the session's own worker and another, found out before the message comes or after.
    for (worker, known) in [(0, true), (0, false), (1, true), (1, false)] {
        let (mut world, _, poller) = joined();
        let poll = poller.poll(&world, worker);
        world.settle();
        poll.peer.close();
        if known {
            world.settle();
        }
        said(&world, 1);
        if worker == 1 {
            // The session answers before it knows; the request's worker finds nobody.
            let now = world.net.now();
            (0..3).for_each(|_| world.workers[0].turn(now).expect("a turn"));
        }
        let mut next = poller.poll(&world, 0);
        said(&world, 2);
        world.settle();
        let mut got = read(&body(&mut next).expect("an answer"));
        if got.len() == 1 {
            got.extend(poller.messages(&mut world));
        }
        assert_eq!(got, [heard(1), heard(2)], "worker {worker}, known {known}");
    }
}

#[test]
fn a_broadcast_of_ones_own_comes_before_the_reply() {
    let (mut world, _, poller) = joined();
    let batch = r#"["1","2","room:a","say",{"n":1}]
["1","3","room:a","others",{"n":2}]
["1","4","room:a","say",{"n":3}]"#;
    assert_eq!(poller.post(&mut world, BATCH, batch), status(200));
    let got = poller.messages(&mut world);
    assert_eq!((&got[0], &got[3], got.len()), (&heard(1), &heard(3), 5));
    assert_eq!([&got[1][1], &got[2][1], &got[4][1]], ["2", "3", "4"]);
    // Through `handle_out`, with the join_ref.
    poller.post(&mut world, "", r#"["1","5","room:a","loud",{"n":4}]"#);
    let got = poller.messages(&mut world);
    assert!(got.contains(&json!(["1", null, "room:a", "loud", { "n": 4 }])), "{got:?}");
}

#[test]
fn others_hear_a_session_and_it_hears_them() {
    let (mut world, _, poller) = joined();
    let mut socket = world.open(1, "&name=you");
    socket.send(&json!(["1", "1", "room:a", "phx_join", {}]));
    world.settle();
    socket.take();
    for event in ["say", "others"] {
        poller.post(&mut world, "", &json!(["1", "9", "room:a", event, { "n": 1 }]).to_string());
        assert_eq!(socket.take(), [heard(1)], "{event}");
    }
    poller.messages(&mut world);
    socket.send(&json!(["1", "2", "room:a", "others", { "n": 5 }]));
    world.settle();
    assert_eq!(poller.messages(&mut world), [heard(5)]);
    world.handle.push_to("users:me", "room:a", "psst", json!({})).expect("there is room");
    world.settle();
    assert_eq!(poller.messages(&mut world), [json!(["1", null, "room:a", "psst", {}])]);
}

#[test]
fn timers_of_a_session() {
    let (mut world, _, poller) = joined();
    poller.post(&mut world, BATCH, "[\"1\",\"2\",\"room:a\",\"timer\",{}]\n[\"1\",\"3\",\"room:a\",\"forever\",{}]");
    assert_eq!(poller.messages(&mut world).len(), 2);
    world.pass(120);
    assert_eq!(poller.messages(&mut world), [json!(["1", null, "room:a", "fired", {}])]);
    poller.post(&mut world, "", r#"["1","4","room:a","phx_leave",{}]"#);
    let kept = world.workers[0].with(|handler, _| format!("{handler:?}"));
    assert!(kept.contains("sessions: 1, listeners: 1, requests: 0, timers: 1"), "its own clock is left: {kept}");
}

#[test]
fn a_disconnect_and_a_drain_end_sessions() {
    let (mut world, notes, poller) = joined();
    let mut poll = poller.poll(&world, 1);
    world.settle();
    world.handle.disconnect("users:me").expect("there is room");
    world.settle();
    assert_eq!((body(&mut poll), poller.now(&mut world)), (Some(status(410)), status(410)));
    assert_eq!(*notes.reasons.lock().unwrap(), [Reason::Disconnected]);
    world.assert_no_sessions();

    let (mut world, notes, poller) = joined();
    let mut poll = poller.poll(&world, 1);
    world.settle();
    // A connection that is there already may still ask.
    let late = world.raw(0);
    world.settle();
    world.handle.engine().drain(Drain::default());
    late.send(b"GET /socket/longpoll?vsn=2.0.0 HTTP/1.1\r\nHost: sim\r\n\r\n");
    world.settle();
    assert_eq!((body(&mut poll), &notes.reasons.lock().unwrap()[..]), (Some(status(410)), &[Reason::Draining][..]));
    world.assert_no_sessions();
}

#[test]
fn the_program_learns_of_clients_that_are_gone() {
    let gone: Arc<Mutex<Vec<_>>> = Arc::default();
    let note = Arc::clone(&gone);
    let mount = Mount::new(UserSocket::new())
        .longpoll(LongPollOptions::default())
        .connect(|info| match info.param("name") {
            Some("nobody") => Connect::Refuse,
            name => Connect::accept().id(format!("users:{}", name.unwrap_or("x"))).assign(7_u32),
        })
        .on_disconnect(move |client| {
            let assigned = client.assigns().get::<u32>().copied();
            let id = client.id().map(str::to_owned);
            note.lock().unwrap().push((client.transport(), id, assigned, client.reason().clone()));
        });
    let mut world = World::new(7, Endpoint::new().socket("/socket", mount), 2);
    let at = |transport, reason| (transport, Some("users:me".to_owned()), Some(7), reason);
    let expect = |world: &mut World, expected: &[_]| {
        world.settle();
        assert_eq!(std::mem::take(&mut *gone.lock().unwrap()), expected);
    };
    get(&mut world, 0, "/socket/longpoll?vsn=2.0.0&name=nobody", "");
    let client = world.open(1, "&name=me");
    Poller::new(&mut world, 0);
    expect(&mut world, &[]);
    client.close(1000);
    expect(&mut world, &[at(Transport::WebSocket, Reason::Closed)]);
    world.pass(15_100);
    expect(&mut world, &[at(Transport::LongPoll, Reason::Inactive)]);
    Poller::new(&mut world, 0);
    let _client = world.open(1, "&name=me");
    world.handle.disconnect("users:me").expect("there is room");
    world.settle();
    gone.lock().unwrap().sort_by_key(|(transport, ..)| *transport == Transport::LongPoll);
    let both = [Transport::WebSocket, Transport::LongPoll].map(|transport| at(transport, Reason::Disconnected));
    expect(&mut world, &both);
    Poller::new(&mut world, 0);
    world.handle.drain(Drain::default());
    expect(&mut world, &[at(Transport::LongPoll, Reason::Draining)]);
}

#[test]
fn a_body_has_a_limit() {
    let (mut world, _, poller) = joined();
    let mut post = world.http(
        1,
        &format!(
            "POST /socket/longpoll?vsn=2.0.0&token={} HTTP/1.1\r\nHost: sim\r\nContent-Length: 8000001\r\n\r\n",
            poller.token
        ),
    );
    world.settle();
    assert!(post.answer().expect("an answer").0.starts_with("HTTP/1.1 413 "));
    // A large one is for who has a session.
    let large = "x".repeat(5000);
    assert_eq!(poller.post(&mut world, "", &format!(r#"["1","2","room:a","echo","{large}"]"#)), status(200));
    let stranger = Poller { token: poller.token.replace('.', "x") };
    let mut post = stranger.request(&world, "", &large);
    world.settle();
    assert!(post.answer().expect("an answer").0.starts_with("HTTP/1.1 413 "));
    assert_eq!(stranger.post(&mut world, "", &large[..4000]), status(410));
}

#[test]
fn what_a_join_holds_back_is_an_option() {
    let options = LongPollOptions { waiting_bytes: 2000, ..LongPollOptions::default() };
    let notes = Notes::default();
    let room = notes.clone();
    let mount = Mount::new(UserSocket::new().channel("room:*", move || Room(room.clone()))).longpoll(options);
    let mut world = World::new(7, Endpoint::new().socket("/socket", mount), 2);
    let poller = Poller::new(&mut world, 0);
    let echo = format!(r#"["1","1","room:a","echo","{}"]"#, "x".repeat(700));
    assert_eq!(poller.post(&mut world, "", r#"["2","2","room:slow","phx_join",{}]"#), status(200));
    let taken = (0..10).take_while(|_| poller.post(&mut world, "", &echo) == status(200)).count();
    assert_eq!(taken, 2);
}

#[test]
fn sessions_have_a_limit_by_address_and_one_in_all() {
    let options = LongPollOptions { sessions_per_ip: 2, ..LongPollOptions::default() };
    let mount = Mount::new(UserSocket::new()).longpoll(options);
    let mut config = crate::world::config();
    config.limits.listeners = 3;
    let mut world = World::with(7, Endpoint::new().socket("/socket", mount), 2, config);
    let begin = |world: &mut World, last: u8, worker: usize| {
        let peer = world.net.connect_from([10, 0, 0, last].into(), &world.addresses[worker]).expect("it listens");
        peer.send(b"GET /socket/longpoll?vsn=2.0.0 HTTP/1.1\r\nHost: sim\r\n\r\n");
        world.settle();
        let head = String::from_utf8(peer.take()).expect("text");
        assert!(head.to_ascii_lowercase().contains("access-control-allow-origin: *"), "{head}");
        head[9..12].parse::<u16>().expect("a status")
    };
    assert_eq!([0, 1].map(|worker| begin(&mut world, 1, worker)), [200; 2]);
    assert_eq!([0, 1].map(|worker| begin(&mut world, 1, worker)), [429; 2], "both workers count");
    assert_eq!([0, 0].map(|worker| begin(&mut world, 2, worker)), [200; 2]);
    assert_eq!(begin(&mut world, 3, 0), 503, "worker 0 has three");
    assert_eq!(begin(&mut world, 3, 1), 200);
    world.pass(15_100);
    world.assert_no_sessions();
    assert_eq!([0, 1, 0].map(|worker| begin(&mut world, 1, worker)), [200, 200, 429], "those that ended made room");
}
