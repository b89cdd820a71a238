//! tokio-tungstenite on a current-thread runtime. Without flags as it comes: 128 KiB read buffer, a send per message.
//! `--read-buffer 4KiB --batch` is the tuned form: small buffer, all replies that are ready behind one flush.
#![forbid(unsafe_code)]

use clap::Parser;
use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};

type Socket = WebSocketStream<TcpStream>;
type Topics = Rc<RefCell<HashMap<String, broadcast::Sender<Message>>>>;

/// Publications a subscriber may be behind before the channel would skip some for it; the peer then closes it.
const TOPIC_CAPACITY: usize = 4_096;

#[derive(Parser, Clone, Copy)]
struct Arguments {
    #[arg(long)]
    bind: SocketAddr,
    /// Read buffer per connection, in bytes or KiB; the library's default when absent.
    #[arg(long, value_parser = parse_size)]
    read_buffer: Option<usize>,
    /// Feed all replies that are ready, then flush once.
    #[arg(long)]
    batch: bool,
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, accept(arguments))
}

async fn accept(arguments: Arguments) -> io::Result<()> {
    let listener = wingbeat_peers::listen(arguments.bind)?;
    wingbeat_peers::announce(&listener)?;
    let listener = TcpListener::from_std(listener)?;
    let topics = Topics::default();
    loop {
        let (stream, _) = listener.accept().await?;
        let topics = Rc::clone(&topics);
        tokio::task::spawn_local(async move {
            // An error is the end of one connection; the load tool counts what it has lost by it.
            let _ended: Result<(), Error> = serve(stream, arguments, topics).await;
        });
    }
}

async fn serve(stream: TcpStream, arguments: Arguments, topics: Topics) -> Result<(), Error> {
    let mut config = WebSocketConfig::default();
    if let Some(size) = arguments.read_buffer {
        config = config.read_buffer_size(size);
    }
    let mut topic = None;
    #[expect(clippy::result_large_err, reason = "the library's callback type")]
    let look = |request: &Request, response: Response| {
        topic = request.uri().query().and_then(|query| query.strip_prefix("topic=")).map(str::to_owned);
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async_with_config(stream, look, Some(config)).await?;
    match topic {
        Some(topic) => relay(socket, topic_sender(&topics, topic)).await,
        None if arguments.batch => echo_batched(socket).await,
        None => echo(socket).await,
    }
}

async fn echo(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let message = message?;
        if is_data(&message) {
            socket.send(message).await?;
        }
    }
    Ok(())
}

async fn echo_batched(mut socket: Socket) -> Result<(), Error> {
    while let Some(message) = socket.next().await {
        let mut ready = Some(message);
        while let Some(message) = ready {
            let message = message?;
            if is_data(&message) {
                socket.feed(message).await?;
            }
            ready = socket.next().now_or_never().flatten();
        }
        socket.flush().await?;
    }
    Ok(())
}

async fn relay(mut socket: Socket, topic: broadcast::Sender<Message>) -> Result<(), Error> {
    let mut publications = topic.subscribe();
    loop {
        tokio::select! {
            biased;
            publication = publications.recv() => {
                // Fell behind by more than the channel holds: losing messages silently would flatter this peer.
                let Ok(publication) = publication else { return socket.close(None).await };
                socket.feed(publication).await?;
                while let Ok(publication) = publications.try_recv() {
                    socket.feed(publication).await?;
                }
                socket.flush().await?;
            }
            message = socket.next() => {
                let Some(message) = message.transpose()? else { return Ok(()) };
                if is_data(&message) {
                    topic.send(message).expect("the sender itself subscribes");
                }
            }
        }
    }
}

fn topic_sender(topics: &Topics, name: String) -> broadcast::Sender<Message> {
    topics.borrow_mut().entry(name).or_insert_with(|| broadcast::channel(TOPIC_CAPACITY).0).clone()
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}

fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = text.strip_suffix("KiB").map_or((text, 1), |digits| (digits, 1_024));
    digits.parse::<usize>().map(|number| number * unit).map_err(|error| format!("{text}: {error}"))
}
