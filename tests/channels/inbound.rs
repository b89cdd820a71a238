//! What a client pushes (docs/phoenix-wire.md §4.3): every outcome, replies now and later.
#![forbid(unsafe_code)]

use crate::{BYTES, bye, close, crash, exchange, heard, joined, kit, reply, tell, unmatched};
use serde_json::json;

#[test]
fn every_outcome() {
    let ok = |status, response| vec![reply("1", "2", "room:a", status, response)];
    let closed = || vec![close("1", "room:a"), bye("1", "room:a")];
    let crashed = || vec![bye("1", "room:a"), crash("1", "room:a")];
    let last = |mut end: Vec<_>| {
        end.insert(0, reply("1", "2", "room:a", "ok", json!({ "last": true })));
        end
    };
    for (event, payload, expected, reason) in [
        ("quiet", json!({}), vec![], None),
        ("echo", json!({ "a": 1 }), ok("ok", json!({ "a": 1 })), None),
        ("echo", json!(null), ok("ok", json!(null)), None),
        ("echo", json!("text"), ok("ok", json!("text")), None),
        ("error", json!({}), ok("error", json!({ "why": {} })), None),
        ("weird", json!({}), ok("weird_status", json!([1, "two", null])), None),
        ("bytes", json!({}), ok("ok", json!([1, 2, 255])), None),
        ("stop", json!({}), closed(), Some("normal")),
        ("stop", json!({ "reason": "shutdown" }), closed(), Some("shutdown")),
        ("stop", json!({ "reason": "strange" }), crashed(), Some("strange")),
        ("stop reply", json!({}), last(closed()), Some("normal")),
        ("stop reply", json!({ "reason": "strange" }), last(crashed()), Some("strange")),
        ("panic", json!({}), crashed(), Some("crashed")),
        ("nobody knows this", json!({}), crashed(), Some("crashed")),
        ("phx_reply", json!({}), crashed(), Some("crashed")),
        ("phx_close", json!({}), crashed(), Some("crashed")),
        ("heartbeat", json!({}), crashed(), Some("crashed")),
        ("unserializable", json!({}), crashed(), Some("the payload cannot be serialized")),
        ("push", json!([1]), crashed(), Some("crashed")),
        ("push", json!(null), crashed(), Some("crashed")),
        ("broadcast", json!("text"), crashed(), Some("crashed")),
        ("push unserializable", json!({}), crashed(), Some("crashed")),
    ] {
        let (kit, spy, client) = joined();
        let other = kit.connect();
        other.join("room:a", json!({})).expect("joined");
        client.join("room:b", json!({})).expect("joined");
        let messages = exchange(&client, json!(["1", "2", "room:a", event, payload]));
        assert_eq!(messages, expected, "{event} {payload}");
        assert_eq!(spy.log(), reason.map(|it| format!("room:a ends: {it}")).into_iter().collect::<Vec<_>>());
        assert!(heard(&other).is_empty(), "it is nobody else's");
        // The connection and its other channel go on; the ended one is unknown, and may be joined again.
        assert_eq!(client.closed(), None);
        tell(&client, json!([null, "3", "room:b", "echo", {}]));
        client.assert_reply("3", "ok", json!({}));
        if reason.is_some() {
            assert_eq!(client.subscriptions(), ["room:b"]);
            assert_eq!(exchange(&client, json!(["1", "4", "room:a", "echo", {}])), [unmatched("4", "room:a")]);
            assert_eq!(client.join("room:a", json!({})), Ok(json!({})));
        }
    }
}

#[test]
fn bytes_come_in_and_go_out() {
    let (_kit, _, client) = joined();
    let reference = client.push("room:a", "echo", BYTES);
    client.assert_reply(&reference, "ok", BYTES);
    client.push("room:a", "push", BYTES);
    client.assert_push("room:a", "pushed", BYTES);
    client.push("room:a", "broadcast", BYTES);
    client.assert_broadcast("room:a", "said", BYTES);
    let reference = client.push("room:a", "echo", wingbeat::channels::Payload::Binary(&[]));
    client.assert_reply(&reference, "ok", wingbeat::channels::Payload::Binary(&[]));
    assert!(heard(&client).is_empty());
}

#[test]
fn a_binary_message_with_an_empty_join_ref_is_for_nobody() {
    let (_kit, _, client) = joined();
    client.send_raw(&json!(""), &json!("2"), "room:a", "echo", BYTES);
    assert!(heard(&client).is_empty());
}

#[test]
fn bytes_to_a_format_that_has_none_crash_who_sends_them() {
    let (kit, spy) = kit();
    for event in ["bytes", "push bytes"] {
        let client = kit.connect_with("1.0.0");
        client.join("room:a", json!({})).expect("joined");
        client.push("room:a", event, json!({}));
        let error = json!([null, null, "room:a", "phx_error", { "reason": "channel_crash" }]);
        assert_eq!(heard(&client).last(), Some(&error), "{event}");
        assert_eq!(spy.log(), ["room:a ends: crashed"], "{event}");
    }
}

#[test]
fn a_slot_that_a_binary_message_has_no_room_for_crashes_who_sends_it() {
    let (_kit, _, client) = joined();
    let topic = format!("room:{}", "x".repeat(300));
    client.join(&topic, json!({})).expect("as text it has room");
    client.push(&topic, "push bytes", json!({}));
    assert_eq!(heard(&client).pop(), Some(crash("2", &topic)));
    assert_eq!(client.subscriptions(), ["room:a"]);
}

#[test]
fn replies_later_in_any_order_and_more_than_one() {
    let (_kit, spy, client) = joined();
    for reference in ["2", "3"] {
        assert!(exchange(&client, json!(["1", reference, "room:a", "later", {}])).is_empty());
    }
    let replies = std::mem::take(&mut spy.notes().replies);
    replies[1].reply("error", json!([1])).expect("there is room");
    replies[0].ok(BYTES).expect("there is room");
    replies[0].ok(json!("again")).expect("there is room");
    let expected = [
        reply("1", "3", "room:a", "error", json!([1])),
        reply("1", "2", "room:a", "ok", json!([1, 2, 255])),
        reply("1", "2", "room:a", "ok", json!("again")),
    ];
    assert_eq!(heard(&client), expected);
}

#[test]
fn a_reply_outlives_its_channel() {
    let (_kit, spy, client) = joined();
    tell(&client, json!(["1", "2", "room:a", "later", {}]));
    tell(&client, json!(["1", "3", "room:a", "phx_leave", {}]));
    tell(&client, json!(["4", "4", "room:a", "phx_join", {}]));
    heard(&client);
    spy.notes().replies[0].ok(json!({})).expect("there is room");
    assert_eq!(heard(&client), [reply("1", "2", "room:a", "ok", json!({}))], "with the refs of its time");
    // From within another callback it needs no mail.
    assert_eq!(exchange(&client, json!(["4", "5", "room:a", "answer all", {}])).len(), 1);
    // A client that is gone hears nothing.
    tell(&client, json!(["4", "6", "room:a", "later", {}]));
    let late = spy.notes().replies.pop().expect("a message came in");
    client.disconnect();
    late.ok(json!({})).expect("it is dropped at the other end");
}

#[test]
fn a_message_without_ref_is_answered_without() {
    let (_kit, _, client) = joined();
    assert_eq!(
        exchange(&client, json!(["1", null, "room:a", "echo", {}])),
        [reply("1", json!(null), "room:a", "ok", json!({}))]
    );
}
