//! The decision table, row by row (docs/phoenix-wire.md §3), in both versions.
#![forbid(unsafe_code)]

use crate::{bye, close, exchange, heard, joined, kit, reply, tell, unmatched};
use serde_json::{Value, json};
use wingbeat::channels::UserSocket;
use wingbeat::channels::testing::Kit;
use wingbeat::proto::{CloseCode, MessageKind};

const NULL: Value = Value::Null;

#[test]
fn row_1_a_heartbeat_is_answered_whatever_comes_with_it() {
    let (_kit, _, client) = joined();
    for (join_ref, reference, payload) in [
        (json!(null), json!("9"), json!({})),
        (json!("1"), json!("9"), json!({ "a": 1 })),
        (json!("stale"), json!(9), json!(null)),
        (json!(null), json!(null), json!([])),
    ] {
        let answer = reply(NULL, reference.clone(), "phoenix", "ok", json!({}));
        assert_eq!(exchange(&client, json!([join_ref, reference, "phoenix", "heartbeat", payload])), [answer]);
    }
}

#[test]
fn row_2_a_join_is_answered_with_both_refs_and_beyond_the_limit_refused() {
    let (_kit, spy) = kit();
    let kit = Kit::new(crate::mount(&spy).channels_max(2));
    let client = kit.connect();
    for (join_ref, topic) in [(json!("1"), "room:a"), (json!(2), "room:b")] {
        let answer = reply(join_ref.clone(), join_ref.clone(), topic, "ok", json!({}));
        assert_eq!(exchange(&client, json!([join_ref, join_ref, topic, "phx_join", {}])), [answer]);
    }
    let full = reply("3", "4", "room:c", "error", json!({ "reason": "too many channels joined" }));
    assert_eq!(exchange(&client, json!(["3", "4", "room:c", "phx_join", {}])), [full]);
    // No route comes before the limit, and a second join takes the place of the first.
    assert_eq!(exchange(&client, json!(["3", "5", "nowhere", "phx_join", {}])), [unmatched("5", "nowhere")]);
    let again = exchange(&client, json!(["6", "6", "room:a", "phx_join", {}]));
    assert_eq!(again, [bye("1", "room:a"), reply("6", "6", "room:a", "ok", json!({})), close("1", "room:a")]);
    // A place that is left is free again.
    tell(&client, json!([null, "7", "room:b", "phx_leave", {}]));
    heard(&client);
    assert_eq!(client.join("room:c", json!({})), Ok(json!({})));
}

#[test]
fn row_2_the_default_limit_is_100() {
    let (kit, _) = kit();
    let client = kit.connect();
    for n in 0..100 {
        client.join(&format!("room:{n}"), json!({})).expect("there is room");
    }
    assert_eq!(client.join("room:100", json!({})), Err(json!({ "reason": "too many channels joined" })));
    assert_eq!(client.subscriptions().len(), 100);
}

#[test]
fn row_3_a_join_without_a_route_is_unmatched_and_has_no_join_ref() {
    let (kit, _) = kit();
    let client = kit.connect();
    for topic in ["nowhere", "roo", "room", "exact:", "phoenix", ""] {
        assert_eq!(exchange(&client, json!(["1", "1", topic, "phx_join", {}])), [unmatched("1", topic)]);
    }
    assert!(client.subscriptions().is_empty());
}

#[test]
fn row_4_a_second_join_is_answered_before_the_first_is_closed() {
    let (_kit, spy, client) = joined();
    let messages = exchange(&client, json!(["5", "5", "room:a", "phx_join", { "how": "reply", "then": "push" }]));
    let expected = [
        bye("1", "room:a"),
        reply("5", "5", "room:a", "ok", json!({ "topic": "room:a" })),
        close("1", "room:a"),
        json!(["5", null, "room:a", "welcome", {}]),
        json!([null, null, "room:a", "came", {}]),
    ];
    assert_eq!(messages, expected);
    assert_eq!(spy.log(), ["room:a ends: duplicate join"]);
    // What was for the first is for nobody.
    assert!(exchange(&client, json!(["1", "6", "room:a", "echo", {}])).is_empty());
    assert_eq!(
        exchange(&client, json!(["5", "7", "room:a", "echo", {}])),
        [reply("5", "7", "room:a", "ok", json!({}))]
    );
}

#[test]
fn row_4_a_second_join_that_fails_has_closed_the_first_too() {
    for (how, response) in [
        ("refuse", json!({ "reason": "members only" })),
        ("panic", json!({ "reason": "join crashed" })),
        ("later, forgotten", json!({ "reason": "join crashed" })),
    ] {
        let (_kit, _, client) = joined();
        let messages = exchange(&client, json!(["5", "5", "room:a", "phx_join", { "how": how }]));
        let refusal = reply("5", "5", "room:a", "error", response);
        assert_eq!(messages, [bye("1", "room:a"), refusal, close("1", "room:a")], "{how}");
        assert!(client.subscriptions().is_empty());
        assert_eq!(exchange(&client, json!(["1", "6", "room:a", "echo", {}])), [unmatched("6", "room:a")]);
    }
}

#[test]
fn row_5_a_leave_with_a_null_or_equal_join_ref_is_heard_and_a_stale_one_dropped() {
    for join_ref in [json!("0"), json!(1), json!("01"), json!(""), json!(false), json!(["1"])] {
        let (_kit, _, client) = joined();
        assert!(exchange(&client, json!([join_ref, "2", "room:a", "phx_leave", {}])).is_empty(), "{join_ref}");
        assert_eq!(client.subscriptions(), ["room:a"]);
    }
    for join_ref in [json!(null), json!("1")] {
        let (_kit, spy, client) = joined();
        let messages = exchange(&client, json!([join_ref, "2", "room:a", "phx_leave", { "ignored": 1 }]));
        let left = [reply("1", "2", "room:a", "ok", json!({})), close("1", "room:a"), bye("1", "room:a")];
        assert_eq!(messages, left);
        assert_eq!(spy.log(), ["room:a ends: left"]);
        assert!(client.subscriptions().is_empty());
    }
}

#[test]
fn row_6_a_message_with_a_null_or_equal_join_ref_is_heard_and_a_stale_one_dropped() {
    let (_kit, _, client) = joined();
    for join_ref in [json!("0"), json!(1), json!(1.0), json!(""), json!({}), json!(true)] {
        assert!(exchange(&client, json!([join_ref, "2", "room:a", "echo", {}])).is_empty(), "{join_ref}");
    }
    for join_ref in [json!(null), json!("1")] {
        let messages = exchange(&client, json!([join_ref, "2", "room:a", "echo", { "a": [1] }]));
        assert_eq!(messages, [reply("1", "2", "room:a", "ok", json!({ "a": [1] }))]);
    }
}

#[test]
fn row_6_refs_come_back_as_they_were_and_equal_means_the_same_type() {
    let (kit, _) = kit();
    let client = kit.connect();
    assert_eq!(exchange(&client, json!([7, 8, "room:a", "phx_join", {}])), [reply(7, 8, "room:a", "ok", json!({}))]);
    assert!(exchange(&client, json!(["7", 9, "room:a", "echo", {}])).is_empty());
    assert_eq!(exchange(&client, json!([7, 9, "room:a", "echo", 5])), [reply(7, 9, "room:a", "ok", json!(5))]);
    assert_eq!(exchange(&client, json!([7, null, "room:a", "echo", {}])), [reply(7, NULL, "room:a", "ok", json!({}))]);
    assert_eq!(exchange(&client, json!([7, 9, "room:a", "push", {}])), [json!([7, null, "room:a", "pushed", {}])]);
}

#[test]
fn row_7_leaving_what_is_not_joined_is_ok_without_a_close() {
    let (kit, _) = kit();
    let client = kit.connect();
    for (join_ref, topic) in [(json!("3"), "room:a"), (json!(null), "nowhere"), (json!(4), "phoenix")] {
        let answer = reply(join_ref.clone(), "9", topic, "ok", json!({}));
        assert_eq!(exchange(&client, json!([join_ref, "9", topic, "phx_leave", {}])), [answer]);
    }
}

#[test]
fn row_8_everything_else_is_unmatched() {
    let (kit, _) = kit();
    let client = kit.connect();
    for (topic, event) in [
        (json!("room:a"), json!("echo")),
        (json!("phoenix"), json!("hello")),
        (json!("phoenix"), json!("phx_join")),
        (json!("room:a"), json!("phx_reply")),
        (json!("room:a"), json!("phx_close")),
        (json!(5), json!("phx_join")),
        (json!(null), json!("phx_leave")),
        (json!({ "a": 1 }), json!("heartbeat")),
        (json!("room:a"), json!(null)),
        (json!("phoenix"), json!(["heartbeat"])),
    ] {
        tell(&client, json!(["1", "2", topic, event, {}]));
        // A topic that is no text is echoed as it is; the kit would show it as its JSON.
        let message = match topic.as_str() {
            Some(topic) => unmatched("2", topic),
            None => unmatched("2", &topic.to_string()),
        };
        assert_eq!(heard(&client), [message], "{topic} {event}");
    }
}

#[test]
fn events_that_are_no_text_do_not_reach_a_joined_channel() {
    let (_kit, _, client) = joined();
    assert_eq!(exchange(&client, json!(["1", "2", "room:a", 5, {}])), [unmatched("2", "room:a")]);
    assert_eq!(client.subscriptions(), ["room:a"]);
}

#[test]
fn a_join_without_join_ref_goes_by_its_ref_where_phoenix_does() {
    let (kit, spy) = kit();
    let client = kit.connect();
    let messages = exchange(&client, json!([null, "4", "room:a", "phx_join", { "then": "push" }]));
    let welcome = json!(["4", null, "room:a", "welcome", {}]);
    let came = json!([null, null, "room:a", "came", {}]);
    assert_eq!(messages, [reply(NULL, "4", "room:a", "ok", json!({})), welcome, came]);
    assert!(exchange(&client, json!(["4", "5", "room:a", "echo", {}])).is_empty(), "the stored join_ref is null");
    assert_eq!(exchange(&client, json!([null, "6", "room:a", "echo", 1])), [reply("4", "6", "room:a", "ok", json!(1))]);
    let messages = exchange(&client, json!([null, "7", "room:a", "phx_leave", {}]));
    assert_eq!(messages, [reply("4", "7", "room:a", "ok", json!({})), close(NULL, "room:a"), bye("4", "room:a")]);
    assert_eq!(spy.log(), ["room:a ends: left"]);
}

#[test]
fn what_cannot_be_decoded_closes_with_1011_and_ends_the_channels() {
    let bad: [(MessageKind, &[u8]); 9] = [
        (MessageKind::Text, b""),
        (MessageKind::Text, b"hello"),
        (MessageKind::Text, br#"{"topic":"a"}"#),
        (MessageKind::Text, br#"["1","1","room:a","echo"]"#),
        (MessageKind::Text, br#"["1","1","room:a","echo",{}"#),
        (MessageKind::Text, b"[\"1\",\"1\",\"room:\xff\",\"echo\",{}]"),
        (MessageKind::Binary, b""),
        (MessageKind::Binary, &[0, 9, 9, 9, 9, b'1']),
        (MessageKind::Binary, &[3, 0, 0, 0, 0]),
    ];
    for (kind, bytes) in bad {
        let (_kit, spy, client) = joined();
        client.send(kind, bytes);
        assert_eq!(client.closed(), Some(CloseCode::INTERNAL), "{bytes:?}");
        assert_eq!(spy.log(), ["room:a ends: closed"]);
        // What comes after the close is for nobody.
        assert!(exchange(&client, json!([null, "9", "phoenix", "heartbeat", {}])).is_empty());
        assert!(exchange(&client, json!(["9", "9", "room:b", "phx_join", {}])).is_empty());
    }
}

#[test]
fn extra_elements_are_ignored() {
    let (_kit, _, client) = joined();
    let messages = exchange(&client, json!(["1", "2", "room:a", "echo", {}, "more", [1]]));
    assert_eq!(messages, [reply("1", "2", "room:a", "ok", json!({}))]);
}

#[test]
fn v1_has_the_same_rows_and_never_a_join_ref() {
    let (_, spy) = kit();
    let kit = Kit::new(crate::mount(&spy).channels_max(1));
    let client = kit.connect_with("1.0.0");
    let v1 = |topic: &str, event: &str, reference: &str| {
        exchange(&client, json!({ "topic": topic, "event": event, "payload": {}, "ref": reference }))
    };
    assert_eq!(v1("phoenix", "heartbeat", "1"), [reply(NULL, "1", "phoenix", "ok", json!({}))]);
    assert_eq!(v1("room:a", "phx_join", "2"), [reply(NULL, "2", "room:a", "ok", json!({}))]);
    let full = reply(NULL, "3", "room:b", "error", json!({ "reason": "too many channels joined" }));
    assert_eq!(v1("room:b", "phx_join", "3"), [full]);
    assert_eq!(v1("nowhere", "phx_join", "4"), [unmatched("4", "nowhere")]);
    assert_eq!(v1("room:a", "echo", "5"), [reply(NULL, "5", "room:a", "ok", json!({}))]);
    assert_eq!(v1("room:a", "push", "6"), [json!([null, null, "room:a", "pushed", {}])]);
    assert_eq!(v1("room:a", "broadcast", "7"), [json!([null, null, "room:a", "said", {}])]);
    // Again: the reply, then the phx_close that a client of this version takes for the new channel's.
    let again = [bye(NULL, "room:a"), reply(NULL, "8", "room:a", "ok", json!({})), close(NULL, "room:a")];
    assert_eq!(v1("room:a", "phx_join", "8"), again);
    let left = [reply(NULL, "9", "room:a", "ok", json!({})), close(NULL, "room:a"), bye(NULL, "room:a")];
    assert_eq!(v1("room:a", "phx_leave", "9"), left);
    assert_eq!(v1("room:a", "phx_leave", "10"), [reply(NULL, "10", "room:a", "ok", json!({}))]);
    assert_eq!(v1("room:a", "echo", "11"), [unmatched("11", "room:a")]);
}

#[test]
fn v1_honours_a_join_ref_that_comes() {
    let (kit, _) = kit();
    let client = kit.connect_with("1.0.0");
    let v1 = |join_ref: Value, event: &str| {
        let message = json!({ "topic": "room:a", "event": event, "payload": {}, "ref": "9", "join_ref": join_ref });
        exchange(&client, message)
    };
    assert_eq!(v1(json!("3"), "phx_join").len(), 1);
    assert!(v1(json!("2"), "echo").is_empty());
    assert_eq!(v1(json!("3"), "echo").len(), 1);
    assert_eq!(v1(NULL, "echo").len(), 1);
    // The ref of a close is the stored join_ref.
    let left = [reply(NULL, "9", "room:a", "ok", json!({})), json!([null, "3", "room:a", "phx_close", {}])];
    assert_eq!(v1(json!("3"), "phx_leave")[..2], left);
}

#[test]
fn v1_closes_with_1011_over_a_missing_slot_or_binary() {
    let (kit, _) = kit();
    for (kind, bytes) in [
        (MessageKind::Text, &br#"{"topic":"room:a","event":"echo","payload":{}}"#[..]),
        (MessageKind::Text, br#"["1","1","room:a","echo",{}]"#),
        (MessageKind::Binary, &[0, 0, 0, 0, 0]),
    ] {
        let client = kit.connect_with("1.0.0");
        client.send(kind, bytes);
        assert_eq!(client.closed(), Some(CloseCode::INTERNAL));
    }
}

#[test]
fn v1_and_v2_clients_of_one_topic_get_the_same_broadcast() {
    let (kit, _) = kit();
    let (old, new) = (kit.connect_with("1.0.0"), kit.connect());
    old.join("room:a", json!({})).expect("joined");
    new.join("room:a", json!({})).expect("joined");
    old.push("room:a", "broadcast", json!({ "n": 1 }));
    assert_eq!(heard(&old), [json!([null, null, "room:a", "said", { "n": 1 }])]);
    assert_eq!(heard(&new), [json!([null, null, "room:a", "said", { "n": 1 }])]);
    // Bytes have no form in V1: that client misses them, the others do not.
    new.push("room:a", "broadcast bytes", json!({}));
    assert!(heard(&old).is_empty());
    assert_eq!(heard(&new), [json!([null, null, "room:a", "said", [1, 2, 255]])]);
    assert_eq!(old.subscriptions(), ["room:a"]);
}

#[test]
fn the_first_pattern_that_matches_counts() {
    let spy = crate::Spy::default();
    let [exact, narrow, wide] = [spy.clone(), spy.clone(), spy.clone()];
    let mount = UserSocket::new()
        .channel("room:lobby", move || crate::Probe::new(&exact))
        .channel("room:*", move || crate::Censor(crate::Probe::new(&narrow)))
        .channel("*", move || crate::Probe::new(&wide));
    let kit = Kit::new(mount);
    let client = kit.connect();
    for topic in ["room:lobby", "room:", "room:lobby:x", "anything", "", "phoenix"] {
        client.join(topic, json!({})).expect("a star stands for any rest");
        client.push(topic, "spied", json!({}));
        let censored = topic.starts_with("room:") && topic != "room:lobby";
        assert_eq!(heard(&client).is_empty(), censored, "{topic:?}");
    }
}
