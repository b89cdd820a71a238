//! The routes of an endpoint beside its sockets: those of its [`Router`], without naming it.
#![forbid(unsafe_code)]

use super::Endpoint;
use crate::engine::Response;
use crate::http::{Context, Plug, Router};
use std::mem;

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        impl Endpoint {
            $($(#[$doc])*
            ///
            /// # Panics
            /// As that of [`Router`].
            #[must_use]
            pub fn $name<R: Into<Response>>(
                self,
                path: &str,
                handler: impl Fn(&mut Context<'_>) -> R + Send + Sync + 'static,
            ) -> Self {
                self.with_router(|router| router.$name(path, handler))
            })*
        }
    };
}

methods! {
    /// Answers GET of this path, and HEAD.
    get,
    /// Answers POST of this path.
    post,
    /// Answers PUT of this path.
    put,
    /// Answers PATCH of this path.
    patch,
    /// Answers DELETE of this path.
    delete,
    /// Answers OPTIONS of this path.
    options,
}

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

    fn with_router(mut self, change: impl FnOnce(Router) -> Router) -> Self {
        self.router = change(mem::take(&mut self.router));
        self
    }
}
