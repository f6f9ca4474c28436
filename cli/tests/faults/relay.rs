//! A TCP relay between two programs, whose traffic a test can stop or slow down without either seeing a close.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// They pass.
    Open,
    /// They wait, and connections are taken and stay silent: the network is parted.
    Parted,
    /// So many pass per second, in each direction of each connection.
    Slow(u64),
}

/// A relay; it ends with the test.
pub(crate) struct Relay {
    pub(crate) address: String,
    target: watch::Sender<Option<String>>,
    traffic: watch::Sender<Traffic>,
    carried: Arc<AtomicU64>,
}

impl Relay {
    /// Listens; connections wait until the target is known.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, traffic) = (watch::Sender::new(None), watch::Sender::new(Traffic::Open));
        let carried = Arc::new(AtomicU64::new(0));
        let relay = Self { address, target: target.clone(), traffic: traffic.clone(), carried: carried.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connect(stream, target.subscribe(), traffic.subscribe(), carried.clone()));
            }
        });
        relay
    }

    /// Where connections lead.
    pub(crate) fn lead_to(&self, address: &str) {
        self.target.send_replace(Some(address.to_owned()));
    }

    pub(crate) fn set(&self, traffic: Traffic) {
        self.traffic.send_replace(traffic);
    }

    /// Bytes carried so far, in both directions.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

async fn connect(
    near: TcpStream,
    mut target: watch::Receiver<Option<String>>,
    traffic: watch::Receiver<Traffic>,
    carried: Arc<AtomicU64>,
) {
    let address = target.wait_for(Option::is_some).await.unwrap().clone().unwrap();
    let Ok(far) = TcpStream::connect(address).await else { return };
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    tokio::spawn(carry(near_read, far_write, traffic.clone(), carried.clone()));
    carry(far_read, near_write, traffic, carried).await;
}

/// Carries bytes one way until either end closes.
async fn carry(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut traffic: watch::Receiver<Traffic>,
    carried: Arc<AtomicU64>,
) {
    /// Pieces per second when slow: many, so that they differ from a stop.
    const PIECES: u64 = 20;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let now = *traffic.wait_for(|&traffic| traffic != Traffic::Parted).await.unwrap();
        let most = match now {
            Traffic::Slow(rate) => usize::try_from(rate / PIECES).unwrap().clamp(1, buffer.len()),
            Traffic::Open | Traffic::Parted => buffer.len(),
        };
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else { return };
        // What was on its way when the network parted waits as well.
        traffic.wait_for(|&traffic| traffic != Traffic::Parted).await.unwrap();
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
        carried.fetch_add(read as u64, Ordering::Relaxed);
        if matches!(now, Traffic::Slow(_)) {
            tokio::time::sleep(Duration::from_millis(1000 / PIECES)).await;
        }
    }
}
