//! Benchmarks of the service and of its proof systems.
