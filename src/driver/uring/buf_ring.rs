//! Provided buffers: memory that the kernel receives into, and that is lent to the engine part by part.
//!
//! A ring of entries, shared with the kernel, names the buffers that it may take. With `IOU_PBUF_RING_INC` (Linux 6.12)
//! a buffer is used up piece by piece, by whichever socket has bytes, and leaves the ring when it is full; before, each
//! receive takes a whole buffer. Either way a buffer goes back into the ring when its last piece was looked at.

#![allow(unsafe_code)]

use io_uring::{Submitter, types::IOU_PBUF_RING_INC};
use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    io,
    ptr::NonNull,
    slice,
    sync::atomic::{AtomicU16, Ordering},
};

/// The number that receives name these buffers by.
pub(super) const GROUP: u16 = 0;

const PAGE: usize = 4096;
/// Bytes of an entry of the ring: address (8), length (4), number (2), and 2 that are the ring's tail in the first one.
const ENTRY: usize = 16;
const TAIL: usize = 14;

/// Buffers at most, and where each receive takes a whole one.
const WHOLE_BUFFERS: usize = 64;

/// The buffers of one ring.
pub(super) struct BufRing {
    /// Entries of the ring, then, from `data` on, the buffers. Ours from `register` to `drop`; reached by pointer alone,
    /// because the kernel writes to it.
    memory: NonNull<u8>,
    layout: Layout,
    data: usize,
    /// Bytes of one buffer.
    size: usize,
    /// What of each buffer the kernel has filled and told us of.
    filled: Box<[usize]>,
    tail: u16,
    incremental: bool,
    /// The kernel may use it for ever.
    leaked: bool,
}

impl BufRing {
    /// Makes buffers of `size` bytes (fewer if the kernel uses them whole), as many as fit into `total`, and registers
    /// them.
    ///
    /// # Errors
    /// What the kernel says: it knows no such rings, or has no memory to pin for it.
    pub(super) fn register(
        submitter: &Submitter<'_>,
        size: usize,
        total: usize,
        incremental: bool,
    ) -> io::Result<Self> {
        let (count, size) = shape(size, total, incremental);
        let data = (count * ENTRY).next_multiple_of(PAGE);
        let layout = Layout::from_size_align(data + count * size, PAGE).map_err(|_| io::ErrorKind::OutOfMemory)?;
        // SAFETY: the layout has a size, which is a page at least.
        let memory = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        let filled = vec![0; count].into_boxed_slice();
        let mut ring = BufRing { memory, layout, data, size, filled, tail: 0, incremental, leaked: false };
        let flags = if incremental { IOU_PBUF_RING_INC as u16 } else { 0 };
        // SAFETY: `memory` has room for `count` entries and lives until `drop`, which the driver puts off until the
        // kernel has no operation left that could take a buffer (see `Uring::drop`).
        unsafe { submitter.register_buf_ring_with_flags(memory.as_ptr() as u64, count as u16, GROUP, flags)? };
        (0..count as u16).for_each(|number| ring.provide(number));
        Ok(ring)
    }

    /// The next `length` bytes of a buffer, which the kernel has just said to have filled.
    ///
    /// # Panics
    /// If there is no such buffer, or it has no such bytes left: the kernel and we disagree.
    #[inline]
    pub(super) fn piece(&mut self, number: u16, length: usize) -> &mut [u8] {
        let filled = &mut self.filled[usize::from(number)];
        let (from, room) = (*filled, self.size - *filled);
        assert!(length <= room, "the kernel filled more than there was");
        *filled += length;
        let at = self.data + usize::from(number) * self.size + from;
        // SAFETY: the range lies within `memory`: `number` is below `filled.len()` (indexed above) and the piece within
        // its buffer (asserted). The kernel has completed it, and writes behind it at most, until `provide` gives the
        // buffer back; completions of one buffer come in the order in which it was filled. `&mut self` keeps a second
        // slice, and `provide`, away while this one lives.
        unsafe { slice::from_raw_parts_mut(self.memory.as_ptr().add(at), length) }
    }

    /// After the piece that a completion brought: gives the buffer back to the kernel if no other piece of it follows.
    #[inline]
    pub(super) fn settle(&mut self, number: u16, brought: bool, more_follows: bool) {
        // A completion without bytes leaves an incremental buffer in the ring, whatever its flags say.
        if !self.incremental || brought && !more_follows {
            self.provide(number);
        }
    }

    /// Keeps the memory for ever: the kernel still has operations that may write to it.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }

    /// Puts a buffer, which is ours, at the end of the ring.
    fn provide(&mut self, number: u16) {
        self.filled[usize::from(number)] = 0;
        let index = usize::from(self.tail) & (self.filled.len() - 1);
        let buffer = self.data + usize::from(number) * self.size;
        // SAFETY: the entry and the buffer lie within `memory`, and the entry is aligned, as pages are. The kernel reads
        // entries up to the tail only, and this one is behind it: there are as many entries as buffers, and the buffer
        // that goes here was not in the ring. The last two bytes, which are the tail in entry 0, are not written here.
        unsafe {
            let entry = self.memory.as_ptr().add(index * ENTRY);
            entry.cast::<u64>().write(self.memory.as_ptr().add(buffer) as u64);
            entry.add(8).cast::<u32>().write(self.size as u32);
            entry.add(12).cast::<u16>().write(number);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies within `memory`, is aligned, and is only ever used atomically, by us and the kernel.
        let tail = unsafe { AtomicU16::from_ptr(self.memory.as_ptr().add(TAIL).cast()) };
        tail.store(self.tail, Ordering::Release);
    }
}

impl Drop for BufRing {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: allocated in `register` with this layout; the kernel has no operation left that could use it, else
        // the driver had it leaked.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

/// How many buffers of how many bytes: a power of two of them, as the kernel asks, that fit into `total` together.
/// Pieces are packed, so few and large buffers cut the fewest messages; where each receive takes a whole buffer, however
/// little it brings, they are many.
fn shape(size: usize, total: usize, incremental: bool) -> (usize, usize) {
    let wanted = if incremental { total / size.min(total) } else { WHOLE_BUFFERS.min(total) };
    let count = 1 << wanted.clamp(1, WHOLE_BUFFERS).ilog2();
    (count, if incremental { size.min(total) } else { total / count }.min(i32::MAX as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_never_exceed_what_was_asked_for() {
        for total in [1, 2, 3, 16, 63, 64, 1000, 4096, 10_000, 256 << 10, (256 << 10) + 1, 3 << 20, 1 << 30] {
            for size in [1, 16, 512, 4096, 256 << 10, 1 << 30] {
                for incremental in [false, true] {
                    let (count, size) = shape(size, total, incremental);
                    assert!(count.is_power_of_two() && (1..=WHOLE_BUFFERS).contains(&count) && size > 0, "{total}");
                    assert!(count * size <= total, "{count} x {size} of {total}");
                }
            }
        }
        assert_eq!(shape(256 << 10, 512 << 10, true), (2, 256 << 10));
        assert_eq!(shape(256 << 10, 512 << 10, false), (64, 8 << 10));
    }
}
