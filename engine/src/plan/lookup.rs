//! What a join to a table looks up: its rows by key, and those of a table with history by key and instant.
//!
//! A row holds from an instant on, until the key's next row; those of a plain table hold from the beginning of time. So no key
//! may have two rows from one instant on, which for a plain table means: two rows.

use std::collections::HashMap;
use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, UInt32Array};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use datafusion::common::{Result, exec_datafusion_err, exec_err};

use super::fit::{Misfit, fit};
use super::timestamp_type;

#[derive(Debug)]
pub struct Lookup {
    rows: RecordBatch,
    converter: RowConverter,
    /// Where each key's rows are in `order`.
    index: HashMap<Box<[u8]>, Range<usize>>,
    /// The rows by key and instant; those with a NULL in their key are not among them.
    order: Vec<u32>,
    /// From when on each row of `order` holds, in microseconds UTC.
    since: Vec<i64>,
    /// How long a row holds at most, in microseconds.
    max_age: Option<i64>,
}

impl Lookup {
    /// `table` names the rows in errors. `since` is there for a table with history.
    pub fn new(
        table: &str,
        rows: RecordBatch,
        keys: &[ArrayRef],
        since: Option<&ArrayRef>,
        max_age: Option<i64>,
    ) -> Result<Self> {
        let converter = RowConverter::new(keys.iter().map(|k| SortField::new(k.data_type().clone())).collect())?;
        let encoded = converter.convert_columns(keys)?;
        let known = all_known(keys);
        let at = match since {
            Some(timestamps) => held_from(table, timestamps)?,
            None => Int64Array::from_value(i64::MIN, rows.num_rows()),
        };
        let mut order: Vec<u32> = (0..rows.num_rows() as u32).filter(|i| known.value(*i as usize)).collect();
        let place = |i: &u32| (encoded.row(*i as usize), at.value(*i as usize));
        order.sort_unstable_by(|a, b| place(a).cmp(&place(b)));
        if let Some(i) = order.windows(2).find(|pair| place(&pair[0]) == place(&pair[1])).map(|pair| pair[0] as usize) {
            let text = keys.iter().map(|k| array_value_to_string(k, i)).collect::<Result<Vec<_>, _>>()?.join(", ");
            return match since {
                Some(timestamps) => exec_err!(
                    "table {table} has more than one row for key {text} at {}; \
                     expected at most one for each key and instant; hint: mend its files, or join it by all of its key",
                    array_value_to_string(timestamps, i)?
                ),
                None => exec_err!(
                    "dimension table {table} has more than one row for key {text}; expected at most one for each key; \
                     hint: group it by the key in a subquery or a CREATE VIEW, or mend its files"
                ),
            };
        }
        let mut index: HashMap<Box<[u8]>, Range<usize>> = HashMap::new();
        for (n, i) in order.iter().enumerate() {
            index.entry(Box::from(encoded.row(*i as usize).data())).or_insert(n..n).end = n + 1;
        }
        let since = order.iter().map(|i| at.value(*i as usize)).collect();
        Ok(Self { rows, converter, index, order, since, max_age })
    }

    /// The rows that were loaded, as they were.
    pub fn rows(&self) -> &RecordBatch {
        &self.rows
    }

    /// For each key the row that holds, if one does: at the instant beside it, in microseconds, of a table with history.
    pub fn find(&self, keys: &[ArrayRef], instants: Option<&Int64Array>) -> Result<UInt32Array> {
        let encoded = self.converter.convert_columns(keys)?;
        let known = all_known(keys);
        let row = |i: usize| {
            let at = match instants {
                Some(instants) => instants.is_valid(i).then(|| instants.value(i))?,
                None => i64::MAX,
            };
            known.value(i).then(|| self.held(encoded.row(i).data(), at)).flatten()
        };
        Ok((0..known.len()).map(row).collect())
    }

    fn held(&self, key: &[u8], at: i64) -> Option<u32> {
        let range = self.index.get(key)?.clone();
        let since = self.since.get(range.clone())?;
        let last = since.partition_point(|since| *since <= at).checked_sub(1)?;
        let age = at.saturating_sub(*since.get(last)?);
        let holds = self.max_age.is_none_or(|max| age <= max);
        holds.then(|| self.order.get(range.start + last).copied()).flatten()
    }
}

/// Instants in microseconds UTC; a date is its midnight.
pub fn instants(values: &ArrayRef) -> Result<Int64Array, Misfit> {
    let fitted = fit(values, &timestamp_type())?;
    Ok(fitted.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>())
}

fn held_from(table: &str, timestamps: &ArrayRef) -> Result<Int64Array> {
    let at = instants(timestamps).map_err(|misfit| {
        let found = match misfit {
            Misfit::Row(row) => array_value_to_string(timestamps, row).unwrap_or_default(),
            Misfit::Types => timestamps.data_type().to_string(),
        };
        exec_datafusion_err!("table {table}: its timestamp `{found}` is out of range")
    })?;
    match at.null_count() {
        0 => Ok(at),
        _ => exec_err!(
            "table {table} has a row whose timestamp is NULL; expected the instant from which on each row holds; \
             hint: mend its files"
        ),
    }
}

/// True where no key part is NULL: NULL is equal to nothing.
fn all_known(keys: &[ArrayRef]) -> BooleanArray {
    let n = keys.first().map_or(0, |k| k.len());
    (0..n).map(|i| Some(keys.iter().all(|k| k.is_valid(i)))).collect()
}

#[cfg(test)]
mod tests {
    use std::{slice, sync::Arc};

    use super::*;
    use arrow::array::{
        Date32Array, Float64Array, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
        TimestampSecondArray,
    };

    /// Rows of (key, from when on); the row's number is its answer.
    fn lookup(rows: &[(Option<&str>, i64)], max_age: Option<i64>) -> Result<Lookup> {
        let keys: ArrayRef = Arc::new(rows.iter().map(|(key, _)| *key).collect::<StringArray>());
        let since = rows.iter().map(|(_, at)| *at).collect::<Vec<_>>();
        let since: ArrayRef = Arc::new(TimestampMicrosecondArray::from(since).with_timezone("UTC"));
        let table = RecordBatch::try_from_iter([("k", keys.clone()), ("since", since.clone())])?;
        Lookup::new("prices", table, &[keys], Some(&since), max_age)
    }

    fn at(lookup: &Lookup, key: Option<&str>, at: i64) -> Option<u32> {
        let keys: ArrayRef = Arc::new(StringArray::from(vec![key]));
        let found = lookup.find(&[keys], Some(&Int64Array::from(vec![at]))).unwrap();
        found.is_valid(0).then(|| found.value(0))
    }

    #[test]
    fn a_row_holds_from_its_instant_on_until_the_next() {
        let table = lookup(&[(Some("b"), 50), (Some("a"), 20), (Some("a"), -10), (Some("a"), 21)], None).unwrap();
        for (t, row) in [(-11, None), (-10, Some(2)), (19, Some(2)), (20, Some(1)), (21, Some(3)), (i64::MAX, Some(3))]
        {
            assert_eq!(at(&table, Some("a"), t), row, "at {t}");
        }
        assert_eq!(at(&table, Some("b"), 49), None);
        assert_eq!(at(&table, Some("c"), 100), None);
        assert_eq!(at(&table, None, 100), None);
    }

    #[test]
    fn a_row_of_the_oldest_age_still_holds_and_none_behind_it_does() {
        let table = lookup(&[(Some("a"), 0), (Some("a"), 100)], Some(30)).unwrap();
        for (t, row) in
            [(0, Some(0)), (30, Some(0)), (31, None), (99, None), (100, Some(1)), (130, Some(1)), (131, None)]
        {
            assert_eq!(at(&table, Some("a"), t), row, "at {t}");
        }
        // The age is more than any number.
        let table = lookup(&[(Some("a"), i64::MIN)], Some(i64::MAX - 1)).unwrap();
        assert_eq!(at(&table, Some("a"), i64::MAX), None);
    }

    #[test]
    fn two_rows_from_one_instant_on_are_refused_and_those_without_a_key_left_out() {
        let error = lookup(&[(Some("a"), 0), (Some("b"), 0), (Some("a"), 0)], None).unwrap_err().strip_backtrace();
        assert!(error.contains("prices has more than one row for key a at 1970-01-01T00:00:00Z"), "{error}");
        let table = lookup(&[(None, 0), (None, 0), (Some("a"), 0)], None).unwrap();
        assert_eq!(at(&table, Some("a"), 0), Some(2));
        assert_eq!(at(&table, None, 0), None);
        assert_eq!(table.rows().num_rows(), 3, "for the fingerprint");
    }

    #[test]
    fn a_plain_table_holds_at_every_instant() {
        let keys: ArrayRef = Arc::new(Float64Array::from(vec![Some(0.0), Some(-0.0), Some(f64::NAN), None]));
        let rows = RecordBatch::try_from_iter([("k", keys.clone())]).unwrap();
        let table = Lookup::new("t", rows.clone(), slice::from_ref(&keys), None, None).unwrap();
        let found = table.find(slice::from_ref(&keys), None).unwrap();
        assert_eq!(found.iter().collect::<Vec<_>>(), [Some(0), Some(1), Some(2), None], "by their bits");
        let twice: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 1.0]));
        let rows = RecordBatch::try_from_iter([("k", twice.clone())]).unwrap();
        let error = Lookup::new("t", rows, &[twice], None, None).unwrap_err().strip_backtrace();
        assert!(error.contains("dimension table t has more than one row for key 1.0"), "{error}");
    }

    #[test]
    fn every_kind_of_instant_is_microseconds_utc() {
        let micros = |values: ArrayRef| instants(&values).unwrap().value(0);
        assert_eq!(micros(Arc::new(TimestampSecondArray::from(vec![2]))), 2_000_000);
        assert_eq!(micros(Arc::new(TimestampSecondArray::from(vec![2]).with_timezone("+01:00"))), 2_000_000);
        assert_eq!(micros(Arc::new(TimestampNanosecondArray::from(vec![-1]))), -1, "the microsecond before");
        assert_eq!(micros(Arc::new(Date32Array::from(vec![-1]))), -86_400_000_000);
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
        let rows = RecordBatch::try_from_iter([("k", keys.clone())]).unwrap();
        let refused = |since: ArrayRef| {
            Lookup::new("t", rows.clone(), slice::from_ref(&keys), Some(&since), None).unwrap_err().strip_backtrace()
        };
        let error = refused(Arc::new(Date32Array::from(vec![Some(1), None])));
        assert!(error.contains("table t has a row whose timestamp is NULL"), "{error}");
        let error = refused(Arc::new(TimestampSecondArray::from(vec![1, i64::MAX])));
        assert!(error.contains("is out of range"), "{error}");
    }
}
