//! Clients in closed loops, each with a connection of its own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::bytes::Bytes;
use shardproof_common::tensor::FloatTensor;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::error::BenchError;

/// An input, and the answer that the service gave when it had nothing else to do.
pub(super) struct Asked {
    pub(super) input: Vec<FloatTensor>,
    pub(super) answer: Bytes,
}

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
    /// Connects `count` clients, which begin at once and draw what they ask from `asked`.
    pub(super) async fn gather(
        address: &str,
        count: usize,
        asked: &Arc<[Asked]>,
        seed: u64,
    ) -> Result<Self, BenchError> {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Seen::default())));
        let mut tasks = JoinSet::new();
        for number in 0..count as u64 {
            let client = Client::connect_to(address).await?;
            let (asked, stop, seen) = (asked.clone(), stop.clone(), seen.clone());
            let draws = draws(seed, number, asked.len());
            tasks.spawn(async move { run_until_stopped(client, draws.map(|place| &asked[place]), &stop, &seen).await });
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

/// Places below `count`, which is not 0, drawn from `seed` for the client of this number: splitmix64 (Steele, Lea, Flood, OOPSLA
/// 2014).
fn draws(seed: u64, client: u64, count: usize) -> impl Iterator<Item = usize> + Send {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mixed = |state: u64| {
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    };
    let first = mixed(seed ^ mixed(client.wrapping_add(STEP)));
    (1..).map(move |draw: u64| (mixed(first.wrapping_add(draw.wrapping_mul(STEP))) % count as u64) as usize)
}

async fn run_until_stopped(
    client: Client,
    draws: impl Iterator<Item = &Asked>,
    stop: &CancellationToken,
    seen: &Mutex<Seen>,
) {
    for Asked { input, answer } in draws {
        if stop.is_cancelled() {
            return;
        }
        let started = Instant::now();
        let outcome = client.infer(input).await;
        let latency = started.elapsed();
        let error = match outcome {
            Ok(run) if run.answer == *answer => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_client_draws_inputs_of_its_own() {
        let of = |client| draws(7, client, 64).take(32).collect::<Vec<_>>();
        assert_eq!(of(0), of(0), "drawn from the seed");
        let all: std::collections::HashSet<Vec<usize>> = (0..1000).map(of).collect();
        assert_eq!(all.len(), 1000, "no two clients send the same");
        assert!((0..8).all(|place| draws(7, 3, 8).take(200).any(|drawn| drawn == place)), "every input is drawn");
        assert_ne!(draws(8, 0, 64).take(32).collect::<Vec<_>>(), of(0), "another seed, other draws");
    }
}
