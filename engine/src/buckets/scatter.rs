//! Rows of several arrays in one array, each at a place of its own.

use arrow::array::{Array, ArrayData, ArrayRef, BooleanBufferBuilder, make_array};
use arrow::buffer::{Buffer, NullBuffer};
use arrow::compute::interleave;
use arrow::datatypes::{ArrowNativeType, DataType};
use datafusion::common::Result;

/// Puts rows of `parts` where they are wanted: for each part its rows and their places, which are all those below `rows`.
///
/// Numbers are read in order, and written to as many ends as there are runs of places: a gathering by place would jump between parts for each.
pub(crate) fn scatter(parts: &[&dyn Array], named: &[Vec<(u32, u32)>], rows: usize) -> Result<ArrayRef> {
    match parts.first().and_then(|part| part.data_type().primitive_width()) {
        Some(4) => numbers::<u32>(parts, named, rows),
        Some(8) => numbers::<u64>(parts, named, rows),
        _ => {
            let mut order = vec![(0, 0); rows];
            for (part, named) in named.iter().enumerate() {
                named.iter().for_each(|(row, place)| order[*place as usize] = (part, *row as usize));
            }
            Ok(interleave(parts, &order)?)
        }
    }
}

/// Numbers of a width, whatever they mean.
fn numbers<T: ArrowNativeType>(parts: &[&dyn Array], named: &[Vec<(u32, u32)>], rows: usize) -> Result<ArrayRef> {
    let mut values = vec![T::default(); rows];
    let mut valid: Option<BooleanBufferBuilder> = None;
    for (part, named) in parts.iter().zip(named) {
        let data = part.to_data();
        let from = data.buffer::<T>(0);
        for (row, place) in named {
            values[*place as usize] = from[*row as usize];
        }
        if let Some(nulls) = part.nulls().filter(|nulls| nulls.null_count() > 0) {
            let valid = valid.get_or_insert_with(|| {
                let mut all = BooleanBufferBuilder::new(rows);
                all.append_n(rows, true);
                all
            });
            let nulls = named.iter().filter(|(row, _)| nulls.is_null(*row as usize));
            nulls.for_each(|(_, place)| valid.set_bit(*place as usize, false));
        }
    }
    let data_type = parts.first().map_or(DataType::Null, |part| part.data_type().clone());
    let data = ArrayData::builder(data_type)
        .len(rows)
        .add_buffer(Buffer::from_vec(values))
        .nulls(valid.map(|mut valid| NullBuffer::new(valid.finish())));
    Ok(make_array(data.build()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Float64Array, Int32Array, StringArray, TimestampMicrosecondArray};

    use super::*;

    /// Whatever the type, as a gathering by place.
    #[test]
    fn every_row_is_at_its_place() {
        let named = vec![vec![(0, 4), (2, 0), (3, 1)], vec![], vec![(0, 3), (1, 2)]];
        let order = [(0, 2), (0, 3), (2, 1), (2, 0), (0, 0)];
        fn parts<A: Array + 'static>(of: impl Fn(usize) -> A) -> Vec<ArrayRef> {
            // Two of them are cut out of a longer one.
            [4, 1, 2]
                .into_iter()
                .map(|rows| Arc::new(of(rows + 3)) as ArrayRef)
                .map(|a| a.slice(2, a.len() - 3))
                .collect()
        }
        let double = |i: usize| [Some(-0.0), None, Some(f64::NAN), Some(1.5)][i % 4];
        for parts in [
            parts(|n| (0..n).map(double).collect::<Float64Array>()),
            parts(|n| (0..n as i32).map(|i| i - 2).collect::<Int32Array>()),
            parts(|n| {
                (0..n as i64)
                    .map(|i| Some(i).filter(|i| i % 3 > 0))
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC")
            }),
            parts(|n| (0..n).map(|i| Some(i.to_string()).filter(|_| i % 3 > 0)).collect::<StringArray>()),
        ] {
            let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
            let found = scatter(&parts, &named, 5).unwrap();
            assert_eq!(found.to_data(), interleave(&parts, &order).unwrap().to_data());
        }
    }
}
