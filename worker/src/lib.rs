//! The worker: runs one shard, passes activations on, proves on request.
