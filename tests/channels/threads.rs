//! Other threads: late replies, late joins, messages to a channel.
#![forbid(unsafe_code)]

use crate::{close, heard, joined, kit, tell};
use serde_json::json;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use std::{sync::mpsc, thread};
use wingbeat::channels::testing::Client;

#[test]
fn another_thread_answers() {
    let (_kit, spy, client) = joined();
    let reference = client.push("room:a", "later", json!({}));
    let late = spy.notes().replies.pop().expect("a message came in");
    let thread = thread::spawn(move || late.ok(json!({ "from": "afar" })));
    client.assert_reply(&reference, "ok", json!({ "from": "afar" }));
    thread.join().expect("no panic").expect("there was room");
}

#[test]
fn another_thread_lets_a_client_join() {
    let (kit, spy) = kit();
    let client = kit.connect();
    let (sender, joins) = mpsc::channel::<wingbeat::channels::JoinRef>();
    let thread = thread::spawn(move || joins.recv().expect("one join").ok(json!({ "seat": 3 })));
    tell(&client, json!(["1", "1", "room:a", "phx_join", { "how": "later" }]));
    sender.send(spy.notes().joins.pop().expect("somebody may answer")).expect("the thread waits");
    client.assert_reply("1", "ok", json!({ "seat": 3 }));
    thread.join().expect("no panic").expect("there was room");
}

#[test]
fn threads_send_messages_to_a_channel() {
    let (_kit, spy, client) = joined();
    client.push("room:a", "handle", json!({}));
    let handle = spy.notes().handles.pop().expect("it was given");
    let threads = [(); 4].map(|()| {
        let handle = handle.clone();
        thread::spawn(move || (0..50).for_each(|_| handle.send("hello").expect("there is room")))
    });
    for _ in 0..200 {
        client.assert_push("room:a", "message", json!({ "text": "hello" }));
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert!(heard(&client).is_empty());
    // A reply to nobody is nothing; the end is the end.
    handle.send("reply").expect("there is room");
    assert!(heard(&client).is_empty());
    handle.send("stop").expect("there is room");
    handle.send("hello").expect("there is room");
    assert_eq!(heard(&client)[0], close("1", "room:a"));
    client.join("room:a", json!({})).expect("joined");
    handle.send("hello").expect("there is room");
    assert!(heard(&client).is_empty(), "it is for the channel that gave the handle");
}

#[test]
fn a_handle_of_a_join_works_once_it_has_joined() {
    let (kit, spy) = kit();
    let client = kit.connect();
    tell(&client, json!(["1", "1", "room:a", "phx_join", { "how": "later" }]));
    let handle = spy.notes().handles.pop().expect("it was given");
    handle.send("too early").expect("there is room");
    assert!(heard(&client).is_empty());
    spy.notes().joins.pop().expect("somebody may answer").ok(json!({})).expect("there is room");
    handle.send("in time").expect("there is room");
    client.assert_reply("1", "ok", json!({}));
    client.assert_push("room:a", "message", json!({ "text": "in time" }));
    client.refute("room:a", "message");
}

#[test]
fn what_nobody_can_send_is_not_waited_for() {
    let (kit, spy, client) = joined();
    // Longer than any test may run: to wait for it is to fail.
    kit.patience(Duration::from_secs(24 * 3600));
    let fails = |client: &Client| catch_unwind(AssertUnwindSafe(|| client.assert_push("room:a", "message", json!({}))));
    assert!(fails(&client).is_err(), "nobody has a handle");
    client.push("room:a", "handle", json!({}));
    let handle = spy.notes().handles.pop().expect("it was given");
    let (let_go, wait) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let _ = wait.recv();
        drop(handle);
    });
    drop(let_go);
    assert!(fails(&client).is_err(), "who had one has let go of it");
    thread.join().expect("no panic");
    client.push("room:a", "handle", json!({}));
    let _kept = spy.notes().handles.pop().expect("it was given");
    kit.patience(Duration::from_millis(1));
    assert!(fails(&client).is_err(), "somebody may send, but does not in time");
}
