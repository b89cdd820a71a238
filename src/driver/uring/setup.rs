//! How large a ring is: as large as was asked for, or as the memory allows that may be locked.
#![forbid(unsafe_code)]

use super::super::{DriverConfig, Unavailable};
use super::buf_ring::BufRing;
use super::probe::reason;
use super::queue::Queue;
use std::io;

/// Operations per system call at most; more than 32 gains nothing.
const ENTRIES_MAX: usize = 256;
/// Completions that fit in the kernel's queue, per event of [`DriverConfig::events`]: beyond, multishots end.
const COMPLETIONS_PER_EVENT: usize = 4;
const COMPLETIONS_MAX: usize = 32 << 10;
/// How often everything is halved before giving up: down to 4 operations and 32 KiB of buffers from the defaults.
const HALVINGS: u32 = 6;

/// What is asked of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sizes {
    /// Operations per system call.
    pub(super) entries: usize,
    pub(super) completions: usize,
    /// Bytes of one buffer, and of all.
    pub(super) buffer: usize,
    pub(super) buffers: usize,
}

impl Sizes {
    /// Buffers go back only after a poll, so that their sum bounds what it brings of one socket.
    pub(super) fn of(config: &DriverConfig) -> Self {
        let entries = config.events.min(ENTRIES_MAX);
        let completions = config.events.saturating_mul(COMPLETIONS_PER_EVENT).clamp(entries * 2, COMPLETIONS_MAX);
        Sizes { entries, completions, buffer: config.receive_buffer, buffers: config.receive_pool }
    }

    /// Makes a ring with buffers of these sizes, or of smaller ones if memory is what is missing. `incremental`: with
    /// buffers that are used piece by piece, if the kernel has them.
    ///
    /// # Errors
    /// Why there is none.
    pub(super) fn make(self, incremental: bool) -> Result<(Queue, BufRing), Unavailable> {
        self.fit(|sizes| {
            let queue = Queue::new(sizes.entries as u32, sizes.completions as u32)?;
            let buffers = match queue.register_buffers(sizes.buffer, sizes.buffers, incremental) {
                Err(_) if incremental => queue.register_buffers(sizes.buffer, sizes.buffers, false)?,
                outcome => outcome?,
            };
            Ok((queue, buffers))
        })
    }

    fn fit<T>(self, mut make: impl FnMut(Sizes) -> io::Result<T>) -> Result<T, Unavailable> {
        for halvings in 0..=HALVINGS {
            let sizes = self.halved(halvings);
            match make(sizes).map_err(|error| reason(&error)) {
                Err(Unavailable::Memory) => {}
                Err(why) => return Err(why),
                Ok(made) => {
                    if halvings > 0 {
                        tracing::debug!(wanted = ?self, got = ?sizes, "memory may not be locked for more: a smaller ring");
                    }
                    return Ok(made);
                }
            }
        }
        Err(Unavailable::Memory)
    }

    fn halved(self, times: u32) -> Sizes {
        let half = |size: usize| (size >> times).max(1);
        Sizes {
            entries: half(self.entries),
            completions: half(self.completions).max(2),
            buffer: self.buffer,
            buffers: half(self.buffers),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    const WANTED: Sizes = Sizes { entries: 256, completions: 4096, buffer: 256 << 10, buffers: 2 << 20 };

    #[test]
    fn the_defaults_are_what_is_asked_for_first() {
        assert_eq!(Sizes::of(&DriverConfig::default()), WANTED);
    }

    #[test]
    fn for_want_of_memory_less_is_asked_for_and_nothing_else_is() {
        let mut asked = Vec::new();
        let made = WANTED.fit(|sizes| {
            asked.push(sizes);
            if sizes.completions > 1000 { Err(Errno::NOMEM.into()) } else { Ok(sizes) }
        });
        assert_eq!(made.map(|sizes| (sizes.entries, sizes.completions, sizes.buffers)), Ok((32, 512, 256 << 10)));
        assert_eq!(asked.iter().map(|sizes| sizes.entries).collect::<Vec<_>>(), [256, 128, 64, 32]);

        let mut tries = 0;
        let mut never = |error: Errno| {
            tries = 0;
            let outcome = WANTED.fit(|sizes| {
                tries += 1;
                assert!(sizes.entries > 0 && sizes.completions >= sizes.entries && sizes.buffers > 0);
                Err::<(), _>(error.into())
            });
            (outcome, tries)
        };
        assert_eq!(never(Errno::NOMEM), (Err(Unavailable::Memory), HALVINGS + 1));
        assert_eq!(never(Errno::NOSYS), (Err(Unavailable::OldKernel), 1));
        assert_eq!(never(Errno::MFILE), (Err(Unavailable::Descriptors), 1));
    }
}
