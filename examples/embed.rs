//! A worker inside an event loop of one's own: this one waits for the standard input and for the worker, and sends what
//! is typed to everybody who is connected. It ends with the input.
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::{io, time::Instant};
use wingbeat::{CloseCode, Config, Conn, Handler, Message, Never, Request, Scope, Upgrade, Worker};

struct Audience;

impl Handler for Audience {
    type State = ();
    type Mail = Never;

    fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> {
        Upgrade::Accept(())
    }

    fn open(&mut self, conn: &mut Conn<'_>, _: &mut ()) {
        if conn.subscribe("input").is_err() {
            conn.close(CloseCode::TRY_AGAIN_LATER, "");
        }
    }

    fn message(&mut self, _: &mut Conn<'_>, _: &mut (), message: Message<'_>) {
        println!("{}", message.as_text().unwrap_or("(binary)"));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:9001".into());
    let mut worker = Worker::new(Config::default(), Audience)?;
    worker.listen(&address.parse()?)?;
    let mut typed = [0; 4096];
    loop {
        // Asked before each wait: the worker may have something to do at once, or at a certain time.
        let timeout = worker.next_timeout(Instant::now()).map(Timespec::try_from).transpose()?;
        let input = io::stdin();
        let mut sources = [PollFd::new(&input, PollFlags::IN)].to_vec();
        sources.extend(worker.as_fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        poll(&mut sources, timeout.as_ref())?;
        if !sources[0].revents().is_empty() {
            match rustix::io::read(&input, &mut typed)? {
                0 => return Ok(()),
                len => {
                    let text = String::from_utf8_lossy(&typed[..len]);
                    worker.with(|_, scope| scope.publish("input", Message::text(text.trim_end())));
                }
            }
        }
        worker.turn(Instant::now())?;
    }
}
