use std::env;

use node::kv::{Meta, Refusal, check_range, check_txn, hash, is_read_only, range, read_txn};
use proto::{
    etcdserverpb::{CompactionResponse, RangeRequest, RangeResponse, ResponseHeader},
    quorate::v1::{KvRefusal, kv_command::Command, kv_reply::Outcome},
};

use super::{
    generator::{Generator, Operation},
    model::Model,
    test_machine::{TestMachine, refusal, refused},
};

const SEEDS: u64 = 24;
const STEPS: usize = 1_500;

/// What came back: from a read, or from a command.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Read(Result<RangeResponse, KvRefusal>),
    Applied(Outcome),
}

/// One seed is replayed with `SEED=`.
#[test]
fn random_requests_are_answered_as_by_the_model() {
    match env::var("SEED") {
        Ok(seed) => compare_with_model(seed.parse().unwrap()),
        Err(_) => (0..SEEDS).for_each(compare_with_model),
    }
}

/// Two replicas with the same log, of which one restarts after every command.
#[test]
fn replicas_have_the_same_rows_and_hashes() {
    for seed in 100..106 {
        let (mut steady, mut restarted) = (TestMachine::new(), TestMachine::new());
        let mut generator = Generator::new(seed);
        for step in 0..STEPS {
            let revision = Meta::load(&steady.rows).unwrap().revision;
            let operation = generator.next(revision);
            assert_eq!(
                answer(&mut steady, &operation),
                answer(&mut restarted, &operation),
                "seed {seed} step {step}: {operation:?}"
            );
            restarted.restart();
        }
        assert_eq!(steady.rows, restarted.rows, "seed {seed}");
    }
}

/// A replica that is ahead hashes an older revision as one that has just reached it.
#[test]
fn a_later_replica_hashes_an_older_revision_alike() {
    for seed in 200..210 {
        let mut machine = TestMachine::new();
        let mut generator = Generator::new(seed);
        let mut hashes = Vec::new();
        for _ in 0..400 {
            let revision = Meta::load(&machine.rows).unwrap().revision;
            let operation = generator.next(revision);
            if matches!(operation, Operation::Compact(_)) {
                continue;
            }
            answer(&mut machine, &operation);
            hashes.push(hash(&machine.rows, 0).unwrap());
        }
        for then in hashes {
            let now = hash(&machine.rows, then.revision).unwrap();
            assert_eq!(now.hash, then.hash, "seed {seed} revision {}", then.revision);
        }
    }
}

#[test]
fn compaction_of_everything_leaves_only_current_rows() {
    let mut machine = TestMachine::new();
    let mut generator = Generator::new(7);
    for _ in 0..STEPS {
        let revision = Meta::load(&machine.rows).unwrap().revision;
        answer(&mut machine, &generator.next(revision));
    }
    let revision = Meta::load(&machine.rows).unwrap().revision;
    let compaction =
        Operation::Compact(proto::etcdserverpb::CompactionRequest { revision, physical: true });
    answer(&mut machine, &compaction);
    let keys = range(&machine.rows, &everything(0)).unwrap().kvs.len();
    let rows = machine.all_rows();
    assert_eq!(rows.len(), keys + 1, "{rows:?}");
    assert_size_is_true(&machine);
}

fn compare_with_model(seed: u64) {
    let mut machine = TestMachine::new();
    let mut model = Model::new();
    let mut generator = Generator::new(seed);
    for step in 0..STEPS {
        let operation = generator.next(model.revision());
        let expected = expect(&mut model, &operation);
        check_read_only(&machine, &operation, &expected);
        let answer = answer(&mut machine, &operation);
        assert_eq!(answer, expected, "SEED={seed} step {step}: {operation:?}");
        let meta = Meta::load(&machine.rows).unwrap();
        assert_eq!((meta.revision, meta.compacted), (model.revision(), model.compacted()));
        if step % 50 == 0 {
            invariant_every_revision_reads_as_it_was(&machine, &model);
            assert_size_is_true(&machine);
            machine.restart();
        }
    }
}

fn answer(machine: &mut TestMachine, operation: &Operation) -> Answer {
    Answer::Applied(machine.apply(match operation.clone() {
        Operation::Range(it) => {
            let checked = check_range(&it).map_err(refused);
            return Answer::Read(checked.and_then(|()| machine.range(&it)));
        }
        Operation::Put(it) => Command::Put(it),
        Operation::DeleteRange(it) => Command::DeleteRange(it),
        Operation::Txn(it) => Command::Txn(it),
        Operation::Compact(it) => Command::Compact(it),
    }))
}

fn expect(model: &mut Model, operation: &Operation) -> Answer {
    let outcome: Result<Outcome, Refusal> = match operation {
        Operation::Range(it) => return Answer::Read(model.range(it).map_err(refused)),
        Operation::Put(it) => model.put(it).map(Outcome::Put),
        Operation::DeleteRange(it) => model.delete_range(it).map(Outcome::DeleteRange),
        Operation::Txn(it) => model.txn(it).map(Outcome::Txn),
        Operation::Compact(it) => model.compact(it.revision).map(|revision| {
            let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
            Outcome::Compact(CompactionResponse { header })
        }),
    };
    Answer::Applied(outcome.unwrap_or_else(|refusal| Outcome::Refused(refused(refusal))))
}

/// A transaction that only reads is answered alike from a view.
fn check_read_only(machine: &TestMachine, operation: &Operation, expected: &Answer) {
    let Operation::Txn(txn) = operation else { return };
    if check_txn(txn).is_err() || !is_read_only(txn) {
        return;
    }
    let outcome =
        read_txn(&machine.rows, txn).map_or_else(|e| Outcome::Refused(refusal(e)), Outcome::Txn);
    assert_eq!(&Answer::Applied(outcome), expected);
}

fn invariant_every_revision_reads_as_it_was(machine: &TestMachine, model: &Model) {
    for revision in model.compacted().max(1)..=model.revision() {
        let request = everything(revision);
        assert_eq!(machine.range(&request), model.range(&request).map_err(refused));
    }
}

fn assert_size_is_true(machine: &TestMachine) {
    let bytes: usize = machine
        .all_rows()
        .iter()
        .filter(|row| row.0 != b"m")
        .map(|row| row.0.len() + row.1.len())
        .sum();
    assert_eq!(Meta::load(&machine.rows).unwrap().size, bytes as u64);
}

fn everything(revision: i64) -> RangeRequest {
    RangeRequest {
        key: b"\0"[..].into(),
        range_end: b"\0"[..].into(),
        revision,
        ..RangeRequest::default()
    }
}
