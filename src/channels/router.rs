//! Which channel serves a topic.
#![forbid(unsafe_code)]

use super::channel::{AnyChannel, Channel};
use std::fmt;

/// A row of the routing table: a pattern and what makes the channel.
pub(super) struct Route {
    pattern: Pattern,
    pub(super) intercept: &'static [&'static str],
    make: Box<dyn Fn() -> Box<dyn AnyChannel> + Send + Sync>,
}

/// An exact topic, or all that begin with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

impl Route {
    /// # Panics
    /// If the pattern has a `*` anywhere but at its end.
    pub(super) fn new<C: Channel>(pattern: &str, make: impl Fn() -> C + Send + Sync + 'static) -> Route {
        Route { pattern: Pattern::new(pattern), intercept: C::INTERCEPT, make: Box::new(move || Box::new(make())) }
    }

    /// Whether it matches every topic that the other does.
    pub(super) fn covers(&self, other: &Route) -> bool {
        match (&self.pattern, &other.pattern) {
            (Pattern::Prefix(prefix), Pattern::Exact(other) | Pattern::Prefix(other)) => other.starts_with(&**prefix),
            (own, other) => own == other,
        }
    }

    pub(super) fn pattern(&self) -> String {
        match &self.pattern {
            Pattern::Exact(exact) => exact.to_string(),
            Pattern::Prefix(prefix) => format!("{prefix}*"),
        }
    }

    pub(super) fn matches(&self, topic: &str) -> bool {
        match &self.pattern {
            Pattern::Exact(exact) => **exact == *topic,
            Pattern::Prefix(prefix) => topic.starts_with(&**prefix),
        }
    }

    pub(super) fn channel(&self) -> Box<dyn AnyChannel> {
        (self.make)()
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("pattern", &self.pattern())
            .field("intercept", &self.intercept)
            .finish_non_exhaustive()
    }
}

impl Pattern {
    fn new(pattern: &str) -> Pattern {
        let stem = pattern.strip_suffix('*');
        assert!(!stem.unwrap_or(pattern).contains('*'), "a topic pattern has one `*`, at its end: {pattern:?}");
        match stem {
            Some(prefix) => Pattern::Prefix(prefix.into()),
            None => Pattern::Exact(pattern.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        match Pattern::new(pattern) {
            Pattern::Exact(exact) => *exact == *topic,
            Pattern::Prefix(prefix) => topic.starts_with(&*prefix),
        }
    }

    #[test]
    fn a_star_stands_for_any_rest_even_none() {
        for (pattern, topic, expected) in [
            ("room:*", "room:", true),
            ("room:*", "room:a:b", true),
            ("room:*", "room", false),
            ("room:*", "xroom:a", false),
            ("*", "", true),
            ("*", "anything", true),
            ("exact", "exact", true),
            ("exact", "exact:", false),
            ("exact", "exac", false),
        ] {
            assert_eq!(matches(pattern, topic), expected, "{pattern} {topic}");
        }
    }

    #[test]
    #[should_panic(expected = "one `*`")]
    fn a_star_elsewhere_is_a_mistake() {
        Pattern::new("a*b");
    }
}
