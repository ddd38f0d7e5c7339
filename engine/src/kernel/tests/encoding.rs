//! Stored bytes: every type comes back, and damaged bytes are an error, never a panic.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, IntervalMonthDayNano, IntervalUnit, TimeUnit, i256};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::random::{Case, columns};
use super::values::{column as random_column, same};
use crate::kernel::encoding::bytes::{Reader, Writer};
use crate::kernel::encoding::column;
use crate::kernel::*;

fn round_trip(array: &ArrayRef) {
    let mut writer = Writer::versioned();
    column::write(&mut writer, array).unwrap();
    let bytes = writer.sealed();
    let mut reader = Reader::open(&bytes).unwrap();
    let read = column::read(&mut reader, array.data_type(), array.len()).unwrap();
    reader.close().unwrap();
    assert!(same(array, &read), "{array:?} came back as {read:?}");
}

fn every_type() -> Vec<ArrayRef> {
    let mut random = ChaCha8Rng::seed_from_u64(11);
    let mut arrays: Vec<ArrayRef> =
        columns().iter().map(|field| random_column(&mut random, field.data_type(), 100)).collect();
    for unit in [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond] {
        arrays.push(random_column(&mut random, &DataType::Timestamp(unit, None), 20));
        arrays.push(random_column(&mut random, &DataType::Duration(unit), 20));
    }
    for data_type in [
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::Float16,
        DataType::Date64,
        DataType::Decimal64(18, 2),
        DataType::LargeBinary,
        DataType::BinaryView,
    ] {
        let values = random_column(&mut random, &DataType::Utf8, 20);
        let numbers = random_column(&mut random, &DataType::Int64, 20);
        let source = if matches!(data_type, DataType::LargeBinary | DataType::BinaryView) { values } else { numbers };
        arrays.push(arrow::compute::cast(&source, &data_type).unwrap());
    }
    arrays.push(Arc::new(
        Decimal256Array::from(vec![Some(i256::MIN), None, Some(i256::MAX)]).with_precision_and_scale(76, 0).unwrap(),
    ));
    arrays.push(Arc::new(Time32SecondArray::from(vec![Some(1), None])));
    arrays.push(Arc::new(Time64MicrosecondArray::from(vec![Some(1), None])));
    arrays.push(Arc::new(IntervalMonthDayNanoArray::from(vec![Some(IntervalMonthDayNano::new(1, 2, 3)), None])));
    arrays.push(new_null_array(&DataType::Interval(IntervalUnit::DayTime), 3));
    arrays.push(Arc::new(NullArray::new(5)));
    arrays.push(new_empty_array(&DataType::Utf8));
    arrays.push(Arc::new(FixedSizeBinaryArray::try_from_iter([[1u8, 2], [3, 4]].iter()).unwrap()));
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None, Some("b"), Some("a")].into_iter().collect();
    arrays.push(Arc::new(dictionary));
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
        Some(vec![Some(2)]),
    ]);
    // A slice: its items don't begin at the first.
    arrays.push(Arc::new(list.slice(1, 3)));
    let large = LargeListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    arrays.push(Arc::new(large));
    let fixed = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(
        vec![Some(vec![Some(1), Some(2)]), None, Some(vec![None, Some(4)])],
        2,
    );
    arrays.push(Arc::new(fixed.slice(1, 2)));
    let fields =
        Fields::from(vec![Field::new("list", list.data_type().clone(), true), Field::new("n", DataType::Int64, true)]);
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3), Some(4)]));
    let nested =
        StructArray::try_new(fields.clone(), vec![Arc::new(list), numbers], Some(vec![true, true, false, true].into()))
            .unwrap();
    arrays.push(Arc::new(nested.slice(1, 3)));
    let entries =
        Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int64, true)]);
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let values: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let entries_array = StructArray::try_new(entries.clone(), vec![keys, values], None).unwrap();
    let field = Arc::new(Field::new("entries", DataType::Struct(entries), false));
    let map = MapArray::try_new(
        field,
        OffsetBuffer::from_lengths([2, 0, 1]),
        entries_array,
        Some(vec![true, false, true].into()),
        false,
    )
    .unwrap();
    arrays.push(Arc::new(map));
    arrays
}

#[test]
fn every_type_comes_back() {
    for array in every_type() {
        column::check_type(&Field::new("c", array.data_type().clone(), true)).unwrap();
        round_trip(&array);
        round_trip(&array.slice(array.len() / 2, array.len() - array.len() / 2));
    }
    let union = Field::new(
        "u",
        DataType::Union(arrow::datatypes::UnionFields::empty(), arrow::datatypes::UnionMode::Sparse),
        true,
    );
    assert!(column::check_type(&union).unwrap_err().to_string().contains("can't store"));
}

/// A piece with all that a piece can hold, written.
fn written(seed: u64) -> Option<(Kernel, i32, PieceDelta)> {
    let case = Case::new(seed);
    let kernel = Kernel::new(case.spec.clone()).unwrap();
    let rows = case.partitions.first().filter(|rows| !rows.is_empty())?;
    let mut piece = kernel.empty_piece(rows.partition);
    let half = rows.len() / 2;
    kernel.fold(&mut piece, &rows.slice(0, half)).unwrap();
    kernel.fold(&mut piece, &rows.slice(half, rows.len())).unwrap();
    let delta = kernel.encode_changes(&mut piece).unwrap();
    let kept = delta.chunks.iter().map(|(id, bytes)| (*id, bytes.as_slice()));
    let again = kernel.decode_piece(rows.partition, &delta.head, kept).unwrap();
    assert_eq!(again.rows(), piece.rows());
    Some((kernel, rows.partition, delta))
}

fn decode(kernel: &Kernel, partition: i32, delta: &PieceDelta) -> Result<Piece, EncodingError> {
    kernel.decode_piece(partition, &delta.head, delta.chunks.iter().map(|(id, bytes)| (*id, bytes.as_slice())))
}

#[test]
fn an_unknown_version_is_refused_by_name() {
    let (kernel, partition, delta) = (0..).filter_map(written).find(|(_, _, delta)| !delta.chunks.is_empty()).unwrap();
    let mut head = delta.clone();
    head.head[0] = 9;
    let mut chunk = delta.clone();
    chunk.chunks[0].1[0] = 9;
    for damaged in [head, chunk] {
        let error = decode(&kernel, partition, &damaged).unwrap_err();
        assert_eq!(error, EncodingError::UnknownVersion { found: 9, known: 3 });
        assert!(error.to_string().contains("version 9"), "{error}");
    }
}

#[test]
fn damaged_bytes_are_errors() {
    let mut random = ChaCha8Rng::seed_from_u64(21);
    for (kernel, partition, delta) in (20_000..20_060).filter_map(written) {
        for _ in 0..60 {
            let mut damaged = delta.clone();
            let part = random.random_range(0..=damaged.chunks.len());
            let bytes = if part == 0 { &mut damaged.head } else { &mut damaged.chunks[part - 1].1 };
            let place = random.random_range(0..bytes.len());
            if random.random() {
                bytes.truncate(place);
            } else {
                bytes[place] ^= 1 << random.random_range(0..8);
            }
            assert!(decode(&kernel, partition, &damaged).is_err());
        }
    }
}

/// A checksum is no proof against malice or a bug of the writer: behind one that fits, anything may stand.
#[test]
fn damaged_bytes_with_a_good_checksum_never_panic() {
    let mut random = ChaCha8Rng::seed_from_u64(22);
    let mut errors = 0;
    for (kernel, partition, delta) in (21_000..21_060).filter_map(written) {
        for _ in 0..200 {
            let mut damaged = delta.clone();
            let part = random.random_range(0..=damaged.chunks.len());
            let bytes = if part == 0 { &mut damaged.head } else { &mut damaged.chunks[part - 1].1 };
            bytes.truncate(bytes.len() - 4);
            for _ in 0..random.random_range(1..4) {
                let place = random.random_range(1..bytes.len().max(2)).min(bytes.len() - 1);
                match random.random_range(0..3) {
                    0 => bytes[place] = random.random(),
                    1 => bytes[place] = 0xff,
                    _ => bytes.truncate(place.max(1)),
                }
            }
            bytes[0] = 3;
            let checksum = crc32fast::hash(bytes);
            bytes.extend(checksum.to_le_bytes());
            match decode(&kernel, partition, &damaged) {
                Err(_) => errors += 1,
                // What reads back must still be safe to read from; only its values may be wrong.
                Ok(piece) => {
                    if let Ok(timeline) = kernel.timeline([&piece]) {
                        let _ = kernel.evaluate(&timeline, &[0, piece.newest().unwrap_or(0)]);
                    }
                }
            }
        }
    }
    assert!(errors > 1000);
}
