//! What is logged of what clients do: cut, and not once per message.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};

/// The beginning of a text that a client chose.
pub(crate) fn brief(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(at, _)| &text[..at])
}

/// Something that may happen as often as clients like: the first of every 1,024 is logged.
#[derive(Debug)]
pub(crate) struct Seldom(AtomicU64);

impl Seldom {
    pub(crate) const fn new() -> Seldom {
        Seldom(AtomicU64::new(0))
    }

    /// Counts it; how often it has happened if this one is to be logged.
    pub(crate) fn turn(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        (count % 1024 == 1).then_some(count)
    }
}

/// A callback of the user's has panicked.
pub(super) fn panicked(topic: &str, callback: &str) {
    static PANICS: Seldom = Seldom::new();
    if let Some(panics) = PANICS.turn() {
        tracing::error!(topic = brief(topic), callback, panics, "a callback of a channel panicked");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, kept) in [("", 0), ("room:a", 6)] {
            assert_eq!(brief(text).len(), kept);
        }
        assert_eq!(brief(&"x".repeat(1 << 20)).len(), 64);
        assert_eq!(brief(&"é".repeat(100)), "é".repeat(64));
    }

    #[test]
    fn the_first_of_every_1024() {
        let seldom = Seldom::new();
        let logged = (0..3000).filter_map(|_| seldom.turn()).collect::<Vec<_>>();
        assert_eq!(logged, [1, 1025, 2049]);
    }
}
