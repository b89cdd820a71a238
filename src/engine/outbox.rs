//! A connection's queued frames: 12 bytes in the connection, nodes of 16 bytes in a pool of the worker.
#![forbid(unsafe_code)]

use crate::buffer::{FrameRef, FrameSlab};
use std::collections::HashSet;

const NIL: u32 = u32::MAX;

/// What brought a frame: policies drop only what a topic brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// Control frames and replies.
    Own,
    /// A publication.
    Topic,
}

#[derive(Debug)]
struct Node {
    frame: Option<FrameRef>,
    next: u32,
    origin: Origin,
}

const _: () = assert!(size_of::<Node>() == 16 && size_of::<Outbox>() == 12, "the sizes stated above");

/// The nodes of all outboxes of a worker, recycled.
#[derive(Debug)]
pub(crate) struct NodePool {
    nodes: Vec<Node>,
    free: u32,
}

impl NodePool {
    pub(crate) fn new(capacity: usize) -> Self {
        NodePool { nodes: Vec::with_capacity(capacity), free: NIL }
    }

    fn add(&mut self, frame: FrameRef, origin: Origin) -> u32 {
        let node = Node { frame: Some(frame), next: NIL, origin };
        if self.free == NIL {
            self.nodes.push(node);
            return self.nodes.len() as u32 - 1;
        }
        let at = self.free;
        self.free = self.nodes[at as usize].next;
        self.nodes[at as usize] = node;
        at
    }

    fn remove(&mut self, at: u32) -> (Option<FrameRef>, u32, Origin) {
        let node = &mut self.nodes[at as usize];
        let (frame, next, origin) = (node.frame.take(), node.next, node.origin);
        node.next = self.free;
        self.free = at;
        (frame, next, origin)
    }
}

/// A first-in first-out list of frames and the bytes they hold.
#[derive(Debug)]
pub(crate) struct Outbox {
    head: u32,
    tail: u32,
    bytes: u32,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox { head: NIL, tail: NIL, bytes: 0 }
    }
}

impl Outbox {
    #[inline]
    pub(crate) fn bytes(&self) -> u32 {
        self.bytes
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head == NIL
    }

    #[inline]
    pub(crate) fn push(&mut self, nodes: &mut NodePool, frame: FrameRef, len: usize, origin: Origin) {
        let at = nodes.add(frame, origin);
        if self.tail == NIL {
            self.head = at;
        } else {
            nodes.nodes[self.tail as usize].next = at;
        }
        self.tail = at;
        self.bytes += len as u32;
    }

    #[inline]
    pub(crate) fn pop(&mut self, nodes: &mut NodePool, slab: &FrameSlab) -> Option<(FrameRef, Origin)> {
        if self.head == NIL {
            return None;
        }
        let (frame, next, origin) = nodes.remove(self.head);
        self.head = next;
        if next == NIL {
            self.tail = NIL;
        }
        let frame = frame?;
        self.bytes -= slab.len(&frame) as u32;
        Some((frame, origin))
    }

    /// Appends to the newest frame if it is this connection's alone and has room; see [`FrameSlab::append`].
    #[inline]
    pub(crate) fn append(
        &mut self,
        nodes: &NodePool,
        slab: &mut FrameSlab,
        need: usize,
        messages: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<u32, ()> {
        let Some(frame) = nodes.nodes.get(self.tail as usize).and_then(|node| match node.origin {
            Origin::Own => node.frame.as_ref(),
            Origin::Topic => None,
        }) else {
            return Err(());
        };
        let before = slab.len(frame);
        if !slab.append(frame, need, messages, write) {
            return Err(());
        }
        let added = (slab.len(frame) - before) as u32;
        self.bytes += added;
        Ok(added)
    }

    /// Drops the oldest publications until at most `room` bytes wait or only the newest is left. Replies and control
    /// frames stay, and the order of what stays. Returns the messages dropped.
    ///
    /// Cost: what is dropped, and the replies before it.
    pub(crate) fn drop_oldest(&mut self, nodes: &mut NodePool, slab: &mut FrameSlab, room: u32) -> u64 {
        let (mut before, mut at, mut dropped) = (NIL, self.head, 0);
        // A publication that goes as soon as a newer one is seen, and what is in front of it.
        let mut oldest = None;
        while at != NIL && self.bytes > room {
            let Node { next, origin, .. } = nodes.nodes[at as usize];
            if origin == Origin::Topic
                && let Some((before_oldest, gone)) = oldest.replace((before, at))
            {
                self.unlink(nodes, before_oldest, gone);
                if before == gone {
                    before = before_oldest;
                    oldest = Some((before, at));
                }
                dropped += self.drop_node(nodes, slab, gone);
            }
            (before, at) = (at, next);
        }
        dropped
    }

    /// Drops the newest publications until at most `room` bytes wait or none is left; as [`Outbox::drop_oldest`].
    ///
    /// Cost: the length of the outbox.
    pub(crate) fn drop_newest(&mut self, nodes: &mut NodePool, slab: &mut FrameSlab, room: u32) -> u64 {
        let excess = self.bytes.saturating_sub(room);
        let mut keep = self.publication_bytes(nodes, slab).saturating_sub(excess);
        let (mut before, mut at, mut dropped) = (NIL, self.head, 0);
        while at != NIL {
            let Node { ref frame, next, origin } = nodes.nodes[at as usize];
            let len = frame.as_ref().map_or(0, |frame| slab.len(frame) as u32);
            if origin == Origin::Topic && len > keep {
                keep = 0; // nothing newer stays
                self.unlink(nodes, before, at);
                dropped += self.drop_node(nodes, slab, at);
            } else {
                keep -= if origin == Origin::Topic { len } else { 0 };
                before = at;
            }
            at = next;
        }
        dropped
    }

    /// Of publications with the same key only the newest stays, at its place; returns the messages dropped.
    ///
    /// Cost: the length of the outbox, and an allocation: it is for those that fell behind.
    pub(crate) fn conflate(&mut self, nodes: &mut NodePool, slab: &mut FrameSlab) -> u64 {
        let mut all = Vec::new();
        while self.head != NIL {
            let (frame, next, origin) = nodes.remove(self.head);
            self.head = next;
            all.extend(frame.map(|frame| (frame, origin)));
        }
        let mut newer = HashSet::new();
        let stays: Vec<bool> = all
            .iter()
            .rev()
            .map(|(frame, origin)| {
                let key = slab.key(frame);
                *origin == Origin::Own || key == 0 || newer.insert(key)
            })
            .collect();
        *self = Outbox::default();
        let mut dropped = 0;
        for ((frame, origin), stays) in all.into_iter().zip(stays.into_iter().rev()) {
            if stays {
                let len = slab.len(&frame);
                self.push(nodes, frame, len, origin);
            } else {
                dropped += u64::from(slab.messages(&frame));
                slab.release(frame);
            }
        }
        dropped
    }

    /// Takes a node, which follows `before`, out of the list.
    fn unlink(&mut self, nodes: &mut NodePool, before: u32, at: u32) {
        let next = nodes.nodes[at as usize].next;
        match before {
            NIL => self.head = next,
            before => nodes.nodes[before as usize].next = next,
        }
        if self.tail == at {
            self.tail = before;
        }
    }

    /// Frees a node that is in no list, and its frame; returns the messages in it.
    fn drop_node(&mut self, nodes: &mut NodePool, slab: &mut FrameSlab, at: u32) -> u64 {
        let Some(frame) = nodes.remove(at).0 else { return 0 };
        let messages = u64::from(slab.messages(&frame));
        self.bytes -= slab.len(&frame) as u32;
        slab.release(frame);
        messages
    }

    /// Bytes of the publications that wait. Cost: the length of the outbox.
    pub(crate) fn publication_bytes(&self, nodes: &NodePool, slab: &FrameSlab) -> u32 {
        let (mut at, mut bytes) = (self.head, 0);
        while at != NIL {
            let node = &nodes.nodes[at as usize];
            if let (Origin::Topic, Some(frame)) = (node.origin, &node.frame) {
                bytes += slab.len(frame) as u32;
            }
            at = node.next;
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffer::FrameSlabConfig;

    struct Fixture {
        nodes: NodePool,
        slab: FrameSlab,
        outbox: Outbox,
    }

    impl Fixture {
        fn new(parts: &[(&str, Origin)]) -> Self {
            let mut all = Fixture {
                nodes: NodePool::new(4),
                slab: FrameSlab::new(FrameSlabConfig::default()),
                outbox: Outbox::default(),
            };
            for (text, origin) in parts {
                let frame = all.slab.build(text.len(), 1, |out| out.extend_from_slice(text.as_bytes()));
                all.outbox.push(&mut all.nodes, frame, text.len(), *origin);
            }
            all
        }

        fn rest(&mut self) -> Vec<String> {
            let mut seen = Vec::new();
            while let Some((frame, _)) = self.outbox.pop(&mut self.nodes, &self.slab) {
                seen.push(String::from_utf8(self.slab.bytes(&frame).to_vec()).unwrap());
                self.slab.release(frame);
            }
            assert_eq!((self.outbox.bytes(), self.slab.live()), (0, 0));
            seen
        }
    }

    use Origin::{Own, Topic};

    #[test]
    fn first_in_first_out_and_nodes_come_back() {
        let mut all = Fixture::new(&[("a", Own), ("bb", Topic), ("ccc", Own)]);
        assert_eq!((all.outbox.bytes(), all.nodes.nodes.len()), (6, 3));
        assert_eq!(all.rest(), ["a", "bb", "ccc"]);
        let frame = all.slab.build(1, 1, |out| out.push(b'd'));
        all.outbox.push(&mut all.nodes, frame, 1, Own);
        assert_eq!(all.nodes.nodes.len(), 3);
        assert_eq!(all.rest(), ["d"]);
    }

    #[test]
    fn replies_are_joined_publications_are_not() {
        let mut all = Fixture::new(&[("a", Topic)]);
        let append = |all: &mut Fixture| {
            let write = |out: &mut Vec<u8>| out.extend_from_slice(b"xyz");
            all.outbox.append(&all.nodes, &mut all.slab, 3, 1, write)
        };
        assert_eq!(append(&mut all), Err(()));
        let frame = all.slab.build(1, 1, |out| out.push(b'b'));
        all.outbox.push(&mut all.nodes, frame, 1, Own);
        assert_eq!(append(&mut all), Ok(3));
        assert_eq!(all.outbox.bytes(), 5);
        assert_eq!(all.rest(), ["a", "bxyz"]);
    }

    #[test]
    fn conflating_keeps_the_newest_of_each_key_and_what_has_none() {
        let parts = [("r1", Own), ("a1", Topic), ("b1", Topic), ("n", Topic), ("a2", Topic), ("a3", Topic)];
        let mut all = Fixture::new(&[]);
        for (text, origin) in parts {
            let frame = all.slab.build(text.len(), 1, |out| out.extend_from_slice(text.as_bytes()));
            let key = if origin == Topic && text != "n" { u64::from(text.as_bytes()[0]) } else { 0 };
            all.slab.set_key(&frame, key);
            all.outbox.push(&mut all.nodes, frame, text.len(), origin);
        }
        assert_eq!(all.outbox.conflate(&mut all.nodes, &mut all.slab), 2);
        assert_eq!(all.rest(), ["r1", "b1", "n", "a3"]);
    }

    #[test]
    fn dropping_takes_publications_alone_and_keeps_the_order() {
        let parts = [("r1", Own), ("t1", Topic), ("t2", Topic), ("r2", Own), ("t3", Topic), ("t4", Topic)];
        let mut all = Fixture::new(&parts);
        assert_eq!(all.outbox.drop_oldest(&mut all.nodes, &mut all.slab, 8), 2);
        assert_eq!(all.rest(), ["r1", "r2", "t3", "t4"]);
        let mut all = Fixture::new(&parts);
        assert_eq!(all.outbox.drop_newest(&mut all.nodes, &mut all.slab, 8), 2);
        assert_eq!(all.rest(), ["r1", "t1", "t2", "r2"]);
        let mut all = Fixture::new(&parts);
        assert_eq!(all.outbox.drop_newest(&mut all.nodes, &mut all.slab, 0), 4);
        assert_eq!(all.rest(), ["r1", "r2"]);
        let mut all = Fixture::new(&parts);
        assert_eq!(all.outbox.drop_oldest(&mut all.nodes, &mut all.slab, 0), 3, "the newest stays");
        let frame = all.slab.build(1, 1, |out| out.push(b'x'));
        all.outbox.push(&mut all.nodes, frame, 1, Own);
        assert_eq!(all.rest(), ["r1", "r2", "t4", "x"]);
    }
}
