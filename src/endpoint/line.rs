//! The outlets of a server: a WebSocket that is open, and what is left of one that is not.
#![forbid(unsafe_code)]

use super::classes::Classes;
use super::mail::conn_address;
use super::timers::TimerTable;
use crate::channels::{Address, Outlet, Post, Refused, Scratch, Sent, Service, TimerKey};
use crate::engine::{Conn, Message, Scope, SendStatus};
use crate::proto::{CloseCode, MessageKind};
use std::{sync::Arc, time::Duration};

use super::longpoll::SessionId;

/// Whose a timer is, and what it was set with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Whose {
    /// Of a channel of the connection whose timer it is.
    Channel(u32, u64),
    Session(SessionId, u32, u64),
    /// The session is to look at its own clock.
    Clock(SessionId),
}

/// What the sockets of one worker share.
pub(super) struct Desk {
    pub(super) classes: Arc<Classes>,
    pub(super) timers: TimerTable<Whose>,
    pub(super) scratch: Scratch,
    pub(super) post: Arc<dyn Post>,
}

/// A socket's WebSocket.
pub(super) struct Line<'a, 'c> {
    pub(super) conn: &'a mut Conn<'c>,
    pub(super) desk: &'a mut Desk,
    pub(super) mount: u16,
}

impl Outlet for Line<'_, '_> {
    fn send(&mut self, kind: MessageKind, bytes: &[u8]) -> Sent {
        match self.conn.send(Message { kind, payload: bytes }) {
            SendStatus::Queued => Sent::Queued,
            SendStatus::High => Sent::High,
            SendStatus::Closing => Sent::Closing,
        }
    }

    fn subscribe(&mut self, topic: &str, service: Service) -> Result<(), Refused> {
        self.conn.subscribe_as(topic, self.desk.classes.of(self.mount, service)).map_err(|_| Refused)
    }

    fn unsubscribe(&mut self, topic: &str) {
        self.conn.unsubscribe(topic);
    }

    fn publish(&mut self, topic: &str, all: bool, kind: MessageKind, bytes: &[u8]) -> u32 {
        let message = Message { kind, payload: bytes };
        let published = match all {
            true => self.conn.publish(topic, message),
            false => self.conn.publish_from(topic, message),
        };
        published.refused
    }

    fn set_timer(&mut self, delay: Duration, serial: u32, token: u64) -> Result<TimerKey, Refused> {
        let conn = &mut *self.conn;
        Ok(self.desk.timers.set_with(Whose::Channel(serial, token), |key| conn.set_timer(delay, key)))
    }

    fn cancel_timer(&mut self, key: TimerKey) {
        self.desk.timers.cancel(&mut self.conn.scope(), key);
    }

    fn hold(&mut self) {
        self.conn.pause();
    }

    fn release(&mut self) {
        self.conn.resume();
    }

    fn close(&mut self, code: CloseCode) {
        self.conn.close(code, "");
    }

    fn address(&self) -> Address {
        Address::new(Arc::clone(&self.desk.post), conn_address(self.conn.id()))
    }

    fn scratch(&mut self) -> &mut Scratch {
        &mut self.desk.scratch
    }
}

/// What a socket's channels have when its connection is over: they can still broadcast.
pub(super) struct Gone<'a, 'c> {
    pub(super) scope: &'a mut Scope<'c>,
    pub(super) desk: &'a mut Desk,
    pub(super) address: u128,
}

impl Outlet for Gone<'_, '_> {
    fn send(&mut self, _: MessageKind, _: &[u8]) -> Sent {
        Sent::Closing
    }

    fn subscribe(&mut self, _: &str, _: Service) -> Result<(), Refused> {
        Ok(()) // nothing would be delivered
    }

    fn unsubscribe(&mut self, _: &str) {}

    fn publish(&mut self, topic: &str, _: bool, kind: MessageKind, bytes: &[u8]) -> u32 {
        self.scope.publish(topic, Message { kind, payload: bytes }).refused
    }

    fn set_timer(&mut self, _: Duration, _: u32, _: u64) -> Result<TimerKey, Refused> {
        Err(Refused) // nobody would be there
    }

    fn cancel_timer(&mut self, key: TimerKey) {
        self.desk.timers.cancel(self.scope, key);
    }

    fn hold(&mut self) {}

    fn release(&mut self) {}

    fn close(&mut self, _: CloseCode) {}

    fn address(&self) -> Address {
        Address::new(Arc::clone(&self.desk.post), self.address)
    }

    fn scratch(&mut self) -> &mut Scratch {
        &mut self.desk.scratch
    }
}
