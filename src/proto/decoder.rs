//! Frames out of bytes: the place in the byte stream, kept over cuts anywhere.
#![forbid(unsafe_code)]

use super::{ControlKind, MaskingKey, MessageKind, ProtoError, Role, header::Header};

/// Where the byte stream was cut.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decoder {
    /// Between two frames.
    Idle,
    /// Within a header: its first `have` bytes.
    Header { bytes: [u8; Header::MAX_SIZE], have: u8 },
    /// Within a payload, at its start at the earliest.
    Payload(Payload),
    /// The connection is to be failed.
    Failed(ProtoError),
}

const _: () = assert!(size_of::<Decoder>() == 16);

/// What is left of a frame whose header was taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Payload {
    /// For the first byte that is left.
    key: MaskingKey,
    remaining: u32,
    kind: FrameKind,
    fin: bool,
    /// Whether it is all that there is of its message or control frame.
    whole: bool,
}

/// What a frame belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum FrameKind {
    Message(MessageKind),
    Control(ControlKind),
}

/// A stretch of a frame's payload, still masked.
pub(super) struct Piece<'d> {
    pub(super) kind: FrameKind,
    pub(super) bytes: &'d mut [u8],
    pub(super) key: MaskingKey,
    /// Whether its frame ends with it.
    pub(super) ends_frame: bool,
    /// Whether its message or control frame ends with it.
    pub(super) last: bool,
    /// Whether it is all of its message or control frame.
    pub(super) whole: bool,
}

impl Decoder {
    /// Takes a header that may be cut, between two frames or within one; `None`: more bytes are needed, `data` is
    /// empty.
    pub(super) fn take_header(
        &mut self,
        data: &mut &mut [u8],
        role: Role,
        in_message: bool,
    ) -> Result<Option<Header>, ProtoError> {
        let (mut bytes, mut have) = match *self {
            Decoder::Header { bytes, have } => (bytes, usize::from(have)),
            _ => ([0; Header::MAX_SIZE], 0),
        };
        while !data.is_empty() {
            let wanted = Header::announced_size(&bytes[..have]) - have;
            let part = take(data, wanted);
            bytes[have..have + part.len()].copy_from_slice(part);
            have += part.len();
            if let Some(header) = Header::parse(&bytes[..have], role, in_message)? {
                *self = Decoder::Idle;
                return Ok(Some(header));
            }
            *self = Decoder::Header { bytes, have: have as u8 };
        }
        Ok(None)
    }

    /// Takes the piece of `payload` that is in `data`, and moves on behind it; `None`: more bytes are needed, `data` is
    /// empty.
    pub(super) fn take_payload<'d>(&mut self, payload: Payload, data: &mut &'d mut [u8]) -> Option<Piece<'d>> {
        if data.is_empty() && payload.remaining > 0 {
            *self = Decoder::Payload(payload);
            return None;
        }
        let Payload { key, kind, fin, whole, .. } = payload;
        let bytes = take(data, payload.remaining as usize);
        let rest = payload.after(bytes.len());
        let ends_frame = rest.remaining == 0;
        *self = if ends_frame { Decoder::Idle } else { Decoder::Payload(rest) };
        Some(Piece { kind, bytes, key, ends_frame, last: ends_frame && fin, whole: ends_frame && whole })
    }
}

impl Payload {
    /// All of the payload of a frame, whose length has been checked against the limits: it fits.
    pub(super) fn begin(header: &Header, kind: FrameKind) -> Payload {
        let whole = header.opcode.is_control() || header.is_unfragmented();
        Payload { key: header.key, remaining: header.len as u32, kind, fin: header.fin, whole }
    }

    fn after(self, taken: usize) -> Payload {
        // A planted fault for the fuzzers: the place within the key is lost where a payload is cut.
        let key = if cfg!(planted_fault = "mask") { self.key } else { self.key.advanced(taken) };
        Payload { key, remaining: self.remaining - taken as u32, whole: false, ..self }
    }
}

/// The first `max` bytes of `data`, or all; `data` goes on behind them.
#[inline]
pub(super) fn take<'d>(data: &mut &'d mut [u8], max: usize) -> &'d mut [u8] {
    let len = data.len().min(max);
    let (front, rest) = std::mem::take(data).split_at_mut(len);
    *data = rest;
    front
}
