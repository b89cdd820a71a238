//! What other threads may hold of a channel: [`ReplyRef`], [`JoinRef`], [`ChannelHandle`].
#![forbid(unsafe_code)]

use super::outlet::{Address, Content, Full, LateReply};
use super::{OwnedPayload, PayloadError, Slot, ToPayload};
use std::any::Any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{error, fmt};

/// What is needed to answer a message later, from any thread, even after its channel has ended.
#[derive(Clone, Debug)]
pub struct ReplyRef {
    pub(super) address: Address,
    pub(super) join_ref: Slot<'static>,
    pub(super) reference: Slot<'static>,
    pub(super) topic: Box<str>,
}

impl ReplyRef {
    /// Sends the reply. It is dropped if the connection is gone by then.
    ///
    /// # Errors
    /// The payload cannot be serialized, or the worker has no room for more mail.
    pub fn reply(&self, status: &str, payload: impl ToPayload) -> Result<(), ReplyError> {
        let response = OwnedPayload::new(payload).map_err(ReplyError::Payload)?;
        let (join_ref, reference, topic) = (self.join_ref.clone(), self.reference.clone(), self.topic.clone());
        let reply = LateReply { join_ref, reference, topic, status: status.into(), response };
        self.address.send(Content::Reply(Box::new(reply))).map_err(|Full| ReplyError::Full)
    }

    /// As [`ReplyRef::reply`], with the status `ok`.
    pub fn ok(&self, payload: impl ToPayload) -> Result<(), ReplyError> {
        self.reply("ok", payload)
    }
}

/// Why a late answer was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// The payload cannot be sent; a retry makes no sense.
    Payload(PayloadError),
    /// The worker has no room for more mail; a later try makes sense.
    Full,
}

/// What is needed to answer a join later, from any thread. Dropped without an answer, the join has failed.
#[derive(Debug)]
pub struct JoinRef {
    pub(super) address: Address,
    pub(super) serial: u32,
    pub(super) answered: AtomicBool,
}

impl JoinRef {
    /// The client may join: `ok` with a payload. Only the first answer counts.
    ///
    /// # Errors
    /// As [`ReplyRef::reply`].
    pub fn ok(&self, payload: impl ToPayload) -> Result<(), ReplyError> {
        let payload = OwnedPayload::new(payload).map_err(ReplyError::Payload)?;
        self.answer(Ok(payload))
    }

    /// The client may not join: `error` with a payload. Only the first answer counts.
    ///
    /// # Errors
    /// As [`ReplyRef::reply`].
    pub fn refuse(&self, payload: impl ToPayload) -> Result<(), ReplyError> {
        let payload = OwnedPayload::new(payload).map_err(ReplyError::Payload)?;
        self.answer(Err(payload))
    }

    fn answer(&self, answer: Result<OwnedPayload, OwnedPayload>) -> Result<(), ReplyError> {
        self.address
            .send(Content::Join { serial: self.serial, answer: Some(answer) })
            .map_err(|Full| ReplyError::Full)?;
        self.answered.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for JoinRef {
    fn drop(&mut self) {
        if !*self.answered.get_mut() {
            let _ = self.address.send(Content::Join { serial: self.serial, answer: None });
        }
    }
}

/// Sends messages to one channel from any thread.
#[derive(Clone, Debug)]
pub struct ChannelHandle {
    pub(super) address: Address,
    pub(super) serial: u32,
}

impl ChannelHandle {
    /// Calls [`handle_info`](super::Channel::handle_info) with [`Info::Message`](super::Info::Message). Dropped if the
    /// channel is gone by then.
    ///
    /// # Errors
    /// [`Full`]: the worker has no room for more mail.
    pub fn send(&self, message: impl Any + Send) -> Result<(), Full> {
        self.address.send(Content::Info { serial: self.serial, message: Box::new(message) })
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::Payload(error) => error.fmt(f),
            ReplyError::Full => Full.fmt(f),
        }
    }
}

impl error::Error for ReplyError {}
