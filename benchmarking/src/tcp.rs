//! The physical limit: the same number of bytes over a plain TCP connection on loopback.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::error::BenchError;

/// A connection whose other end reads a fixed number of bytes, then answers with one.
pub(crate) struct Loopback {
    stream: TcpStream,
    payload: Vec<u8>,
    receiver: JoinHandle<std::io::Result<()>>,
}

impl Loopback {
    /// Connects; each transfer is of `bytes` bytes.
    pub(crate) async fn connect(bytes: usize) -> Result<Self, BenchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(BenchError::io("listening on loopback"))?;
        let address = listener.local_addr().map_err(BenchError::io("listening on loopback"))?;
        let receiver = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let mut buffer = vec![0; bytes];
            while stream.read_exact(&mut buffer).await.is_ok() {
                stream.write_all(&[1]).await?;
            }
            Ok(())
        });
        let stream = TcpStream::connect(address).await.map_err(BenchError::io("connecting on loopback"))?;
        stream.set_nodelay(true).map_err(BenchError::io("connecting on loopback"))?;
        // Bytes that no layer could compress or recognise as empty pages.
        let payload = (0..bytes as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
        Ok(Self { stream, payload, receiver })
    }

    /// Sends the bytes and waits for the answer.
    pub(crate) async fn transfer(&mut self) -> Result<Duration, BenchError> {
        let started = Instant::now();
        self.stream.write_all(&self.payload).await.map_err(BenchError::io("sending on loopback"))?;
        self.stream.read_u8().await.map_err(BenchError::io("receiving on loopback"))?;
        Ok(started.elapsed())
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        self.receiver.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_arrive_again_and_again() {
        let mut loopback = Loopback::connect(1 << 20).await.unwrap();
        for _ in 0..3 {
            assert!(loopback.transfer().await.unwrap() > Duration::ZERO);
        }
    }

    #[tokio::test]
    async fn a_receiver_that_is_gone_is_an_error() {
        let mut loopback = Loopback::connect(1 << 20).await.unwrap();
        loopback.transfer().await.unwrap();
        loopback.receiver.abort();
        // The receiver's end closes once its task is gone.
        assert!((&mut loopback.receiver).await.unwrap_err().is_cancelled());
        assert!(loopback.transfer().await.is_err());
    }
}
