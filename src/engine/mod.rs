//! Workers: what turns completions into callbacks, and what callbacks do into system calls.
//!
//! ```text
//!            completions                     callbacks
//!  Driver ───────────────► Engine (session) ───────────► Handler
//!    ▲                        │   opening, http, deadlines   │ Conn, Scope
//!    │ send, pause, close     ▼                              ▼
//!    └──────────── Worker ◄── Table ◄────────────────────── Core
//!                   turn      records, frames, outboxes      topics, timers
//! ```
//!
//! A turn: poll; mail; timers; walks; flush. All that is sent to a connection in a turn leaves in one system call. See
//! [`Worker`] for the loop, [`Handler`] for what a user implements, [`Handle`] for other threads.
#![forbid(unsafe_code)]

mod admission;
mod closing;
mod config;
mod connection;
mod core;
mod counters;
mod deadlines;
mod deliver;
mod delivery;
mod drain;
mod encoding;
mod error;
mod flush;
mod handler;
mod http;
#[doc(hidden)] // public for the benchmarks alone, as are `lane` and `timer`: no part of the API
pub mod hub;
#[doc(hidden)]
pub mod lane;
mod listener;
mod mail;
mod opening;
mod outbox;
mod payload;
mod profile;
mod random;
mod request;
mod session;
mod spin;
mod table;
mod target;
#[doc(hidden)]
pub mod timer;
mod worker;

pub use config::{Budgets, Config, Limits, SlowConsumer};
pub use counters::{Counters, Snapshot};
pub use drain::Drain;
pub use encoding::{Encoder, Encoding};
pub use error::{CloseCause, CloseReason, ConnectError, Full, Published, SendStatus, SubscribeError, TooManyListeners};
pub use handler::{Acceptance, Conn, ConnId, Handler, Message, Never, Scope, Upgrade};
pub use listener::TopicListenerId;
pub use mail::Handle;
pub use opening::ClientResponse;
pub use payload::PayloadWriter;
pub use profile::{Keepalive, Profile};
pub use request::{Answer, Request, Response};
pub use target::{Reconnect, Target};
pub use timer::TimerId;
pub use worker::{Worker, WorkerSeed, group};
