//! The wall clock, and durations as command lines write them.
//!
//! Every reading of the time of day goes through [`now`], so that there is one place where it can be wrong. What is measured
//! inside one process (deadlines, waits) uses monotonic time instead, which no correction of the clock touches.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::builder::RangedU64ValueParser;

use crate::ids::UnixMillis;

/// Longest duration that an option takes, 36,500 days: monotonic clocks, and timers over them, reach no further than they must.
pub const LONGEST: Duration = Duration::from_secs(36_500 * 86_400);

/// By how much this process's clock is off, for tests of clocks that jump.
static OFFSET_MS: AtomicI64 = AtomicI64::new(0);

/// The time of day.
pub fn now() -> UnixMillis {
    let UnixMillis(now) = UnixMillis(0).after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
    UnixMillis(now.saturating_add_signed(OFFSET_MS.load(Ordering::Relaxed)))
}

/// Shifts what this process takes for the time of day by `ms` milliseconds, as if the machine's clock had been set.
pub fn set_offset_ms(ms: i64) {
    OFFSET_MS.store(ms, Ordering::Relaxed);
}

/// Reads `24h`, `30m`, `90s`, `7d` or `500ms`: a whole number with its unit.
///
/// # Errors
/// Says how durations are written, or which is the longest.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unreadable = || format!("`{text}` is no duration: write 24h, 30m, 90s or 7d");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(unreadable()),
    };
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(unreadable());
    }
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    let longest = || format!("`{text}` is longer than {} d", LONGEST.as_secs() / 86_400);
    ms.map(Duration::from_millis).filter(|duration| *duration <= LONGEST).ok_or_else(longest)
}

/// Reads a whole number of seconds, `least` or more, and no more than [`LONGEST`].
pub fn seconds(least: u64) -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(least..=LONGEST.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_or_say_why() {
        assert_eq!(parse_duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for wrong in ["", "24", "h", "-1h", "+1h", "1.5h", "1w"] {
            assert!(parse_duration(wrong).unwrap_err().contains("24h"), "{wrong}");
        }
    }

    #[test]
    fn durations_beyond_any_clock_are_refused() {
        assert_eq!(parse_duration("36500d"), Ok(LONGEST));
        for long in ["36501d", "99999999999999999d", "99999999999999999999s"] {
            assert_eq!(parse_duration(long), Err(format!("`{long}` is longer than 36500 d")));
        }
    }

    #[test]
    fn the_clock_is_past_2020_and_jumps_as_it_is_told() {
        const HOUR_MS: i64 = 3_600_000;
        let before = now();
        assert!(before > UnixMillis(1_577_836_800_000));
        set_offset_ms(2 * HOUR_MS);
        assert!(now() >= before.after(Duration::from_secs(7200)));
        set_offset_ms(-HOUR_MS);
        assert!(now() < before);
        set_offset_ms(i64::MIN);
        assert_eq!(now(), UnixMillis(0));
        set_offset_ms(0);
        assert!(now() >= before);
    }
}
