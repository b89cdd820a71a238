//! Waking a poll from another thread.
#![forbid(unsafe_code)]

/// Ends the wait of a [`Driver::poll`](super::Driver::poll) in another thread, or the next one if none is waiting.
///
/// Several calls before the poll returns are seen as one [`Completion::Woken`](super::Completion::Woken).
pub trait Wake: Send + Sync {
    /// Wakes. One system call (about 1 us if nobody sleeps, 13 us if a halted core is woken): call it only
    /// if the other side said that it sleeps.
    fn wake(&self);
}

/// An eventfd.
impl Wake for mio::Waker {
    fn wake(&self) {
        // It fails only if the descriptor is not an eventfd, which mio rules out; its overflow is handled by mio.
        let result = mio::Waker::wake(self);
        debug_assert!(result.is_ok(), "{result:?}");
    }
}
