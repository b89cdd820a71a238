//! The WebSocket that the floors speak: an opening handshake, whole frames, replies built in place. Nothing is validated:
//! no UTF-8, no limits, no fragments.
#![forbid(unsafe_code)]

use crate::topics::Topics;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use std::io::{self, ErrorKind};
use std::ops::Range;

const MASK_BIT: u8 = 0x80;
const OPCODE_BITS: u8 = 0x0f;
const CONTROL_BIT: u8 = 0x8;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
const KEY_LENGTH: usize = 4;
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a floor keeps of a connection beside its socket.
#[derive(Debug, Default)]
pub struct Session {
    role: Role,
    /// The start of a frame or request whose end has not arrived.
    cut: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Role {
    /// The request has not arrived as a whole.
    #[default]
    Opening,
    Echo,
    /// Publishes to the topic of this key.
    Publisher(usize),
    /// The same, and is sent all that anybody publishes to it.
    Member(usize),
}

/// What received bytes ask for.
#[derive(Debug, Default)]
pub struct Taken {
    /// To be sent before `replies`: the answer to a handshake, or to control frames of a connection with a topic.
    pub first: Vec<u8>,
    /// The range of the received bytes that is to be sent now.
    pub replies: Range<usize>,
    /// How many of the received bytes are done with; the others are the start of a frame.
    pub consumed: usize,
    /// To be closed when all that is sent.
    pub closing: bool,
}

impl Session {
    /// The start of a frame that an earlier call has left.
    pub fn cut(&self) -> &[u8] {
        &self.cut
    }

    /// The same, to be put before what is received next.
    pub fn take_cut(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.cut)
    }

    /// Gives back what [`Session::take_cut`] took, with what was added to it.
    pub fn restore_cut(&mut self, cut: Vec<u8>) {
        self.cut = cut;
    }

    /// Keeps the start of a frame, with room for all of it.
    pub fn keep_cut(&mut self, rest: &[u8]) {
        self.cut.clear();
        if !rest.is_empty() {
            self.cut.reserve_exact(frame_length(rest).unwrap_or_default().max(rest.len()));
            self.cut.extend_from_slice(rest);
        }
    }

    /// Answers what was received, from the start of a frame on. `own` names the connection to its topic.
    ///
    /// # Errors
    /// When the first bytes are no WebSocket handshake for a path that exists.
    pub fn take(&mut self, data: &mut [u8], topics: &mut Topics, own: usize) -> io::Result<Taken> {
        let mut first = Vec::new();
        let mut at = 0;
        if let Role::Opening = self.role {
            let Some(end) = data.windows(4).position(|window| window == b"\r\n\r\n") else {
                return Ok(Taken::default());
            };
            at = end + 4;
            let (role, response) = open(&data[..at], topics, own).ok_or(ErrorKind::InvalidData)?;
            self.role = role;
            first = response.into_bytes();
        }
        let mut taken = match self.role {
            Role::Publisher(topic) | Role::Member(topic) => publish(&mut data[at..], topics, topic, &mut first),
            Role::Opening | Role::Echo => {
                let echoed = echo(&mut data[at..], usize::MAX);
                let replies = at + echoed.replies.start..at + echoed.replies.end;
                Taken { replies, consumed: echoed.consumed, closing: echoed.closing, ..Taken::default() }
            }
        };
        taken.consumed += at;
        taken.first = first;
        Ok(taken)
    }

    /// To be called once when the connection has ended.
    pub fn leave(&self, topics: &mut Topics, own: usize) {
        if let Role::Member(topic) = self.role {
            topics.leave(topic, own);
        }
    }
}

/// Publishes the whole frames at the start of `data`; control frames are answered.
fn publish(data: &mut [u8], topics: &mut Topics, topic: usize, answers: &mut Vec<u8>) -> Taken {
    let mut taken = Taken::default();
    loop {
        let data = &mut data[taken.consumed..];
        let is_control = data.first().is_some_and(|first| first & CONTROL_BIT != 0);
        let echoed = echo(data, 1);
        if echoed.consumed == 0 {
            return taken;
        }
        match is_control {
            true => answers.extend_from_slice(&data[echoed.replies]),
            false => topics.publish(topic, &data[echoed.replies]),
        }
        taken.consumed += echoed.consumed;
        taken.closing |= echoed.closing;
    }
}

struct Echoed {
    replies: Range<usize>,
    consumed: usize,
    closing: bool,
}

/// Turns the whole frames at the start of `data`, `most` of them, into one run of replies, in place. A reply is four
/// bytes shorter than its frame (no masking key): the first payload stays where it is, later ones move towards it.
fn echo(data: &mut [u8], most: usize) -> Echoed {
    let mut at = 0;
    let mut written = KEY_LENGTH;
    let mut closing = false;
    let mut left = most;
    while left > 0
        && let Some((header, payload)) = frame(&data[at..])
    {
        left -= 1;
        let start = at + header + KEY_LENGTH;
        let key = [data[start - 4], data[start - 3], data[start - 2], data[start - 1]];
        data.copy_within(at..at + header, written);
        data[written + 1] &= !MASK_BIT;
        match data[written] & OPCODE_BITS {
            PING => data[written] = data[written] & !OPCODE_BITS | PONG,
            CLOSE => closing = true,
            _ => {}
        }
        written += header;
        unmask(&mut data[start..start + payload], key);
        if written != start {
            data.copy_within(start..start + payload, written);
        }
        written += payload;
        at = start + payload;
    }
    let replies = if at == 0 { 0..0 } else { KEY_LENGTH..written };
    Echoed { replies, consumed: at, closing }
}

/// Header bytes without the masking key, and payload bytes, of a frame that is there as a whole.
fn frame(data: &[u8]) -> Option<(usize, usize)> {
    let (header, payload) = header(data)?;
    (data.len() - header >= payload.checked_add(KEY_LENGTH)?).then_some((header, payload))
}

/// Bytes of a frame of which the header is there.
fn frame_length(data: &[u8]) -> Option<usize> {
    let (header, payload) = header(data)?;
    payload.checked_add(header + KEY_LENGTH)
}

fn header(data: &[u8]) -> Option<(usize, usize)> {
    let (header, payload) = match *data.get(1)? & !MASK_BIT {
        126 => (4, u64::from(u16::from_be_bytes(data.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(data.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    Some((header, usize::try_from(payload).ok()?))
}

fn unmask(payload: &mut [u8], key: [u8; KEY_LENGTH]) {
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let mut chunks = payload.chunks_exact_mut(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        chunk.copy_from_slice(&(u64::from_ne_bytes(word) ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

/// What a connection is for, and the answer to its request.
fn open(request: &[u8], topics: &mut Topics, own: usize) -> Option<(Role, String)> {
    let request = std::str::from_utf8(request).ok()?;
    let target = request.split(' ').nth(1)?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = request.lines().filter_map(|line| line.split_once(':'));
    let key = headers.find(|(name, _)| name.eq_ignore_ascii_case("sec-websocket-key"))?.1.trim();
    let topic = || query.split('&').find_map(|pair| pair.strip_prefix("topic="));
    let role = match path {
        "/echo" => Role::Echo,
        "/publish" => Role::Publisher(topics.key(topic()?)),
        "/topics" => Role::Member(topics.join(topic()?, own)),
        _ => return None,
    };
    let accept = STANDARD.encode(Sha1::new().chain_update(key).chain_update(ACCEPT_GUID).finalize());
    let response = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    Some((role, response))
}
