//! The smallest server: sends every message back. `cargo run --example echo [ADDRESS]`
use wingbeat::{Conn, Handler, Message, Never, Request, Scope, Server, Upgrade};

struct Echo;

impl Handler for Echo {
    type State = ();
    type Mail = Never;
    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }
    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        conn.send(message);
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    Server::bind(address)?.workers(1).serve(|_worker| Echo)
}
