//! History into the embedded log or Kafka, with the tables that go with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, bail};
use tidemark_engine::plan::Project;
use tidemark_engine::platform::{Datum, Intake};
use tidemark_generators::{
    CLICKS, Encoder, Event, Record, TRANSACTIONS, Transaction, World, labels_batch, merchants_batch,
};
use tidemark_training::ParquetFile;

use super::Made;
use crate::console::{Progress, count};

/// Events appended at once.
const CHUNK: usize = 10_000;

/// Arrival times: `from <= arrival < to`, microseconds UTC.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    pub from: i64,
    pub to: i64,
}

/// A history on its way.
pub struct History<'w> {
    world: &'w World,
    range: Range,
    labels: Vec<Transaction>,
    made: Made,
}

impl<'w> History<'w> {
    pub fn new(world: &'w World, range: Range) -> Self {
        Self {
            world,
            range,
            labels: vec![],
            made: Made { merchants: world.merchants().len() as u64, ..Made::default() },
        }
    }

    /// Appends every event, as if it had come in at its arrival time.
    pub async fn append(&mut self, intake: &Intake) -> Result<()> {
        let encoder = Encoder::new()?;
        let mut progress = Progress::new();
        let mut waiting: BTreeMap<&str, Vec<Datum>> = BTreeMap::new();
        for event in self.world.events(self.range.from, self.range.to) {
            let mut bytes = vec![];
            encoder.encode(&event.record, &mut bytes)?;
            let batch = waiting.entry(event.source()).or_default();
            batch.push(Datum { at: event.arrival, key: event.key(), bytes });
            let source = event.source();
            if batch.len() == CHUNK {
                intake.append(source, std::mem::take(batch)).await?;
                progress.show(&format!("{} events", count(self.made.transactions + self.made.clicks)));
            }
            self.note(event);
        }
        for (source, batch) in waiting {
            intake.append(source, batch).await?;
        }
        Ok(())
    }

    /// Counts an event, and keeps its label.
    pub fn note(&mut self, event: Event) {
        self.count(&event);
        if let (Record::Transaction(transaction), false) = (event.record, event.duplicate) {
            self.labels.push(transaction);
        }
    }

    /// Counts an event: traffic without end has no table of labels.
    pub fn count(&mut self, event: &Event) {
        self.made.duplicates += u64::from(event.duplicate);
        match &event.record {
            Record::Click(_) => self.made.clicks += 1,
            Record::Transaction(transaction) => {
                self.made.transactions += 1;
                self.made.labels += u64::from(!event.duplicate);
                self.made.frauds += u64::from(!event.duplicate && transaction.is_fraud);
            }
        }
    }

    /// Writes merchants and labels where the project's tables of these names look for them.
    pub fn write_tables(mut self, project: &Project) -> Result<Made> {
        for (name, batch) in [("merchants", merchants_batch(self.world)?), ("labels", labels_batch(&self.labels)?)] {
            let path = table_file(project, name);
            let mut file = ParquetFile::create(&path, batch.schema(), vec![])?;
            file.write(&batch)?;
            file.finish()?;
            self.made.files.push(path);
        }
        Ok(self.made)
    }

    /// Without tables: what a running platform joins is its own.
    pub fn made(self) -> Made {
        self.made
    }
}

/// Whether the project takes the generators' events.
pub fn check(project: &Project) -> Result<()> {
    for (name, contract) in [(TRANSACTIONS, "transactions.v1"), (CLICKS, "clicks.v1")] {
        match project.sources.get(name) {
            Some(source) if source.contract.as_ref().is_some_and(|c| c.name() == contract) => {}
            Some(_) => {
                bail!("source `{name}` has another contract than the generator's; expected schema = '{contract}'")
            }
            None => bail!(
                "the generator makes events of the sources {TRANSACTIONS} and {CLICKS}; the project has no source `{name}`"
            ),
        }
    }
    Ok(())
}

fn table_file(project: &Project, name: &str) -> PathBuf {
    let declared = project.tables.get(name).map(|table| PathBuf::from(&table.location));
    declared
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .unwrap_or_else(|| project.root.join("data").join(format!("{name}.parquet")))
}
