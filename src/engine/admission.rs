//! Who may come in: the limits of connections, over all workers of a server.
#![forbid(unsafe_code)]

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Shared by the workers. Looked at on accept and close alone.
#[derive(Debug)]
pub(crate) struct Admission {
    connections: AtomicUsize,
    max_connections: usize,
    max_per_address: u32,
    addresses: Mutex<Addresses>,
}

/// Connections by peer address; a connection keeps the 4-byte index.
#[derive(Debug, Default)]
struct Addresses {
    index: HashMap<IpAddr, u32>,
    counts: slab::Slab<(IpAddr, u32)>,
}

/// What a connection was admitted as, to be given back when it ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admitted {
    /// With the index of its address, where those are counted.
    Yes(Option<u32>),
    No,
}

impl Admission {
    pub(crate) fn new(max_connections: usize, max_per_address: u32) -> Self {
        let connections = AtomicUsize::new(0);
        Admission { connections, max_connections, max_per_address, addresses: Mutex::default() }
    }

    pub(crate) fn enter(&self, peer: Option<IpAddr>) -> Admitted {
        if self.connections.fetch_add(1, Relaxed) >= self.max_connections {
            self.connections.fetch_sub(1, Relaxed);
            return Admitted::No;
        }
        let (Some(peer), true) = (peer, self.max_per_address > 0) else { return Admitted::Yes(None) };
        let entered = self.addresses().enter(peer, self.max_per_address);
        if entered.is_none() {
            self.connections.fetch_sub(1, Relaxed);
        }
        entered.map_or(Admitted::No, |index| Admitted::Yes(Some(index)))
    }

    pub(crate) fn leave(&self, admitted: bool, address: Option<u32>) {
        if admitted {
            self.connections.fetch_sub(1, Relaxed);
        }
        if let Some(address) = address {
            self.addresses().leave(address);
        }
    }

    fn addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Addresses {
    fn enter(&mut self, peer: IpAddr, max: u32) -> Option<u32> {
        let Addresses { index, counts } = self;
        let at = *index.entry(peer).or_insert_with(|| counts.insert((peer, 0)) as u32);
        let count = &mut counts[at as usize].1;
        (*count < max).then(|| {
            *count += 1;
            at
        })
    }

    fn leave(&mut self, at: u32) {
        let (peer, count) = &mut self.counts[at as usize];
        *count -= 1;
        if *count == 0 {
            let peer = *peer;
            self.index.remove(&peer);
            self.counts.remove(at as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_exactly_and_what_leaves_makes_room() {
        let admission = Admission::new(3, 2);
        let (a, b) = (Some(IpAddr::from([127, 0, 0, 1])), Some(IpAddr::from([127, 0, 0, 2])));
        let Admitted::Yes(Some(first)) = admission.enter(a) else { panic!("refused") };
        assert_eq!(admission.enter(a), Admitted::Yes(Some(first)));
        assert_eq!(admission.enter(a), Admitted::No);
        let Admitted::Yes(Some(other)) = admission.enter(b) else { panic!("refused") };
        assert_eq!(admission.enter(b), Admitted::No, "the limit of all connections");
        admission.leave(true, Some(first));
        admission.leave(true, Some(first));
        admission.leave(true, Some(other));
        assert!(admission.addresses().index.is_empty());
        assert!(matches!(admission.enter(a), Admitted::Yes(Some(_))));
    }

    #[test]
    fn addresses_are_not_counted_when_the_limit_is_off() {
        let admission = Admission::new(1, 0);
        assert_eq!(admission.enter(Some(IpAddr::from([1, 2, 3, 4]))), Admitted::Yes(None));
        assert_eq!(admission.enter(None), Admitted::No);
        admission.leave(true, None);
        assert_eq!(admission.enter(None), Admitted::Yes(None));
    }
}
