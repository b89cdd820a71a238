//! Spill buffers: where a connection keeps the bytes of a frame that was cut.
#![forbid(unsafe_code)]

/// Recycled byte buffers. A connection owns one only while a message is incomplete.
///
/// What is given back is kept up to a number of buffers and of bytes; the rest is freed, so that memory returns to its
/// baseline after a burst of large messages.
#[derive(Debug)]
pub struct SpillPool {
    free: Vec<Vec<u8>>,
    idle_bytes: usize,
    keep: usize,
    keep_bytes: usize,
}

impl SpillPool {
    /// Keeps at most `keep` idle buffers, of at most `keep_bytes` together.
    pub fn new(keep: usize, keep_bytes: usize) -> Self {
        SpillPool { free: Vec::with_capacity(keep), idle_bytes: 0, keep, keep_bytes }
    }

    /// An empty buffer, recycled if there is one.
    pub fn take(&mut self) -> Vec<u8> {
        let buffer = self.free.pop().unwrap_or_default();
        self.idle_bytes -= buffer.capacity();
        buffer
    }

    /// Gives a buffer back.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        let bytes = self.idle_bytes + buffer.capacity();
        if buffer.capacity() > 0 && bytes <= self.keep_bytes && self.free.len() < self.keep {
            buffer.clear();
            self.idle_bytes = bytes;
            self.free.push(buffer);
        }
    }

    /// Bytes held by idle buffers.
    pub fn idle_bytes(&self) -> usize {
        self.idle_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycles_buffers_up_to_a_number_and_a_sum() {
        let mut pool = SpillPool::new(2, 100);
        let mut buffer = pool.take();
        buffer.extend_from_slice(&[1; 64]);
        pool.give(buffer);
        pool.give(Vec::with_capacity(50)); // over the sum
        assert_eq!(pool.idle_bytes(), 64);
        pool.give(Vec::with_capacity(10));
        pool.give(Vec::with_capacity(10)); // over the number
        assert_eq!(pool.idle_bytes(), 74);
        assert_eq!(pool.take().capacity(), 10);
        let mut again = pool.take();
        assert!(again.is_empty() && again.capacity() == 64 && pool.idle_bytes() == 0);
        again.reserve(1000);
        pool.give(again);
        assert_eq!(pool.idle_bytes(), 0);
    }
}
