//! Connections to the other parties.
//!
//! All of them are made by one value, [`Transport`], which knows whether the service speaks TLS and what this side shows to be
//! let in. A channel cannot come about without it, so none can be in the clear by oversight. A token never leaves this machine
//! in the clear: it would be its reader's from then on.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use shardproof_common::address::{self, AddressError};
use thiserror::Error;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Endpoint;
use tonic::{Request, Status};

use super::activations::Hop;
use super::exposure::is_loopback_host;
use super::party::Party;
use super::tls::{Tls, TlsError};
use super::tokens::Token;
use super::trouble::{Trouble, explain, trouble};
use super::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, STREAM_WINDOW_BYTES};

/// How long a connection may take to come about, and again its handshake.
const CONNECT: Duration = Duration::from_secs(5);

/// A connection that shows what it takes to be let in.
pub type Channel = InterceptedService<tonic::transport::Channel, Credentials>;

/// How this side talks to the others.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    tls: Option<Arc<Tls>>,
    token: Option<Token>,
}

impl Transport {
    /// In the clear.
    pub fn plaintext() -> Self {
        Self::default()
    }

    /// With TLS.
    pub fn with_tls(tls: Tls) -> Self {
        Self { tls: Some(Arc::new(tls)), token: None }
    }

    /// The same, showing `token` with every call.
    #[must_use]
    pub fn with_token(self, token: Option<Token>) -> Self {
        Self { token, ..self }
    }

    /// What TLS needs, unless everything is in the clear.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// A channel to the party that listens at `address` (`host:port`). It connects on first use and again whenever the connection
    /// is lost.
    ///
    /// # Errors
    /// When `address` is none, or the token would travel in the clear.
    pub fn lazy_channel(&self, address: &str, party: Party) -> Result<Channel, ChannelError> {
        let credentials = self.credentials(address)?;
        Ok(InterceptedService::new(self.endpoint(address, party)?.connect_lazy(), credentials))
    }

    /// The way that activations leave by: a neighbour that gives no sign of life for `silence` is given up, and what was being
    /// delivered fails. One that is slow but alive is waited for.
    ///
    /// # Errors
    /// As [`Self::lazy_channel`].
    pub fn hop(&self, address: &str, party: Party, silence: Duration) -> Result<Hop, ChannelError> {
        let credentials = self.credentials(address)?;
        // A ping goes out after one half, and its answer may take the other.
        let half = silence / 2;
        let endpoint = self.endpoint(address, party)?.connect_timeout(silence);
        let endpoint = endpoint.http2_keep_alive_interval(half).keep_alive_timeout(half);
        Ok(Hop::new(address, InterceptedService::new(endpoint.connect_lazy(), credentials)))
    }

    /// Connects to the party that listens at `address` (`host:port`).
    ///
    /// # Errors
    /// As [`Self::lazy_channel`], and when the connection does not come about.
    pub async fn connect(&self, address: &str, party: Party) -> Result<Channel, ChannelError> {
        let credentials = self.credentials(address)?;
        let connected = self.endpoint(address, party)?.connect().await;
        let channel = connected.map_err(|source| match trouble(&source) {
            Some(trouble) => ChannelError::Trouble(trouble),
            None => ChannelError::Connect { reason: explain(&source) },
        })?;
        Ok(InterceptedService::new(channel, credentials))
    }

    fn endpoint(&self, address: &str, party: Party) -> Result<Endpoint, ChannelError> {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let malformed = |reason| ChannelError::Address { address: address.to_owned(), reason };
        address::check(address).map_err(malformed)?;
        let unusable = |_| malformed(AddressError::Host);
        let endpoint = Endpoint::from_shared(format!("{scheme}://{address}")).map_err(unusable)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let (config, verifier) = tls.client(party)?;
        // The library takes the host from the URI as it is, and certificates know no brackets.
        let host = address.rsplit_once(':').map_or(address, |(host, _)| address::bare(host));
        let config = config.domain_name(host).timeout(CONNECT);
        endpoint.tls_config_with_verifier(config, verifier).map_err(unusable)
    }

    fn credentials(&self, address: &str) -> Result<Credentials, ChannelError> {
        let Some(token) = &self.token else { return Ok(Credentials(None)) };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        if self.tls.is_none() && !is_loopback_host(host) {
            return Err(ChannelError::TokenInTheClear { address: address.to_owned() });
        }
        Ok(Credentials(Some(token.header())))
    }
}

/// What a channel shows with every call; by default nothing.
#[derive(Clone, Default)]
pub struct Credentials(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Credentials(token)" } else { "Credentials(none)" })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

/// Why there is no channel.
#[derive(Debug, Error)]
pub enum ChannelError {
    /// Not an address.
    #[error("`{address}` is not an address: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: AddressError,
    },
    /// The token would be readable on its way.
    #[error("a token is not sent to {address} in the clear: give --tls DIR")]
    TokenInTheClear {
        /// Where it would go.
        address: String,
    },
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Somebody listens there, and the two do not trust each other.
    #[error("{0}")]
    Trouble(Trouble),
    /// The connection did not come about.
    #[error("{reason}")]
    Connect {
        /// Why.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_stays_on_this_machine_unless_tls_hides_it() {
        let transport = Transport::plaintext().with_token(Some(Token::generate()));
        for near in ["localhost:1", "127.0.0.1:1", "[::1]:1"] {
            transport.lazy_channel(near, Party::Coordinator).unwrap();
        }
        for far in ["10.0.0.1:1", "example.org:1", "localhost.example.org:1", "[fd00::1]:1"] {
            let refused = transport.lazy_channel(far, Party::Coordinator).unwrap_err();
            assert!(matches!(refused, ChannelError::TokenInTheClear { .. }), "{far}");
            assert!(refused.to_string().contains("--tls"));
            Transport::plaintext().lazy_channel(far, Party::Coordinator).unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_no_address_is_told_before_anything_is_tried() {
        for wrong in ["localhost", "localhost:x", "localhost:99999", "http://localhost:8000", "::1:8000"] {
            let refused = Transport::plaintext().connect(wrong, Party::Coordinator).await.unwrap_err().to_string();
            assert!(refused.contains(&format!("`{wrong}` is not an address: expected HOST:PORT")), "{refused}");
        }
    }

    #[test]
    fn credentials_are_not_shown() {
        let token = Token::generate();
        let transport = Transport::plaintext().with_token(Some(token.clone()));
        let credentials = transport.credentials("localhost:1").unwrap();
        for shown in [format!("{transport:?}"), format!("{credentials:?}"), format!("{token:?}")] {
            assert!(!shown.contains(token.reveal()), "{shown}");
        }
    }
}
