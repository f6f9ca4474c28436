//! The gRPC contracts of shardproof and the code generated from them.
