//! The wall clock, and durations as command lines write them.
//!
//! Every reading of the time of day goes through [`now`], so that there is one place where it can be wrong. What is measured
//! inside one process (deadlines, waits) uses monotonic time instead, which no correction of the clock touches.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ids::UnixMillis;

/// The time of day.
pub fn now() -> UnixMillis {
    UnixMillis(0).after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Reads `24h`, `30m`, `90s`, `7d` or `500ms`: a whole number with its unit.
///
/// # Errors
/// Says how durations are written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit_ms = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` is no duration: write 24h, 30m, 90s or 7d")),
    };
    let ms = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit_ms));
    ms.map(Duration::from_millis).ok_or_else(|| format!("`{text}` is no duration: write 24h, 30m, 90s or 7d"))
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
        for wrong in ["", "24", "h", "-1h", "1.5h", "1w", "99999999999999999d"] {
            assert!(parse_duration(wrong).unwrap_err().contains("24h"), "{wrong}");
        }
    }

    #[test]
    fn the_clock_is_past_2020() {
        assert!(now() > UnixMillis(1_577_836_800_000));
    }
}
