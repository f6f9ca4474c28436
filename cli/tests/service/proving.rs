//! Proofs through the service.
