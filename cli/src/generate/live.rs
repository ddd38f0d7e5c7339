//! Live traffic: the same world as history, from now on, at a rate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tidemark_engine::embedded::Embedded;
use tidemark_engine::plan::Project;
use tidemark_generators::{Config, Encoder, World};
use tokio::sync::watch;

use super::{history, now};

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

/// Events of the generators' world, straight into the log.
pub struct Traffic {
    world: World,
    encoder: Encoder,
    start: i64,
}

impl Traffic {
    pub fn new(project: &Project, rate: f64) -> Result<Self> {
        history::check(project)?;
        let start = now();
        Ok(Self { world: World::new(paced(Config::default(), rate, start)?)?, encoder: Encoder::new()?, start })
    }

    pub async fn run(self, platform: Arc<Embedded>, mut stopped: watch::Receiver<bool>) -> Result<&'static str> {
        let mut events = self.world.events(self.start, i64::MAX / 4).peekable();
        loop {
            let until = now();
            let mut waiting: BTreeMap<&str, Vec<(i64, Vec<u8>)>> = BTreeMap::new();
            while let Some(event) = events.next_if(|event| event.arrival <= until) {
                let mut datum = vec![];
                self.encoder.encode(&event.record, &mut datum)?;
                waiting.entry(event.source()).or_default().push((event.arrival, datum));
            }
            for (source, batch) in waiting {
                platform.append(source, batch).await?;
            }
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => return Ok("the generator"),
                () = tokio::time::sleep(TICK) => {}
            }
        }
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
