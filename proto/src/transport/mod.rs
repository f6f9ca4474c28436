//! How bytes travel: channels with windows that a fast link can fill, artifacts with resume, activations in chunks.

pub mod activations;
pub mod artifacts;
pub mod traffic;

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Server};

/// Bytes in one chunk of a stream.
pub const CHUNK_BYTES: usize = 1 << 20;
/// Largest single message: a chunk with its frame, or a card.
pub const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// HTTP/2 window of one stream; several chunks may be under way before the receiver answers.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
/// HTTP/2 window of one connection.
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// The endpoint at `address` (`host:port`).
///
/// # Errors
/// When `address` is none.
pub fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true))
}

/// A channel to `address` that connects on first use and again whenever the connection is lost.
///
/// # Errors
/// When `address` is none.
pub fn lazy_channel(address: &str) -> Result<Channel, tonic::transport::Error> {
    Ok(endpoint(address)?.connect_lazy())
}

/// A channel that activations leave by: a neighbour that gives no sign of life for `silence` is given up, and what was being
/// delivered fails. One that is slow but alive is waited for.
///
/// # Errors
/// When `address` is none.
pub fn hop_channel(address: &str, silence: Duration) -> Result<Channel, tonic::transport::Error> {
    // A ping goes out after one half, and its answer may take the other.
    let half = silence / 2;
    let endpoint = endpoint(address)?.connect_timeout(silence);
    Ok(endpoint.http2_keep_alive_interval(half).keep_alive_timeout(half).connect_lazy())
}

/// A server with the windows that the endpoints here expect.
pub fn server() -> Server {
    Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
}
