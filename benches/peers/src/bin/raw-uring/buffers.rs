//! Provided buffers: memory that the kernel receives into, handed out piece by piece, and sent from.
//!
//! With `IOU_PBUF_RING_INC` (Linux 6.12) the kernel fills a buffer with one piece after the other, of whichever socket has
//! bytes; without, each receive takes a whole one. A buffer goes back into the ring when the kernel has left it and no
//! send names a piece of it any more.

use io_uring::Submitter;
use io_uring::types::{BufRingEntry, IOU_PBUF_RING_INC};
use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// The number by which receives name these buffers.
pub const GROUP: u16 = 0;
/// Buffers, a power of two as the kernel asks, and bytes of each: 2 MiB in all. Filled piece by piece they are few, so
/// that few frames are cut at their ends; where each receive takes one, they are many.
const SHARED: (u16, usize) = (8, 256 * 1024);
const WHOLE: (u16, usize) = (64, 8 * 1024);
const PAGE: usize = 4096;

/// A piece of a buffer, or of what was received into it.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub buffer: u16,
    /// Where it begins, counted from the first byte of the first buffer.
    pub at: usize,
    pub length: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Buffer {
    /// What the kernel has filled and told us of.
    filled: usize,
    /// Who uses it: the kernel, and pieces.
    users: u32,
}

/// The buffers of one ring. They live as long as the process.
pub struct Buffers {
    /// One for each buffer, shared with the kernel; the last two bytes of the first are the tail.
    entries: NonNull<BufRingEntry>,
    /// All buffers, one after the other.
    memory: NonNull<u8>,
    /// Bytes of one.
    size: usize,
    buffers: Vec<Buffer>,
    tail: u16,
    /// Buffers that the kernel may fill.
    provided: usize,
    incremental: bool,
}

impl Buffers {
    /// Makes them known to the kernel, used piece by piece if it can do that.
    ///
    /// # Errors
    /// What the kernel says: it knows no such rings, or has no memory to pin for it.
    pub fn register(submitter: &Submitter<'_>) -> io::Result<Self> {
        Self::register_shape(submitter, SHARED, true).or_else(|_| Self::register_shape(submitter, WHOLE, false))
    }

    fn register_shape(submitter: &Submitter<'_>, (count, size): (u16, usize), incremental: bool) -> io::Result<Self> {
        let entries = allocate(usize::from(count) * size_of::<BufRingEntry>()).cast::<BufRingEntry>();
        let memory = allocate(usize::from(count) * size);
        let flags = if incremental { IOU_PBUF_RING_INC as u16 } else { 0 };
        // SAFETY: `entries` has room for `count` of them and is never freed.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, count, GROUP, flags)? };
        let buffers = vec![Buffer::default(); usize::from(count)];
        let mut buffers = Self { entries, memory, size, buffers, tail: 0, provided: 0, incremental };
        (0..count).for_each(|number| buffers.provide(number));
        Ok(buffers)
    }

    /// Buffers that the kernel may fill: a receive that is asked for when there are none ends at once.
    pub fn provided(&self) -> usize {
        self.provided
    }

    /// The next `length` bytes of a buffer, which a completion has just said to be filled. To be released once.
    pub fn filled(&mut self, buffer: u16, length: usize, more_follows: bool) -> Piece {
        let state = &mut self.buffers[usize::from(buffer)];
        let piece = Piece { buffer, at: usize::from(buffer) * self.size + state.filled, length };
        state.filled += length;
        assert!(state.filled <= self.size, "the kernel filled more than there was");
        state.users += 1;
        // Without bytes, an incremental buffer stays in the ring.
        if !(more_follows || self.incremental && length == 0) {
            self.provided -= 1;
            self.release(buffer);
        }
        piece
    }

    pub fn bytes(&mut self, piece: Piece) -> &mut [u8] {
        // SAFETY: pieces are made by `filled` alone, so it lies within `memory`, and the kernel, which has completed it,
        // writes behind it at most until `provide`, before which the piece is released. Sends that read the buffer read
        // other pieces of it, or this one after its last change. `&mut self` keeps a second slice away.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr().add(piece.at), piece.length) }
    }

    /// Where a send reads from.
    pub fn address(&self, at: usize) -> *const u8 {
        self.memory.as_ptr().wrapping_add(at)
    }

    /// One user less: the kernel, or a piece.
    pub fn release(&mut self, buffer: u16) {
        let users = &mut self.buffers[usize::from(buffer)].users;
        *users -= 1;
        if *users == 0 {
            self.provide(buffer);
        }
    }

    /// Puts a buffer that nobody uses at the end of the ring.
    fn provide(&mut self, number: u16) {
        self.buffers[usize::from(number)] = Buffer { filled: 0, users: 1 };
        let start = self.address(usize::from(number) * self.size);
        let index = usize::from(self.tail) % self.buffers.len();
        // SAFETY: there are as many entries as buffers, and the index is below that. The kernel reads entries up to the tail
        // only and this one is behind it, for this buffer was not in the ring. The tail is not written here.
        let entry = unsafe { &mut *self.entries.as_ptr().add(index) };
        entry.set_addr(start as u64);
        entry.set_len(self.size as u32);
        entry.set_bid(number);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: it points into the first entry, is aligned, and only ever used atomically, by us and by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries.as_ptr()).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
        self.provided += 1;
    }
}

/// Zeroed pages that are never freed: the kernel may use them until the process ends.
fn allocate(bytes: usize) -> NonNull<u8> {
    let layout = Layout::from_size_align(bytes, PAGE).expect("a few hundred KiB");
    // SAFETY: the layout is not empty.
    NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}
