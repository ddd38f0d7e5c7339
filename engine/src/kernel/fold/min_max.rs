//! MIN and MAX, in the order of [`Value`].

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;

use super::for_each;
use super::value::{Native, Value, dispatch_bytes, dispatch_primitive, value_at};

/// The smallest or the largest value so far.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Extreme {
    Min(Option<Value>),
    Max(Option<Value>),
}

impl Extreme {
    pub fn update(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        let min = matches!(self, Extreme::Min(_));
        macro_rules! primitive {
            ($type:ty) => {{
                let values = column.as_primitive::<$type>().values();
                let mut best: Option<<$type as ArrowPrimitiveType>::Native> = None;
                for_each(mask, range, |row| {
                    let value = values[row];
                    if best.is_none_or(|best| if min { value.is_lt(best) } else { value.is_gt(best) }) {
                        best = Some(value);
                    }
                });
                best.map(Native::to_value)
            }};
        }
        macro_rules! bytes {
            ($array:expr) => {{
                let array = $array;
                let mut best: Option<&[u8]> = None;
                for_each(mask, range, |row| {
                    let value: &[u8] = array.value(row).as_ref();
                    if best.is_none_or(|best| if min { value < best } else { value > best }) {
                        best = Some(value);
                    }
                });
                best.map(|best| Value::Bytes(best.into()))
            }};
        }
        let best = dispatch_primitive!(column.data_type(), primitive, {
            dispatch_bytes!(column, bytes, {
                let mut best = None;
                for_each(mask, range, |row| {
                    let value = value_at(column, row);
                    if best.is_none() || (if min { value < best } else { value > best }) {
                        best = value;
                    }
                });
                best
            })
        });
        self.offer(best);
    }

    pub fn merge(&mut self, other: &Extreme) {
        self.offer(other.value().cloned());
    }

    pub fn value(&self) -> Option<&Value> {
        match self {
            Extreme::Min(value) | Extreme::Max(value) => value.as_ref(),
        }
    }

    fn offer(&mut self, value: Option<Value>) {
        let Some(value) = value else { return };
        match self {
            Extreme::Min(best) if best.as_ref().is_none_or(|best| value < *best) => *best = Some(value),
            Extreme::Max(best) if best.as_ref().is_none_or(|best| value > *best) => *best = Some(value),
            _ => {}
        }
    }
}
