//! Events pushed to a running platform.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value as Json, json};
use tidemark_generators::{Config, Event, World};

use super::history::{History, Range};
use super::{Made, live, now};
use crate::client::Client;
use crate::console::{Progress, count};

/// Events in one request.
const CHUNK: usize = 500;
/// The least time between two requests of live traffic.
const TICK: Duration = Duration::from_millis(100);

/// Pushes history, as fast as the platform takes it.
pub fn history(url: &str, world: &World, range: Range) -> Result<Made> {
    let mut push = Push::new(url);
    let mut history = History::new(world, range);
    for event in world.events(range.from, range.to) {
        push.take(&event)?;
        history.note(event);
    }
    push.flush()?;
    Ok(Made { refused: push.refused, reason: push.reason, ..history.made() })
}

/// Pushes events as they happen.
pub fn live(url: &str, config: Config, rate: f64, time: Option<Duration>) -> Result<Made> {
    let start = now();
    let end = time.map_or(i64::MAX / 4, |time| start.saturating_add(time.as_micros() as i64));
    let world = World::new(live::paced(config, rate, start)?)?;
    let mut push = Push::new(url);
    let mut history = History::new(&world, Range { from: start, to: end });
    for event in world.events(start, end) {
        let wait = event.arrival - now();
        if wait > 0 {
            push.flush()?;
            std::thread::sleep(Duration::from_micros(wait as u64).max(TICK));
        }
        push.take(&event)?;
        history.note(event);
    }
    push.flush()?;
    Ok(Made { refused: push.refused, reason: push.reason, ..history.made() })
}

struct Push {
    client: Client,
    waiting: BTreeMap<&'static str, Vec<Json>>,
    sent: u64,
    refused: u64,
    reason: Option<String>,
    progress: Progress,
}

impl Push {
    fn new(url: &str) -> Self {
        Self {
            client: Client::new(url),
            waiting: BTreeMap::new(),
            sent: 0,
            refused: 0,
            reason: None,
            progress: Progress::new(),
        }
    }

    fn take(&mut self, event: &Event) -> Result<()> {
        let batch = self.waiting.entry(event.source()).or_default();
        batch.push(event.to_json()?);
        if batch.len() >= CHUNK {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        for (source, events) in std::mem::take(&mut self.waiting) {
            let n = events.len() as u64;
            let answer = self.client.push(source, &json!({ "events": events }))?;
            self.sent += n;
            self.refused += answer.refused;
            self.reason = self.reason.take().or(answer.reason);
            self.progress.show(&format!("{} events sent", count(self.sent)));
        }
        Ok(())
    }
}
