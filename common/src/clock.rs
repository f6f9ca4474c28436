//! The wall clock, read in one place.
//!
//! The wall clock may jump: it is set by hand, by the network, or after a machine wakes. So it serves only for what people read
//! and for dates that outlive a process, such as when a run was submitted. Whatever a process waits for (deadlines, leases,
//! heartbeats, grace) is measured with [`std::time::Instant`], which no jump moves. Reading the clock here and nowhere else is
//! what lets a test let it jump.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// Milliseconds since 1970 as this process takes them; 0 before that.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64);
    now.saturating_add_signed(OFFSET_MS.load(Ordering::Relaxed))
}

/// Shifts what this process takes for the wall clock by `ms` milliseconds, as if the machine's clock had been set.
pub fn set_offset_ms(ms: i64) {
    OFFSET_MS.store(ms, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_jumps_as_it_is_told() {
        const HOUR_MS: u64 = 3_600_000;
        let before = unix_ms();
        set_offset_ms(2 * HOUR_MS as i64);
        assert!(unix_ms() >= before + 2 * HOUR_MS);
        set_offset_ms(-(HOUR_MS as i64));
        assert!(unix_ms() < before);
        set_offset_ms(i64::MIN);
        assert_eq!(unix_ms(), 0);
        set_offset_ms(0);
        assert!(unix_ms() >= before);
    }
}
