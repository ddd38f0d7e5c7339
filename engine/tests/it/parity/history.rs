//! Some of a world's events as its source's declared history: Parquet files, which no stream reads.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use tidemark_engine::offline::HISTORY;
use tidemark_engine::source::{Contract, event_schema};

use super::events::{CONTRACT, Event, Shape, batch};

/// Bits of an offset that count the rows of a file.
const ROW_BITS: u32 = 32;

/// Makes a part of the events history, those that came first.
pub fn part(rng: &mut ChaCha8Rng, shape: &Shape, events: &mut [Event]) {
    let first = rng.random_range(0..=events.len());
    let files = rng.random_range(1..4);
    let ids: HashSet<String> = events[..first].iter().filter_map(|event| event.id.clone()).collect();
    for (i, event) in events.iter_mut().enumerate() {
        // What comes again comes from where it came before, unless that is meant to be otherwise.
        let again = shape.event_id && !shape.across && event.id.as_ref().is_some_and(|id| ids.contains(id));
        if i < first || again {
            (event.partition, event.offset) = (HISTORY, rng.random_range(0..files) << ROW_BITS);
        }
    }
    events.sort_by_key(|event| (event.partition != HISTORY, if event.partition == HISTORY { event.offset } else { 0 }));
    renumber(shape, events);
}

/// A log numbers its messages without gaps, and a file its rows.
pub fn renumber(shape: &Shape, events: &mut [Event]) {
    let mut next = vec![0i64; shape.partitions as usize];
    let mut rows: BTreeMap<i64, i64> = BTreeMap::new();
    for event in events {
        let file = event.offset >> ROW_BITS;
        let (base, offset) = match event.partition {
            HISTORY => (file << ROW_BITS, rows.entry(file).or_default()),
            partition => (0, &mut next[partition as usize]),
        };
        event.offset = base | *offset;
        *offset += 1;
    }
}

/// Writes the files, and returns the source's option; nothing, if there is no history.
pub fn write(folder: &Path, events: &[Event]) -> &'static str {
    let mut files: BTreeMap<i64, Vec<&Event>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.partition == HISTORY) {
        files.entry(event.offset >> ROW_BITS).or_default().push(event);
    }
    if files.is_empty() {
        return "";
    }
    let contract = Contract::parse("events.v1", CONTRACT).unwrap();
    let columns = contract.columns();
    std::fs::create_dir_all(folder.join("past")).unwrap();
    for (file, events) in files {
        let rows = batch(&events, &event_schema(columns));
        let rows = rows.project(&(0..columns.fields().len()).collect::<Vec<_>>()).unwrap();
        let file = std::fs::File::create(folder.join(format!("past/{file}.parquet"))).unwrap();
        // Of one row each, or of a few.
        let rows_each = 1 + events.len() % 7;
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(rows_each)).build();
        let mut writer = ArrowWriter::try_new(file, Arc::clone(columns), Some(properties)).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
    }
    ", history = 'past/*.parquet'"
}
