//! What a kind of error means, in words: the names are for programs.
#![forbid(unsafe_code)]

use super::stats::ErrorKind;

impl ErrorKind {
    /// What happened, given the `resources` that connections asked for; none where the name says it all.
    pub(crate) fn reason(self, resources: &str) -> Option<String> {
        let text = match self {
            ErrorKind::HandshakeStatus(status) => return Some(format!("the server answered {status} to {resources}")),
            ErrorKind::Closed(code) => return Some(format!("the server closed with code {code}")),
            ErrorKind::ConnectRefused => "connection refused: nobody listens there",
            ErrorKind::ConnectNoAddress => "no free local port is left: more --source-addresses help",
            ErrorKind::ConnectNoDescriptor => "no descriptor is left here: see ulimit -n, sysctl fs.file-max",
            ErrorKind::ConnectNoMemory => "the kernel has no memory left for a socket here",
            ErrorKind::ConnectTimeout => "nobody answered",
            ErrorKind::HandshakeInvalid => "the answer is no WebSocket handshake",
            ErrorKind::HandshakeTimeout => "no answer to the opening handshake in time",
            ErrorKind::HandshakeClosed => "the server closed before it answered the opening handshake",
            ErrorKind::ConnectionLost => "ended without a closing handshake",
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// The resource of a URL, as it stands in the first line of a request.
pub(crate) fn resource(url: &str) -> &str {
    if let Some(rest) = url.strip_prefix("ws+unix:") {
        return rest.split_once(':').map_or("/", |(_, resource)| resource);
    }
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.find(['/', '?']).map_or("/", |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_name_what_was_asked_for() {
        let reason = ErrorKind::HandshakeStatus(404).reason("/topic/x");
        assert_eq!(reason.as_deref(), Some("the server answered 404 to /topic/x"));
        assert_eq!(ErrorKind::WrongContents.reason("/"), None);
    }

    #[test]
    fn resources_are_cut_out_of_urls() {
        for (url, expected) in [
            ("ws://127.0.0.1:4000/topics?topic=x", "/topics?topic=x"),
            ("ws://h", "/"),
            ("ws://[::1]:4000/a:b", "/a:b"),
            ("ws+unix:/run/a.sock:/echo", "/echo"),
            ("ws+unix:/run/a.sock", "/"),
        ] {
            assert_eq!(resource(url), expected, "{url}");
        }
    }
}
