//! A TCP or Unix stream with a deadline for each read.
#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
#[cfg(unix)]
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::ClientError;

/// The socket below a [`Client`](super::Client).
#[derive(Debug)]
#[non_exhaustive]
pub enum Stream {
    /// TCP, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// A Unix stream socket.
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Tries the addresses of `host` in turn; the last error counts.
    pub(super) fn connect(host: &str, port: u16, deadline: Instant) -> Result<Stream, ClientError> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address").into();
        for address in (host, port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, left(deadline)?) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(Stream::Tcp(stream));
                }
                Err(error) => last = error.into(),
            }
        }
        Err(last)
    }

    /// Reads once; 0 is the end of the stream.
    pub(super) fn read_until(&mut self, into: &mut [u8], deadline: Option<Instant>) -> Result<usize, ClientError> {
        loop {
            self.limit_reads(deadline.map(left).transpose()?)?;
            match self.read(into) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => return Ok(read?),
            }
        }
    }

    /// How long a write may block; `None`: forever.
    pub(super) fn limit_writes(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_write_timeout(timeout),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// Ends both directions; that the peer may have done so already is no error.
    pub(super) fn shut_down(&self) {
        _ = match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn limit_reads(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.set_read_timeout(timeout),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(into),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Stream::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The moment that lies `timeout` ahead; any timeout that a system cannot count is many years.
pub(super) fn after(timeout: Duration) -> Instant {
    const YEARS: Duration = Duration::from_secs(1 << 30);
    Instant::now() + timeout.min(YEARS)
}

/// The time until `deadline`; a socket takes no timeout of zero.
fn left(deadline: Instant) -> Result<Duration, ClientError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ClientError::Timeout) } else { Ok(left) }
}
