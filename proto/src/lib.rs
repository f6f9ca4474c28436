//! The gRPC contracts of shardproof, the code generated from them, and how large content travels over them.
//!
//! The contracts themselves are in `proto/shardproof/v1/shardproof.proto`.

pub mod convert;
pub mod transport;

/// Version 1 of the contracts.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::unwrap_used)]
pub mod v1 {
    tonic::include_proto!("shardproof.v1");
}

/// The compiled contracts, for reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
