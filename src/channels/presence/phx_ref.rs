//! [`PhxRef`]: the name of one meta, and the text of a meta that carries it.
#![forbid(unsafe_code)]

use super::TrackError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Serialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;
use std::{fmt, str};

const CHARS: usize = 16;
/// What stands behind a meta's ref, which is its last field.
const TAIL: &str = "\"}";

/// The name of one meta, unique on all nodes: what clients tell metas apart by. Opaque; 16 characters of URL-safe base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PhxRef([u8; CHARS]);

/// Makes refs: 8 bytes of time in ns, 2 of the node, 2 of a counter. Times go up by at least one from ref to ref, so
/// that the clock may stand still or step back.
#[derive(Debug)]
pub(super) struct Refs {
    node: u16,
    last: AtomicU64,
}

impl PhxRef {
    /// The 16 characters.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("base64 is ASCII")
    }

    /// Of a text that [`stamp`] made.
    pub(super) fn of(meta: &str) -> PhxRef {
        let end = meta.len() - TAIL.len();
        PhxRef(meta.as_bytes()[end - CHARS..end].try_into().expect("the range has that length"))
    }
}

impl fmt::Display for PhxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PhxRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhxRef({self})")
    }
}

impl Refs {
    pub(super) fn new(node: u16) -> Refs {
        Refs { node, last: AtomicU64::new(0) }
    }

    /// The next ref. `now` is a hint: two threads that ask at the same time get different ones.
    pub(super) fn next(&self, now: SystemTime) -> PhxRef {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let after = |last: u64| Some(now.max(last + 1));
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).expect("always Some");
        let time = now.max(last + 1);
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&time.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.node.to_be_bytes());
        bytes[10..].copy_from_slice(&(last as u16).to_be_bytes());
        let mut chars = [0; CHARS];
        BASE64.encode_slice(bytes, &mut chars).expect("12 bytes are 16 characters");
        PhxRef(chars)
    }
}

/// The text of `meta` with its ref, and that which it replaces, as its last fields.
///
/// # Errors
/// It is no object, or has no JSON.
pub(super) fn stamp(
    meta: &(impl Serialize + ?Sized),
    reference: PhxRef,
    replaces: Option<PhxRef>,
) -> Result<Box<str>, TrackError> {
    let text = serde_json::to_string(meta).map_err(|_| TrackError::Unserializable)?;
    let text = if may_hold_refs(&text) { without_refs(&text)? } else { text };
    let fields = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or(TrackError::NotAnObject)?.trim();
    let comma = if fields.is_empty() { "" } else { "," };
    Ok(match replaces {
        None => format!("{{{fields}{comma}\"phx_ref\":\"{reference}{TAIL}"),
        Some(old) => format!("{{{fields}{comma}\"phx_ref_prev\":\"{old}\",\"phx_ref\":\"{reference}{TAIL}"),
    }
    .into_boxed_str())
}

/// Whether fields of ours may be there already, for instance because the meta came from [`super::Presence::get`]. An
/// escape may hide one.
fn may_hold_refs(text: &str) -> bool {
    text.contains("phx_ref") || text.contains("\\u")
}

fn without_refs(text: &str) -> Result<String, TrackError> {
    if !text.starts_with('{') {
        return Err(TrackError::NotAnObject);
    }
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(|_| TrackError::Unserializable)?;
    fields.remove("phx_ref");
    fields.remove("phx_ref_prev");
    serde_json::to_string(&fields).map_err(|_| TrackError::Unserializable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::HashSet;
    use std::time::Duration;

    fn stamped(meta: &(impl Serialize + ?Sized)) -> Result<String, TrackError> {
        stamp(meta, PhxRef(*b"0123456789abcdef"), None).map(String::from)
    }

    #[test]
    fn refs_are_unique_even_when_the_clock_steps_back() {
        let refs = Refs::new(7);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let seen = (0..10_000).map(|i| refs.next(now - Duration::from_nanos(i % 3))).collect::<HashSet<_>>();
        assert_eq!(seen.len(), 10_000);
        assert!(seen.iter().all(|r| BASE64.decode(r.as_str()).is_ok_and(|bytes| bytes[8..10] == [0, 7])));
        assert!(!seen.contains(&refs.next(SystemTime::UNIX_EPOCH - Duration::from_secs(1))));
    }

    #[test]
    fn the_ref_is_the_last_field_of_any_object() {
        assert_eq!(stamped(&json!({})).unwrap(), r#"{"phx_ref":"0123456789abcdef"}"#);
        assert_eq!(stamped(&json!({"a": [1]})).unwrap(), r#"{"a":[1],"phx_ref":"0123456789abcdef"}"#);
        let spaced = RawValue::from_string(" { \"a\" : 1.50 } ".trim().to_owned()).unwrap();
        assert_eq!(stamped(&*spaced).unwrap(), r#"{"a" : 1.50,"phx_ref":"0123456789abcdef"}"#);
        let empty = RawValue::from_string("{ }".to_owned()).unwrap();
        assert_eq!(PhxRef::of(&stamped(&*empty).unwrap()).as_str(), "0123456789abcdef");
        let (new, old) = (PhxRef(*b"0123456789abcdef"), PhxRef(*b"fedcba9876543210"));
        let text = stamp(&json!({"a": 1}), new, Some(old)).unwrap();
        assert_eq!(&*text, r#"{"a":1,"phx_ref_prev":"fedcba9876543210","phx_ref":"0123456789abcdef"}"#);
        assert_eq!(PhxRef::of(&text), new);
    }

    #[test]
    fn refs_that_a_meta_brings_are_replaced_however_they_are_written() {
        let brought = json!({"phx_ref": "x", "b": {"phx_ref": 1}, "phx_ref_prev": {}});
        assert_eq!(stamped(&brought).unwrap(), r#"{"b":{"phx_ref":1},"phx_ref":"0123456789abcdef"}"#);
        let hidden = RawValue::from_string(r#"{"phx\u005fref":"x","a":"\u00e9"}"#.to_owned()).unwrap();
        assert_eq!(stamped(&*hidden).unwrap(), r#"{"a":"\u00e9","phx_ref":"0123456789abcdef"}"#);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for meta in [json!([{}]), json!("{}"), json!("{phx_ref}"), json!(null), json!(7), json!(["phx_ref"])] {
            assert_eq!(stamped(&meta), Err(TrackError::NotAnObject), "{meta}");
        }
        assert_eq!(stamped(&std::collections::HashMap::from([((1, 2), 3)])), Err(TrackError::Unserializable));
    }
}
