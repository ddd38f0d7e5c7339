//! Rows of events after the row stage, as parallel columns.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::Int64Type;

use super::KernelError;
use super::fold::{Order, Partitions};

/// Events of one source partition: parallel arrays, one row an event.
#[derive(Debug, Clone)]
pub struct EventRows {
    /// Event times, in microseconds UTC; never NULL.
    pub times: Int64Array,
    /// The source partition that all rows come from.
    pub partition: i32,
    /// Offsets in that partition; never NULL.
    pub offsets: Int64Array,
    /// The `event_id` column, if the source names one.
    pub ids: Option<ArrayRef>,
    /// The columns of the spec, in its order.
    pub columns: Vec<ArrayRef>,
}

impl EventRows {
    pub fn len(&self) -> usize {
        self.times.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Some of the rows, in the order of the indices. An index past the end is an error.
    pub fn take(&self, indices: &UInt32Array) -> Result<EventRows, KernelError> {
        if let Some(index) = indices.iter().find(|index| index.is_none_or(|index| index as usize >= self.len())) {
            return Err(KernelError::Rows(format!("row {index:?} was asked of {} rows", self.len())));
        }
        Ok(EventRows {
            times: take(&self.times, indices, None)?.as_primitive::<Int64Type>().clone(),
            partition: self.partition,
            offsets: take(&self.offsets, indices, None)?.as_primitive::<Int64Type>().clone(),
            ids: self.ids.as_ref().map(|ids| take(ids, indices, None)).transpose()?,
            columns: self.columns.iter().map(|column| take(column, indices, None)).collect::<Result<_, _>>()?,
        })
    }

    /// A range of the rows, without a copy; what lies past the end is left out.
    pub fn slice(&self, start: usize, length: usize) -> EventRows {
        let start = start.min(self.len());
        let length = length.min(self.len() - start);
        if length == self.len() {
            // Of a few rows, the arrays cost more than what is in them.
            return self.clone();
        }
        EventRows {
            times: self.times.slice(start, length),
            partition: self.partition,
            offsets: self.offsets.slice(start, length),
            ids: self.ids.as_ref().map(|ids| ids.slice(start, length)),
            columns: self.columns.iter().map(|column| column.slice(start, length)).collect(),
        }
    }

    /// Rows of the same columns one after the other; the partition is the first one's.
    pub(crate) fn concat(parts: &[&EventRows]) -> Result<EventRows, KernelError> {
        let first = match parts {
            [] => return Err(KernelError::Rows("no rows to put together".to_owned())),
            [only] => return Ok((*only).clone()),
            [first, ..] => *first,
        };
        let times: Vec<&dyn Array> = parts.iter().map(|part| &part.times as &dyn Array).collect();
        let offsets: Vec<&dyn Array> = parts.iter().map(|part| &part.offsets as &dyn Array).collect();
        let ids: Vec<&dyn Array> = parts.iter().filter_map(|part| part.ids.as_ref().map(|ids| ids.as_ref())).collect();
        let columns = (0..first.columns.len()).map(|index| {
            let columns: Vec<&dyn Array> =
                parts.iter().filter_map(|part| part.columns.get(index).map(|column| column.as_ref())).collect();
            concat(&columns)
        });
        Ok(EventRows {
            times: concat(&times)?.as_primitive::<Int64Type>().clone(),
            partition: first.partition,
            offsets: concat(&offsets)?.as_primitive::<Int64Type>().clone(),
            ids: if first.ids.is_some() { Some(concat(&ids)?) } else { None },
            columns: columns.collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn order(&self) -> Order<'_> {
        Order {
            times: self.times.values(),
            partitions: Partitions::One(self.partition),
            offsets: self.offsets.values(),
        }
    }

    /// The same rows in arrays of their own, which keep nothing else in memory.
    pub(crate) fn compact(&self) -> Result<EventRows, KernelError> {
        self.take(&UInt32Array::from_iter_values(0..self.len() as u32))
    }
}
