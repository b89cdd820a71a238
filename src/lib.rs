//! A real-time server engine: WebSocket (RFC 6455) on its own event loop, with topics across threads.
//!
//! ```text
//!            ┌────────────────────────── one worker, one thread ──────────────────────────┐
//!            │                                                                             │
//!  bytes in ─┼─► Driver ──► Reader ──► Handler::message(conn, state, message)              │
//!            │   epoll,     in place,     │ conn.send(..)      scope.publish(topic, ..)    │
//!            │   sim        no copy       ▼                          │                     │
//!  bytes out ┼─◄ one send ◄── outbox ◄── frame, encoded once ◄── walk over subscribers     │
//!            │   per turn     4 B a frame                            │                     │
//!            └───────────────────────────────────────────────────────┼─────────────────────┘
//!                       mail: one allocation per publication ◄───────┴──► other workers, Handle
//! ```
//!
//! A server is a [`Handler`] and one line:
//!
//! ```no_run
//! use wingbeat::{Conn, Handler, Message, Never, Request, Scope, Server, Upgrade};
//!
//! struct Echo;
//! impl Handler for Echo {
//!     type State = ();
//!     type Mail = Never;
//!     fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
//!         Upgrade::Accept(())
//!     }
//!     fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
//!         conn.send(message);
//!     }
//! }
//!
//! Server::bind("127.0.0.1:9001")?.serve(|_worker| Echo)?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! # Where to begin
//!
//! * To serve: [`Server`], [`Handler`], [`Conn`]; from other threads and async tasks: [`Handle`].
//! * To connect: [`client::Client`] blocks, for tools and tests; [`Scope::connect`] runs connections on the engine.
//! * To run it inside an event loop of your own: [`Worker`].
//! * To parse or write frames alone, without sockets: [`proto`].
//! * How it is built, and why: [`architecture`].
//!
//! # Features
//!
//! `epoll` (default): the engine, on Linux. Without it [`proto`], [`buffer`] and [`pubsub`] remain, on any system.
//! `uring` (default): io_uring beside epoll, chosen at start ([`Server::driver`]).
//! `cli`: the program `wingbeat`. A feature adds; none changes a default or weakens a limit.
#![deny(unsafe_code)]

#[cfg(doc)]
pub mod architecture;
pub mod buffer;
pub mod channels;
pub mod client;
#[cfg(feature = "epoll")]
pub mod driver;
#[cfg(feature = "epoll")]
pub mod engine;
pub mod proto;
pub mod pubsub;
#[cfg(feature = "epoll")]
pub mod server;

#[cfg(feature = "epoll")]
pub use bytes::Bytes;
#[cfg(feature = "epoll")]
pub use driver::Address;
#[cfg(feature = "epoll")]
pub use engine::{
    Acceptance, Budgets, ClientResponse, CloseCause, CloseReason, Config, Conn, ConnId, ConnectError, Counters, Drain,
    Full, Handle, Handler, Limits, Message, Never, PayloadWriter, Published, Reconnect, Request, Response, Scope,
    SendStatus, SlowConsumer, Snapshot, SubscribeError, Target, TimerId, Upgrade, Worker,
};
pub use proto::{CloseCode, MessageKind};
#[cfg(feature = "epoll")]
pub use server::{Running, Server};
