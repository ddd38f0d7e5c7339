//! The texts of single parts of a key: dates, instants, and strings with their escapes.

use arrow::datatypes::TimeUnit;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime};

/// The first of January 1970, counted from the first of January of the year 1.
const EPOCH_DAY: i32 = 719_163;

pub(super) fn parse_date(text: &str) -> Option<i64> {
    match text.strip_prefix('@') {
        Some(days) => days.parse().ok(),
        None => Some(i64::from(text.parse::<NaiveDate>().ok()?.num_days_from_ce() - EPOCH_DAY)),
    }
}

pub(super) fn date_text(days: i32) -> String {
    let date = days.checked_add(EPOCH_DAY).and_then(NaiveDate::from_num_days_from_ce_opt);
    match date.filter(|date| (1..=9999).contains(&date.year())) {
        Some(date) => date.to_string(),
        None => format!("@{days}"),
    }
}

fn ticks_per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

pub(super) fn timestamp_text(ticks: i64, unit: TimeUnit) -> String {
    let per_second = ticks_per_second(unit);
    let nanos = (ticks.rem_euclid(per_second) * (1_000_000_000 / per_second)) as u32;
    let instant = DateTime::from_timestamp(ticks.div_euclid(per_second), nanos).map(|instant| instant.naive_utc());
    match instant.filter(|instant| (1..=9999).contains(&instant.year())) {
        // `%.f` writes a fraction of three, six or nine digits, or none: as many as it takes.
        Some(instant) => instant.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(),
        None => format!("@{ticks}"),
    }
}

pub(super) fn parse_timestamp(text: &str, unit: TimeUnit) -> Option<i64> {
    if let Some(ticks) = text.strip_prefix('@') {
        return ticks.parse().ok();
    }
    let instant = NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.fZ").ok()?.and_utc();
    let per_second = ticks_per_second(unit);
    let nanos = i64::from(instant.timestamp_subsec_nanos()) / (1_000_000_000 / per_second);
    instant.timestamp().checked_mul(per_second)?.checked_add(nanos)
}

pub(super) fn escape(part: &str, text: &mut String) {
    if part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'@')) {
        text.push_str(part);
        return;
    }
    for character in part.chars() {
        if matches!(character, '%' | '|' | '{' | '}') || character.is_whitespace() || character.is_control() {
            let mut buffer = [0; 4];
            for byte in character.encode_utf8(&mut buffer).bytes() {
                text.push('%');
                text.extend(
                    [byte >> 4, byte & 15]
                        .iter()
                        .filter_map(|digit| char::from_digit(u32::from(*digit), 16))
                        .map(|c| c.to_ascii_uppercase()),
                );
            }
        } else {
            text.push(character);
        }
    }
}

pub(super) fn unescape(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        bytes.push((digit()? * 16 + digit()?) as u8);
    }
    String::from_utf8(bytes).ok()
}
