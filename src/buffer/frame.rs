//! Frames of one worker: what is sent is written once, into recycled memory, and referred to by 4 bytes.
#![forbid(unsafe_code)]

use std::rc::Rc;

/// Room for a frame's header: messages are often a power of two long, and are to fit into a buffer that is.
const HEADER: usize = 16;
/// Capacities of the recycled buffers, in bytes. A larger frame gets memory of its own that is freed with it.
const CLASSES: [usize; 8] = [
    256,
    (2 << 10) + HEADER,
    (16 << 10) + HEADER,
    (64 << 10) + HEADER,
    (128 << 10) + HEADER,
    (256 << 10) + HEADER,
    (512 << 10) + HEADER,
    (1 << 20) + HEADER,
];
const BARE: usize = CLASSES.len();

/// The bytes of one frame. A driver holds an `Rc<Body>` while they are in flight: the slab changes a body only through
/// [`Rc::get_mut`], so bytes in flight can neither change nor go away.
#[derive(Debug, Default)]
pub struct Body(Vec<u8>);

impl Body {
    /// The encoded bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One holder's share in a frame: 4 bytes, neither `Clone` nor `Copy`. It goes back through [`FrameSlab::release`].
#[must_use = "a frame reference that is dropped leaks its frame"]
#[derive(Debug)]
pub struct FrameRef(u32);

/// What a slab makes ready before the first frame, and what it keeps.
#[derive(Debug, Clone, Copy)]
pub struct FrameSlabConfig {
    /// Frames of 256 bytes made ready at start.
    pub small_frames: usize,
    /// Frames of 2 KiB made ready at start.
    pub medium_frames: usize,
    /// Bytes of idle buffers for frames of 16 KiB and more that are kept; beyond that they are freed.
    pub keep_large_bytes: usize,
}

impl Default for FrameSlabConfig {
    fn default() -> Self {
        FrameSlabConfig { small_frames: 1024, medium_frames: 64, keep_large_bytes: 4 << 20 }
    }
}

#[derive(Debug, Default)]
struct Entry {
    body: Rc<Body>,
    refs: u32,
    messages: u32,
    key: u64,
}

/// All frames of one worker, recycled by size class.
///
/// Two accounts exist: a connection's outbox counts the *logical* bytes that it owes its peer (a shared frame counts for
/// each holder); the slab counts the *physical* bytes of live frames ([`FrameSlab::live_bytes`]).
#[derive(Debug)]
pub struct FrameSlab {
    entries: Vec<Entry>,
    free: [Vec<u32>; BARE + 1],
    live: u32,
    live_bytes: usize,
    idle_large_bytes: usize,
    keep_large_bytes: usize,
}

/// Takes back what a panicking writer left behind.
struct Rollback<'a> {
    buffer: &'a mut Vec<u8>,
    len: usize,
}

impl Drop for Rollback<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(self.len);
    }
}

fn write_all_or_nothing(buffer: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let len = buffer.len();
    let mut guard = Rollback { buffer, len };
    write(guard.buffer);
    guard.len = guard.buffer.len().max(len);
}

impl FrameSlab {
    /// A slab with the buffers of `config` made ready.
    pub fn new(config: FrameSlabConfig) -> Self {
        let mut slab = FrameSlab {
            entries: Vec::with_capacity(config.small_frames + config.medium_frames),
            free: Default::default(),
            live: 0,
            live_bytes: 0,
            idle_large_bytes: 0,
            keep_large_bytes: config.keep_large_bytes,
        };
        for (class, count) in [(0, config.small_frames), (1, config.medium_frames)] {
            for _ in 0..count {
                let slot = slab.add_entry(CLASSES[class]);
                // Written to once, so that the memory is there: else the first herd pays a page fault for each page.
                let ready = Rc::get_mut(&mut slab.entries[slot as usize].body).expect("nobody has it yet");
                ready.0.resize(CLASSES[class], 1);
                std::hint::black_box(&ready.0); // or the compiler sees that nobody reads it
                ready.0.clear();
                slab.free[class].push(slot);
            }
        }
        slab
    }

    fn add_entry(&mut self, capacity: usize) -> u32 {
        self.entries.push(Entry { body: Rc::new(Body(Vec::with_capacity(capacity))), refs: 0, messages: 0, key: 0 });
        self.entries.len() as u32 - 1
    }

    /// Makes sure that an idle frame of at least `size` bytes is last in the returned free list.
    fn ready(&mut self, size: usize) -> usize {
        let class = CLASSES.iter().position(|&capacity| size <= capacity).unwrap_or(BARE);
        if class < BARE && !self.free[class].is_empty() {
            return class;
        }
        let capacity = CLASSES.get(class).copied().unwrap_or(size);
        match self.free[BARE].last() {
            Some(&slot) => {
                let body =
                    Rc::get_mut(&mut self.entries[slot as usize].body).expect("an idle frame has no other holder");
                body.0.reserve_exact(capacity);
            }
            None => {
                let slot = self.add_entry(capacity);
                self.free[BARE].push(slot);
            }
        }
        BARE
    }

    /// Makes a frame: `write` fills an empty buffer of at least `size_hint` bytes of capacity (more is allowed, and
    /// grows it). `messages` is how many messages the frame carries for the delivery accounts (0 for control frames).
    ///
    /// Allocates only if no idle buffer of the class is left. A panic of `write` leaves nothing changed.
    pub fn build(&mut self, size_hint: usize, messages: u32, write: impl FnOnce(&mut Vec<u8>)) -> FrameRef {
        let list = self.ready(size_hint);
        let slot = *self.free[list].last().expect("ready() left one");
        let entry = &mut self.entries[slot as usize];
        let body = Rc::get_mut(&mut entry.body).expect("an idle frame has no other holder");
        let idle_bytes = body.0.capacity();
        body.0.clear();
        write_all_or_nothing(&mut body.0, write);
        let capacity = body.0.capacity();
        entry.refs = 1;
        entry.messages = messages;
        entry.key = 0;
        self.free[list].pop();
        if (2..BARE).contains(&list) {
            self.idle_large_bytes -= idle_bytes;
        }
        self.live += 1;
        self.live_bytes += capacity;
        FrameRef(slot)
    }

    /// Adds to a frame that nobody else holds and that is not in flight, if `need` bytes fit without growing it.
    /// False (and `write` not called) otherwise.
    #[inline]
    pub fn append(&mut self, frame: &FrameRef, need: usize, messages: u32, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let entry = &mut self.entries[frame.0 as usize];
        if entry.refs != 1 {
            return false;
        }
        let Some(body) = Rc::get_mut(&mut entry.body) else { return false };
        let capacity = body.0.capacity();
        if body.0.len() + need > capacity {
            return false;
        }
        write_all_or_nothing(&mut body.0, write);
        self.live_bytes += body.0.capacity() - capacity;
        entry.messages += messages;
        true
    }

    /// A frame that holds the bytes and counts the messages of several others, one behind the other.
    pub fn concat<'f>(&mut self, parts: impl Iterator<Item = &'f FrameRef> + Clone) -> FrameRef {
        let bytes = parts.clone().map(|part| self.len(part)).sum();
        let messages = parts.clone().map(|part| self.messages(part)).sum();
        let frame = self.build(bytes, messages, |_| ());
        let mut buffer = std::mem::take(self.buffer(&frame));
        parts.for_each(|part| buffer.extend_from_slice(self.bytes(part)));
        *self.buffer(&frame) = buffer;
        frame
    }

    fn buffer(&mut self, frame: &FrameRef) -> &mut Vec<u8> {
        let body =
            Rc::get_mut(&mut self.entries[frame.0 as usize].body).expect("a frame just built has no other holder");
        &mut body.0
    }

    /// One more holder.
    #[inline]
    pub fn share(&mut self, frame: &FrameRef) -> FrameRef {
        self.entries[frame.0 as usize].refs += 1;
        FrameRef(frame.0)
    }

    /// A holder gives its share back; the last one recycles the frame.
    #[inline]
    pub fn release(&mut self, frame: FrameRef) {
        let entry = &mut self.entries[frame.0 as usize];
        entry.refs -= 1;
        if entry.refs == 0 {
            self.recycle(frame.0);
        }
    }

    fn recycle(&mut self, slot: u32) {
        let body =
            Rc::get_mut(&mut self.entries[slot as usize].body).expect("the last holder gave its bytes back first");
        let capacity = body.0.capacity();
        self.live -= 1;
        self.live_bytes -= capacity;
        let mut list = CLASSES.iter().rposition(|&class| class <= capacity).unwrap_or(BARE);
        let too_large = capacity > CLASSES[BARE - 1];
        if too_large || (2..BARE).contains(&list) && self.idle_large_bytes + capacity > self.keep_large_bytes {
            list = BARE;
        }
        if list == BARE {
            body.0 = Vec::new();
        } else if list >= 2 {
            self.idle_large_bytes += capacity;
        }
        self.free[list].push(slot);
    }

    /// Encoded bytes of the frame.
    #[inline]
    pub fn len(&self, frame: &FrameRef) -> usize {
        self.entries[frame.0 as usize].body.0.len()
    }

    /// Messages that the frame carries.
    #[inline]
    pub fn messages(&self, frame: &FrameRef) -> u32 {
        self.entries[frame.0 as usize].messages
    }

    /// What the frame is about, where a newer one may stand for an older one; 0: nothing.
    #[inline]
    pub fn key(&self, frame: &FrameRef) -> u64 {
        self.entries[frame.0 as usize].key
    }

    /// Says what the frame is about; see [`FrameSlab::key`].
    #[inline]
    pub fn set_key(&mut self, frame: &FrameRef, key: u64) {
        self.entries[frame.0 as usize].key = key;
    }

    /// The bytes, kept alive and unchanged for as long as the `Rc` is held.
    #[inline]
    pub fn body(&self, frame: &FrameRef) -> Rc<Body> {
        Rc::clone(&self.entries[frame.0 as usize].body)
    }

    /// The bytes, borrowed.
    #[inline]
    pub fn bytes(&self, frame: &FrameRef) -> &[u8] {
        self.entries[frame.0 as usize].body.bytes()
    }

    /// Frames with at least one holder.
    pub fn live(&self) -> u32 {
        self.live
    }

    /// Bytes of the buffers of all live frames: the physical account.
    pub fn live_bytes(&self) -> usize {
        self.live_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab() -> FrameSlab {
        FrameSlab::new(FrameSlabConfig { small_frames: 2, medium_frames: 1, keep_large_bytes: 16 << 10 })
    }

    #[test]
    fn a_frame_is_recycled_when_its_last_holder_lets_go() {
        let mut slab = slab();
        let frame = slab.build(3, 1, |out| out.extend_from_slice(b"abc"));
        let other = slab.share(&frame);
        slab.release(frame);
        assert_eq!((slab.bytes(&other), slab.messages(&other), slab.live()), (&b"abc"[..], 1, 1));
        slab.release(other);
        assert_eq!((slab.live(), slab.live_bytes()), (0, 0));
        let again = slab.build(0, 0, |_| ());
        assert_eq!(slab.len(&again), 0);
        slab.release(again);
    }

    #[test]
    fn append_refuses_shared_full_and_in_flight_frames() {
        let mut slab = slab();
        let frame = slab.build(3, 1, |out| out.extend_from_slice(b"abc"));
        assert!(slab.append(&frame, 3, 1, |out| out.extend_from_slice(b"def")));
        assert_eq!((slab.bytes(&frame), slab.messages(&frame)), (&b"abcdef"[..], 2));
        assert!(!slab.append(&frame, 1000, 1, |_| unreachable!()));
        let in_flight = slab.body(&frame);
        assert!(!slab.append(&frame, 1, 1, |_| unreachable!()));
        drop(in_flight);
        let other = slab.share(&frame);
        assert!(!slab.append(&frame, 1, 1, |_| unreachable!()));
        slab.release(other);
        slab.release(frame);
    }

    #[test]
    fn concat_joins_bytes_and_counts() {
        let mut slab = slab();
        let parts: Vec<_> = ["ab", "", "c"].map(|text| slab.build(2, 1, |out| out.extend(text.bytes()))).into();
        let joined = slab.concat(parts.iter());
        assert_eq!((slab.bytes(&joined), slab.messages(&joined)), (&b"abc"[..], 3));
        parts.into_iter().chain([joined]).for_each(|frame| slab.release(frame));
        assert_eq!((slab.live(), slab.live_bytes()), (0, 0));
    }

    #[test]
    fn a_panicking_writer_leaves_nothing_changed() {
        use std::panic::{AssertUnwindSafe, catch_unwind};
        let mut slab = slab();
        let frame = slab.build(3, 1, |out| out.extend_from_slice(b"abc"));
        let append = catch_unwind(AssertUnwindSafe(|| {
            slab.append(&frame, 1, 1, |out| {
                out.push(0);
                panic!()
            })
        }));
        assert!(append.is_err());
        assert_eq!((slab.bytes(&frame), slab.messages(&frame)), (&b"abc"[..], 1));
        assert!(catch_unwind(AssertUnwindSafe(|| slab.build(1, 1, |_| panic!()))).is_err());
        assert_eq!(slab.live(), 1);
        slab.release(frame);
        assert_eq!((slab.live(), slab.live_bytes()), (0, 0));
    }

    #[test]
    fn every_size_class_comes_back_and_large_memory_is_freed() {
        let mut slab = slab();
        for size in [1, 256, 257, 2048, 2065, 16 << 10, 17 << 10, 64 << 10, 65 << 10, 1 << 20, 2 << 20] {
            for _ in 0..3 {
                let frames: Vec<_> = (0..3).map(|_| slab.build(size, 1, |out| out.resize(size, 7))).collect();
                assert!(slab.live_bytes() >= 3 * size);
                frames.into_iter().for_each(|frame| slab.release(frame));
            }
        }
        assert_eq!((slab.live(), slab.live_bytes()), (0, 0));
        assert!(slab.idle_large_bytes <= 16 << 10, "{}", slab.idle_large_bytes);
    }
}
