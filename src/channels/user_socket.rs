//! [`UserSocket`]: what a mount serves and to whom.
#![forbid(unsafe_code)]

use super::Versions;
use super::channel::Channel;
use super::router::Route;
use std::time::Duration;

/// A kind of socket: its channels, its formats, its limits. Built once, shared by all workers.
#[derive(Debug)]
pub struct UserSocket {
    routes: Vec<Route>,
    versions: Versions,
    max_channels: usize,
    max_timers: usize,
    join_timeout: Duration,
}

impl UserSocket {
    /// Bytes of a topic that may be joined. Beyond: the join is answered with "unmatched topic".
    pub const TOPIC_BYTES: usize = 1024;

    /// Bytes of the `join_ref` and of the `ref` of a join, each. Beyond: the connection is closed with 1011.
    pub const REF_BYTES: usize = 255;

    /// No channels yet; V1 and V2; per socket 100 channels and 1,024 timers.
    pub fn new() -> Self {
        UserSocket {
            routes: Vec::new(),
            versions: Versions::default(),
            max_channels: 100,
            max_timers: 1024,
            join_timeout: Duration::from_secs(10),
        }
    }

    /// Topics that match `pattern` (exact, or a prefix and `*`) are served by what `make` makes, one value per join. The
    /// first pattern that matches counts.
    ///
    /// # Panics
    /// If the pattern has a `*` anywhere but at its end, or a pattern before it matches all that it does.
    pub fn channel<C: Channel>(mut self, pattern: &str, make: impl Fn() -> C + Send + Sync + 'static) -> Self {
        let route = Route::new(pattern, make);
        if let Some(earlier) = self.routes.iter().find(|earlier| earlier.covers(&route)) {
            panic!("channel {pattern:?} is never joined, behind {:?}", earlier.pattern());
        }
        self.routes.push(route);
        self
    }

    /// The formats that clients may ask for by `vsn`.
    pub fn serializers(mut self, versions: Versions) -> Self {
        self.versions = versions;
        self
    }

    /// Channels that one socket may have joined. Beyond: the join is refused with "too many channels joined". Default
    /// 100.
    pub fn channels_max(mut self, max: usize) -> Self {
        self.max_channels = max;
        self
    }

    /// Timers that the channels of one socket may have set. Beyond: [`Ctx::set_timer`](super::Ctx::set_timer) says
    /// [`Refused`](super::Refused). Default 1,024.
    pub fn timers_max(mut self, max: usize) -> Self {
        self.max_timers = max;
        self
    }

    /// How long a [`Join::Later`](super::Join::Later) may be pending, which holds its connection back. Beyond: the join
    /// has failed with "join crashed", and a later answer is dropped. Default 10 s, the patience of the official client.
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.join_timeout = timeout;
        self
    }

    /// The serializers, in the order of their indexes.
    #[cfg(feature = "epoll")]
    pub(crate) fn serializer_list(&self) -> impl Iterator<Item = &std::sync::Arc<dyn super::Serializer>> {
        self.versions.serializers()
    }

    /// The intercepted events of each route, in the order of their indexes.
    #[cfg(feature = "epoll")]
    pub(crate) fn intercept_lists(&self) -> impl Iterator<Item = &'static [&'static str]> {
        self.routes.iter().map(|route| route.intercept)
    }

    pub(crate) fn versions(&self) -> &Versions {
        &self.versions
    }

    pub(super) fn max_channels(&self) -> usize {
        self.max_channels
    }

    pub(super) fn max_timers(&self) -> usize {
        self.max_timers
    }

    pub(super) fn join_patience(&self) -> Duration {
        self.join_timeout
    }

    pub(super) fn route(&self, topic: &str) -> Option<(u16, &Route)> {
        if topic.len() > Self::TOPIC_BYTES {
            return None;
        }
        (0..).zip(&self.routes).find(|(_, route)| route.matches(topic))
    }

    pub(super) fn intercepts(&self, route: u16, event: &str) -> bool {
        self.routes[usize::from(route)].intercept.contains(&event)
    }
}

impl Default for UserSocket {
    fn default() -> Self {
        Self::new()
    }
}
