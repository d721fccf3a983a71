use std::collections::BTreeMap;

use super::*;
use crate::testing::entry;

#[test]
fn what_is_written_is_what_is_read() {
    for vote in [Vote::new(3, 7), Vote::new_committed(4, 8)] {
        assert_eq!(vote_from_proto(Some(vote_to_proto(&vote))), Ok(vote));
    }
    let blank = Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank };
    let membership =
        Entry { log_id: log_id(1, 2), payload: EntryPayload::Membership(joint_membership()) };
    let raised = EntryPayload::Normal(Command::RaiseLevel(7));
    let raised = Entry { log_id: log_id(2, 4), payload: raised };
    for entry in [blank, membership, entry(2, 3, "put a b"), raised] {
        assert_eq!(entry_from_proto(entry_to_proto(&entry)), Ok(entry));
    }
    let meta = SnapshotMeta {
        last_log_id: Some(log_id(2, 9)),
        last_membership: StoredMembership::new(Some(log_id(1, 2)), joint_membership()),
    };
    for meta in [meta, SnapshotMeta::default()] {
        assert_eq!(snapshot_meta_from_proto(Some(snapshot_meta_to_proto(&meta))), Ok(meta));
    }
}

#[test]
fn nonsense_is_malformed_and_never_a_panic() {
    assert!(vote_from_proto(None).is_err());
    assert!(snapshot_meta_from_proto(None).is_err());
    assert!(entry_from_proto(pb::Entry::default()).is_err());
    let no_payload = pb::Entry { log_id: Some(pb::LogId::default()), ..pb::Entry::default() };
    assert!(entry_from_proto(no_payload).is_err());
    let unknown_voter =
        pb::Membership { configs: vec![pb::VoterSet { node_ids: vec![1] }], members: vec![] };
    assert!(membership_from_proto(unknown_voter).is_err());
    let nobody = pb::Membership { configs: vec![pb::VoterSet::default()], members: vec![] };
    assert!(membership_from_proto(nobody).is_err());
}

fn joint_membership() -> Membership {
    let nodes = BTreeMap::from([1, 2, 3, 4].map(|id| (id, Node { store_id: id * 10 })));
    Membership::new(vec![[1, 2].into(), [2, 3].into()], nodes).unwrap()
}
