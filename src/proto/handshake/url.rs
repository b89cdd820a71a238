//! `ws://` URLs (RFC 6455 §3).
#![forbid(unsafe_code)]

use core::net::Ipv6Addr;
use std::fmt;
use std::str::FromStr;

use super::target;

/// A `ws://host:port/path?query` URL, cut into what a client needs. The host may be a name, an IPv4 address or an IPv6
/// address in brackets; nothing is percent-encoded or decoded.
///
/// ```
/// use wingbeat::proto::handshake::client::Url;
///
/// let url: Url = "ws://[::1]:4000/echo".parse()?;
/// assert_eq!((url.host(), url.port(), url.target()), ("::1", 4000, "/echo"));
/// assert_eq!(url.host_header(), "[::1]:4000");
/// # Ok::<(), wingbeat::proto::handshake::client::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Url {
    host: String,
    port: u16,
    target: String,
}

impl Url {
    /// Reads a URL; the same as [`FromStr`].
    ///
    /// # Errors
    /// [`UrlError`], which says what part is wrong.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        match scheme {
            _ if scheme.eq_ignore_ascii_case("ws") => {}
            _ if scheme.eq_ignore_ascii_case("wss") => return Err(UrlError::Unsupported),
            _ => return Err(UrlError::Scheme),
        }
        let (authority, local) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let (host, port) = split_port(authority)?;
        if !target::is_printable(local) {
            return Err(UrlError::Target);
        }
        let slash = if local.starts_with('/') { "" } else { "/" };
        Ok(Self { host: checked_host(host)?.to_owned(), port, target: [slash, local].concat() })
    }

    /// The name or address to connect to; an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The TCP port; 80 unless the URL says otherwise.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The request target: path and query, `/` at least.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The value of the `Host` header: with brackets where they belong, without the port if it is 80.
    pub fn host_header(&self) -> String {
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        match self.port {
            80 => format!("{open}{}{close}", self.host),
            port => format!("{open}{}{close}:{port}", self.host),
        }
    }
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(url: &str) -> Result<Self, UrlError> {
        Self::parse(url)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.host_header(), self.target)
    }
}

/// What is wrong with a URL. This program's fault, or its user's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UrlError {
    /// It does not start with `ws://`.
    Scheme,
    /// It is a `wss://` URL, and this build has no TLS.
    Unsupported,
    /// The host is empty or no host, or a user name stands before it.
    Host,
    /// The port is not in 1..=65535.
    Port,
    /// Path or query are not visible ASCII (percent-encode them), or there is a fragment (RFC 6455 §3 forbids it).
    Target,
}

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the URL must start with ws://",
            Self::Unsupported => "wss:// is not supported by this build: it has no TLS",
            Self::Host => "the URL has no valid host",
            Self::Port => "the port of the URL must be 1 to 65535",
            Self::Target => "the path of the URL must be percent-encoded and have no fragment",
        })
    }
}

impl std::error::Error for UrlError {}

/// Host (with its brackets) and port.
fn split_port(authority: &str) -> Result<(&str, u16), UrlError> {
    let end_of_host = match authority.starts_with('[') {
        true => authority.find(']').ok_or(UrlError::Host)? + 1,
        false => 0,
    };
    let Some(colon) = authority[end_of_host..].find(':') else {
        return Ok((authority, 80));
    };
    let (host, port) = authority.split_at(end_of_host + colon);
    let digits = &port[1..];
    if digits.is_empty() {
        return Ok((host, 80)); // RFC 3986 §3.2.3: an empty port is the default one
    }
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse().ok().filter(|port| plain && *port != 0);
    Ok((host, number.ok_or(UrlError::Port)?))
}

/// The host without its brackets.
fn checked_host(host: &str) -> Result<&str, UrlError> {
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').ok_or(UrlError::Host)?;
        return address.parse::<Ipv6Addr>().map(|_| address).map_err(|_| UrlError::Host);
    }
    let legal = !host.is_empty() && !host.contains(['[', ']', ':']) && target::is_host(host.as_bytes());
    if legal { Ok(host) } else { Err(UrlError::Host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_cut_into_their_parts() {
        let cases: &[(&str, &str, u16, &str, &str)] = &[
            ("ws://a", "a", 80, "/", "a"),
            ("WS://a:80/", "a", 80, "/", "a"),
            ("ws://a:/b", "a", 80, "/b", "a"),
            ("ws://127.0.0.1:4000/echo?x=1&y", "127.0.0.1", 4000, "/echo?x=1&y", "127.0.0.1:4000"),
            ("ws://a?x=/y", "a", 80, "/?x=/y", "a"),
            ("ws://[::1]", "::1", 80, "/", "[::1]"),
            ("ws://[::1]:65535/a:b]", "::1", 65535, "/a:b]", "[::1]:65535"),
        ];
        for (text, host, port, target, header) in cases {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.host(), url.port(), url.target()), (*host, *port, *target), "{text}");
            assert_eq!(url.host_header(), *header, "{text}");
            assert_eq!(url.to_string().parse(), Ok(url), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        use UrlError::*;
        let cases: &[(&str, UrlError)] = &[
            ("", Scheme),
            ("a:80/", Scheme),
            ("http://a/", Scheme),
            ("wss://a/", Unsupported),
            ("ws://", Host),
            ("ws:///a", Host),
            ("ws://:80/", Host),
            ("ws://user@a/", Host),
            ("ws://a b/", Host),
            ("ws://é/", Host),
            ("ws://[::1/", Host),
            ("ws://[zz]/", Host),
            ("ws://::1/", Port),
            ("ws://a:0/", Port),
            ("ws://a:65536/", Port),
            ("ws://a:+1/", Port),
            ("ws://a:b/", Port),
            ("ws://a/b#c", Target),
            ("ws://a#c", Target),
            ("ws://a/b c", Target),
            ("ws://a/é", Target),
            ("ws://a/\r\nX: y", Target),
        ];
        for (text, error) in cases {
            assert_eq!(Url::parse(text), Err(*error), "{text:?}");
        }
    }
}
