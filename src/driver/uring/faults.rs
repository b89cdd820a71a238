//! What goes wrong on purpose: in tests a layer between the driver and the kernel, else nothing at all.
#![forbid(unsafe_code)]

#[cfg(test)]
mod tests;

use super::super::SocketId;
use super::queue::{Event, Op};
use crate::buffer::SendBatch;
use rustix::io::Errno;
use std::collections::VecDeque;

#[cfg(test)]
pub(super) use provoked::Faults;

/// None.
#[cfg(not(test))]
#[derive(Default)]
pub(super) struct Faults(());

#[cfg(not(test))]
impl Faults {
    /// Whether an operation is answered without the kernel.
    #[inline(always)]
    pub(super) fn answer(&mut self, _: Op, _: SocketId) -> bool {
        false
    }

    /// Whether operations were answered without the kernel.
    #[inline(always)]
    pub(super) fn has_answers(&self) -> bool {
        false
    }

    /// Adds those answers to what the kernel answered.
    #[inline(always)]
    pub(super) fn settle(&mut self, _: &mut VecDeque<Event>) {}

    /// A start of the batch, to be sent alone.
    #[inline(always)]
    pub(super) fn shorten<'b>(&mut self, _: &'b SendBatch) -> Option<&'b [u8]> {
        None
    }

    /// An operation that the kernel is to end.
    #[inline(always)]
    pub(super) fn end_one(&mut self) -> Option<(Op, SocketId)> {
        None
    }

    /// Why the kernel takes nothing.
    #[inline(always)]
    pub(super) fn refuse(&mut self) -> Option<Errno> {
        None
    }
}

#[cfg(test)]
mod provoked {
    use super::super::queue::GENERATION_BITS;
    use super::*;
    use crate::driver::sim::Random;
    use std::collections::BTreeMap;

    /// Chances in 1,000.
    #[derive(Clone, Copy, Default)]
    pub(in super::super) struct Rates {
        /// An operation is answered at once with an error that passes.
        pub(in super::super) answered: u16,
        /// The kernel ends one of the operations that it has, per system call.
        pub(in super::super) ended: u16,
        /// A send takes a part of its bytes.
        pub(in super::super) cut: u16,
        /// The kernel takes nothing of what is asked, per system call.
        pub(in super::super) refused: u16,
    }

    /// What was provoked.
    #[derive(Default, Debug, PartialEq, Eq)]
    pub(in super::super) struct Tally {
        /// By operation and error.
        pub(in super::super) answered: BTreeMap<(&'static str, i32), u32>,
        /// By operation.
        pub(in super::super) ended: BTreeMap<&'static str, u32>,
        pub(in super::super) cut: u32,
        pub(in super::super) refused: u32,
    }

    /// Faults from a seed, or one by one.
    pub(in super::super) struct Faults {
        random: Random,
        pub(in super::super) rates: Rates,
        /// How the next operations of a kind are answered.
        script: Vec<(Op, Errno)>,
        answers: Vec<Event>,
        /// What the kernel has, by the bits of the generation that it is told.
        standing: Vec<(Op, SocketId)>,
        pub(in super::super) tally: Tally,
    }

    impl Default for Faults {
        fn default() -> Self {
            Faults::seeded(0, Rates::default())
        }
    }

    impl Faults {
        pub(in super::super) fn seeded(seed: u64, rates: Rates) -> Self {
            let (script, answers, standing, tally) = Default::default();
            Faults { random: Random(seed), rates, script, answers, standing, tally }
        }

        /// The next operation of this kind, beyond those that are scripted already, fails.
        pub(in super::super) fn script(&mut self, op: Op, error: Errno) {
            self.script.push((op, error));
        }

        pub(in super::super) fn answer(&mut self, op: Op, id: SocketId) -> bool {
            let id = SocketId { generation: id.generation & ((1 << GENERATION_BITS) - 1), ..id };
            let scripted = self.script.iter().position(|(of, _)| *of == op).map(|at| self.script.remove(at).1);
            let passing = passing(op);
            let random = || self.random.roll(self.rates.answered).then(|| passing[self.random.below(passing.len())]);
            let Some(error) = scripted.or_else(random) else {
                self.standing.push((op, id));
                return false;
            };
            *self.tally.answered.entry((name(op), error.raw_os_error())).or_default() += 1;
            let (of_cancel, more, buffer, buffer_more, accepted) = Default::default();
            let SocketId { slot, generation } = id;
            let result = Err(error);
            self.answers.push(Event { op, of_cancel, slot, generation, result, more, buffer, buffer_more, accepted });
            true
        }

        pub(in super::super) fn has_answers(&self) -> bool {
            !self.answers.is_empty()
        }

        pub(in super::super) fn settle(&mut self, events: &mut VecDeque<Event>) {
            for event in events.iter().filter(|event| !event.more && !event.of_cancel) {
                let id = SocketId { slot: event.slot, generation: event.generation };
                let at = self.standing.iter().position(|standing| *standing == (event.op, id));
                self.standing.swap_remove(at.expect("the kernel ends what it was given"));
            }
            events.extend(self.answers.drain(..));
        }

        pub(in super::super) fn shorten<'b>(&mut self, batch: &'b SendBatch) -> Option<&'b [u8]> {
            if batch.left() < 2 || !self.random.roll(self.rates.cut) {
                return None;
            }
            self.tally.cut += 1;
            let first = batch.first();
            let most = first.len().min(batch.left() - 1);
            Some(&first[..1 + self.random.below(most)])
        }

        pub(in super::super) fn end_one(&mut self) -> Option<(Op, SocketId)> {
            if self.standing.is_empty() || !self.random.roll(self.rates.ended) {
                return None;
            }
            let (op, id) = self.standing[self.random.below(self.standing.len())];
            *self.tally.ended.entry(name(op)).or_default() += 1;
            Some((op, id))
        }

        pub(in super::super) fn refuse(&mut self) -> Option<Errno> {
            const REFUSALS: [Errno; 4] = [Errno::AGAIN, Errno::NOMEM, Errno::BUSY, Errno::INTR];
            if !self.random.roll(self.rates.refused) {
                return None;
            }
            self.tally.refused += 1;
            Some(REFUSALS[self.random.below(REFUSALS.len())])
        }
    }

    /// Errors that say nothing about the socket: the operation is asked for again.
    pub(in super::super) fn passing(op: Op) -> &'static [Errno] {
        match op {
            Op::Receive => &[Errno::NOBUFS, Errno::NOMEM, Errno::CANCELED, Errno::INTR, Errno::AGAIN],
            Op::Send => &[Errno::CANCELED, Errno::INTR, Errno::AGAIN],
            Op::Accept => &[Errno::CANCELED, Errno::INTR, Errno::AGAIN, Errno::CONNABORTED],
            Op::Watch | Op::AcceptWatch | Op::Wake => &[Errno::CANCELED, Errno::INTR, Errno::NOMEM],
        }
    }

    pub(in super::super) fn name(op: Op) -> &'static str {
        match op {
            Op::Receive => "receive",
            Op::Send => "send",
            Op::Accept => "accept",
            Op::Watch => "watch",
            Op::AcceptWatch => "accept watch",
            Op::Wake => "wake",
        }
    }
}
