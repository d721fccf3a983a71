//! Who subscribes to what. Pure: the names of a server and the wishes of the command in, a subscription
//! for each client out.
//!
//! Clients that subscribe alike share one [`Interest`], so that ten thousand clients of a thousand
//! names hold the names once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;

use super::wire::name_list;

#[cfg(test)]
mod tests;

/// The clusters of a server that have their endpoints by EDS, and the names of their assignments.
#[derive(Debug, Default)]
pub(super) struct Names {
    clusters: Vec<Bytes>,
    assignments: Vec<Bytes>,
    by_cluster: HashMap<Bytes, u32>,
    by_assignment: HashMap<Bytes, u32>,
}

impl Names {
    /// Cluster and assignment in pairs. Of clusters that share an assignment one counts.
    pub(super) fn new(pairs: BTreeMap<Bytes, Bytes>) -> Self {
        let mut names = Self::default();
        for (cluster, assignment) in pairs {
            let position = names.len();
            if names.by_assignment.contains_key(&assignment) {
                continue;
            }
            names.by_cluster.insert(cluster.clone(), position);
            names.by_assignment.insert(assignment.clone(), position);
            names.clusters.push(cluster);
            names.assignments.push(assignment);
        }
        names
    }

    pub(super) fn len(&self) -> u32 {
        u32::try_from(self.clusters.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn cluster(&self, name: &[u8]) -> Option<u32> {
        self.by_cluster.get(name).copied()
    }

    pub(super) fn assignment(&self, name: &[u8]) -> Option<u32> {
        self.by_assignment.get(name).copied()
    }

    fn list(of: &[Bytes], positions: &[u32]) -> Bytes {
        name_list(positions.iter().map(|position| of[*position as usize].as_ref()))
    }
}

/// What the clients are to subscribe to.
#[derive(Debug, Default)]
pub(super) struct Wish {
    pub(super) clients: u32,
    /// How many names a client has; all of them unless given, and the clusters by `*`.
    pub(super) subscribe: Option<u32>,
    /// How many clients have the names that change; all of them unless given.
    pub(super) interested: Option<u32>,
    /// The names that change, by position: where each stands in the ledger.
    pub(super) changing: BTreeMap<u32, u32>,
}

/// The subscription of a client.
#[derive(Debug)]
pub(super) struct Interest {
    /// How clusters are named in a request; none for every cluster that there is.
    pub(super) cluster_names: Option<Bytes>,
    /// How assignments are named in a request.
    pub(super) assignment_names: Bytes,
    /// Which clusters must come before the assignments are asked for.
    pub(super) clusters: Positions,
    pub(super) assignments: Positions,
    /// Of the names that change, those that the client has: where each stands in the ledger.
    pub(super) changing: Vec<u32>,
}

/// A set of positions among the names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Positions {
    words: Vec<u64>,
    count: u32,
}

impl Positions {
    fn of(positions: &[u32]) -> Self {
        let mut set = Self::default();
        for position in positions {
            let (word, bit) = split(*position);
            if set.words.len() <= word {
                set.words.resize(word + 1, 0);
            }
            set.words[word] |= bit;
        }
        set.count = set.words.iter().map(|word| word.count_ones()).sum();
        set
    }

    pub(super) fn remove(&mut self, position: u32) {
        let (word, bit) = split(position);
        if let Some(word) = self.words.get_mut(word)
            && *word & bit != 0
        {
            *word &= !bit;
            self.count -= 1;
        }
    }

    #[cfg(test)]
    fn contains(&self, position: u32) -> bool {
        let (word, bit) = split(position);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

const fn split(position: u32) -> (usize, u64) {
    (position as usize / 64, 1 << (position % 64))
}

/// A subscription for every client.
///
/// Clients that have the names that change come first; whoever deals them out to connections one by
/// one spreads them evenly. A client with only a part of the names has neighbors, and the next client
/// those that follow, so that each name has about as many clients as another.
pub(super) fn share_out(names: &Names, wish: &Wish) -> Vec<Arc<Interest>> {
    let mut shared: BTreeMap<(bool, u32), Arc<Interest>> = BTreeMap::new();
    let quiet: Vec<u32> =
        (0..names.len()).filter(|position| !wish.changing.contains_key(position)).collect();
    let every: Vec<u32> = (0..names.len()).collect();
    let interest = |client: u32| {
        let is_interested = wish.interested.is_none_or(|interested| client < interested);
        // Without a count of interested clients a part of the names is a part of all.
        let pool = match wish.interested {
            Some(_) => &quiet,
            None => &every,
        };
        let begin = wish.subscribe.map_or(0, |count| wrapped(client, count, pool.len()));
        let made = || {
            let mut positions = match wish.subscribe {
                Some(count) => part(pool, begin, count),
                None => pool.clone(),
            };
            if wish.interested.is_some() && is_interested {
                positions.extend(wish.changing.keys());
            }
            Arc::new(Interest::new(names, positions, wish))
        };
        Arc::clone(shared.entry((is_interested, begin)).or_insert_with(made))
    };
    (0..wish.clients).map(interest).collect()
}

/// Where the part of a client begins.
fn wrapped(client: u32, count: u32, all: usize) -> u32 {
    let all = all.max(1) as u64;
    u32::try_from(u64::from(client) * u64::from(count) % all).unwrap_or_default()
}

fn part(pool: &[u32], begin: u32, count: u32) -> Vec<u32> {
    let count = (count as usize).min(pool.len());
    pool.iter().cycle().skip(begin as usize).take(count).copied().collect()
}

impl Interest {
    fn new(names: &Names, mut positions: Vec<u32>, wish: &Wish) -> Self {
        positions.sort_unstable();
        let every: Vec<u32>;
        let (clusters, cluster_names) = match wish.subscribe {
            Some(_) => (&positions, Some(Names::list(&names.clusters, &positions))),
            None => {
                every = (0..names.len()).collect();
                (&every, None)
            }
        };
        let mut changing: Vec<u32> =
            positions.iter().filter_map(|position| wish.changing.get(position).copied()).collect();
        changing.sort_unstable();
        changing.dedup();
        Self {
            cluster_names,
            assignment_names: Names::list(&names.assignments, &positions),
            clusters: Positions::of(clusters),
            assignments: Positions::of(&positions),
            changing,
        }
    }
}
