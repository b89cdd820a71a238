//! The server's side: it does what the first byte of a message says.
#![forbid(unsafe_code)]

use std::time::Duration;
use wingbeat::{CloseCode, Conn, Handler, Message, MessageKind, Request, Scope, Upgrade};

/// `e…` comes back as it is. `sTOPIC` subscribes, `uTOPIC` unsubscribes, and say so in capitals. `pTOPIC TEXT` publishes
/// the text, and answers how many workers refused it. `bCOUNT LENGTH` brings so many messages. `cCODE` closes. `zMS`
/// stops receiving for so long.
pub(crate) struct Service;

/// A message of its own that a burst consists of.
pub(crate) fn burst_part(i: usize, length: usize) -> String {
    format!("{:.<length$}", format!("B{i} "))
}

impl Handler for Service {
    type State = ();
    type Mail = String;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn open(&mut self, conn: &mut Conn<'_>, _: &mut ()) {
        let id = conn.id();
        let greeting = format!("h{} {} {}", id.worker, id.socket.slot, id.socket.generation);
        conn.send(Message::text(&greeting));
    }

    fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        let command = message.payload.first().copied();
        if command == Some(b'e') || command.is_none() {
            conn.send(message);
            return;
        }
        let text = message.as_text().expect("commands are text");
        let rest = &text[1..];
        let (first, second) = rest.split_once(' ').unwrap_or((rest, ""));
        match text.as_bytes()[0] {
            b's' => {
                conn.subscribe(rest).expect("within the limits");
                conn.send(Message::text(&format!("S{rest}")));
            }
            b'u' => {
                conn.unsubscribe(rest);
                conn.send(Message::text(&format!("U{rest}")));
            }
            b'p' => {
                let published = conn.publish(first, Message::text(second));
                conn.send(Message::text(&format!("P{}", published.refused)));
            }
            b'b' => {
                let (count, length) = (first.parse().expect("a count"), second.parse().expect("a length"));
                for i in 0..count {
                    conn.send_with(MessageKind::Text, |out| out.push_str(&burst_part(i, length)));
                }
            }
            b'c' => conn.close(CloseCode::new(rest.parse().expect("a code")).expect("a code"), "as asked"),
            b'z' => {
                conn.pause();
                conn.set_timer(Duration::from_millis(rest.parse().expect("milliseconds")), 0);
            }
            _ => panic!("no such command"),
        }
    }

    fn mail(&mut self, conn: &mut Conn<'_>, _: &mut (), mail: String) {
        conn.send(Message::text(&mail));
    }

    fn conn_timer(&mut self, conn: &mut Conn<'_>, _: &mut (), _: u64) {
        conn.resume();
    }
}
