//! Frames of one connection, in the order that the closing handshake allows.
#![forbid(unsafe_code)]

use super::{
    CloseCode, MAX_CLOSE_REASON, MAX_CONTROL_PAYLOAD, MaskingKey, MessageKind, Opcode, Role, WriteError, encoder,
};

/// The sending half of a connection: 2 bytes. It appends frames to a buffer of the caller and knows how far the closing
/// handshake is (RFC 6455 §7.1).
///
/// Every call takes a masking key: a client masks with it, and has to bring a fresh unpredictable one each time; a
/// server ignores it, the default will do. After an error nothing has been appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Writer {
    role: Role,
    closing: Closing,
}

const _: () = assert!(size_of::<Writer>() <= 2);

/// Which Close frames there were.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Closing {
    None,
    Sent,
    Received,
    Both,
}

impl Writer {
    /// At the start of a connection, after the opening handshake. `role` is our side.
    pub const fn new(role: Role) -> Writer {
        Writer { role, closing: Closing::None }
    }

    /// Appends a message in one frame. That text is UTF-8 is the caller's promise.
    ///
    /// # Errors
    /// [`WriteError::CloseSent`].
    #[inline]
    pub fn message(
        &mut self,
        out: &mut Vec<u8>,
        kind: MessageKind,
        payload: &[u8],
        key: MaskingKey,
    ) -> Result<(), WriteError> {
        self.frame(out, kind.into(), payload, key)
    }

    /// Appends a Ping.
    ///
    /// # Errors
    /// [`WriteError::ControlTooLong`] beyond 125 bytes, [`WriteError::CloseSent`].
    pub fn ping(&mut self, out: &mut Vec<u8>, payload: &[u8], key: MaskingKey) -> Result<(), WriteError> {
        self.control(out, Opcode::Ping, payload, key)
    }

    /// Appends a Pong.
    ///
    /// # Errors
    /// As [`Writer::ping`].
    pub fn pong(&mut self, out: &mut Vec<u8>, payload: &[u8], key: MaskingKey) -> Result<(), WriteError> {
        self.control(out, Opcode::Pong, payload, key)
    }

    /// Appends our Close frame, the last frame of this half.
    ///
    /// # Errors
    /// [`WriteError::UnsendableCode`], [`WriteError::ReasonTooLong`] beyond 123 bytes,
    /// [`WriteError::ReasonWithoutCode`], [`WriteError::CloseSent`].
    pub fn close(
        &mut self,
        out: &mut Vec<u8>,
        code: Option<CloseCode>,
        reason: &str,
        key: MaskingKey,
    ) -> Result<(), WriteError> {
        let mut payload = [0; MAX_CONTROL_PAYLOAD];
        let len = close_payload(&mut payload, code, reason)?;
        self.frame(out, Opcode::Close, &payload[..len], key)?;
        self.closing = if self.is_close_received() { Closing::Both } else { Closing::Sent };
        Ok(())
    }

    /// Notes that the peer's Close frame came. We may go on sending until [`Writer::close`].
    pub fn close_received(&mut self) {
        self.closing = if self.is_close_sent() { Closing::Both } else { Closing::Received };
    }

    /// Whether our Close frame was written.
    #[inline]
    pub const fn is_close_sent(&self) -> bool {
        matches!(self.closing, Closing::Sent | Closing::Both)
    }

    /// Whether the peer's Close frame came.
    #[inline]
    pub const fn is_close_received(&self) -> bool {
        matches!(self.closing, Closing::Received | Closing::Both)
    }

    /// Whether the closing handshake is complete: a server then ends the TCP connection, a client waits for that
    /// (RFC 6455 §7.1.1).
    #[inline]
    pub const fn is_finished(&self) -> bool {
        matches!(self.closing, Closing::Both)
    }

    fn control(&self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: MaskingKey) -> Result<(), WriteError> {
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(WriteError::ControlTooLong);
        }
        self.frame(out, opcode, payload, key)
    }

    #[inline]
    fn frame(&self, out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], key: MaskingKey) -> Result<(), WriteError> {
        if self.is_close_sent() {
            return Err(WriteError::CloseSent);
        }
        encoder::frame(out, opcode, true, payload, (self.role == Role::Client).then_some(key));
        Ok(())
    }
}

fn close_payload(
    payload: &mut [u8; MAX_CONTROL_PAYLOAD],
    code: Option<CloseCode>,
    reason: &str,
) -> Result<usize, WriteError> {
    let Some(code) = code else {
        return if reason.is_empty() { Ok(0) } else { Err(WriteError::ReasonWithoutCode) };
    };
    if !code.is_sendable() {
        return Err(WriteError::UnsendableCode);
    }
    if reason.len() > MAX_CLOSE_REASON {
        return Err(WriteError::ReasonTooLong);
    }
    let len = 2 + reason.len();
    payload[..2].copy_from_slice(&code.get().to_be_bytes());
    payload[2..len].copy_from_slice(reason.as_bytes());
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_KEY: MaskingKey = MaskingKey([0; 4]);

    #[test]
    fn one_close_and_nothing_after_it() {
        let (mut writer, mut out) = (Writer::new(Role::Server), Vec::new());
        writer.close(&mut out, Some(CloseCode::NORMAL), "bye", NO_KEY).unwrap();
        assert_eq!(out, b"\x88\x05\x03\xe8bye");
        assert!(writer.is_close_sent() && !writer.is_close_received() && !writer.is_finished());
        assert_eq!(writer.message(&mut out, MessageKind::Text, b"late", NO_KEY), Err(WriteError::CloseSent));
        assert_eq!(writer.ping(&mut out, b"", NO_KEY), Err(WriteError::CloseSent));
        assert_eq!(writer.pong(&mut out, b"", NO_KEY), Err(WriteError::CloseSent));
        assert_eq!(writer.close(&mut out, None, "", NO_KEY), Err(WriteError::CloseSent));
        assert_eq!(out.len(), 7);
        writer.close_received();
        assert!(writer.is_finished());
    }

    #[test]
    fn data_may_follow_the_peers_close_until_ours() {
        let (mut writer, mut out) = (Writer::new(Role::Server), Vec::new());
        writer.close_received();
        assert!(writer.is_close_received() && !writer.is_close_sent() && !writer.is_finished());
        writer.message(&mut out, MessageKind::Binary, b"x", NO_KEY).unwrap();
        writer.close(&mut out, None, "", NO_KEY).unwrap();
        assert_eq!(out, b"\x82\x01x\x88\x00");
        assert!(writer.is_finished());
    }

    #[test]
    fn what_must_not_be_sent_is_refused_and_leaves_no_trace() {
        let (mut writer, mut out) = (Writer::new(Role::Client), Vec::new());
        let long = "r".repeat(MAX_CLOSE_REASON + 1);
        let normal = Some(CloseCode::NORMAL);
        for (code, reason, error) in [
            (Some(CloseCode::NO_STATUS), "", WriteError::UnsendableCode),
            (Some(CloseCode::ABNORMAL), "", WriteError::UnsendableCode),
            (Some(CloseCode::TLS_FAILED), "", WriteError::UnsendableCode),
            (normal, &long[..], WriteError::ReasonTooLong),
            (None, "why", WriteError::ReasonWithoutCode),
        ] {
            assert_eq!(writer.close(&mut out, code, reason, NO_KEY), Err(error));
        }
        assert_eq!(writer.ping(&mut out, &[0; 126], NO_KEY), Err(WriteError::ControlTooLong));
        assert!(out.is_empty() && !writer.is_close_sent());
        writer.ping(&mut out, &[0; 125], NO_KEY).unwrap();
        writer.close(&mut out, normal, &long[1..], NO_KEY).unwrap();
        assert_eq!(out.len(), 2 * (6 + 125));
    }
}
