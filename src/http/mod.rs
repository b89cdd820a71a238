//! Pages, APIs and files beside the sockets: a router, plugs, sessions, on the engine's own HTTP/1.1.
//!
//! ```
//! use wingbeat::http::{RequestId, Router, SecureHeaders};
//! use wingbeat::Response;
//!
//! let router = Router::new()
//!     .plug(RequestId)
//!     .get("/", |_| Response::html("<h1>Rooms</h1>"))
//!     .get("/rooms/:name", |context| format!("room {}\n", context.var("name").unwrap_or_default()))
//!     .scope("/api", |api| {
//!         api.plug(SecureHeaders).post("/messages", |context| {
//!             let message: serde_json::Value = context.json()?;
//!             context.broadcast("room:lobby", "message", &message)?;
//!             Ok::<_, Response>(Response::no_content())
//!         })
//!     });
//! # let _ = router;
//! ```
//!
//! A request goes through the plugs of the router, then its route is looked for, then it goes through the plugs of the
//! route's scope, then the handler answers; the response comes back the same way. A router is immutable and
//! `Send + Sync`: put it into an `Arc`, and let the [`Handler::request`](crate::Handler::request) of every worker call
//! [`Router::answer`].
//!
//! Handlers run on the worker's thread, between its messages: what waits, on a disk or another server, belongs to a
//! thread of its own, and its answer goes out with [`Context::answer_later`].
#![forbid(unsafe_code)]

mod context;
mod csrf;
mod origin;
mod plug;
pub mod query;
mod router;
mod session;
mod static_files;

pub use context::Context;
pub use csrf::{Csrf, is_csrf_token};
pub use origin::{BadOrigin, Origin, OriginCheck, OriginPolicy};
pub use plug::{JsonBody, Next, Plug, RequestId, SecureHeaders};
pub use query::{Params, Value};
pub use router::Router;
pub(crate) use router::methods;
pub use session::{Session, SessionCookie};
pub use static_files::StaticFiles;
