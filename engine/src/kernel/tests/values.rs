//! Random columns, and when two of them are the same.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::DataType;
use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

/// Random values of a type, NULLs and special values among them.
pub fn column(random: &mut ChaCha8Rng, data_type: &DataType, rows: usize) -> ArrayRef {
    let integers: Int64Array = (0..rows)
        .map(|_| match random.random_range(0..12) {
            0 => None,
            1 => Some(random.random_range(-3..3) * 1000),
            _ => Some(random.random_range(0..500)),
        })
        .collect();
    let integers: ArrayRef = Arc::new(integers);
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, -f64::NAN, 1e9, 1e-9];
    match data_type {
        DataType::Float64 => {
            let odd = random.random_range(0..4) == 0;
            let values = (0..rows).map(|_| match random.random_range(0..20) {
                0 => None,
                1 if odd => Some(special[random.random_range(0..special.len())]),
                2..6 => Some(f64::from(random.random_range(-5..5))),
                _ => Some(random.random_range(-1000.0..1000.0)),
            });
            Arc::new(values.collect::<Float64Array>())
        }
        DataType::Float32 => {
            let values = (0..rows).map(|_| match random.random_range(0..10) {
                0 => None,
                1 => Some(special[random.random_range(0..special.len())] as f32),
                _ => Some(random.random_range(-10.0..10.0f32)),
            });
            Arc::new(values.collect::<Float32Array>())
        }
        DataType::Boolean => Arc::new(
            (0..rows)
                .map(|_| [None, Some(true), Some(false), Some(true)][random.random_range(0..4)])
                .collect::<BooleanArray>(),
        ),
        DataType::UInt64 => {
            let values = (0..rows)
                .map(|_| (random.random_range(0..9) > 0).then(|| random.next_u64() >> random.random_range(0..64)));
            Arc::new(values.collect::<UInt64Array>())
        }
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Binary => {
            let words = ["", "DE", "FR", "Österreich", "a rather long string of more than twelve bytes", "zz"];
            let values =
                (0..rows).map(|_| (random.random_range(0..8) > 0).then(|| words[random.random_range(0..words.len())]));
            let values: ArrayRef = Arc::new(values.collect::<StringArray>());
            arrow::compute::cast(&values, data_type).unwrap()
        }
        DataType::Date32 => {
            arrow::compute::cast(&arrow::compute::cast(&integers, &DataType::Int32).unwrap(), data_type).unwrap()
        }
        DataType::Decimal32(..) => arrow::compute::cast(&integers, data_type).unwrap(),
        _ => arrow::compute::cast(&integers, data_type).unwrap(),
    }
}

/// Whether two columns are the same, floats by their bits.
pub fn same(left: &ArrayRef, right: &ArrayRef) -> bool {
    left.data_type() == right.data_type() && left.to_data() == right.to_data() || {
        // `==` on doubles says NaN differs from NaN: compare as rows of text and bits instead.
        (0..left.len()).all(|row| {
            let scalar = |array: &ArrayRef| datafusion::common::ScalarValue::try_from_array(array, row).unwrap();
            scalar(left) == scalar(right)
        }) && left.len() == right.len()
    }
}
