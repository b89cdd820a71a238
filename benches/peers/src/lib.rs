//! What the Rust peers share: how they listen, and what both floors do with bytes. Every peer takes `--bind ADDR` and
//! prints `listening on ADDR` when it is ready.
#![forbid(unsafe_code)]

pub mod topics;
pub mod wire;

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Ramps of 10,000 connections arrive faster than one thread accepts them.
const BACKLOG: i32 = 4_096;

/// A non-blocking listener whose accepted connections inherit `TCP_NODELAY`: no system call per connection for it.
///
/// # Errors
/// What the kernel says about the address, most often that it is in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Tells the runner that connections are welcome, and where: port 0 has been resolved by now.
///
/// # Errors
/// When the listener's own address cannot be read.
pub fn announce(listener: &TcpListener) -> io::Result<()> {
    println!("listening on {}", listener.local_addr()?);
    Ok(())
}
