//! The body of a long-poll POST: one message, or a batch (docs/phoenix-wire.md §7).
#![forbid(unsafe_code)]

use crate::proto::MessageKind;
use base64::{Engine, engine::general_purpose::STANDARD};

/// Messages that one request may bring; those beyond are ignored.
pub const BATCH: usize = 100;

/// The messages of a body; none if one of a batch cannot be read. Any content type but that of batches makes the body one
/// text message.
pub fn messages(content_type: Option<&[u8]>, body: &[u8]) -> Option<Vec<(MessageKind, Vec<u8>)>> {
    if content_type != Some(b"application/x-ndjson") {
        return Some(vec![(MessageKind::Text, body.to_vec())]);
    }
    let items = body.split(|byte| *byte == b'\n').take(BATCH);
    items.map(|item| message(item.strip_suffix(b"\r").unwrap_or(item))).collect()
}

/// An item of a batch: a text message, or a binary one in base64.
fn message(item: &[u8]) -> Option<(MessageKind, Vec<u8>)> {
    match item.first() {
        Some(b'[') => Some((MessageKind::Text, item.to_vec())),
        _ => Some((MessageKind::Binary, STANDARD.decode(item).ok()?)),
    }
}
