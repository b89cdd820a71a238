//! Message headers that the kernel reads: for batches that are not in one piece.

#![allow(unsafe_code)]

use crate::buffer::SendBatch;
use std::{io::IoSlice, mem::MaybeUninit, ptr::NonNull};

/// Headers made at start; more are made as a turn needs them.
const AT_START: usize = 8;

/// All headers of a queue.
pub(super) struct Messages {
    /// Made by `Box`, used by pointer: the kernel reads them.
    all: Vec<NonNull<Message>>,
    /// How many of them the kernel has not read yet.
    used: usize,
}

struct Message {
    header: libc::msghdr,
    pieces: [libc::iovec; SendBatch::MAX_PARTS],
}

impl Message {
    fn make() -> NonNull<Message> {
        // SAFETY: integers and null pointers, for which zero is a value.
        let message: Message = unsafe { MaybeUninit::zeroed().assume_init() };
        NonNull::from(Box::leak(Box::new(message)))
    }
}

impl Messages {
    pub(super) fn new() -> Self {
        Messages { all: (0..AT_START).map(|_| Message::make()).collect(), used: 0 }
    }

    /// The kernel has read all of them: they are used again.
    pub(super) fn were_read(&mut self) {
        self.used = 0;
    }

    /// Leaves their memory to the kernel, for ever.
    pub(super) fn forget(&mut self) {
        self.all.clear();
    }

    /// A header that names the pieces of a batch. It stays as it is until [`Messages::were_read`].
    pub(super) fn of(&mut self, batch: &SendBatch) -> *const libc::msghdr {
        if self.used == self.all.len() {
            self.all.push(Message::make());
        }
        let message = self.all[self.used].as_ptr();
        self.used += 1;
        let mut slices = [IoSlice::new(&[]); SendBatch::MAX_PARTS];
        let count = batch.slices(&mut slices);
        // SAFETY: the message is a live allocation that only `self` names, and the kernel has read it if it was used
        // before: the queue says so (`were_read`) only when all entries were handed over.
        unsafe {
            for (piece, slice) in (*message).pieces.iter_mut().zip(&slices[..count]) {
                *piece = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            }
            (*message).header.msg_iov = (&raw mut (*message).pieces).cast();
            (*message).header.msg_iovlen = count as _;
            &raw const (*message).header
        }
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        for message in self.all.drain(..) {
            // SAFETY: it came from a `Box`. That no operation names it any more, `Queue::drop` has seen to.
            drop(unsafe { Box::from_raw(message.as_ptr()) });
        }
    }
}
