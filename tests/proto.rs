//! The frame codec against scripts of messages, in any chunks, at each limit, and for each way to break the protocol.
#![forbid(unsafe_code)]

use proptest::{collection::vec, prelude::*};
use wingbeat::proto::{
    self, Assembler, CloseCode, ControlKind, Event, Fault, Incoming, MAX_CONTROL_PAYLOAD, MaskingKey, MessageKind,
    Opcode, ProtoError, ReadLimits, Reader, Role, Writer, encoder,
};

/// What a byte stream comes down to, however it is cut.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Message(MessageKind, Vec<u8>),
    Control(ControlKind, Vec<u8>),
    Failed(ProtoError),
}

fn other(role: Role) -> Role {
    if role == Role::Server { Role::Client } else { Role::Server }
}

fn key_for(reader: Role, key: [u8; 4]) -> Option<MaskingKey> {
    (reader == Role::Server).then_some(MaskingKey(key))
}

/// Reads `bytes` in chunks of the given sizes (over and over), and checks what must hold for each event.
fn read(role: Role, limits: &ReadLimits, bytes: &[u8], chunks: &[usize]) -> Vec<Outcome> {
    let (mut reader, mut assembler, mut outcomes) = (Reader::new(role), Assembler::default(), Vec::new());
    let (mut bytes, mut sizes) = (bytes.to_vec(), chunks.iter().cycle());
    let mut rest = &mut bytes[..];
    while !rest.is_empty() {
        let size = sizes.next().map_or(rest.len(), |&size| size.clamp(1, rest.len()));
        let (mut data, later) = rest.split_at_mut(size);
        rest = later;
        loop {
            match reader.next(&mut data, limits) {
                Ok(Event::NeedMore) => break assert!(data.is_empty()),
                Ok(event) => outcomes.extend(assemble(&mut assembler, event)),
                Err(error) => {
                    let left = data.len();
                    assert_eq!(reader.next(&mut data, limits), Err(error), "an error stays");
                    assert_eq!(data.len(), left);
                    assert!(!reader.is_between_messages());
                    outcomes.push(Outcome::Failed(error));
                    return outcomes;
                }
            }
        }
    }
    outcomes
}

fn assemble(assembler: &mut Assembler, event: Event<'_>) -> Option<Outcome> {
    match event {
        Event::NeedMore => None,
        Event::Message { kind, payload } => Some(Outcome::Message(kind, payload.to_vec())),
        Event::Control { kind, payload } => Some(Outcome::Control(kind, payload.to_vec())),
        Event::MessagePart { kind, payload, last } => {
            assembler.message_part(payload, last).map(|whole| Outcome::Message(kind, whole.to_vec()))
        }
        Event::ControlPart { kind, payload, last } => {
            assembler.control_part(payload, last).map(|whole| Outcome::Control(kind, whole.to_vec()))
        }
    }
}

// Scripts: what a well-behaved peer sends.

#[derive(Clone, Debug)]
enum Step {
    Message { kind: MessageKind, payload: Vec<u8>, cuts: Vec<prop::sample::Index>, between: Vec<u8> },
    Control { kind: ControlKind, payload: Vec<u8> },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![4 => 0..40usize, 2 => 100..300usize, 1 => 65_530..65_540usize];
    let payload = len.prop_flat_map(|len| vec(any::<u8>(), len));
    let control = vec(any::<u8>(), 0..=MAX_CONTROL_PAYLOAD);
    let text = vec(prop_oneof![any::<char>(), prop::char::range(' ', '~')], 0..60)
        .prop_map(|text| text.into_iter().collect::<String>().into_bytes());
    let between = vec(any::<u8>(), 0..5);
    let message = prop_oneof![
        payload.prop_map(|payload| (MessageKind::Binary, payload)),
        text.prop_map(|payload| (MessageKind::Text, payload))
    ];
    let kind = prop_oneof![Just(ControlKind::Ping), Just(ControlKind::Pong), Just(ControlKind::Close)];
    prop_oneof![
        3 => (message, vec(any::<prop::sample::Index>(), 0..4), between)
            .prop_map(|((kind, payload), cuts, between)| Step::Message { kind, payload, cuts, between }),
        1 => (kind, control).prop_map(|(kind, payload)| Step::Control { kind, payload }),
    ]
}

/// The bytes of a script, with a ping after each fragment but the last, and what they have to come down to.
fn play(script: &[Step], reader: Role, key: [u8; 4]) -> (Vec<u8>, Vec<Outcome>) {
    let (mut bytes, mut outcomes, key) = (Vec::new(), Vec::new(), key_for(reader, key));
    for step in script {
        match step {
            Step::Control { kind, payload } => {
                encoder::frame(&mut bytes, (*kind).into(), true, payload, key);
                outcomes.push(Outcome::Control(*kind, payload.clone()));
            }
            Step::Message { kind, payload, cuts, between } => {
                let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
                cuts.sort_unstable();
                let (mut from, mut opcode) = (0, Opcode::from(*kind));
                for cut in cuts {
                    encoder::frame(&mut bytes, opcode, false, &payload[from..cut], key);
                    encoder::frame(&mut bytes, Opcode::Ping, true, between, key);
                    outcomes.push(Outcome::Control(ControlKind::Ping, between.clone()));
                    (from, opcode) = (cut, Opcode::Continuation);
                }
                encoder::frame(&mut bytes, opcode, true, &payload[from..], key);
                outcomes.push(Outcome::Message(*kind, payload.clone()));
            }
        }
    }
    (bytes, outcomes)
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
}

/// First bytes of frames that are legal somewhere.
const FIRST_BYTES: [u8; 9] = [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x88, 0x89, 0x8a];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_encoded_is_read_back_in_any_chunks(
        role in role(), script in vec(step(), 0..8), key: [u8; 4], chunks in vec(1..200usize, 0..8),
    ) {
        let (bytes, outcomes) = play(&script, role, key);
        prop_assert_eq!(read(role, &ReadLimits::default(), &bytes, &[]), &outcomes[..]);
        prop_assert_eq!(read(role, &ReadLimits::default(), &bytes, &chunks), &outcomes[..]);
        prop_assert_eq!(read(role, &ReadLimits::default(), &bytes, &[1]), &outcomes[..]);
    }

    #[test]
    fn damaged_bytes_come_down_to_the_same_in_any_chunks(
        role in role(), script in vec(step(), 1..6), key: [u8; 4], chunks in vec(1..40usize, 1..8),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        max_message in 0..400u32, free_fragments in 0..4u32,
    ) {
        let (mut bytes, _) = play(&script, role, key);
        for (at, byte) in damage {
            let near_the_start = at.index(bytes.len().min(400));
            bytes[near_the_start] = byte;
        }
        let limits = ReadLimits { max_message, free_fragments, min_fragment_bytes: 8 };
        let whole = read(role, &limits, &bytes, &[]);
        prop_assert_eq!(read(role, &limits, &bytes, &chunks), &whole[..]);
        prop_assert_eq!(read(role, &limits, &bytes, &[1]), &whole[..]);
    }

    #[test]
    fn noise_that_looks_like_frames_comes_down_to_the_same_in_any_chunks(
        frames in vec((prop::sample::select(&FIRST_BYTES[..]), vec(any::<u8>(), 0..20)), 1..12),
        chunks in vec(1..10usize, 1..8),
    ) {
        let mut bytes = Vec::new();
        for (first, payload) in &frames {
            bytes.extend_from_slice(&[*first, payload.len() as u8]);
            bytes.extend_from_slice(payload);
        }
        let whole = read(Role::Client, &ReadLimits::default(), &bytes, &[]);
        prop_assert_eq!(read(Role::Client, &ReadLimits::default(), &bytes, &chunks), whole);
    }

    #[test]
    fn text_is_accepted_exactly_if_the_standard_library_accepts_it(
        mut text in vec(any::<char>(), 0..40).prop_map(|text| text.into_iter().collect::<String>().into_bytes()),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
        cuts in vec(any::<prop::sample::Index>(), 0..3), key: [u8; 4], chunks in vec(1..20usize, 0..4),
    ) {
        if let Some((at, byte)) = damage && !text.is_empty() {
            let at = at.index(text.len());
            text[at] = byte;
        }
        let script = [Step::Message { kind: MessageKind::Text, payload: text.clone(), cuts, between: Vec::new() }];
        let (bytes, _) = play(&script, Role::Server, key);
        let outcomes = read(Role::Server, &ReadLimits::default(), &bytes, &chunks);
        let last = match std::str::from_utf8(&text) {
            Ok(_) => Outcome::Message(MessageKind::Text, text),
            Err(_) => Outcome::Failed(ProtoError::InvalidUtf8),
        };
        prop_assert_eq!(outcomes.last(), Some(&last));
    }

    #[test]
    fn the_pair_talks_to_its_counterpart(
        role in role(), payload in vec(any::<u8>(), 0..300), key: [u8; 4], chunk in 1..50usize,
    ) {
        let (mut writer, mut out, key) = (Writer::new(other(role)), Vec::new(), MaskingKey(key));
        let control = &payload[..payload.len().min(MAX_CONTROL_PAYLOAD)];
        writer.message(&mut out, MessageKind::Binary, &payload, key)?;
        writer.ping(&mut out, control, key)?;
        writer.pong(&mut out, control, key)?;
        writer.close(&mut out, CloseCode::new(4000), "done ✓", key)?;
        out.extend_from_slice(b"what follows a Close frame is nobody's");
        let pair = if role == Role::Server { proto::server } else { proto::client };
        let (mut reader, _) = pair(ReadLimits::default());
        let mut expected = [
            Incoming::Message { kind: MessageKind::Binary, payload: &payload },
            Incoming::Ping(control),
            Incoming::Pong(control),
            Incoming::Close(CloseCode::new(4000).map(|code| (code, "done ✓"))),
        ].into_iter();
        for mut data in out.chunks_mut(chunk) {
            while let Some(incoming) = reader.next(&mut data)? {
                prop_assert_eq!(Some(incoming), expected.next());
            }
        }
        prop_assert_eq!(expected.next(), None);
    }
}

// Each way to break the protocol. The error has to come at the last byte of the row, not before and not after.

const KEY: &[u8] = &[0; 4];

fn masked(head: &[u8], payload: &[u8]) -> Vec<u8> {
    [head, KEY, payload].concat()
}

#[test]
fn each_error_comes_at_its_first_bad_byte_with_its_close_code() {
    use ProtoError::*;
    let hi = masked(b"\x01\x82", b"hi"); // an open message
    let rows: Vec<(Role, Vec<u8>, ProtoError, u16)> = vec![
        (Role::Server, b"\x81\x05".to_vec(), UnmaskedFrame, 1002),
        (Role::Server, b"\x89\x00".to_vec(), UnmaskedFrame, 1002),
        (Role::Client, b"\x81\x85".to_vec(), MaskedFrame, 1002),
        (Role::Server, b"\xc1".to_vec(), ReservedBits, 1002),
        (Role::Server, b"\xa2".to_vec(), ReservedBits, 1002),
        (Role::Client, b"\x99".to_vec(), ReservedBits, 1002),
        (Role::Server, b"\x83".to_vec(), UnknownOpcode, 1002),
        (Role::Server, b"\x07".to_vec(), UnknownOpcode, 1002),
        (Role::Server, b"\x8b".to_vec(), UnknownOpcode, 1002),
        (Role::Client, b"\x8f".to_vec(), UnknownOpcode, 1002),
        (Role::Server, b"\x08".to_vec(), FragmentedControl, 1002),
        (Role::Server, b"\x09".to_vec(), FragmentedControl, 1002),
        (Role::Client, b"\x0a".to_vec(), FragmentedControl, 1002),
        (Role::Server, b"\x89\xfe".to_vec(), ControlTooLong, 1002),
        (Role::Client, b"\x88\x7f".to_vec(), ControlTooLong, 1002),
        (Role::Server, b"\x82\xfe\x00\x7d".to_vec(), LengthNotMinimal, 1002),
        (Role::Server, b"\x82\xff\x00\x00\x00\x00\x00\x00".to_vec(), LengthNotMinimal, 1002),
        (Role::Server, b"\x82\xff\x80".to_vec(), LengthTooLarge, 1002),
        (Role::Client, b"\x82\x7f\xff".to_vec(), LengthTooLarge, 1002),
        (Role::Server, b"\x80".to_vec(), UnexpectedContinuation, 1002),
        (Role::Client, b"\x81\x02hi\x00".to_vec(), UnexpectedContinuation, 1002),
        (Role::Server, [&hi[..], b"\x81"].concat(), UnfinishedMessage, 1002),
        (Role::Server, [&hi[..], &masked(b"\x89\x80", b""), b"\x02"].concat(), UnfinishedMessage, 1002),
        (Role::Server, masked(b"\x81\x85", b"ab\xff"), InvalidUtf8, 1007),
        (Role::Server, masked(b"\x81\x85", b"\xf4\x90"), InvalidUtf8, 1007),
        (Role::Server, masked(b"\x81\x85", b"\xed\xa0"), InvalidUtf8, 1007),
        (Role::Server, masked(b"\x81\x83", b"ab\xc3"), InvalidUtf8, 1007),
        (
            Role::Server,
            [&masked(b"\x01\x83", b"ab\xe2"), &masked(b"\x00\x80", b"")[..], &masked(b"\x80\x85", b"\x28")].concat(),
            InvalidUtf8,
            1007,
        ),
        (Role::Client, b"\x01\x01\xe2\x80\x00".to_vec(), InvalidUtf8, 1007),
        (Role::Server, masked(b"\x82\xfe\x03\xe9", b""), MessageTooBig, 1009),
        (Role::Client, b"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(), MessageTooBig, 1009),
        (
            Role::Server,
            [&hi[..], &masked(b"\x80\xff\x7f\xff\xff\xff\xff\xff\xff\xff", b"")].concat(),
            MessageTooBig,
            1009,
        ),
        (Role::Client, b"\x02\x04data\x00\x04data\x00\x04data\x00\x03".to_vec(), TooManyFragments, 1008),
    ];
    let limits = ReadLimits { max_message: 1000, free_fragments: 3, min_fragment_bytes: 4 };
    for (role, bytes, error, code) in &rows {
        let (code, fault) = (CloseCode::new(*code).unwrap(), if *code > 1007 { Fault::Local } else { Fault::Peer });
        assert_eq!((error.close_code(), error.fault()), (code, fault), "{error:?}");
        assert!(!error.to_string().is_empty() && code.is_sendable());
        for chunks in [&[][..], &[1]] {
            let outcomes = read(*role, &limits, bytes, chunks);
            assert_eq!(outcomes.last(), Some(&Outcome::Failed(*error)), "{bytes:x?}");
            let before = read(*role, &limits, &bytes[..bytes.len() - 1], chunks);
            assert!(
                !before.iter().any(|outcome| matches!(outcome, Outcome::Failed(_))),
                "{error:?} too early: {bytes:x?}"
            );
        }
    }
}

#[test]
fn a_close_frame_with_a_bad_payload_fails_the_pair_and_stays_failed() {
    for (payload, error) in [
        (&b"\x03"[..], ProtoError::BadCloseLength),
        (b"\x03\xee", ProtoError::BadCloseCode),
        (b"\x03\xe8\xff", ProtoError::InvalidUtf8),
    ] {
        let (mut reader, _) = proto::client(ReadLimits::default());
        let mut bytes = Vec::new();
        encoder::frame(&mut bytes, Opcode::Close, true, payload, None);
        bytes.extend_from_slice(b"\x81\x00");
        let mut data = &mut bytes[..];
        assert_eq!(reader.next(&mut data), Err(error));
        assert_eq!(reader.next(&mut data), Err(error));
    }
}

// Limits, exactly at and one beyond.

fn limits(max_message: u32, free_fragments: u32, min_fragment_bytes: u32) -> ReadLimits {
    ReadLimits { max_message, free_fragments, min_fragment_bytes }
}

/// Reads frames of these payload sizes, all of one message, and tells the error.
fn read_fragments(limits: &ReadLimits, sizes: &[usize]) -> Option<ProtoError> {
    let mut bytes = Vec::new();
    for (i, &size) in sizes.iter().enumerate() {
        let opcode = if i == 0 { Opcode::Binary } else { Opcode::Continuation };
        encoder::frame(&mut bytes, opcode, i + 1 == sizes.len(), &vec![7; size], None);
    }
    let whole = read(Role::Client, limits, &bytes, &[]);
    assert_eq!(read(Role::Client, limits, &bytes, &[3]), whole);
    match whole.last() {
        Some(Outcome::Failed(error)) => Some(*error),
        Some(Outcome::Message(_, payload)) if payload.len() == sizes.iter().sum::<usize>() => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_message_limit_is_inclusive_and_over_all_fragments() {
    let limits = limits(1000, 1024, 32);
    assert_eq!(read_fragments(&limits, &[1000]), None);
    assert_eq!(read_fragments(&limits, &[1001]), Some(ProtoError::MessageTooBig));
    assert_eq!(read_fragments(&limits, &[500, 0, 499, 1]), None);
    assert_eq!(read_fragments(&limits, &[500, 0, 500, 1]), Some(ProtoError::MessageTooBig));
    assert_eq!(read_fragments(&ReadLimits { max_message: 0, ..limits }, &[0]), None);
    assert_eq!(read_fragments(&ReadLimits { max_message: 0, ..limits }, &[1]), Some(ProtoError::MessageTooBig));
}

#[test]
fn each_message_has_its_own_account() {
    let limits = limits(10, 2, 4);
    let mut bytes = Vec::new();
    for _ in 0..5 {
        for (opcode, fin) in [(Opcode::Binary, false), (Opcode::Continuation, true)] {
            encoder::frame(&mut bytes, opcode, fin, b"12345", None);
        }
        encoder::frame(&mut bytes, Opcode::Binary, true, b"1234567890", None);
    }
    assert_eq!(read(Role::Client, &limits, &bytes, &[]).len(), 10);
    assert_eq!(read(Role::Client, &limits, &bytes, &[4]).len(), 10);
}

#[test]
fn fragments_beyond_the_free_ones_must_be_large_enough_on_average() {
    let limits = limits(1 << 20, 4, 10);
    assert_eq!(read_fragments(&limits, &[0, 0, 0, 0]), None);
    assert_eq!(read_fragments(&limits, &[0, 0, 0, 0, 49]), Some(ProtoError::TooManyFragments));
    assert_eq!(read_fragments(&limits, &[0, 0, 0, 0, 50]), None);
    assert_eq!(read_fragments(&limits, &[0, 0, 0, 0, 50, 10, 10]), None);
    assert_eq!(read_fragments(&limits, &[0, 0, 0, 0, 50, 10, 9]), Some(ProtoError::TooManyFragments));
    let default = ReadLimits::default();
    assert_eq!(read_fragments(&default, &[1; 1024]), None);
    assert_eq!(read_fragments(&default, &[1; 1025]), Some(ProtoError::TooManyFragments));
    assert_eq!(read_fragments(&default, &[32; 2000]), None);
    let unfragmented = ReadLimits { free_fragments: 0, ..default };
    assert_eq!(read_fragments(&unfragmented, &[5]), None, "a message in one frame has no fragments");
    assert_eq!(read_fragments(&unfragmented, &[5, 5]), Some(ProtoError::TooManyFragments));
}

#[test]
fn control_payloads_of_125_bytes_pass() {
    for role in [Role::Server, Role::Client] {
        let mut bytes = Vec::new();
        encoder::frame(&mut bytes, Opcode::Ping, true, &[9; MAX_CONTROL_PAYLOAD], key_for(role, [1, 2, 3, 4]));
        let expected = [Outcome::Control(ControlKind::Ping, vec![9; MAX_CONTROL_PAYLOAD])];
        assert_eq!(read(role, &ReadLimits::default(), &bytes, &[]), expected);
        assert_eq!(read(role, &ReadLimits::default(), &bytes, &[7]), expected);
    }
}

// Zero copy.

#[test]
fn what_arrives_whole_is_lent_from_the_buffer_it_came_in() {
    for (kind, size) in
        [(MessageKind::Text, 0), (MessageKind::Text, 20), (MessageKind::Binary, 1000), (MessageKind::Text, 70_000)]
    {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            encoder::frame(&mut bytes, kind.into(), true, &vec![b'x'; size], Some(MaskingKey([1, 2, 3, 4])));
        }
        let frame = bytes.len() / 3;
        let start = bytes.as_ptr() as usize;
        let (mut reader, mut data) = (Reader::new(Role::Server), &mut bytes[..]);
        for i in 0..3 {
            assert!(reader.is_between_messages());
            let Ok(Event::Message { payload, .. }) = reader.next(&mut data, &ReadLimits::default()) else { panic!() };
            assert_eq!(payload.as_ptr() as usize, start + (i + 1) * frame - size);
            assert!(payload.len() == size && payload.iter().all(|&byte| byte == b'x'));
        }
        assert_eq!(reader.next(&mut data, &ReadLimits::default()), Ok(Event::NeedMore));
    }
}

#[test]
fn the_pair_copies_nothing_that_arrives_whole_and_once_what_does_not() {
    let (mut reader, _) = proto::server(ReadLimits::default());
    let mut bytes = Vec::new();
    for _ in 0..10 {
        encoder::frame(
            &mut bytes,
            Opcode::Text,
            true,
            "naïve café ".repeat(50).as_bytes(),
            Some(MaskingKey([9, 8, 7, 6])),
        );
        encoder::frame(&mut bytes, Opcode::Ping, true, b"ping", Some(MaskingKey([9, 8, 7, 6])));
    }
    let (whole, mut cut) = (bytes.len(), bytes.clone());
    let (mut data, mut seen) = (&mut bytes[..], 0);
    while reader.next(&mut data).unwrap().is_some() {
        seen += 1;
    }
    assert_eq!((seen, reader.copied()), (20, 0));

    for mut data in cut.chunks_mut(whole.div_ceil(7)) {
        while reader.next(&mut data).unwrap().is_some() {
            seen += 1;
        }
    }
    assert_eq!(seen, 40);
    let payload = "naïve café ".repeat(50).len() as u64;
    assert!((1..=6 * payload).contains(&reader.copied()), "{} bytes copied over 6 cuts", reader.copied());
}

#[test]
fn a_header_that_was_cut_does_not_cost_a_copy() {
    let mut bytes = Vec::new();
    encoder::frame(&mut bytes, Opcode::Binary, true, &[5; 300], Some(MaskingKey([1, 2, 3, 4])));
    for cut in 1..=8 {
        let mut reader = Reader::new(Role::Server);
        let mut copy = bytes.clone();
        let (mut head, mut tail) = copy.split_at_mut(cut);
        assert_eq!(reader.next(&mut head, &ReadLimits::default()), Ok(Event::NeedMore));
        assert!(!reader.is_between_messages());
        let event = reader.next(&mut tail, &ReadLimits::default());
        assert_eq!(event, Ok(Event::Message { kind: MessageKind::Binary, payload: &mut [5; 300] }));
        assert!(reader.is_between_messages());
    }
}

#[test]
fn an_empty_frame_is_reported_with_the_last_byte_of_its_header() {
    for (first, expected) in [
        (0x81, Event::Message { kind: MessageKind::Text, payload: &mut [] }),
        (0x02, Event::MessagePart { kind: MessageKind::Binary, payload: &mut [], last: false }),
        (0x89, Event::Control { kind: ControlKind::Ping, payload: &mut [] }),
    ] {
        for cut in 0..6 {
            let mut bytes = [first, 0x80, 1, 2, 3, 4];
            let (mut head, mut tail) = bytes.split_at_mut(cut);
            let mut reader = Reader::new(Role::Server);
            assert_eq!(reader.next(&mut head, &ReadLimits::default()), Ok(Event::NeedMore));
            assert_eq!(reader.next(&mut tail, &ReadLimits::default()).as_ref(), Ok(&expected));
            assert_eq!(reader.next(&mut tail, &ReadLimits::default()), Ok(Event::NeedMore));
        }
    }
}
