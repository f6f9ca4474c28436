//! What every part of shardproof shares: ids, integer tensors, statements, receipts, bundles, the chain verifier and the backend trait.
