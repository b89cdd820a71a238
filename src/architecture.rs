//! How wingbeat is built, and why.
//!
//! # Layers
//!
//! Arrows point from user to used; a test reads the sources and fails on one that goes up.
//!
//! ```text
//!        server, client, bin
//!               │
//!               ▼
//!   ┌─────── endpoint ──► http          facade: may see all that is below
//!   │           │           │
//!   ▼           ▼           ▼
//! channels    engine ◄──────┘
//!   │           │  │
//!   │           │  ├──► driver ─┐
//!   └───────────┼──┴──► proto ──┼─► buffer
//!               └─────► pubsub ─┘
//! ```
//!
//! | files | what is in them |
//! |---|---|
//! | `src/buffer/`, `src/proto/`, `src/driver/`, `src/pubsub/`, `src/engine/` | the engine, from the bottom up |
//! | `src/channels/` | `envelope`, `serializer`, `v1_json`, `v2_json`, `v2_binary`, `json_read`: the wire; `socket`, `env`: the decision table and what its channels share; `channel`, `context`, `payload`: what users write and touch; `outlet`: what a socket acts on; `presence/`, `token`, `jwt`; `testing/`: the kit |
//! | `src/http/` | `router`, `plug`, `context`, and the plugs: `session`, `csrf`, `origin`, `static_files` |
//! | `src/endpoint/` | `mount`: who may connect; `handler`: an endpoint on one worker; `line`, `longpoll`: the two outlets; `classes`: the fastlane's encoder; `mail`, `timers`; `quota`: sessions per address; `log`: what is told of clients and channels |
//! | `src/server.rs`, `src/client/`, `src/bin/wingbeat/` | threads around workers, the blocking client, the program |
//!
//! * [`buffer`](crate::buffer): memory that is made once and used again. A *frame* is written once and referred to by 4
//!   bytes; a *batch* is what a driver owns while a send is in flight.
//! * [`proto`](crate::proto): RFC 6455 without I/O, clock or randomness: bytes in, events out, bytes out.
//! * [`driver`](crate::driver): moves bytes between sockets and a worker, by completions. `epoll` and `uring` for real,
//!   `sim` for proof.
//! * [`pubsub`](crate::pubsub): topics, subscriptions and walks over plain integers.
//! * [`engine`](crate::engine): a worker's turn; connections, outboxes, timers, mail, limits, drain.
//! * [`channels`](crate::channels): the Phoenix model without I/O; a socket is told what came in and acts on an
//!   [`Outlet`](crate::channels::Outlet).
//! * [`http`](crate::http): pages and APIs: a request goes through plugs to a route. Its cookies are signed with
//!   [`channels::token`](crate::channels::token).
//! * [`endpoint`](crate::endpoint): a [`Handler`](crate::Handler) that puts the two on the engine.
//!
//! # A turn
//!
//! ```text
//! poll              completions: Received -> Reader -> Handler -> frames into outboxes, connections marked dirty
//! mail              publications of other workers, commands of handles; one wake however many messages
//! timers            one clock read per turn; activity only stores a tick, the wheel re-arms lazily
//! walk (budget)     what publications owe their subscribers
//! flush             one system call per dirty connection
//! ```
//!
//! Each step has a budget in [`Budgets`](crate::Budgets) or [`DriverConfig`](crate::driver::DriverConfig), so the longest
//! turn is bounded whatever comes in.
//!
//! # Why completions, on epoll
//!
//! Readiness leaks into everything above it, and an interface of readiness wastes io_uring. Completions cost epoll
//! nothing, because the worker owns one receive buffer: the driver receives into it and lends the bytes for a callback.
//! A connection that has nothing in progress owns no bytes at all. io_uring receives into provided buffers that all
//! sockets share, and lends from those; its sends are handed over by the system call that waits for the next turn.
//!
//! # Why publications are walked, not pushed
//!
//! [`Scope::publish`](crate::Scope::publish) appends to the topic's pending list and returns. A walk, which
//! begins in the same turn, visits each subscriber once and hands it what it is owed; a burst is first joined into one
//! frame. Program order
//! is kept all the same: before anything else is queued for a connection, it is given what it is owed (*catch up*), in
//! publish order over all its topics. The walk stops when the budget of the turn is spent and goes on in the next, so
//! that a topic with 100,000 subscribers does not freeze the others.
//!
//! # Why classes of subscriptions
//!
//! Subscribers of one topic may speak different formats. A subscription has a class
//! ([`Conn::subscribe_as`](crate::Conn::subscribe_as)); a publication is encoded once for each class that has subscribers
//! on the worker ([`Encoder`](crate::Encoder)), and all of them share that frame. Where an encoding asks for it, the
//! subscriber gets a callback with the publication as it was ([`Handler::delivery`](crate::Handler::delivery)), and so
//! do *listeners*, subscribers that are no connection ([`Scope::listen`](crate::Scope::listen)). The walk only notes
//! callbacks; they are made after it, or after the callback that caught up, never within one. What crosses workers is
//! the publication in no encoding: classes differ from worker to worker.
//!
//! # How channels use it
//!
//! ```text
//! WebSocket ──► EndpointHandler ──► Line ──┐ implements Outlet        ┌─► Channel::handle_in(ctx, event, payload)
//! HTTP poll ──► EndpointHandler ──► Wire ──┴──► Socket: route by topic ┘        │
//!                                                                              ▼ ctx.broadcast
//!  client ◄── frame, encoded once per serializer ◄── walk ◄── publish(topic, event + payload in no format)
//! ```
//!
//! A join subscribes its connection to the topic in the class of its serializer and route, so that a broadcast is one
//! publication like any other: the endpoint's [`Encoder`](crate::Encoder) writes it once per format, and no channel runs.
//! Only for intercepted events, on the topic of a socket's id and on topics that a channel subscribed to itself it is a
//! callback. A long-poll session is a listener with a buffer; it lives on the worker that made it, and a request for it that
//! comes in on another worker is mailed there and answered later. Late replies, late joins and messages to channels are
//! mail to the connection or the session; what names a channel is a serial number, which no later channel has.
//!
//! A join that is answered later pauses the connection's receiving: what the client sends meanwhile stays in order
//! without being kept by us.
//!
//! # Two accounts
//!
//! Nothing is lost silently. Publications x interested workers = accepted + counted refusals of full mailboxes
//! ([`Published::refused`](crate::Published)). Messages accepted for subscribers = sent, or given to a
//! callback + dropped by a counted policy + undelivered at a close that carries a code. [`Counters`](crate::Counters) has each term, and the soak test checks the
//! sums.
//!
//! # The life of a connection
//!
//! ```text
//! Connecting ─► Opening ─► (Deferred) ─► Open ─► Closing ─► Finishing ─► Lingering ─► Dead ─► vacant
//!  client        head       Later         frames  our Close  what is      writing      given to
//!                                                 is out     queued       is shut      the driver
//! ```
//!
//! It only moves to the right. `Lingering` discards what still comes in until the peer closes or a deadline passes:
//! closing with unread input would make the kernel send a reset, which overtakes our Close frame. A slot is used again
//! only after the driver's last word on it, and ids carry a generation, so a late completion or mail finds nobody.
//!
//! # Where `unsafe` is
//!
//! In four files of `driver/uring`; every other file forbids it (those above them deny it), and system calls go through
//! mio, socket2, rustix and nix. What the three rest on:
//!
//! * `queue.rs`: memory that an operation names outlives the operation. A batch stays in its slot until the last
//!   completion of its send, and its bytes are frames that neither change nor die while the batch holds them, which safe
//!   code ensures (`Rc::get_mut`). Message headers need to live only until the kernel has taken the entry.
//! * `buf_ring.rs`: the kernel writes only behind what it has announced; what it announced is lent once, within a buffer
//!   that goes back to the kernel after that.
//! * `sockets.rs`: one call, which promises the first of these.
//!
//! The driver counts operations that have not ended. Dropped, it ends them and waits; if the kernel does not end them,
//! what they name is leaked.
#![forbid(unsafe_code)]
