//! `frame_decoder` and `message_reader`: the reader in the input's own chunks, as one chunk and byte by byte, against the
//! naive decoder.
#![forbid(unsafe_code)]

use crate::input::Input;
use crate::naive::{self, Decoded, Item};
use wingbeat::proto::{
    self, ControlKind, Event, Incoming, MaskingKey, MessageKind, MessageReader, Opcode, ProtoError, ReadLimits, Reader,
    Role, encoder,
};

/// Bit 0 of an input's choices: our role. Bits 1 and 2: which limits.
fn settings(input: &Input<'_>) -> (Role, ReadLimits) {
    let role = if input.choice(0) { Role::Client } else { Role::Server };
    let limits = match input.choices >> 1 & 3 {
        0 => ReadLimits::default(),
        1 => ReadLimits { max_message: 200, ..ReadLimits::default() },
        2 => ReadLimits { free_fragments: 3, min_fragment_bytes: 4, ..ReadLimits::default() },
        _ => ReadLimits { max_message: 0, free_fragments: 0, min_fragment_bytes: 1 },
    };
    (role, limits)
}

/// [`Reader`]: parts put together here must be what the naive decoder finds, however the bytes were cut.
pub fn frame_decoder(data: &[u8]) {
    let Some(input) = Input::new(data) else { return };
    let (role, limits) = settings(&input);
    let expected = naive::decode(role, &limits, input.bytes, false);
    check_cuts(&input, &expected, |chunks| read_events(role, &limits, chunks));
}

/// [`MessageReader`] against the naive decoder; and what is encoded comes back.
pub fn message_reader(data: &[u8]) {
    let Some(input) = Input::new(data) else { return };
    let (role, limits) = settings(&input);
    let expected = naive::decode(role, &limits, input.bytes, true);
    check_cuts(&input, &expected, |chunks| read_messages(role, &limits, chunks));
    round_trip(&input, role);
}

/// The items that a run found, and the error with the number of the chunk it came in.
type Run = (Vec<Item>, Option<(ProtoError, usize)>);

fn check_cuts(input: &Input<'_>, (items, error): &Decoded, run: impl Fn(Vec<&[u8]>) -> Run) {
    let whole = vec![input.bytes];
    let single = input.bytes.chunks(1).collect::<Vec<_>>();
    for (cut, chunks) in [("whole", whole), ("chunks", input.chunks()), ("single bytes", single)] {
        let (found, failed) = run(chunks);
        assert_eq!(&found, items, "in {cut}");
        assert_eq!(failed.map(|(error, _)| error), error.map(|(error, _)| error), "in {cut}");
        if cut == "single bytes" {
            assert_eq!(&failed, error, "not at the first byte that makes it certain");
        }
    }
}

fn read_messages(role: Role, limits: &ReadLimits, chunks: Vec<&[u8]>) -> Run {
    let mut reader = MessageReader::new(role, *limits);
    let mut items = Vec::new();
    for (number, chunk) in chunks.into_iter().enumerate() {
        let mut chunk = chunk.to_vec();
        let mut data = &mut chunk[..];
        loop {
            match reader.next(&mut data) {
                Ok(Some(incoming)) => items.push(owned(incoming)),
                Ok(None) => break,
                Err(error) => {
                    let mut more = *b"\x81\x80key!";
                    assert_eq!(reader.next(&mut &mut more[..]), Err(error), "an error must stay");
                    return (items, Some((error, number)));
                }
            }
        }
        assert!(data.is_empty(), "bytes were left without an event");
    }
    (items, None)
}

fn owned(incoming: Incoming<'_>) -> Item {
    match incoming {
        Incoming::Message { kind, payload } => Item::Message(kind, payload.to_vec()),
        Incoming::Ping(payload) => Item::Ping(payload.to_vec()),
        Incoming::Pong(payload) => Item::Pong(payload.to_vec()),
        Incoming::Close(status) => Item::Close(
            status.map_or_else(Vec::new, |(code, reason)| [&code.get().to_be_bytes(), reason.as_bytes()].concat()),
        ),
    }
}

/// What parts have come of the message and of the control frame in progress.
#[derive(Default)]
struct Parts {
    message: Option<(MessageKind, Vec<u8>)>,
    control: Option<(ControlKind, Vec<u8>)>,
}

fn read_events(role: Role, limits: &ReadLimits, chunks: Vec<&[u8]>) -> Run {
    let mut reader = Reader::new(role);
    let mut parts = Parts::default();
    let mut items = Vec::new();
    for (number, chunk) in chunks.into_iter().enumerate() {
        let mut chunk = chunk.to_vec();
        let mut data = &mut chunk[..];
        loop {
            let left = data.len();
            match reader.next(&mut data, limits) {
                Ok(Event::NeedMore) => break,
                Ok(event) => items.extend(parts.take(event)),
                Err(error) => {
                    assert!(data.len() <= left);
                    let mut more = *b"\x81\x80key!";
                    let mut rest = &mut more[..];
                    assert_eq!(reader.next(&mut rest, limits), Err(error), "an error must stay");
                    assert_eq!(rest.len(), 6, "a failed reader takes nothing");
                    assert!(!reader.is_between_messages());
                    return (items, Some((error, number)));
                }
            }
        }
        assert!(data.is_empty(), "bytes were left without an event");
        if reader.is_between_messages() {
            assert!(parts.message.is_none() && parts.control.is_none());
        }
    }
    (items, None)
}

impl Parts {
    fn take(&mut self, event: Event<'_>) -> Option<Item> {
        match event {
            Event::NeedMore => None,
            Event::Message { kind, payload } => {
                assert!(self.message.is_none() && self.control.is_none());
                Some(Item::Message(kind, payload.to_vec()))
            }
            Event::MessagePart { kind, payload, last } => {
                assert!(self.control.is_none(), "a part within a control frame");
                let (begun, bytes) = self.message.get_or_insert((kind, Vec::new()));
                assert_eq!(*begun, kind, "a message changed its kind");
                bytes.extend_from_slice(payload);
                if !last {
                    return None;
                }
                self.message.take().map(|(kind, bytes)| Item::Message(kind, bytes))
            }
            Event::Control { kind, payload } => {
                assert!(self.control.is_none());
                Some(control(kind, payload.to_vec()))
            }
            Event::ControlPart { kind, payload, last } => {
                let (begun, bytes) = self.control.get_or_insert((kind, Vec::new()));
                assert_eq!(*begun, kind);
                bytes.extend_from_slice(payload);
                if !last {
                    return None;
                }
                self.control.take().map(|(kind, bytes)| control(kind, bytes))
            }
        }
    }
}

fn control(kind: ControlKind, payload: Vec<u8>) -> Item {
    match kind {
        ControlKind::Close => Item::Close(payload),
        ControlKind::Ping => Item::Ping(payload),
        ControlKind::Pong => Item::Pong(payload),
    }
}

/// The input's bytes as a message in fragments of the input's sizes, pings in between, through the encoder; and again as
/// one frame through the writer. `role` reads.
fn round_trip(input: &Input<'_>, role: Role) {
    let text = input.choice(3);
    let payload =
        if text { String::from_utf8_lossy(input.bytes).into_owned().into_bytes() } else { input.bytes.to_vec() };
    let kind = if text { MessageKind::Text } else { MessageKind::Binary };
    let sizes = input.ends();
    let mut keys = (1_u32..).map(|n| MaskingKey(n.wrapping_mul(0x9e37_79b1).to_be_bytes()));
    let mut key = || keys.next().filter(|_| role == Role::Server);
    let mut wire = Vec::new();
    let mut expected = Vec::new();

    let cuts = sizes.iter().map(|&end| end.min(payload.len())).chain([payload.len()]).collect::<Vec<_>>();
    let mut start = 0;
    for (i, &end) in cuts.iter().enumerate().take(900) {
        let last = i + 1 == cuts.len().min(900);
        let end = if last { payload.len() } else { end };
        let opcode = if i == 0 { kind.into() } else { Opcode::Continuation };
        encoder::frame(&mut wire, opcode, last, &payload[start..end], key());
        if !last {
            let ping = &payload[start..end.min(start + proto::MAX_CONTROL_PAYLOAD)];
            encoder::frame(&mut wire, Opcode::Ping, true, ping, key());
            expected.push(Item::Ping(ping.to_vec()));
        }
        start = end;
    }
    expected.push(Item::Message(kind, payload.clone()));

    let peer = if role == Role::Server { Role::Client } else { Role::Server };
    let before = wire.len();
    proto::Writer::new(peer).message(&mut wire, kind, &payload, key().unwrap_or_default()).expect("no Close was sent");
    let header = encoder::header_len(payload.len(), peer == Role::Client);
    assert_eq!(wire.len() - before, header + payload.len());
    expected.push(Item::Message(kind, payload));

    let limits = ReadLimits::default();
    assert_eq!(read_messages(role, &limits, vec![&wire]), (expected.clone(), None));
    assert_eq!(read_messages(role, &limits, wire.chunks(7).collect()), (expected, None));
}
