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

/// The methods that declare routes, for what has a `route`: the router, and what has one.
macro_rules! methods {
    ($of:ident) => {
        $crate::http::methods! { $of:
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
    };
    ($of:ident: $($(#[$doc:meta])* $name:ident $method:literal,)*) => {
        impl $of {
            $($(#[$doc])*
            ///
            /// # Panics
            /// The path does not begin with `/`, has a variable without a name or a `*name` before its end, or an earlier
            /// route of this method matches all that it does.
            #[must_use]
            pub fn $name<R: Into<$crate::Response>>(
                self,
                path: &str,
                handler: impl Fn(&mut $crate::http::Context<'_>) -> R + Send + Sync + 'static,
            ) -> Self {
                self.route($method, path, handler)
            })*
        }
    };
}

pub(crate) use methods;

methods!(Router);

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
    /// As for the paths of routes; besides, if the prefix has a `*name`.
    #[must_use]
    pub fn scope(mut self, prefix: &str, build: impl FnOnce(Router) -> Router) -> Self {
        let inner = build(Router::new());
        let prefix = pattern(prefix);
        assert!(!prefix.iter().any(|segment| matches!(segment, Segment::Rest(_))), "a scope is no end of a path");
        for route in inner.routes {
            let pattern = [&prefix[..], &route.pattern].concat();
            let plugs = [&inner.plugs[..], &route.plugs].concat();
            self.add(Route { pattern, plugs, ..route });
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

    pub(crate) fn route<R: Into<Response>>(
        mut self,
        method: &'static str,
        path: &str,
        handler: impl Fn(&mut Context<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        let handler: RouteHandler = Arc::new(move |context| handler(context).into());
        self.add(Route { method, pattern: pattern(path), plugs: Vec::new(), handler });
        self
    }

    /// The first route that matches wins, so that one behind another that matches all it does is a mistake.
    fn add(&mut self, route: Route) {
        let earlier = self.routes.iter().filter(|earlier| earlier.method == route.method);
        for earlier in earlier {
            let (method, path, taken) = (route.method, &route.pattern, &earlier.pattern);
            assert!(!covers(taken, path), "{method} {} is never reached, behind {}", show(path), show(taken));
        }
        self.routes.push(route);
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
    let named = |segment: &Segment| !matches!(segment, Segment::Var(name) | Segment::Rest(name) if name.is_empty());
    assert!(pattern.iter().all(named), "a variable has a name: {path:?}");
    let early = pattern.iter().rev().skip(1).any(|segment| matches!(segment, Segment::Rest(_)));
    assert!(!early, "*name is the end of a path: {path:?}");
    pattern
}

/// Whether a pattern matches every path that the other does.
fn covers(pattern: &[Segment], other: &[Segment]) -> bool {
    match (pattern.split_first(), other.split_first()) {
        (Some((Segment::Rest(_), _)), _) => true,
        (None, other) => other.is_none(),
        (Some((Segment::Var(_), rest)), Some((Segment::Literal(_) | Segment::Var(_), behind))) => covers(rest, behind),
        (Some((literal, rest)), Some((segment, behind))) => literal == segment && covers(rest, behind),
        (Some(_), None) => false,
    }
}

/// A pattern as it was written.
fn show(pattern: &[Segment]) -> String {
    let segments = pattern.iter().map(|segment| match segment {
        Segment::Literal(literal) => format!("/{literal}"),
        Segment::Var(name) => format!("/:{name}"),
        Segment::Rest(name) => format!("/*{name}"),
    });
    if pattern.is_empty() { "/".to_owned() } else { segments.collect() }
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
    fn mistakes_of_the_program_are_told_when_it_starts() {
        let route = |router: Router, path: &str| router.get(path, |_| "");
        let taken = || Router::new().get("/a/:id", |_| "").get("/f/*rest", |_| "").get("/", |_| "");
        for (path, mistake) in [
            ("/a/*rest/b", "*name is the end of a path: \"/a/*rest/b\""),
            ("a", "a path begins with a slash: \"a\""),
            ("", "a path begins with a slash: \"\""),
            ("/a/:/b", "a variable has a name: \"/a/:/b\""),
            ("/a/*", "a variable has a name: \"/a/*\""),
            ("/a/:name/", "GET /a/:name is never reached, behind /a/:id"),
            ("/a/new", "GET /a/new is never reached, behind /a/:id"),
            ("/f", "GET /f is never reached, behind /f/*rest"),
            ("/f/x/*more", "GET /f/x/*more is never reached, behind /f/*rest"),
            ("//", "GET / is never reached, behind /"),
        ] {
            let panic = std::panic::catch_unwind(|| route(taken(), path)).expect_err(path);
            let told = panic.downcast_ref::<String>().expect("a text");
            assert!(told.contains(mistake), "{told}");
            let scoped = || taken().scope("/", |scope| route(scope, path));
            assert!(std::panic::catch_unwind(scoped).is_err(), "in a scope: {path}");
        }
        for path in ["/a", "/a/b/c", "/:page", "/:a/:b", "/*all", "/a/*rest", "/a%2fb"] {
            let _ = route(taken(), path);
        }
        let _ = taken().post("/a/:id", |_| "").scope("/in", |_| taken());
    }
}
