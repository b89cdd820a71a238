//! Ctrl-C and SIGTERM: the first asks to stop, a second ends the process at once.
#![forbid(unsafe_code)]

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether somebody asked the process to stop.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes over SIGINT and SIGTERM for the whole process. From the second of either on, the process exits at once
    /// with 128 + the signal's number (130, 143), as a shell reports a death by that signal.
    ///
    /// # Errors
    /// What the kernel says when it refuses a handler.
    pub(crate) fn install() -> io::Result<Interrupt> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Actions run in the order of their registration: at the first signal the flag is still down here.
            flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Interrupt(asked))
    }

    /// Whether a signal came.
    pub(crate) fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Blocks until a signal comes.
    ///
    /// # Errors
    /// As [`Interrupt::install`].
    pub(crate) fn wait(&self) -> io::Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        // One that came before this line is in the flag.
        while !self.is_raised() {
            signals.wait();
        }
        Ok(())
    }
}
