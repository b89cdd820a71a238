//! A server: listeners, one worker per thread, and the handle to all of them.
#![forbid(unsafe_code)]

use crate::driver::{
    Address, Chosen, DriverChoice, ListenOptions, SystemDriver, SystemSeed, is_port_free, reserve_port,
};
use crate::engine::{Config, Drain, Handle, Handler, Worker, WorkerSeed, group};
use std::net::SocketAddr;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::{io, time::Duration};

/// Something that names an address to listen on: `"127.0.0.1:4000"`, `"[::1]:0"`, `"unix:/run/app.sock"`, a
/// [`SocketAddr`] or an [`Address`].
pub trait ToAddress {
    /// The address, or `InvalidInput`.
    fn to_address(&self) -> io::Result<Address>;
}

impl ToAddress for str {
    fn to_address(&self) -> io::Result<Address> {
        self.parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

impl ToAddress for String {
    fn to_address(&self) -> io::Result<Address> {
        self.as_str().to_address()
    }
}

impl ToAddress for SocketAddr {
    fn to_address(&self) -> io::Result<Address> {
        Ok(Address::from(*self))
    }
}

impl ToAddress for Address {
    fn to_address(&self) -> io::Result<Address> {
        Ok(self.clone())
    }
}

impl<T: ToAddress + ?Sized> ToAddress for &T {
    fn to_address(&self) -> io::Result<Address> {
        (**self).to_address()
    }
}

/// A server that is being set up.
///
/// ```no_run
/// use wingbeat::{Conn, Handler, Message, Never, Request, Scope, Server, Upgrade};
///
/// struct Echo;
/// impl Handler for Echo {
///     type State = ();
///     type Mail = Never;
///     fn upgrade(&mut self, _: &mut Scope<'_>, _: &Request<'_>) -> Upgrade<()> { Upgrade::Accept(()) }
///     fn message(&mut self, conn: &mut Conn<'_>, _: &mut (), message: Message<'_>) { conn.send(message); }
/// }
///
/// Server::bind("127.0.0.1:9001")?.workers(4).serve(|_worker| Echo)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Server {
    addresses: Vec<Address>,
    workers: usize,
    driver: DriverChoice,
    config: Config,
}

impl Server {
    /// A server that listens on `address`. Nothing is bound before [`Server::serve`] or [`Server::spawn`].
    ///
    /// # Errors
    /// `InvalidInput` for something that is no address.
    pub fn bind(address: impl ToAddress) -> io::Result<Server> {
        let (driver, config) = (DriverChoice::default(), Config::default());
        Ok(Server { addresses: vec![address.to_address()?], workers: cpus(), driver, config })
    }

    /// Listens on another address as well.
    pub fn listen(mut self, address: impl ToAddress) -> io::Result<Server> {
        self.addresses.push(address.to_address()?);
        Ok(self)
    }

    /// Threads, each with its own event loop and handler. Default: the CPUs that this process may run on. A Unix socket
    /// cannot be shared between them: worker 0 serves it.
    pub fn workers(mut self, workers: usize) -> Server {
        self.workers = workers.clamp(1, usize::from(u16::MAX));
        self
    }

    /// The kernel interface that moves the bytes; which one it came to, [`Running::driver`] tells.
    pub fn driver(mut self, driver: DriverChoice) -> Server {
        self.driver = driver;
        self
    }

    /// Limits, budgets, sizes.
    pub fn config(mut self, config: Config) -> Server {
        self.config = config;
        self
    }

    /// Serves on threads of its own until a drain through [`Handle::drain`] is over; `make` is called once on each
    /// worker's thread. Blocks.
    ///
    /// # Errors
    /// What the kernel said to binding; `AddrInUse` for a port that another process holds; `Unsupported` with
    /// [`Unavailable`](crate::driver::Unavailable) within if io_uring was insisted on and does not work here.
    pub fn serve<H: Handler>(self, make: impl Fn(usize) -> H + Send + Sync + 'static) -> io::Result<()> {
        self.spawn(make)?.join()
    }

    /// As [`Server::serve`], with the handle for handlers that send mail or publish from elsewhere.
    pub fn serve_with<H: Handler>(
        self,
        make: impl Fn(usize, &Handle<H::Mail>) -> H + Send + Sync + 'static,
    ) -> io::Result<()> {
        self.spawn_with(make)?.join()
    }

    /// As [`Server::serve`], and returns as soon as every worker listens.
    pub fn spawn<H: Handler>(self, make: impl Fn(usize) -> H + Send + Sync + 'static) -> io::Result<Running<H::Mail>> {
        self.spawn_with(move |worker, _| make(worker))
    }

    /// As [`Server::serve_with`], and returns as soon as every worker listens.
    pub fn spawn_with<H: Handler>(
        self,
        make: impl Fn(usize, &Handle<H::Mail>) -> H + Send + Sync + 'static,
    ) -> io::Result<Running<H::Mail>> {
        let mut reserved = Vec::new(); // until every worker listens
        let probed = self.addresses.iter().map(|address| self.probe(address, &mut reserved));
        let addresses = probed.collect::<io::Result<Vec<_>>>()?;
        let driver = self.driver.resolve()?;
        let drivers = (0..self.workers).map(|_| SystemSeed::new(driver, self.config.driver));
        let drivers = drivers.collect::<io::Result<Vec<_>>>()?;
        let wakers: Vec<_> = drivers.iter().map(SystemSeed::waker).collect();
        let (seeds, handle) = group(&wakers, self.config);
        let (make, (ready, started)) = (Arc::new(make), mpsc::channel());
        let mut running = Running { addresses: Vec::new(), driver, handle, threads: Vec::new() };
        for (index, (seed, driver)) in seeds.into_iter().zip(drivers).enumerate() {
            let part = Part { index, workers: self.workers, config: self.config, addresses: addresses.clone() };
            let (make, ready) = (Arc::clone(&make), ready.clone());
            let body = move || part.run(seed, driver, &*make, ready);
            match thread::Builder::new().name(format!("wingbeat-{index}")).spawn(body) {
                Ok(thread) => running.threads.push(thread),
                Err(error) => return Err(running.abandon(error)),
            }
        }
        drop(ready);
        running.addresses = addresses;
        let mut begun = 0;
        for outcome in started {
            match outcome {
                Ok((0, bound)) => running.addresses = bound,
                Ok(_) => {}
                Err(error) => return Err(running.abandon(error)),
            }
            begun += 1;
        }
        if begun < self.workers {
            return Err(running.abandon(io::Error::other("a worker panicked before it listened")));
        }
        Ok(running)
    }

    /// Finds a port that is in use, which `SO_REUSEPORT` would hide, and gives port 0 a number if workers share it.
    fn probe(&self, address: &Address, reserved: &mut Vec<OwnedFd>) -> io::Result<Address> {
        match address {
            Address::Tcp(address) if address.port() == 0 && self.workers > 1 => {
                let (descriptor, address) = reserve_port(*address)?;
                reserved.push(descriptor);
                Ok(Address::Tcp(address))
            }
            Address::Tcp(address) if address.port() != 0 && !self.config.reuse_port => {
                is_port_free(*address).map(Address::Tcp)
            }
            address => Ok(address.clone()),
        }
    }
}

fn cpus() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

type Started = io::Result<(usize, Vec<Address>)>;

/// What one worker's thread needs to begin.
struct Part {
    index: usize,
    workers: usize,
    config: Config,
    addresses: Vec<Address>,
}

impl Part {
    fn run<H: Handler>(
        self,
        seed: WorkerSeed<H::Mail>,
        driver: SystemSeed,
        make: &dyn Fn(usize, &Handle<H::Mail>) -> H,
        ready: mpsc::Sender<Started>,
    ) -> io::Result<()> {
        match self.start(seed, driver, make) {
            Ok((worker, bound)) => {
                let _ = ready.send(Ok((self.index, bound)));
                drop(ready); // `spawn` reads until the last sender is gone
                let _others = DrainOnDrop(worker.handle());
                worker.run()
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                Ok(())
            }
        }
    }

    fn start<H: Handler>(
        &self,
        seed: WorkerSeed<H::Mail>,
        driver: SystemSeed,
        make: &dyn Fn(usize, &Handle<H::Mail>) -> H,
    ) -> io::Result<(Worker<H, SystemDriver>, Vec<Address>)> {
        if self.config.own_descriptor_table {
            // Before any connection of this worker exists, after every waker does.
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES)?;
        }
        let handler = make(self.index, seed.handle());
        let mut worker = seed.start(driver.start()?, handler);
        if self.workers < cpus() {
            worker.set_spin(self.config.spin);
        }
        let reuse_port = self.config.reuse_port || self.workers > 1;
        let options = ListenOptions { backlog: self.config.backlog, reuse_port };
        let mine = |address: &&Address| self.index == 0 || matches!(address, Address::Tcp(_));
        let bound = self.addresses.iter().filter(mine).map(|address| worker.listen_with(address, options));
        let bound = bound.collect::<io::Result<Vec<_>>>()?;
        Ok((worker, bound))
    }
}

/// The end of a worker, in whatever way, is the end of all: one that fails or panics drains the others, so that
/// [`Running::join`] tells. After a drain, which ends them all, it changes nothing.
struct DrainOnDrop<M: Send + 'static>(Handle<M>);

impl<M: Send + 'static> Drop for DrainOnDrop<M> {
    fn drop(&mut self) {
        self.0.drain(Drain::default());
    }
}

/// A server that runs on threads of its own.
#[derive(Debug)]
pub struct Running<M> {
    addresses: Vec<Address>,
    driver: Chosen,
    handle: Handle<M>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl<M: Send + 'static> Running<M> {
    /// The bound addresses, in the order they were asked for.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// The first address, if it is a TCP one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self.addresses.first()? {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// The kernel interface that its workers use.
    pub fn driver(&self) -> Chosen {
        self.driver
    }

    /// The handle for other threads.
    pub fn handle(&self) -> &Handle<M> {
        &self.handle
    }

    /// Starts a drain; see [`Handle::drain`].
    pub fn drain(&self, plan: Drain) {
        self.handle.drain(plan);
    }

    /// Waits for every worker to end, which they do after a drain. A worker that cannot go on drains the others, with
    /// the defaults of [`Drain`].
    ///
    /// # Errors
    /// What the kernel said to the first worker that could not go on, or `Other` for one that panicked outside a handler.
    pub fn join(self) -> io::Result<()> {
        let mut outcome = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked outside a handler")));
            outcome = outcome.and(ended);
        }
        outcome
    }

    /// Ends workers that had begun when another could not, and gives back why.
    fn abandon(self, error: io::Error) -> io::Error {
        self.handle.drain(Drain { deadline: Duration::ZERO, ..Drain::default() });
        let _ = self.join();
        error
    }
}
