//! fastwebsockets behind a hyper upgrade, as its echo example does it, on a current-thread runtime. Echo only.
#![forbid(unsafe_code)]

use clap::Parser;
use fastwebsockets::upgrade::{UpgradeFut, upgrade};
use fastwebsockets::{FragmentCollector, OpCode, WebSocketError};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    bind: SocketAddr,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(accept(arguments.bind))
}

async fn accept(bind: SocketAddr) -> io::Result<()> {
    let listener = wingbeat_peers::listen(bind)?;
    wingbeat_peers::announce(&listener)?;
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(open));
            // An error is the end of one connection; the load tool counts what it has lost by it.
            let _ended = connection.with_upgrades().await;
        });
    }
}

async fn open(mut request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let (response, upgrading) = upgrade(&mut request)?;
    // Unconstrained as in the library's own example: tokio's cooperative budget would cost a few per cent.
    tokio::spawn(tokio::task::unconstrained(async move {
        let _ended: Result<(), WebSocketError> = echo(upgrading).await;
    }));
    Ok(response)
}

async fn echo(upgrading: UpgradeFut) -> Result<(), WebSocketError> {
    let mut socket = FragmentCollector::new(upgrading.await?);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}
