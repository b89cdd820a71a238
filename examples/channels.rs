//! The smallest server of channels, for the npm package `phoenix`: `cargo run --example channels [ADDRESS]`
use serde_json::json;
use wingbeat::channels::{Channel, Ctx, Join, JoinCtx, Outcome, Payload, UserSocket};
use wingbeat::endpoint::Endpoint;

/// One client on one topic; the value is its state.
#[derive(Default)]
struct Room {
    posted: u32,
}

impl Channel for Room {
    fn join(&mut self, _: &mut JoinCtx<'_>, topic: &str, _: Payload<'_>) -> Join {
        if topic == "room:secret" { Join::refuse(json!({ "reason": "unauthorized" })) } else { Join::Ok }
    }

    fn handle_in(&mut self, ctx: &mut Ctx<'_>, event: &str, payload: Payload<'_>) -> Outcome {
        match event {
            "post" => {
                self.posted += 1;
                ctx.broadcast("posted", payload);
                Outcome::ok(json!({ "posts": self.posted }))
            }
            _ => Outcome::Unhandled,
        }
    }
}

fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:4000".into());
    Endpoint::new().socket("/socket", UserSocket::new().channel("room:*", Room::default)).serve(address)
}
