//! Bytes on the wire.
//!
//! Every connection between the parties of a service has a server on one side, so what all servers have received and sent is
//! all there was, counted once: the payload of TCP, which has HTTP/2's framing and the messages in it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What a server's connections have carried so far.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// `stream` with its bytes counted here. Nothing that it sends waits for more to be sent: a server that is given its
    /// connections leaves that option as it finds it, and small messages would take 40 ms.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn count(&self, stream: TcpStream) -> io::Result<CountedStream> {
        stream.set_nodelay(true)?;
        Ok(CountedStream { stream, traffic: self.clone() })
    }

    /// Bytes received.
    pub fn received(&self) -> u64 {
        self.0.received.load(Ordering::Relaxed)
    }

    /// Bytes sent.
    pub fn sent(&self) -> u64 {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Logs both, as `traffic` with the fields `received_bytes` and `sent_bytes`.
    pub fn log(&self) {
        tracing::info!(received_bytes = self.received(), sent_bytes = self.sent(), "traffic");
    }
}

/// A connection whose bytes are counted.
#[derive(Debug)]
pub struct CountedStream {
    stream: TcpStream,
    traffic: Traffic,
}

impl AsyncRead for CountedStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.traffic.0.received.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl CountedStream {
    fn count_sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(written)) = polled {
            self.traffic.0.sent.fetch_add(written as u64, Ordering::Relaxed);
        }
        polled
    }
}

impl AsyncWrite for CountedStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count_sent(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.count_sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn both_directions_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let traffic = Traffic::default();
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut server = traffic.count(listener.accept().await.unwrap().0).unwrap();
        client.write_all(&[7; 1000]).await.unwrap();
        server.read_exact(&mut [0; 1000]).await.unwrap();
        server.write_all(&[8; 30]).await.unwrap();
        client.read_exact(&mut [0; 30]).await.unwrap();
        assert_eq!((traffic.received(), traffic.sent()), (1000, 30));
        assert!(server.stream.nodelay().unwrap());
    }
}
