//! The engine in its client role: one worker that connects to one case after the other.
#![forbid(unsafe_code)]

use super::{EchoClient, MAX_MESSAGE};
use std::{error::Error, io, net::ToSocketAddrs, sync::Arc};
use wingbeat::proto::handshake::client::{RequestHead, Url};
use wingbeat::{
    Address, ClientResponse, CloseReason, Config, Conn, ConnId, ConnectError, Handler, Message, Never, Request,
    Response, Scope, Target, Upgrade, Worker,
};

pub(crate) struct Engine {
    worker: Worker<Echo>,
}

impl Engine {
    pub(crate) fn new() -> io::Result<Engine> {
        let mut config = Config::default();
        config.limits.message_bytes = MAX_MESSAGE;
        Ok(Engine { worker: Worker::new(config, Echo::default())? })
    }
}

impl EchoClient for Engine {
    fn echo(&mut self, url: &str) -> Result<String, Box<dyn Error>> {
        let target = Arc::new(target(url)?);
        self.worker.with(|_, scope| scope.connect(&target, 0));
        loop {
            self.worker.wait(None)?;
            // The handler hears of the end at the Close; the case is over when its socket is gone too.
            if self.worker.sockets() > 0 {
                continue;
            }
            if let Some(end) = self.worker.with(|echo, _| echo.end.take()) {
                let reason = end?;
                return Ok(format!("{} {:?}", reason.code, reason.cause));
            }
        }
    }
}

fn target(url: &str) -> Result<Target, Box<dyn Error>> {
    let url: Url = url.parse()?;
    let address = (url.host(), url.port()).to_socket_addrs()?.next().ok_or("the host has no address")?;
    Ok(Target { address: Address::Tcp(address), head: RequestHead::to(&url), source: None, reconnect: None })
}

/// Sends every message back, and keeps how the connection ended.
#[derive(Default)]
struct Echo {
    end: Option<Result<CloseReason, ConnectError>>,
}

impl Handler for Echo {
    type State = ();
    type Mail = Never;

    /// This side never listens.
    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Reject(Response::not_found())
    }

    fn connected(&mut self, _: &mut Scope<'_>, _: ConnId, _: u64, _: &ClientResponse<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn connect_failed(&mut self, _: &mut Scope<'_>, _: u64, error: ConnectError) {
        self.end = Some(Err(error));
    }

    fn message(&mut self, conn: &mut Conn<'_>, (): &mut (), message: Message<'_>) {
        // Replies are never dropped: above the high watermark nothing more is received until they have left.
        conn.send(message);
    }

    fn close(&mut self, _: &mut Scope<'_>, (): (), reason: CloseReason) {
        self.end = Some(Ok(reason));
    }
}
