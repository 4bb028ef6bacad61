//! Those who have connected and are not known yet: no more than there is room for, and no address takes all of it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// Strangers at once. A handshake takes some 40 kB: 20 MB. A fleet that comes back at once is let in hundreds a second.
const MOST: usize = 512;
/// Strangers of one address, or of one network of IPv6: behind one may be many hosts, but not all of a fleet.
const OF_ONE: usize = MOST / 2;

/// The places of strangers.
#[derive(Debug)]
pub(super) struct Strangers {
    room: Arc<Semaphore>,
    of: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A stranger's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    of: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
    _room: OwnedSemaphorePermit,
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(MOST)), of: Arc::default() }
    }

    /// Waits until there is room for one more.
    pub(super) async fn room(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.room).acquire_owned().await
    }

    /// A place for who comes from this address; `None`: there are too many from there. Who is on this host has other ways to do harm, and
    /// may be a proxy that all come through.
    pub(super) fn enter(&self, address: IpAddr, room: OwnedSemaphorePermit) -> Option<Stranger> {
        let address = network(address);
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let count = of.entry(address).or_default();
        if *count >= OF_ONE && !address.is_loopback() {
            return None;
        }
        *count += 1;
        Some(Stranger { of: Arc::clone(&self.of), address, _room: room })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = of.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                of.remove(&self.address);
            }
        }
    }
}

/// What one host has for itself: an address of IPv4, or the upper half of one of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_takes_half_of_the_places_and_gives_them_back() {
        let strangers = Strangers::new();
        let enter = async |address: &str| {
            strangers.enter(address.parse().expect("an address"), strangers.room().await.expect("room"))
        };
        let mut of_one = Vec::new();
        for number in 0..OF_ONE {
            of_one.push(enter(&format!("2001:db8::{number:x}")).await.expect("a place"));
        }
        assert!(enter("2001:db8::1:1").await.is_none(), "it is of the same network");
        let other = enter("2001:db8:0:1::1").await.expect("another network");
        assert!(enter("::ffff:192.0.2.1").await.is_some());
        of_one.pop();
        assert!(enter("2001:db8::1:1").await.is_some(), "one has gone");
        drop((of_one, other));
        assert_eq!(strangers.of.lock().expect("no panic").len(), 0);
        assert_eq!(strangers.room.available_permits(), MOST);
        let mut of_this_host = Vec::new();
        for _ in 0..MOST {
            of_this_host.push(enter("127.0.0.1").await.expect("a place"));
        }
    }
}
