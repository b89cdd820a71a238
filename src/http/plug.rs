//! What stands between the router and its handlers.
#![forbid(unsafe_code)]

use super::context::Context;
use super::router::Last;
use crate::engine::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::{fmt, sync::Arc};

/// One station of a request: it looks at it, may answer itself, or lets it on and sees the response come back.
///
/// Any closure of this shape is one:
///
/// ```
/// use wingbeat::http::{Context, Next, Router};
/// use wingbeat::Response;
///
/// Router::new().plug(|context: &mut Context<'_>, next: Next<'_>| match context.header("authorization") {
///     Some("Bearer secret") => next.run(context),
///     _ => Response::new(401),
/// });
/// ```
pub trait Plug: Send + Sync {
    /// Answers, or calls [`Next::run`].
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response;
}

impl<F: Fn(&mut Context<'_>, Next<'_>) -> Response + Send + Sync> Plug for F {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        self(context, next)
    }
}

/// The rest of the way.
pub struct Next<'n> {
    pub(super) plugs: &'n [Arc<dyn Plug>],
    pub(super) last: Last<'n>,
}

impl fmt::Debug for Next<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Next").field("plugs", &self.plugs.len()).finish_non_exhaustive()
    }
}

impl Next<'_> {
    /// Lets the request on.
    pub fn run(self, context: &mut Context<'_>) -> Response {
        match self.plugs.split_first() {
            Some((plug, plugs)) => plug.call(context, Next { plugs, last: self.last }),
            None => self.last.call(context),
        }
    }
}

/// Gives each request an id: that of its `x-request-id` (20 to 200 visible ASCII characters), else a fresh one. It is in
/// the response's `x-request-id`, and in the field `request_id` of the `tracing` span around what follows.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestId;

impl Plug for RequestId {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        let sent = context.header("x-request-id");
        let sent = sent.filter(|id| (20..=200).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
        let id = sent.map_or_else(|| URL_SAFE_NO_PAD.encode(random::<15>()), str::to_owned);
        let span = tracing::info_span!("request", request_id = %id);
        let response = span.in_scope(|| next.run(context));
        response.set_header("x-request-id", id)
    }
}

/// Header fields that keep browsers from doing harm, each unless the handler set it: no guessing of types, no frames on
/// other sites, no referrers to them.
#[derive(Clone, Copy, Debug, Default)]
pub struct SecureHeaders;

impl Plug for SecureHeaders {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        const FIELDS: [(&str, &str); 4] = [
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "strict-origin-when-cross-origin"),
            ("Content-Security-Policy", "base-uri 'self'; frame-ancestors 'self'"),
            ("X-Permitted-Cross-Domain-Policies", "none"),
        ];
        FIELDS.into_iter().fold(next.run(context), |response, (name, value)| match response.has_header(name) {
            true => response,
            false => response.header(name, value),
        })
    }
}

/// Lets on what has no body, or one of JSON of so many bytes at most; else 415 or 413.
///
/// The whole body has been received by then: what the engine receives at all is
/// [`Limits::body_bytes`](crate::Limits::body_bytes) and [`Handler::body_limit`](crate::Handler::body_limit).
#[derive(Clone, Copy, Debug)]
pub struct JsonBody {
    /// Bytes, inclusive.
    pub limit: usize,
}

impl Plug for JsonBody {
    fn call(&self, context: &mut Context<'_>, next: Next<'_>) -> Response {
        context.body_limit = self.limit;
        match context.check_json() {
            Err(response) if !context.body().is_empty() => response,
            _ => next.run(context),
        }
    }
}

/// Bytes of the system's generator.
///
/// # Panics
/// The system has none: then nothing can be kept secret.
pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system's random numbers");
    bytes
}
