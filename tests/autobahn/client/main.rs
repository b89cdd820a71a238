//! The clients that Autobahn|Testsuite judges: each echoes in every case of its fuzzing server. See ../README.md.
//!
//! `AUTOBAHN_CLIENT` names the one: `engine` (default) or `blocking`.
#![forbid(unsafe_code)]

mod blocking;
mod engine;

use std::{env, error::Error};

/// The largest cases (9.1.6, 9.2.6) have 16 MiB.
const MAX_MESSAGE: u32 = 16 << 20;

/// One client under judgement.
trait EchoClient {
    /// Connects to `url`, sends every message back as what it was, and returns how the connection ended once it is gone.
    ///
    /// # Errors
    /// The connection did not come to stand: every case of the fuzzing server accepts the opening handshake.
    fn echo(&mut self, url: &str) -> Result<String, Box<dyn Error>>;
}

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("AUTOBAHN_URL")?;
    let agent = env::var("AUTOBAHN_AGENT")?;
    let cases = env::var("AUTOBAHN_CASES")?.parse::<u32>()?;
    let mut client = client(env::var("AUTOBAHN_CLIENT").as_deref().unwrap_or("engine"))?;
    for case in 1..=cases {
        // Most cases break the protocol on purpose; the fuzzing server judges how the client took it.
        let end = client.echo(&format!("{url}/runCase?case={case}&agent={agent}"))?;
        eprintln!("case {case}: {end}");
    }
    client.echo(&format!("{url}/updateReports?agent={agent}"))?;
    Ok(())
}

fn client(name: &str) -> Result<Box<dyn EchoClient>, Box<dyn Error>> {
    match name {
        "engine" => Ok(Box::new(engine::Engine::new()?)),
        "blocking" => Ok(Box::new(blocking::Blocking)),
        _ => Err(format!("AUTOBAHN_CLIENT is engine or blocking, not {name}").into()),
    }
}
