//! Writing strings, slots and replies as JSON text.
#![forbid(unsafe_code)]

use super::{Payload, Slot, json_read::plain};

/// A string with its quotes, escaped no more than RFC 8259 §7 demands. Allocates nothing but what `out` grows by.
pub(super) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    loop {
        let (copied, special) = rest.split_at(plain(rest));
        out.extend_from_slice(copied);
        let Some((&byte, behind)) = special.split_first() else { break };
        escape(out, byte);
        rest = behind;
    }
    out.push(b'"');
}

/// A slot, as it came.
pub(super) fn slot(out: &mut Vec<u8>, slot: &Slot<'_>) {
    match slot {
        Slot::Null => out.extend_from_slice(b"null"),
        Slot::Text(text) => string(out, text),
        Slot::Other(json) => out.extend_from_slice(json.as_bytes()),
    }
}

/// The payload of `phx_reply`.
pub(super) fn reply(out: &mut Vec<u8>, status: &str, response: &Payload<'_>) {
    out.extend_from_slice(br#"{"status":"#);
    string(out, status);
    out.extend_from_slice(br#","response":"#);
    out.extend_from_slice(response.as_bytes());
    out.push(b'}');
}

fn escape(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let short = match byte {
        b'"' | b'\\' => byte,
        0x08 => b'b',
        b'\t' => b't',
        b'\n' => b'n',
        0x0c => b'f',
        b'\r' => b'r',
        _ => {
            out.extend_from_slice(b"\\u00");
            return out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_serde_json_does() {
        let written = |text: &str| {
            let mut out = Vec::new();
            string(&mut out, text);
            String::from_utf8(out).unwrap()
        };
        for text in ["", "a", "\"", "a\\b", "é/\u{2028}\u{7f}😀", &"long ".repeat(50)] {
            assert_eq!(written(text), serde_json::to_string(text).unwrap());
        }
        for code in 0..0x300 {
            let text = format!("before {0}{0} behind", char::from_u32(code).unwrap());
            assert_eq!(written(&text), serde_json::to_string(&text).unwrap());
        }
    }
}
