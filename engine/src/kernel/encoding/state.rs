//! The states of folds. The layout is in the [module above](super).

use super::bytes::{Reader, Writer};
use crate::kernel::EncodingError;
use crate::kernel::big::Big;
use crate::kernel::exact::{ExactSum, MAX_LIMBS};
use crate::kernel::fold::value::{Value, ValueKind, value_kind};
use crate::kernel::fold::{Distinct, Extreme, FloatSum, Fold, Kind, Moments, Position, State, WideSum};

pub(crate) fn write(writer: &mut Writer, state: &State) {
    match state {
        State::Count(count) => writer.signed(*count),
        State::Wide(sum) => {
            writer.unsigned(sum.count);
            writer.wide(sum.sum);
        }
        State::Float(sum) => {
            writer.unsigned(sum.count);
            write_exact(writer, &sum.sum);
        }
        State::Moments(moments) => {
            writer.unsigned(moments.count);
            write_exact(writer, &moments.sum);
            write_exact(writer, &moments.squares);
        }
        State::Extreme(extreme) => write_option(writer, extreme.value()),
        State::Distinct(distinct) => {
            // Sorted, so that equal sets are equal bytes.
            let mut numbers: Vec<&Value> = distinct.numbers.iter().collect();
            let mut bytes: Vec<&[u8]> = distinct.bytes.iter().map(|bytes| bytes.as_ref()).collect();
            numbers.sort_unstable();
            bytes.sort_unstable();
            writer.length(numbers.len() + bytes.len());
            numbers.into_iter().for_each(|value| write_value(writer, value));
            bytes.into_iter().for_each(|bytes| write_bytes(writer, bytes));
        }
        State::Position(position) => {
            writer.byte(u8::from(position.is_some()));
            if let Some(Position { place: (time, partition, offset), value }) = position {
                writer.signed(*time);
                writer.signed(i64::from(*partition));
                writer.signed(*offset);
                write_option(writer, value.as_ref());
            }
        }
    }
}

pub(crate) fn read(reader: &mut Reader<'_>, fold: &Fold) -> Result<State, EncodingError> {
    // Folds that hold values have arguments of a type that has a kind.
    let kind = value_kind(&fold.arg_type).unwrap_or(ValueKind::Int);
    Ok(match fold.kind {
        Kind::Count => State::Count(reader.signed()?),
        Kind::Wide => State::Wide(WideSum { count: reader.unsigned()?, sum: reader.wide()? }),
        Kind::Float => State::Float(FloatSum { count: reader.unsigned()?, sum: read_exact(reader)? }),
        Kind::Moments => State::Moments(Moments {
            count: reader.unsigned()?,
            sum: read_exact(reader)?,
            squares: read_exact(reader)?,
        }),
        Kind::Min => State::Extreme(Extreme::Min(read_option(reader, kind)?)),
        Kind::Max => State::Extreme(Extreme::Max(read_option(reader, kind)?)),
        Kind::Distinct => {
            let mut distinct = Distinct::default();
            for _ in 0..reader.length(1)? {
                match read_value(reader, kind)? {
                    Value::Bytes(bytes) => distinct.bytes.insert(bytes),
                    number => distinct.numbers.insert(number),
                };
            }
            State::Distinct(distinct)
        }
        Kind::First | Kind::Last => State::Position(if reader.flag()? {
            let (time, partition, offset) = (reader.signed()?, reader.signed()?, reader.signed()?);
            let partition = i32::try_from(partition).map_err(|_| reader.corrupt(format!("partition {partition}")))?;
            Some(Position { place: (time, partition, offset), value: read_option(reader, kind)? })
        } else {
            None
        }),
    })
}

fn write_exact(writer: &mut Writer, sum: &ExactSum) {
    let exact = sum.exact();
    writer.byte(u8::from(exact.negative) | u8::from(!sum.is_finite()) << 1);
    if !sum.is_finite() {
        [sum.nan, sum.positive_infinities, sum.negative_infinities]
            .into_iter()
            .for_each(|count| writer.unsigned(count));
    }
    writer.length(exact.digits.len());
    if !exact.digits.is_empty() {
        writer.signed(i64::from(exact.low));
        exact.digits.iter().for_each(|digit| writer.bytes(&digit.to_le_bytes()));
    }
}

fn read_exact(reader: &mut Reader<'_>) -> Result<ExactSum, EncodingError> {
    let flags = reader.byte()?;
    if flags > 3 {
        return Err(reader.corrupt(format!("flags {flags} of an exact sum")));
    }
    let counts = if flags & 2 != 0 { [reader.unsigned()?, reader.unsigned()?, reader.unsigned()?] } else { [0; 3] };
    let length = reader.length(4)?;
    let mut big = Big { negative: flags & 1 != 0, low: 0, digits: Vec::with_capacity(length) };
    if length > 0 {
        let low = reader.signed()?;
        let fits = low >= 0 && low.saturating_add(length as i64) <= i64::from(MAX_LIMBS);
        big.low = i32::try_from(low)
            .ok()
            .filter(|_| fits)
            .ok_or_else(|| reader.corrupt(format!("digits {low} and up, {length} of them")))?;
        for _ in 0..length {
            big.digits.push(u32::from_le_bytes(reader.array()?));
        }
    }
    let mut sum = ExactSum::from_exact(&big);
    [sum.nan, sum.positive_infinities, sum.negative_infinities] = counts;
    Ok(sum)
}

fn write_option(writer: &mut Writer, value: Option<&Value>) {
    writer.byte(u8::from(value.is_some()));
    if let Some(value) = value {
        write_value(writer, value);
    }
}

fn read_option(reader: &mut Reader<'_>, kind: ValueKind) -> Result<Option<Value>, EncodingError> {
    if reader.flag()? { Ok(Some(read_value(reader, kind)?)) } else { Ok(None) }
}

fn write_value(writer: &mut Writer, value: &Value) {
    match value {
        Value::Bytes(bytes) => write_bytes(writer, bytes),
        number => writer.wide(number.wide()),
    }
}

fn write_bytes(writer: &mut Writer, bytes: &[u8]) {
    writer.length(bytes.len());
    writer.bytes(bytes);
}

fn read_value(reader: &mut Reader<'_>, kind: ValueKind) -> Result<Value, EncodingError> {
    Ok(match kind {
        ValueKind::Int => {
            let value = reader.wide()?;
            Value::Int(value.to_i128().ok_or_else(|| reader.corrupt("a number longer than 128 bits"))?)
        }
        ValueKind::Wide => Value::Wide(reader.wide()?),
        ValueKind::Bytes => {
            let length = reader.length(1)?;
            Value::Bytes(reader.bytes(length)?.into())
        }
    })
}
