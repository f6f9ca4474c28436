//! How bytes travel and who may send them: channels with windows that a fast link can fill, TLS, the gate that every call
//! passes, artifacts with resume, activations in chunks.

pub mod activations;
mod args;
pub mod artifacts;
mod channel;
mod exposure;
mod gate;
mod limits;
mod listener;
pub mod metrics;
mod party;
mod tls;
mod tokens;
pub mod traffic;
mod trouble;
mod uploads;

use std::time::Duration;

use tonic::transport::Server;
use tower::layer::util::{Identity, Stack};

pub use args::{ConnectArgs, ConnectArgsError, ListenArgs, ListenError};
pub use channel::{Channel, ChannelError, Credentials, Transport};
pub use exposure::{Exposed, Exposure, is_loopback_host};
pub use gate::{Caller, Gate, Gated};
pub use limits::{BURST_SECONDS, ClientLimits};
pub use listener::{Connection, Listening, Peer, Shown};
pub use party::{Name, Party, Subject, SubjectError};
pub use tls::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, Tls, TlsError, WrongServer};
pub use tokens::{Token, TokenDigest, TokenError, Tokens};
pub use trouble::{Trouble, explain, trouble};
pub use uploads::Uploads;

/// Bytes in one chunk of a stream.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Largest single message that a client takes from its coordinator, or a worker from its own: a card, or a listing.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// HTTP/2 window of one stream; several chunks may be under way before the receiver answers.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// HTTP/2 window of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A server with the windows that the channels here expect, with at most `max_streams` calls under way on a connection, each of
/// which has passed `gate`.
pub fn server(gate: Gate, max_streams: u32) -> Server<Stack<Gate, Identity>> {
    Server::builder()
        .max_concurrent_streams(max_streams)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .layer(gate)
}
