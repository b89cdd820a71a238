//! The Phoenix wire in both versions: every shape byte for byte, everything that is refused, and any message there and
//! back through a small client.
#![forbid(unsafe_code)]

use proptest::{collection::vec, prelude::*, sample::select};
use serde_json::{Value, json};
use wingbeat::{
    MessageKind::{self, Binary, Text},
    channels::{
        Broadcast, DecodeError, EncodeError, Envelope, Json, Outgoing, Payload, Serializer, Slot, ToPayload, V1, V2,
    },
};

fn json(text: &str) -> Payload<'_> {
    Payload::Json(Json::new(text).expect("JSON"))
}

/// What is written, behind bytes that were there.
fn written(serializer: &dyn Serializer, message: &Outgoing<'_>) -> Result<(MessageKind, Vec<u8>), EncodeError> {
    let mut out = b"before".to_vec();
    let result = serializer.encode(message, &mut out);
    let behind = out.strip_prefix(b"before").expect("what was there is there").to_vec();
    assert!(result.is_ok() || behind.is_empty(), "an error leaves nothing behind");
    result.map(|kind| (kind, behind))
}

fn text(serializer: &dyn Serializer, message: &Outgoing<'_>) -> String {
    let (kind, bytes) = written(serializer, message).expect("it can be written");
    assert_eq!(kind, Text);
    String::from_utf8(bytes).expect("UTF-8")
}

fn reply<'a>(slots: [&'a Slot<'a>; 3], status: &'a str, response: Payload<'a>) -> Outgoing<'a> {
    let [join_ref, reference, topic] = slots;
    Outgoing::Reply { join_ref, reference, topic, status, response }
}

fn push<'a>(refs: [&'a Slot<'a>; 2], topic: &'a str, event: &'a str, payload: Payload<'a>) -> Outgoing<'a> {
    let [join_ref, reference] = refs;
    Outgoing::Push { join_ref, reference, topic, event, payload }
}

fn slots<'a>(envelope: &Envelope<'a>) -> [Slot<'a>; 4] {
    let Envelope { join_ref, reference, topic, event, .. } = envelope.clone();
    [join_ref, reference, topic, event]
}

fn other(json: &str) -> Slot<'_> {
    Slot::Other(json.into())
}

#[test]
fn every_shape_of_a_server_as_text() {
    let [one, seven, room, phoenix] = ["1", "7", "room:a", "phoenix"].map(Slot::from);
    let (null, number) = (Slot::NULL, other("7"));
    let unmatched = json(r#"{"reason":"unmatched topic"}"#);
    let crashed = json(r#"{"reason":"channel_crash"}"#);
    let rows = [
        (
            "reply",
            reply([&one, &seven, &room], "ok", json(r#"{"a":[1, null]}"#)),
            r#"["1","7","room:a","phx_reply",{"status":"ok","response":{"a":[1, null]}}]"#,
            r#"{"topic":"room:a","event":"phx_reply","ref":"7","payload":{"status":"ok","response":{"a":[1, null]}}}"#,
        ),
        (
            "a reply of any value and any status",
            reply([&one, &seven, &room], "weird_status", json("[1,2,3]")),
            r#"["1","7","room:a","phx_reply",{"status":"weird_status","response":[1,2,3]}]"#,
            r#"{"topic":"room:a","event":"phx_reply","ref":"7","payload":{"status":"weird_status","response":[1,2,3]}}"#,
        ),
        (
            "refs keep their type",
            reply([&number, &number, &room], "ok", json("\"str\"")),
            r#"[7,7,"room:a","phx_reply",{"status":"ok","response":"str"}]"#,
            r#"{"topic":"room:a","event":"phx_reply","ref":7,"payload":{"status":"ok","response":"str"}}"#,
        ),
        (
            "heartbeat",
            reply([&null, &seven, &phoenix], "ok", Payload::EMPTY),
            r#"[null,"7","phoenix","phx_reply",{"status":"ok","response":{}}]"#,
            r#"{"topic":"phoenix","event":"phx_reply","ref":"7","payload":{"status":"ok","response":{}}}"#,
        ),
        (
            "unmatched, to a topic that is no string",
            reply([&null, &null, &number], "error", unmatched),
            r#"[null,null,7,"phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#,
            r#"{"topic":7,"event":"phx_reply","ref":null,"payload":{"status":"error","response":{"reason":"unmatched topic"}}}"#,
        ),
        (
            "push",
            push([&one, &null], "room:a", "new", json(r#"{"b":2}"#)),
            r#"["1",null,"room:a","new",{"b":2}]"#,
            r#"{"topic":"room:a","event":"new","ref":null,"payload":{"b":2}}"#,
        ),
        (
            "broadcast",
            Outgoing::Broadcast { topic: "room:a", event: "new", payload: json(r#"{"b":2}"#) },
            r#"[null,null,"room:a","new",{"b":2}]"#,
            r#"{"topic":"room:a","event":"new","ref":null,"payload":{"b":2}}"#,
        ),
        (
            "phx_close",
            push([&one, &one], "room:a", "phx_close", Payload::EMPTY),
            r#"["1","1","room:a","phx_close",{}]"#,
            r#"{"topic":"room:a","event":"phx_close","ref":"1","payload":{}}"#,
        ),
        (
            "phx_error of a join without a join_ref",
            push([&null, &null], "room:a", "phx_error", crashed),
            r#"[null,null,"room:a","phx_error",{"reason":"channel_crash"}]"#,
            r#"{"topic":"room:a","event":"phx_error","ref":null,"payload":{"reason":"channel_crash"}}"#,
        ),
        (
            "escapes, and what needs none",
            push([&null, &null], "a\"b\\c/d", "\u{1}\n\u{7f}\u{2028}é😀", Payload::EMPTY),
            "[null,null,\"a\\\"b\\\\c/d\",\"\\u0001\\n\u{7f}\u{2028}é😀\",{}]",
            "{\"topic\":\"a\\\"b\\\\c/d\",\"event\":\"\\u0001\\n\u{7f}\u{2028}é😀\",\"ref\":null,\"payload\":{}}",
        ),
    ];
    for (row, message, v2, v1) in rows {
        assert_eq!(text(&V2, &message), v2, "{row}");
        assert_eq!(text(&V1, &message), v1, "{row}");
    }
}

#[test]
fn every_binary_layout_of_a_server() {
    let [seven, ref_28, room, empty] = ["7", "28", "room:a", ""].map(Slot::from);
    let (null, number, truth) = (Slot::NULL, other("-7.50"), other("true"));
    let long = "é".repeat(127) + "x";
    let long_slot = Slot::from(long.as_str());
    let broadcast = |topic, event, data| Outgoing::Broadcast { topic, event, payload: Payload::Binary(data) };
    let rows: Vec<(&str, Outgoing<'_>, Vec<u8>)> = vec![
        (
            "push",
            push([&seven, &null], "room:a", "pushed_bin", Payload::Binary(&[9, 8, 7])),
            b"\x00\x01\x06\x0a7room:apushed_bin\x09\x08\x07".to_vec(),
        ),
        (
            "reply",
            reply([&seven, &ref_28, &room], "ok", Payload::Binary(&[9, 8, 7])),
            b"\x01\x01\x02\x06\x02728room:aok\x09\x08\x07".to_vec(),
        ),
        (
            "broadcast",
            broadcast("room:a", "bcast_bin", &[1, 2, 3]),
            b"\x02\x06\x09room:abcast_bin\x01\x02\x03".to_vec(),
        ),
        ("no data", broadcast("room:a", "e", &[]), b"\x02\x06\x01room:ae".to_vec()),
        ("nothing at all", broadcast("", "", &[]), b"\x02\x00\x00".to_vec()),
        (
            "null is length 0",
            reply([&null, &null, &empty], "", Payload::Binary(&[0])),
            b"\x01\x00\x00\x00\x00\x00".to_vec(),
        ),
        (
            "a push never carries its ref",
            push([&null, &ref_28], "t", "e", Payload::Binary(b"\xff")),
            b"\x00\x00\x01\x01te\xff".to_vec(),
        ),
        (
            "numbers and truth values by their text",
            reply([&number, &truth, &room], "ok", Payload::Binary(b"")),
            b"\x01\x05\x04\x06\x02-7.50trueroom:aok".to_vec(),
        ),
        (
            "lengths are of bytes, up to 255",
            reply([&long_slot, &long_slot, &long_slot], &long, Payload::Binary(b"!")),
            [&[1, 255, 255, 255, 255][..], long.repeat(4).as_bytes(), b"!"].concat(),
        ),
    ];
    for (row, message, bytes) in rows {
        assert_eq!(written(&V2, &message), Ok((Binary, bytes)), "{row}");
        assert_eq!(written(&V1, &message), Err(EncodeError::NoBinary), "{row}");
    }
}

#[test]
fn what_does_not_fit_into_a_binary_message() {
    let (long, data) = ("x".repeat(256), Payload::Binary(b"data"));
    let (fine, long_slot, list) = (Slot::from("1"), Slot::from(long.as_str()), other("[7]"));
    let (object, number, null) = (other("{}"), other("7"), Slot::NULL);
    let refused = [
        reply([&long_slot, &fine, &fine], "ok", data),
        reply([&fine, &long_slot, &fine], "ok", data),
        reply([&fine, &fine, &long_slot], "ok", data),
        reply([&fine, &fine, &fine], &long, data),
        reply([&list, &fine, &fine], "ok", data),
        reply([&fine, &object, &fine], "ok", data),
        reply([&fine, &fine, &number], "ok", data),
        reply([&fine, &fine, &null], "ok", data),
        push([&long_slot, &null], "t", "e", data),
        push([&list, &null], "t", "e", data),
        push([&fine, &null], &long, "e", data),
        push([&fine, &null], "t", &long, data),
        Outgoing::Broadcast { topic: &long, event: "e", payload: data },
        Outgoing::Broadcast { topic: "t", event: &long, payload: data },
    ];
    for message in refused {
        assert_eq!(written(&V2, &message), Err(EncodeError::Slot), "{message:?}");
    }
    let as_text = reply([&long_slot, &list, &number], &long, Payload::EMPTY);
    assert!(text(&V2, &as_text).len() > 512 && text(&V1, &as_text).len() > 256, "text has no such limit");
}

#[test]
fn slots_and_payloads_as_they_come_in() {
    let s = Slot::from;
    let null = Slot::Null;
    type Row = (&'static str, [Slot<'static>; 4], &'static str);
    let v2: Vec<Row> = vec![
        (r#"["1","2","room:a","phx_join",{"t":1}]"#, [s("1"), s("2"), s("room:a"), s("phx_join")], r#"{"t":1}"#),
        (r#"[null,"2","phoenix","heartbeat",{}]"#, [null.clone(), s("2"), s("phoenix"), s("heartbeat")], "{}"),
        (r#"[7,"7",8,["x"],null]"#, [other("7"), s("7"), other("8"), other(r#"["x"]"#)], "null"),
        (
            r#"[1.0,-0,true,{"a": 1},"str"]"#,
            [other("1.0"), other("-0"), other("true"), other(r#"{"a": 1}"#)],
            "\"str\"",
        ),
        (r#"["","\u0031","r\u00e9\n","\ud83d\ude00",[]]"#, [s(""), s("1"), s("ré\n"), s("😀")], "[]"),
        (
            " [ \"a\" ,\t\"b\"\r\n,\"c\", \"d\" , { \"x\" : [ ] } ] ",
            [s("a"), s("b"), s("c"), s("d")],
            "{ \"x\" : [ ] }",
        ),
        (r#"["a","b","c","d",5,"more",{"and":[]},null]"#, [s("a"), s("b"), s("c"), s("d")], "5"),
        (
            r#"["a","b","c","d",{"half":"\ud800","é":1e999}]"#,
            [s("a"), s("b"), s("c"), s("d")],
            r#"{"half":"\ud800","é":1e999}"#,
        ),
    ];
    let v1: Vec<Row> = vec![
        (
            r#"{"topic":"room:a","event":"phx_join","payload":{"t":1},"ref":"2"}"#,
            [null.clone(), s("2"), s("room:a"), s("phx_join")],
            r#"{"t":1}"#,
        ),
        (
            r#" { "ref" : 7 , "join_ref" : "7" , "payload" : null , "event" : [1] , "topic" : null } "#,
            [s("7"), other("7"), null.clone(), other("[1]")],
            "null",
        ),
        (
            r#"{"topic":"old","to\u0070ic":"new","event":"e","ref":null,"ref":"1","more":[{}],"payload":1,"payload":[2],"":0}"#,
            [null.clone(), s("1"), s("new"), s("e")],
            "[2]",
        ),
        (
            r#"{"join_ref":"1","join_ref":null,"topic":"t\"","event":"\\","payload":"p","ref":false}"#,
            [null.clone(), other("false"), s("t\""), s("\\")],
            "\"p\"",
        ),
    ];
    for (serializer, rows) in [(&V2 as &dyn Serializer, v2), (&V1, v1)] {
        for (message, expected, payload) in rows {
            let envelope = serializer.decode(Text, message.as_bytes()).expect(message);
            assert_eq!(slots(&envelope), expected, "{message}");
            assert_eq!(envelope.payload, json(payload), "{message}");
        }
    }
}

#[test]
fn strings_without_escapes_are_borrowed() {
    let borrowed = |slot: &Slot<'_>| matches!(slot, Slot::Text(std::borrow::Cow::Borrowed(_)));
    let message = r#"["1","é😀","room:a","plain",{}]"#;
    assert!(slots(&V2.decode(Text, message.as_bytes()).unwrap()).iter().all(borrowed));
    let message = r#"{"join_ref":"1","ref":"é😀","topic":"room:a","event":"plain","payload":{}}"#;
    assert!(slots(&V1.decode(Text, message.as_bytes()).unwrap()).iter().all(borrowed));
    assert!(slots(&V2.decode(Binary, b"\0\x01\x01\x01\x01abcd").unwrap()).iter().all(borrowed));
}

#[test]
fn binary_messages_as_they_come_in() {
    let rows: Vec<(&[u8], [&str; 4], &[u8])> = vec![
        (b"\x00\x01\x02\x06\x04728room:ablob\x09\x08\x07", ["7", "28", "room:a", "blob"], &[9, 8, 7]),
        (b"\x00\x00\x00\x00\x00", ["", "", "", ""], &[]),
        (b"\x00\x00\x01\x01\x001t\x00\xff", ["", "1", "t", ""], &[0, 255]),
        ("\0\x02\x04\x03\0é😀€[]".as_bytes(), ["é", "😀", "€", ""], b"[]"),
    ];
    for (bytes, expected, data) in rows {
        let envelope = V2.decode(Binary, bytes).expect("a message");
        assert_eq!(slots(&envelope), expected.map(Slot::from));
        assert_ne!(envelope.join_ref, Slot::Null, "length 0 is not null");
        assert_eq!(envelope.payload, Payload::Binary(data));
        assert_eq!(V1.decode(Binary, bytes), Err(DecodeError::NoBinary));
    }
    let long = [&[0, 255, 255, 255, 255][..], &b"x".repeat(4 * 255)].concat();
    assert_eq!(V2.decode(Binary, &long).unwrap().payload, Payload::Binary(b""));
    for cut in 0..long.len() {
        assert_eq!(V2.decode(Binary, &long[..cut]), Err(DecodeError::Binary), "cut at {cut}");
    }
    for (wrong, bytes) in [
        ("a server's reply", &b"\x01\x01\x02\x06\x02728room:aok\x09\x08\x07"[..]),
        ("a server's broadcast", b"\x02\x06\x09room:abcast_bin\x01\x02\x03"),
        ("a kind of Supabase's own", b"\x03\x00\x00\x01\x01te"),
        ("an unknown kind", b"\xff\x00\x00\x00\x00"),
        ("text", br#"["1","2","t","e",{}]"#),
        ("no UTF-8", b"\x00\x00\x00\x02\x00\xc3\x28"),
        ("a code point across two slots", b"\x00\x00\x00\x01\x01\xc3\xa9"),
        ("a surrogate", b"\x00\x00\x00\x03\x00\xed\xa0\x80"),
    ] {
        assert_eq!(V2.decode(Binary, bytes), Err(DecodeError::Binary), "{wrong}");
    }
}

#[test]
fn texts_that_are_no_message() {
    use DecodeError::{Json as Bad, Shape};
    for (wrong, v2, v1) in [
        ("", Bad, Bad),
        (" ", Bad, Bad),
        ("hello", Bad, Bad),
        ("\u{feff}[null,null,\"t\",\"e\",{}]", Bad, Bad),
        ("null", Shape, Shape),
        ("7", Shape, Shape),
        ("\"[1,2,3,4,5]\"", Shape, Shape),
        ("[]", Shape, Shape),
        ("{}", Shape, Shape),
        (r#"["1","2","t","e"]"#, Shape, Shape),
        (r#"["1","2","t","e",]"#, Bad, Bad),
        (r#"["1","2","t","e",{}"#, Bad, Bad),
        (r#"["1","2","t","e",{}}"#, Bad, Bad),
        (r#"["1","2","t","e",{}],"#, Bad, Bad),
        (r#"["1","2","t","e",{}][]"#, Bad, Bad),
        (r#"["1","2","t","e",{},x]"#, Bad, Bad),
        (r#"["1","2","t","e",{},]"#, Bad, Bad),
        (r#"["1","2","t","e",{"a":01}]"#, Bad, Bad),
        (r#"["1","2","t","e",{'a':1}]"#, Bad, Bad),
        (r#"["1" "2","t","e",{}]"#, Bad, Bad),
        ("[\"1\",\"2\",\"t\n\",\"e\",{}]", Bad, Bad),
        (r#"["1","2","\x","e",{}]"#, Bad, Bad),
        (r#"["1","2","\ud800","e",{}]"#, Shape, Shape),
        (r#"{"0":"1","1":"2","2":"t","3":"e","4":{}}"#, Shape, Shape),
        (r#"{"event":"e","payload":{},"ref":"1"}"#, Shape, Shape),
        (r#"{"topic":"t","payload":{},"ref":"1"}"#, Shape, Shape),
        (r#"{"topic":"t","event":"e","ref":"1"}"#, Shape, Shape),
        (r#"{"topic":"t","event":"e","payload":{}}"#, Shape, Shape),
        (r#"{"topic":"t","event":"e","payload":{},"join_ref":"1"}"#, Shape, Shape),
        (r#"{"Topic":"t","event":"e","payload":{},"ref":"1"}"#, Shape, Shape),
        (r#"[{"topic":"t","event":"e","payload":{},"ref":"1"}]"#, Shape, Shape),
        (r#"{"topic":"t","event":"e","payload":{},"ref":"1",}"#, Bad, Bad),
        (r#"{"topic":"t","event":"e","payload":{},"ref":"1"}}"#, Bad, Bad),
        (r#"{"topic":"t","event":"e","payload":{},"ref":}"#, Bad, Bad),
        (r#"{"topic":"t","event":"e","payload":{},"ref""#, Bad, Bad),
        (r#"{"topic":"t","event":"e","payload":{},"ref":"1""#, Bad, Bad),
        (r#"{"topic":"\udc00","event":"e","payload":{},"ref":"1"}"#, Shape, Shape),
    ] {
        assert_eq!(V2.decode(Text, wrong.as_bytes()), Err(v2), "{wrong}");
        assert_eq!(V1.decode(Text, wrong.as_bytes()), Err(v1), "{wrong}");
    }
    let [array, object] = [r#"["1","2","t","e",{}]"#, r#"{"topic":"t","event":"e","payload":{},"ref":"1"}"#];
    assert_eq!(V1.decode(Text, array.as_bytes()), Err(Shape));
    assert_eq!(V2.decode(Text, object.as_bytes()), Err(Shape));
    for serializer in [&V1 as &dyn Serializer, &V2] {
        assert_eq!(serializer.decode(Text, b"[\"1\",\"2\",\"\xff\",\"e\",{}]"), Err(Bad));
        assert_eq!(serializer.decode(Text, b"{\"topic\":\"\xc3\"}"), Err(Bad));
    }
}

/// What is deeper than serde_json reads passes all the same, because nobody looks inside; who asks gets an error.
#[test]
fn any_depth_passes_and_only_parsing_has_a_limit() {
    for (depth, parses) in [(100, true), (127, true), (128, false), (100_000, false)] {
        let deep = format!("{}{}", r#"{"a":"#.repeat(depth), "1".to_owned() + &"}".repeat(depth));
        let message = format!(r#"["1","2","t","e",{deep}]"#);
        let payload = V2.decode(Text, message.as_bytes()).expect("a message").payload;
        assert_eq!(payload.as_json(), Some(&*deep));
        assert_eq!(payload.parse::<Value>().is_ok(), parses, "{depth}");
        let mut bytes = Vec::new();
        let kind = Broadcast { event: "e", payload }.write(&mut bytes);
        assert_eq!(Broadcast::read(kind, &bytes).map(|read| read.payload), Some(payload));
    }
}

#[test]
fn large_payloads_pass() {
    let large = format!(r#"{{"body":"{}"}}"#, "so \\\"long\\\" é ".repeat(1 << 17));
    assert!(large.len() > 1 << 20);
    let message = format!(r#"["1","2","t","e",{large}]"#);
    let envelope = V2.decode(Text, message.as_bytes()).expect("a message");
    assert_eq!(envelope.payload.as_json(), Some(&*large));
    assert_eq!(text(&V2, &push([&Slot::from("1"), &Slot::from("2")], "t", "e", envelope.payload)), message);
    let cut = &message.as_bytes()[..message.len() - 4];
    assert_eq!(V2.decode(Text, cut), Err(DecodeError::Json));

    let data = vec![0xa5; 1 << 20];
    let message = Client { join_ref: Some("1"), reference: Some("2"), topic: "t", event: "e" }.binary(&data);
    assert_eq!(V2.decode(Binary, &message).expect("a message").payload, Payload::Binary(&data));
}

#[test]
fn what_serde_serializes_is_a_payload() {
    let mut scratch = b"left over".to_vec();
    let value = json!({"a": [1, "\u{2028}\"/"]});
    let payload = value.to_payload(&mut scratch).expect("it can be serialized");
    let null = Slot::NULL;
    assert_eq!(
        text(&V2, &push([&null, &null], "t", "e", payload)),
        "[null,null,\"t\",\"e\",{\"a\":[1,\"\u{2028}\\\"/\"]}]"
    );
}

/// A client that knows strings and null only, as the official one.
#[derive(Clone, Copy, Debug)]
struct Client<'a> {
    join_ref: Option<&'a str>,
    reference: Option<&'a str>,
    topic: &'a str,
    event: &'a str,
}

impl Client<'_> {
    fn v2(&self, payload: &Value) -> String {
        json!([self.join_ref, self.reference, self.topic, self.event, payload]).to_string()
    }

    fn v1(&self, payload: &Value) -> String {
        let Client { join_ref, reference, topic, event } = self;
        json!({"join_ref": join_ref, "ref": reference, "topic": topic, "event": event, "payload": payload}).to_string()
    }

    fn binary(&self, data: &[u8]) -> Vec<u8> {
        let slots = [self.join_ref.unwrap_or(""), self.reference.unwrap_or(""), self.topic, self.event];
        let lengths = slots.map(|slot| u8::try_from(slot.len()).expect("at most 255 bytes"));
        [&[0], &lengths[..], slots.concat().as_bytes(), data].concat()
    }

    fn slots(&self) -> [Slot<'_>; 4] {
        [
            self.join_ref.map_or(Slot::Null, Slot::from),
            self.reference.map_or(Slot::Null, Slot::from),
            Slot::from(self.topic),
            Slot::from(self.event),
        ]
    }
}

/// The slots of a server's binary message, as the client sees them: kind, strings, data.
fn client_reads(bytes: &[u8]) -> (u8, Vec<String>, Vec<u8>) {
    let kind = bytes[0];
    let count = [3, 4, 2][usize::from(kind)];
    let (lengths, mut rest) = bytes[1..].split_at(count);
    let strings = lengths.iter().map(|&length| {
        let (string, behind) = rest.split_at(usize::from(length));
        rest = behind;
        String::from_utf8(string.to_vec()).expect("UTF-8")
    });
    (kind, strings.collect(), rest.to_vec())
}

/// Any text, with many of the characters that matter to JSON.
fn any_text() -> impl Strategy<Value = String> {
    let special = select(vec!['"', '\\', '/', '\0', '\n', '\u{1f}', '\u{7f}', '\u{2028}', 'é', '😀', '[', ',']);
    vec(prop_oneof![any::<char>(), special, prop::char::range('a', 'z')], 0..40).prop_map(String::from_iter)
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((any_text(), inner), 0..6).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_client_sends_arrives(
        refs in (prop::option::of(any_text()), prop::option::of(any_text())),
        names in (any_text(), any_text()),
        value in any_value(),
        data in vec(any::<u8>(), 0..100),
    ) {
        let client =
            Client { join_ref: refs.0.as_deref(), reference: refs.1.as_deref(), topic: &names.0, event: &names.1 };
        for (serializer, message) in [(&V2 as &dyn Serializer, client.v2(&value)), (&V1, client.v1(&value))] {
            let envelope = serializer.decode(Text, message.as_bytes()).expect("a message");
            prop_assert_eq!(slots(&envelope), client.slots());
            let payload = value.to_string();
            prop_assert_eq!(envelope.payload.as_json(), Some(payload.as_str()));
            for cut in 0..message.len() {
                prop_assert!(serializer.decode(Text, &message.as_bytes()[..cut]).is_err(), "cut at {}", cut);
            }
        }
        let message = client.binary(&data);
        let envelope = V2.decode(Binary, &message).expect("a message");
        let filled = client.slots().map(|slot| if slot.is_null() { Slot::from("") } else { slot });
        prop_assert_eq!(slots(&envelope), filled);
        prop_assert_eq!(envelope.payload, Payload::Binary(&data));
    }

    #[test]
    fn what_a_server_sends_arrives(
        refs in (prop::option::of(any_text()), prop::option::of(any_text())),
        names in (any_text(), any_text()),
        value in any_value(),
        data in vec(any::<u8>(), 0..100),
    ) {
        let slot = |text: &Option<String>| text.clone().map_or(Slot::Null, |text| Slot::Text(text.into()));
        let (join_ref, reference, topic, event) = (slot(&refs.0), slot(&refs.1), Slot::from(&*names.0), &*names.1);
        let raw = value.to_string();
        let messages = |payload| {
            [
                reply([&join_ref, &reference, &topic], event, payload),
                push([&join_ref, &reference], &names.0, event, payload),
                Outgoing::Broadcast { topic: &names.0, event, payload },
            ]
        };
        let answer = json!({"status": event, "response": value});
        let v2 = [
            json!([refs.0, refs.1, names.0, "phx_reply", answer]),
            json!([refs.0, refs.1, names.0, event, value]),
            json!([null, null, names.0, event, value]),
        ];
        let v1 = [
            json!({"topic": names.0, "event": "phx_reply", "ref": refs.1, "payload": answer}),
            json!({"topic": names.0, "event": event, "ref": refs.1, "payload": value}),
            json!({"topic": names.0, "event": event, "ref": null, "payload": value}),
        ];
        for (serializer, expected) in [(&V2 as &dyn Serializer, v2), (&V1, v1)] {
            for (message, expected) in messages(json(&raw)).iter().zip(expected) {
                let seen = serde_json::from_str::<Value>(&text(serializer, message)).expect("JSON");
                prop_assert_eq!(seen, expected);
            }
        }
        let (first, second) = (refs.0.clone().unwrap_or_default(), refs.1.clone().unwrap_or_default());
        let named = [names.0.clone(), names.1.clone()];
        let strings = [[&[first.clone(), second], &named[..]].concat(), [&[first], &named[..]].concat(), named.to_vec()];
        for ((message, kind), strings) in messages(Payload::Binary(&data)).iter().zip([1, 0, 2]).zip(strings) {
            let (frame, bytes) = written(&V2, message).expect("short slots");
            prop_assert_eq!(frame, Binary);
            prop_assert_eq!(client_reads(&bytes), (kind, strings, data.clone()));
        }
    }
}
