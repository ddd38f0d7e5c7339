//! Many keys' timelines in one set of columns, for reads offline.
//!
//! Guarantees: each key's rows stand together, ascending by (event time, partition, offset), those of one place as they came, and each
//! event is there once: as in a timeline that is read online. Nothing is sorted that comes in order.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, UInt32Array};
use arrow::compute::take;

use super::KernelError;
use super::compile::Kernel;
use super::identity::{Identities, identity};

/// Events of many keys, in any order; parallel arrays, without a NULL in time, partition or offset.
#[derive(Debug)]
pub struct KeyedRows {
    /// Whose event it is. A number that is past the count of keys is no key's.
    pub keys: Vec<u32>,
    pub times: Int64Array,
    pub partitions: Int32Array,
    pub offsets: Int64Array,
    pub ids: Option<ArrayRef>,
    /// The columns of the spec, in its order.
    pub columns: Vec<ArrayRef>,
}

/// Timelines of the keys from 0 on.
#[derive(Debug)]
pub struct Timelines {
    /// Where each key's rows begin, and where the last one's end.
    starts: Vec<u32>,
    times: Vec<i64>,
    /// For each row, which of the rows that came it is.
    order: UInt32Array,
    /// In this order; as they came, where no fold looks at more than the row that it ends with ([`Kernel::looked_at`]).
    columns: Vec<ArrayRef>,
}

impl Timelines {
    /// The rows of a key; none of a key that isn't there.
    pub fn rows(&self, key: u32) -> Range<usize> {
        match self.starts.get(key as usize..).and_then(|starts| starts.first_chunk()) {
            Some([start, end]) => *start as usize..*end as usize,
            None => 0..0,
        }
    }

    pub(super) fn times(&self) -> &[i64] {
        &self.times
    }

    pub(super) fn order(&self) -> &[u32] {
        self.order.values()
    }

    pub(super) fn columns(&self) -> &[ArrayRef] {
        &self.columns
    }
}

impl Kernel {
    /// Puts rows in order: by key by counting, and within a key by time where they aren't in order yet.
    pub fn timelines(&self, rows: KeyedRows, keys: usize) -> Result<Timelines, KernelError> {
        let KeyedRows { keys: of, times, partitions, offsets, ids, columns } = rows;
        self.check_columns(of.len(), ids.as_ref(), &columns)?;
        if [times.len(), partitions.len(), offsets.len()] != [of.len(); 3] {
            return Err(KernelError::Rows(format!(
                "{} keys, {} event times, {} partitions and {} offsets: expected as many of each",
                of.len(),
                times.len(),
                partitions.len(),
                offsets.len()
            )));
        }
        if times.null_count() + partitions.null_count() + offsets.null_count() > 0 {
            return Err(KernelError::Rows("an event time, a partition or an offset is NULL".to_owned()));
        }
        let (mut starts, mut order) = by_key(&of, keys);
        let tie = |row: u32| (partitions.values()[row as usize], offsets.values()[row as usize]);
        let earlier = |a: &(i64, u32), b: &(i64, u32)| a.0.cmp(&b.0).then_with(|| tie(a.1).cmp(&tie(b.1)));
        let mut sorted = Vec::with_capacity(order.len());
        // A key's rows, with their times beside them: what is compared most lies together.
        let mut timed: Vec<(i64, u32)> = vec![];
        let mut start = 0;
        for end in starts.iter_mut().skip(1) {
            let rows = start..*end as usize;
            start = rows.end;
            timed.clear();
            timed.extend(order[rows].iter().map(|row| (times.values()[*row as usize], *row)));
            // Each task that read events read them in order, mostly: a stable sort puts such runs together.
            timed.sort_by(earlier);
            // Of one event id and time the first counts.
            let mut seen = Identities::default();
            for (time, row) in &timed {
                let new = ids.is_none()
                    || identity(times.values(), ids.as_ref(), *row as usize).is_none_or(|event| seen.insert(event));
                if new {
                    order[sorted.len()] = *row;
                    sorted.push(*time);
                }
            }
            *end = sorted.len() as u32;
        }
        order.truncate(sorted.len());
        let order = UInt32Array::from(order);
        let columns = columns.into_iter().enumerate().map(|(i, column)| match self.looked_at.contains(&i) {
            true => take(&column, &order, None),
            false => Ok(column),
        });
        let columns = columns.collect::<Result<_, _>>()?;
        Ok(Timelines { starts, times: sorted, order, columns })
    }
}

/// Rows by key, in the order in which they came, and where each key's begin.
fn by_key(of: &[u32], keys: usize) -> (Vec<u32>, Vec<u32>) {
    let mut starts = vec![0u32; keys + 1];
    for key in of {
        if let Some(count) = starts.get_mut(*key as usize + 1) {
            *count += 1;
        }
    }
    for key in 0..keys {
        starts[key + 1] += starts[key];
    }
    let mut next = starts.clone();
    let mut order = vec![0; starts[keys] as usize];
    for (row, key) in (0u32..).zip(of) {
        if (*key as usize) < keys {
            let place = &mut next[*key as usize];
            order[*place as usize] = row;
            *place += 1;
        }
    }
    (starts, order)
}
