//! [`Channel`]: what a user writes, one value per joined topic and client.
#![forbid(unsafe_code)]

use super::context::{Ctx, JoinCtx};
use super::{OwnedPayload, Payload, ToPayload};
use std::{any::Any, borrow::Cow, fmt};

/// One client on one topic. The value is the channel's state; it lives on the thread of its connection, so it needs
/// neither locks nor `Send`.
///
/// A panic in a callback ends this channel with `phx_error` (a join with an error reply); the connection and its other
/// channels go on. Under `panic = "abort"` the process ends instead.
///
/// ```
/// use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload};
///
/// #[derive(Default)]
/// struct Room { posted: u32 }
///
/// impl Channel for Room {
///     fn join(&mut self, _: &mut JoinCtx<'_>, _topic: &str, _: Payload<'_>) -> Join {
///         Join::Ok
///     }
///     fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
///         match event {
///             "post" => {
///                 self.posted += 1;
///                 ctx.broadcast("posted", payload);
///                 Outcome::NoReply
///             }
///             "count" => Outcome::ok(serde_json::json!({ "posted": self.posted })),
///             _ => Outcome::Unhandled,
///         }
///     }
/// }
/// ```
pub trait Channel: 'static {
    /// Events of broadcasts on the channel's own topic that go to [`Channel::handle_out`] instead of straight to the
    /// client. Each costs an encoding per client, where others cost one for all.
    const INTERCEPT: &'static [&'static str] = &[];

    /// The client wants to join. Nothing can be sent yet; see [`Channel::joined`].
    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join;

    /// The client has joined, and the reply is on its way: what is pushed here follows it.
    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        let _ = ctx;
    }

    /// The client pushed an event.
    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome;

    /// A broadcast of an event in [`Channel::INTERCEPT`]. The default pushes it on.
    fn handle_out(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        ctx.push(event, payload);
        Outcome::NoReply
    }

    /// A timer, a message of another thread, or a broadcast on a topic that the channel itself subscribed to.
    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome {
        let _ = (ctx, info);
        Outcome::NoReply
    }

    /// The channel ends. Called once for every channel that had joined, also after a panic. What is pushed here still
    /// reaches a client that is there.
    fn terminate(&mut self, ctx: &mut Ctx<'_>, reason: &Reason) {
        let _ = (ctx, reason);
    }
}

/// The answer to a join.
#[derive(Debug)]
pub enum Join {
    /// `ok` with `{}`.
    Ok,
    /// `ok` with a payload; see [`Join::reply`].
    Reply(OwnedPayload),
    /// `error` with a payload; the official client tries again, ever more slowly. See [`Join::refuse`].
    Refuse(OwnedPayload),
    /// Later, by whoever holds what [`JoinCtx::later`] gave. What the client sends meanwhile on this connection waits, in
    /// order; everybody else goes on. No longer than [`UserSocket::join_timeout`](super::UserSocket::join_timeout).
    Later,
}

/// What follows from a callback.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing.
    NoReply,
    /// A reply to the message that came in; see [`Outcome::ok`], [`Outcome::error`], [`Outcome::reply`]. From callbacks
    /// that no message of the client caused, nothing is sent.
    Reply(Cow<'static, str>, OwnedPayload),
    /// The channel ends: `phx_close` if the reason is graceful, else `phx_error`.
    Stop(Reason),
    /// A reply, then the end.
    StopReply(Reason, Cow<'static, str>, OwnedPayload),
    /// The channel does not know this event: that is an error of the client, and the channel crashes.
    Unhandled,
}

/// Why a channel ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// The channel is done. Graceful.
    Normal,
    /// The channel is told to end. Graceful.
    Shutdown,
    /// The client left.
    Left,
    /// The client joined the same topic again.
    DuplicateJoin,
    /// The connection is over.
    Closed,
    /// The socket's id was disconnected.
    Disconnected,
    /// A long-poll session was not polled in time.
    Inactive,
    /// The server drains.
    Draining,
    /// A callback panicked, did not know an event, or sent what cannot be sent.
    Crashed,
    /// Anything else; not graceful.
    Other(Cow<'static, str>),
}

/// What [`Channel::handle_info`] is called with.
#[derive(Debug)]
#[non_exhaustive]
pub enum Info<'a> {
    /// A timer of [`Ctx::set_timer`].
    Timer(u64),
    /// From [`ChannelHandle::send`](super::ChannelHandle::send).
    Message(Box<dyn Any + Send>),
    /// On a topic of [`Ctx::subscribe`].
    Broadcast {
        /// The topic.
        topic: &'a str,
        /// The event.
        event: &'a str,
        /// What it carries.
        payload: Payload<'a>,
    },
}

impl Join {
    /// `ok` with a payload. One that cannot be serialized is a failed join.
    pub fn reply(payload: impl ToPayload) -> Join {
        OwnedPayload::new(payload).map_or_else(|error| panic!("{error}"), Join::Reply)
    }

    /// `error` with a payload. One that cannot be serialized is a failed join.
    pub fn refuse(payload: impl ToPayload) -> Join {
        OwnedPayload::new(payload).map_or_else(|error| panic!("{error}"), Join::Refuse)
    }
}

impl Outcome {
    /// A reply `ok`. A payload that cannot be serialized crashes the channel.
    pub fn ok(payload: impl ToPayload) -> Outcome {
        Outcome::reply("ok", payload)
    }

    /// A reply `error`. A payload that cannot be serialized crashes the channel.
    pub fn error(payload: impl ToPayload) -> Outcome {
        Outcome::reply("error", payload)
    }

    /// A reply of any status. A payload that cannot be serialized crashes the channel.
    pub fn reply(status: impl Into<Cow<'static, str>>, payload: impl ToPayload) -> Outcome {
        match OwnedPayload::new(payload) {
            Ok(payload) => Outcome::Reply(status.into(), payload),
            Err(error) => Outcome::Stop(Reason::Other(error.to_string().into())),
        }
    }

    /// Then the channel ends.
    pub fn and_stop(self, reason: Reason) -> Outcome {
        match self {
            Outcome::Reply(status, payload) => Outcome::StopReply(reason, status, payload),
            Outcome::NoReply => Outcome::Stop(reason),
            ended => ended,
        }
    }
}

impl Reason {
    /// Whether the client is told `phx_close`, after which it does not join again, rather than `phx_error`.
    pub fn is_graceful(&self) -> bool {
        !matches!(self, Reason::Crashed | Reason::Other(_))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Normal => "normal",
            Reason::Shutdown => "shutdown",
            Reason::Left => "left",
            Reason::DuplicateJoin => "duplicate join",
            Reason::Closed => "closed",
            Reason::Disconnected => "disconnected",
            Reason::Inactive => "inactive",
            Reason::Draining => "draining",
            Reason::Crashed => "crashed",
            Reason::Other(reason) => reason,
        })
    }
}

/// [`Channel`] without its constant, so that channels of all types live in one table.
pub(super) trait AnyChannel {
    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join;
    fn joined(&mut self, ctx: &mut Ctx<'_>);
    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome;
    fn handle_out(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome;
    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome;
    fn terminate(&mut self, ctx: &mut Ctx<'_>, reason: &Reason);
}

impl<C: Channel> AnyChannel for C {
    fn join(&mut self, ctx: &mut JoinCtx<'_>, topic: &str, payload: Payload<'_>) -> Join {
        Channel::join(self, ctx, topic, payload)
    }

    fn joined(&mut self, ctx: &mut Ctx<'_>) {
        Channel::joined(self, ctx);
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        Channel::handle_in(self, ctx, event, payload)
    }

    fn handle_out(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        Channel::handle_out(self, ctx, event, payload)
    }

    fn handle_info(&mut self, ctx: &mut Ctx<'_>, info: Info<'_>) -> Outcome {
        Channel::handle_info(self, ctx, info)
    }

    fn terminate(&mut self, ctx: &mut Ctx<'_>, reason: &Reason) {
        Channel::terminate(self, ctx, reason);
    }
}
