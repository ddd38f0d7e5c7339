//! Durations in options: `'5 minutes'`, `'90 s'`, `'1 day 12 hours'`.

/// Why a text isn't a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    #[error("a duration is empty")]
    Empty,
    #[error("`{0}` in a duration isn't a whole number")]
    Number(String),
    #[error("`{0}` in a duration has no unit")]
    NoUnit(String),
    #[error("`{0}` isn't a unit of time")]
    Unit(String),
    #[error("a month or a year has no fixed length")]
    Calendar,
    #[error("the duration is too long")]
    TooLong,
}

/// What [`parse_duration`] reads, for messages.
pub const EXPECTED: &str = "a duration: whole numbers with units (us, ms, seconds, minutes, hours, days, weeks), such as '5 minutes' or '1 day 12 hours'";

const UNITS: [(i64, &[&str]); 7] = [
    (1, &["us", "µs", "microsecond", "microseconds"]),
    (1_000, &["ms", "millisecond", "milliseconds"]),
    (1_000_000, &["s", "sec", "secs", "second", "seconds"]),
    (60_000_000, &["m", "min", "mins", "minute", "minutes"]),
    (3_600_000_000, &["h", "hr", "hrs", "hour", "hours"]),
    (86_400_000_000, &["d", "day", "days"]),
    (604_800_000_000, &["w", "week", "weeks"]),
];

/// Reads a duration as microseconds, never negative.
pub fn parse_duration(text: &str) -> Result<i64, DurationError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(DurationError::Empty);
    }
    let mut total: i64 = 0;
    while !rest.is_empty() {
        let (number, after) = split_at_first(rest, |c| c.is_alphabetic() || c.is_whitespace());
        let (unit, after) = split_at_first(after.trim_start(), |c| !c.is_alphabetic());
        let count: i64 = match number.parse::<i64>() {
            Ok(count) if number.bytes().all(|b| b.is_ascii_digit()) => count,
            _ if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(DurationError::TooLong);
            }
            _ => return Err(DurationError::Number(if number.is_empty() { unit } else { number }.to_owned())),
        };
        let micros = unit_micros(number, unit)?;
        total = count.checked_mul(micros).and_then(|part| total.checked_add(part)).ok_or(DurationError::TooLong)?;
        rest = after.trim_start();
    }
    Ok(total)
}

fn unit_micros(number: &str, unit: &str) -> Result<i64, DurationError> {
    if unit.is_empty() {
        return Err(DurationError::NoUnit(number.to_owned()));
    }
    let name = unit.to_lowercase();
    match UNITS.iter().find(|(_, names)| names.contains(&name.as_str())) {
        Some((micros, _)) => Ok(*micros),
        None if ["mon", "month", "months", "y", "yr", "year", "years"].contains(&name.as_str()) => {
            Err(DurationError::Calendar)
        }
        None => Err(DurationError::Unit(unit.to_owned())),
    }
}

fn split_at_first(text: &str, stop: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(stop).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_with_units() {
        let minute = 60_000_000;
        for (text, micros) in [
            ("5 minutes", 5 * minute),
            ("1 hour", 60 * minute),
            ("90 s", 90_000_000),
            ("90s", 90_000_000),
            (" 1 day 12 hours ", 36 * 60 * minute),
            ("1D12H", 36 * 60 * minute),
            ("2 weeks", 14 * 24 * 60 * minute),
            ("250 ms", 250_000),
            ("7 µs", 7),
            ("0 s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(micros), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        use DurationError::*;
        for (text, error) in [
            ("", Empty),
            ("  ", Empty),
            ("hour", Number("hour".into())),
            ("-1 hour", Number("-1".into())),
            ("+1 hour", Number("+1".into())),
            ("1.5 hours", Number("1.5".into())),
            ("5", NoUnit("5".into())),
            ("1 hour 5", NoUnit("5".into())),
            ("5 fortnights", Unit("fortnights".into())),
            ("1 month", Calendar),
            ("99999999999999999999 s", TooLong),
            ("9999999999999 weeks", TooLong),
            ("106751991 days 106751991 days", TooLong),
            ("1 hour, 2 minutes", Number(",".into())),
            ("五 s", Number("五".into())),
        ] {
            assert_eq!(parse_duration(text), Err(error), "{text}");
        }
    }
}
