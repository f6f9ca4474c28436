//! Clients in closed loops, each with a connection of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use shardproof_common::tensor::FloatTensor;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::BenchError;

/// Clients at work.
pub(super) struct Crowd {
    tasks: JoinSet<()>,
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
}

/// What clients have seen since they were last asked.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    errors: usize,
    error: Option<String>,
}

/// What ended in a window of time.
pub(super) struct Window {
    pub(super) length: Duration,
    pub(super) latencies: Vec<Duration>,
    /// Since the crowd was gathered.
    pub(super) errors: usize,
    pub(super) error: Option<String>,
}

impl Crowd {
    /// Connects `count` clients, which begin at once.
    pub(super) async fn gather(
        address: &str,
        count: usize,
        input: &[FloatTensor],
        expected: &Bytes,
    ) -> Result<Self, BenchError> {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Seen::default())));
        let mut tasks = JoinSet::new();
        for _ in 0..count {
            let client = Client::connect_to(address).await?;
            let (input, expected) = (input.to_vec(), expected.clone());
            let (stop, seen) = (stop.clone(), seen.clone());
            tasks.spawn(async move { run_until_stopped(client, &input, &expected, &stop, &seen).await });
        }
        Ok(Self { tasks, stop, seen })
    }

    /// Watches for `length` from now on.
    pub(super) async fn observe(&self, length: Duration) -> Window {
        let started = Instant::now();
        lock(&self.seen).latencies.clear();
        tokio::time::sleep(length).await;
        let mut seen = lock(&self.seen);
        let latencies = std::mem::take(&mut seen.latencies);
        Window { length: started.elapsed(), latencies, errors: seen.errors, error: seen.error.clone() }
    }

    /// Lets every client end the run that it is in.
    pub(super) async fn disperse(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn run_until_stopped(
    client: Client,
    input: &[FloatTensor],
    expected: &Bytes,
    stop: &CancellationToken,
    seen: &Mutex<Seen>,
) {
    while !stop.is_cancelled() {
        let started = Instant::now();
        let outcome = client.infer(input).await;
        let latency = started.elapsed();
        let error = match outcome {
            Ok(run) if run.answer == *expected => None,
            Ok(_) => Some("another answer to the same input".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        let failed = error.is_some();
        {
            let mut seen = lock(seen);
            match error {
                None => seen.latencies.push(latency),
                Some(error) => {
                    seen.errors += 1;
                    seen.error.get_or_insert(error);
                }
            }
        }
        if failed {
            // A service that refuses at once would otherwise be asked as fast as it refuses.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
