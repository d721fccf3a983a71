//! Whether the address that this server found for itself is still its own.
//!
//! A machine can get another address while a server runs. The others would go on looking for it at the
//! old one. A start announces the address everywhere, so the server says what happened and ends, and
//! is started again.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::Ended;
use crate::{config::Config, machine::local_address_towards};

/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Looks in a row that must say the same: while a machine is set up anew its routes change.
const LOOKS: u32 = 3;

/// The machine has another address.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this server advertises {advertised}, but the machine reaches its peers from {now}: it has got \
     another address; started again, the server announces it. --advertise names one that stays"
)]
struct Readdressed {
    advertised: SocketAddr,
    now: IpAddr,
}

/// Looks until `stop`, if the address was not given by a person.
pub(super) async fn keep(config: Config, stop: CancellationToken) -> Ended {
    let watched = async {
        if !config.advertise_is_derived {
            return std::future::pending().await;
        }
        watch(&config).await
    };
    let ended = stop.run_until_cancelled(watched).await;
    ("address", ended.map_or(Ok(()), |readdressed| Err(readdressed.into())))
}

async fn watch(config: &Config) -> Readdressed {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen = 0;
    loop {
        looks.tick().await;
        let ways = config.seeds.iter().filter_map(|seed| local_address_towards(*seed).ok());
        match other_address(config.advertise.ip(), &ways.collect()) {
            Some(now) => {
                seen += 1;
                if seen >= LOOKS {
                    return Readdressed { advertised: config.advertise, now };
                }
            }
            None => seen = 0,
        }
    }
}

/// The address that took the place of the advertised one. A machine without a way to anybody has not
/// got another address, and one with several keeps what it has.
fn other_address(advertised: IpAddr, ways: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let mut found = ways.iter().filter(|ip| !ip.is_unspecified());
    match (found.next(), found.next()) {
        (Some(ip), None) if *ip != advertised => Some(*ip),
        (_, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_other_address_takes_the_place() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let none = IpAddr::from([0, 0, 0, 0]);
        let cases = [
            (vec![ip(1)], None),
            (vec![], None),
            (vec![none], None),
            (vec![ip(2)], Some(ip(2))),
            (vec![ip(1), ip(2)], None),
            (vec![ip(2), ip(3)], None),
        ];
        for (ways, expected) in cases {
            let ways: BTreeSet<IpAddr> = ways.into_iter().collect();
            assert_eq!(other_address(ip(1), &ways), expected, "{ways:?}");
        }
    }
}
