//! The grammar of `Sec-WebSocket-Extensions` (RFC 6455 §9.1), without allocation and in linear time.
//!
//! ```text
//! permessage-deflate; client_max_window_bits; server_max_window_bits=10, permessage-deflate
//! '---- name -----'   '------ param -------'  '------- param -------'  '- the next offer -'
//! ```
//! A cursor walks the value once and never goes back, so hostile input costs its length and no more.
//!
//! Two corners: empty list elements (`a, , b`) are skipped, as the list rule of RFC 2616 §2.1 that RFC 6455 builds on
//! allows; a quoted value must be a token as it stands: a backslash in it is refused, because no token needs one.
#![forbid(unsafe_code)]

use std::fmt;

use super::handshake::headers;

/// The offers of one field value, in order. After the first error the iterator ends.
///
/// ```
/// use wingbeat::proto::extensions::Offers;
///
/// let mut offers = Offers::new(b"permessage-deflate; server_max_window_bits=\"10\"; client_no_context_takeover");
/// let offer = offers.next().unwrap()?;
/// assert_eq!(offer.name(), "permessage-deflate");
/// assert_eq!(
///     offer.params().collect::<Vec<_>>(),
///     [("server_max_window_bits", Some("10")), ("client_no_context_takeover", None)]
/// );
/// assert!(offers.next().is_none());
/// # Ok::<(), wingbeat::proto::extensions::ExtensionError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Offers<'b> {
    rest: Cursor<'b>,
}

impl<'b> Offers<'b> {
    /// Walks the value of one `Sec-WebSocket-Extensions` field.
    pub fn new(value: &'b [u8]) -> Self {
        Self { rest: Cursor { bytes: value } }
    }

    fn offer(&mut self) -> Result<Offer<'b>, ExtensionError> {
        let name = self.rest.token().ok_or(ExtensionError::Name)?;
        let params = self.rest;
        while self.rest.param()?.is_some() {}
        if self.rest.at_end() || self.rest.eat(b',') {
            return Ok(Offer { name, params });
        }
        Err(ExtensionError::Separator)
    }
}

impl<'b> Iterator for Offers<'b> {
    type Item = Result<Offer<'b>, ExtensionError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.rest.skip_blanks();
        while self.rest.eat(b',') {
            self.rest.skip_blanks();
        }
        if self.rest.at_end() {
            return None;
        }
        let offer = self.offer();
        if offer.is_err() {
            self.rest = Cursor { bytes: b"" };
        }
        Some(offer)
    }
}

/// One offered (or, in a response, accepted) extension.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'b> {
    name: &'b str,
    /// From behind the name; checked up to the comma that ends the offer.
    params: Cursor<'b>,
}

impl<'b> Offer<'b> {
    /// The registered name, as it was written; names are compared exactly (RFC 6455 §9.1 defines no folding).
    pub fn name(&self) -> &'b str {
        self.name
    }

    /// The parameters in order; a repeated one comes repeatedly. Costs the length of the offer.
    pub fn params(&self) -> Params<'b> {
        Params { rest: self.params }
    }
}

/// The parameters of one [`Offer`]: name, and value where there is one (a quoted one without its quotes).
#[derive(Clone, Copy, Debug)]
pub struct Params<'b> {
    rest: Cursor<'b>,
}

impl<'b> Iterator for Params<'b> {
    type Item = (&'b str, Option<&'b str>);

    fn next(&mut self) -> Option<Self::Item> {
        // `Offers` has walked these bytes without an error.
        self.rest.param().ok().flatten()
    }
}

/// Why a value is not of the grammar. The peer's fault; the server answers 400, a client fails the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ExtensionError {
    /// An extension's name is no token.
    Name,
    /// A parameter's name is no token (`a;`, `a; =1`).
    ParamName,
    /// A parameter's value is neither a token nor a closed quoted string that holds one (`a; b=`, `a; b="c`).
    ParamValue,
    /// Something else than `;`, `,` or the end follows an offer (`a b`).
    Separator,
}

impl fmt::Display for ExtensionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "the name of an extension is not a token",
            Self::ParamName => "the name of an extension parameter is not a token",
            Self::ParamValue => "the value of an extension parameter is not a token",
            Self::Separator => "extensions must be separated by commas",
        })
    }
}

impl std::error::Error for ExtensionError {}

/// What is left to read. Copying it is remembering a place.
#[derive(Clone, Copy, Debug)]
struct Cursor<'b> {
    bytes: &'b [u8],
}

impl<'b> Cursor<'b> {
    fn at_end(&self) -> bool {
        self.bytes.is_empty()
    }

    fn eat(&mut self, byte: u8) -> bool {
        match self.bytes.split_first() {
            Some((first, rest)) if *first == byte => {
                self.bytes = rest;
                true
            }
            _ => false,
        }
    }

    fn skip_blanks(&mut self) {
        self.bytes = headers::trim_start(self.bytes);
    }

    /// A non-empty token and the blanks behind it.
    fn token(&mut self) -> Option<&'b str> {
        let length = self.bytes.iter().take_while(|byte| headers::is_token_byte(**byte)).count();
        let (token, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        self.skip_blanks();
        std::str::from_utf8(token).ok().filter(|token| !token.is_empty())
    }

    /// `; name`, `; name=token` or `; name="token"`; `None` if no `;` comes next.
    fn param(&mut self) -> Result<Option<(&'b str, Option<&'b str>)>, ExtensionError> {
        if !self.eat(b';') {
            return Ok(None);
        }
        self.skip_blanks();
        let name = self.token().ok_or(ExtensionError::ParamName)?;
        if !self.eat(b'=') {
            return Ok(Some((name, None)));
        }
        self.skip_blanks();
        let value = self.value().ok_or(ExtensionError::ParamValue)?;
        Ok(Some((name, Some(value))))
    }

    fn value(&mut self) -> Option<&'b str> {
        if !self.eat(b'"') {
            return self.token();
        }
        let length = self.bytes.iter().take_while(|byte| headers::is_token_byte(**byte)).count();
        let (value, rest) = self.bytes.split_at(length);
        self.bytes = rest;
        if value.is_empty() || !self.eat(b'"') {
            return None;
        }
        self.skip_blanks();
        std::str::from_utf8(value).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Written = Vec<(String, Vec<(String, Option<String>)>)>;

    fn read(value: &[u8]) -> Result<Written, ExtensionError> {
        let owned = |offer: Offer<'_>| {
            let params = offer.params().map(|(name, value)| (name.to_owned(), value.map(str::to_owned)));
            (offer.name().to_owned(), params.collect())
        };
        Offers::new(value).map(|offer| offer.map(owned)).collect()
    }

    fn names(value: &str) -> Vec<String> {
        read(value.as_bytes()).unwrap().into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn offers_and_their_parameters_come_in_order() {
        let read = read(b" a ;\tb ; c = d;e=\"f\" , g;b;b").unwrap();
        let param = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let first = vec![param("b", None), param("c", Some("d")), param("e", Some("f"))];
        let second = vec![param("b", None), param("b", None)];
        assert_eq!(read, [("a".to_owned(), first), ("g".to_owned(), second)]);
    }

    #[test]
    fn an_offers_parameters_end_at_its_comma() {
        let mut offers = Offers::new(b"a, b; c");
        assert_eq!(offers.next().unwrap().unwrap().params().count(), 0);
        assert_eq!(offers.next().unwrap().unwrap().params().count(), 1);
    }

    #[test]
    fn empty_elements_are_skipped() {
        assert_eq!(names(""), [""; 0]);
        assert_eq!(names(" \t"), [""; 0]);
        assert_eq!(names(",, a , ,b,"), ["a", "b"]);
        assert_eq!(
            names("constructor, __proto__, toString; hasOwnProperty=1"),
            ["constructor", "__proto__", "toString"]
        );
    }

    #[test]
    fn what_is_not_of_the_grammar_is_refused_once() {
        use ExtensionError::*;
        let cases: &[(&str, ExtensionError)] = &[
            ("=", Name),
            ("\"a\"", Name),
            ("é", Name),
            ("a, ;b", Name),
            ("a;", ParamName),
            ("a; ;b", ParamName),
            ("a; =1", ParamName),
            ("a; \"b\"", ParamName),
            ("a; b=", ParamValue),
            ("a; b=,c", ParamValue),
            ("a; b=\"c", ParamValue),
            ("a; b=\"\"", ParamValue),
            ("a; b=\"c d\"", ParamValue),
            ("a; b=\"\\c\"", ParamValue),
            ("a b", Separator),
            ("a; b c", Separator),
            ("a; b=c d", Separator),
            ("a; b=\"c\"d", Separator),
            ("a=b", Separator),
        ];
        for (value, error) in cases {
            let mut offers = Offers::new(value.as_bytes());
            let found = offers.by_ref().find_map(Result::err);
            assert_eq!(found, Some(*error), "{value:?}");
            assert!(offers.next().is_none(), "{value:?} goes on after its error");
        }
    }

    #[test]
    fn hostile_lengths_are_walked_through() {
        assert_eq!(read(format!("a; b=\"{}", "\\c".repeat(100_000)).as_bytes()), Err(ExtensionError::ParamValue));
        assert_eq!(read(format!("a{}b", " ".repeat(1_000_000)).as_bytes()), Err(ExtensionError::Separator));
        assert_eq!(names(&["permessage-deflate"; 100_000].join(",")).len(), 100_000);
        assert_eq!(read(format!("a{}", ";b".repeat(100_000)).as_bytes()).unwrap()[0].1.len(), 100_000);
    }
}
