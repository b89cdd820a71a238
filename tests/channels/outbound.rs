//! What channels send (docs/phoenix-wire.md §4.4): pushes, broadcasts, the intercepted and the watched, to one
//! user, to none.
#![forbid(unsafe_code)]

use crate::{Probe, Spy, bye, close, crash, exchange, heard, joined, kit, reply, tell};
use serde_json::{Value, json};
use wingbeat::channels::testing::Kit;
use wingbeat::channels::{Assigns, Channel, Ctx, Join, JoinCtx, Json, Outcome, Payload, Presence, UserSocket};
use wingbeat::proto::CloseCode;

fn said(topic: &str, payload: Value) -> Value {
    json!([null, null, topic, "said", payload])
}

#[test]
fn a_push_goes_to_one_a_broadcast_to_all_and_broadcast_from_to_the_others() {
    let (kit, _) = kit();
    let [anna, bert, carl] = [kit.connect(), kit.connect(), kit.connect()];
    for (client, topic) in [(&anna, "room:a"), (&bert, "room:a"), (&carl, "room:b")] {
        client.join(topic, json!({})).expect("joined");
    }
    for (event, hers, his) in [
        ("push", json!(["1", null, "room:a", "pushed", { "n": 1 }]), None),
        ("broadcast", said("room:a", json!({ "n": 1 })), Some(said("room:a", json!({ "n": 1 })))),
        ("broadcast_from", Value::Null, Some(said("room:a", json!({ "n": 1 })))),
    ] {
        anna.push("room:a", event, json!({ "n": 1 }));
        assert_eq!(heard(&anna), Some(hers).filter(|it| !it.is_null()).into_iter().collect::<Vec<_>>(), "{event}");
        assert_eq!(heard(&bert), his.into_iter().collect::<Vec<_>>(), "{event}");
        assert!(heard(&carl).is_empty());
    }
    anna.push("room:a", "broadcast_to", json!({ "topic": "room:b" }));
    anna.push("room:a", "broadcast_to", json!({ "topic": "nobody's" }));
    assert!(heard(&anna).is_empty() && heard(&bert).is_empty());
    assert_eq!(heard(&carl), [said("room:b", json!({ "from": "room:a" }))]);
    kit.broadcast("room:b", "said", json!({}));
    kit.broadcast("nobody's", "said", json!({}));
    assert_eq!(heard(&carl), [said("room:b", json!({}))]);
}

#[test]
fn a_broadcast_is_before_the_reply() {
    let (_kit, _, client) = joined();
    let messages = exchange(&client, json!(["1", "2", "room:a", "broadcast and reply", { "n": 1 }]));
    assert_eq!(messages, [said("room:a", json!({ "n": 1 })), reply("1", "2", "room:a", "ok", json!({}))]);
}

#[test]
fn broadcasts_keep_the_order_of_their_publisher() {
    let (kit, _) = kit();
    let (anna, bert) = (kit.connect(), kit.connect());
    anna.join("room:a", json!({})).expect("joined");
    bert.join("room:a", json!({})).expect("joined");
    bert.join("room:b", json!({})).expect("joined");
    anna.push("room:a", "broadcast", json!({ "n": 1 }));
    anna.push("room:a", "broadcast_to", json!({ "topic": "room:b" }));
    anna.push("room:a", "broadcast_from", json!({ "n": 2 }));
    let expected = [
        said("room:a", json!({ "n": 1 })),
        said("room:b", json!({ "from": "room:a" })),
        said("room:a", json!({ "n": 2 })),
    ];
    assert_eq!(heard(&bert), expected);
}

#[test]
fn an_intercepted_event_goes_through_handle_out() {
    let (kit, spy) = kit();
    let (anna, bert) = (kit.connect(), kit.connect());
    anna.join("censored:a", json!({})).expect("joined");
    bert.join("censored:a", json!({})).expect("joined");
    anna.push("censored:a", "shown", json!({ "n": 1 }));
    for client in [&anna, &bert] {
        assert_eq!(heard(client), [json!(["1", null, "censored:a", "shown", { "n": 1 }])], "with the join_ref");
    }
    anna.push("censored:a", "spied", json!({ "n": 1 }));
    assert!(heard(&anna).is_empty() && heard(&bert).is_empty());
    anna.push("censored:a", "broadcast", json!({ "n": 1 }));
    assert_eq!(heard(&bert), [said("censored:a", json!({ "n": 1 }))]);
    heard(&anna);
    kit.broadcast("censored:a", "shown", json!({ "stop": true }));
    for client in [&anna, &bert] {
        assert_eq!(heard(client), [close("1", "censored:a"), bye("1", "censored:a")]);
        assert!(client.subscriptions().is_empty());
    }
    assert_eq!(spy.log(), ["censored:a ends: normal"; 2]);
}

#[test]
fn a_watched_topic_comes_to_handle_info_until_it_is_not_watched() {
    let (kit, spy, client) = joined();
    client.push("room:a", "subscribe", json!({ "topic": "news" }));
    client.push("room:a", "subscribe", json!({ "topic": "news" }));
    assert_eq!(client.subscriptions(), ["news", "room:a"]);
    kit.broadcast("news", "flash", json!({}));
    kit.broadcast("news", "flash", crate::BYTES);
    assert_eq!(spy.log(), ["room:a heard news flash 2", "room:a heard news flash 3"]);
    assert!(heard(&client).is_empty());
    client.push("room:a", "unsubscribe", json!({ "topic": "news" }));
    client.push("room:a", "unsubscribe", json!({ "topic": "never" }));
    kit.broadcast("news", "flash", json!({}));
    assert!(spy.log().is_empty());
    assert_eq!(client.subscriptions(), ["room:a"]);
}

#[test]
fn a_topic_that_the_same_client_has_joined_can_be_watched() {
    let (kit, spy, client) = joined();
    client.join("room:b", json!({})).expect("joined");
    client.push("room:a", "subscribe", json!({ "topic": "room:b" }));
    kit.broadcast("room:b", "said", json!({}));
    assert_eq!(heard(&client), [said("room:b", json!({}))], "once");
    assert_eq!(spy.log(), ["room:a heard room:b said 2"]);
    // The channel goes, the watcher stays; and the other way around.
    client.leave("room:b");
    heard(&client);
    kit.broadcast("room:b", "said", json!({}));
    assert!(heard(&client).is_empty());
    assert_eq!(spy.log(), ["room:b ends: left", "room:a heard room:b said 2"]);
    client.join("room:b", json!({})).expect("joined");
    kit.broadcast("room:b", "said", json!({}));
    assert_eq!(heard(&client), [said("room:b", json!({}))]);
    assert_eq!(spy.log(), ["room:a heard room:b said 2"]);
    client.leave("room:a");
    heard(&client);
    kit.broadcast("room:b", "said", json!({}));
    assert_eq!(heard(&client), [said("room:b", json!({}))]);
    assert_eq!(spy.log(), ["room:a ends: left"]);
    assert_eq!(client.subscriptions(), ["room:b"]);
}

#[test]
fn broadcast_from_spares_one_channel_not_the_others_of_its_client() {
    let (kit, spy, client) = joined();
    let other = kit.connect();
    other.join("room:b", json!({})).expect("joined");
    for topic in ["room:b", "room:c"] {
        client.join(topic, json!({})).expect("joined");
    }
    for topic in ["room:a", "room:b", "room:c"] {
        client.push(topic, "subscribe", json!({ "topic": "room:b" }));
    }
    client.push("room:b", "broadcast_from", json!({ "a": 1 }));
    assert_eq!(heard(&other), [said("room:b", json!({ "a": 1 }))]);
    assert!(heard(&client).is_empty());
    assert_eq!(spy.log(), ["room:a heard room:b said 7", "room:c heard room:b said 7"], "once each, the sender not");
    other.push("room:b", "broadcast_from", json!({}));
    assert_eq!(heard(&client), [said("room:b", json!({}))]);
    assert_eq!(spy.log(), ["room:a", "room:b", "room:c"].map(|topic| format!("{topic} heard room:b said 2")));
}

#[test]
fn two_channels_of_a_client_watch_one_topic() {
    let (kit, spy, client) = joined();
    client.join("room:b", json!({})).expect("joined");
    for topic in ["room:a", "room:b"] {
        client.push(topic, "subscribe", json!({ "topic": "news" }));
    }
    kit.broadcast("news", "flash", json!({}));
    assert_eq!(spy.log(), ["room:a heard news flash 2", "room:b heard news flash 2"]);
    client.push("room:a", "unsubscribe", json!({ "topic": "news" }));
    kit.broadcast("news", "flash", json!({}));
    assert_eq!(spy.log(), ["room:b heard news flash 2"]);
    client.push("room:b", "panic", json!({}));
    assert_eq!(client.subscriptions(), ["room:a"]);
}

#[test]
fn an_intercepted_topic_that_is_watched_goes_both_ways() {
    let (kit, spy, client) = joined();
    client.join("censored:a", json!({})).expect("joined");
    client.push("room:a", "subscribe", json!({ "topic": "censored:a" }));
    kit.broadcast("censored:a", "spied", json!({}));
    assert!(heard(&client).is_empty());
    kit.broadcast("censored:a", "shown", json!({}));
    assert_eq!(heard(&client), [json!(["2", null, "censored:a", "shown", {}])]);
    assert_eq!(spy.log(), ["room:a heard censored:a spied 2", "room:a heard censored:a shown 2"]);
}

#[test]
fn push_to_reaches_every_socket_of_an_id_that_has_joined() {
    let (kit, _) = kit();
    let anna = [(); 3].map(|()| kit.connect_as(Assigns::new(), Some("users:anna")));
    let bert = kit.connect_as(Assigns::new(), Some("users:bert"));
    for client in anna[..2].iter().chain([&bert]) {
        client.join("room:a", json!({})).expect("joined");
    }
    bert.push("room:a", "push_to", json!({ "id": "users:anna" }));
    bert.push("room:a", "push_to", json!({ "id": "users:nobody" }));
    for client in &anna[..2] {
        assert_eq!(heard(client), [json!(["1", null, "room:a", "direct", { "a": 1 }])]);
    }
    assert!(heard(&anna[2]).is_empty() && heard(&bert).is_empty());
}

#[test]
fn push_to_means_this_topic_whatever_is_in_its_name() {
    let (kit, _) = kit();
    let anna = kit.connect_as(Assigns::new(), Some("users:anna"));
    let topics = ["room:a", "room:\0a", "room:a\0", "room:a\0said", "room:ä"];
    for topic in topics {
        anna.join(topic, json!({})).expect("joined");
    }
    for topic in topics {
        anna.push(topic, "push_to", json!({ "id": "users:anna" }));
        let messages = heard(&anna);
        assert_eq!(messages.len(), 1);
        assert_eq!((&messages[0][2], &messages[0][3]), (&json!(topic), &json!("direct")));
    }
}

/// Tracks on the topic of the event's name, changes it, ends it.
struct Here(Presence);

impl Channel for Here {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        let topic = payload.parse::<Value>().expect("JSON")["topic"].as_str().unwrap_or_default().to_owned();
        let done = match event {
            "track" => ctx.track_on(&topic, &self.0, "me", &json!({ "n": 1 })).is_ok(),
            "more" => {
                let count = |meta: Json<'_>| meta.parse::<Value>().expect("an object")["n"].as_u64();
                ctx.update_with(&self.0, "me", |meta| json!({ "n": count(meta).map(|n| n + 1) })).is_ok()
            }
            _ => ctx.untrack_on(&topic, &self.0, "me"),
        };
        Outcome::ok(json!(done))
    }
}

#[test]
fn a_channel_may_be_present_on_other_topics_until_it_ends() {
    let presence = Presence::new();
    let store = presence.clone();
    let kit = Kit::new(UserSocket::new().channel("*", move || Here(store.clone())));
    let (anna, bert) = (kit.connect(), kit.connect());
    anna.join("room", json!({})).expect("joined");
    bert.join("lobby", json!({})).expect("joined");
    let ask = |event: &str, topic: &str, done: bool| {
        let reference = anna.push("room", event, json!({ "topic": topic }));
        anna.assert_reply(&reference, "ok", json!(done));
    };
    let diff = |sign: &str| {
        let message = bert.next().expect("a diff");
        assert_eq!((&*message.topic, &*message.event), ("lobby", "presence_diff"));
        assert_eq!(message.payload[sign]["me"]["metas"][0]["n"], 1);
    };
    ask("track", "lobby", true);
    diff("joins");
    ask("track", "lobby", false);
    ask("untrack", "elsewhere", false);
    ask("more", "", false); // it is not present on its own topic
    ask("untrack", "lobby", true);
    diff("leaves");
    ask("untrack", "lobby", false);
    for topic in ["lobby", "room", "elsewhere"] {
        ask("track", topic, true);
    }
    diff("joins");
    ask("more", "", true);
    let state: Value = presence.list("room").json().parse().expect("JSON");
    assert_eq!(state["me"]["metas"][0]["n"], 2);
    assert_eq!(presence.topics(), 3);
    anna.leave("room");
    diff("leaves");
    assert_eq!(presence.topics(), 0);
    assert!(bert.next().is_none());
}

#[test]
fn push_to_is_not_heard_by_who_joins_or_watches_the_topic_of_the_id() {
    for v1 in [false, true] {
        let spy = Spy::default();
        let other = spy.clone();
        let kit = Kit::new(UserSocket::new().channel("*", move || Probe::new(&other)));
        let anna = kit.connect_as(Assigns::new(), Some("users:7"));
        let mallory = if v1 { kit.connect_with("1.0.0") } else { kit.connect() };
        anna.join("room:a", json!({})).expect("joined");
        mallory.join("users:7", json!({})).expect("any route may match it");
        mallory.join("room:b", json!({})).expect("joined");
        anna.push("room:a", "push_to", json!({ "id": "users:7" }));
        assert_eq!(heard(&anna), [json!(["1", null, "room:a", "direct", { "a": 1 }])]);
        assert!(heard(&mallory).is_empty());
        // Nor by her channel, when broadcasts come to the socket.
        mallory.push("room:b", "subscribe", json!({ "topic": "users:7" }));
        anna.push("room:a", "push_to", json!({ "id": "users:7" }));
        assert!(heard(&mallory).is_empty() && spy.log().is_empty());
        anna.push("room:a", "broadcast_to", json!({ "topic": "users:7" }));
        assert_eq!((heard(&mallory).len(), spy.log().len()), (1, 1), "a broadcast is heard");
    }
}

#[test]
fn nobody_sends_an_event_of_the_protocol() {
    for order in ["broadcast as", "push as", "push_to as"] {
        for event in ["phx_close", "phx_error", "phx_direct\x006\0room:asaid", "phx_"] {
            let (kit, spy) = kit();
            let (anna, bert) = (kit.connect_as(Assigns::new(), Some("users:anna")), kit.connect());
            anna.join("room:a", json!({})).expect("joined");
            bert.join("room:a", json!({})).expect("joined");
            let order = json!(["1", "2", "room:a", order, { "id": "users:anna", "event": event }]);
            assert_eq!(exchange(&bert, order), [bye("1", "room:a"), crash("1", "room:a")], "{event}");
            assert!(heard(&anna).is_empty());
            assert_eq!(spy.log(), ["room:a ends: crashed"]);
        }
    }
    let (_kit, _, client) = joined();
    let order = json!(["1", "2", "room:a", "broadcast as", { "event": "presence_diff" }]);
    assert_eq!(exchange(&client, order).len(), 1, "those of presence are a convention");
}

#[test]
fn push_to_does_not_crash_who_cannot_be_told() {
    let (kit, spy) = kit();
    let anna = kit.connect_as(Assigns::new(), Some("users:anna"));
    let bert = kit.connect();
    let topic = format!("room:{}", "x".repeat(300)); // longer than a binary message has room for
    anna.join(&topic, json!({})).expect("joined");
    bert.join(&topic, json!({})).expect("joined");
    bert.push(&topic, "push_to bytes", json!({ "id": "users:anna" }));
    assert!(heard(&anna).is_empty() && spy.log().is_empty());
    bert.push(&topic, "push_to", json!({ "id": "users:anna" }));
    anna.assert_push(&topic, "direct", json!({ "a": 1 }));
}

#[test]
fn disconnect_closes_every_socket_of_an_id_with_1001() {
    let (kit, spy) = kit();
    let anna = [(); 2].map(|()| kit.connect_as(Assigns::new(), Some("users:anna")));
    let bert = kit.connect_as(Assigns::new(), Some("users:bert"));
    for client in [&anna[0], &bert] {
        client.join("room:a", json!({})).expect("joined");
    }
    bert.push("room:a", "disconnect", json!({ "id": "users:anna" }));
    for client in &anna {
        assert_eq!(client.closed(), Some(CloseCode::GOING_AWAY));
    }
    assert_eq!(heard(&anna[0]), [bye("1", "room:a")], "no phx_close");
    assert_eq!(spy.log(), ["room:a ends: disconnected"]);
    assert_eq!(bert.closed(), None);
    // From outside, with any payload; and of oneself.
    let carl = kit.connect_as(Assigns::new(), Some("users:carl"));
    kit.broadcast("users:carl", "disconnect", json!({ "ignored": 1 }));
    assert_eq!(carl.closed(), Some(CloseCode::GOING_AWAY));
    bert.push("room:a", "disconnect", json!({ "id": "users:bert" }));
    assert_eq!(bert.closed(), Some(CloseCode::GOING_AWAY));
    assert_eq!(spy.log(), ["room:a ends: disconnected"]);
    assert_eq!(heard(&bert), [bye("1", "room:a")]);
    assert!(exchange(&bert, json!([null, "9", "phoenix", "heartbeat", {}])).is_empty());
}

#[test]
fn an_id_that_is_also_a_joined_topic() {
    let spy = crate::Spy::default();
    let probe = spy.clone();
    let kit = Kit::new(UserSocket::new().channel("*", move || crate::Probe::new(&probe)));
    let anna = kit.connect_as(Assigns::new(), Some("users:anna"));
    anna.join("users:anna", json!({})).expect("joined");
    kit.broadcast("users:anna", "said", json!({}));
    assert_eq!(heard(&anna), [said("users:anna", json!({}))]);
    anna.push("users:anna", "push_to", json!({ "id": "users:anna" }));
    assert_eq!(heard(&anna), [json!(["1", null, "users:anna", "direct", { "a": 1 }])]);
    // Leaving the topic does not make the id deaf.
    anna.leave("users:anna");
    assert_eq!(anna.subscriptions(), ["users:anna"]);
    kit.broadcast("users:anna", "disconnect", json!({}));
    assert_eq!(anna.closed(), Some(CloseCode::GOING_AWAY));
}

#[test]
fn what_a_callback_published_before_it_panicked_stays_published() {
    let (kit, _, client) = joined();
    let other = kit.connect();
    other.join("room:a", json!({})).expect("joined");
    tell(&client, json!(["1", "2", "room:a", "then", { "then": "busy terminate" }]));
    tell(&client, json!(["1", "3", "room:a", "panic", {}]));
    assert_eq!(heard(&other), [json!([null, null, "room:a", "went", {}])]);
}
