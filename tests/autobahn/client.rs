//! The client that Autobahn|Testsuite judges: echoes in every case of its fuzzing server. See README.md beside it.
#![forbid(unsafe_code)]

use std::{env, error::Error, time::Duration};
use wingbeat::client::{Client, ClientError, Message};

/// The largest cases (9.1.6, 9.2.6) have 16 MiB.
const MAX_MESSAGE: u32 = 16 << 20;
/// Only a guard: no case is silent for long.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AUTOBAHN_URL")?;
    let agent = env::var("AUTOBAHN_AGENT")?;
    let cases = env::var("AUTOBAHN_CASES")?.parse::<u32>()?;
    for case in 1..=cases {
        if let Err(error) = echo(connect(&format!("{url}/runCase?case={case}&agent={agent}"))?) {
            // Most cases break the protocol on purpose; the fuzzing server judges how we took it.
            eprintln!("case {case}: {error}");
        }
    }
    echo(connect(&format!("{url}/updateReports?agent={agent}"))?)?;
    Ok(())
}

fn connect(url: &str) -> Result<Client, ClientError> {
    Client::builder(url).max_message(MAX_MESSAGE).read_timeout(PATIENCE).connect()
}

/// Sends every message back as what it was, until the connection ends.
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
