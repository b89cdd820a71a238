//! The routes of an endpoint beside its sockets: those of its [`Router`], without naming it.
#![forbid(unsafe_code)]

use super::Endpoint;
use crate::engine::Response;
use crate::http::{Context, Plug, Router, methods};
use std::mem;

methods!(Endpoint);

impl Endpoint {
    /// Lets every request pass `plug`; see [`Router::plug`]. Sockets have checks of their own.
    #[must_use]
    pub fn plug(self, plug: impl Plug + 'static) -> Self {
        self.with_router(|router| router.plug(plug))
    }

    /// Adds routes below `prefix`; see [`Router::scope`].
    ///
    /// # Panics
    /// As for a route's path.
    #[must_use]
    pub fn scope(self, prefix: &str, build: impl FnOnce(Router) -> Router) -> Self {
        self.with_router(|router| router.scope(prefix, build))
    }

    /// Answers what no route matches.
    #[must_use]
    pub fn not_found<R: Into<Response>>(self, handler: impl Fn(&mut Context<'_>) -> R + Send + Sync + 'static) -> Self {
        self.with_router(|router| router.not_found(handler))
    }

    fn route<R: Into<Response>>(
        self,
        method: &'static str,
        path: &str,
        handler: impl Fn(&mut Context<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        self.with_router(|router| router.route(method, path, handler))
    }

    fn with_router(mut self, change: impl FnOnce(Router) -> Router) -> Self {
        self.router = change(mem::take(&mut self.router));
        self
    }
}
