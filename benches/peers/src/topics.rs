//! Topics of the floors: what was published in a turn, joined, and who is sent it.
#![forbid(unsafe_code)]

use std::collections::HashMap;

/// All topics of a server. They are never forgotten.
#[derive(Debug, Default)]
pub struct Topics {
    keys: HashMap<String, usize>,
    topics: Vec<Topic>,
    /// Topics with something to send.
    dirty: Vec<usize>,
}

#[derive(Debug, Default)]
struct Topic {
    members: Vec<usize>,
    /// Frames that nobody was sent yet, as they go to every member.
    frames: Vec<u8>,
}

impl Topics {
    /// The key of a topic, which is made if it does not exist.
    pub fn key(&mut self, name: &str) -> usize {
        let next = self.topics.len();
        let key = *self.keys.entry(name.to_owned()).or_insert(next);
        if key == next {
            self.topics.push(Topic::default());
        }
        key
    }

    /// The same, and from now on `member` is sent what is published.
    pub fn join(&mut self, name: &str, member: usize) -> usize {
        let key = self.key(name);
        self.topics[key].members.push(member);
        key
    }

    pub fn leave(&mut self, key: usize, member: usize) {
        let members = &mut self.topics[key].members;
        if let Some(at) = members.iter().position(|other| *other == member) {
            members.swap_remove(at);
        }
    }

    /// Adds frames to what this turn sends to the members.
    pub fn publish(&mut self, key: usize, frames: &[u8]) {
        let topic = &mut self.topics[key];
        if topic.frames.is_empty() {
            self.dirty.push(key);
        }
        topic.frames.extend_from_slice(frames);
    }

    /// Takes what one of the topics has to send, and to whom; none when all was taken.
    pub fn next_batch(&mut self) -> Option<(Vec<u8>, &[usize])> {
        let topic = &mut self.topics[self.dirty.pop()?];
        let frames = std::mem::take(&mut topic.frames);
        Some((frames, &topic.members))
    }
}
