//! Beside an async program: the engine runs on threads of its own; tokio tasks publish through its `Handle`, and
//! answer what connections ask. Here one task ticks to everybody, another answers each message in capitals.
use std::time::Duration;
use tokio::sync::mpsc::{Sender, channel};
use wingbeat::{CloseCode, Conn, ConnId, Handler, Message, Never, Request, Scope, Server, Upgrade};

struct Bridge {
    questions: Sender<(ConnId, String)>,
}

impl Handler for Bridge {
    type State = ();
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn open(&mut self, conn: &mut Conn<'_>, _: &mut ()) {
        if conn.subscribe("ticks").is_err() {
            conn.close(CloseCode::TRY_AGAIN_LATER, "");
        }
    }

    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        let question = message.as_text().unwrap_or_default().to_owned();
        // A worker never waits: if the tasks cannot keep up, this connection is told so.
        if self.questions.try_send((conn.id(), question)).is_err() {
            conn.close(CloseCode::TRY_AGAIN_LATER, "busy");
        }
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    let (sender, mut questions) = channel(1024);
    let server = Server::bind(address)?.spawn(move |_worker| Bridge { questions: sender.clone() })?;
    let handle = server.handle();
    tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
        let ticker = handle.clone();
        tokio::spawn(async move {
            for tick in 0_u64.. {
                ticker.publish("ticks", Message::text(&format!("tick {tick}")));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        while let Some((id, question)) = questions.recv().await {
            tokio::time::sleep(Duration::from_millis(10)).await; // a database, another service
            if handle.send(id, Message::text(&question.to_uppercase())).is_err() {
                eprintln!("the worker of {id} has no room for an answer");
            }
        }
    });
    server.join()
}
