//! What a driver owns while a send is in flight.
#![forbid(unsafe_code)]

use super::frame::{Body, FrameRef, FrameSlab};
use std::{io::IoSlice, rc::Rc};

#[derive(Debug, Default)]
struct Batch {
    parts: Vec<(FrameRef, Rc<Body>)>,
    at: usize,
    offset: usize,
    left: usize,
}

/// Frames that leave in one system call: 8 bytes in the driver's slot, pooled by the engine.
///
/// Each part holds the frame's share and, as `Rc<Body>`, the proof that its bytes stay as they are.
#[derive(Debug)]
pub struct SendBatch(Box<Batch>);

impl Default for SendBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl SendBatch {
    /// Frames that one batch carries at most.
    pub const MAX_PARTS: usize = 64;

    /// An empty batch with room for [`SendBatch::MAX_PARTS`] frames.
    pub fn new() -> Self {
        SendBatch(Box::new(Batch { parts: Vec::with_capacity(Self::MAX_PARTS), ..Batch::default() }))
    }

    /// Adds a frame behind the others.
    #[inline]
    pub fn push(&mut self, frame: FrameRef, slab: &FrameSlab) {
        let body = slab.body(&frame);
        self.0.left += body.bytes().len();
        self.0.parts.push((frame, body));
    }

    /// True when the batch has its full number of frames, or `max_bytes`.
    #[inline]
    pub fn is_full(&self, max_bytes: usize) -> bool {
        self.0.parts.len() == Self::MAX_PARTS || self.0.left >= max_bytes
    }

    /// Bytes that the kernel has not taken yet.
    #[inline]
    pub fn left(&self) -> usize {
        self.0.left
    }

    /// The bytes that are left, if they lie in one piece.
    #[inline]
    pub fn contiguous(&self) -> Option<&[u8]> {
        match &self.0.parts[self.0.at..] {
            [(_, body)] => Some(&body.bytes()[self.0.offset..]),
            _ => None,
        }
    }

    /// The first bytes that are left, as far as they lie in one piece.
    #[cfg(all(test, feature = "uring", target_os = "linux"))]
    pub(crate) fn first(&self) -> &[u8] {
        let skips = std::iter::once(self.0.offset).chain(std::iter::repeat(0));
        let mut pieces = self.0.parts[self.0.at..].iter().zip(skips).map(|((_, body), skip)| &body.bytes()[skip..]);
        pieces.find(|piece| !piece.is_empty()).unwrap_or_default()
    }

    /// The pieces that are left; returns how many of `out` were set (at most [`SendBatch::MAX_PARTS`]).
    pub fn slices<'b>(&'b self, out: &mut [IoSlice<'b>]) -> usize {
        let mut skip = self.0.offset;
        let parts = &self.0.parts[self.0.at..];
        for (slice, (_, body)) in out.iter_mut().zip(parts) {
            *slice = IoSlice::new(&body.bytes()[skip..]);
            skip = 0;
        }
        parts.len().min(out.len())
    }

    /// Notes that the kernel took `sent` bytes; true when nothing is left.
    #[inline]
    pub fn advance(&mut self, mut sent: usize) -> bool {
        let batch = &mut *self.0;
        debug_assert!(sent <= batch.left, "more sent than there was");
        batch.left -= sent;
        while let Some((_, body)) = batch.parts.get(batch.at) {
            let rest = body.bytes().len() - batch.offset;
            if sent < rest {
                batch.offset += sent;
                return false;
            }
            sent -= rest;
            batch.at += 1;
            batch.offset = 0;
        }
        true
    }

    /// Gives every frame back and empties the batch; returns the messages in frames that were sent whole, and the
    /// messages in the others.
    #[inline]
    pub fn recycle(&mut self, slab: &mut FrameSlab) -> (u64, u64) {
        let batch = &mut *self.0;
        let (mut sent, mut unsent) = (0, 0);
        for (i, (frame, body)) in batch.parts.drain(..).enumerate() {
            drop(body); // the slab recycles only bytes that nobody can see
            let messages = u64::from(slab.messages(&frame));
            if i < batch.at {
                sent += messages;
            } else {
                unsent += messages;
            }
            slab.release(frame);
        }
        (batch.at, batch.offset, batch.left) = (0, 0, 0);
        (sent, unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::FrameSlabConfig;

    #[test]
    fn short_sends_continue_where_they_stopped() {
        let mut slab = FrameSlab::new(FrameSlabConfig::default());
        let mut batch = SendBatch::new();
        for part in [&b"hello "[..], b"", b"world"] {
            let frame = slab.build(part.len(), 1, |out| out.extend_from_slice(part));
            batch.push(frame, &slab);
        }
        let mut seen = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); SendBatch::MAX_PARTS];
            let n = batch.slices(&mut slices);
            let first = slices[..n].iter().find(|slice| !slice.is_empty()).map(|slice| slice[0]);
            seen.extend(first);
            let done = batch.advance(usize::from(first.is_some()));
            if batch.left() == 3 {
                assert_eq!(batch.contiguous(), Some(&b"rld"[..]));
            }
            if done {
                break;
            }
        }
        assert_eq!(seen, b"hello world");
        assert_eq!(batch.recycle(&mut slab), (3, 0));
        assert_eq!(slab.live(), 0);
    }

    #[test]
    fn an_aborted_batch_counts_what_did_not_leave_whole() {
        let mut slab = FrameSlab::new(FrameSlabConfig::default());
        let mut batch = SendBatch::new();
        for messages in [1, 16] {
            let frame = slab.build(4, messages, |out| out.extend_from_slice(b"four"));
            batch.push(frame, &slab);
        }
        assert!(!batch.advance(6));
        assert_eq!(batch.recycle(&mut slab), (1, 16));
        assert_eq!((slab.live(), batch.left()), (0, 0));
    }
}
