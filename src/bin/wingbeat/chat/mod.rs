//! The chat that `wingbeat serve` has at `/`: its page, and the channel behind it.
//!
//! Whoever connects brings a token of its own choice (`/socket/websocket?token=…`). Its hash is the user's id: who has
//! the token is the same person after a reconnect, and nobody who only sees the id can pass for them.
//!
//! A room is the topic `chat:NAME`, NAME of 1 to 40 characters. Joining takes `{"name"}`, 1 to 32 characters, and answers
//! `{"id"}`; presence is keyed by id, with `{"name"}` as meta. Characters are Unicode scalar values; control characters
//! are refused in names.
//!
//! | from the client | to the clients | an error, by its `reason` |
//! |---|---|---|
//! | `msg {text}` | all: `msg {from, name, text, at}` | `text`: not 1 to 2,000 characters |
//! | `private {to, text}` | both: `private {from, name, to, to_name, text, at}` | `text`; `gone`: `to` is not in the room |
//! | `typing {}` | the others: `typing {from, name}` | |
//! | `name {name}` | all: a presence update | `name` |
//!
//! Beside the rooms there are the topics `room:*` for `wingbeat load channels`: `echo` comes back as a reply, `shout` goes
//! to all who have joined.
//!
//! `at` is in milliseconds since 1970. Each is answered, so that the page knows what has arrived. Nothing is stored.
#![forbid(unsafe_code)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::ops::RangeInclusive;
use std::time::{SystemTime, UNIX_EPOCH};
use wingbeat::Response;
use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, Presence, UserSocket};
use wingbeat::endpoint::{Connect, ConnectInfo, Endpoint, LongPollOptions, Mount, WebSocketOptions};
use wingbeat::http::Router;

/// The page: style, markup and script in one, so that it needs nothing else.
const PAGE: &str = concat!(
    "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n",
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1, viewport-fit=cover, ",
    "interactive-widget=resizes-content\">\n",
    "<title>wingbeat chat</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n",
    include_str!("page.css"),
    "</style>\n<body>\n",
    include_str!("page.html"),
    "<script type=\"module\">\n",
    include_str!("wire.js"),
    "\n",
    include_str!("page.js"),
    "</script>\n</body>\n</html>\n",
);

/// What the page may do: run what is written in it, and talk to where it came from.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     img-src data:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

/// Shorter tokens could be guessed.
const TOKEN_BYTES_MIN: usize = 16;
const ROOM_CHARS: RangeInclusive<usize> = 1..=40;
const NAME_CHARS: RangeInclusive<usize> = 1..=32;
const TEXT_CHARS: RangeInclusive<usize> = 1..=2000;

/// The page at `/`, and the socket at `/socket`, whose messages have `message_bytes` at most.
pub(crate) fn endpoint(message_bytes: u32) -> Endpoint {
    let mount = Mount::new(user_socket())
        .connect(connect)
        .websocket(WebSocketOptions { message_bytes, ..WebSocketOptions::default() })
        .longpoll(LongPollOptions::default());
    Endpoint::new().socket("/socket", mount).router(Router::new().get("/", |_| page()))
}

fn user_socket() -> UserSocket {
    let present = Presence::new();
    UserSocket::new().channel("chat:*", move || Chat::new(present.clone())).channel("room:*", || Bench)
}

/// Without a token, or with a short one, a client can do everything but chat.
fn connect(info: &ConnectInfo<'_>) -> Connect {
    match info.param("token") {
        Some(token) if token.len() >= TOKEN_BYTES_MIN => Connect::accept().id(user_id(token)),
        _ => Connect::accept(),
    }
}

fn page() -> Response {
    Response::html(PAGE)
        .header("Content-Security-Policy", PAGE_POLICY)
        .header("Cache-Control", "no-cache")
        .header("Referrer-Policy", "no-referrer")
        .header("X-Content-Type-Options", "nosniff")
}

/// What `wingbeat load channels` measures.
struct Bench;

impl Channel for Bench {
    fn join(&mut self, _: &mut JoinCtx<'_>, _: &str, _: Payload<'_>) -> Join {
        Join::Ok
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "echo" => Outcome::ok(payload),
            "shout" => {
                ctx.broadcast("shout", payload);
                Outcome::NoReply
            }
            _ => Outcome::Unhandled,
        }
    }
}

/// One person in one room.
struct Chat {
    present: Presence,
    me: Person,
}

/// The meta of a presence, and half of who said something.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Person {
    #[serde(skip)]
    id: String,
    name: String,
}

#[derive(Deserialize)]
struct Text {
    text: String,
}

#[derive(Deserialize)]
struct Private {
    to: String,
    text: String,
}

/// The id of whoever has this token, which is also the id of their sockets: 96 bits of its SHA-256.
fn user_id(token: &str) -> String {
    format!("user:{}", BASE64.encode(&Sha256::digest(token)[..12]))
}

impl Chat {
    /// Rooms that share `present` know of each other's people.
    fn new(present: Presence) -> Self {
        Chat { present, me: Person::default() }
    }

    fn say(&self, ctx: &mut Ctx<'_>, payload: Payload<'_>) -> Outcome {
        let Ok(Text { text }) = payload.parse() else { return refused("text") };
        if !TEXT_CHARS.contains(&text.chars().count()) {
            return refused("text");
        }
        ctx.broadcast("msg", json!({ "from": self.me.id, "name": self.me.name, "text": text, "at": now() }));
        done()
    }

    /// To the one and back to the other, on whatever sockets they are in this room.
    fn whisper(&self, ctx: &mut Ctx<'_>, payload: Payload<'_>) -> Outcome {
        let Ok(Private { to, text }) = payload.parse() else { return refused("text") };
        if !TEXT_CHARS.contains(&text.chars().count()) {
            return refused("text");
        }
        let Some(to_name) = self.name_of(ctx.topic(), &to) else { return refused("gone") };
        let (from, name) = (&self.me.id, &self.me.name);
        let message = json!({ "from": from, "name": name, "to": to, "to_name": to_name, "text": text, "at": now() });
        ctx.push_to(&to, "private", &message);
        if to != *from {
            ctx.push_to(from, "private", &message);
        }
        done()
    }

    fn type_on(&self, ctx: &mut Ctx<'_>) -> Outcome {
        ctx.broadcast_from("typing", json!({ "from": self.me.id, "name": self.me.name }));
        done()
    }

    fn rename(&mut self, ctx: &mut Ctx<'_>, payload: Payload<'_>) -> Outcome {
        let Some(name) = name_in(payload) else { return refused("name") };
        self.me.name = name;
        match ctx.update(&self.present, &self.me.id, &self.me) {
            Ok(_) => done(),
            Err(error) => Outcome::error(json!({ "reason": error.to_string() })),
        }
    }

    /// What a person in a room was called last.
    fn name_of(&self, topic: &str, id: &str) -> Option<String> {
        #[derive(Deserialize)]
        struct Metas {
            metas: Vec<Person>,
        }
        let Metas { mut metas } = self.present.get(topic, id)?.json().parse().ok()?;
        metas.pop().map(|person| person.name)
    }
}

impl Channel for Chat {
    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join {
        let room = topic.split_once(':').map_or("", |(_, room)| room);
        if !is_name(room, ROOM_CHARS) {
            return Join::refuse(json!({ "reason": "room" }));
        }
        let Some(id) = ctx.id() else { return Join::refuse(json!({ "reason": "token" })) };
        let Some(name) = name_in(payload) else { return Join::refuse(json!({ "reason": "name" })) };
        self.me = Person { id: id.to_owned(), name };
        Join::reply(json!({ "id": id }))
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        if let Err(error) = ctx.track(&self.present, &self.me.id, &self.me) {
            tracing::warn!(%error, "somebody is in a chat room, but not among those who are shown there");
        }
        let state = self.present.list(ctx.topic());
        ctx.push("presence_state", state);
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "msg" => self.say(ctx, payload),
            "private" => self.whisper(ctx, payload),
            "typing" => self.type_on(ctx),
            "name" => self.rename(ctx, payload),
            _ => Outcome::Unhandled,
        }
    }
}

/// The name in `{"name"}`, if it is one.
fn name_in(payload: Payload<'_>) -> Option<String> {
    let Person { name, .. } = payload.parse().ok()?;
    is_name(&name, NAME_CHARS).then_some(name)
}

fn is_name(text: &str, chars: RangeInclusive<usize>) -> bool {
    chars.contains(&text.chars().count()) && text.trim() == text && !text.chars().any(char::is_control)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn done() -> Outcome {
    Outcome::ok(json!({}))
}

fn refused(reason: &str) -> Outcome {
    Outcome::error(json!({ "reason": reason }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use wingbeat::channels::Assigns;
    use wingbeat::channels::testing::{Client, Kit};

    const ROOM: &str = "chat:lobby";

    fn kit() -> Kit {
        Kit::new(user_socket())
    }

    fn enter(kit: &Kit, token: &str, name: &str) -> Client {
        let client = kit.connect_as(Assigns::new(), Some(&user_id(token)));
        let answer = client.join(ROOM, json!({ "name": name }));
        assert_eq!(answer, Ok(json!({ "id": user_id(token) })));
        client
    }

    /// The payload of the next message of this event, of which there is one.
    fn take(client: &Client, event: &str) -> Value {
        let next = std::iter::from_fn(|| client.next()).find(|received| received.event == event);
        next.unwrap_or_else(|| panic!("no {event}")).payload
    }

    #[test]
    fn ids_are_those_of_tokens() {
        assert_eq!(user_id("a token"), user_id("a token"));
        assert_ne!(user_id("a token"), user_id("another"));
        assert_eq!(user_id("").len(), "user:".len() + 16);
    }

    #[test]
    fn the_room_hears_what_is_said_and_by_whom() {
        let kit = kit();
        let (ann, bob) = (enter(&kit, "a", "Ann"), enter(&kit, "b", "Bob"));
        let reference = ann.push(ROOM, "msg", json!({ "text": "<b>hello</b> 😀" }));
        ann.assert_reply(&reference, "ok", json!({}));
        for client in [&ann, &bob] {
            let message = take(client, "msg");
            assert_eq!(message["from"], user_id("a"));
            assert_eq!(message["name"], "Ann");
            assert_eq!(message["text"], "<b>hello</b> 😀");
            assert!(message["at"].as_u64().is_some_and(|at| at > 1_700_000_000_000));
        }
    }

    #[test]
    fn everybody_is_shown_and_renamed() {
        let kit = kit();
        let ann = enter(&kit, "a", "Ann");
        assert_eq!(take(&ann, "presence_diff")["joins"][user_id("a")]["metas"][0]["name"], "Ann");
        assert_eq!(take(&ann, "presence_state")[user_id("a")]["metas"][0]["name"], "Ann");
        let bob = enter(&kit, "b", "Bob");
        let state = take(&bob, "presence_state");
        assert_eq!(state.as_object().map(|people| people.len()), Some(2));
        assert_eq!(take(&ann, "presence_diff")["joins"][user_id("b")]["metas"][0]["name"], "Bob");
        let reference = bob.push(ROOM, "name", json!({ "name": "Robert" }));
        bob.assert_reply(&reference, "ok", json!({}));
        assert_eq!(take(&ann, "presence_diff")["joins"][user_id("b")]["metas"][0]["name"], "Robert");
        bob.push(ROOM, "msg", json!({ "text": "x" }));
        assert_eq!(take(&ann, "msg")["name"], "Robert");
        bob.disconnect();
        assert_eq!(take(&ann, "presence_diff")["leaves"][user_id("b")]["metas"][0]["name"], "Robert");
    }

    #[test]
    fn a_private_message_is_for_two() {
        let kit = kit();
        let (ann, bob, eve) = (enter(&kit, "a", "Ann"), enter(&kit, "b", "Bob"), enter(&kit, "e", "Eve"));
        let bobs_phone = enter(&kit, "b", "Bob");
        let reference = ann.push(ROOM, "private", json!({ "to": user_id("b"), "text": "psst" }));
        ann.assert_reply(&reference, "ok", json!({}));
        for client in [&ann, &bob, &bobs_phone] {
            let message = take(client, "private");
            assert_eq!(message["from"], user_id("a"));
            assert_eq!(message["to"], user_id("b"));
            assert_eq!((&message["name"], &message["to_name"]), (&json!("Ann"), &json!("Bob")));
            assert_eq!(message["text"], "psst");
            client.refute(ROOM, "private");
        }
        eve.refute(ROOM, "private");
    }

    #[test]
    fn a_private_message_needs_somebody_who_is_there() {
        let kit = kit();
        let ann = enter(&kit, "a", "Ann");
        // An id is also the name of a topic: nothing but people of this room may be reached by it.
        for to in [user_id("b"), ROOM.to_owned(), String::new()] {
            let reference = ann.push(ROOM, "private", json!({ "to": to, "text": "psst" }));
            ann.assert_reply(&reference, "error", json!({ "reason": "gone" }));
        }
        let reference = ann.push(ROOM, "private", json!({ "to": user_id("a"), "text": "to myself" }));
        ann.assert_reply(&reference, "ok", json!({}));
        assert_eq!(take(&ann, "private")["text"], "to myself");
        ann.refute(ROOM, "private");
    }

    #[test]
    fn typing_is_shown_to_the_others() {
        let kit = kit();
        let (ann, bob) = (enter(&kit, "a", "Ann"), enter(&kit, "b", "Bob"));
        let reference = ann.push(ROOM, "typing", json!({}));
        ann.assert_reply(&reference, "ok", json!({}));
        assert_eq!(take(&bob, "typing"), json!({ "from": user_id("a"), "name": "Ann" }));
        ann.refute(ROOM, "typing");
    }

    #[test]
    fn lengths_are_limited_in_characters() {
        let kit = kit();
        let ann = enter(&kit, "a", "Ann");
        let text = |text: String| json!({ "text": text });
        for payload in [text(String::new()), text("é".repeat(2001)), json!({}), json!("text"), json!({ "text": 1 })] {
            let reference = ann.push(ROOM, "msg", payload);
            ann.assert_reply(&reference, "error", json!({ "reason": "text" }));
        }
        let reference = ann.push(ROOM, "msg", text("é".repeat(2000)));
        ann.assert_reply(&reference, "ok", json!({}));
        for name in ["", " ", " Ann", "a\nb", &"x".repeat(33)] {
            let reference = ann.push(ROOM, "name", json!({ "name": name }));
            ann.assert_reply(&reference, "error", json!({ "reason": "name" }));
            let refused = kit.connect_as(Assigns::new(), Some("user:x")).join(ROOM, json!({ "name": name }));
            assert_eq!(refused, Err(json!({ "reason": "name" })));
        }
        for room in ["chat:", "chat: ", "chat:a\u{7f}", &format!("chat:{}", "x".repeat(41))] {
            assert_eq!(ann.join(room, json!({ "name": "Ann" })), Err(json!({ "reason": "room" })), "{room:?}");
        }
        assert_eq!(
            ann.join(&format!("chat:{}", "é".repeat(40)), json!({ "name": "Ann" })),
            Ok(json!({ "id": user_id("a") }))
        );
    }

    #[test]
    fn topics_to_be_measured_echo_and_shout() {
        let kit = kit();
        let (ann, bob) = (kit.connect(), kit.connect());
        for client in [&ann, &bob] {
            assert_eq!(client.join("room:1", json!({})), Ok(json!({})));
        }
        let reference = ann.push("room:1", "echo", json!({ "n": 1 }));
        ann.assert_reply(&reference, "ok", json!({ "n": 1 }));
        ann.push("room:1", "shout", json!({ "n": 2 }));
        for client in [&ann, &bob] {
            client.assert_broadcast("room:1", "shout", json!({ "n": 2 }));
        }
    }

    #[test]
    fn nobody_chats_without_an_id() {
        assert_eq!(kit().connect().join(ROOM, json!({ "name": "Ann" })), Err(json!({ "reason": "token" })));
    }

    #[test]
    fn the_page_needs_nothing_else() {
        assert!(PAGE.starts_with("<!doctype html>"));
        for outside in ["http:", "https:", "//cdn", "@import", "url(", "<link rel=\"stylesheet", " src="] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        // What comes from others becomes text, never markup.
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!PAGE.contains(markup), "{markup}");
        }
        assert_eq!(PAGE.matches("</script>").count(), 1, "the script ends where it ends");
    }
}
