//! The small client that blocks.
#![forbid(unsafe_code)]

use super::{EchoClient, MAX_MESSAGE};
use std::{error::Error, time::Duration};
use wingbeat::client::{Client, ClientError, Message};

/// Only a guard: no case is silent for long.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Blocking;

impl EchoClient for Blocking {
    fn echo(&mut self, url: &str) -> Result<String, Box<dyn Error>> {
        let client = Client::builder(url).max_message(MAX_MESSAGE).read_timeout(PATIENCE).connect()?;
        Ok(echo(client).map_or_else(|error| error.to_string(), |()| "closed".into()))
    }
}

fn echo(mut client: Client) -> Result<(), ClientError> {
    loop {
        match client.receive()? {
            Message::Text(text) => client.send_text(&text)?,
            Message::Binary(bytes) => client.send_binary(&bytes)?,
            Message::Pong(_) => {}
            Message::Closed(_) => return Ok(()),
        }
    }
}
