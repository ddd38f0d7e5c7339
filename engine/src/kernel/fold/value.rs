//! One value outside its column: what a state remembers, and what becomes a row of a result.
//!
//! A [`Value`] orders as DataFusion's MIN and MAX do: integers, dates, instants, decimals and booleans by value,
//! strings and binaries by bytes, and floats in IEEE total order (`-NaN < -inf < … < -0.0 < 0.0 < … < inf < NaN`),
//! because a float is kept as the integer that orders so. Equality is therefore equality of bits.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BinaryViewBuilder, BooleanBuilder, LargeBinaryBuilder, LargeStringBuilder,
    PrimitiveBuilder, StringBuilder, StringViewBuilder,
};
use arrow::datatypes::{DataType, i256};

use crate::kernel::KernelError;

/// A value that is not NULL, without its type.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Value {
    /// Booleans, integers, dates, times, instants, durations, decimals up to 128 bits, and floats by their order.
    Int(i128),
    /// Decimals of 256 bits.
    Wide(i256),
    /// Strings and binaries.
    Bytes(Box<[u8]>),
}

/// How a type's values are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ValueKind {
    Int,
    Wide,
    Bytes,
}

/// The kind of a type's values; `None` for a type that has no [`Value`].
pub(crate) fn value_kind(data_type: &DataType) -> Option<ValueKind> {
    use DataType::*;
    Some(match data_type {
        Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32 | Float64 => ValueKind::Int,
        Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Duration(_) => ValueKind::Int,
        Decimal32(..) | Decimal64(..) | Decimal128(..) => ValueKind::Int,
        Decimal256(..) => ValueKind::Wide,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => ValueKind::Bytes,
        _ => return None,
    })
}

/// A native value of a primitive column, as a [`Value`] and back.
pub(crate) trait Native: Copy + PartialOrd {
    fn to_value(self) -> Value;
    /// Integers wrap, as SUM does where its type overflows.
    fn from_value(value: &Value) -> Self;
}

macro_rules! integers {
    ($($native:ty),*) => {$(
        impl Native for $native {
            #[inline]
            fn to_value(self) -> Value {
                Value::Int(self as i128)
            }
            #[inline]
            fn from_value(value: &Value) -> Self {
                value.int() as $native
            }
        }
    )*};
}
integers!(i8, i16, i32, i64, u8, u16, u32, u64, i128);

impl Native for i256 {
    #[inline]
    fn to_value(self) -> Value {
        Value::Wide(self)
    }
    fn from_value(value: &Value) -> Self {
        match value {
            Value::Wide(value) => *value,
            other => i256::from_i128(other.int()),
        }
    }
}

macro_rules! floats {
    ($($native:ty, $bits:ty, $signed:ty);*) => {$(
        impl Native for $native {
            #[inline]
            fn to_value(self) -> Value {
                let bits = self.to_bits() as $signed;
                // Negative numbers order the other way round: all bits but the sign are flipped.
                Value::Int((bits ^ (((bits >> (<$signed>::BITS - 1)) as $bits) >> 1) as $signed) as i128)
            }
            #[inline]
            fn from_value(value: &Value) -> Self {
                let bits = value.int() as $signed;
                <$native>::from_bits((bits ^ (((bits >> (<$signed>::BITS - 1)) as $bits) >> 1) as $signed) as $bits)
            }
        }
    )*};
}
floats!(f32, u32, i32; f64, u64, i64);

impl Value {
    pub fn from_f64(value: f64) -> Self {
        value.to_value()
    }

    /// The integer; bytes have none and give 0, which no caller relies on.
    pub fn int(&self) -> i128 {
        match self {
            Value::Int(value) => *value,
            Value::Wide(value) => value.as_i128(),
            Value::Bytes(_) => 0,
        }
    }

    pub fn wide(&self) -> i256 {
        i256::from_value(self)
    }
}

/// Runs a macro with the arrow type of a primitive column, or evaluates the last expression for other types.
macro_rules! dispatch_primitive {
    ($data_type:expr, $run:ident, $other:expr) => {{
        use arrow::datatypes::*;
        match $data_type {
            DataType::Int8 => $run!(Int8Type),
            DataType::Int16 => $run!(Int16Type),
            DataType::Int32 => $run!(Int32Type),
            DataType::Int64 => $run!(Int64Type),
            DataType::UInt8 => $run!(UInt8Type),
            DataType::UInt16 => $run!(UInt16Type),
            DataType::UInt32 => $run!(UInt32Type),
            DataType::UInt64 => $run!(UInt64Type),
            DataType::Float32 => $run!(Float32Type),
            DataType::Float64 => $run!(Float64Type),
            DataType::Date32 => $run!(Date32Type),
            DataType::Date64 => $run!(Date64Type),
            DataType::Time32(TimeUnit::Second) => $run!(Time32SecondType),
            DataType::Time32(TimeUnit::Millisecond) => $run!(Time32MillisecondType),
            DataType::Time64(TimeUnit::Microsecond) => $run!(Time64MicrosecondType),
            DataType::Time64(TimeUnit::Nanosecond) => $run!(Time64NanosecondType),
            DataType::Timestamp(TimeUnit::Second, _) => $run!(TimestampSecondType),
            DataType::Timestamp(TimeUnit::Millisecond, _) => $run!(TimestampMillisecondType),
            DataType::Timestamp(TimeUnit::Microsecond, _) => $run!(TimestampMicrosecondType),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => $run!(TimestampNanosecondType),
            DataType::Duration(TimeUnit::Second) => $run!(DurationSecondType),
            DataType::Duration(TimeUnit::Millisecond) => $run!(DurationMillisecondType),
            DataType::Duration(TimeUnit::Microsecond) => $run!(DurationMicrosecondType),
            DataType::Duration(TimeUnit::Nanosecond) => $run!(DurationNanosecondType),
            DataType::Decimal32(..) => $run!(Decimal32Type),
            DataType::Decimal64(..) => $run!(Decimal64Type),
            DataType::Decimal128(..) => $run!(Decimal128Type),
            DataType::Decimal256(..) => $run!(Decimal256Type),
            _ => $other,
        }
    }};
}
pub(crate) use dispatch_primitive;

/// Runs a macro with a string or binary column's accessor, or evaluates the last expression for other types.
macro_rules! dispatch_bytes {
    ($array:expr, $run:ident, $other:expr) => {{
        use arrow::array::AsArray;
        use arrow::datatypes::DataType;
        match $array.data_type() {
            DataType::Utf8 => $run!($array.as_string::<i32>()),
            DataType::LargeUtf8 => $run!($array.as_string::<i64>()),
            DataType::Utf8View => $run!($array.as_string_view()),
            DataType::Binary => $run!($array.as_binary::<i32>()),
            DataType::LargeBinary => $run!($array.as_binary::<i64>()),
            DataType::BinaryView => $run!($array.as_binary_view()),
            _ => $other,
        }
    }};
}
pub(crate) use dispatch_bytes;

/// The value of a row; `None` where it is NULL, or the type has no [`Value`].
pub(crate) fn value_at(array: &ArrayRef, row: usize) -> Option<Value> {
    if array.is_null(row) {
        return None;
    }
    macro_rules! primitive {
        ($type:ty) => {
            Some(array.as_primitive::<$type>().value(row).to_value())
        };
    }
    macro_rules! bytes {
        ($array:expr) => {{
            let bytes: &[u8] = $array.value(row).as_ref();
            Some(Value::Bytes(bytes.into()))
        }};
    }
    dispatch_primitive!(array.data_type(), primitive, {
        match array.data_type() {
            DataType::Boolean => Some(Value::Int(i128::from(array.as_boolean().value(row)))),
            _ => dispatch_bytes!(array, bytes, None),
        }
    })
}

/// A column of `data_type` from values; `None` is NULL.
pub(crate) fn build(data_type: &DataType, values: &[Option<Value>]) -> Result<ArrayRef, KernelError> {
    macro_rules! primitive {
        ($type:ty) => {{
            let mut builder = PrimitiveBuilder::<$type>::with_capacity(values.len()).with_data_type(data_type.clone());
            for value in values {
                builder.append_option(value.as_ref().map(Native::from_value));
            }
            Ok(Arc::new(builder.finish()))
        }};
    }
    macro_rules! bytes {
        ($builder:expr, $convert:expr) => {{
            let mut builder = $builder;
            for value in values {
                match value {
                    Some(Value::Bytes(bytes)) => builder.append_value($convert(bytes)?),
                    Some(_) => {
                        return Err(KernelError::Rows(format!("a number where {data_type} was expected")));
                    }
                    None => builder.append_null(),
                }
            }
            Ok(Arc::new(builder.finish()))
        }};
    }
    dispatch_primitive!(data_type, primitive, {
        match data_type {
            DataType::Boolean => {
                let mut builder = BooleanBuilder::with_capacity(values.len());
                for value in values {
                    builder.append_option(value.as_ref().map(|value| value.int() != 0));
                }
                Ok(Arc::new(builder.finish()))
            }
            DataType::Utf8 => bytes!(StringBuilder::new(), text),
            DataType::LargeUtf8 => bytes!(LargeStringBuilder::new(), text),
            DataType::Utf8View => bytes!(StringViewBuilder::new(), text),
            DataType::Binary => bytes!(BinaryBuilder::new(), binary),
            DataType::LargeBinary => bytes!(LargeBinaryBuilder::new(), binary),
            DataType::BinaryView => bytes!(BinaryViewBuilder::new(), binary),
            other => Err(KernelError::Spec(format!("no column of {other} can be built from values"))),
        }
    })
}

fn text(bytes: &[u8]) -> Result<&str, KernelError> {
    std::str::from_utf8(bytes).map_err(|error| KernelError::Rows(format!("a string isn't UTF-8: {error}")))
}

fn binary(bytes: &[u8]) -> Result<&[u8], KernelError> {
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Float64Array;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn floats_keep_their_bits_and_their_total_order() {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let special = [0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, -5e-324];
        let drawn = (0..500).map(|_| f64::from_bits(random.next_u64()));
        let values: Vec<f64> = special.into_iter().chain(drawn).collect();
        for a in &values {
            assert_eq!(f64::from_value(&a.to_value()).to_bits(), a.to_bits());
            let narrow = *a as f32;
            assert_eq!(f32::from_value(&narrow.to_value()).to_bits(), narrow.to_bits());
            for b in &values {
                assert_eq!(a.to_value().cmp(&b.to_value()), a.total_cmp(b), "{a} {b}");
            }
        }
        let array: ArrayRef = Arc::new(Float64Array::from(values));
        let read: Vec<_> = (0..array.len()).map(|row| value_at(&array, row)).collect();
        let built = build(array.data_type(), &read).unwrap();
        assert_eq!(built.to_data().buffers(), array.to_data().buffers());
    }
}
