use crate::{DAY, Error, HOUR, MINUTE, Result};

/// What a world is made of. The default suits a laptop: about 300,000 events in thirty days.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Everything follows from it: the same seed and settings give the same world and the same events.
    pub seed: u64,
    /// Number of customers, with ids from 1.
    pub users: u32,
    /// Number of merchants, with ids from 1.
    pub merchants: u32,
    /// Mean number of transactions a day, duplicates not counted; rhythm moves it within a day and a week.
    pub transactions_per_day: f64,
    /// Mean number of clicks a day, duplicates and the clicks of account takeovers not counted.
    pub clicks_per_day: f64,
    /// Zipf exponent of how often each customer is active: 0 makes all alike.
    pub user_skew: f64,
    /// Zipf exponent of how popular each merchant is.
    pub merchant_skew: f64,
    /// Share of transactions that are fraudulent, from 0 to 0.5.
    pub fraud_share: f64,
    /// Share of events that arrive late (2 seconds up to `max_delay`); the others take at most 2 seconds.
    pub late_share: f64,
    /// Longest time between an event and its arrival, duplicates included, in microseconds.
    pub max_delay: i64,
    /// Share of events that arrive a second time, later, unchanged.
    pub duplicates: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 42,
            users: 1_000,
            merchants: 300,
            transactions_per_day: 4_000.0,
            clicks_per_day: 6_000.0,
            user_skew: 0.6,
            merchant_skew: 0.9,
            fraud_share: 0.02,
            late_share: 0.05,
            max_delay: 2 * HOUR,
            duplicates: 0.0,
        }
    }
}

impl Config {
    /// Checks every setting's range; the error names the first that is out of it.
    pub(crate) fn validate(&self) -> Result<()> {
        check("users", self.users, (2..=10_000_000).contains(&self.users), "2 to 10,000,000")?;
        check("merchants", self.merchants, (2..=10_000_000).contains(&self.merchants), "2 to 10,000,000")?;
        let rate = 0.0..=1e12;
        check(
            "transactions_per_day",
            self.transactions_per_day,
            rate.contains(&self.transactions_per_day),
            "0 to 1e12",
        )?;
        check("clicks_per_day", self.clicks_per_day, rate.contains(&self.clicks_per_day), "0 to 1e12")?;
        let skew = 0.0..=3.0;
        check("user_skew", self.user_skew, skew.contains(&self.user_skew), "a Zipf exponent from 0 to 3")?;
        check("merchant_skew", self.merchant_skew, skew.contains(&self.merchant_skew), "a Zipf exponent from 0 to 3")?;
        check("fraud_share", self.fraud_share, (0.0..=0.5).contains(&self.fraud_share), "a share from 0 to 0.5")?;
        check("late_share", self.late_share, (0.0..=1.0).contains(&self.late_share), "a share from 0 to 1")?;
        check("duplicates", self.duplicates, (0.0..=1.0).contains(&self.duplicates), "a share from 0 to 1")?;
        let delay = MINUTE..=30 * DAY;
        check("max_delay", self.max_delay, delay.contains(&self.max_delay), "microseconds, one minute to thirty days")
    }
}

fn check(field: &'static str, value: impl ToString, ok: bool, expected: &'static str) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::Setting { field, value: value.to_string(), expected }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_bad_settings_are_named() {
        Config::default().validate().unwrap();
        let cases: [(&str, Config); 5] = [
            ("users", Config { users: 1, ..Config::default() }),
            ("transactions_per_day", Config { transactions_per_day: f64::NAN, ..Config::default() }),
            ("fraud_share", Config { fraud_share: 0.6, ..Config::default() }),
            ("duplicates", Config { duplicates: -0.1, ..Config::default() }),
            ("max_delay", Config { max_delay: 0, ..Config::default() }),
        ];
        for (field, config) in cases {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.contains(&format!("`{field}`")), "{message}");
        }
    }
}
