//! Times, lengths of time and sizes as people write them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use legation_model::Millis;

const UNITS: [(&str, Millis); 6] =
    [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];
/// Powers of 1024 only: whoever writes `10MB` may mean either kind, so that is refused.
const SIZES: [(&str, u64); 4] = [("", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// A length of time such as `10m`, `1h30m` or `500ms`, in milliseconds; more than nothing.
///
/// # Errors
/// A sentence for the command line.
pub fn length(text: &str) -> Result<Millis, String> {
    let wrong = || "write a length of time like 30s, 10m, 1h30m or 7d".to_owned();
    let mut total: Millis = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, after) = after.split_at(letters);
        let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: Millis = number.parse().map_err(|_| wrong())?;
        total = number.checked_mul(factor).and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        rest = after;
    }
    if total > 0 { Ok(total) } else { Err(wrong()) }
}

/// A length of time for waiting; `0s` is one too.
///
/// # Errors
/// A sentence for the command line.
pub fn wait(text: &str) -> Result<Duration, String> {
    if matches!(text.trim(), "0" | "0s") {
        return Ok(Duration::ZERO);
    }
    length(text).map(|millis| Duration::from_millis(millis.unsigned_abs()))
}

/// A size such as `64KiB`, `10MiB` or `1GiB`, or a plain number of bytes.
///
/// # Errors
/// A sentence for the command line.
pub fn size(text: &str) -> Result<u64, String> {
    let wrong = || "write a size like 65536 (bytes), 64KiB, 10MiB or 1GiB".to_owned();
    let text = text.trim();
    let (number, unit) = text.split_at(text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len());
    let (_, factor) = SIZES.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

/// A point in time: RFC 3339, or a length of time from now, with or without `in`; milliseconds since 1970.
///
/// # Errors
/// A sentence for the command line.
pub fn time(text: &str) -> Result<Millis, String> {
    let text = text.trim();
    let ahead = |length: Millis| length.checked_add(now()).ok_or_else(|| "that is too far ahead".to_owned());
    match (text.strip_prefix("in "), length(text)) {
        (Some(later), _) => ahead(length(later)?),
        (None, Ok(later)) => ahead(later),
        (None, Err(_)) => {
            point(text).ok_or_else(|| "write a time like 2030-01-31T12:00:00Z, or 30d from now".to_owned())
        }
    }
}

fn point(text: &str) -> Option<Millis> {
    text.parse().ok().map(Timestamp::as_millisecond)
}

/// A point in time that is over: RFC 3339, or a length of time that ends now; milliseconds since 1970.
///
/// # Errors
/// A sentence for the command line.
pub fn time_past(text: &str) -> Result<Millis, String> {
    match length(text) {
        Ok(ago) => Ok(now().saturating_sub(ago)),
        Err(_) => point(text.trim())
            .ok_or_else(|| "write a time like 2030-01-31T12:00:00Z, or 7d for seven days ago".to_owned()),
    }
}

/// A point in time for people: RFC 3339 in UTC, to the second.
pub fn show_time(at: Millis) -> String {
    match Timestamp::from_millisecond(at) {
        Ok(point) => point.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        Err(_) => format!("{at} ms"),
    }
}

/// A point in time that may not have come: nothing then.
pub fn show_when(at: Option<Millis>) -> String {
    at.map(show_time).unwrap_or_default()
}

/// A length of time for people, in its two largest units.
pub fn show_length(millis: Millis) -> String {
    let mut rest = millis.max(0);
    let mut parts = Vec::new();
    for (unit, factor) in UNITS.into_iter().rev().filter(|(unit, _)| *unit != "w") {
        if rest >= factor && parts.len() < 2 {
            parts.push(format!("{}{unit}", rest / factor));
            rest %= factor;
        }
    }
    if parts.is_empty() { "0s".to_owned() } else { parts.concat() }
}

/// The wall clock, milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the program's one clock")]
pub fn now() -> Millis {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as Millis)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lengths_of_time() {
        assert_eq!(length("10m"), Ok(600_000));
        assert_eq!(length("1h30m"), Ok(5_400_000));
        assert_eq!(length("500ms"), Ok(500));
        assert_eq!(length("30d"), Ok(30 * 86_400_000));
        for text in ["", "10", "m", "-5m", "1.5h", "10 m", "0s", "9999999999999999w", "1y"] {
            assert!(length(text).is_err(), "{text}");
        }
        assert_eq!(wait("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn sizes() {
        assert_eq!(size("65536"), Ok(65_536));
        assert_eq!(size("64KiB"), Ok(65_536));
        assert_eq!(size("10MiB"), Ok(10 << 20));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        for text in ["", "MiB", "10MB", "1.5MiB", "-1", "10 MiB", "10mib", "99999999999GiB", "much"] {
            assert!(size(text).expect_err("a refusal").contains("10MiB"), "{text}");
        }
    }

    #[test]
    fn points_in_time() {
        assert_eq!(time("1970-01-01T00:00:01Z"), Ok(1000));
        assert_eq!(time("1970-01-01T01:00:00+01:00"), Ok(0));
        assert!(time("in 1d").expect("a time") > now() + 86_000_000);
        assert!((time("90d").expect("a time") - now() - 90 * 86_400_000).abs() < 60_000);
        assert!((now() - time_past("1d").expect("a time") - 86_400_000).abs() < 60_000);
        assert_eq!(time_past("1970-01-01T00:00:01Z"), Ok(1000));
        assert!(time_past("yesterday").is_err());
        assert!(time("tomorrow").is_err() && time("2030-01-31").is_err());
        assert_eq!(show_time(1_700_000_000_123), "2023-11-14T22:13:20Z");
        assert_eq!(show_time(Millis::MAX), "9223372036854775807 ms");
    }

    proptest! {
        #[test]
        fn a_shown_length_is_read_back_to_its_second_unit(millis in 1_i64..1_000_000_000_000) {
            let back = length(&show_length(millis)).expect("a length");
            prop_assert!(back <= millis && millis - back < 86_400_000 / 24 * 2);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = (length(&text), size(&text), time(&text));
        }
    }
}
