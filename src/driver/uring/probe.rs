//! Whether io_uring works here, and why not.
#![forbid(unsafe_code)]

use super::super::Unavailable;
use super::queue::Queue;
use rustix::io::Errno;
use std::{fs, io};

/// Tries what the driver needs, on a small ring that is gone when this returns.
///
/// # Errors
/// Why it does not work.
pub(in super::super) fn probe() -> Result<(), Unavailable> {
    let queue = Queue::new(4, 8).map_err(|error| reason(&error))?;
    // Provided buffer rings are what the driver needs last (multishot receive came with them in 6.0).
    queue.register_buffers(64, 64, false).map(drop).map_err(|error| reason(&error))
}

/// What an error of setting up a ring means.
pub(super) fn reason(error: &io::Error) -> Unavailable {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS | Errno::INVAL) => Unavailable::OldKernel,
        Some(Errno::PERM | Errno::ACCESS) if is_disabled() => Unavailable::Disabled,
        Some(Errno::PERM | Errno::ACCESS) => Unavailable::Forbidden,
        Some(Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN) => Unavailable::Memory,
        Some(Errno::MFILE | Errno::NFILE) => Unavailable::Descriptors,
        _ => Unavailable::Other(error.kind()),
    }
}

fn is_disabled() -> bool {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").is_ok_and(|value| value.trim() != "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_kernel_have_reasons() {
        let reason = |errno: Errno| reason(&errno.into());
        assert_eq!(reason(Errno::NOSYS), Unavailable::OldKernel);
        assert_eq!(reason(Errno::INVAL), Unavailable::OldKernel);
        assert_eq!(reason(Errno::NOMEM), Unavailable::Memory);
        assert_eq!(reason(Errno::MFILE), Unavailable::Descriptors);
        assert!(matches!(reason(Errno::PERM), Unavailable::Forbidden | Unavailable::Disabled));
        assert!(matches!(reason(Errno::IO), Unavailable::Other(_)));
    }
}
