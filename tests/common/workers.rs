//! Workers on one simulated network.
#![forbid(unsafe_code)]

use std::sync::{Arc, Once};
use wingbeat::driver::Driver;
use wingbeat::driver::sim::{Net, Sim};
use wingbeat::engine::{Handle, Handler, Worker, WorkerSeed, group};
use wingbeat::{Address, Config};

/// Small enough to build thousands of worlds, else the defaults.
pub fn config() -> Config {
    let mut config = Config::default();
    config.frames.small_frames = 16;
    config.frames.medium_frames = 2;
    config.driver.events = 64;
    config.driver.receive_buffer = 64 << 10;
    config
}

/// Workers, where they listen, and the handle of all.
pub type Started<H> = (Vec<Worker<H, Sim>>, Vec<Address>, Handle<<H as Handler>::Mail>);

/// Workers with handlers of their own, each listening where `at` says.
pub fn start<H: Handler>(
    net: &Net,
    seed: u64,
    config: Config,
    at: &[Address],
    make: impl Fn(usize, &Handle<H::Mail>) -> H,
) -> Started<H> {
    hush();
    let drivers: Vec<Sim> = at.iter().map(|_| net.driver(config.driver)).collect();
    let wakers: Vec<Arc<_>> = drivers.iter().map(Driver::waker).collect();
    let (seeds, handle) = group::<H::Mail>(&wakers, config);
    let start = |(index, (seed_of, driver)): (usize, (WorkerSeed<H::Mail>, Sim))| {
        let handler = make(index, seed_of.handle());
        let mut worker = seed_of.start_at(driver, handler, net.now(), Some(seed));
        let address = worker.listen(&at[index]).expect("nobody else listens");
        (worker, address)
    };
    let (workers, addresses) = seeds.into_iter().zip(drivers).enumerate().map(start).unzip();
    (workers, addresses, handle)
}

/// Panics that a test asks for are not worth a line each.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&"scripted") {
                hook(info);
            }
        }));
    });
}
