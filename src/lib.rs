//! A real-time server engine: WebSocket (RFC 6455) on its own event loop, with topics across threads, and channels on
//! top of it that speak the protocol of Phoenix.
//!
//! ```text
//!            ┌────────────────────────── one worker, one thread ──────────────────────────┐
//!            │                                                                             │
//!  bytes in ─┼─► Driver ──► Reader ──► Handler::message(conn, state, message)              │
//!            │   epoll or   in place,     │ conn.send(..)      scope.publish(topic, ..)    │
//!            │   io_uring   no copy       ▼                          │                     │
//!  bytes out ┼─◄ one send ◄── outbox ◄── frame, encoded once ◄── walk over subscribers     │
//!            │   per turn     4 B a frame                            │                     │
//!            └───────────────────────────────────────────────────────┼─────────────────────┘
//!                       mail: one allocation per publication ◄───────┴──► other workers, Handle
//! ```
//!
//! There are two ways to use it. One is to write channels, which any client of Phoenix joins:
//!
//! ```no_run
//! use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, UserSocket};
//! use wingbeat::endpoint::Endpoint;
//!
//! struct Room;
//! impl Channel for Room {
//!     fn join(&mut self, _: &mut JoinCtx<'_>, _topic: &str, _: Payload<'_>) -> Join {
//!         Join::Ok
//!     }
//!     fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
//!         match event {
//!             "post" => {
//!                 ctx.broadcast("post", payload);
//!                 Outcome::NoReply
//!             }
//!             _ => Outcome::Unhandled,
//!         }
//!     }
//! }
//!
//! Endpoint::new().socket("/socket", UserSocket::new().channel("room:*", || Room)).serve("127.0.0.1:4000")?;
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! The other is to speak a protocol of your own: a server is a [`Handler`] and one line.
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
//! * To serve channels: [`channels::Channel`], [`endpoint::Endpoint`], [`endpoint::Mount`]; from other threads:
//!   [`endpoint::EndpointHandle`]; to test them: [`channels::testing`]. `docs/channels.md` in the repository is a guide.
//! * To serve pages and an API beside them: [`http::Router`], and the guide `docs/http.md`.
//! * To serve a protocol of your own: [`Server`], [`Handler`], [`Conn`]; from other threads and async tasks: [`Handle`].
//! * To connect: [`client::Client`] blocks, for tools and tests; [`Scope::connect`] runs connections on the engine.
//! * To run it inside an event loop of your own: [`Worker`].
//! * To parse or write frames alone, without sockets: [`proto`].
//! * How it is built, and why: [`architecture`].
//!
//! # Features
//!
//! * `epoll` (default): the engine, on Linux, with [`endpoint`] and [`http`]. Without it [`proto`], [`buffer`], [`pubsub`],
//!   the blocking [`client`] and all of [`channels`] that does no I/O remain, on any system: serializers, sockets, presence,
//!   tokens, the test kit.
//! * `uring` (default): io_uring beside epoll, chosen at start ([`Server::driver`]).
//! * `jwt`: `channels::jwt`, tokens that somebody else signed.
//! * `cli`: the program `wingbeat`.
//!
//! A feature adds; none changes a default or weakens a limit.
#![deny(unsafe_code)]

#[cfg(test)]
extern crate self as wingbeat; // for tests that are shared with those outside of the crate

#[cfg(doc)]
pub mod architecture;
pub mod buffer;
pub mod channels;
pub mod client;
#[cfg(feature = "epoll")]
pub mod driver;
#[cfg(feature = "epoll")]
pub mod endpoint;
#[cfg(feature = "epoll")]
pub mod engine;
#[cfg(feature = "epoll")]
pub mod http;
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
    Acceptance, Answer, Budgets, ClientResponse, CloseCause, CloseReason, Config, Conn, ConnId, ConnectError, Counters,
    Drain, Encoder, Encoding, Full, Handle, Handler, Keepalive, Limits, Message, Never, PayloadWriter, Profile,
    Published, Reconnect, Request, Response, Scope, SendStatus, SlowConsumer, Snapshot, SubscribeError, Target,
    TimerId, TooManyListeners, TopicListenerId, Upgrade, Worker,
};
pub use proto::{CloseCode, MessageKind};
#[cfg(feature = "epoll")]
pub use server::{Running, Server};

/// The examples of the README and the guide, compiled with those of the documentation.
#[cfg(all(doctest, feature = "epoll"))]
#[doc = include_str!("../README.md")]
#[doc = include_str!("../docs/channels.md")]
#[doc = include_str!("../docs/http.md")]
pub struct Guides;
