//! Servers that tests start for themselves and that end with them.
//!
//! A test that needs one and can't have it fails and says what to install: a check that is skipped in silence is none.

mod postgres;
mod s3;

pub use postgres::Postgres;
pub use s3::S3;
