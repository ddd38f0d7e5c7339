//! How busy an hour of the week is, against the mean hour: quiet nights, a noon and an evening peak, full Fridays.

use crate::{DAY, HOUR};

const HOURS: [f64; 24] = [
    0.35, 0.22, 0.15, 0.12, 0.14, 0.25, 0.50, 0.80, 1.00, 1.10, 1.20, 1.40, 1.60, 1.45, 1.25, 1.25, 1.40, 1.65, 1.80,
    1.75, 1.50, 1.15, 0.80, 0.55,
];
/// From Monday.
const DAYS: [f64; 7] = [0.90, 0.92, 0.95, 1.05, 1.25, 1.15, 0.78];

/// The rate in the hour that holds `instant`, relative to the week's mean of exactly 1.
pub(crate) fn rhythm(instant: i64) -> f64 {
    let hour = instant.rem_euclid(DAY) / HOUR;
    // 1970-01-01 was a Thursday.
    let day = (instant.div_euclid(DAY) + 3).rem_euclid(7);
    let scale = (24.0 / HOURS.iter().sum::<f64>()) * (7.0 / DAYS.iter().sum::<f64>());
    HOURS[hour as usize] * DAYS[day as usize] * scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_means_one_before_and_after_the_epoch() {
        for start in [0, -10 * DAY] {
            let mean = (0..168).map(|hour| rhythm(start + hour * HOUR)).sum::<f64>() / 168.0;
            assert!((mean - 1.0).abs() < 1e-9, "{mean}");
        }
    }

    #[test]
    fn evenings_beat_nights_and_fridays_beat_sundays() {
        let friday = DAY; // 1970-01-02
        assert!(rhythm(friday + 18 * HOUR) > 10.0 * rhythm(friday + 3 * HOUR));
        assert!(rhythm(friday + 12 * HOUR) > 1.4 * rhythm(friday + 2 * DAY + 12 * HOUR));
    }
}
