//! `longpoll_body`: the body of a long-poll POST against a parser that goes byte by byte, base64 by hand included.
#![forbid(unsafe_code)]

use wingbeat::MessageKind::{self, Binary, Text};
use wingbeat::endpoint::body::{BATCH, Batch, messages};

const NDJSON: &[u8] = b"application/x-ndjson";

/// The first byte chooses the content type: of a batch, none, or, with its length, bytes of the input.
pub fn longpoll_body(data: &[u8]) {
    let (content_type, body) = match data.split_first() {
        None => (None, data),
        Some((&choice @ 2..=64, rest)) => {
            let (content_type, body) = rest.split_at(rest.len().min(usize::from(choice)));
            (Some(content_type), body)
        }
        Some((0, rest)) => (None, rest),
        Some((_, rest)) => (Some(NDJSON), rest),
    };
    let read = messages(content_type, body);
    assert_eq!(read, naive(content_type, body));
    let Batch { messages, broken } = &read;
    assert!((usize::from(!broken)..=100).contains(&messages.len()) && BATCH == 100);
    assert!(messages.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() <= body.len());
}

fn naive(content_type: Option<&[u8]>, body: &[u8]) -> Batch {
    if content_type != Some(NDJSON) {
        return Batch { messages: vec![(Text, body.to_vec())], broken: false };
    }
    let mut items = vec![Vec::new()];
    for byte in body {
        let item = items.last_mut().expect("there is one");
        match byte {
            b'\n' => items.push(Vec::new()),
            byte => item.push(*byte),
        }
    }
    items.truncate(100);
    let mut messages: Vec<(MessageKind, Vec<u8>)> = Vec::new();
    for mut item in items {
        if item.last() == Some(&b'\r') {
            item.pop();
        }
        if item.first() == Some(&b'[') {
            messages.push((Text, item));
        } else if let Some(bytes) = unbase64(&item) {
            messages.push((Binary, bytes));
        } else {
            return Batch { messages, broken: true };
        }
    }
    Batch { messages, broken: false }
}

/// RFC 4648 §4, with all of its padding, and zeros in the bits that are left over.
fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() % 4 != 0 {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let (mut bits, mut held, mut out) = (0u32, 0, Vec::new());
    for byte in &text[..text.len() - padding] {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    (bits == 0).then_some(out)
}
