//! Where a socket is mounted: literal segments and variables.
#![forbid(unsafe_code)]

use super::mount::Vars;
use crate::http::query::decode;
use std::fmt;

#[derive(Debug)]
pub(super) struct Pattern(Vec<Segment>);

#[derive(Debug, PartialEq)]
enum Segment {
    Literal(Box<str>),
    Var(Box<str>),
}

impl Pattern {
    /// The path of a mount and of one of its transports.
    ///
    /// # Panics
    /// One of them does not begin with `/`, or has a variable without a name or a `*`.
    pub(super) fn new(path: &str, transport: &str) -> Pattern {
        for path in [path, transport] {
            assert!(path.starts_with('/'), "a socket's path begins with a slash: {path:?}");
            assert!(!path.contains('*'), "a socket's path has no *: {path:?}");
            assert!(!segments(path).any(|segment| segment == ":"), "a variable has a name: {path:?}");
        }
        let segment = |segment: &str| match segment.strip_prefix(':') {
            Some(name) => Segment::Var(name.into()),
            None => Segment::Literal(segment.into()),
        };
        Pattern(segments(path).chain(segments(transport)).map(segment).collect())
    }

    /// Whether it matches every path that the other does.
    pub(super) fn covers(&self, other: &Pattern) -> bool {
        let covers = |(own, other): (&Segment, &Segment)| matches!(own, Segment::Var(_)) || own == other;
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(covers)
    }

    /// The values of the variables whose names do not begin with `_`; none if the path is another. A slash at the end
    /// makes no difference.
    pub(super) fn matches(&self, path: &str) -> Option<Vars> {
        let mut vars = Vec::new();
        let mut given = segments(path);
        for segment in &self.0 {
            let value = given.next()?;
            match segment {
                Segment::Literal(literal) if **literal == *decode(value, false).ok()? => {}
                Segment::Literal(_) => return None,
                Segment::Var(name) if name.starts_with('_') => {}
                Segment::Var(name) => vars.push((name.to_string(), decode(value, false).ok()?)),
            }
        }
        given.next().is_none().then_some(vars)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|segment| match segment {
            Segment::Literal(literal) => write!(f, "/{literal}"),
            Segment::Var(name) => write!(f, "/:{name}"),
        })
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}
