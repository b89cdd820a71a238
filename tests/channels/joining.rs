//! Joins (docs/phoenix-wire.md §4.2): what they return, what goes wrong, and those that are answered later.
#![forbid(unsafe_code)]

use crate::{BYTES, Spy, Unserializable, bye, close, crash, exchange, heard, joined, kit, mount, reply, tell};
use serde_json::json;
use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;
use wingbeat::channels::testing::Kit;
use wingbeat::channels::{
    Address, Assigns, Channel, Ctx, Full, Join, JoinCtx, Letter, Outcome, Outlet, Payload, Post, Refused, ReplyError,
    Scratch, Sent, Service, Socket, TimerKey, UserSocket,
};
use wingbeat::proto::{CloseCode, MessageKind};

#[test]
fn every_answer_of_a_join() {
    let crashed = || json!({ "reason": "join crashed" });
    for (how, status, response) in [
        ("ok", "ok", json!({})),
        ("reply", "ok", json!({ "topic": "room:a" })),
        ("list", "ok", json!([1, null])),
        ("binary", "ok", json!([1, 2, 255])),
        ("later, yet at once", "ok", json!({})),
        ("refuse", "error", json!({ "reason": "members only" })),
        ("refuse binary", "error", json!([1, 2, 255])),
        ("unserializable", "error", crashed()),
        ("panic", "error", crashed()),
        ("later, by nobody", "error", crashed()),
        ("later, forgotten", "error", crashed()),
    ] {
        let (kit, spy) = kit();
        let client = kit.connect();
        let messages = exchange(&client, json!(["1", "2", "room:a", "phx_join", { "how": how }]));
        assert_eq!(messages, [reply("1", "2", "room:a", status, response)], "{how}");
        assert_eq!(client.subscriptions().len(), usize::from(status == "ok"), "{how}");
        assert!(spy.log().is_empty(), "what did not join does not end");
        assert_eq!(client.closed(), None);
        // A refused client may try again.
        assert_eq!(client.join("room:a", json!({})), Ok(json!({})));
    }
}

#[test]
fn a_panic_in_the_factory_is_a_failed_join() {
    let (_kit, _, client) = joined();
    assert_eq!(client.join("broken:a", json!({})), Err(json!({ "reason": "join crashed" })));
    assert_eq!(client.subscriptions(), ["room:a"]);
}

#[test]
fn a_join_may_carry_bytes_and_any_json() {
    let (kit, _) = kit();
    let client = kit.connect();
    assert_eq!(client.join("room:a", BYTES), Ok(json!([1, 2, 255])));
    for payload in [json!(null), json!("text"), json!(5), json!([1])] {
        assert_eq!(client.join("room:b", payload), Ok(json!({})));
    }
}

#[test]
fn an_answer_that_the_format_has_not_is_a_failed_join() {
    let (kit, spy) = kit();
    let client = kit.connect_with("1.0.0");
    for how in ["binary", "refuse binary"] {
        assert_eq!(client.join("room:a", json!({ "how": how })), Err(json!({ "reason": "join crashed" })));
        assert!(heard(&client).is_empty());
        assert!(client.subscriptions().is_empty());
        assert!(spy.log().is_empty());
    }
}

#[test]
fn what_joined_sends_follows_the_reply() {
    let (kit, _) = kit();
    let client = kit.connect();
    let messages = exchange(&client, json!(["1", "1", "room:a", "phx_join", { "then": "push" }]));
    let after = [json!(["1", null, "room:a", "welcome", {}]), json!([null, null, "room:a", "came", {}])];
    assert_eq!(messages[0], reply("1", "1", "room:a", "ok", json!({})));
    assert_eq!(messages[1..], after);
    for then in ["panic", "invalid"] {
        let messages = exchange(&client, json!(["2", "2", "room:b", "phx_join", { "then": then }]));
        let ended = [reply("2", "2", "room:b", "ok", json!({})), bye("2", "room:b"), crash("2", "room:b")];
        assert_eq!(messages, ended, "{then}");
    }
}

#[test]
fn a_later_answer_comes_when_it_comes_and_others_go_on() {
    let (kit, spy) = kit();
    let (anna, bert) = (kit.connect(), kit.connect());
    anna.join("room:a", json!({})).expect("joined");
    bert.join("room:a", json!({})).expect("joined");
    assert!(exchange(&anna, json!(["5", "5", "room:b", "phx_join", { "how": "later", "then": "push" }])).is_empty());
    // What she sends waits, in order, on whatever topic.
    assert!(exchange(&anna, json!([null, "6", "phoenix", "heartbeat", {}])).is_empty());
    assert!(exchange(&anna, json!(["1", "7", "room:a", "echo", {}])).is_empty());
    assert!(exchange(&anna, json!(["5", "8", "room:b", "echo", {}])).is_empty());
    // What others do does not, nor does what comes to her.
    bert.push("room:a", "broadcast", json!({ "n": 1 }));
    assert_eq!(heard(&bert).len(), 1);
    assert_eq!(heard(&anna), [json!([null, null, "room:a", "said", { "n": 1 }])]);

    let answer = spy.notes().joins.pop().expect("somebody may answer");
    answer.ok(json!({ "at": "last" })).expect("there is room");
    let expected = [
        reply("5", "5", "room:b", "ok", json!({ "at": "last" })),
        json!(["5", null, "room:b", "welcome", {}]),
        json!([null, null, "room:b", "came", {}]),
        reply(json!(null), "6", "phoenix", "ok", json!({})),
        reply("1", "7", "room:a", "ok", json!({})),
        reply("5", "8", "room:b", "ok", json!({})),
    ];
    assert_eq!(heard(&anna), expected);
    // Only the first answer counts, and dropping it is no second one.
    answer.refuse(json!({})).expect("there is room");
    drop(answer);
    assert!(heard(&anna).is_empty());
    assert_eq!(anna.subscriptions(), ["room:a", "room:b"]);
}

#[test]
fn a_later_refusal_and_one_that_never_comes() {
    for refused in [true, false] {
        let (kit, spy) = kit();
        let client = kit.connect();
        tell(&client, json!(["5", "6", "room:b", "phx_join", { "how": "later" }]));
        tell(&client, json!(["5", "7", "room:b", "echo", {}]));
        let answer = spy.notes().joins.pop().expect("somebody may answer");
        let response = json!({ "reason": if refused { "no" } else { "join crashed" } });
        if refused {
            assert_eq!(answer.ok(Unserializable).map_err(|error| matches!(error, ReplyError::Payload(_))), Err(true));
            answer.refuse(&response).expect("there is room");
        }
        drop(answer);
        let expected = [reply("5", "6", "room:b", "error", response), crate::unmatched("7", "room:b")];
        assert_eq!(heard(&client), expected);
        assert!(client.subscriptions().is_empty());
    }
}

#[test]
fn a_leave_during_a_pending_join_is_for_what_comes_of_it() {
    for accepted in [true, false] {
        let (kit, spy) = kit();
        let client = kit.connect();
        tell(&client, json!(["5", "5", "room:b", "phx_join", { "how": "later" }]));
        tell(&client, json!(["5", "6", "room:b", "phx_leave", {}]));
        let answer = spy.notes().joins.pop().expect("somebody may answer");
        let left = reply("5", "6", "room:b", "ok", json!({}));
        if accepted {
            answer.ok(json!({})).expect("there is room");
            let joined = reply("5", "5", "room:b", "ok", json!({}));
            assert_eq!(heard(&client), [joined, left, close("5", "room:b"), bye("5", "room:b")]);
        } else {
            answer.refuse(json!({})).expect("there is room");
            assert_eq!(heard(&client), [reply("5", "5", "room:b", "error", json!({})), left]);
        }
        assert!(client.subscriptions().is_empty());
    }
}

#[test]
fn a_second_join_that_is_answered_later_closes_the_first_behind_the_answer() {
    let (_kit, spy, client) = joined();
    let messages = exchange(&client, json!(["5", "5", "room:a", "phx_join", { "how": "later" }]));
    assert_eq!(messages, [bye("1", "room:a")]);
    assert!(client.subscriptions().is_empty());
    let answer = spy.notes().joins.pop().expect("somebody may answer");
    answer.ok(json!({})).expect("there is room");
    assert_eq!(heard(&client), [reply("5", "5", "room:a", "ok", json!({})), close("1", "room:a")]);
}

#[test]
fn a_pending_join_whose_client_goes_is_forgotten() {
    let (kit, spy) = kit();
    let client = kit.connect();
    tell(&client, json!(["5", "5", "room:b", "phx_join", { "how": "later" }]));
    client.disconnect();
    let answer = spy.notes().joins.pop().expect("somebody may answer");
    answer.ok(json!({})).expect("it is dropped at the other end");
    kit.advance(Duration::ZERO);
    assert!(spy.log().is_empty());
}

#[test]
fn a_join_that_nobody_answers_holds_its_connection_for_a_while_and_no_longer() {
    for (patience, set) in [(10_000, None), (200, Some(Duration::from_millis(200)))] {
        let spy = Spy::default();
        let mount = set.into_iter().fold(mount(&spy), |mount, patience| mount.join_timeout(patience));
        let kit = Kit::new(mount);
        let client = kit.connect();
        tell(&client, json!(["5", "5", "room:b", "phx_join", { "how": "later" }]));
        tell(&client, json!([null, "6", "phoenix", "heartbeat", {}]));
        kit.advance(Duration::from_millis(patience - 1));
        assert!(heard(&client).is_empty());
        assert_eq!(client.timers(), 1);
        kit.advance(Duration::from_millis(1));
        let crashed = reply("5", "5", "room:b", "error", json!({ "reason": "join crashed" }));
        assert_eq!(heard(&client), [crashed, reply(json!(null), "6", "phoenix", "ok", json!({}))]);
        // An answer that comes after all is not for the next join either.
        let late = spy.notes().joins.pop().expect("somebody may answer");
        assert!(exchange(&client, json!(["7", "7", "room:b", "phx_join", { "how": "later" }])).is_empty());
        late.ok(json!({})).expect("there is room");
        assert!(heard(&client).is_empty());
        let answer = spy.notes().joins.pop().expect("somebody may answer");
        answer.ok(json!({})).expect("there is room");
        assert_eq!(heard(&client), [reply("7", "7", "room:b", "ok", json!({}))]);
        assert_eq!(client.timers(), 0, "an answer ends the wait");
        kit.advance(Duration::from_secs(60));
        assert!(heard(&client).is_empty() && spy.log().is_empty());
    }
}

#[test]
fn the_wait_for_an_answer_ends_with_the_connection() {
    let (kit, _spy) = kit();
    let client = kit.connect_as(Assigns::new(), Some("users:7"));
    tell(&client, json!(["5", "5", "room:b", "phx_join", { "how": "later" }]));
    kit.broadcast("users:7", "disconnect", json!({}));
    assert_eq!((client.timers(), client.closed()), (0, Some(CloseCode::GOING_AWAY)));
}

#[test]
fn what_is_kept_of_a_join_has_limits() {
    let (kit, _) = kit();
    let topic = |len: usize| format!("room:{}", "x".repeat(len - 5));
    let client = kit.connect();
    assert_eq!(client.join(&topic(UserSocket::TOPIC_BYTES), json!({})), Ok(json!({})));
    let long = topic(UserSocket::TOPIC_BYTES + 1);
    assert_eq!(client.join(&long, json!({})), Err(json!({ "reason": "unmatched topic" })));
    let most = "1".repeat(UserSocket::REF_BYTES);
    let messages = exchange(&client, json!([&most, &most, "room:a", "phx_join", {}]));
    assert_eq!(messages, [reply(&*most, &*most, "room:a", "ok", json!({}))]);
    let more = format!("{most}1");
    for (join_ref, reference) in [(json!(more), json!("1")), (json!("1"), json!(more)), (json!([&most]), json!("1"))] {
        let client = kit.connect();
        assert!(exchange(&client, json!([join_ref, reference, "room:a", "phx_join", {}])).is_empty());
        assert_eq!(client.closed(), Some(CloseCode::INTERNAL));
    }
    // A ref that nobody keeps may be longer.
    assert_eq!(exchange(&client, json!([null, more, "phoenix", "heartbeat", {}])).len(), 1);
}

#[test]
fn a_socket_that_could_not_be_disconnected_is_not_let_in() {
    let mount = Arc::new(UserSocket::new().channel("*", Greedy::default));
    let mut socket = Socket::new(mount, 1, Assigns::new(), Some("users:7".to_owned()));
    let mut outlet = Crowded::new(0, 0);
    socket.open(&mut outlet);
    assert_eq!(outlet.closed, Some(CloseCode::TRY_AGAIN_LATER));
}

#[test]
fn who_broadcasts_hears_of_workers_without_room() {
    struct Shouter;
    impl Channel for Shouter {
        fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
            Join::Ok
        }
        fn handle_in(&mut self, ctx: &mut Ctx<'_>, _: &str, _: Payload<'_>) -> Outcome {
            let sent = [
                ctx.broadcast("said", json!({})),
                ctx.broadcast_from("said", json!({})),
                ctx.broadcast_to("b", "said", json!({})),
                ctx.push_to("users:7", "said", json!({})),
                ctx.disconnect("users:7"),
            ];
            Outcome::ok(json!(sent.map(|sent| match sent {
                Sent::Queued => 0,
                Sent::Refused(workers) => workers,
                _ => 99,
            })))
        }
    }
    for deaf in [0, 3] {
        let mut socket = Socket::new(Arc::new(UserSocket::new().channel("*", || Shouter)), 1, Assigns::new(), None);
        let mut outlet = Crowded::new(1, deaf);
        for message in [r#"["1","1","a","phx_join",{}]"#, r#"["1","2","a","x",{}]"#] {
            socket.message(&mut outlet, MessageKind::Text, message.as_bytes());
        }
        let told =
            format!(r#"["1","2","a","phx_reply",{{"status":"ok","response":[{deaf},{deaf},{deaf},{deaf},{deaf}]}}]"#);
        assert_eq!(outlet.sent.last(), Some(&told));
    }
}

#[test]
fn several_joins_in_a_row_wait_for_one_another() {
    let (kit, spy) = kit();
    let client = kit.connect();
    tell(&client, json!(["1", "1", "room:a", "phx_join", { "how": "later" }]));
    tell(&client, json!(["2", "2", "room:b", "phx_join", { "how": "later" }]));
    tell(&client, json!(["3", "3", "room:c", "phx_join", {}]));
    assert_eq!(spy.notes().joins.len(), 1, "the second has not been looked at");
    for (join_ref, topic) in [("1", "room:a"), ("2", "room:b")] {
        let answer = spy.notes().joins.pop().expect("it is this one's turn");
        answer.ok(json!({})).expect("there is room");
        let messages = heard(&client);
        assert_eq!(messages[0], reply(join_ref, join_ref, topic, "ok", json!({})));
        assert_eq!(messages.len(), if topic == "room:a" { 1 } else { 2 });
    }
}

/// An outlet without room.
struct Crowded {
    sent: Vec<String>,
    room: usize,
    /// Workers that refuse a publication.
    deaf: u32,
    closed: Option<CloseCode>,
    scratch: Scratch,
}

impl Crowded {
    fn new(room: usize, deaf: u32) -> Crowded {
        Crowded { sent: Vec::new(), room, deaf, closed: None, scratch: Scratch::default() }
    }
}

struct Nobody;

impl Post for Nobody {
    fn post(&self, _: u128, _: Letter) -> Result<(), Full> {
        Err(Full)
    }
}

impl Outlet for Crowded {
    fn send(&mut self, _: MessageKind, bytes: &[u8]) -> Sent {
        self.sent.push(String::from_utf8(bytes.to_vec()).expect("text"));
        Sent::Queued
    }

    fn subscribe(&mut self, _: &str, _: Service) -> Result<(), Refused> {
        self.room = self.room.checked_sub(1).ok_or(Refused)?;
        Ok(())
    }

    fn unsubscribe(&mut self, topic: &str) {
        panic!("nothing was subscribed to {topic}");
    }

    fn publish(&mut self, _: &str, _: bool, _: MessageKind, _: &[u8]) -> u32 {
        self.deaf
    }

    fn set_timer(&mut self, _: Duration, _: u32, _: u64) -> Result<TimerKey, Refused> {
        Err(Refused)
    }

    fn cancel_timer(&mut self, _: TimerKey) {}
    fn hold(&mut self) {}
    fn release(&mut self) {}
    fn close(&mut self, code: CloseCode) {
        self.closed = Some(code);
    }

    fn address(&self) -> Address {
        Address::new(Arc::new(Nobody), 0)
    }

    fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

#[derive(Default)]
struct Greedy(RefCell<Vec<bool>>);

impl Channel for Greedy {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        self.0.borrow_mut().push(ctx.subscribe("one").is_ok());
        self.0.borrow_mut().push(ctx.subscribe("two").is_ok());
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, _: &str, _: Payload<'_>) -> Outcome {
        ctx.unsubscribe("two");
        let late = ctx.reply_to().expect("a message came in").ok(json!({}));
        Outcome::ok(json!([&*self.0.borrow(), late == Err(ReplyError::Full)]))
    }
}

#[test]
fn a_server_without_room_refuses_and_says_so() {
    let mount = Arc::new(UserSocket::new().channel("*", Greedy::default));
    let mut socket = Socket::new(mount, 1, Assigns::new(), None);
    let mut outlet = Crowded::new(2, 0);
    socket.open(&mut outlet);
    for message in [r#"["1","1","a","phx_join",{}]"#, r#"["2","2","b","phx_join",{}]"#, r#"["1","3","a","x",{}]"#] {
        socket.message(&mut outlet, MessageKind::Text, message.as_bytes());
    }
    let expected = [
        r#"["1","1","a","phx_reply",{"status":"ok","response":{}}]"#,
        r#"["2","2","b","phx_reply",{"status":"error","response":{"reason":"no room for another subscription"}}]"#,
        r#"["1","3","a","phx_reply",{"status":"ok","response":[[true,false],true]}]"#,
    ];
    assert_eq!(outlet.sent, expected);
    assert_eq!(socket.channels(), 1);
}
