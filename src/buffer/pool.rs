//! Spill buffers: where a connection keeps the bytes of a frame that was cut.
#![forbid(unsafe_code)]

/// Recycled byte buffers. A connection owns one only while a message is incomplete.
///
/// What is given back is kept up to a number of buffers and a capacity each; the rest is freed, so that memory returns
/// to its baseline after a burst of large messages.
#[derive(Debug)]
pub struct SpillPool {
    free: Vec<Vec<u8>>,
    keep: usize,
    keep_capacity: usize,
}

impl SpillPool {
    /// Keeps at most `keep` idle buffers of at most `keep_capacity` bytes.
    pub fn new(keep: usize, keep_capacity: usize) -> Self {
        SpillPool { free: Vec::with_capacity(keep), keep, keep_capacity }
    }

    /// An empty buffer, recycled if there is one.
    pub fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn give(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() > 0 && buffer.capacity() <= self.keep_capacity && self.free.len() < self.keep {
            buffer.clear();
            self.free.push(buffer);
        }
    }

    /// Bytes held by idle buffers.
    pub fn idle_bytes(&self) -> usize {
        self.free.iter().map(Vec::capacity).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recycles_small_buffers_and_frees_large_ones() {
        let mut pool = SpillPool::new(1, 100);
        let mut buffer = pool.take();
        buffer.extend_from_slice(&[1; 64]);
        pool.give(buffer);
        pool.give(Vec::with_capacity(50)); // over the count
        assert_eq!(pool.idle_bytes(), 64);
        let mut again = pool.take();
        assert!(again.is_empty() && again.capacity() == 64);
        again.reserve(1000);
        pool.give(again); // over the size
        assert_eq!(pool.idle_bytes(), 0);
    }
}
