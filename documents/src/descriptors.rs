//! What Envoy's messages look like, by reflection.
//!
//! envoy-types brings generated structs, which know no field names, and the .proto files that they
//! come from. The files are compiled once, into `descriptors/envoy.binpb.deflate`, and a test
//! compares that with the locked version (docs/decisions/0027-documents.md).

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

const COMPRESSED: &[u8] = include_bytes!("../descriptors/envoy.binpb.deflate");

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = miniz_oxide::inflate::decompress_to_vec(COMPRESSED).expect("the test inflates it");
    DescriptorPool::decode(bytes.as_slice()).expect("the test decodes it")
});

/// Every message that a resource may hold, with the constraints of its fields. The first call takes
/// a noticeable part of a second.
pub fn descriptors() -> &'static DescriptorPool {
    &POOL
}
