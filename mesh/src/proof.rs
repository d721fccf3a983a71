//! How one start of a data directory proves to another start of it, or of a copy, that it runs.
//!
//! The secret of the directory is never sent, and a proof is valid for one pair of starts only. So
//! only a holder of the directory can end a server by claiming that a copy of it runs; seeing other
//! proofs does not help.

use proto::quorate::v1 as pb;
use sha2::{Digest as _, Sha256};

/// The proof of the start `from` for the start `to`.
pub(crate) fn make(secret: &str, from: u64, to: u64) -> pb::OtherStart {
    pb::OtherStart { start: from, proof: digest(secret, from, to).to_vec().into() }
}

/// Whether the proof was made by another start of the directory, or of a copy, for the start `to`.
pub(crate) fn verify(secret: &str, told: &pb::OtherStart, to: u64) -> bool {
    told.start != to && told.proof[..] == digest(secret, told.start, to)[..]
}

// All three parts have a fixed length, so that different parts never give the same input.
fn digest(secret: &str, from: u64, to: u64) -> [u8; 32] {
    let hash = Sha256::new().chain_update(secret);
    hash.chain_update(from.to_be_bytes()).chain_update(to.to_be_bytes()).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_holder_of_the_secret_proves_and_only_to_one_start() {
        let secret = "0123456789abcdef";
        let told = make(secret, 1, 2);
        assert!(verify(secret, &told, 2));
        assert!(!verify(secret, &told, 3), "told to another start");
        assert!(!verify("fedcba9876543210", &told, 2), "another directory");
        assert!(!verify(secret, &pb::OtherStart { start: 3, ..told.clone() }, 2), "another sender");
        assert!(!verify(secret, &make(secret, 2, 1), 2), "said by the start itself");
        assert!(!verify(secret, &pb::OtherStart { start: 1, ..Default::default() }, 2), "no proof");
    }
}
