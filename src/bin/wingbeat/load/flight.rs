//! What one connection has in flight, and what it sends.
#![forbid(unsafe_code)]

use super::stamp::ALPHABET;

/// Messages that a connection sent and awaits. Replies come in the order of the messages, so that a number is enough to
/// know each.
#[derive(Debug)]
pub(crate) struct Flight {
    sent: u64,
    received: u64,
    /// Send times by number, as many as may be in flight; empty if the schedule knows them.
    times: Box<[u64]>,
}

impl Flight {
    /// One that stores the times of `depth` messages in flight.
    pub(crate) fn timed(depth: u32) -> Flight {
        Flight { sent: 0, received: 0, times: vec![0; depth as usize].into_boxed_slice() }
    }

    /// One that stores no times.
    pub(crate) fn scheduled() -> Flight {
        Flight { sent: 0, received: 0, times: Box::default() }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn in_flight(&self) -> u64 {
        self.sent - self.received
    }

    /// Takes the number of the next message, sent at `now`. At most as many are in flight as times are stored.
    pub(crate) fn send(&mut self, now: u64) -> u64 {
        let number = self.sent;
        let depth = self.times.len() as u64;
        if depth > 0 {
            debug_assert!(self.in_flight() < depth);
            self.times[(number % depth) as usize] = now;
        }
        self.sent += 1;
        number
    }

    /// A reply came: the number of its message; none if nothing is in flight.
    pub(crate) fn receive(&mut self) -> Option<u64> {
        let number = self.received;
        (self.in_flight() > 0).then(|| {
            self.received += 1;
            number
        })
    }

    /// A reply to the message `number` came: how many before it were never answered; none if it is not awaited.
    pub(crate) fn receive_number(&mut self, number: u64) -> Option<u64> {
        let skipped = number.checked_sub(self.received).filter(|_| number < self.sent)?;
        self.received = number + 1;
        Some(skipped)
    }

    /// When the message `number`, received last, was sent; of a flight that stores times.
    pub(crate) fn sent_at(&self, number: u64) -> u64 {
        self.times[(number % self.times.len() as u64) as usize]
    }
}

/// How many different payloads follow each other.
const VARIANTS: usize = 64;

/// What messages contain: characters that no format escapes, and that differ from one message to the next, so that a reply which is lost,
/// doubled or swapped shows. Made once; each payload is a part of it, starting a byte later than the one before.
#[derive(Debug)]
pub(crate) struct Contents {
    text: String,
    length: usize,
}

impl Contents {
    pub(crate) fn new(length: usize) -> Contents {
        // Any generator would do; this one (an LCG with Knuth's constants) repeats itself far later than payloads end.
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let character = |_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(ALPHABET[(state >> 58) as usize])
        };
        Contents { text: (0..length + VARIANTS).map(character).collect(), length }
    }

    /// The payload of message `number`.
    pub(crate) fn of(&self, number: u64) -> &str {
        let from = number as usize % VARIANTS;
        &self.text[from..from + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_belong_to_messages_in_order() {
        let mut flight = Flight::timed(2);
        assert_eq!(flight.receive(), None);
        assert_eq!((flight.send(10), flight.send(20)), (0, 1));
        assert_eq!(flight.receive(), Some(0));
        assert_eq!(flight.sent_at(0), 10);
        assert_eq!(flight.send(30), 2);
        assert_eq!((flight.receive(), flight.sent_at(1)), (Some(1), 20));
        assert_eq!((flight.receive(), flight.sent_at(2)), (Some(2), 30));
        assert_eq!((flight.receive(), flight.in_flight(), flight.sent()), (None, 0, 3));
    }

    #[test]
    fn replies_with_a_number_skip_what_is_lost() {
        let mut flight = Flight::timed(4);
        (0..4).for_each(|at| assert_eq!(flight.send(10 * at), at));
        assert_eq!(flight.receive_number(0), Some(0));
        assert_eq!((flight.receive_number(2), flight.in_flight()), (Some(1), 1));
        assert_eq!((flight.receive_number(1), flight.receive_number(2), flight.receive_number(4)), (None, None, None));
        assert_eq!((flight.receive_number(3), flight.sent_at(3), flight.in_flight()), (Some(0), 30, 0));
    }

    #[test]
    fn neighbouring_payloads_differ() {
        let contents = Contents::new(16);
        for number in 0..200 {
            assert_eq!(contents.of(number).len(), 16);
            assert!(contents.of(number).bytes().all(|b| b.is_ascii_graphic()));
            assert_ne!(contents.of(number), contents.of(number + 1));
        }
        assert_eq!(Contents::new(0).of(7), "");
        assert_ne!(Contents::new(1).text.as_bytes()[0..8], [b'0'; 8]);
    }
}
