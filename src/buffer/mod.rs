//! Memory that is made once and used again: frames, batches of frames, spill buffers, paged tables.
//!
//! The lowest layer: it knows nothing of WebSocket, sockets or topics.
#![forbid(unsafe_code)]

mod batch;
mod frame;
mod paged;
mod pool;

pub use batch::SendBatch;
pub use frame::{Body, FrameRef, FrameSlab, FrameSlabConfig};
pub use paged::Paged;
pub use pool::SpillPool;
