//! The servers that are compared.
#![forbid(unsafe_code)]

use crate::process::Program;
use std::error::Error;
use std::path::Path;

/// Empty when it could not be compiled; then [`UWS_MISSING`] says why.
const UWS: &str = env!("UWS_PEER");
const UWS_MISSING: &str = env!("UWS_MISSING");

/// A server beside wingbeat.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: &'static str,
    pub program: Program,
    /// Whether it has `/topics`.
    pub topics: bool,
}

/// All peers, the floor first.
pub const NAMES: [&str; 5] = ["raw-epoll", "uws", "fastwebsockets", "tungstenite-tuned", "tungstenite"];

impl Peer {
    /// The peer of that name, whose program lies in `folder`.
    ///
    /// # Errors
    /// When the name is unknown or the program has not been built.
    pub fn named(name: &str, folder: &Path) -> Result<Self, Box<dyn Error>> {
        let (name, file, arguments, topics): (_, _, &[&str], _) = match name {
            "raw-epoll" => ("raw-epoll", "raw-epoll", &[], false),
            "uws" if UWS.is_empty() => return Err(format!("uws was not built: {UWS_MISSING}").into()),
            "uws" => ("uws", UWS, &[], true),
            "fastwebsockets" => ("fastwebsockets", "fastwebsockets", &[], false),
            "tungstenite-tuned" => ("tungstenite-tuned", "tungstenite", &["--read-buffer", "4KiB", "--batch"], true),
            "tungstenite" => ("tungstenite", "tungstenite", &[], true),
            unknown => return Err(format!("no peer `{unknown}`; there are {}", NAMES.join(", ")).into()),
        };
        // An absolute path (uws) replaces the folder.
        let path = folder.join(file);
        if !path.is_file() {
            return Err(format!("{} is missing: cargo build --release --bins", path.display()).into());
        }
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Ok(Self { name, program: Program { path, arguments }, topics })
    }
}

/// `wingbeat serve` as it is measured: one worker, on the server's core.
pub fn wingbeat(path: &Path) -> Program {
    let arguments = ["serve", "--workers", "1"].map(str::to_owned).to_vec();
    Program { path: path.to_owned(), arguments }
}
