//! The options that say how a program listens and connects, the same for every program.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use shardproof_common::address::{bare, host_port};
use shardproof_common::machine;
use thiserror::Error;
use tokio::net::TcpListener;

use super::listener::Listening;
use super::party::Party;
use super::tls::{Tls, TlsError};
use super::tokens::{Token, TokenError};
use super::traffic::Traffic;
use super::{CHUNK_BYTES, Exposed, Exposure, Transport};

/// Room that a chunk's message takes beyond the chunk, bytes.
const FRAME_BYTES: u64 = 64 << 10;
/// The environment variable that a client's token is taken from.
const TOKEN_VARIABLE: &str = "SHARDPROOF_TOKEN";

/// How a server listens.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Access")]
pub struct ListenArgs {
    /// Speak TLS with everyone: directory with ca.pem, cert.pem and key.pem, as `shardproof cert issue` makes it
    #[arg(long, value_name = "DIR", env = "SHARDPROOF_TLS")]
    pub tls: Option<PathBuf>,
    /// Without --tls, listen where other machines can connect as well: whoever is on the network reads and changes all
    #[arg(long)]
    pub insecure: bool,
    /// Connections open at a time
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Calls under way at a time on one connection; more wait at the other end
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_streams: u32,
    /// Largest single message that is taken, bytes, with K, M or G; at least 1088K, which is a chunk with its frame
    #[arg(long, value_name = "BYTES", default_value = "4M", value_parser = message_bytes)]
    pub max_message: u64,
    /// Serve metrics for Prometheus at http://IP:PORT/metrics, in the clear
    #[arg(long, value_name = "IP:PORT")]
    pub metrics: Option<SocketAddr>,
}

fn message_bytes(text: &str) -> Result<u64, String> {
    let least = CHUNK_BYTES as u64 + FRAME_BYTES;
    let bytes = machine::parse_bytes(text)?;
    if bytes < least { Err(format!("at least {least}, or no chunk fits")) } else { Ok(bytes) }
}

impl ListenArgs {
    /// How this program, which is a `party`, talks to the others.
    ///
    /// # Errors
    /// When TLS cannot be used as asked.
    pub fn transport(&self, party: Party) -> Result<Transport, TlsError> {
        let Some(directory) = &self.tls else { return Ok(Transport::plaintext()) };
        let tls = Tls::load(directory)?;
        tls.check_party(&[party])?;
        Ok(Transport::with_tls(tls))
    }

    /// Listens, and says where, as `host:port`.
    ///
    /// # Errors
    /// When the host is not this machine's, or the port is taken.
    pub async fn bind(&self, host: &str, port: u16) -> Result<(TcpListener, String), ListenError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => {
                ListenError::Port { address: host_port(host, port), source }
            }
            _ => ListenError::Host { host: bare(host).to_owned(), source },
        };
        let listener = TcpListener::bind((bare(host), port)).await.map_err(failed)?;
        let port = listener.local_addr().map_err(ListenError::Address)?.port();
        Ok((listener, host_port(host, port)))
    }

    /// The address that others are told: `advertise`, or else `own`, where `listener` listens.
    ///
    /// # Errors
    /// When there is no `advertise` and `own` is not an address of any one machine.
    pub fn advertised(
        &self,
        listener: &TcpListener,
        own: &str,
        advertise: Option<&str>,
    ) -> Result<String, ListenError> {
        let unspecified = listener.local_addr().map_err(ListenError::Address)?.ip().is_unspecified();
        match advertise {
            Some(address) => Ok(address.to_owned()),
            None if unspecified => Err(ListenError::NotAdvertised { own: own.to_owned() }),
            None => Ok(own.to_owned()),
        }
    }

    /// Checks that the program may listen where it does; `tokens` is whether it takes clients' tokens.
    ///
    /// # Errors
    /// [`Exposed`] when that needs TLS.
    pub fn check_exposure(&self, listener: &TcpListener, tokens: bool) -> Result<(), ListenError> {
        let address = listener.local_addr().map_err(ListenError::Address)?.ip();
        Ok(Exposure { address, tls: self.tls.is_some(), insecure: self.insecure, tokens }.check()?)
    }

    /// Takes connections from `listener`.
    pub fn listening(&self, listener: TcpListener, traffic: Traffic) -> Listening {
        Listening { listener, traffic, max_connections: self.max_connections }
    }

    /// Largest single message, bytes.
    pub fn message_bytes(&self) -> usize {
        usize::try_from(self.max_message).unwrap_or(usize::MAX)
    }
}

/// Why a program does not listen.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Where it would, it may not.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The system does not say where it listens.
    #[error("asking where this listens: {0}")]
    Address(io::Error),
    /// The host is none, or another machine's.
    #[error("cannot listen on {host}: {source}: give a name or address of this machine, or localhost")]
    Host {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}: give another port, or 0 for a free one")]
    Port {
        /// Where it would listen.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Others would be told an address that means their own machine to each of them.
    #[error(
        "{own} stands for all addresses of this machine and is none that others can reach: give --advertise HOST:PORT"
    )]
    NotAdvertised {
        /// Where it would listen.
        own: String,
    },
}

/// What a client shows to be let in.
#[derive(Args, Clone, Debug, Default)]
pub struct ConnectArgs {
    /// Speak TLS: directory with ca.pem and, unless a token is given, cert.pem and key.pem
    #[arg(long, value_name = "DIR", env = "SHARDPROOF_TLS", help_heading = "Access")]
    pub tls: Option<PathBuf>,
    /// File with the token that lets this client in [default: the one in the environment variable SHARDPROOF_TOKEN]
    #[arg(long, value_name = "FILE", help_heading = "Access")]
    pub token_file: Option<PathBuf>,
}

impl ConnectArgs {
    /// How this client talks to its coordinator.
    ///
    /// # Errors
    /// When TLS cannot be used as asked, or the token is none.
    pub fn transport(&self) -> Result<Transport, ConnectArgsError> {
        let transport = match &self.tls {
            Some(directory) => {
                let tls = Tls::load(directory)?;
                tls.check_party(&[Party::Client, Party::Admin])?;
                Transport::with_tls(tls)
            }
            None => Transport::plaintext(),
        };
        Ok(transport.with_token(self.token()?))
    }

    fn token(&self) -> Result<Option<Token>, ConnectArgsError> {
        let parse = |text: &str, origin: &str| {
            text.trim()
                .parse()
                .map(Some)
                .map_err(|source| ConnectArgsError::Token { origin: origin.to_owned(), source })
        };
        match (&self.token_file, std::env::var(TOKEN_VARIABLE)) {
            (Some(path), _) => parse(&read(path)?, &path.display().to_string()),
            (None, Ok(text)) if !text.is_empty() => parse(&text, TOKEN_VARIABLE),
            _ => Ok(None),
        }
    }
}

fn read(path: &Path) -> Result<String, ConnectArgsError> {
    std::fs::read_to_string(path).map_err(|source| ConnectArgsError::Io { path: path.to_owned(), source })
}

/// What is wrong with what a client would show.
#[derive(Debug, Error)]
pub enum ConnectArgsError {
    /// TLS cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token is none.
    #[error("{origin}: {source}")]
    Token {
        /// Where it was taken from.
        origin: String,
        /// Why.
        source: TokenError,
    },
    /// The token's file cannot be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}
