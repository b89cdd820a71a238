//! Which handler answers: by method and path.
#![forbid(unsafe_code)]

use super::context::Context;
use super::plug::{Next, Plug};
use crate::engine::{Answer, Request, Response, Scope};
use std::{fmt, sync::Arc};

type RouteHandler = Arc<dyn Fn(&mut Context<'_>) -> Response + Send + Sync>;

/// Routes, plugs and scopes; see [`http`](crate::http).
///
/// A path is made of literal segments, `:name` for one of any value, and at its end `*name` for all that follow. The
/// segments of a request are compared percent-decoded; empty ones do not count, so a trailing slash matches too. The
/// route that was declared first wins. What has a GET route answers HEAD and OPTIONS by itself; another method is 405 with
/// `Allow`, another path 404.
///
/// Cost of a request: a comparison with each route up to its own.
#[derive(Clone, Default)]
pub struct Router {
    plugs: Vec<Arc<dyn Plug>>,
    routes: Vec<Route>,
    not_found: Option<RouteHandler>,
}

#[derive(Clone)]
struct Route {
    method: &'static str,
    pattern: Vec<Segment>,
    plugs: Vec<Arc<dyn Plug>>,
    handler: RouteHandler,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Segment {
    Literal(String),
    Var(String),
    Rest(String),
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|route| (route.method, &route.pattern))).finish()
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident $method:literal,)*) => {
        impl Router {
            $($(#[$doc])*
            ///
            /// # Panics
            /// The path does not begin with `/`, or has a `*name` before its end.
            #[must_use]
            pub fn $name<R: Into<Response>>(
                self,
                path: &str,
                handler: impl Fn(&mut Context<'_>) -> R + Send + Sync + 'static,
            ) -> Self {
                self.route($method, path, handler)
            })*
        }
    };
}

methods! {
    /// Answers GET of this path, and HEAD.
    get "GET",
    /// Answers POST of this path.
    post "POST",
    /// Answers PUT of this path.
    put "PUT",
    /// Answers PATCH of this path.
    patch "PATCH",
    /// Answers DELETE of this path.
    delete "DELETE",
    /// Answers OPTIONS of this path, in place of the router itself.
    options "OPTIONS",
}

impl Router {
    /// Without routes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every request of this router pass `plug`, wherever among the routes it is declared; plugs run in the order
    /// of their declaration. At the top those run for requests without a route too; in a scope for its routes.
    #[must_use]
    pub fn plug(mut self, plug: impl Plug + 'static) -> Self {
        self.plugs.push(Arc::new(plug));
        self
    }

    /// Adds the routes of `build` below `prefix`, with plugs of their own.
    ///
    /// # Panics
    /// As for a route's path; besides, if the prefix has a `*name`.
    #[must_use]
    pub fn scope(mut self, prefix: &str, build: impl FnOnce(Router) -> Router) -> Self {
        let inner = build(Router::new());
        let prefix = pattern(prefix);
        assert!(!prefix.iter().any(|segment| matches!(segment, Segment::Rest(_))), "a scope is no end of a path");
        for route in inner.routes {
            let pattern = [&prefix[..], &route.pattern].concat();
            let plugs = [&inner.plugs[..], &route.plugs].concat();
            self.routes.push(Route { pattern, plugs, ..route });
        }
        self
    }

    /// Answers what no route matches. Of a scope it is not used.
    #[must_use]
    pub fn not_found<R: Into<Response>>(
        mut self,
        handler: impl Fn(&mut Context<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.not_found = Some(Arc::new(move |context| handler(context).into()));
        self
    }

    /// The answer to a request: what a [`Handler::request`](crate::Handler::request) returns.
    pub fn answer(&self, scope: &mut Scope<'_>, request: &Request<'_>) -> Answer {
        let mut context = match Context::new(Scope { core: &mut *scope.core }, request) {
            Ok(context) => context,
            Err(response) => return response.into(),
        };
        let response = Next { plugs: &self.plugs, last: Last::Routing(self) }.run(&mut context);
        if context.later { Answer::Later } else { Answer::Now(response) }
    }

    fn route<R: Into<Response>>(
        mut self,
        method: &'static str,
        path: &str,
        handler: impl Fn(&mut Context<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        let handler: RouteHandler = Arc::new(move |context| handler(context).into());
        self.routes.push(Route { method, pattern: pattern(path), plugs: Vec::new(), handler });
        self
    }

    fn dispatch(&self, context: &mut Context<'_>) -> Response {
        let method = context.method();
        let mut allowed = Vec::new();
        for route in &self.routes {
            let Some(vars) = matches(&route.pattern, context.segments()) else { continue };
            if route.method == method || route.method == "GET" && method == "HEAD" {
                context.vars = vars;
                return Next { plugs: &route.plugs, last: Last::Route(&route.handler) }.run(context);
            }
            allowed.push(route.method);
        }
        match method {
            "OPTIONS" if context.path() == "*" => Response::no_content(),
            _ if allowed.is_empty() => match &self.not_found {
                Some(handler) => handler(context),
                None => Response::not_found(),
            },
            "OPTIONS" => Response::no_content().header("Allow", allow(allowed)),
            _ => Response::new(405).header("Allow", allow(allowed)),
        }
    }
}

/// What comes behind the plugs.
#[derive(Clone, Copy)]
pub(super) enum Last<'n> {
    Routing(&'n Router),
    Route(&'n RouteHandler),
}

impl Last<'_> {
    pub(super) fn call(self, context: &mut Context<'_>) -> Response {
        match self {
            Last::Routing(router) => router.dispatch(context),
            Last::Route(handler) => handler(context),
        }
    }
}

fn allow(mut methods: Vec<&'static str>) -> String {
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    methods.push("OPTIONS");
    methods.sort_unstable();
    methods.dedup();
    methods.join(", ")
}

fn pattern(path: &str) -> Vec<Segment> {
    assert!(path.starts_with('/'), "a path begins with a slash: {path:?}");
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let pattern: Vec<Segment> = segments
        .map(|segment| match (segment.strip_prefix(':'), segment.strip_prefix('*')) {
            (Some(name), _) => Segment::Var(name.into()),
            (_, Some(name)) => Segment::Rest(name.into()),
            _ => Segment::Literal(segment.into()),
        })
        .collect();
    let early = pattern.iter().rev().skip(1).any(|segment| matches!(segment, Segment::Rest(_)));
    assert!(!early, "*name is the end of a path: {path:?}");
    pattern
}

/// The variables, if the segments are of the pattern.
fn matches(pattern: &[Segment], segments: &[String]) -> Option<Vec<(String, String)>> {
    let mut vars = Vec::new();
    let mut rest = segments;
    for expected in pattern {
        if let Segment::Rest(name) = expected {
            vars.push((name.clone(), rest.join("/")));
            return Some(vars);
        }
        let (segment, behind) = rest.split_first()?;
        match expected {
            Segment::Literal(literal) if literal != segment => return None,
            Segment::Var(name) => vars.push((name.clone(), segment.clone())),
            _ => {}
        }
        rest = behind;
    }
    rest.is_empty().then_some(vars)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        let case = |path: &str, request: &str| {
            let segments: Vec<String> = request.split('/').filter(|part| !part.is_empty()).map(Into::into).collect();
            matches(&pattern(path), &segments)
        };
        let vars = |vars: &[(&str, &str)]| Some(vars.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect());
        assert_eq!(case("/", "/"), vars(&[]));
        assert_eq!(case("/", "/a"), None);
        assert_eq!(case("/a/:id", "/a/7/"), vars(&[("id", "7")]));
        assert_eq!(case("/a/:id", "/a"), None);
        assert_eq!(case("/a/:id/b", "/a/7/c"), None);
        assert_eq!(case("/f/*rest", "/f/x/y"), vars(&[("rest", "x/y")]));
        assert_eq!(case("/f/*rest", "/f"), vars(&[("rest", "")]));
    }

    #[test]
    #[should_panic(expected = "the end of a path")]
    fn a_rest_in_the_middle_is_a_mistake_of_the_program() {
        pattern("/a/*rest/b");
    }
}
