//! The bound on what peers that have proven nothing, or were not admitted yet, may cost.
//!
//! A slot is taken when a peer's first message is there, so that one which connects and says nothing holds none,
//! and given back when the delegate is admitted or refused. No source gets more than half of them: whoever floods
//! from one place leaves room for everybody else.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex},
};

use crate::lock::lock;

/// Handshakes and admissions under way at once: what a storm of ten thousand has in the making while they are served
/// as fast as they can be. Each holds some 10 KiB.
pub const HANDSHAKES_MAX: usize = 4_096;
/// Those of them that may come from one source.
pub const HANDSHAKES_PER_SOURCE: usize = HANDSHAKES_MAX / 2;

/// The slots.
#[derive(Default)]
pub struct Handshakes(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// One slot; dropping it gives it back.
pub struct Slot {
    of: Arc<Handshakes>,
    source: IpAddr,
}

impl Handshakes {
    /// Takes a slot, if there is one for this peer.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Option<Slot> {
        let source = source(peer);
        let mut taken = lock(&self.0);
        if taken.all >= HANDSHAKES_MAX {
            return None;
        }
        let ours = taken.by_source.entry(source).or_default();
        if *ours >= HANDSHAKES_PER_SOURCE {
            return None;
        }
        *ours += 1;
        taken.all += 1;
        Some(Slot { of: Arc::clone(self), source })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = lock(&self.of.0);
        taken.all -= 1;
        if let Some(ours) = taken.by_source.get_mut(&self.source) {
            *ours -= 1;
            if *ours == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

/// What counts as one source: an IPv4 address, or the /64 that one IPv6 host usually has to itself.
pub(crate) fn source(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn one_source_leaves_room_for_the_others() {
        let handshakes = Arc::new(Handshakes::default());
        let (loud, quiet) = (address("2001:db8::1"), address("192.0.2.1"));
        let mut held: Vec<_> = std::iter::from_fn(|| handshakes.take(loud)).collect();
        assert_eq!(held.len(), HANDSHAKES_PER_SOURCE);
        assert!(handshakes.take(address("2001:db8::2")).is_none(), "the same /64");
        assert!(handshakes.take(quiet).is_some());
        held.pop();
        assert!(handshakes.take(loud).is_some(), "a slot given back is free");
    }

    #[test]
    fn all_together_have_their_bound_and_nothing_is_remembered() {
        let handshakes = Arc::new(Handshakes::default());
        let sources = (0..=u8::MAX).cycle().map(|last| IpAddr::from([198, 51, 100, last]));
        let held: Vec<_> = sources.map_while(|source| handshakes.take(source)).collect();
        assert_eq!(held.len(), HANDSHAKES_MAX);
        drop(held);
        assert!(lock(&handshakes.0).by_source.is_empty());
    }
}
