//! Addresses, and the set-up of sockets: what happens once per socket, in every driver on real sockets.
#![forbid(unsafe_code)]

use super::{ConnectOptions, ListenOptions};
use nix::sys::socket::{setsockopt, sockopt::IpBindAddressNoPort};
use socket2::{Domain, SockAddr, Socket, Type};
use std::{
    error, fmt, fs, io,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a socket listens or connects to.
///
/// ```
/// use wingbeat::driver::Address;
/// let address: Address = "unix:/run/wingbeat.sock".parse()?;
/// assert_eq!(address.to_string(), "unix:/run/wingbeat.sock");
/// assert!("[::1]:4000".parse::<Address>().is_ok());
/// # Ok::<(), wingbeat::driver::AddressError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Address {
    /// `IP:PORT` or `[IPv6]:PORT`.
    Tcp(SocketAddr),
    /// `unix:PATH`.
    Unix(PathBuf),
}

/// What is wrong with the text of an [`Address`]. The fault is whoever wrote it; a retry makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum AddressError {
    /// Neither `IP:PORT`, `[IPv6]:PORT` nor `unix:PATH`. Names are not resolved.
    Syntax,
    /// The path after `unix:` is empty, contains NUL, or is longer than the 107 bytes that a socket address holds.
    Path,
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match text.strip_prefix("unix:") {
            Some(path) if path.is_empty() || path.len() > 107 || path.contains('\0') => Err(AddressError::Path),
            Some(path) => Ok(Address::Unix(path.into())),
            None => text.parse().map(Address::Tcp).map_err(|_| AddressError::Syntax),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AddressError::Syntax => "an address is IP:PORT, [IPv6]:PORT or unix:PATH",
            AddressError::Path => "the path of a Unix socket has 1 to 107 bytes, none of them NUL",
        })
    }
}

impl error::Error for AddressError {}

/// Finds out whether anybody listens on a port, by binding it without `SO_REUSEPORT`; also resolves port 0 to one that
/// is free. Connections in TIME_WAIT do not count.
///
/// A listener with `SO_REUSEPORT` would bind next to a foreign one without an error and steal part of its connections;
/// so ask here first. The answer is a snapshot: the port is free again when this returns.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] if there is a listener; [`io::ErrorKind::PermissionDenied`] and
/// [`io::ErrorKind::AddrNotAvailable`] as `bind` says.
pub fn is_port_free(address: SocketAddr) -> io::Result<SocketAddr> {
    let socket = tcp_socket(address)?;
    // On Linux this permits a port whose old connections are in TIME_WAIT, never one that has a listener.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
}

/// Has the kernel choose a port that several listeners with `SO_REUSEPORT` are to share. Nobody else is given it while
/// the descriptor is kept, which gets no connections itself.
///
/// # Errors
/// What `bind` says.
pub(crate) fn reserve_port(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let socket = tcp_socket(address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok((socket.into(), bound))
}

/// A socket that listens. Dropping it closes it and removes its file, if that is still its own.
#[derive(Debug)]
pub(super) struct Listening {
    fd: OwnedFd,
    address: Address,
    /// Device and inode of the Unix socket's file.
    file: Option<(u64, u64)>,
}

impl Listening {
    /// Binds and listens. What is set here is inherited by accepted sockets at no cost (`TCP_NODELAY`).
    pub(super) fn new(address: &Address, options: ListenOptions) -> io::Result<Self> {
        let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
        match address {
            Address::Tcp(address) => {
                let socket = tcp_socket(*address)?;
                socket.set_reuse_address(true)?;
                socket.set_reuse_port(options.reuse_port)?;
                socket.bind(&(*address).into())?;
                socket.listen(backlog)?;
                let bound = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
                Ok(Listening { fd: socket.into(), address: bound.into(), file: None })
            }
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
                bind_unix(&socket, path)?;
                let file = file_identity(path);
                let listening = Listening { fd: socket.into(), address: address.clone(), file };
                rustix::net::listen(&listening.fd, backlog)?;
                Ok(listening)
            }
        }
    }

    /// Where it listens, with the port that was given for port 0.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Address::Unix(path) = &self.address
            && self.file.is_some()
            && self.file == file_identity(path)
        {
            // If it cannot be removed, the next listener finds it stale and replaces it.
            let _ = fs::remove_file(path);
        }
    }
}

/// Starts a connect that does not block.
pub(super) fn start_connect(address: &Address, options: ConnectOptions) -> io::Result<OwnedFd> {
    let (socket, target) = match address {
        Address::Tcp(address) => {
            let socket = tcp_socket(*address)?;
            if let Some(source) = options.source {
                // The port is chosen by connect, which needs it free only towards this target.
                setsockopt(&socket, IpBindAddressNoPort, &(source.port() == 0))?;
                socket.bind(&source.into())?;
            }
            (socket, SockAddr::from(*address))
        }
        Address::Unix(path) => {
            (Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?, SockAddr::unix(path)?)
        }
    };
    match socket.connect(&target) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
        _ => Ok(socket.into()),
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?; // so that an IPv4 listener can have the same port
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn bind_unix(socket: &Socket, path: &Path) -> io::Result<()> {
    let address = SockAddr::unix(path)?;
    match socket.bind(&address) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale(path, &address) => {
            fs::remove_file(path)?;
            socket.bind(&address)
        }
        result => result,
    }
}

/// Whether the file is a socket that nobody listens on. Only a connect can tell: a listener that is alive sees one
/// connection come and go.
fn is_stale(path: &Path, address: &SockAddr) -> bool {
    // A connect to a regular file is refused just so: that one is somebody's data.
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let probe = || Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?.connect(address);
    is_socket && probe().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

fn file_identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    const OPTIONS: ListenOptions = ListenOptions { backlog: 16, reuse_port: false };

    #[test]
    fn addresses_round_trip_as_text() {
        for text in ["127.0.0.1:4000", "[::1]:0", "unix:relative.sock", "unix:/run/a b.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["", "4000", "localhost:4000", "::1:4000x", "127.0.0.1", "127.0.0.1:65536"] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Syntax), "{text}");
        }
        let long = format!("unix:{}", "x".repeat(108));
        for text in ["unix:", "unix:a\0b", &long] {
            assert_eq!(text.parse::<Address>(), Err(AddressError::Path), "{text}");
        }
    }

    #[test]
    fn a_live_listener_is_found_and_time_wait_is_not() {
        let any = "127.0.0.1:0".parse().unwrap();
        let free = is_port_free(any).unwrap();
        assert_ne!(free.port(), 0);
        let shared = Listening::new(&any.into(), ListenOptions { reuse_port: true, ..OPTIONS }).unwrap();
        let Address::Tcp(address) = *shared.address() else { panic!() };
        assert_eq!(is_port_free(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(shared);

        let listener = TcpListener::bind(any).unwrap();
        let address = listener.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        assert_eq!(is_port_free(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop((server, listener)); // the server's end closes first: TIME_WAIT stays on its port
        drop(client);
        assert_eq!(is_port_free(address).unwrap(), address);
    }

    #[test]
    fn ipv4_and_ipv6_can_share_a_port() {
        let v6 = Listening::new(&"[::]:0".parse().unwrap(), OPTIONS).unwrap();
        let Address::Tcp(address) = *v6.address() else { panic!() };
        let v4 = SocketAddr::from(([0, 0, 0, 0], address.port()));
        assert!(Listening::new(&v4.into(), OPTIONS).is_ok());
    }
}
