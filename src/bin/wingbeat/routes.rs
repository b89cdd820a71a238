//! What `serve` has under which path.
#![forbid(unsafe_code)]

use std::borrow::Cow;

/// Bytes of a topic's name, percent-decoded, at most.
pub(crate) const TOPIC_BYTES_MAX: usize = 255;

/// What a request target stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// Each message comes back.
    Echo,
    /// Subscribes to the topic, and publishes to it.
    Topics(Cow<'a, str>),
    /// Publishes to the topic.
    Publish(Cow<'a, str>),
    /// Answers plain requests.
    Health,
    /// A path that wants a topic, without a usable one.
    BadTopic,
    /// The chat, its socket, or nothing.
    Other,
}

impl<'a> Route<'a> {
    /// What is under a path, with the query that follows it.
    pub(crate) fn of(path: &str, query: Option<&'a str>) -> Route<'a> {
        let query = query.unwrap_or_default();
        match path {
            "/echo" => Route::Echo,
            "/healthz" => Route::Health,
            "/topics" => topic(query).map_or(Route::BadTopic, Route::Topics),
            "/publish" => topic(query).map_or(Route::BadTopic, Route::Publish),
            _ => Route::Other,
        }
    }
}

/// The first `topic=` of a query, decoded; none if it is missing, empty, too long, or not UTF-8.
fn topic(query: &str) -> Option<Cow<'_, str>> {
    let raw = query.split('&').find_map(|pair| pair.strip_prefix("topic="))?;
    let name = percent_decode(raw)?;
    (1..=TOPIC_BYTES_MAX).contains(&name.len()).then_some(name)
}

/// RFC 3986 §2.1. A `+` stays a `+`: this is a URI, not a form.
fn percent_decode(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut rest = raw.bytes();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(target: &str) -> Route<'_> {
        match target.split_once('?') {
            Some((path, query)) => Route::of(path, Some(query)),
            None => Route::of(target, None),
        }
    }

    #[test]
    fn paths_are_exact() {
        assert_eq!(route("/echo"), Route::Echo);
        assert_eq!(route("/echo?x=1"), Route::Echo);
        assert_eq!(route("/healthz"), Route::Health);
        for target in ["/", "/Echo", "/echo/", "/topic?topic=a", "*", ""] {
            assert_eq!(route(target), Route::Other, "{target}");
        }
    }

    #[test]
    fn topics_are_decoded() {
        assert_eq!(route("/topics?topic=room"), Route::Topics("room".into()));
        assert_eq!(route("/publish?a=b&topic=a%2Fb%20+%C3%A9"), Route::Publish("a/b +é".into()));
        let longest = "x".repeat(TOPIC_BYTES_MAX);
        assert_eq!(route(&format!("/topics?topic={longest}")), Route::Topics(longest.as_str().into()));
        assert_eq!(route(&format!("/topics?topic={}", "%78".repeat(255))), Route::Topics("x".repeat(255).into()));
    }

    #[test]
    fn unusable_topics_are_told() {
        let long = "x".repeat(TOPIC_BYTES_MAX + 1);
        for query in ["", "?", "?topic=", "?topic", "?topics=a", "?topic=%", "?topic=%4", "?topic=%4g", "?topic=%ff"] {
            assert_eq!(route(&format!("/topics{query}")), Route::BadTopic, "{query}");
        }
        assert_eq!(route(&format!("/publish?topic={long}")), Route::BadTopic);
    }
}
