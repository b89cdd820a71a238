//! How an input is divided: a byte of choices, chunk sizes, and the bytes that are fed.
#![forbid(unsafe_code)]

/// An input of the targets that parse bytes: `choices`, `n`, `n` chunk sizes, the rest is fed.
pub(crate) struct Input<'a> {
    /// Bits that the target gives a meaning.
    pub(crate) choices: u8,
    /// At most 15; used over and over. Empty: one chunk.
    chunks: &'a [u8],
    pub(crate) bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// `None`: too short to be one.
    pub(crate) fn new(data: &'a [u8]) -> Option<Input<'a>> {
        let (&[choices, count], rest) = data.split_first_chunk()?;
        let (chunks, bytes) = rest.split_at_checked(usize::from(count & 0x0f))?;
        Some(Input { choices, chunks, bytes })
    }

    pub(crate) fn choice(&self, bit: u8) -> bool {
        self.choices & 1 << bit != 0
    }

    /// The bytes in the input's own chunks; a size of 0 is an empty chunk.
    pub(crate) fn chunks(&self) -> Vec<&'a [u8]> {
        if self.chunks.iter().all(|&size| size == 0) {
            return vec![self.bytes];
        }
        let mut chunks = Vec::new();
        let mut rest = self.bytes;
        for &size in self.chunks.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (chunk, after) = rest.split_at(usize::from(size).min(rest.len()));
            chunks.push(chunk);
            rest = after;
        }
        chunks
    }

    /// The ends of the chunks, as lengths of prefixes of the bytes.
    pub(crate) fn ends(&self) -> Vec<usize> {
        let sizes = self.chunks().into_iter().map(<[u8]>::len);
        sizes
            .scan(0, |end, size| {
                *end += size;
                Some(*end)
            })
            .collect()
    }
}
