//! History as files, one a day and stream, in the order of arrival:
//!
//! ```text
//! <out>/merchants.parquet
//! <out>/labels.parquet
//! <out>/transactions/2026-01-31.parquet
//! <out>/clicks/2026-01-31.parquet
//! ```
//!
//! A file holds what *arrived* on its (UTC) day, so its first rows may have happened the day before. Existing files of
//! the same name are replaced; a file appears under its name only when it is whole.

mod batches;
mod files;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use chrono::DateTime;

pub use batches::{clicks_batch, labels_batch, merchants_batch, transactions_batch};

use crate::record::rfc3339;
use crate::{CLICKS, Click, DAY, Error, Event, Record, Result, TRANSACTIONS, Transaction, World};
use files::{ClickFile, ParquetFile, TransactionFile};

/// Rows that are handed to a file at once.
const CHUNK: usize = 8_192;

/// How event files are written. The tables beside them are always Parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    #[default]
    Parquet,
    /// Avro object container files with the contract as their schema.
    Avro,
    /// One JSON object a line, times as RFC 3339.
    NdJson,
}

impl Format {
    /// The name on the command line, and the files' extension.
    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Avro => "avro",
            Self::NdJson => "ndjson",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Parquet, Self::Avro, Self::NdJson]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| Error::Format { value: text.to_owned() })
    }
}

/// How far a history is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub days_done: u64,
    pub days: u64,
    /// Events written so far, duplicates included.
    pub events: u64,
}

/// What a history holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows in the transaction files, duplicates included.
    pub transactions: u64,
    /// Rows in the click files, duplicates included.
    pub clicks: u64,
    /// Rows of both that repeat an earlier record.
    pub duplicates: u64,
    /// Rows in the labels table: one for each transaction that first arrived in the range.
    pub labels: u64,
    /// Labels that say fraud.
    pub frauds: u64,
    pub merchants: u64,
    /// Every file written: tables, then events in the order of days.
    pub files: Vec<PathBuf>,
}

/// Writes every event that arrives at `from <= arrival < to` (microseconds UTC), the merchants and the labels under
/// `out`, and calls `progress` after each day.
pub fn write_history(
    world: &World,
    from: i64,
    to: i64,
    out: &Path,
    format: Format,
    mut progress: impl FnMut(Progress),
) -> Result<Summary> {
    if to <= from {
        return Err(Error::EmptyRange { from: rfc3339(from), to: rfc3339(to) });
    }
    date(from)?;
    date(to)?;
    for folder in [TRANSACTIONS, CLICKS] {
        let path = out.join(folder);
        fs::create_dir_all(&path).map_err(|source| Error::File { action: "create the folder", path, source })?;
    }

    let merchants = out.join("merchants.parquet");
    let mut file = ParquetFile::create(&merchants, merchants_batch(world)?.schema())?;
    file.write(&merchants_batch(world)?)?;
    file.finish()?;

    let labels = out.join("labels.parquet");
    let mut labels_file = ParquetFile::create(&labels, labels_batch(&[])?.schema())?;

    let mut summary =
        Summary { merchants: world.merchants().len() as u64, files: vec![merchants, labels], ..Summary::default() };
    let first_day = from.div_euclid(DAY);
    let days = ((to - 1).div_euclid(DAY) - first_day + 1) as u64;
    let mut events = world.events(from, to).peekable();
    for done in 1..=days {
        let end = (first_day + done as i64) * DAY;
        let mut day = Day::create(out, &date(end - DAY)?, format, &mut labels_file)?;
        while let Some(event) = events.next_if(|event| event.arrival < end) {
            day.write(event, &mut summary)?;
        }
        summary.files.extend(day.finish()?);
        progress(Progress { days_done: done, days, events: summary.transactions + summary.clicks });
    }
    labels_file.finish()?;
    Ok(summary)
}

/// The files of one day.
struct Day<'a> {
    transactions: TransactionFile,
    clicks: ClickFile,
    labels: &'a mut ParquetFile,
    waiting_transactions: Vec<Transaction>,
    waiting_labels: Vec<Transaction>,
    waiting_clicks: Vec<Click>,
}

impl<'a> Day<'a> {
    fn create(out: &Path, date: &str, format: Format, labels: &'a mut ParquetFile) -> Result<Self> {
        let path = |folder: &str| out.join(folder).join(format!("{date}.{format}"));
        Ok(Self {
            transactions: TransactionFile::create(&path(TRANSACTIONS), format)?,
            clicks: ClickFile::create(&path(CLICKS), format)?,
            labels,
            waiting_transactions: Vec::new(),
            waiting_labels: Vec::new(),
            waiting_clicks: Vec::new(),
        })
    }

    fn write(&mut self, event: Event, summary: &mut Summary) -> Result<()> {
        summary.duplicates += u64::from(event.duplicate);
        match event.record {
            Record::Transaction(transaction) => {
                summary.transactions += 1;
                if !event.duplicate {
                    summary.labels += 1;
                    summary.frauds += u64::from(transaction.is_fraud);
                    self.waiting_labels.push(transaction.clone());
                }
                self.waiting_transactions.push(transaction);
                if self.waiting_transactions.len() == CHUNK {
                    self.flush_transactions()?;
                }
            }
            Record::Click(click) => {
                summary.clicks += 1;
                self.waiting_clicks.push(click);
                if self.waiting_clicks.len() == CHUNK {
                    self.flush_clicks()?;
                }
            }
        }
        Ok(())
    }

    fn flush_transactions(&mut self) -> Result<()> {
        self.transactions.write(&self.waiting_transactions)?;
        self.waiting_transactions.clear();
        self.labels.write(&labels_batch(&self.waiting_labels)?)?;
        self.waiting_labels.clear();
        Ok(())
    }

    fn flush_clicks(&mut self) -> Result<()> {
        self.clicks.write(&self.waiting_clicks)?;
        self.waiting_clicks.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<[PathBuf; 2]> {
        self.flush_transactions()?;
        self.flush_clicks()?;
        Ok([self.transactions.finish()?, self.clicks.finish()?])
    }
}

/// The UTC date of an instant, `2026-01-31`.
fn date(micros: i64) -> Result<String> {
    let instant = DateTime::from_timestamp_micros(micros).ok_or(Error::Instant { micros })?;
    Ok(instant.format("%Y-%m-%d").to_string())
}
