//! The ezkl backend: Halo2/KZG proofs through the pinned ezkl wheel in a child process.
