//! A chat: `ws://ADDRESS/?room=NAME` joins a room; what anybody in it says goes to everybody in it, on all threads.
use wingbeat::{CloseCode, Conn, Handler, Message, Never, Request, Response, Scope, Server, Upgrade};

struct Chat;

impl Handler for Chat {
    type State = String; // the room
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, request: &Request<'_>) -> Upgrade<String> {
        match request.query().and_then(|query| query.strip_prefix("room=")) {
            Some(room) if !room.is_empty() => Upgrade::Accept(room.to_owned()),
            _ => Upgrade::Reject(Response::text(400, "which room? /?room=NAME\n")),
        }
    }

    fn open(&mut self, conn: &mut Conn<'_>, room: &mut String) {
        if conn.subscribe(room).is_err() {
            conn.close(CloseCode::TRY_AGAIN_LATER, "too many rooms");
        }
    }

    fn message(&mut self, conn: &mut Conn<'_>, room: &mut String, message: Message<'_>) {
        conn.publish(room, message);
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    Server::bind(address)?.serve(|_worker| Chat)
}
