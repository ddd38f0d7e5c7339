//! DISTINCT: the set of values. Floats are distinct by their bits, as in DataFusion.

use std::collections::HashSet;
use std::ops::Range;

use ahash::RandomState;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::BooleanBuffer;

use super::compile::Finish;
use super::value::{Native, Value, dispatch_bytes, dispatch_primitive, value_at};
use super::{Kind, State, for_each};
use crate::kernel::KernelError;

/// The distinct values so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Distinct {
    /// Of every type but strings and binaries.
    pub numbers: HashSet<Value, RandomState>,
    /// A set of its own, so that looking a string up needs no allocation.
    pub bytes: HashSet<Box<[u8]>, RandomState>,
}

impl Distinct {
    pub fn update(&mut self, column: &ArrayRef, mask: Option<&BooleanBuffer>, range: Range<usize>) {
        macro_rules! primitive {
            ($type:ty) => {{
                let values = column.as_primitive::<$type>().values();
                for_each(mask, range, |row| {
                    self.numbers.insert(values[row].to_value());
                });
            }};
        }
        macro_rules! bytes {
            ($array:expr) => {{
                let array = $array;
                for_each(mask, range, |row| {
                    let value: &[u8] = array.value(row).as_ref();
                    if !self.bytes.contains(value) {
                        self.bytes.insert(value.into());
                    }
                });
            }};
        }
        dispatch_primitive!(column.data_type(), primitive, {
            dispatch_bytes!(column, bytes, for_each(mask, range, |row| self.numbers.extend(value_at(column, row))))
        });
    }

    pub fn merge(&mut self, other: &Distinct) {
        self.numbers.extend(other.numbers.iter().cloned());
        for value in &other.bytes {
            if !self.bytes.contains(value) {
                self.bytes.insert(value.clone());
            }
        }
    }

    pub fn finish(&self, finish: &Finish) -> Result<Option<Value>, KernelError> {
        match finish {
            Finish::Distinct(kind, inner) => self.fold(*kind).finish(inner),
            _ => Ok(Some(Value::Int((self.numbers.len() + self.bytes.len()) as i128))),
        }
    }

    /// Folds the values: every fold is indifferent to order, so the set needs none.
    fn fold(&self, kind: Kind) -> State {
        let mut state = kind.empty();
        self.numbers.iter().for_each(|value| state.add(value));
        state
    }
}
