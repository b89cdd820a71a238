//! How channels end (docs/phoenix-wire.md §3.2, §4.5): the order of farewells, the reasons, what is left
//! behind; timers.
#![forbid(unsafe_code)]

use crate::{Probe, Spy, bye, close, crash, exchange, heard, joined, mount, reply, tell};
use serde_json::{Value, json};
use std::time::Duration;
use wingbeat::channels::testing::Kit;
use wingbeat::channels::{Reason, UserSocket};

fn timer(token: u64) -> Value {
    json!(["1", null, "room:a", "timer", { "token": token }])
}

#[test]
fn the_reasons() {
    let (kit, spy, client) = joined();
    client.join("room:b", json!({})).expect("joined");
    client.leave("room:a");
    client.join("room:b", json!({})).expect("joined");
    client.push("room:b", "panic", json!({}));
    client.join("room:c", json!({})).expect("joined");
    client.disconnect();
    let expected = ["room:a ends: left", "room:b ends: duplicate join", "room:b ends: crashed", "room:c ends: closed"];
    assert_eq!(spy.log(), expected);
    drop(kit);
    assert!(spy.log().is_empty(), "once each");
}

#[test]
fn reasons_that_are_graceful() {
    for (reason, graceful) in [
        (Reason::Normal, true),
        (Reason::Shutdown, true),
        (Reason::Left, true),
        (Reason::DuplicateJoin, true),
        (Reason::Closed, true),
        (Reason::Disconnected, true),
        (Reason::Inactive, true),
        (Reason::Draining, true),
        (Reason::Crashed, false),
        (Reason::Other("normal".into()), false),
    ] {
        assert_eq!(reason.is_graceful(), graceful, "{reason}");
    }
}

#[test]
fn a_panic_in_terminate_changes_nothing_for_the_client() {
    for (event, expected) in [
        ("phx_leave", vec![reply("1", "3", "room:a", "ok", json!({})), close("1", "room:a")]),
        ("stop", vec![close("1", "room:a")]),
        ("panic", vec![crash("1", "room:a")]),
    ] {
        let (_kit, _, client) = joined();
        tell(&client, json!(["1", "2", "room:a", "then", { "then": "panic in terminate" }]));
        assert_eq!(exchange(&client, json!(["1", "3", "room:a", event, {}])), expected, "{event}");
        assert!(client.subscriptions().is_empty());
        assert_eq!(client.join("room:a", json!({})), Ok(json!({})));
    }
}

#[test]
fn a_connection_that_is_lost_ends_channels_that_still_publish() {
    let (kit, spy, client) = joined();
    let other = kit.connect();
    other.join("room:a", json!({})).expect("joined");
    client.join("room:b", json!({})).expect("joined");
    client.push("room:b", "then", json!({ "then": "panic in terminate" }));
    client.push("room:a", "then", json!({ "then": "busy terminate" }));
    client.disconnect();
    assert_eq!(heard(&other), [json!([null, null, "room:a", "went", {}])]);
    assert_eq!(spy.log().len(), 2);
}

#[test]
fn nothing_is_left_of_a_channel() {
    for event in ["phx_leave", "stop", "panic", "nobody knows this"] {
        let (kit, spy, client) = joined();
        client.push("room:a", "subscribe", json!({ "topic": "news" }));
        client.push("room:a", "timer", json!({ "after": 3_600_000, "token": 1 }));
        client.push("room:a", "then", json!({ "then": "busy terminate" }));
        assert_eq!((client.timers(), client.subscriptions().len()), (1, 2));
        client.push("room:a", event, json!({}));
        assert_eq!((client.timers(), client.subscriptions().len()), (0, 0), "{event}");
        spy.log();
        kit.broadcast("news", "flash", json!({}));
        assert!(spy.log().is_empty());
    }
}

#[test]
fn timers_fire_in_order_with_their_tokens() {
    let (kit, _, client) = joined();
    for (after, token) in [(30, 7), (10, 8), (20, 9), (20, 9), (10, 10)] {
        client.push("room:a", "timer", json!({ "after": after, "token": token }));
    }
    client.push("room:a", "cancel", json!({ "token": 10 }));
    client.push("room:a", "cancel", json!({ "token": 9 }));
    assert_eq!(client.timers(), 3);
    kit.advance(Duration::from_millis(9));
    assert!(heard(&client).is_empty());
    kit.advance(Duration::from_millis(1));
    assert_eq!(heard(&client), [timer(8)]);
    client.push("room:a", "cancel", json!({ "token": 8 })); // it is over: nothing happens
    kit.advance(Duration::from_secs(1));
    assert_eq!(heard(&client), [timer(9), timer(7)]);
    assert_eq!(client.timers(), 0);
}

#[test]
fn a_socket_has_a_limit_of_timers_which_fired_and_cancelled_ones_give_back() {
    let kit = Kit::new(mount(&Spy::default()).timers_max(2));
    let client = kit.connect();
    client.join("room:a", json!({})).expect("joined");
    let set = |reference: &str, token: u64| {
        let order = json!({ "after": 10 * token, "token": token });
        exchange(&client, json!(["1", reference, "room:a", "timer", order]))
    };
    assert!(set("2", 1).is_empty() && set("3", 2).is_empty());
    assert_eq!(set("4", 3), [reply("1", "4", "room:a", "error", json!({}))]);
    assert_eq!(client.timers(), 2, "nothing is kept of the one that was not set");
    kit.advance(Duration::from_millis(10));
    assert_eq!(heard(&client), [timer(1)]);
    assert!(set("5", 3).is_empty(), "one has fired");
    client.push("room:a", "cancel", json!({ "token": 2 }));
    assert!(set("6", 4).is_empty(), "one was cancelled");
    assert_eq!(set("7", 5).len(), 1);
    kit.advance(Duration::from_millis(100));
    assert_eq!(heard(&client), [timer(3), timer(4)]);
}

#[test]
fn a_timer_is_not_for_the_next_channel_of_the_topic() {
    let (kit, _, client) = joined();
    client.push("room:a", "timer", json!({ "after": 10, "token": 1 }));
    client.join("room:a", json!({})).expect("joined");
    heard(&client);
    kit.advance(Duration::from_secs(1));
    assert!(heard(&client).is_empty());
}

#[test]
fn a_channel_cancels_only_its_own_timers() {
    let spy = Spy::default();
    let probe = spy.clone();
    let kit = Kit::new(UserSocket::new().channel("*", move || Probe::new(&probe)));
    let client = kit.connect();
    for topic in ["a", "b"] {
        client.join(topic, json!({})).expect("joined");
        client.push(topic, "timer", json!({ "after": 10, "token": 1 }));
    }
    client.leave("a");
    heard(&client);
    kit.advance(Duration::from_secs(1));
    assert_eq!(heard(&client), [json!(["3", null, "b", "timer", { "token": 1 }])]);
}

#[test]
fn a_leave_then_what_terminate_pushes() {
    let (_kit, _, client) = joined();
    let expected = [reply("1", "2", "room:a", "ok", json!({})), close("1", "room:a"), bye("1", "room:a")];
    assert_eq!(exchange(&client, json!(["1", "2", "room:a", "phx_leave", {}])), expected);
}
