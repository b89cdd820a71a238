//! [`Scanner`]: walks over JSON text and says where its values are, without building any.
//!
//! It accepts what `serde_json` accepts as a `RawValue`, which is RFC 8259 (a fuzz target compares the two), and costs
//! the same (`benches/envelope.rs`), but without the allocation that `serde_json` makes once values are nested twice.
#![forbid(unsafe_code)]

use super::Slot;
use std::borrow::Cow;

/// A place in JSON text. Every method skips the white space in front of it; none means that the text is no JSON.
#[derive(Clone, Debug)]
pub(super) struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Scanner { text, at: 0 }
    }

    /// The value that is all of the text, without the white space around it.
    pub(super) fn only(text: &'a str) -> Option<&'a str> {
        let mut scanner = Scanner::new(text);
        let value = scanner.value()?;
        scanner.end().then_some(value)
    }

    /// Takes `byte` if it is next, and says whether it was.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let next = self.peek() == Some(byte);
        self.at += usize::from(next);
        next
    }

    /// Whether nothing follows.
    pub(super) fn end(&mut self) -> bool {
        self.peek().is_none()
    }

    /// The text of the next value. Any depth is accepted: a level of nesting costs a bit.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        self.peek()?;
        let (start, mut nesting) = (self.at, Nesting::default());
        loop {
            let opened = self.begin(&mut nesting)?;
            if !opened && !self.after(&mut nesting)? {
                return Some(&self.text[start..self.at]);
            }
        }
    }

    /// The next value as a slot.
    pub(super) fn slot(&mut self) -> Option<Slot<'a>> {
        if self.eat(b'"') {
            return self.unescaped().map(Slot::Text);
        }
        Some(match self.value()? {
            "null" => Slot::Null,
            other => Slot::Other(Cow::Borrowed(other)),
        })
    }

    /// The next value, if it is a string, unescaped. Allocates only if it holds an escape.
    pub(super) fn string(&mut self) -> Option<Cow<'a, str>> {
        if self.eat(b'"') { self.unescaped() } else { None }
    }

    /// The string whose opening quote was the last byte.
    fn unescaped(&mut self) -> Option<Cow<'a, str>> {
        let (start, escaped) = (self.at, self.rest_of_string()?);
        match escaped {
            false => Some(Cow::Borrowed(&self.text[start..self.at - 1])),
            true => serde_json::from_str(&self.text[start - 1..self.at]).ok().map(Cow::Owned),
        }
    }

    /// Steps over a scalar or an empty container, or into another container, and says whether it is inside one now
    /// with a value in front of it.
    fn begin(&mut self, nesting: &mut Nesting) -> Option<bool> {
        match self.peek().inspect(|_| self.at += 1)? {
            b'"' => self.rest_of_string().map(|_| false),
            b'{' if self.eat(b'}') => Some(false),
            b'{' => {
                nesting.push(Inside::Object);
                self.key().map(|()| true)
            }
            b'[' if self.eat(b']') => Some(false),
            b'[' => {
                nesting.push(Inside::Array);
                Some(true)
            }
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            b'-' => {
                let first = self.next()?;
                self.number(first)
            }
            first => self.number(first),
        }
    }

    /// Behind a value: closes the containers that end with it, and says whether another value is in front.
    fn after(&mut self, nesting: &mut Nesting) -> Option<bool> {
        while let Some(inside) = nesting.top() {
            match (self.peek().inspect(|_| self.at += 1)?, inside) {
                (b',', Inside::Array) => return Some(true),
                (b',', Inside::Object) => return self.key().map(|()| true),
                (b']', Inside::Array) | (b'}', Inside::Object) => nesting.pop(),
                _ => return None,
            }
        }
        Some(false)
    }

    fn key(&mut self) -> Option<()> {
        if !self.eat(b'"') {
            return None;
        }
        self.rest_of_string()?;
        self.eat(b':').then_some(())
    }

    /// What follows an opening quote, and the closing one. Says whether there was an escape.
    fn rest_of_string(&mut self) -> Option<bool> {
        let mut escaped = false;
        loop {
            self.at += plain(&self.text.as_bytes()[self.at..]);
            match self.next()? {
                b'"' => return Some(escaped),
                b'\\' => self.escape()?,
                _ => return None,
            }
            escaped = true;
        }
    }

    /// What follows a backslash. Half of a surrogate pair passes, as with `serde_json`.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => (0..4).all(|_| self.next().is_some_and(|digit| digit.is_ascii_hexdigit())).then_some(()),
            _ => None,
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Option<bool> {
        let whole = self.text.as_bytes()[self.at..].starts_with(rest);
        self.at += rest.len();
        whole.then_some(false)
    }

    /// What follows the first digit of a number.
    fn number(&mut self, first: u8) -> Option<bool> {
        match first {
            b'0' => (),
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.here() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.here() {
            self.at += 1;
            self.at += usize::from(matches!(self.here(), Some(b'+' | b'-')));
            self.some_digits()?;
        }
        Some(false)
    }

    fn some_digits(&mut self) -> Option<()> {
        self.next()?.is_ascii_digit().then(|| self.digits())
    }

    fn digits(&mut self) {
        while self.here().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// The next byte that is not white space; it stays.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.here() {
            self.at += 1;
        }
        self.here()
    }

    fn here(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        self.here().inspect(|_| self.at += 1)
    }
}

/// What a value is directly inside of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    Array,
    Object,
}

/// A stack of [`Inside`], a bit each; the first 64 without an allocation.
#[derive(Debug, Default)]
struct Nesting {
    depth: usize,
    objects: u64,
    outer: Vec<u64>,
}

impl Nesting {
    fn push(&mut self, inside: Inside) {
        if self.depth > 0 && self.depth.is_multiple_of(64) {
            self.outer.push(self.objects);
        }
        self.depth += 1;
        self.objects = (self.objects << 1) | u64::from(inside == Inside::Object);
    }

    fn pop(&mut self) {
        self.depth -= 1;
        self.objects >>= 1;
        if self.depth.is_multiple_of(64) {
            self.objects = self.outer.pop().unwrap_or_default();
        }
    }

    fn top(&self) -> Option<Inside> {
        let innermost = if self.objects & 1 == 1 { Inside::Object } else { Inside::Array };
        (self.depth > 0).then_some(innermost)
    }
}

/// How many bytes pass before one that cannot stand in a string as it is: a quote, a backslash, a control character.
pub(super) fn plain(bytes: &[u8]) -> usize {
    let mut passed = 0;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        match special(u64::from_le_bytes(*word)) {
            0 => passed += 8,
            found => return passed + found.trailing_zeros() as usize / 8,
        }
    }
    passed + rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').unwrap_or(rest.len())
}

/// Bit 7 of each byte that is special, exact up to the lowest such byte: a borrow only travels upwards.
fn special(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (control | zero(word ^ (ONES * b'"' as u64)) | zero(word ^ (ONES * b'\\' as u64))) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::value::RawValue;

    /// Both read the same, or nothing.
    fn agree(text: &str) -> bool {
        let serde = serde_json::from_str::<&RawValue>(text).ok().map(RawValue::get);
        assert_eq!(Scanner::only(text), serde, "{text}");
        serde.is_some()
    }

    #[test]
    fn accepts_what_is_json() {
        for text in [
            "null",
            " true\n",
            "\tfalse\r",
            "0",
            "-0",
            "10",
            "0.5",
            "1e5",
            "-1.25E-3",
            "1E+0",
            "\"\"",
            r#""é\u00e9\n\/""#,
            r#""\ud800""#,
            "[]",
            "[ ]",
            "{}",
            "{ }",
            "[1]",
            "[1 , 2]",
            "[[],{}]",
            r#"{"a":1}"#,
            r#"{ "a" : [ { } ] }"#,
            r#"{"a":{"b":{"c":[1,"]}"]}},"d":null}"#,
            r#"{"\"":1,"\"":2}"#,
            "\"\u{2028}/\u{7f}\"",
        ] {
            assert!(agree(text), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_not() {
        for text in [
            "",
            " ",
            "nul",
            "nulls",
            "truth",
            "+1",
            "01",
            "-",
            "-a",
            ".5",
            "1.",
            "1.e1",
            "1e",
            "1e+",
            "0x1",
            "NaN",
            "\"",
            "\"\\\"",
            r#""\x""#,
            r#""\u12g4""#,
            r#""\u123"#,
            "\"a\nb\"",
            "\"a\u{0}\"",
            "'a'",
            "[",
            "]",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1}",
            "{",
            "}",
            "{,}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1]"#,
            "{1:2}",
            "{a:1}",
            "[] []",
            "1 2",
            "[\u{a0}]",
            "\u{feff}1",
            "nullnull",
            r#"{"a" 1}"#,
            r#"["a":1]"#,
        ] {
            assert!(!agree(text), "{text}");
        }
    }

    #[test]
    fn any_depth_is_read() {
        for depth in [1, 63, 64, 65, 127, 128, 129, 200, 100_000] {
            let (open, close) = (r#"[{"a":"#.repeat(depth), "}]".repeat(depth));
            assert!(agree(&format!("{open}1{close}")));
            assert!(!agree(&format!("{open}1{}", close.replacen("}]", "]}", 1))));
            assert!(!agree(&format!("{open}1{}", &close[1..])));
            assert!(agree(&format!("{}{}", "[".repeat(depth), "]".repeat(depth))));
        }
    }

    #[test]
    fn finds_each_special_byte_at_each_place() {
        for length in 0..40 {
            for special in 0..=255u8 {
                let stops = special < 0x20 || special == b'"' || special == b'\\';
                for place in 0..length {
                    let mut bytes = vec![0xffu8; length];
                    bytes[place] = special;
                    assert_eq!(plain(&bytes), if stops { place } else { length }, "{special} at {place} of {length}");
                    bytes[length - 1] = b'"';
                    assert_eq!(plain(&bytes), if stops { place } else { length - 1 });
                }
            }
        }
    }

    #[test]
    fn slots_keep_their_type() {
        let slot = |text| Scanner::new(text).slot();
        assert_eq!(slot("null"), Some(Slot::Null));
        assert_eq!(slot(r#" "7" "#), Some(Slot::from("7")));
        assert_eq!(slot(r#""a\u0062\ud83d\ude00""#), Some(Slot::from("ab😀")));
        assert_eq!(slot(" 7 "), Some(Slot::Other("7".into())));
        assert_eq!(slot("[ 1, null ]"), Some(Slot::Other("[ 1, null ]".into())));
        assert_eq!(slot(r#""\ud800""#), None);
    }
}
