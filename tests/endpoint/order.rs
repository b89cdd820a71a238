//! Random interleavings of clients, answers, crashes and faults, from a seed: `WINGBEAT_ORDER_SEEDS` sets how many,
//! `WINGBEAT_ORDER_SEED` replays one.
#![forbid(unsafe_code)]

use crate::oracle::{Ledger, Sent, refs};
use crate::room::{Promises, endpoint};
use crate::world::{Client, World};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use wingbeat::channels::Presence;
use wingbeat::driver::sim::Faults;

const TOPICS: [&str; 3] = ["room:a", "room:b", "room:"];

/// What ran over all seeds: a property that no longer reaches a path says so.
type Tally = BTreeMap<&'static str, u64>;

struct Player {
    client: Client,
    ledger: Ledger,
    worker: usize,
    /// The newest join of each topic, answered or not.
    joins: BTreeMap<&'static str, String>,
    next: u64,
}

struct Scene {
    world: World,
    promises: Promises,
    presence: Presence,
    players: Vec<Player>,
    /// Names and numbers that nobody had.
    next: u64,
    tally: Tally,
}

impl Scene {
    fn new(seed: u64) -> Scene {
        let (promises, presence) = (Promises::default(), Presence::new());
        let workers = 1 + (seed % 2) as usize;
        let world = World::new(seed, endpoint(&promises, &presence), workers);
        if !seed.is_multiple_of(5) {
            world.net.set_faults(Faults::benign());
        }
        let mut scene = Scene { world, promises, presence, players: Vec::new(), next: 0, tally: Tally::new() };
        for _ in 0..2 + scene.below(2) {
            scene.enter();
        }
        scene
    }

    fn below(&self, n: usize) -> usize {
        self.world.net.below(n)
    }

    fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    fn enter(&mut self) {
        let name = format!("p{}", self.number());
        let worker = self.below(self.world.workers.len());
        let client = self.world.connect(worker, &format!("&name={name}"));
        let ledger = Ledger::new(name);
        self.players.push(Player { client, ledger, worker, joins: BTreeMap::new(), next: 0 });
    }

    fn play(mut self) -> Tally {
        for _ in 0..40 + self.below(60) {
            self.step();
            for _ in 0..self.below(3) {
                let worker = self.below(self.world.workers.len());
                let now = self.world.net.now();
                self.world.workers[worker].turn(now).expect("the simulator does not fail");
            }
            self.world.net.advance(Duration::from_millis(self.below(3) as u64));
        }
        self.end();
        self.tally
    }

    fn step(&mut self) {
        let at = self.below(self.players.len());
        match self.below(24) {
            0 => self.settle_join(),
            1 | 2 => self.settle_reply(),
            3 if self.below(4) == 0 => self.leave_for_good(at),
            4 => {
                let (number, topic) = (self.number(), self.pick(&TOPICS));
                self.count("from outside");
                self.world.handle.broadcast(topic, "said", json!({ "by": "outside", "number": number })).unwrap();
            }
            5..=9 => self.join(at),
            10 => self.send(at, "phx_leave"),
            11 => self.heartbeat(at),
            12 if self.below(2) == 0 => self.send(at, "crash"),
            12 => self.send(at, self.pick(&["unknown", "stop"])),
            _ => self.send(
                at,
                self.pick(&["echo", "none", "later", "timer", "say", "say", "others", "loud", "update", "whisper"]),
            ),
        }
        for player in &mut self.players {
            for message in player.client.take() {
                player.ledger.see(&message);
            }
        }
    }

    fn join(&mut self, at: usize) {
        let topic = self.pick(&TOPICS);
        let how = self.pick(&["ok", "ok", "ok", "reply", "reply", "slow", "refuse", "panic"]);
        self.count(if self.players[at].joins.contains_key(topic) { "joins again" } else { "joins" });
        let player = &mut self.players[at];
        let reference = player.reference();
        player.joins.insert(topic, reference.clone());
        player.say(Some(reference.clone()), reference, topic, "phx_join", 0, &json!({ "how": how }));
    }

    fn heartbeat(&mut self, at: usize) {
        let player = &mut self.players[at];
        let reference = player.reference();
        player.say(None, reference, "phoenix", "heartbeat", 0, &json!({}));
    }

    /// Mostly with the newest join_ref, sometimes with none, or with one that is old.
    fn send(&mut self, at: usize, event: &'static str) {
        let (topic, number, choice) = (self.pick(&TOPICS), self.number(), self.below(10));
        let to = self.players[self.below(self.players.len())].ledger.name.clone();
        self.count(event);
        let player = &mut self.players[at];
        let reference = player.reference();
        let join_ref = match choice {
            0 => None,
            1 => Some("0".to_owned()),
            _ => player.joins.get(topic).cloned().or(Some("0".to_owned())),
        };
        let by = player.ledger.name.clone();
        let payload = match event {
            "later" => json!([by, reference]),
            "whisper" => json!({ "to": format!("users:{to}") }),
            _ => json!({ "by": by, "number": number }),
        };
        player.say(join_ref, reference, topic, event, number, &payload);
    }

    fn settle_join(&mut self) {
        let how = self.below(4);
        let mut joins = self.promises.joins.lock().unwrap();
        if joins.is_empty() {
            return;
        }
        let at = self.world.net.below(joins.len());
        let join = joins.swap_remove(at);
        drop(joins);
        match how {
            0 => join.refuse(json!({ "reason": "late" })).unwrap(),
            1 => drop(join),
            _ => join.ok(json!({ "late": true })).unwrap(),
        }
        self.count("late joins");
    }

    fn settle_reply(&mut self) {
        let mut replies = self.promises.replies.lock().unwrap();
        if replies.is_empty() {
            return;
        }
        let at = self.world.net.below(replies.len());
        let (whose, reply) = replies.swap_remove(at);
        drop(replies);
        if self.below(4) > 0 {
            reply.ok(json!({ "late": true })).unwrap();
            return self.count("late replies");
        }
        let (name, reference): (String, String) = serde_json::from_str(&whose).unwrap();
        if let Some(player) = self.players.iter_mut().find(|player| player.ledger.name == name) {
            player.ledger.forgotten.insert(reference);
        }
    }

    fn leave_for_good(&mut self, at: usize) {
        let player = self.players.swap_remove(at);
        match self.below(3) {
            0 => player.client.close(1000),
            1 => player.client.peer.close(),
            _ => self.disconnect(player),
        }
        self.count("goes away");
        self.enter();
    }

    /// By id: what came before is as ever, then 1001.
    fn disconnect(&mut self, mut player: Player) {
        self.world.handle.disconnect(&format!("users:{}", player.ledger.name)).unwrap();
        self.answer_joins(); // input waits behind them, and so does the answer to our Close
        self.world.pass(200);
        player.client.take().iter().for_each(|message| player.ledger.see(message));
        if player.client.seen.closed {
            assert_eq!(player.client.seen.close_code(), Some(1001));
            self.tally.entry("disconnected").and_modify(|count| *count += 1).or_insert(1);
        }
        player.client.peer.close();
    }

    fn answer_joins(&mut self) {
        let joins = std::mem::take(&mut *self.promises.joins.lock().unwrap());
        joins.iter().for_each(|join| join.ok(json!({})).unwrap());
    }

    /// Everything is answered and arrives; then each says one thing more to all.
    fn end(&mut self) {
        for _ in 0..100 {
            let none = self.promises.joins.lock().unwrap().is_empty();
            self.answer_joins();
            self.quiet();
            if none && self.promises.joins.lock().unwrap().is_empty() {
                break;
            }
        }
        for (_, reply) in std::mem::take(&mut *self.promises.replies.lock().unwrap()) {
            reply.ok(json!({})).unwrap();
        }
        self.quiet();
        self.players.iter().for_each(|player| player.ledger.settle());
        self.last_words();
        for player in &self.players {
            player.ledger.settle();
            for topic in player.ledger.live().keys() {
                let list: Value = serde_json::from_str(self.presence.list(topic).json().as_str()).unwrap();
                assert_eq!(player.ledger.present(topic), refs(list.as_object().unwrap()), "{topic}");
                *self.tally.entry("presences").or_default() += 1;
            }
        }
        let panics = self.world.counters().panics;
        assert_eq!(panics, 0, "a panic came out of a channel");
        self.players.iter().for_each(|player| player.client.peer.close());
        // Those that only sent a Close never closed their end.
        self.world.pass(100);
        self.world.net.advance(Duration::from_secs(10));
        self.world.pass(100);
        self.world.assert_empty();
        assert!(TOPICS.iter().all(|topic| self.presence.count(topic) == 0));
    }

    fn last_words(&mut self) {
        let mut expected = Vec::new();
        for at in 0..self.players.len() {
            for (topic, join_ref) in self.players[at].ledger.live().clone() {
                let number = self.number();
                let player = &mut self.players[at];
                let (reference, by) = (player.reference(), player.ledger.name.clone());
                let payload = json!({ "by": by, "number": number });
                player.say(Some(join_ref), reference, &topic, "say", number, &payload);
                expected.push((topic, (by, number)));
            }
        }
        self.quiet();
        for player in &self.players {
            for (topic, said) in &expected {
                let joined = player.ledger.live().contains_key(topic);
                assert_eq!(
                    player.ledger.said.contains(said),
                    joined,
                    "{said:?} on {topic} of worker {}",
                    player.worker
                );
                *self.tally.entry("last words").or_default() += u64::from(joined);
            }
        }
    }

    fn quiet(&mut self) {
        self.world.pass(200);
        for player in &mut self.players {
            player.client.take().iter().for_each(|message| player.ledger.see(message));
            assert!(!player.client.seen.closed, "{} was closed", player.ledger.name);
        }
    }
}

impl Player {
    fn reference(&mut self) -> String {
        self.next += 1;
        self.next.to_string()
    }

    fn say(
        &mut self,
        join_ref: Option<String>,
        reference: String,
        topic: &str,
        event: &str,
        number: u64,
        payload: &Value,
    ) {
        self.client.send(&json!([join_ref, reference, topic, event, payload]));
        self.ledger.send(Sent { join_ref, reference, topic: topic.to_owned(), event: event.to_owned(), number });
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

#[test]
fn what_clients_see_obeys_the_order() {
    if let Some(seed) = setting("WINGBEAT_ORDER_SEED") {
        println!("{:?}", Scene::new(seed).play());
        return;
    }
    let mut sum = Tally::new();
    for seed in 0..setting("WINGBEAT_ORDER_SEEDS").unwrap_or(1000) {
        match std::panic::catch_unwind(|| Scene::new(seed).play()) {
            Ok(tally) => tally.into_iter().for_each(|(what, count)| *sum.entry(what).or_default() += count),
            Err(cause) => {
                let text = cause.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("?");
                panic!("seed {seed} (replay it with WINGBEAT_ORDER_SEED={seed}): {text}");
            }
        }
    }
    println!("{sum:?}");
    for path in ["joins again", "late joins", "late replies", "disconnected", "presences", "last words", "from outside"]
    {
        assert!(sum.get(path).is_some_and(|count| *count > 50), "{path} hardly ever happens: {sum:?}");
    }
}
