//! Connections as a server takes them: counted, limited, with TLS where the service has it, and with whoever is at the other end.
//!
//! A handshake takes as long as the other side likes, so it happens beside the accepting and not before it, under a deadline.
//! One that fails is logged with the reason, and the connection is drained for a moment before it is closed: closed at once, the
//! system would throw away the alert that tells the other side what is wrong. A connection that cannot be accepted because
//! the system has no more files for it does not end the server.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::Stream;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

use super::Transport;
use super::party::{Subject, SubjectError};
use super::tls::TlsError;
use super::traffic::{CountedStream, Traffic};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long, and for how many bytes, a refused peer is listened to so that it can read why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 1 << 16;
/// How long to wait when the system cannot open another connection.
const RECOVERY: Duration = Duration::from_millis(100);
/// How often it is told that connections are refused for want of a place.
const NOTICE: Duration = Duration::from_secs(10);
/// Connections ready to be served that may wait for it.
const BACKLOG: usize = 64;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: IpAddr,
    /// Whether that is this machine: a loopback address, or the one that it connected to.
    pub here: bool,
    /// What it has shown.
    pub shown: Shown,
}

/// What a peer has shown of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Nothing: the connection is in the clear, and whatever it said could be anyone's words.
    InTheClear,
    /// No certificate.
    NoCertificate,
    /// A certificate of the authority.
    Certificate(Subject),
    /// A certificate of the authority that does not say who its holder is.
    Unclear(SubjectError),
}

/// How a server takes connections.
pub struct Listening {
    /// Where.
    pub listener: TcpListener,
    /// Counts their bytes.
    pub traffic: Traffic,
    /// How many at a time.
    pub max_connections: u32,
}

impl Listening {
    /// The connections, until the stream is dropped.
    ///
    /// # Errors
    /// When the service speaks TLS and this side has no certificate.
    pub fn connections(
        self,
        transport: &Transport,
    ) -> Result<impl Stream<Item = io::Result<Connection>> + use<>, TlsError> {
        let config = transport.tls().map(|tls| tls.server()).transpose()?;
        let (ready, connections) = mpsc::channel(BACKLOG);
        tokio::spawn(accept(self, config.map(TlsAcceptor::from), ready));
        Ok(ReceiverStream::new(connections))
    }
}

/// Something that is told now and then however often it happens.
#[derive(Default)]
struct Occasionally(Option<Instant>);

impl Occasionally {
    /// Whether it is to be told this time.
    fn now(&mut self) -> bool {
        let due = self.0.is_none_or(|last| last.elapsed() >= NOTICE);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

async fn accept(listening: Listening, acceptor: Option<TlsAcceptor>, ready: mpsc::Sender<io::Result<Connection>>) {
    let Listening { listener, traffic, max_connections } = listening;
    let places = Arc::new(Semaphore::new(max_connections as usize));
    let mut told = Occasionally::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        let (stream, address) = match accepted {
            Ok((stream, address)) => (stream, address.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(RECOVERY).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            if told.now() {
                tracing::warn!(%address, max_connections, "connection refused: as many are open as --max-connections allows");
            }
            continue;
        };
        let (traffic, acceptor, ready) = (traffic.clone(), acceptor.clone(), ready.clone());
        let here = is_here(address, stream.local_addr().ok().map(|own| own.ip().to_canonical()));
        tokio::spawn(async move {
            if let Some((io, shown)) = establish(stream, address, &traffic, acceptor).await {
                let connection = Connection { io, peer: Peer { address, here, shown }, _place: place };
                // The server may have ended meanwhile.
                let _served = ready.send(Ok(connection)).await;
            }
        });
    }
}

/// Whether a peer is on this machine, which it reached at its address `own`.
fn is_here(peer: IpAddr, own: Option<IpAddr>) -> bool {
    peer.is_loopback() || Some(peer) == own
}

async fn establish(
    stream: TcpStream,
    address: IpAddr,
    traffic: &Traffic,
    acceptor: Option<TlsAcceptor>,
) -> Option<(Io, Shown)> {
    let stream = match traffic.count(stream) {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%address, %error, "connection lost before it was served");
            return None;
        }
    };
    let Some(acceptor) = acceptor else { return Some((Io::Clear(stream), Shown::InTheClear)) };
    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream).into_fallible()).await {
        Ok(Ok(stream)) => {
            let shown = shown(stream.get_ref().1.peer_certificates());
            Some((Io::Tls(Box::new(stream)), shown))
        }
        Ok(Err((error, stream))) => {
            tracing::warn!(%address, %error, "TLS handshake failed");
            linger(stream).await;
            None
        }
        Err(_) => {
            tracing::warn!(%address, "no TLS handshake within {} s", HANDSHAKE.as_secs());
            None
        }
    }
}

fn shown(certificates: Option<&[CertificateDer<'_>]>) -> Shown {
    match certificates.and_then(<[_]>::first).map(Subject::of) {
        None => Shown::NoCertificate,
        Some(Ok(subject)) => Shown::Certificate(subject),
        Some(Err(error)) => Shown::Unclear(error),
    }
}

/// Lets a refused peer read what it was told.
async fn linger(mut stream: CountedStream) {
    let drain = async {
        // It may have hung up already, which is as good.
        let _closed = stream.shutdown().await;
        let _drained = tokio::io::copy(&mut (&mut stream).take(LINGER_BYTES), &mut tokio::io::sink()).await;
    };
    let _cut_short = tokio::time::timeout(LINGER, drain).await;
}

/// A connection with whoever is at its other end.
pub struct Connection {
    io: Io,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

enum Io {
    Clear(CountedStream),
    Tls(Box<TlsStream<CountedStream>>),
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Calls the same method of whichever stream there is.
macro_rules! delegate {
    ($self:ident, $method:ident, $($argument:expr),*) => {
        match &mut $self.get_mut().io {
            Io::Clear(stream) => Pin::new(stream).$method($($argument),*),
            Io::Tls(stream) => Pin::new(stream.as_mut()).$method($($argument),*),
        }
    };
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_read, cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write, cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, poll_write_vectored, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Clear(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_flush, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, poll_shutdown, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_here() {
        let here = |peer: &str| {
            let peer: IpAddr = peer.parse().unwrap();
            is_here(peer.to_canonical(), Some(IpAddr::from([10, 0, 0, 7])))
        };
        for peer in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.0.0.7"] {
            assert!(here(peer), "{peer}");
        }
        for peer in ["10.0.0.1", "192.168.1.1", "fe80::1", "::ffff:10.0.0.1", "0.0.0.0"] {
            assert!(!here(peer), "{peer}");
        }
        assert!(!is_here(IpAddr::from([10, 0, 0, 7]), None));
    }
}
