//! The wire: messages and gRPC services, generated from the .proto files beside this crate.
//!
//! `quorate::v1` is the project's own protocol: between servers, from instances and nodes to the
//! registry, and the records that the registry's Raft group replicates. `etcdserverpb` and `mvccpb`
//! are the part of the etcd v3 API that the data service speaks; names and numbers are etcd's, so
//! that etcd's clients work unchanged. There is no logic here, apart from how deep a transaction may
//! nest and how a duration is written.

pub mod etcdserverpb;

pub mod quorate {
    #[allow(clippy::large_enum_variant, reason = "generated: messages are moved once")]
    pub mod v1 {
        tonic::include_proto!("quorate.v1");
    }
}

pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// A duration as the messages have it, in whole milliseconds; the longest that fits if it does not.
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Descriptors of every file here, for gRPC server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
