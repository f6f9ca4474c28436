//! The backend and its verifier.
