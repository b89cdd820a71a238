//! Where load goes: a WebSocket URL, taken apart, with the opening handshake that is sent there.
#![forbid(unsafe_code)]

use crate::failure::Failure;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use wingbeat::driver::Address;
use wingbeat::engine::Target;
use wingbeat::proto::handshake::HandshakeError;
use wingbeat::proto::handshake::client::{RequestHead, Url};

/// A WebSocket server and what it is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Destination {
    /// The URL as it was given.
    pub(crate) url: String,
    peer: Peer,
    head: RequestHead,
}

/// Whom a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peer {
    /// Name or address, and port.
    Host(String, u16),
    /// `unix:PATH`.
    Unix(Address),
}

impl Destination {
    /// Reads `ws://HOST[:PORT][/PATH][?QUERY]` (RFC 6455 §3) or `ws+unix:SOCKET[:/PATH][?QUERY]`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is neither.
    pub(crate) fn parse(url: &str) -> Result<Destination, Failure> {
        let wrong = |why: String| Failure::usage(format!("invalid URL '{}': {why}", url.escape_debug()));
        let (peer, head) = match url.strip_prefix("ws+unix:") {
            Some(rest) => unix_peer(rest).map_err(wrong)?,
            None => {
                let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
                (Peer::Host(parsed.host().to_owned(), parsed.port()), RequestHead::to(&parsed))
            }
        };
        Ok(Destination { url: url.to_owned(), peer, head })
    }

    /// Adds a header of the opening handshake, `Name: value`.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is none, or one that the handshake writes itself.
    pub(crate) fn header(&mut self, line: &str) -> Result<(), Failure> {
        let wrong = |why: &str| Failure::usage(format!("invalid header '{}': {why}", line.escape_debug()));
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("expected \"Name: value\""))?;
        match self.head.header(name, value.trim()) {
            Ok(_) => Ok(()),
            Err(HandshakeError::ReservedHeader) => Err(wrong("the opening handshake has it already")),
            Err(_) => Err(wrong("the name is no token, or the value has control characters")),
        }
    }

    /// Offers a subprotocol.
    ///
    /// # Errors
    /// [`Failure::Usage`] if it is no token, or offered already.
    pub(crate) fn subprotocol(&mut self, name: &str) -> Result<(), Failure> {
        let offered = self.head.protocol(name).map(|_| ());
        offered.map_err(|_| Failure::usage(format!("invalid subprotocol '{}'", name.escape_debug())))
    }

    /// Looks the name up; the first address counts.
    ///
    /// # Errors
    /// [`Failure::Failed`] if the name has none.
    pub(crate) fn resolve(&self) -> Result<Address, Failure> {
        let (host, port) = match &self.peer {
            Peer::Unix(address) => return Ok(address.clone()),
            Peer::Host(host, port) => (host.as_str(), *port),
        };
        let cannot = |why: String| Failure::cannot(format!("resolve {host}"), why);
        let mut found = (host, port).to_socket_addrs().map_err(|error| cannot(error.to_string()))?;
        found.next().map(Address::Tcp).ok_or_else(|| cannot("it has no address".to_owned()))
    }

    /// What the engine connects to: one per source address, or one that leaves the source to the kernel.
    ///
    /// # Errors
    /// As [`Destination::resolve`].
    pub(crate) fn targets(&self, sources: &[IpAddr]) -> Result<Vec<Arc<Target>>, Failure> {
        let address = self.resolve()?;
        let target = |source: Option<IpAddr>| {
            let source = source.map(|ip| SocketAddr::new(ip, 0));
            Arc::new(Target { address: address.clone(), head: self.head.clone(), source, reconnect: None })
        };
        Ok(match sources {
            [] => vec![target(None)],
            some => some.iter().map(|source| target(Some(*source))).collect(),
        })
    }
}

fn unix_peer(rest: &str) -> Result<(Peer, RequestHead), String> {
    let (socket, resource) = match rest.split_once(':') {
        Some((socket, resource)) => (socket, resource),
        None => (rest, "/"),
    };
    let address = format!("unix:{socket}").parse().map_err(|error| format!("{error}"))?;
    let head = RequestHead::new("localhost", resource).map_err(|_| "expected ws+unix:SOCKET[:/PATH]".to_owned())?;
    Ok((Peer::Unix(address), head))
}

/// Whether an address is IPv4 on this machine's loopback, where any 127.x.x.x may be the source.
pub(crate) fn is_loopback_v4(address: &Address) -> bool {
    matches!(address, Address::Tcp(SocketAddr::V4(address)) if address.ip().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(destination: &Destination) -> String {
        let mut request = Vec::new();
        destination.head.write(&mut request, &[0; 16]);
        String::from_utf8(request).unwrap()
    }

    #[test]
    fn urls_become_addresses_and_handshakes() {
        let tcp = Destination::parse("ws://127.0.0.1:4000/a?b=c").unwrap();
        assert_eq!(tcp.resolve(), Ok(Address::Tcp("127.0.0.1:4000".parse().unwrap())));
        assert!(written(&tcp).starts_with("GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:4000\r\n"));
        let unix = Destination::parse("ws+unix:/run/a.sock:/topics?topic=x").unwrap();
        assert_eq!(unix.resolve(), Ok(Address::Unix("/run/a.sock".into())));
        assert!(written(&unix).starts_with("GET /topics?topic=x HTTP/1.1\r\nHost: localhost\r\n"));
        assert!(written(&Destination::parse("ws+unix:/run/a.sock").unwrap()).starts_with("GET / "));
    }

    #[test]
    fn what_is_no_url_is_told() {
        for url in [
            "",
            "h",
            "http://h/",
            "wss://h/",
            "ws://",
            "ws://h:0/",
            "ws://u@h/",
            "ws://h/#f",
            "ws+unix:",
            "ws+unix:/a:b",
        ] {
            assert!(matches!(Destination::parse(url), Err(Failure::Usage(_))), "{url}");
        }
    }

    #[test]
    fn headers_and_subprotocols_are_checked() {
        let mut destination = Destination::parse("ws://h/").unwrap();
        assert_eq!(destination.header("Authorization:  Bearer x "), Ok(()));
        assert_eq!(destination.subprotocol("chat.v2"), Ok(()));
        let request = written(&destination);
        assert!(request.contains("\r\nAuthorization: Bearer x\r\n"), "{request}");
        assert!(request.contains("\r\nSec-WebSocket-Protocol: chat.v2\r\n"), "{request}");
        for line in ["novalue", ": x", "a b: c", "a: b\r\nc: d", "Host: x", "Sec-WebSocket-Key: x"] {
            assert!(matches!(destination.header(line), Err(Failure::Usage(_))), "{line}");
        }
        assert!(destination.subprotocol("a b").is_err() && destination.subprotocol("chat.v2").is_err());
    }

    #[test]
    fn each_source_has_its_target() {
        let destination = Destination::parse("ws://127.0.0.1:1/").unwrap();
        assert!(is_loopback_v4(&destination.resolve().unwrap()));
        assert_eq!(destination.targets(&[]).unwrap()[0].source, None);
        let sources = ["127.0.0.1".parse().unwrap(), "127.0.0.2".parse().unwrap()];
        let targets = destination.targets(&sources).unwrap();
        assert_eq!(targets[1].source, Some("127.0.0.2:0".parse().unwrap()));
        assert!(!is_loopback_v4(&Destination::parse("ws://[::1]:1/").unwrap().resolve().unwrap()));
        assert!(!is_loopback_v4(&Destination::parse("ws+unix:/a").unwrap().resolve().unwrap()));
    }
}
