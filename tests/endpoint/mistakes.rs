//! Mistakes of the program are told when it starts, not to its clients.
#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, UserSocket};
use wingbeat::endpoint::{Endpoint, LongPollOptions, Mount, WebSocketOptions};

struct Room;

impl Channel for Room {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }
    fn handle_in(&mut self, _: &mut Ctx<'_>, _: &str, _: Payload<'_>) -> Outcome {
        Outcome::Unhandled
    }
}

/// What a panic says.
fn told<T>(run: impl FnOnce() -> T) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
    Some(panic.downcast_ref::<String>().expect("a text").clone())
}

fn mount() -> Mount {
    Mount::new(UserSocket::new()).longpoll(LongPollOptions::default())
}

fn websocket(path: &str) -> WebSocketOptions {
    WebSocketOptions { path: path.into(), ..WebSocketOptions::default() }
}

#[test]
fn sockets_at_paths_that_cannot_be() {
    for (path, mount, mistake) in [
        ("socket", mount(), "a socket's path begins with a slash: \"socket\""),
        ("", mount(), "a socket's path begins with a slash: \"\""),
        ("/socket", mount().websocket(websocket("websocket")), "a socket's path begins with a slash: \"websocket\""),
        ("/:/socket", mount(), "a variable has a name: \"/:/socket\""),
        ("/socket/*", mount(), "a socket's path has no *: \"/socket/*\""),
        ("/taken", mount(), "a socket at /taken/websocket is never reached, behind the one at /taken/websocket"),
        ("/taken/", mount().websocket(websocket("/longpoll")), "a socket at /taken/longpoll is never reached"),
        ("/of/anna", mount(), "a socket at /of/anna/websocket is never reached, behind the one at /of/:user/websocket"),
        ("/of/:other", mount(), "a socket at /of/:other/websocket is never reached"),
        ("/both", mount().websocket(websocket("/longpoll")), "a socket at /both/longpoll is never reached"),
    ] {
        let before = Endpoint::new().socket("/taken", self::mount()).socket("/of/:user", self::mount());
        let told = told(|| before.socket(path, mount)).unwrap_or_else(|| panic!("{path} was taken"));
        assert!(told.contains(mistake), "{told}");
    }
    let before = Endpoint::new().socket("/taken", mount()).socket("/of/:user", mount());
    let _ = before.socket("/other", mount()).socket("/taken/twice", mount()).socket("/:of/everybody", mount());
}

#[test]
fn channels_that_nobody_could_join() {
    let before = || UserSocket::new().channel("room:*", || Room).channel("exact", || Room);
    for (pattern, behind) in [("room:*", "room:*"), ("room:a", "room:*"), ("room:a:*", "room:*"), ("exact", "exact")] {
        let told = told(|| before().channel(pattern, || Room)).unwrap_or_else(|| panic!("{pattern} was taken"));
        assert_eq!(told, format!("channel {pattern:?} is never joined, behind {behind:?}"));
    }
    let _ = before().channel("exact*", || Room).channel("room", || Room).channel("*", || Room);
}
