//! Which event times are believed, and how they are written.

/// Why an event time is refused, if it is: it is missing, or too far in the future of its ingestion.
pub(super) fn refuse_time(column: &str, time: Option<i64>, ingested_at: i64, max_future: i64) -> Option<String> {
    match time {
        None => Some(format!("\"{column}\" is NULL; expected the event's time")),
        Some(time) if time > ingested_at.saturating_add(max_future) => Some(format!(
            "\"{column}\" is {}, later than its ingestion at {} by more than the {} seconds that are allowed; \
             hint: check the producer's clock, and that its unit is what the contract says",
            instant(time),
            instant(ingested_at),
            max_future / 1_000_000
        )),
        Some(_) => None,
    }
}

/// An instant as RFC 3339, or as a number where no calendar reaches.
pub fn instant(micros: i64) -> String {
    match chrono::DateTime::from_timestamp_micros(micros) {
        Some(time) => time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true),
        None => format!("{micros} µs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_refused_beyond_the_limit_only() {
        let refused = |time| refuse_time("at", time, 1_000_000, 500_000);
        assert_eq!(refused(Some(1_500_000)), None);
        assert_eq!(refused(Some(i64::MIN)), None);
        let reason = refused(Some(1_500_001)).unwrap();
        assert!(reason.contains("\"at\" is 1970-01-01T00:00:01.500001Z, later than"), "{reason}");
        assert!(refused(Some(i64::MAX)).unwrap().contains("9223372036854775807 µs"));
        assert!(refused(None).unwrap().contains("NULL"));
        assert_eq!(refuse_time("at", Some(i64::MAX), i64::MAX, 1), None);
    }
}
