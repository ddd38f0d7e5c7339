//! One column of a chunk. The layout is in the [module above](super).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BinaryViewBuilder, BooleanArray, FixedSizeBinaryArray, FixedSizeListArray,
    GenericListArray, LargeBinaryBuilder, LargeStringBuilder, MapArray, NullArray, OffsetSizeTrait, PrimitiveArray,
    StringBuilder, StringViewBuilder, StructArray, UInt32Array, downcast_primitive,
};
use arrow::buffer::{BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{cast, filter, take};
use arrow::datatypes::{DataType, Field, FieldRef, Fields};
use arrow::error::ArrowError;

use super::bytes::{Reader, Writer};
use crate::kernel::fold::value::dispatch_bytes;
use crate::kernel::{EncodingError, KernelError};

#[cfg(target_endian = "big")]
compile_error!("stored values are little-endian and are written as they lie in memory");

/// Writes a column of `array.len()` rows; the reader must know the type and the length.
pub(crate) fn write(writer: &mut Writer, array: &ArrayRef) -> Result<(), KernelError> {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    writer.byte(u8::from(nulls.is_some()));
    match nulls {
        None => write_dense(writer, array),
        Some(nulls) => {
            writer.bits(nulls.inner().iter());
            write_dense(writer, &filter(array, &BooleanArray::new(nulls.inner().clone(), None))?)
        }
    }
}

pub(crate) fn read(reader: &mut Reader<'_>, data_type: &DataType, rows: usize) -> Result<ArrayRef, EncodingError> {
    if !reader.flag()? {
        return read_dense(reader, data_type, rows);
    }
    let valid = read_bits(reader, rows)?;
    let dense = read_dense(reader, data_type, valid.count_set_bits())?;
    let mut next = 0;
    let indices = valid.iter().map(|valid| {
        next += u32::from(valid);
        valid.then(|| next - 1)
    });
    let indices: UInt32Array = indices.collect();
    take(&dense, &indices, None).map_err(|error| damaged(reader, error))
}

/// Whether a column of this type can be stored.
pub(crate) fn check_type(field: &Field) -> Result<(), KernelError> {
    fn stores(data_type: &DataType) -> bool {
        use DataType::*;
        match data_type {
            List(item) | LargeList(item) | FixedSizeList(item, _) | Map(item, _) => stores(item.data_type()),
            Struct(fields) => fields.iter().all(|field| stores(field.data_type())),
            Dictionary(_, values) => stores(values),
            Union(..) | RunEndEncoded(..) | ListView(_) | LargeListView(_) => false,
            _ => true,
        }
    }
    if stores(field.data_type()) {
        return Ok(());
    }
    Err(KernelError::Spec(format!(
        "column {:?} is {}, which a timeline can't store (hint: cast it to a list, a struct or a plain type)",
        field.name(),
        field.data_type()
    )))
}

/// Writes an array without NULLs.
fn write_dense(writer: &mut Writer, array: &ArrayRef) -> Result<(), KernelError> {
    macro_rules! primitive {
        ($type:ty) => {
            writer.bytes(array.as_primitive::<$type>().values().inner().as_slice())
        };
    }
    macro_rules! bytes {
        ($array:expr) => {{
            let array = $array;
            let value = |row: usize| -> &[u8] { array.value(row).as_ref() };
            (0..array.len()).for_each(|row| writer.length(value(row).len()));
            (0..array.len()).for_each(|row| writer.bytes(value(row)));
        }};
    }
    let data_type = array.data_type();
    downcast_primitive! {
        data_type => (primitive),
        DataType::Null => {}
        DataType::Boolean => writer.bits(array.as_boolean().values().iter()),
        DataType::FixedSizeBinary(_) => {
            let array = array.as_fixed_size_binary();
            (0..array.len()).for_each(|row| writer.bytes(array.value(row)));
        }
        DataType::Dictionary(_, values) => return write(writer, &cast(array, values)?),
        DataType::List(_) => return write_list(writer, array.as_list::<i32>()),
        DataType::LargeList(_) => return write_list(writer, array.as_list::<i64>()),
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            return write_items(writer, map.offsets(), &entries);
        }
        DataType::FixedSizeList(_, size) => {
            let list = array.as_fixed_size_list();
            let from = list.value_offset(0) as usize;
            return write(writer, &list.values().slice(from, list.len() * *size as usize));
        }
        DataType::Struct(_) => {
            for column in array.as_struct().columns() {
                write(writer, column)?;
            }
        }
        _ => dispatch_bytes!(array, bytes, {
            return Err(KernelError::Spec(format!("a column of {data_type} can't be stored")));
        }),
    }
    Ok(())
}

fn read_dense(reader: &mut Reader<'_>, data_type: &DataType, rows: usize) -> Result<ArrayRef, EncodingError> {
    macro_rules! primitive {
        ($type:ty) => {{
            let size = size_of::<<$type as arrow::datatypes::ArrowPrimitiveType>::Native>();
            let bytes = reader.bytes(rows.saturating_mul(size))?;
            // Copied: what is read from a store isn't aligned.
            let values = ScalarBuffer::new(Buffer::from(bytes), 0, rows);
            Ok(Arc::new(PrimitiveArray::<$type>::new(values, None).with_data_type(data_type.clone())))
        }};
    }
    macro_rules! bytes {
        ($builder:expr, $convert:ident) => {{
            let mut builder = $builder;
            for length in lengths(reader, rows)? {
                let bytes = reader.bytes(length)?;
                builder.append_value($convert(reader, bytes)?);
            }
            Ok(Arc::new(builder.finish()))
        }};
    }
    downcast_primitive! {
        data_type => (primitive),
        DataType::Null => Ok(Arc::new(NullArray::new(rows))),
        DataType::Boolean => Ok(Arc::new(BooleanArray::new(read_bits(reader, rows)?, None))),
        DataType::Utf8 => bytes!(StringBuilder::new(), text),
        DataType::LargeUtf8 => bytes!(LargeStringBuilder::new(), text),
        DataType::Utf8View => bytes!(StringViewBuilder::new(), text),
        DataType::Binary => bytes!(BinaryBuilder::new(), binary),
        DataType::LargeBinary => bytes!(LargeBinaryBuilder::new(), binary),
        DataType::BinaryView => bytes!(BinaryViewBuilder::new(), binary),
        DataType::FixedSizeBinary(size) => {
            let bytes = reader.bytes(rows.saturating_mul(*size as usize))?;
            let array = FixedSizeBinaryArray::try_new(*size, Buffer::from(bytes), None);
            Ok(Arc::new(array.map_err(|error| damaged(reader, error))?))
        }
        DataType::Dictionary(_, values) => {
            let values = read(reader, values, rows)?;
            cast(&values, data_type).map_err(|error| damaged(reader, error))
        }
        DataType::List(item) => read_list::<i32>(reader, item, rows),
        DataType::LargeList(item) => read_list::<i64>(reader, item, rows),
        DataType::Map(entries, ordered) => {
            let (offsets, items) = read_items::<i32>(reader, entries.data_type(), rows)?;
            let items = items.as_struct_opt().cloned().ok_or_else(|| reader.corrupt("a map's entries aren't a struct"))?;
            let map = MapArray::try_new(Arc::clone(entries), offsets, items, None, *ordered);
            Ok(Arc::new(map.map_err(|error| damaged(reader, error))?))
        }
        DataType::FixedSizeList(item, size) => {
            let items = read(reader, item.data_type(), rows.saturating_mul(*size as usize))?;
            let list = FixedSizeListArray::try_new(Arc::clone(item), *size, items, None);
            Ok(Arc::new(list.map_err(|error| damaged(reader, error))?))
        }
        DataType::Struct(fields) => read_struct(reader, fields, rows),
        other => Err(reader.corrupt(format!("a column of {other} can't be read"))),
    }
}

fn write_list<O: OffsetSizeTrait>(writer: &mut Writer, list: &GenericListArray<O>) -> Result<(), KernelError> {
    write_items(writer, list.offsets(), list.values())
}

fn write_items<O: OffsetSizeTrait>(
    writer: &mut Writer,
    offsets: &OffsetBuffer<O>,
    items: &ArrayRef,
) -> Result<(), KernelError> {
    offsets.lengths().for_each(|length| writer.length(length));
    let (first, last) = (offsets[0].as_usize(), offsets[offsets.len() - 1].as_usize());
    write(writer, &items.slice(first, last - first))
}

fn read_list<O: OffsetSizeTrait>(
    reader: &mut Reader<'_>,
    item: &FieldRef,
    rows: usize,
) -> Result<ArrayRef, EncodingError> {
    let (offsets, items) = read_items::<O>(reader, item.data_type(), rows)?;
    let list = GenericListArray::try_new(Arc::clone(item), offsets, items, None);
    Ok(Arc::new(list.map_err(|error| damaged(reader, error))?))
}

fn read_items<O: OffsetSizeTrait>(
    reader: &mut Reader<'_>,
    item: &DataType,
    rows: usize,
) -> Result<(OffsetBuffer<O>, ArrayRef), EncodingError> {
    let mut total = 0usize;
    let mut offsets = vec![O::zero()];
    for length in lengths(reader, rows)? {
        total = total.saturating_add(length);
        offsets.push(O::from_usize(total).ok_or_else(|| reader.corrupt(format!("lists of {total} items together")))?);
    }
    let items = read(reader, item, total)?;
    Ok((OffsetBuffer::new(ScalarBuffer::from(offsets)), items))
}

fn read_struct(reader: &mut Reader<'_>, fields: &Fields, rows: usize) -> Result<ArrayRef, EncodingError> {
    let columns = fields.iter().map(|field| read(reader, field.data_type(), rows)).collect::<Result<Vec<_>, _>>()?;
    let array = StructArray::try_new_with_length(fields.clone(), columns, None, rows);
    Ok(Arc::new(array.map_err(|error| damaged(reader, error))?))
}

/// A length for each row.
fn lengths(reader: &mut Reader<'_>, rows: usize) -> Result<Vec<usize>, EncodingError> {
    if rows > reader.remaining() {
        return Err(reader.corrupt(format!("{rows} lengths, only {} bytes follow", reader.remaining())));
    }
    (0..rows).map(|_| reader.unsigned().map(|length| usize::try_from(length).unwrap_or(usize::MAX))).collect()
}

fn read_bits(reader: &mut Reader<'_>, length: usize) -> Result<BooleanBuffer, EncodingError> {
    let bytes = reader.bytes(length.div_ceil(8))?;
    Ok(BooleanBuffer::new(Buffer::from(bytes), 0, length))
}

fn text<'a>(reader: &Reader<'_>, bytes: &'a [u8]) -> Result<&'a str, EncodingError> {
    std::str::from_utf8(bytes).map_err(|error| reader.corrupt(format!("a string isn't UTF-8: {error}")))
}

fn binary<'a>(_: &Reader<'_>, bytes: &'a [u8]) -> Result<&'a [u8], EncodingError> {
    Ok(bytes)
}

fn damaged(reader: &Reader<'_>, error: ArrowError) -> EncodingError {
    reader.corrupt(error.to_string())
}
