//! The coordinator: plans, sets up, assigns shards to workers, runs, verifies and chains.
