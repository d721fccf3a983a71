use super::*;
use crate::testing::entry;

#[test]
fn keeps_what_is_not_on_disk_however_large_it_is() {
    let mut cache = EntryCache::default();
    let large = "v".repeat(KEEP_BYTES);
    for index in 1..=3 {
        cache.push(index, entry(1, index, &large));
    }
    cache.evict(0);
    assert_eq!(cache.first_index(), Some(1));
    cache.evict(2);
    assert_eq!(cache.first_index(), Some(3));
    cache.evict(3);
    assert_eq!(cache.first_index(), None);
}

#[test]
fn a_rewritten_tail_is_not_on_disk_because_the_old_one_was() {
    let mut cache = EntryCache::default();
    let large = "v".repeat(KEEP_BYTES);
    cache.push(1, entry(1, 1, &large));
    cache.push(1, entry(1, 2, &large));
    cache.truncate_from(2);
    cache.push(2, entry(2, 2, &large));
    cache.evict(1);
    assert_eq!(cache.get(1), None);
    assert_eq!(cache.get(2).map(|entry| entry.log_id.leader_id.term), Some(2));
}

#[test]
fn answers_only_for_what_it_holds() {
    let mut cache = EntryCache::default();
    for index in 5..=7 {
        cache.push(1, entry(1, index, "put a b"));
    }
    cache.purge(5);
    assert_eq!(cache.get(5), None);
    assert!(cache.get(6).is_some());
    assert_eq!(cache.get(8), None);
}
