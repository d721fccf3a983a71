//! Compiles the .proto files with a compiler written in Rust, so that no `protoc` is needed.

use std::{env, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 6] = [
    "quorate/v1/mesh.proto",
    "quorate/v1/raft.proto",
    "quorate/v1/registry.proto",
    "quorate/v1/state.proto",
    "etcd/kv.proto",
    "etcd/rpc.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".")
        .btree_map(".")
        // Written by hand in src/etcdserverpb/nested.rs.
        .extern_path(".etcdserverpb.RequestOp", "crate::etcdserverpb::RequestOp")
        .extern_path(".etcdserverpb.ResponseOp", "crate::etcdserverpb::ResponseOp")
        .compile_fds(descriptors)?;
    Ok(())
}
