//! How often one address may begin a login (`limits.logins_per_address`).
//!
//! INVARIANT: bounded: however many addresses come, at most [`MOST`] are remembered.

use crate::config::units::Rate;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::time::Duration;
use tokio::time::Instant;

/// The most addresses that are remembered.
const MOST: usize = 10_000;

/// Counts logins per address in windows of the rate's length.
#[derive(Debug)]
pub(super) struct LoginRate {
    rate: Rate,
    seen: Mutex<HashMap<IpAddr, (Instant, u32)>>,
}

impl LoginRate {
    pub(super) fn new(rate: Rate) -> Self {
        Self {
            rate,
            seen: Mutex::default(),
        }
    }

    /// Counts one; `Err`: too many, and how long until the next is welcome.
    pub(super) fn count(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let address = network(address);
        let mut seen = self
            .seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if seen.len() >= MOST && !seen.contains_key(&address) {
            seen.retain(|_, (begun, _)| now.duration_since(*begun) < self.rate.per);
            let oldest = seen
                .iter()
                .min_by_key(|(_, (begun, _))| *begun)
                .map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| seen.len() >= MOST) {
                seen.remove(&oldest);
            }
        }
        let (begun, count) = seen.entry(address).or_insert((now, 0));
        if now.duration_since(*begun) >= self.rate.per {
            (*begun, *count) = (now, 0);
        }
        if *count >= self.rate.count {
            return Err((*begun + self.rate.per).duration_since(now));
        }
        *count += 1;
        Ok(())
    }
}

/// One subscriber holds a whole IPv6 /64, so that is what counts as an address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            let prefix = Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0);
            v6.to_ipv4_mapped().map_or(IpAddr::V6(prefix), IpAddr::V4)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lm_09_logins_per_address_are_counted_in_windows() {
        let limit = LoginRate::new(Rate {
            count: 2,
            per: Duration::from_mins(1),
        });
        let (here, start) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        assert!(limit.count(here, start).is_ok() && limit.count(here, start).is_ok());
        assert_eq!(
            limit.count(here, start + Duration::from_secs(20)),
            Err(Duration::from_secs(40))
        );
        assert!(limit.count(IpAddr::from([192, 0, 2, 2]), start).is_ok());
        assert!(limit.count(here, start + Duration::from_mins(1)).is_ok());
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_together() {
        assert_eq!(
            network("2001:db8::1".parse().unwrap()),
            network("2001:db8::2:3".parse().unwrap())
        );
        assert_ne!(
            network("2001:db8:0:1::1".parse().unwrap()),
            network("2001:db8::1".parse().unwrap())
        );
    }
}
