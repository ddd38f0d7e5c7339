//! What every event source must do, as a suite that any implementation runs.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int32Type, Int64Type};

use super::{EventSource, META_COLUMNS, OFFSET, PARTITION, Reject};

/// A wait that takes longer than this has missed its event.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the suite on a source that holds `events` events and `rejects` rejects and nothing else; the error says which
/// promise is broken. `add` adds one more event to a partition that there is.
pub async fn run(
    source: &mut dyn EventSource,
    events: usize,
    rejects: usize,
    add: impl AsyncFnOnce() -> Result<(), String>,
) -> Result<(), String> {
    let schema = source.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    same("the last columns", names.split_at(names.len() - 3).1, &META_COLUMNS)?;

    let whole = read_all(source, 1000).await?;
    same("events", whole.values().map(|all| all.events.num_rows()).sum(), events)?;
    same("rejects", whole.values().map(|all| all.rejects.len()).sum(), rejects)?;
    for size in [1, 2, 7] {
        let again = read_all(source, size).await?;
        same(&format!("read in batches of {size}"), &again, &whole)?;
    }
    for (partition, all) in &whole {
        same("end offset", source.end_offset(*partition).await.map_err(text)?, all.end)?;
        let beyond = source.read(*partition, all.end, 10).await.map_err(text)?;
        same("nothing at the end", beyond.is_none(), true)?;
        for from in &all.starts {
            let rest = read_from(source, *partition, *from, 5).await?;
            let before = offsets(&all.events).iter().take_while(|offset| *offset < from).count();
            let expected = all.events.slice(before, all.events.num_rows() - before);
            same(&format!("events from {from}"), &rest.events, &expected)?;
            let expected: Vec<Reject> = all.rejects.iter().filter(|r| r.offset >= *from).cloned().collect();
            same(&format!("rejects from {from}"), &rest.rejects, &expected)?;
        }
    }

    add().await?;
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            for (partition, all) in &whole {
                if let Some(batch) = source.read(*partition, all.end, 10).await.map_err(text)? {
                    return Ok::<usize, String>(batch.events.num_rows());
                }
            }
            source.wait().await;
        }
    });
    let found = found.await.map_err(|_| format!("wait: nothing new within {PATIENCE:?}"))??;
    same("events after one more", found, 1)
}

/// All of a partition.
#[derive(Debug, PartialEq)]
struct Whole {
    events: RecordBatch,
    rejects: Vec<Reject>,
    end: i64,
    /// Where events and rejects are: reading from each must work. Not a matter of batch sizes.
    starts: Vec<i64>,
}

async fn read_all(source: &mut dyn EventSource, size: usize) -> Result<BTreeMap<i32, Whole>, String> {
    let partitions = source.partitions().await.map_err(text)?;
    same("partitions ascend", partitions.is_sorted_by(|a, b| a < b), true)?;
    let mut all = BTreeMap::new();
    for partition in partitions {
        all.insert(partition, read_from(source, partition, 0, size).await?);
    }
    Ok(all)
}

async fn read_from(source: &mut dyn EventSource, partition: i32, from: i64, size: usize) -> Result<Whole, String> {
    let (mut at, mut batches, mut rejects) = (from, Vec::new(), Vec::new());
    while let Some(batch) = source.read(partition, at, size).await.map_err(text)? {
        let here = || format!("partition {partition}, read of {size} from {at}");
        same(&format!("{}: partition", here()), batch.partition, partition)?;
        same(&format!("{}: schema", here()), batch.events.schema(), source.schema())?;
        let moves = batch.first_offset >= at && batch.next_offset > at;
        same(&format!("{}: moves on", here()), moves, true)?;
        same(&format!("{}: size kept", here()), batch.events.num_rows() + batch.rejects.len() <= size, true)?;
        let inside = |offset: &i64| (batch.first_offset..batch.next_offset).contains(offset);
        let offsets = offsets(&batch.events);
        let refused: Vec<i64> = batch.rejects.iter().map(|reject| reject.offset).collect();
        same(&format!("{}: inside", here()), offsets.iter().chain(&refused).all(inside), true)?;
        let ascend = offsets.is_sorted_by(|a, b| a < b) && refused.is_sorted_by(|a, b| a < b);
        same(&format!("{}: ascending", here()), ascend, true)?;
        same(&format!("{}: reasons", here()), batch.rejects.iter().any(|reject| reject.reason.is_empty()), false)?;
        let partitions = batch.events.column_by_name(PARTITION).map(|column| column.as_primitive::<Int32Type>());
        let own = partitions.is_some_and(|values| values.values().iter().all(|value| *value == partition));
        same(&format!("{}: {PARTITION}", here()), own, true)?;
        at = batch.next_offset;
        batches.push(batch.events);
        rejects.extend(batch.rejects);
    }
    let events = concat_batches(&source.schema(), &batches).map_err(|e| e.to_string())?;
    let mut starts = offsets(&events);
    starts.extend(rejects.iter().map(|reject| reject.offset));
    starts.sort_unstable();
    Ok(Whole { events, rejects, end: at, starts })
}

fn offsets(events: &RecordBatch) -> Vec<i64> {
    let column = events.column_by_name(OFFSET).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.map(|values| values.values().to_vec()).unwrap_or_default()
}

fn text(e: super::SourceError) -> String {
    e.to_string()
}

fn same<T: PartialEq + Debug>(what: &str, found: T, expected: T) -> Result<(), String> {
    if found == expected { Ok(()) } else { Err(format!("{what}: found {found:?}, expected {expected:?}")) }
}
