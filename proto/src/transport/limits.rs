//! What one client may ask of a server at a time.
//!
//! Whoever is counted is counted by name, where a certificate or token gives one, and by address otherwise: behind one address
//! translation unnamed clients share their limits. A client that meets a limit is told which and by which option it is set;
//! nothing of what others asked for waits for it.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use tonic::Status;

use super::party::Subject;

/// Buckets beyond which those that are full again are forgotten.
const REMEMBERED: usize = 4096;

/// What each client may ask for; `None` for no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientLimits {
    /// Calls in a second, and as many times [`BURST_SECONDS`] at once.
    pub rate: Option<u32>,
    /// Calls under way at a time.
    pub calls: Option<usize>,
    /// Uploads under way at a time.
    pub uploads: Option<usize>,
}

/// How many seconds' worth of calls a client that was quiet may make at once.
pub const BURST_SECONDS: u32 = 5;

/// Who is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Counted {
    /// By certificate or token.
    Named(Subject),
    /// By where it comes from.
    At(IpAddr),
}

impl std::fmt::Display for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(subject) => subject.fmt(f),
            Self::At(address) => write!(f, "the client at {address}"),
        }
    }
}

/// The limits with what is counted against them.
#[derive(Debug)]
pub(super) struct Meter {
    limits: ClientLimits,
    buckets: DashMap<Counted, Bucket>,
    calls: Arc<DashMap<Counted, usize>>,
    uploads: Arc<DashMap<Counted, usize>>,
}

impl Meter {
    pub(super) fn new(limits: ClientLimits) -> Self {
        Self { limits, buckets: DashMap::new(), calls: Arc::default(), uploads: Arc::default() }
    }

    /// Counts a call; it is over when the answer is dropped.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, naming the limit.
    pub(super) fn enter(&self, client: &Counted, upload: bool) -> Result<[Option<Under>; 2], Status> {
        let refuse = |what: String| Err(Status::resource_exhausted(format!("{client} {what}")));
        if let Some(rate) = self.limits.rate
            && !self.take(client, rate, Instant::now())
        {
            return refuse(format!("makes more than {rate} calls a second: slow down, or raise --client-rate"));
        }
        let Ok(call) = Under::of(&self.calls, client, self.limits.calls) else {
            let limit = self.limits.calls.unwrap_or_default();
            return refuse(format!("has {limit} calls under way: wait for one to end, or raise --client-calls"));
        };
        let limit = self.limits.uploads.filter(|_| upload);
        let Ok(upload) = Under::of(&self.uploads, client, limit) else {
            let limit = limit.unwrap_or_default();
            return refuse(format!("has {limit} uploads under way: wait for one to end, or raise --client-uploads"));
        };
        Ok([call, upload])
    }

    /// Takes one call out of a client's bucket, if there is one in it.
    fn take(&self, client: &Counted, rate: u32, now: Instant) -> bool {
        if self.buckets.len() > REMEMBERED {
            self.buckets.retain(|_, bucket| !bucket.is_full(rate, now));
        }
        self.buckets.entry(client.clone()).or_insert_with(|| Bucket::full(rate, now)).take(rate, now)
    }
}

/// A token bucket: calls that may still be made, refilled with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(rate: u32, now: Instant) -> Self {
        Self { left: Self::size(rate), at: now }
    }

    fn size(rate: u32) -> f64 {
        f64::from(rate) * f64::from(BURST_SECONDS)
    }

    fn refilled(self, rate: u32, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.at).min(Duration::from_secs(u64::from(BURST_SECONDS)));
        (self.left + elapsed.as_secs_f64() * f64::from(rate)).min(Self::size(rate))
    }

    fn is_full(self, rate: u32, now: Instant) -> bool {
        self.refilled(rate, now) >= Self::size(rate)
    }

    fn take(&mut self, rate: u32, now: Instant) -> bool {
        let left = self.refilled(rate, now);
        let taken = left >= 1.0;
        *self = Self { left: if taken { left - 1.0 } else { left }, at: now };
        taken
    }
}

/// Something under way that counts until it is dropped.
#[derive(Debug)]
pub(super) struct Under {
    counts: Arc<DashMap<Counted, usize>>,
    client: Counted,
}

/// As many are under way as may be.
struct Full;

impl Under {
    /// Nothing where there is no limit.
    fn of(counts: &Arc<DashMap<Counted, usize>>, client: &Counted, limit: Option<usize>) -> Result<Option<Self>, Full> {
        let Some(limit) = limit else { return Ok(None) };
        let mut count = counts.entry(client.clone()).or_insert(0);
        if *count >= limit {
            return Err(Full);
        }
        *count += 1;
        Ok(Some(Self { counts: counts.clone(), client: client.clone() }))
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        self.counts.remove_if_mut(&self.client, |_, count| {
            *count -= 1;
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(n: u8) -> Counted {
        Counted::At(IpAddr::from([10, 0, 0, n]))
    }

    #[test]
    fn a_bucket_gives_what_was_saved_and_then_what_time_brings() {
        let meter = Meter::new(ClientLimits::default());
        let now = Instant::now();
        let taken = |at: Instant| (0..100).filter(|_| meter.take(&client(1), 2, at)).count();
        assert_eq!(taken(now), 2 * BURST_SECONDS as usize);
        assert_eq!(taken(now + Duration::from_secs(1)), 2);
        assert_eq!(taken(now + Duration::from_secs(3600)), 2 * BURST_SECONDS as usize);
        assert!(meter.take(&client(2), 2, now), "another client has a bucket of its own");
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let meter = Meter::new(ClientLimits::default());
        let now = Instant::now();
        for n in 0..=REMEMBERED as u32 {
            assert!(meter.take(&Counted::At(IpAddr::from(n.to_be_bytes())), 1, now));
        }
        meter.take(&client(1), 1, now + Duration::from_secs(60));
        assert_eq!(meter.buckets.len(), 1);
    }

    #[test]
    fn each_limit_is_named_and_ends_with_what_is_under_way() {
        let refusal = |limits: ClientLimits, upload: bool, flag: &str| {
            let meter = Meter::new(limits);
            let held = meter.enter(&client(1), upload).unwrap();
            let refused = meter.enter(&client(1), upload).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
            assert!(refused.message().contains(flag), "{refused:?}");
            meter.enter(&client(2), upload).unwrap();
            drop(held);
            meter.enter(&client(1), upload).unwrap();
            assert!(meter.calls.is_empty() && meter.uploads.is_empty(), "nothing is under way any more");
        };
        refusal(ClientLimits { calls: Some(1), ..Default::default() }, false, "--client-calls");
        refusal(ClientLimits { uploads: Some(1), ..Default::default() }, true, "--client-uploads");

        let meter = Meter::new(ClientLimits { rate: Some(1), ..Default::default() });
        let refused = (0..=BURST_SECONDS).find_map(|_| meter.enter(&client(1), false).err()).unwrap();
        assert!(refused.message().contains("--client-rate"), "{refused:?}");
        let meter = Meter::new(ClientLimits { uploads: Some(0), ..Default::default() });
        meter.enter(&client(1), false).unwrap();
    }
}
