//! A stored column made longer, without making it an array first.
//!
//! Guarantee: the bytes that [`super::column::write`] writes of the stored rows and the new ones together.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, downcast_primitive};
use arrow::buffer::NullBuffer;
use arrow::datatypes::DataType;

use super::bytes::{Reader, Writer};
use crate::kernel::EncodingError;
use crate::kernel::fold::value::dispatch_bytes;

/// Whether columns of a type can be made longer this way.
pub(crate) fn extends(data_type: &DataType) -> bool {
    use DataType::*;
    let bytes = matches!(data_type, Boolean | Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView);
    bytes || data_type.is_primitive()
}

/// Writes a column of `stored` rows that the reader is at, and behind them the rows of an array.
pub(crate) fn extend(
    writer: &mut Writer,
    (reader, stored): (&mut Reader<'_>, usize),
    array: &ArrayRef,
    rows: Range<usize>,
) -> Result<(), EncodingError> {
    let had_nulls = stored > 0 && reader.flag()?;
    let valid = if had_nulls { Some(reader.bytes(stored.div_ceil(8))?) } else { None };
    let nulls = array.nulls().filter(|nulls| rows.clone().any(|row| nulls.is_null(row)));
    let dense = valid.map_or(stored, |valid| (0..stored).filter(|row| bit(valid, *row)).count());
    let any = valid.is_some() || nulls.is_some();
    writer.byte(u8::from(any));
    if any {
        let old = (0..stored).map(|row| valid.is_none_or(|valid| bit(valid, row)));
        writer.bits(old.chain(rows.clone().map(|row| nulls.is_none_or(|nulls| nulls.is_valid(row)))));
    }
    macro_rules! primitive {
        ($type:ty) => {{
            let width = size_of::<<$type as arrow::datatypes::ArrowPrimitiveType>::Native>();
            writer.bytes(reader.bytes(dense.saturating_mul(width))?);
            let values = array.as_primitive::<$type>().values().inner().as_slice();
            for run in runs(rows, nulls) {
                writer.bytes(values.get(run.start * width..run.end * width).unwrap_or_default());
            }
        }};
    }
    macro_rules! bytes {
        ($array:expr) => {{
            let array = $array;
            let mut held = 0usize;
            for _ in 0..dense {
                let length = reader.unsigned()?;
                writer.unsigned(length);
                held = held.saturating_add(usize::try_from(length).unwrap_or(usize::MAX));
            }
            let value = |row: usize| -> &[u8] { array.value(row).as_ref() };
            let new = || runs(rows.clone(), nulls).flatten();
            new().for_each(|row| writer.length(value(row).len()));
            writer.bytes(reader.bytes(held)?);
            new().for_each(|row| writer.bytes(value(row)));
        }};
    }
    let data_type = array.data_type();
    downcast_primitive! {
        data_type => (primitive),
        DataType::Boolean => {
            let held = reader.bytes(dense.div_ceil(8))?;
            let values = array.as_boolean().values();
            let new = runs(rows, nulls).flatten().map(|row| values.value(row));
            writer.bits((0..dense).map(|row| bit(held, row)).chain(new));
        },
        _ => dispatch_bytes!(array, bytes, {
            return Err(reader.corrupt(format!("a column of {data_type} can't be made longer")));
        }),
    }
    Ok(())
}

/// The rows that are not NULL, in as few ranges as there are.
fn runs(rows: Range<usize>, nulls: Option<&NullBuffer>) -> impl Iterator<Item = Range<usize>> {
    let whole = nulls.is_none().then(|| rows.clone());
    let apart = nulls.map(|nulls| rows.filter(|row| nulls.is_valid(*row)).map(|row| row..row + 1));
    whole.into_iter().chain(apart.into_iter().flatten())
}

fn bit(bytes: &[u8], place: usize) -> bool {
    bytes.get(place / 8).is_some_and(|byte| byte >> (place % 8) & 1 == 1)
}
