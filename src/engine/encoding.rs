//! Encoding classes: publications that reach different subscribers in different words, each written once.
#![forbid(unsafe_code)]

use super::core::{Core, opcode};
use super::deliver::Publication;
use super::error::SubscribeError;
use super::handler::{Conn, Message};
use super::table::Table;
use crate::buffer::{FrameRef, FrameSlab};
use crate::proto::{MessageKind, encoder};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The class of a subscription that gets messages as they were published.
pub(crate) const PLAIN: u8 = 0;
/// Classes that connections can subscribe in, [`PLAIN`] among them.
pub(crate) const ENCODINGS: usize = 16;
/// The class of listeners: a callback, whatever the encoder says.
pub(crate) const LISTENING: u8 = 16;
/// Bytes of the memory for an encoding in the making that are kept between publications.
const SCRATCH_BYTES: usize = 64 << 10;
/// Records for publications with several encodings that are kept.
const SPARES: usize = 1024;

/// What turns publications into the encodings of classes 1 to 15; see
/// [`Conn::subscribe_as`](super::Conn::subscribe_as). One value per worker, made by
/// [`Handler::encoder`](super::Handler::encoder).
pub trait Encoder {
    /// Writes `message`, published to `topic`, into the empty `out` as subscribers of `class` get it, and says what it
    /// is. Called once per publication and class that has subscribers on this worker, in whichever callback publishes.
    ///
    /// That a text is UTF-8 is your promise. A panic is caught and counted: the class then gets nothing, and each
    /// subscriber counts as a message dropped.
    fn encode(&mut self, class: u8, topic: &str, message: Message<'_>, out: &mut Vec<u8>) -> Encoding;
}

/// What became of a publication in a class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// The kind of the message that was written; none: nothing is sent, whatever was written.
    pub frame: Option<MessageKind>,
    /// Whether [`Handler::delivery`](super::Handler::delivery) is called for each subscriber.
    pub deliver: bool,
}

impl Encoding {
    /// Not meant for this class: nobody gets it, and nothing is counted.
    pub const SKIP: Encoding = Encoding { frame: None, deliver: false };
    /// Nothing is sent; [`Handler::delivery`](super::Handler::delivery) decides for each subscriber.
    pub const DELIVER: Encoding = Encoding { frame: None, deliver: true };

    /// What was written is sent to every subscriber of the class.
    pub const fn frame(kind: MessageKind) -> Encoding {
        Encoding { frame: Some(kind), deliver: false }
    }
}

impl Conn<'_> {
    /// As [`Conn::subscribe`], in an encoding class of 0 to 15: what the worker's [`Encoder`] makes of a publication for
    /// that class, once for all its subscribers. Class 0 gets it as it is. A subscription of another class changes to
    /// this one, after what was published before was delivered in the old one. Without an encoder the classes above 0
    /// get nothing, and each message counts as dropped.
    pub fn subscribe_as(&mut self, topic: &str, class: u8) -> Result<(), SubscribeError> {
        self.core.subscribe(self.slot, topic, class)
    }
}

/// A worker's encoder, and the memory it writes into.
#[derive(Default)]
pub(crate) struct Encodings {
    encoder: Option<Box<dyn Encoder>>,
    out: Vec<u8>,
}

impl Encodings {
    pub(crate) fn new(encoder: Option<Box<dyn Encoder>>) -> Self {
        Encodings { encoder, out: Vec::new() }
    }

    /// Leaves the message in `out`.
    fn encode(&mut self, class: u8, topic: &str, message: Message<'_>) -> Result<Encoding, Panicked> {
        self.out.clear();
        let (Some(encoder), out) = (&mut self.encoder, &mut self.out) else { return Err(Panicked(false)) };
        catch_unwind(AssertUnwindSafe(|| encoder.encode(class, topic, message, out))).map_err(|_| Panicked(true))
    }
}

impl fmt::Debug for Encodings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Encodings").field("encoder", &self.encoder.is_some()).finish_non_exhaustive()
    }
}

/// Why there is no encoding: the encoder panicked, or (false) there is none.
struct Panicked(bool);

/// What subscribers of other classes than [`PLAIN`] get of a publication.
#[derive(Debug, Default)]
pub(crate) struct Coded {
    frames: [Option<FrameRef>; ENCODINGS],
    /// A bit per class whose subscribers get a callback.
    calls: u32,
    /// A bit per class that could not be encoded.
    lost: u32,
    neutral: Option<Neutral>,
}

/// A publication as it was published, for callbacks: a frame that is not sent, of the topic and the payload.
#[derive(Debug)]
pub(crate) struct Neutral {
    pub(crate) frame: FrameRef,
    pub(crate) topic_len: u32,
    pub(crate) kind: MessageKind,
}

impl Neutral {
    fn new(slab: &mut FrameSlab, topic: &str, message: Message<'_>) -> Self {
        let frame = slab.build(topic.len() + message.payload.len(), 0, |out| {
            out.extend_from_slice(topic.as_bytes());
            out.extend_from_slice(message.payload);
        });
        Neutral { frame, topic_len: topic.len() as u32, kind: message.kind }
    }

    pub(crate) fn share(&self, slab: &mut FrameSlab) -> Self {
        Neutral { frame: slab.share(&self.frame), ..*self }
    }

    /// Topic and message, of the bytes of the frame.
    pub(crate) fn open<'b>(&self, bytes: &'b [u8]) -> (&'b str, Message<'b>) {
        let (topic, payload) = bytes.split_at(self.topic_len as usize);
        let topic = std::str::from_utf8(topic).expect("it was made from a str");
        (topic, Message { kind: self.kind, payload })
    }
}

impl Coded {
    #[inline]
    pub(crate) fn frame(&self, class: u8) -> Option<&FrameRef> {
        self.frames.get(usize::from(class))?.as_ref()
    }

    /// For subscribers of a class that get a callback.
    pub(crate) fn neutral(&self, class: u8) -> Option<&Neutral> {
        if self.calls & bit(class) != 0 { self.neutral.as_ref() } else { None }
    }

    pub(crate) fn is_lost(&self, class: u8) -> bool {
        self.lost & bit(class) != 0
    }

    /// Whether a subscriber of the class gets something else than the frame, which cannot be joined.
    pub(crate) fn is_single(&self, class: u8) -> bool {
        (self.calls | self.lost) & bit(class) != 0
    }

    /// Bytes of the longest of its frames.
    pub(crate) fn longest(&self, slab: &FrameSlab) -> usize {
        self.frames.iter().flatten().map(|frame| slab.len(frame)).max().unwrap_or(0)
    }

    fn release(&mut self, slab: &mut FrameSlab) {
        self.frames.iter_mut().filter_map(Option::take).for_each(|frame| slab.release(frame));
        if let Some(neutral) = self.neutral.take() {
            slab.release(neutral.frame);
        }
        (self.calls, self.lost) = (0, 0);
    }
}

fn bit(class: u8) -> u32 {
    1 << class
}

impl Core {
    /// What is published, for a topic with subscribers of these classes.
    pub(super) fn encode(&mut self, classes: u32, topic: &str, key: u64, message: Message<'_>) -> Publication {
        let mut coded = self.table.spare_coded.pop().unwrap_or_default();
        let (mut owed, mut plain) = (0, None);
        if classes & bit(PLAIN) != 0 {
            plain = Some(self.table.frame(key, message, &mut owed));
        }
        for class in (1..ENCODINGS as u8).filter(|&class| classes & bit(class) != 0) {
            match self.encodings.encode(class, topic, message) {
                Ok(Encoding { frame, deliver }) => {
                    coded.calls |= u32::from(deliver) << class;
                    let payload = &self.encodings.out;
                    coded.frames[usize::from(class)] =
                        frame.map(|kind| self.table.frame(key, Message { kind, payload }, &mut owed));
                }
                Err(Panicked(panicked)) => {
                    coded.lost |= bit(class);
                    if panicked {
                        self.panicked();
                    }
                }
            }
        }
        coded.calls |= classes & bit(LISTENING);
        if coded.calls != 0 {
            let neutral = Neutral::new(&mut self.table.slab, topic, message);
            owed += self.table.slab.len(&neutral.frame);
            coded.neutral = Some(neutral);
        }
        self.encodings.out.truncate(SCRATCH_BYTES);
        self.encodings.out.shrink_to(SCRATCH_BYTES);
        Publication { plain, coded: Some(coded), owed }
    }
}

impl Table {
    /// A message as a frame for several connections; `key` is 0 where it is about nothing. Its length is added to `owed`.
    pub(super) fn frame(&mut self, key: u64, message: Message<'_>, owed: &mut usize) -> FrameRef {
        let need = encoder::header_len(message.payload.len(), false) + message.payload.len();
        let opcode = opcode(message.kind);
        let frame = self.slab.build(need, 1, |out| encoder::frame(out, opcode, true, message.payload, None));
        if key != 0 {
            self.slab.set_key(&frame, key);
        }
        *owed += need;
        frame
    }

    /// One frame per class out of several publications that the same subscribers get. `publications` have at least one
    /// that is coded.
    pub(super) fn join_coded<'p>(&mut self, publications: impl Iterator<Item = &'p Publication> + Clone) -> Box<Coded> {
        let mut joined = self.spare_coded.pop().unwrap_or_default();
        for coded in publications.clone().filter_map(|publication| publication.coded.as_deref()) {
            joined.calls |= coded.calls;
            joined.lost |= coded.lost;
        }
        for class in 1..ENCODINGS as u8 {
            let frames = publications.clone().filter_map(|publication| publication.coded.as_deref()?.frame(class));
            if !joined.is_single(class) && frames.clone().next().is_some() {
                joined.frames[usize::from(class)] = Some(self.slab.concat(frames));
            }
        }
        joined
    }

    pub(super) fn release_coded(&mut self, mut coded: Box<Coded>) {
        coded.release(&mut self.slab);
        if self.spare_coded.len() < SPARES {
            self.spare_coded.push(coded);
        }
    }
}
