//! Sizes and durations as people write them on a command line, and figures as people read them.
#![forbid(unsafe_code)]

use std::time::Duration;

/// Parses a number of bytes: `16384`, `64KiB`, `16MiB`, `1GiB`.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (number, unit) = split_unit(text);
    let shift = match unit {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return Err("a size is a number of bytes, or one with KiB, MiB or GiB".into()),
    };
    let number: usize = number.parse().map_err(|_| "a size is a whole number, such as 16384 or 64KiB")?;
    number.checked_mul(1 << shift).ok_or_else(|| "that is more bytes than a machine can address".into())
}

/// Parses a length of time: `10s`, `500ms`, `250us`, `2m`, `1h`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let micros_per_unit = match unit {
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" => 60_000_000,
        "h" => 3_600_000_000,
        "" if number == "0" => 1,
        _ => return Err("a time is a number with its unit: us, ms, s, m or h".into()),
    };
    let number: u64 = number.parse().map_err(|_| "a time is a whole number with its unit, such as 10s or 500ms")?;
    let micros = number.checked_mul(micros_per_unit).filter(|&micros| micros <= MICROS_MAX);
    micros.map(Duration::from_micros).ok_or_else(|| "a time is at most 365 days".into())
}

/// As [`parse_duration`], and not zero.
pub(crate) fn parse_positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("it must be longer than zero".into()),
        duration => Ok(duration),
    }
}

/// Parses a number per second: `100`, `0.02`.
pub(crate) fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (RATE_MIN..=RATE_MAX).contains(rate));
    rate.ok_or_else(|| "a rate is a number per second above 0, such as 1000 or 0.02".into())
}

/// One in a year, and more than any machine sends.
const RATE_MIN: f64 = 1.0 / (365.0 * 24.0 * 3600.0);
const RATE_MAX: f64 = 1e9;

/// A year: far above any run, far below what overflows when it is added to a clock.
const MICROS_MAX: u64 = 365 * 24 * 3_600_000_000;

fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A count in at most five characters of digits: `999`, `12.3k`, `4.56M`.
pub(crate) fn count(value: f64) -> String {
    let (scaled, suffix) = match value {
        v if v < 1e3 => return if v < 10.0 && v.fract() != 0.0 { format!("{v:.1}") } else { format!("{v:.0}") },
        v if v < 1e6 => (v / 1e3, "k"),
        v if v < 1e9 => (v / 1e6, "M"),
        v => (v / 1e9, "G"),
    };
    three_digits(scaled) + suffix
}

/// Bytes with a binary unit: `512 B`, `1.50 KiB`, `12.3 MiB`.
pub(crate) fn bytes(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v < 1024.0 => return format!("{v:.0} B"),
        v if v < 1024.0 * 1024.0 => (v / 1024.0, " KiB"),
        v if v < 1024.0 * 1024.0 * 1024.0 => (v / (1024.0 * 1024.0), " MiB"),
        v => (v / (1024.0 * 1024.0 * 1024.0), " GiB"),
    };
    three_digits(scaled) + unit
}

/// Microseconds with the unit that suits: `85 us`, `1.25 ms`, `2.00 s`.
pub(crate) fn micros(value: f64) -> String {
    match value {
        v if v < 1e3 => three_digits(v) + " us",
        v if v < 1e6 => three_digits(v / 1e3) + " ms",
        v => three_digits(v / 1e6) + " s",
    }
}

fn three_digits(value: f64) -> String {
    match value {
        v if v < 9.995 => format!("{v:.2}"),
        v if v < 99.95 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_binary_units() {
        assert_eq!(parse_size("0"), Ok(0));
        assert_eq!(parse_size("16384"), Ok(16384));
        assert_eq!(parse_size("64KiB"), Ok(64 << 10));
        assert_eq!(parse_size("16MiB"), Ok(16 << 20));
        for bad in ["", "KiB", "-1", "1.5MiB", "64kb", "64 KiB", "99999999999999999999", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for bad in ["", "10", "s", "1.5s", "-1s", "10 s", "10sec", "999999999999h"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        assert!(parse_positive_duration("0s").is_err());
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(2.5), "2.5");
        assert_eq!(count(999.0), "999");
        assert_eq!(count(248_123.0), "248k");
        assert_eq!(count(3_912_345.0), "3.91M");
        assert_eq!(bytes(512.0), "512 B");
        assert_eq!(bytes(1536.0), "1.50 KiB");
        assert_eq!(micros(85.3), "85.3 us");
        assert_eq!(micros(1_250.0), "1.25 ms");
        assert_eq!(micros(2_000_000.0), "2.00 s");
    }
}
