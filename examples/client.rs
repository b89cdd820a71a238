//! Connections out, on the same engine: greets the echo server at ADDRESS, and again each time that the connection was
//! lost and came back, after a growing, random wait. (`cargo run --example echo` is such a server.)
use std::sync::Arc;
use wingbeat::proto::handshake::client::RequestHead;
use wingbeat::{
    ClientResponse, CloseReason, Config, Conn, ConnId, ConnectError, Handler, Message, Never, Reconnect, Request,
    Response, Scope, Target, Upgrade, Worker,
};

struct Greeter;

impl Handler for Greeter {
    type State = ();
    type Mail = Never;

    fn connected(&mut self, _: &mut Scope<'_>, _: ConnId, _token: u64, _: &ClientResponse<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn open(&mut self, conn: &mut Conn<'_>, _: &mut ()) {
        conn.send(Message::text("hello"));
    }

    fn message(&mut self, _: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        println!("echo: {}", message.as_text().unwrap_or("(binary)"));
    }

    fn close(&mut self, _: &mut Scope<'_>, _: (), reason: CloseReason) {
        println!("closed: {}", reason.code);
    }

    fn connect_failed(&mut self, _: &mut Scope<'_>, _token: u64, error: ConnectError) {
        println!("not connected: {error}");
    }

    // Nobody connects to us: this worker does not listen.
    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Reject(Response::not_found())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    let target = Target {
        address: address.parse()?,
        head: RequestHead::new("localhost", "/")?,
        source: None,
        reconnect: Some(Reconnect::default()),
    };
    let mut worker = Worker::new(Config::default(), Greeter)?;
    worker.with(|_, scope| scope.connect(&Arc::new(target), 0));
    Ok(worker.run()?)
}
