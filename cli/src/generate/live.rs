//! Live traffic: the same world as history, from now on, at a rate.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use tidemark_engine::plan::Project;
use tidemark_engine::platform::{Datum, Intake};
use tidemark_generators::{Config, Encoder, World};

use super::history::{self, History, Range};
use super::{Made, now};

const TICK: Duration = Duration::from_millis(100);
/// Stretch of time, in microseconds, over which the rate is measured before it starts.
const TRIAL: i64 = 600_000_000;

/// The world's settings for `rate` events a second from `start` on, whatever the hour of the day.
pub fn paced(config: Config, rate: f64, start: i64) -> Result<Config> {
    let scaled = |config: Config, by: f64| Config {
        transactions_per_day: config.transactions_per_day * by,
        clicks_per_day: config.clicks_per_day * by,
        ..config
    };
    let first =
        scaled(config.clone(), rate * 86_400.0 / (config.transactions_per_day + config.clicks_per_day).max(1.0));
    let wanted = rate * TRIAL as f64 / 1e6;
    let found = World::new(first.clone())?.events(start, start + TRIAL).count() as f64;
    Ok(scaled(first, wanted / found.max(1.0)))
}

/// Events of the generators' world, straight into the log or Kafka.
pub struct Traffic {
    world: World,
    encoder: Encoder,
    start: i64,
    end: i64,
}

impl Traffic {
    /// From now on, for a time or until it is dropped.
    pub fn new(project: &Project, config: Config, rate: f64, time: Option<Duration>) -> Result<Self> {
        history::check(project)?;
        let start = now();
        let end = time.map_or(i64::MAX / 4, |time| start.saturating_add(time.as_micros() as i64));
        Ok(Self { world: World::new(paced(config, rate, start)?)?, encoder: Encoder::new()?, start, end })
    }

    pub async fn run(self, intake: &Intake) -> Result<Made> {
        let mut made = History::new(&self.world, Range { from: self.start, to: self.end });
        let mut events = self.world.events(self.start, self.end).peekable();
        while events.peek().is_some() {
            let until = now();
            let mut waiting: BTreeMap<&str, Vec<Datum>> = BTreeMap::new();
            while let Some(event) = events.next_if(|event| event.arrival <= until) {
                let mut bytes = vec![];
                self.encoder.encode(&event.record, &mut bytes)?;
                let batch = waiting.entry(event.source()).or_default();
                batch.push(Datum { at: event.arrival, key: event.key(), bytes });
                made.count(&event);
            }
            for (source, batch) in waiting {
                intake.append(source, batch).await?;
            }
            tokio::time::sleep(TICK).await;
        }
        Ok(made.made())
    }
}

/// Reads a rate from the command line.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse::<f64>().ok().filter(|rate| *rate > 0.0 && *rate <= 1e6);
    rate.ok_or_else(|| "expected events a second, from above 0 to 1000000".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_by_night_and_by_day() {
        for hour in [3, 18] {
            let start = 1_767_225_600_000_000 + hour * 3_600_000_000;
            let world = World::new(paced(Config::default(), 20.0, start).unwrap()).unwrap();
            let found = world.events(start, start + TRIAL).count() as f64 / 600.0;
            assert!((15.0..25.0).contains(&found), "{found} events a second at {hour}:00");
        }
    }
}
