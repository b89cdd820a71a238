//! `load connect`: opening handshakes, one after the other on each connection.
#![forbid(unsafe_code)]

use super::client::{Base, Workload};
use super::shared::Times;
use std::time::Duration;
use wingbeat::{CloseCode, Conn, Message, Scope};

/// Wait after a connection that could not be made.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Connects, closes, and connects again.
#[derive(Debug)]
pub(crate) struct Churn {
    /// When each connection was begun.
    begun_at: Vec<u64>,
    is_running: bool,
}

impl Churn {
    pub(crate) fn new(connections: u32) -> Churn {
        Churn { begun_at: vec![0; connections as usize], is_running: false }
    }

    fn connect(&mut self, base: &mut Base, scope: &mut Scope<'_>, index: u32) {
        if self.is_running {
            self.begun_at[index as usize] = base.now();
            base.dial(scope, index);
        }
    }
}

impl Workload for Churn {
    fn begin(&mut self, base: &mut Base, scope: &mut Scope<'_>, _: &Times) {
        self.is_running = true;
        (0..self.begun_at.len() as u32).for_each(|index| self.connect(base, scope, index));
    }

    fn open(&mut self, base: &mut Base, conn: &mut Conn<'_>, index: u32) {
        let now = base.now();
        base.recorder.message(self.begun_at[index as usize], now, 0);
        conn.close(CloseCode::NORMAL, "");
    }

    fn message(&mut self, _: &mut Base, _: &mut Conn<'_>, _: u32, _: Message<'_>) {}

    fn refused(&mut self, _: &mut Base, scope: &mut Scope<'_>, index: u32) {
        if self.is_running {
            scope.set_timer(RETRY_AFTER, index.into());
        }
    }

    fn timer(&mut self, base: &mut Base, scope: &mut Scope<'_>, index: u32) {
        self.connect(base, scope, index);
    }

    fn closed(&mut self, base: &mut Base, scope: &mut Scope<'_>, index: u32) {
        self.connect(base, scope, index);
    }

    fn stop(&mut self, _: &mut Base) {
        self.is_running = false;
    }
}
