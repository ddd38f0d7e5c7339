//! Calendar intervals subtracted from instants, exactly as SQL (arrow, DataFusion) does it in UTC.

use chrono::{DateTime, Months};

use super::spec::Interval;

const DAY: i64 = 86_400_000_000;

impl Interval {
    /// The instant this long before `t`, in microseconds: months first, clamped to the month's end, then days,
    /// then microseconds. Saturates where no instant is so early (or so late).
    pub fn before(&self, t: i64) -> i64 {
        let month = match self.months {
            0 => t,
            months => months_before(t, months),
        };
        saturate(i128::from(month) - i128::from(self.days) * i128::from(DAY) - i128::from(self.micros))
    }

    /// An upper bound of the interval in microseconds: no month is longer than 31 days. Never negative.
    pub fn longest_micros(&self) -> i64 {
        let days_of_month = if self.months < 0 { 28 } else { 31 };
        let days = i128::from(self.months) * days_of_month + i128::from(self.days);
        saturate(days * i128::from(DAY) + i128::from(self.micros)).max(0)
    }
}

fn months_before(t: i64, months: i32) -> i64 {
    let back = Months::new(months.unsigned_abs());
    let moved = DateTime::from_timestamp_micros(t).and_then(|instant| {
        if months > 0 { instant.checked_sub_months(back) } else { instant.checked_add_months(back) }
    });
    match moved {
        Some(instant) => instant.timestamp_micros(),
        // Outside the calendar that chrono knows: as far as an instant goes.
        None if months > 0 => i64::MIN,
        None => i64::MAX,
    }
}

fn saturate(micros: i128) -> i64 {
    micros.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, AsArray, IntervalMonthDayNanoArray, TimestampMicrosecondArray};
    use arrow::compute::kernels::numeric::sub;
    use arrow::datatypes::{IntervalMonthDayNano, TimestampMicrosecondType};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use std::sync::Arc;

    #[test]
    fn subtracts_as_arrow_does() {
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for case in 0..5_000 {
            // Years 1770 to 2170, often at the end of a month.
            let mut t = random.random_range(-6_300_000_000_000_000..6_300_000_000_000_000i64);
            if case % 3 == 0 {
                let months = random.random_range(0..600);
                t = Interval { months, days: 1, micros: -random.random_range(0..DAY) }.before(0);
            }
            let interval = Interval {
                months: if case % 2 == 0 { random.random_range(-30..200) } else { 0 },
                days: random.random_range(-40..400),
                micros: random.random_range(-DAY..5 * DAY),
            };
            let times: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![t]).with_timezone("UTC"));
            let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(
                interval.months,
                interval.days,
                interval.micros * 1000,
            )]));
            let expected = sub(&times, &intervals).unwrap();
            let expected = expected.as_primitive::<TimestampMicrosecondType>().value(0);
            assert_eq!(interval.before(t), expected, "case {case}: {interval:?} before {t}");
            assert!(interval.before(t) >= t.saturating_sub(interval.longest_micros()), "case {case}: {interval:?}");
        }
    }

    #[test]
    fn saturates() {
        let age = Interval { months: 1, days: 0, micros: 0 };
        assert_eq!(age.before(i64::MIN), i64::MIN);
        assert_eq!(Interval { months: 0, days: i32::MAX, micros: i64::MAX }.before(i64::MIN), i64::MIN);
        assert_eq!(Interval { months: 0, days: 0, micros: -5 }.before(i64::MAX), i64::MAX);
    }
}
