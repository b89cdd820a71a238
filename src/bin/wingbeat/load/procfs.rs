//! What the kernel says a process, or a thread of this one, has used.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// A process to watch.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    directory: PathBuf,
}

/// CPU time of each thread of a process, in nanoseconds since its start.
///
/// The threads are added up by us: `/proc/PID/schedstat` is that of the first thread alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTimes(BTreeMap<u32, u64>);

/// What a process used between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuUse {
    /// Nanoseconds, all threads together.
    pub(crate) total_ns: u64,
    /// Nanoseconds of the thread that used most.
    pub(crate) busiest_ns: u64,
}

impl Process {
    /// The process with this id.
    ///
    /// # Errors
    /// If there is none, or the kernel keeps no schedule statistics.
    pub(crate) fn new(pid: u32) -> io::Result<Process> {
        let process = Process { directory: PathBuf::from(format!("/proc/{pid}")) };
        process.cpu_times()?;
        Ok(process)
    }

    /// CPU time until now. Reads one file per thread.
    pub(crate) fn cpu_times(&self) -> io::Result<CpuTimes> {
        let mut times = BTreeMap::new();
        for task in fs::read_dir(self.directory.join("task"))? {
            let task = task?;
            let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A thread that ended between the listing and the reading has nothing more to say.
            if let Ok(nanoseconds) = schedstat_ns(&task.path().join("schedstat")) {
                times.insert(id, nanoseconds);
            }
        }
        if times.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(CpuTimes(times)) }
    }

    /// Resident memory now, in bytes.
    pub(crate) fn rss_bytes(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.directory.join("statm"))?;
        let pages = field(&text, 1)?;
        Ok(pages * rustix::param::page_size() as u64)
    }
}

impl CpuTimes {
    /// What was used since `earlier`. A thread that ended meanwhile is missing, one that began counts whole.
    pub(crate) fn since(&self, earlier: &CpuTimes) -> CpuUse {
        let used = self.0.iter().map(|(id, now)| now.saturating_sub(earlier.0.get(id).copied().unwrap_or(0)));
        used.fold(CpuUse::default(), |sum, ns| CpuUse {
            total_ns: sum.total_ns + ns,
            busiest_ns: sum.busiest_ns.max(ns),
        })
    }
}

/// CPU time of the calling thread, in nanoseconds since its start.
pub(crate) fn own_thread_cpu_ns() -> io::Result<u64> {
    schedstat_ns(Path::new("/proc/thread-self/schedstat"))
}

/// The first field: time on the CPU.
fn schedstat_ns(path: &Path) -> io::Result<u64> {
    field(&fs::read_to_string(path)?, 0)
}

fn field(text: &str, index: usize) -> io::Result<u64> {
    let field = text.split_ascii_whitespace().nth(index).and_then(|field| field.parse().ok());
    field.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(pairs: &[(u32, u64)]) -> CpuTimes {
        CpuTimes(pairs.iter().copied().collect())
    }

    #[test]
    fn use_is_added_up_over_threads() {
        let before = times(&[(1, 100), (2, 50), (3, 7)]);
        let after = times(&[(1, 150), (2, 250), (4, 30)]);
        assert_eq!(after.since(&before), CpuUse { total_ns: 280, busiest_ns: 200 });
        assert_eq!(before.since(&before), CpuUse::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let me = Process::new(std::process::id()).unwrap();
        let before = (me.cpu_times().unwrap(), own_thread_cpu_ns().unwrap());
        let mut spent = 0u64;
        while own_thread_cpu_ns().unwrap() < before.1 + 3_000_000 {
            spent = spent.wrapping_mul(31).wrapping_add(7);
        }
        assert!(me.cpu_times().unwrap().since(&before.0).total_ns >= 2_000_000, "{spent}");
        assert!(me.rss_bytes().unwrap() > 100_000);
    }

    #[test]
    fn a_missing_process_is_an_error() {
        assert!(Process::new(u32::MAX).is_err());
        assert!(field("1 x 3", 1).is_err() && field("", 0).is_err());
        assert_eq!(field("12 34 56\n", 1).ok(), Some(34));
    }
}
