//! Profiles: the limits that differ between kinds of connections, chosen when one is accepted.
#![forbid(unsafe_code)]

use super::config::Limits;
use super::handler::Acceptance;
use super::table::Table;
use crate::proto::{CloseCode, ReadLimits};
use std::time::Duration;

/// Limits of one kind of connection. Those that none was chosen for have `Profile::from(&limits)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Profile {
    /// As [`Limits::message_bytes`].
    pub message_bytes: u32,
    /// Time without a byte from the peer, after which it is closed. Zero: off.
    pub idle_timeout: Duration,
    /// What happens until then, and then.
    pub keepalive: Keepalive,
}

/// How the engine deals with a silent peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Keepalive {
    /// A ping at two thirds of the idle timeout; at the end: close 1001.
    Ping,
    /// No ping: the peer has to say something by itself. At the end: a close with this code.
    Silent(CloseCode),
}

impl From<&Limits> for Profile {
    fn from(limits: &Limits) -> Self {
        let Limits { message_bytes, idle_timeout, .. } = *limits;
        Profile { message_bytes, idle_timeout, keepalive: Keepalive::Ping }
    }
}

impl Profile {
    /// The silence after which something is to be done.
    pub(crate) fn first_deadline(&self) -> Duration {
        match self.keepalive {
            Keepalive::Ping => self.idle_timeout / 3 * 2, // in this order: the timeout may be `Duration::MAX`
            Keepalive::Silent(_) => self.idle_timeout,
        }
    }
}

impl Acceptance {
    /// The limits of this connection, where they differ from the worker's. A worker knows 255 different ones beside its
    /// own; at a further one the connection gets the worker's own limits, and the log says so.
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = Some(profile);
        self
    }
}

/// The profiles of a worker, the one of its limits first: a connection keeps a byte.
#[derive(Debug)]
pub(crate) struct Profiles(Vec<Profile>);

impl Profiles {
    pub(crate) fn new(limits: &Limits) -> Self {
        Profiles(vec![Profile::from(limits)])
    }

    fn intern(&mut self, profile: Profile) -> u8 {
        let known = self.0.iter().position(|known| *known == profile);
        let index = known.unwrap_or_else(|| {
            self.0.push(profile);
            self.0.len() - 1
        });
        u8::try_from(index).unwrap_or_else(|_| {
            self.0.pop();
            tracing::error!("more than 256 profiles: a connection has the limits of its worker instead");
            0
        })
    }
}

impl Table {
    /// Chooses the limits of a connection, before it opens.
    pub(super) fn set_profile(&mut self, slot: u32, profile: Option<Profile>) {
        if let Some(profile) = profile {
            self.hot[slot].profile = self.profiles.intern(profile);
        }
    }

    #[inline]
    pub(super) fn profile(&self, slot: u32) -> &Profile {
        &self.profiles.0[usize::from(self.hot[slot].profile)]
    }

    /// What bounds the messages of a connection.
    pub(super) fn read_limits(&self, slot: u32) -> ReadLimits {
        let limits = &self.config.limits;
        ReadLimits {
            max_message: self.profile(slot).message_bytes,
            free_fragments: limits.fragments_free,
            min_fragment_bytes: limits.fragment_bytes_min,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_kept_once_and_bounded() {
        let limits = Limits::default();
        let mut profiles = Profiles::new(&limits);
        let of = |message_bytes| Profile { message_bytes, ..Profile::from(&limits) };
        assert_eq!(profiles.intern(Profile::from(&limits)), 0);
        for _ in 0..2 {
            assert!((1..=255).all(|bytes| u32::from(profiles.intern(of(bytes))) == bytes));
        }
        assert_eq!((profiles.intern(of(256)), profiles.0.len()), (0, 256));
    }
}
