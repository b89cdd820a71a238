//! Frames, written and read the naive way, from RFC 6455 §5.2 alone: nothing here uses the engine's codec.
#![forbid(unsafe_code)]

use std::collections::HashSet;

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("text is UTF-8")
    }

    /// The code of a Close frame; 1005 if it has none.
    pub fn code(&self) -> u16 {
        assert_eq!(self.opcode, CLOSE);
        self.payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]))
    }
}

/// One frame. `key` masks it.
pub fn frame(opcode: u8, fin: bool, payload: &[u8], key: Option<[u8; 4]>) -> Vec<u8> {
    let mut out = vec![u8::from(fin) << 7 | opcode];
    let mask = if key.is_some() { 0x80 } else { 0 };
    match payload.len() {
        len @ 0..126 => out.push(mask | len as u8),
        len @ 126..65536 => {
            out.push(mask | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(mask | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    let key_bytes = key.unwrap_or_default();
    if key.is_some() {
        out.extend(key_bytes);
    }
    out.extend(payload.iter().zip(key_bytes.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// A whole frame of a client.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame(opcode, true, payload, Some([0x37, 0xfa, 0x21, 0x3d]))
}

pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes(), reason.as_bytes()].concat()
}

/// An opening handshake with further fields.
pub fn request(target: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// Reads what one side of the engine sent, as it comes, and holds it to the rules that any such side has to keep.
#[derive(Debug, Default)]
pub struct Decoder {
    /// Whether the engine is the client here: then every frame is masked, each with another key.
    pub expects_masks: bool,
    /// The head of the handshake, once it is there.
    pub head: Option<String>,
    pub frames: Vec<Frame>,
    /// The Close frame was seen.
    pub closed: bool,
    bytes: Vec<u8>,
    at: usize,
    keys: HashSet<[u8; 4]>,
    pub keys_repeated: u32,
}

impl Decoder {
    /// For what the engine sends as a client.
    pub fn of_client() -> Decoder {
        Decoder { expects_masks: true, ..Decoder::default() }
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// What rule they break.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        if self.head.is_none() {
            let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(()) };
            let head = String::from_utf8(self.bytes[..end + 4].to_vec()).map_err(|_| "a head that is not text")?;
            self.at = end + 4;
            self.head = Some(head);
        }
        if !self.is_upgraded() {
            return Ok(());
        }
        while let Some((frame, len)) = self.cut()? {
            if self.closed {
                return Err(format!("a frame after the Close: {frame:?}"));
            }
            self.at += len;
            self.closed = frame.opcode == CLOSE;
            self.frames.push(frame);
        }
        if self.closed && self.at < self.bytes.len() {
            return Err("bytes after the Close".into());
        }
        if self.at > 1 << 16 {
            self.bytes.drain(..self.at);
            self.at = 0;
        }
        Ok(())
    }

    pub fn status(&self) -> Option<u16> {
        self.head.as_ref()?.split(' ').nth(1)?.parse().ok()
    }

    fn is_upgraded(&self) -> bool {
        self.expects_masks || self.status() == Some(101)
    }

    /// What follows the head, for answers that are no upgrade.
    pub fn body(&self) -> String {
        String::from_utf8_lossy(&self.bytes[self.at..]).into_owned()
    }

    pub fn messages(&self) -> impl Iterator<Item = &Frame> {
        self.frames.iter().filter(|frame| frame.opcode < CLOSE)
    }

    pub fn texts(&self) -> Vec<&str> {
        self.messages().map(Frame::text).collect()
    }

    pub fn close_code(&self) -> Option<u16> {
        self.frames.last().filter(|frame| frame.opcode == CLOSE).map(Frame::code)
    }

    /// The first frame of what is left, and its length on the wire; none if it is not all there.
    fn cut(&mut self) -> Result<Option<(Frame, usize)>, String> {
        let bytes = &self.bytes[self.at..];
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let opcode = first & 0x0f;
        if first & 0xf0 != 0x80 || !matches!(opcode, TEXT | BINARY | CLOSE | PING | PONG) {
            return Err(format!("first byte {first:#x}: the engine sends whole frames of known opcodes"));
        }
        if (second & 0x80 != 0) != self.expects_masks {
            return Err(format!("the mask bit of {second:#x} is wrong for this side"));
        }
        let extended = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let key_len = if self.expects_masks { 4 } else { 0 };
        if rest.len() < extended + key_len {
            return Ok(None);
        }
        let len = match extended {
            0 => usize::from(second & 0x7f),
            _ => rest[..extended].iter().fold(0, |len, &byte| len << 8 | usize::from(byte)),
        };
        if extended == 2 && len < 126 || extended == 8 && len < 65536 || opcode >= CLOSE && len > 125 {
            return Err(format!("opcode {opcode} with {len} bytes, written in {extended} more"));
        }
        let size = 2 + extended + key_len + len;
        if bytes.len() < size {
            return Ok(None);
        }
        let key = &rest[extended..extended + key_len];
        let mut payload = bytes[size - len..size].to_vec();
        if let &[a, b, c, d] = key {
            payload.iter_mut().zip([a, b, c, d].iter().cycle()).for_each(|(byte, key)| *byte ^= key);
            self.keys_repeated += u32::from(!self.keys.insert([a, b, c, d]));
        }
        if opcode == TEXT && std::str::from_utf8(&payload).is_err() {
            return Err("text that is not UTF-8".into());
        }
        if opcode == CLOSE {
            let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
            let legal = payload.is_empty() || matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if payload.len() == 1 || !legal || payload.len() > 2 && std::str::from_utf8(&payload[2..]).is_err() {
                return Err(format!("an illegal Close: {payload:?}"));
            }
        }
        Ok(Some((Frame { opcode, payload }, size)))
    }
}
