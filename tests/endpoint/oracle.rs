//! What one client may see and has to see, from docs/phoenix-wire.md §2 to §4 and §6 alone.
#![forbid(unsafe_code)]

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A message of the client.
#[derive(Clone, Debug)]
pub struct Sent {
    pub join_ref: Option<String>,
    pub reference: String,
    pub topic: String,
    pub event: String,
    /// Of what it says to others.
    pub number: u64,
}

/// A client's account of its connection.
#[derive(Default)]
pub struct Ledger {
    pub name: String,
    pub sent: Vec<Sent>,
    /// Late replies that the test gave up.
    pub forgotten: HashSet<String>,
    index: HashMap<String, usize>,
    /// By ref: status, and after how many other messages.
    replies: HashMap<String, (String, u64)>,
    joined: HashSet<String>,
    /// By join_ref: how the end was told, and after how many other messages.
    ended: HashMap<String, (String, u64)>,
    seen: u64,
    /// Topics on which broadcasts may come, with the join.
    live: BTreeMap<String, String>,
    /// By publisher: the newest number that came on the fastlane, and through `handle_out`.
    heard: HashMap<(String, bool), u64>,
    own: HashSet<u64>,
    pub said: BTreeSet<(String, u64)>,
    presences: BTreeMap<String, Fold>,
}

/// Presence as `phoenix.js` folds it.
#[derive(Default)]
struct Fold {
    state: Option<Map<String, Value>>,
    waiting: Vec<Value>,
}

impl Ledger {
    pub fn new(name: String) -> Ledger {
        Ledger { name, ..Ledger::default() }
    }

    pub fn send(&mut self, sent: Sent) {
        self.index.insert(sent.reference.clone(), self.sent.len());
        self.sent.push(sent);
    }

    /// Takes what came next.
    pub fn see(&mut self, message: &Value) {
        self.seen += 1;
        let [join_ref, reference, topic, event, payload] = &message.as_array().expect("an array")[..] else {
            panic!("{message} has not five slots")
        };
        let (topic, event) = (topic.as_str().expect("a topic"), event.as_str().expect("an event"));
        match event {
            "phx_reply" => self.reply(join_ref, reference, topic, payload),
            "phx_close" | "phx_error" => {
                assert_eq!(join_ref, reference, "{message}: both slots hold the join_ref");
                let join = join_ref.as_str().expect("a join_ref").to_owned();
                assert!(self.joined.contains(&join), "{message}: nothing was joined");
                assert_eq!(
                    self.ended.insert(join.clone(), (event.to_owned(), self.seen)),
                    None,
                    "{message}: a second end"
                );
                if self.live.get(topic) == Some(&join) {
                    self.live.remove(topic);
                }
            }
            _ if join_ref.is_null() => {
                assert!(reference.is_null() && self.live.contains_key(topic), "{message}: it has not joined");
                self.broadcast(topic, event, payload);
            }
            _ => {
                assert!(reference.is_null(), "{message}: a push has no ref");
                let join = join_ref.as_str().expect("a join_ref");
                assert!(self.joined.contains(join), "{message}: before the reply to the join");
                assert!(event == "bye" || !self.ended.contains_key(join), "{message}: after the end");
                match event {
                    "loud" => self.number(payload, true),
                    "presence_state" => self.presences.entry(topic.to_owned()).or_default().sync(payload),
                    _ => assert!(matches!(event, "bye" | "welcome" | "whispered"), "{message}"),
                }
            }
        }
    }

    fn reply(&mut self, join_ref: &Value, reference: &Value, topic: &str, payload: &Value) {
        let reference = reference.as_str().expect("a ref").to_owned();
        let sent = self.sent[self.index[&reference]].clone();
        let status = payload["status"].as_str().expect("a status").to_owned();
        assert_eq!(sent.topic, topic);
        let unmatched = payload["response"]["reason"] == "unmatched topic";
        let wanted = sent.join_ref.as_deref().filter(|_| !unmatched && topic != "phoenix");
        // A message without a join_ref gets the channel's.
        if wanted.is_some() || unmatched || topic == "phoenix" {
            assert_eq!(join_ref.as_str(), wanted, "the reply to {sent:?}");
        }
        if sent.event == "phx_join" && status == "ok" {
            self.joined.insert(reference.clone());
            self.live.insert(topic.to_owned(), reference.clone());
            self.presences.insert(topic.to_owned(), Fold::default());
        }
        if sent.event == "say" && status == "ok" {
            assert!(self.own.contains(&sent.number), "the reply to {sent:?} came before what was said");
        }
        assert_eq!(self.replies.insert(reference, (status, self.seen)), None, "a second reply to {sent:?}");
    }

    fn broadcast(&mut self, topic: &str, event: &str, payload: &Value) {
        match event {
            "said" => self.number(payload, false),
            "presence_diff" => self.presences.get_mut(topic).expect("it has joined").diff(payload),
            _ => assert_eq!(event, "left"),
        }
    }

    /// What a publisher says keeps its order, over all topics.
    fn number(&mut self, payload: &Value, loud: bool) {
        let by = payload["by"].as_str().expect("a name");
        let number = payload["number"].as_u64().expect("a number");
        let before = self.heard.insert((by.to_owned(), loud), number);
        assert!(before.is_none_or(|before| before < number), "{by}: {number} after {before:?}");
        if by == self.name {
            self.own.insert(number);
            let sent = self.sent.iter().find(|sent| sent.number == number).expect("it said so");
            assert_ne!(sent.event, "others", "it was for the others");
        }
        if !loud {
            self.said.insert((by.to_owned(), number));
        }
    }

    /// Nothing is under way any more, and the connection is open: what was due has come, and nothing else.
    pub fn settle(&self) {
        let mut channels: HashMap<&str, &str> = HashMap::new();
        // How each channel ended, and which reply comes before that.
        let mut ends: HashMap<&str, (&str, Option<&str>)> = HashMap::new();
        // Timed replies are due if their channel is still there.
        let mut timed: Vec<(&str, &Sent)> = Vec::new();
        for sent in &self.sent {
            let answered = self.replies.contains_key(&sent.reference);
            let (topic, joined) = (sent.topic.as_str(), channels.get(sent.topic.as_str()).copied());
            let due = match (joined, sent.event.as_str()) {
                (_, "heartbeat") => true,
                (old, "phx_join") => {
                    if let Some(old) = old {
                        ends.insert(old, ("phx_close", Some(&sent.reference)));
                        channels.remove(topic);
                    }
                    if self.replies.get(&sent.reference).is_some_and(|(status, _)| status == "ok") {
                        channels.insert(topic, &sent.reference);
                    }
                    true
                }
                (None, _) => true,
                (Some(join), _) if sent.join_ref.as_deref().is_some_and(|given| given != join) => false,
                (Some(_), "timer") => {
                    timed.push((channels[topic], sent));
                    continue;
                }
                (Some(_), "later") => !self.forgotten.contains(&sent.reference),
                (Some(_), "none") => false,
                (Some(join), "phx_leave" | "stop") => {
                    ends.insert(join, ("phx_close", Some(&sent.reference)));
                    channels.remove(topic).is_some()
                }
                (Some(join), "crash" | "unknown") => {
                    ends.insert(join, ("phx_error", None));
                    channels.remove(topic).is_none()
                }
                (Some(_), _) => true,
            };
            assert_eq!(answered, due, "{}: the answer to {sent:?}", self.name);
        }
        for (join, sent) in timed {
            let there = channels.get(sent.topic.as_str()) == Some(&join);
            assert!(
                !there || self.replies.contains_key(&sent.reference),
                "{}: the timed answer to {sent:?}",
                self.name
            );
        }
        for (join, (how, behind)) in &ends {
            let Some((told, at)) = self.ended.get(*join) else { panic!("{}: {how} of {join} is missing", self.name) };
            let reply = behind.map_or(0, |reference| self.replies[reference].1);
            assert!(told == how && reply < *at, "{}: {told} of {join} at {at}, its reply at {reply}", self.name);
        }
        assert_eq!(self.ended.len(), ends.len(), "{}: channels that ended", self.name);
        let live: BTreeMap<&str, &str> = self.live.iter().map(|(topic, join)| (&**topic, &**join)).collect();
        assert_eq!(live, channels.into_iter().collect(), "{}: what is joined", self.name);
    }

    pub fn live(&self) -> &BTreeMap<String, String> {
        &self.live
    }

    /// The `phx_ref`s of every key on a topic, as folded from what came.
    pub fn present(&self, topic: &str) -> BTreeMap<String, BTreeSet<String>> {
        refs(self.presences[topic].state.as_ref().expect("a presence_state came"))
    }
}

impl Fold {
    fn sync(&mut self, state: &Value) {
        self.state = Some(state.as_object().expect("an object").clone());
        for diff in std::mem::take(&mut self.waiting) {
            self.diff(&diff);
        }
    }

    fn diff(&mut self, diff: &Value) {
        let Some(state) = &mut self.state else { return self.waiting.push(diff.clone()) };
        for (key, joins) in diff["joins"].as_object().expect("joins") {
            let new: BTreeSet<String> = metas(joins).iter().map(phx_ref).collect();
            let mut entry = joins.clone();
            if let Some(old) = state.get(key) {
                let kept = metas(old).iter().filter(|meta| !new.contains(&phx_ref(meta))).cloned();
                entry["metas"] = kept.chain(metas(joins).iter().cloned()).collect();
            }
            state.insert(key.clone(), entry);
        }
        for (key, leaves) in diff["leaves"].as_object().expect("leaves") {
            let gone: BTreeSet<String> = metas(leaves).iter().map(phx_ref).collect();
            let Some(entry) = state.get_mut(key) else { continue };
            let left: Vec<Value> = metas(entry).iter().filter(|meta| !gone.contains(&phx_ref(meta))).cloned().collect();
            if left.is_empty() {
                state.remove(key);
            } else {
                entry["metas"] = left.into();
            }
        }
    }
}

fn metas(entry: &Value) -> &Vec<Value> {
    entry["metas"].as_array().expect("metas")
}

fn phx_ref(meta: &Value) -> String {
    meta["phx_ref"].as_str().expect("a phx_ref").to_owned()
}

pub fn refs(state: &Map<String, Value>) -> BTreeMap<String, BTreeSet<String>> {
    state.iter().map(|(key, entry)| (key.clone(), metas(entry).iter().map(phx_ref).collect())).collect()
}
