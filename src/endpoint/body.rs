//! The body of a long-poll POST: one message, or a batch (docs/phoenix-wire.md §7).
#![forbid(unsafe_code)]

use crate::proto::MessageKind;
use base64::{Engine, engine::general_purpose::STANDARD};

/// Messages that one request may bring; those beyond are ignored.
pub const BATCH: usize = 100;

/// What a body holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The messages up to one that cannot be read.
    pub messages: Vec<(MessageKind, Vec<u8>)>,
    /// Whether there was one: the session ends with it.
    pub broken: bool,
}

/// The messages of a body. Any content type but that of batches makes the body one text message.
pub fn messages(content_type: Option<&[u8]>, body: &[u8]) -> Batch {
    if content_type != Some(b"application/x-ndjson") {
        return Batch { messages: vec![(MessageKind::Text, body.to_vec())], broken: false };
    }
    let mut batch = Batch::default();
    for item in body.split(|byte| *byte == b'\n').take(BATCH) {
        let Some(message) = message(item.strip_suffix(b"\r").unwrap_or(item)) else {
            batch.broken = true;
            break;
        };
        batch.messages.push(message);
    }
    batch
}

/// An item of a batch: a text message, or a binary one in base64.
fn message(item: &[u8]) -> Option<(MessageKind, Vec<u8>)> {
    match item.first() {
        Some(b'[') => Some((MessageKind::Text, item.to_vec())),
        _ => Some((MessageKind::Binary, STANDARD.decode(item).ok()?)),
    }
}
