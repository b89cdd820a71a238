//! The fastlane: which encoding class a subscription has, and how a broadcast is encoded for each.
#![forbid(unsafe_code)]

use crate::channels::{Broadcast, Outgoing, Seldom, Serializer, Service, UserSocket, brief, is_reserved};
use crate::engine::{Encoder, Encoding, Message};
use std::collections::HashMap;
use std::{fmt, sync::Arc};

/// Every broadcast comes to the socket.
pub(super) const SOCKET: u8 = 1;
const FIRST: u8 = 2;
const CLASSES: u8 = 16;

/// The encoding classes of an endpoint, made once: one per serializer and list of intercepted events.
#[derive(Clone, Default)]
pub(super) struct Classes {
    kinds: Vec<Kind>,
    /// By mount, serializer and route.
    index: HashMap<(u16, u8, u16), u8>,
}

#[derive(Clone)]
struct Kind {
    serializer: Arc<dyn Serializer>,
    intercept: &'static [&'static str],
}

impl Classes {
    /// Adds what a mount needs. Beyond the number of classes its sockets encode their broadcasts themselves.
    pub(super) fn add(&mut self, mount: u16, socket: &UserSocket) {
        for (serializer, shared) in (0..).zip(socket.serializer_list()) {
            for (route, intercept) in (0..).zip(socket.intercept_lists()) {
                let kind = Kind { serializer: Arc::clone(shared), intercept };
                let class = self.class(kind);
                if class == SOCKET {
                    tracing::warn!(mount, route, "more serializers and intercept lists than encoding classes");
                }
                self.index.insert((mount, serializer, route), class);
            }
        }
    }

    fn class(&mut self, kind: Kind) -> u8 {
        let known = self.kinds.iter().position(|other| other.is(&kind));
        let at = known.unwrap_or(self.kinds.len()) as u8;
        if known.is_none() {
            if at >= CLASSES - FIRST {
                return SOCKET;
            }
            self.kinds.push(kind);
        }
        FIRST + at
    }

    /// Writes a broadcast as the subscribers of a class get it.
    pub(super) fn write(&self, class: u8, topic: &str, message: Message<'_>, out: &mut Vec<u8>) -> Encoding {
        let Some(at) = class.checked_sub(FIRST) else { return Encoding::DELIVER };
        let Some(kind) = self.kinds.get(usize::from(at)) else { return Encoding::SKIP };
        let Some(Broadcast { event, payload }) = Broadcast::read(message.kind, message.payload) else {
            tracing::debug!(topic = brief(topic), "a publication that is no broadcast went to the topic of channels");
            return Encoding::SKIP;
        };
        if is_reserved(event) {
            return Encoding::SKIP; // to the sockets of an id, not to who joined a topic of that name
        }
        if kind.intercept.contains(&event) {
            return Encoding::DELIVER;
        }
        match kind.serializer.encode(&Outgoing::Broadcast { topic, event, payload }, out) {
            Ok(kind) => Encoding::frame(kind),
            Err(error) => {
                static UNWRITABLE: Seldom = Seldom::new();
                if let Some(times) = UNWRITABLE.turn() {
                    let (topic, event) = (brief(topic), brief(event));
                    tracing::warn!(topic, event, %error, times, "a broadcast cannot be written for one format");
                }
                Encoding::SKIP
            }
        }
    }

    pub(super) fn of(&self, mount: u16, service: Service) -> u8 {
        match service {
            Service::Socket => SOCKET,
            Service::Fastlane { serializer, route } => {
                self.index.get(&(mount, serializer, route)).copied().unwrap_or(SOCKET)
            }
        }
    }
}

impl Kind {
    fn is(&self, other: &Kind) -> bool {
        Arc::ptr_eq(&self.serializer, &other.serializer) && self.intercept == other.intercept
    }
}

impl Encoder for Classes {
    fn encode(&mut self, class: u8, topic: &str, message: Message<'_>, out: &mut Vec<u8>) -> Encoding {
        self.write(class, topic, message, out)
    }
}

impl fmt::Debug for Classes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classes").field("kinds", &self.kinds.len()).finish_non_exhaustive()
    }
}
