//! Rows of a batch by their keys.
//!
//! Guarantee: each key's rows stand together, as they came, and keys in their order: stores write neighbours together.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat, interleave, take};
use arrow::datatypes::Int64Type;
use datafusion::common::Result as DfResult;

use super::error::StreamError;
use super::share::{Batch, Group};
use crate::kernel::{EntityKey, EventRows, encode_keys};
use crate::plan::FeatureView;
use crate::plan::rows::ViewRows;

/// Rows in the order of their keys, and where each key's are.
pub(super) struct Grouped {
    pub batch: Arc<Batch>,
    pub groups: Vec<Group>,
    /// Rows that have no key.
    pub null_keys: usize,
}

/// Rows of a partition: they stay where they are, and each share takes its own.
pub(super) fn group(view: &FeatureView, rows: ViewRows, partition: i32) -> Result<Grouped, StreamError> {
    let Order { by_key, groups, null_keys } = order(view, &rows.keys)?;
    let ViewRows { times, offsets, ids, columns, .. } = rows;
    let rows = EventRows { times, partition, offsets, ids, columns };
    Ok(Grouped { batch: Arc::new(Batch { rows, by_key: Some(by_key) }), groups, null_keys })
}

/// Rows of a partition that lie in batches as [`FeatureView::rows_schema`] has them: they are gathered in their order.
pub(super) fn gather(view: &FeatureView, batches: &[RecordBatch], partition: i32) -> Result<Grouped, StreamError> {
    let failed = |source| StreamError::View { view: view.name.clone(), source };
    let keys: DfResult<Vec<_>> = (0..view.keys.len()).map(|key| Ok(concat(&parts(batches, key))?)).collect();
    let order = order(view, &keys.map_err(failed)?)?;
    let rows = gathered(view, batches, partition, &order).map_err(failed)?;
    Ok(Grouped { batch: Arc::new(Batch { rows, by_key: None }), groups: order.groups, null_keys: order.null_keys })
}

/// In which order rows are, and whose they are.
struct Order {
    by_key: Vec<u32>,
    groups: Vec<Group>,
    null_keys: usize,
}

fn order(view: &FeatureView, keys: &[ArrayRef]) -> Result<Order, StreamError> {
    let keys = encode_keys(keys);
    let keys = keys.map_err(|source| StreamError::Kernel { view: view.name.clone(), source })?;
    let (distinct, places) = (keys.distinct(), keys.places());
    let mut counts = vec![0; distinct.len()];
    places.iter().flatten().for_each(|key| counts[*key as usize] += 1);
    // Most keys differ in their first bytes: to look at all of each would take longer than the rest.
    let keys = (0..distinct.len()).filter(|key| counts[*key] > 0);
    let mut order: Vec<(u64, usize)> = keys.map(|key| (first_bytes(&distinct[key]), key)).collect();
    order.sort_unstable_by(|(a, of_a), (b, of_b)| a.cmp(b).then_with(|| distinct[*of_a].cmp(&distinct[*of_b])));
    let mut next = vec![0; distinct.len()];
    let mut keyed = 0;
    for (_, key) in &order {
        next[*key] = keyed;
        keyed += counts[*key];
    }
    let mut by_key = vec![0; keyed];
    for (row, key) in (0u32..).zip(places) {
        let Some(key) = key else { continue };
        let place = &mut next[*key as usize];
        by_key[*place] = row;
        *place += 1;
    }
    let groups = order.iter().map(|(_, key)| (distinct[*key].clone(), next[*key] - counts[*key]..next[*key]));
    Ok(Order { groups: groups.collect(), null_keys: places.len() - keyed, by_key })
}

/// What a key begins with, in the order of keys: a shorter one is before those that it begins.
fn first_bytes(key: &EntityKey) -> u64 {
    let mut bytes = [0; 8];
    bytes.iter_mut().zip(key.as_str().bytes()).for_each(|(to, from)| *to = from);
    u64::from_be_bytes(bytes)
}

fn parts(batches: &[RecordBatch], column: usize) -> Vec<&dyn Array> {
    batches.iter().map(|batch| batch.column(column).as_ref()).collect()
}

/// Rows in their order. Of those whose columns nobody reads, as later ones put them out of reach, another's are taken: after a long past of a view of
/// latest values these are most rows, and each value would be waited for.
fn gathered(view: &FeatureView, batches: &[RecordBatch], partition: i32, order: &Order) -> DfResult<EventRows> {
    let by_key = UInt32Array::from(order.by_key.clone());
    let all = |column| -> DfResult<ArrayRef> { Ok(take(&concat(&parts(batches, column))?, &by_key, None)?) };
    let places = view.places();
    let [times, offsets] = [all(places.start - 1)?, all(places.end - 1)?];
    let [times, offsets] = [times, offsets].map(|column| column.as_primitive::<Int64Type>().clone());
    let ids = view.kernel.spec().event_id.as_ref().map(|_| all(places.end)).transpose()?;
    let starts: Vec<usize> =
        batches.iter().scan(0, |next, batch| Some(std::mem::replace(next, *next + batch.num_rows()))).collect();
    let lies = |row: u32| {
        let batch = starts.partition_point(|start| *start <= row as usize).saturating_sub(1);
        (batch, row as usize - starts.get(batch).copied().unwrap_or(0))
    };
    let mut from: Vec<(usize, usize)> = Vec::with_capacity(by_key.len());
    for (_, rows) in &order.groups {
        let own = order.by_key.get(rows.clone()).unwrap_or_default();
        let passed = view.kernel.passed(times.values().get(rows.clone()).unwrap_or_default());
        let (unread, read) = own.split_at(passed.min(own.len()));
        from.extend(read.first().into_iter().flat_map(|row| std::iter::repeat_n(lies(*row), unread.len())));
        from.extend(read.iter().map(|row| lies(*row)));
    }
    let first = places.end + usize::from(ids.is_some());
    let columns =
        (first..view.rows_schema().fields().len()).map(|column| Ok(interleave(&parts(batches, column), &from)?));
    Ok(EventRows { times, partition, offsets, ids, columns: columns.collect::<DfResult<_>>()? })
}
