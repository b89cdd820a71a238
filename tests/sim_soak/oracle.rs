//! What each connection had to get, held against what it got.
#![forbid(unsafe_code)]

use crate::common::script::{Destination, Due, Foreign, Life, Record, place};
use crate::common::wire;
use crate::scene::Scene;
use std::collections::{BTreeMap, HashMap, HashSet};
use wingbeat::engine::{CloseCause, SlowConsumer};

type Place = (u16, u32, u32);

/// Returns how many connections were looked at, and how many of them to their orderly end.
pub fn check(scene: &Scene) -> (u64, u64) {
    let record = scene.world.record.borrow();
    let by_key: HashMap<u32, &Life> = record.lives.values().map(|life| (life.key, life)).collect();
    let (mut checked, mut complete) = (0, 0);
    for (at, life) in &record.lives {
        let player = scene.players.iter().find(|player| player.key == life.key);
        let (got, whole): (Vec<&str>, bool) = match player {
            Some(player) => (player.raw.seen.texts(), player.raw.seen.closed),
            None => {
                // The other end is the engine's as well: the key of the accepting side is one more.
                let other = if life.key % 10 == 0 { life.key + 1 } else { life.key - 1 };
                let Some(other) = by_key.get(&other) else { continue };
                (other.received.iter().map(String::as_str).collect(), false)
            }
        };
        if let Some(player) = player {
            let pongs = player.raw.seen.frames.iter().filter(|frame| frame.opcode == wire::PONG);
            let mut pings = player.pings.iter();
            assert!(
                pongs.map(wire::Frame::text).all(|pong| pings.any(|ping| ping == pong)),
                "pongs answer pings, in order"
            );
        }
        if let (Some(player), Some((step, reason))) = (player, life.closed) {
            let orderly = !matches!(reason.cause, CloseCause::Lost | CloseCause::Failed(_));
            // At the memory limit one that is closing may be cut, too.
            let orderly = orderly && scene.config.limits.frame_bytes > 1 << 20;
            let cut = step > scene.kind_from && orderly && !player.over && !whole;
            assert!(!cut, "peer {} reads, and got no Close of {reason:?}", life.key);
        }
        let case = Case { scene, record: &record, at: *at, life, got: &got, whole };
        case.check();
        checked += 1;
        complete += u64::from(whole);
    }
    (checked, complete)
}

struct Case<'a> {
    scene: &'a Scene,
    record: &'a Record,
    at: Place,
    life: &'a Life,
    got: &'a [&'a str],
    /// Its Close arrived, so everything before it has to be there.
    whole: bool,
}

impl Case<'_> {
    fn fail(&self, text: String) -> ! {
        let Case { at, life, got, whole, .. } = self;
        panic!(
            "connection {} at {at:?}, whole: {whole}: {text}\ndue {:#?}\ngot {got:#?}\n{:?}, {:?}",
            life.key, life.due, life.closed, life.subscriptions
        )
    }

    fn check(&self) {
        let mut seen = HashSet::new();
        if let Some(twice) = self.got.iter().find(|text| !seen.insert(**text)) {
            self.fail(format!("{twice} came twice"));
        }
        let own: HashSet<&str> = self.life.due.iter().map(text).collect();
        self.check_order(&own);
        self.check_foreign(&own, &seen);
    }

    /// Publications may be missing where a policy dropped them.
    fn drops(&self) -> bool {
        let (_, reason) = self.life.closed.expect("all are closed by now");
        let cause = matches!(reason.cause, CloseCause::SlowConsumer | CloseCause::Memory | CloseCause::Stalled);
        cause || self.scene.config.slow_consumer != SlowConsumer::Disconnect
    }

    /// Own messages and publications of the same worker come in the order of its program.
    fn check_order(&self, own: &HashSet<&str>) {
        // At the memory limit everything that waits goes, replies too; the Close says so.
        let evicted = self.life.closed.is_some_and(|(_, reason)| reason.cause == CloseCause::Memory);
        let skips = |due: &Due| match due {
            Due::Own(_) => evicted,
            Due::Topic(_) => self.drops(),
            Due::Perhaps(_) => true,
        };
        let mut rest = self.life.due.iter();
        for got in self.got.iter().filter(|got| own.contains(**got)) {
            loop {
                match rest.next() {
                    Some(due) if text(due) == *got => break,
                    Some(due) if skips(due) => {}
                    Some(due) => self.fail(format!("{got} came before {}", text(due))),
                    None => self.fail(format!("{got} came too late")),
                }
            }
        }
        if let (true, Some(missing)) = (self.whole, rest.find(|due| !skips(due))) {
            self.fail(format!("{} did not come", text(missing)));
        }
    }

    /// What comes from elsewhere: only what was published while it had subscribed, in the order of each source, and all
    /// of it.
    fn check_foreign(&self, own: &HashSet<&str>, seen: &HashSet<&str>) {
        let places: HashMap<&str, usize> =
            self.record.foreign.iter().enumerate().map(|(at, foreign)| (foreign.text.as_str(), at)).collect();
        let mut last: BTreeMap<Option<u16>, usize> = BTreeMap::new();
        for got in self.got.iter().filter(|got| !own.contains(**got)) {
            let Some(&at) = places.get(got) else { self.fail(format!("{got} was never sent to it")) };
            let foreign = &self.record.foreign[at];
            if !self.may(foreign) {
                self.fail(format!("{got} was not meant for it: {foreign:?}"));
            }
            if last.insert(foreign.source, at).is_some_and(|before| before > at) {
                self.fail(format!("{got} came out of the order of its source"));
            }
        }
        if self.whole && !self.drops() {
            let missing =
                self.record.foreign.iter().find(|foreign| self.must(foreign) && !seen.contains(&*foreign.text));
            if let Some(missing) = missing {
                self.fail(format!("{missing:?} did not come"));
            }
        }
    }

    /// The step of the turn in which this connection's worker took what was posted at `step`.
    fn taken(&self, step: u64) -> u64 {
        if self.scene.config.budgets.mail < 1024 {
            return u64::MAX;
        }
        self.scene.turns[usize::from(self.at.0)].iter().copied().find(|&turn| turn > step).unwrap_or(u64::MAX)
    }

    fn spans<'s>(&'s self, foreign: &'s Foreign) -> Box<dyn Iterator<Item = (u64, u64)> + 's> {
        match &foreign.to {
            Destination::Topic(topic) => {
                let spans = self.life.subscriptions.iter().filter(move |(name, ..)| name == topic);
                Box::new(spans.map(|&(_, from, to)| (from, to.unwrap_or(u64::MAX))))
            }
            Destination::Conn(id) if place(*id) == self.at => {
                let closed = self.life.closed.map_or(u64::MAX, |(step, _)| step);
                Box::new(std::iter::once((self.life.opened, closed)))
            }
            Destination::Conn(_) => Box::new(std::iter::empty()),
        }
    }

    fn may(&self, foreign: &Foreign) -> bool {
        let (posted, taken) = (foreign.step, self.taken(foreign.step));
        foreign.source != Some(self.at.0) && self.spans(foreign).any(|(from, to)| from <= taken && to >= posted)
    }

    fn must(&self, foreign: &Foreign) -> bool {
        let (posted, taken) = (foreign.step, self.taken(foreign.step));
        // A worker at its memory limit refuses what comes by mail, and counts it.
        let roomy = self.scene.config.limits.frame_bytes > 1 << 20;
        !foreign.refused
            && roomy
            && foreign.source != Some(self.at.0)
            && self.spans(foreign).any(|(from, to)| from < posted && to > taken)
    }
}

fn text(due: &Due) -> &str {
    match due {
        Due::Own(text) | Due::Topic(text) | Due::Perhaps(text) => text,
    }
}
