//! Header fields: tokens, lists, the fields both sides judge, and what may be written.
#![forbid(unsafe_code)]

use super::HandshakeError;

/// The fields of a head in order: name as it was written, value without the blanks around it.
///
/// Reads the lines again on every walk instead of keeping a table; costs their length.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'b> {
    /// Whole lines, each with its CRLF, checked by the parser: `token ":" value`.
    lines: &'b [u8],
}

impl<'b> Fields<'b> {
    pub(super) fn new(lines: &'b [u8]) -> Self {
        Self { lines }
    }

    /// The values of all fields with this name, which is compared without regard to case.
    pub(super) fn values<'n>(self, name: &'n str) -> Values<'b, 'n> {
        Values { fields: self, name }
    }

    fn next_line(&mut self) -> Option<(&'b [u8], &'b [u8])> {
        let end = self.lines.iter().position(|byte| *byte == b'\n')?;
        let (line, rest) = self.lines.split_at(end + 1);
        self.lines = rest;
        let colon = line.iter().position(|byte| *byte == b':')?;
        Some((&line[..colon], trim(&line[colon + 1..line.len() - 2])))
    }
}

impl<'b> Iterator for Fields<'b> {
    type Item = (&'b str, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.next_line()?;
        // A name is a token, so always ASCII.
        Some((std::str::from_utf8(name).unwrap_or_default(), value))
    }
}

/// The values of the fields with one name, in order.
#[derive(Clone, Copy, Debug)]
pub struct Values<'b, 'n> {
    fields: Fields<'b>,
    name: &'n str,
}

impl<'b> Iterator for Values<'b, '_> {
    type Item = &'b [u8];

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (name, value) = self.fields.next_line()?;
            if name.eq_ignore_ascii_case(self.name.as_bytes()) {
                return Some(value);
            }
        }
    }
}

/// A field that may come once only.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Single<'b> {
    pub(super) value: Option<&'b [u8]>,
    pub(super) repeated: bool,
}

impl<'b> Single<'b> {
    fn add(&mut self, value: &'b [u8]) {
        self.repeated = self.value.is_some();
        self.value = Some(value);
    }

    /// The value if the field came exactly once.
    pub(super) fn once(&self) -> Option<&'b [u8]> {
        self.value.filter(|_| !self.repeated)
    }
}

/// What the handshakes and the framing look at, gathered in one pass over the fields.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known<'b> {
    pub(super) host: Single<'b>,
    pub(super) content_length: Single<'b>,
    pub(super) transfer_encoding: Single<'b>,
    pub(super) key: Single<'b>,
    pub(super) version: Single<'b>,
    pub(super) accept: Single<'b>,
    pub(super) protocol: Single<'b>,
    pub(super) extensions: Single<'b>,
    pub(super) upgrade: Single<'b>,
    pub(super) expect: Single<'b>,
    /// `Upgrade` lists `websocket`.
    pub(super) upgrade_websocket: bool,
    /// `Connection` lists `upgrade`.
    pub(super) connection_upgrade: bool,
    /// `Connection` lists `close`.
    pub(super) connection_close: bool,
    /// `Connection` lists `keep-alive`.
    pub(super) connection_keep_alive: bool,
}

impl<'b> Known<'b> {
    pub(super) fn gather(fields: &[httparse::Header<'b>]) -> Self {
        let mut known = Self::default();
        for field in fields {
            known.add(field.name, trim(field.value));
        }
        known
    }

    fn add(&mut self, name: &str, value: &'b [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        // The length picks the candidate: one comparison for each field, none for most.
        match name.len() {
            4 if is("host") => self.host.add(value),
            6 if is("expect") => self.expect.add(value),
            7 if is("upgrade") => {
                self.upgrade.add(value);
                self.upgrade_websocket |= lists(value, "websocket");
            }
            10 if is("connection") => {
                self.connection_upgrade |= lists(value, "upgrade");
                self.connection_close |= lists(value, "close");
                self.connection_keep_alive |= lists(value, "keep-alive");
            }
            14 if is("content-length") => self.content_length.add(value),
            17 if is("transfer-encoding") => self.transfer_encoding.add(value),
            17 if is("sec-websocket-key") => self.key.add(value),
            20 if is("sec-websocket-accept") => self.accept.add(value),
            21 if is("sec-websocket-version") => self.version.add(value),
            22 if is("sec-websocket-protocol") => self.protocol.add(value),
            24 if is("sec-websocket-extensions") => self.extensions.add(value),
            _ => {}
        }
    }
}

/// Whether the comma-separated `value` has `token` as an element, without regard to case (RFC 9110 §5.6.1).
pub(super) fn lists(value: &[u8], token: &str) -> bool {
    elements(value).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The elements of a comma-separated value, without the blanks around them; empty ones included.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(trim)
}

/// Whether `bytes` is a token: one or more of the characters of RFC 9110 §5.6.2.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

/// A token, or one with what base64 has beyond tokens.
pub(super) fn is_offered_protocol(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte) || matches!(byte, b'/' | b'='))
}

pub(crate) fn is_token_byte(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let marks = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < marks.len() {
            table[marks[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// Without the blanks (space, tab) at the start.
pub(crate) fn trim_start(bytes: &[u8]) -> &[u8] {
    let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
    &bytes[blanks..]
}

fn trim(bytes: &[u8]) -> &[u8] {
    let bytes = trim_start(bytes);
    let blanks = bytes.iter().rev().take_while(|byte| is_blank(**byte)).count();
    &bytes[..bytes.len() - blanks]
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Whether a line feed stands without its carriage return. The parser would take it for a line end, and a proxy
/// before us might not: such heads are how requests are smuggled.
pub(super) fn has_bare_line_feed(head: &[u8]) -> bool {
    let pairs = head.iter().zip(head.iter().skip(1));
    // No early exit: so the loop is vectorised.
    pairs.fold(head.first() == Some(&b'\n'), |bare, (before, byte)| bare | ((*byte == b'\n') & (*before != b'\r')))
}

/// Checks a field before it is written: the name a token, the value without control bytes but the tab.
pub(super) fn check_field(name: &str, value: &str) -> Result<(), HandshakeError> {
    if is_token(name.as_bytes()) && value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control()) {
        return Ok(());
    }
    Err(HandshakeError::InvalidHeader)
}

/// Refuses the names in `reserved`, without regard to case.
pub(super) fn check_not_reserved(name: &str, reserved: &[&str]) -> Result<(), HandshakeError> {
    match reserved.iter().any(|known| known.eq_ignore_ascii_case(name)) {
        true => Err(HandshakeError::ReservedHeader),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_rfc() {
        let separators = b"()<>@,;:\\\"/[]?={} \t";
        for byte in 0..=255u8 {
            let token = byte.is_ascii_graphic() && !separators.contains(&byte);
            assert_eq!(is_token_byte(byte), token, "{byte:#x}");
        }
        assert!(!is_token(b""));
    }

    #[test]
    fn lists_compare_whole_elements() {
        assert!(lists(b"keep-alive, Upgrade", "upgrade"));
        assert!(lists(b"\tupgrade\t", "upgrade"));
        assert!(lists(b",,upgrade,", "upgrade"));
        for value in ["", "no-upgrade-please", "upgrade please", "upgraded", "\"upgrade\""] {
            assert!(!lists(value.as_bytes(), "upgrade"), "{value:?}");
        }
    }

    #[test]
    fn bare_line_feeds_are_seen_anywhere() {
        for head in ["\n", "a\n", "a\r\n\n", "\r\r\n \n", "a\r\nb\nc\r\n"] {
            assert!(has_bare_line_feed(head.as_bytes()), "{head:?}");
        }
        for head in ["", "a", "\r\n", "a\r\nb\r\n\r\n", "\r"] {
            assert!(!has_bare_line_feed(head.as_bytes()), "{head:?}");
        }
    }

    #[test]
    fn fields_are_walked_in_order_without_their_blanks() {
        let fields = Fields::new(b"A:1\r\nb:\t 2 3 \r\na:\r\n");
        let all: Vec<_> = fields.collect();
        assert_eq!(all, [("A", &b"1"[..]), ("b", b"2 3"), ("a", b"")]);
        assert_eq!(fields.values("a").collect::<Vec<_>>(), [&b"1"[..], b""]);
    }

    #[test]
    fn written_fields_cannot_split_the_head() {
        assert_eq!(check_field("X-A", "b\tc é"), Ok(()));
        for (name, value) in
            [("", "b"), ("X A", "b"), ("X:", "b"), ("X", "b\r\nY: c"), ("X", "\n"), ("X", "\0"), ("X", "\x7f")]
        {
            assert_eq!(check_field(name, value), Err(HandshakeError::InvalidHeader), "{name:?}: {value:?}");
        }
    }
}
