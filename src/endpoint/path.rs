//! Where a socket is mounted: literal segments and variables.
#![forbid(unsafe_code)]

use super::mount::Vars;
use crate::http::query::decode;

#[derive(Debug)]
pub(super) struct Pattern(Vec<Segment>);

#[derive(Debug)]
enum Segment {
    Literal(Box<str>),
    Var(Box<str>),
}

impl Pattern {
    /// The path of a mount and of one of its transports.
    pub(super) fn new(path: &str, transport: &str) -> Pattern {
        let segment = |segment: &str| match segment.strip_prefix(':') {
            Some(name) => Segment::Var(name.into()),
            None => Segment::Literal(segment.into()),
        };
        Pattern(segments(path).chain(segments(transport)).map(segment).collect())
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

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}
