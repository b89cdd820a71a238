//! The bodies of the fuzz targets. libFuzzer calls them through `fuzz_targets/`, `cargo test` with the kept inputs of
//! `corpus/`: a finding is replayed on stable from then on.
#![forbid(unsafe_code)]

mod envelopes;
mod frames;
mod handshake;
mod input;
mod longpoll;
mod naive;
mod sockets;
mod topics;
mod workers;

pub use envelopes::{envelope_binary, envelope_json};
pub use frames::{frame_decoder, message_reader};
pub use handshake::{extensions, handshake_request, handshake_response};
pub use longpoll::longpoll_body;
pub use sockets::socket_ops;
pub use topics::topic_ops;
pub use workers::worker_sim;

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    fn replay(target: &str, body: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let mut replayed = 0;
        for entry in fs::read_dir(&corpus).expect("the target has a corpus") {
            let path = entry.expect("the corpus can be read").path();
            let data = fs::read(&path).expect("an input can be read");
            println!("{}", path.display());
            body(&data);
            replayed += 1;
        }
        assert!(replayed > 0, "no inputs in {}", corpus.display());
    }

    macro_rules! replay {
        ($($target:ident)*) => {
            $(#[test] fn $target() { replay(stringify!($target), crate::$target); })*

            #[test]
            fn every_target_is_replayed() {
                let mut listed = vec![$(concat!(stringify!($target), ".rs")),*];
                listed.sort_unstable();
                let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets");
                let mut there = fs::read_dir(targets).expect("the targets are there")
                    .map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"))
                    .collect::<Vec<_>>();
                there.sort_unstable();
                assert_eq!(listed, there);
            }
        };
    }

    replay! {
        frame_decoder message_reader handshake_request handshake_response extensions topic_ops worker_sim envelope_json
        envelope_binary longpoll_body socket_ops
    }
}
