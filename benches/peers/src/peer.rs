//! The servers that are compared.
#![forbid(unsafe_code)]

use crate::process::Program;
use clap::ValueEnum;
use std::error::Error;
use std::path::Path;

/// Empty when it could not be compiled; then [`UWS_MISSING`] says why.
const UWS: &str = env!("UWS_PEER");
const UWS_MISSING: &str = env!("UWS_MISSING");

/// The kernel interface that moves a server's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Driver {
    Epoll,
    Uring,
}

impl Driver {
    /// As it is written on command lines and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Epoll => "epoll",
            Driver::Uring => "uring",
        }
    }
}

/// A server beside wingbeat.
#[derive(Clone, Debug)]
pub struct Peer {
    pub name: &'static str,
    pub program: Program,
    /// Whether it has `/topics`.
    pub topics: bool,
    /// A floor, with what it is the floor of: wingbeat on another driver is not compared with it.
    pub floor_of: Option<Driver>,
}

/// All peers, the floors first.
pub const NAMES: [&str; 6] = ["raw-epoll", "raw-uring", "uws", "fastwebsockets", "tungstenite-tuned", "tungstenite"];
/// Those that the goals speak of.
pub const WITH_GOALS: [&str; 3] = ["raw-epoll", "raw-uring", "uws"];

impl Peer {
    /// The peer of that name, whose program lies in `folder`.
    ///
    /// # Errors
    /// When the name is unknown or the program has not been built.
    pub fn named(name: &str, folder: &Path) -> Result<Self, Box<dyn Error>> {
        let (name, file, arguments, topics): (_, _, &[&str], _) = match name {
            "raw-epoll" => ("raw-epoll", "raw-epoll", &[], true),
            "raw-uring" => ("raw-uring", "raw-uring", &[], true),
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
        let floor_of = match name {
            "raw-epoll" => Some(Driver::Epoll),
            "raw-uring" => Some(Driver::Uring),
            _ => None,
        };
        Ok(Self { name, program: Program { path, arguments }, topics, floor_of })
    }

    /// Whether wingbeat on this driver is compared with it.
    pub fn is_beside(&self, driver: Driver) -> bool {
        self.floor_of.is_none_or(|of| of == driver)
    }
}

/// `wingbeat serve` as it is measured: one worker, on the server's core.
pub fn wingbeat(path: &Path, driver: Driver) -> Program {
    let arguments = ["serve", "--workers", "1", "--driver", driver.name()].map(str::to_owned).to_vec();
    Program { path: path.to_owned(), arguments }
}
