//! Events out of bytes: what a connection receives.
#![forbid(unsafe_code)]

use super::decoder::{Decoder, FrameKind, Payload, Piece, take};
use super::{ControlKind, MaskingKey, MessageKind, ProtoError, ReadLimits, Role, header::Header, mask, utf8};

/// The receiving half of a connection: 28 bytes, no heap. It never copies a payload; what is cut is handed out in
/// parts, see [`Assembler`](super::Assembler).
///
/// The same bytes give the same messages, control frames and error, however they are cut into calls.
#[derive(Clone, Debug)]
pub struct Reader {
    decoder: Decoder,
    /// Payload bytes of the message in progress, with all of the frame whose header was taken last.
    message_bytes: u32,
    fragments: u32,
    /// The message in progress.
    message: Option<MessageKind>,
    text: utf8::Validator,
    role: Role,
}

const _: () = assert!(size_of::<Reader>() <= 32);

/// What [`Reader::next`] found. Payloads are unmasked slices of the buffer that the bytes came in.
#[derive(PartialEq, Eq, Debug)]
pub enum Event<'d> {
    /// All bytes are used up, and `data` is empty.
    NeedMore,
    /// An unfragmented message whose payload lay whole in `data`.
    Message {
        /// Text has been checked.
        kind: MessageKind,
        /// Unmasked in place.
        payload: &'d mut [u8],
    },
    /// The next piece of a message that is fragmented or was cut. Control frames may come between.
    MessagePart {
        /// The same for all parts of a message.
        kind: MessageKind,
        /// May be empty. Text has been checked as far as it goes; a code point may be cut.
        payload: &'d mut [u8],
        /// Whether it ends the message.
        last: bool,
    },
    /// A control frame whose payload lay whole in `data`.
    Control {
        /// Which.
        kind: ControlKind,
        /// At most 125 bytes.
        payload: &'d mut [u8],
    },
    /// The next piece of a control frame that was cut. Nothing else comes between its parts.
    ControlPart {
        /// The same for all parts.
        kind: ControlKind,
        /// All parts together have at most 125 bytes.
        payload: &'d mut [u8],
        /// Whether it ends the control frame.
        last: bool,
    },
}

impl Reader {
    /// At the start of a connection, after the opening handshake. `role` is our side.
    pub const fn new(role: Role) -> Reader {
        Reader {
            decoder: Decoder::Idle,
            message_bytes: 0,
            fragments: 0,
            message: None,
            text: utf8::Validator::new(),
            role,
        }
    }

    /// Takes the next event from the front of `data`, which then begins behind it. The event borrows the buffer, not
    /// the reader.
    ///
    /// # Errors
    /// What fails the connection, at the first byte that no legal continuation has there: a message that came before it
    /// in `data` has been returned. From then on the same error, and `data` is left alone.
    #[inline]
    pub fn next<'d>(&mut self, data: &mut &'d mut [u8], limits: &ReadLimits) -> Result<Event<'d>, ProtoError> {
        if self.is_between_messages()
            && let Ok(Some(header)) = Header::parse(data, self.role, false)
            && header.is_unfragmented()
            && header.len <= u64::from(limits.max_message)
            && header.len <= (data.len() - header.size) as u64
            && let Some(kind) = header.opcode.message_kind()
        {
            take(data, header.size);
            let payload = take(data, header.len as usize);
            if !unmask_whole(kind, payload, header.key) {
                return Err(self.fail(ProtoError::InvalidUtf8));
            }
            return Ok(Event::Message { kind, payload });
        }
        self.next_in_general(data, limits)
    }

    /// Whether no message and no frame is in progress, not even a byte of it. False after an error.
    #[inline]
    pub fn is_between_messages(&self) -> bool {
        matches!(self.decoder, Decoder::Idle) && self.message.is_none()
    }

    /// Makes every later call fail with `error`.
    #[cold]
    pub(super) fn fail(&mut self, error: ProtoError) -> ProtoError {
        self.decoder = Decoder::Failed(error);
        error
    }

    /// Whatever is cut, fragmented, a control frame, or wrong.
    #[inline(never)]
    fn next_in_general<'d>(&mut self, data: &mut &'d mut [u8], limits: &ReadLimits) -> Result<Event<'d>, ProtoError> {
        let payload = match self.decoder {
            Decoder::Failed(error) => return Err(error),
            Decoder::Payload(payload) => payload,
            Decoder::Idle | Decoder::Header { .. } => match self.open(data, limits) {
                Ok(Some(payload)) => payload,
                Ok(None) => return Ok(Event::NeedMore),
                Err(error) => return Err(self.fail(error)),
            },
        };
        let Some(piece) = self.decoder.take_payload(payload, data) else { return Ok(Event::NeedMore) };
        match piece.kind {
            FrameKind::Control(kind) => Ok(control_event(kind, piece)),
            FrameKind::Message(kind) => self.message_event(kind, piece).map_err(|error| self.fail(error)),
        }
    }

    /// Takes a header, and enters its frame into the account of its message; `None`: it is cut.
    fn open(&mut self, data: &mut &mut [u8], limits: &ReadLimits) -> Result<Option<Payload>, ProtoError> {
        let Some(header) = self.decoder.take_header(data, self.role, self.message.is_some())? else { return Ok(None) };
        let kind = match header.opcode.control_kind() {
            Some(kind) => FrameKind::Control(kind),
            None => FrameKind::Message(self.account(&header, limits)?),
        };
        Ok(Some(Payload::begin(&header, kind)))
    }

    fn account(&mut self, header: &Header, limits: &ReadLimits) -> Result<MessageKind, ProtoError> {
        let kind = header.opcode.message_kind().or(self.message).ok_or(ProtoError::UnexpectedContinuation)?;
        let bytes = u64::from(self.message_bytes) + header.len; // no overflow: a length is below 2^63
        if bytes > u64::from(limits.max_message) {
            return Err(ProtoError::MessageTooBig);
        }
        if !header.is_unfragmented() {
            self.fragments = self.fragments.saturating_add(1);
            let too_small = bytes < u64::from(self.fragments) * u64::from(limits.min_fragment_bytes);
            if self.fragments > limits.free_fragments && too_small {
                return Err(ProtoError::TooManyFragments);
            }
        }
        self.message = Some(kind);
        self.message_bytes = bytes as u32;
        Ok(kind)
    }

    fn message_event<'d>(&mut self, kind: MessageKind, piece: Piece<'d>) -> Result<Event<'d>, ProtoError> {
        let Piece { bytes: payload, key, ends_frame, last, whole, .. } = piece;
        match kind {
            MessageKind::Binary => mask::apply(payload, key),
            MessageKind::Text => self.unmask_text(payload, key, last)?,
        }
        if cfg!(planted_fault = "utf8") && ends_frame {
            self.text = utf8::Validator::new(); // a planted fault for the fuzzers: a cut code point is forgotten
        }
        if last {
            (self.message, self.message_bytes, self.fragments) = (None, 0, 0);
        }
        Ok(if whole { Event::Message { kind, payload } } else { Event::MessagePart { kind, payload, last } })
    }

    fn unmask_text(&mut self, payload: &mut [u8], key: MaskingKey, last: bool) -> Result<(), ProtoError> {
        let ascii = mask::apply_checking_ascii(payload, key);
        if !(ascii && self.text.is_complete()) {
            self.text.push(payload)?;
        }
        if last && !self.text.is_complete() { Err(ProtoError::InvalidUtf8) } else { Ok(()) }
    }
}

fn control_event<'d>(kind: ControlKind, piece: Piece<'d>) -> Event<'d> {
    mask::apply(piece.bytes, piece.key);
    let payload = piece.bytes;
    if piece.whole { Event::Control { kind, payload } } else { Event::ControlPart { kind, payload, last: piece.last } }
}

/// False: it is not the text that it should be.
#[inline]
fn unmask_whole(kind: MessageKind, payload: &mut [u8], key: MaskingKey) -> bool {
    match kind {
        MessageKind::Text => mask::apply_checking_ascii(payload, key) || utf8::is_valid(payload),
        MessageKind::Binary => {
            mask::apply(payload, key);
            true
        }
    }
}
