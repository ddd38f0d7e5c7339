//! Columns of NULLs, for what isn't read: the same memory for all of a type.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use arrow::array::{ArrayRef, new_null_array};
use arrow::datatypes::DataType;

/// Rows of a column that is kept; a longer one is made each time, and so is one whose NULLs may be long.
const KEPT: usize = 16_384;

static COLUMNS: LazyLock<Mutex<HashMap<DataType, ArrayRef>>> = LazyLock::new(Mutex::default);

/// So many NULLs of a type.
pub(crate) fn nulls(data_type: &DataType, rows: usize) -> ArrayRef {
    let short = data_type.primitive_width().is_some() || matches!(data_type, DataType::Boolean | DataType::Utf8);
    if rows > KEPT || !short {
        return new_null_array(data_type, rows);
    }
    // Whole columns are put in, so that one who panicked left no half of one.
    let mut columns = COLUMNS.lock().unwrap_or_else(PoisonError::into_inner);
    let column = columns.entry(data_type.clone()).or_insert_with(|| new_null_array(data_type, KEPT));
    column.slice(0, rows)
}

#[cfg(test)]
mod tests {
    use arrow::array::Array;

    use super::*;

    #[test]
    fn all_are_null_however_many() {
        for data_type in [DataType::Int64, DataType::Utf8, DataType::Boolean, DataType::FixedSizeBinary(3)] {
            for rows in [0, 1, KEPT, KEPT + 1, 7] {
                let column = nulls(&data_type, rows);
                assert_eq!((column.len(), column.null_count(), column.data_type()), (rows, rows, &data_type));
            }
        }
    }
}
