//! Types, expressions and durations as a person writes them in SQL.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Cast, Expr};
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::Dialect;

use crate::kernel::Interval;

/// An Arrow type by its SQL name.
pub fn sql_type(data_type: &DataType) -> String {
    use DataType::*;
    match data_type {
        Boolean => "BOOLEAN".into(),
        Int8 => "TINYINT".into(),
        Int16 => "SMALLINT".into(),
        Int32 => "INT".into(),
        Int64 => "BIGINT".into(),
        UInt8 => "TINYINT UNSIGNED".into(),
        UInt16 => "SMALLINT UNSIGNED".into(),
        UInt32 => "INT UNSIGNED".into(),
        UInt64 => "BIGINT UNSIGNED".into(),
        Float32 => "REAL".into(),
        Float64 => "DOUBLE".into(),
        Utf8 | LargeUtf8 | Utf8View => "VARCHAR".into(),
        Binary | LargeBinary | BinaryView => "BYTEA".into(),
        FixedSizeBinary(n) => format!("BYTEA of {n} bytes"),
        Date32 | Date64 => "DATE".into(),
        Time32(_) | Time64(_) => "TIME".into(),
        Timestamp(TimeUnit::Microsecond, Some(zone)) if zone.as_ref() == "UTC" => "TIMESTAMP".into(),
        Timestamp(unit, zone) => format!("TIMESTAMP in {unit}{}", zone.as_ref().map(|z| format!(" at {z}")).unwrap_or_default()),
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => format!("DECIMAL({p}, {s})"),
        Interval(IntervalUnit::YearMonth | IntervalUnit::DayTime | IntervalUnit::MonthDayNano) => "INTERVAL".into(),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => format!("{}[]", sql_type(item.data_type())),
        Struct(fields) => {
            let fields: Vec<String> = fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type()))).collect();
            format!("STRUCT({})", fields.join(", "))
        }
        Dictionary(_, values) => sql_type(values),
        Null => "NULL".into(),
        other => other.to_string(),
    }
}

/// An expression as SQL, without the relations of its columns.
pub fn sql(expr: &Expr) -> String {
    let plain = expr.clone().transform_up(|e| {
        Ok(match e {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(quoted(&column.name)))),
            // What a coercion made of a constant is that constant.
            Expr::Cast(Cast { expr, field }) => match expr.as_ref() {
                Expr::Literal(value, metadata) => match value.cast_to(field.data_type()) {
                    Ok(value) if !value.is_null() => Transformed::yes(Expr::Literal(value, metadata.clone())),
                    _ => Transformed::no(Expr::Cast(Cast { expr, field })),
                },
                _ => Transformed::no(Expr::Cast(Cast { expr, field })),
            },
            other => Transformed::no(other),
        })
    });
    let Ok(plain) = plain else { return expr.to_string() };
    match Unparser::new(&Plain).with_pretty(true).expr_to_sql(&plain.data) {
        Ok(ast) => ast.to_string(),
        Err(_) => plain.data.human_display().to_string(),
    }
}

/// A column's name as SQL must say it. A name with blanks is left as it is: it is a label of ours.
fn quoted(name: &str) -> String {
    let plain = name.chars().all(|c| c.is_lowercase() || c.is_numeric() || c == '_') && !name.starts_with(char::is_numeric);
    let label = name.contains(" OVER ");
    if plain || label { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// Standard SQL; names are already quoted.
struct Plain;

impl Dialect for Plain {
    fn identifier_quote_style(&self, _identifier: &str) -> Option<char> {
        None
    }
}

/// `7 days 1 hour`; microseconds.
pub fn duration(micros: i64) -> String {
    const UNITS: [(i64, &str); 6] =
        [(86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second"), (1_000, "millisecond"), (1, "microsecond")];
    let mut rest = micros.max(0);
    let mut parts = vec![];
    for (size, unit) in UNITS {
        if rest >= size {
            parts.push(counted(rest / size, unit));
            rest %= size;
        }
    }
    if parts.is_empty() { "0 seconds".into() } else { parts.join(" ") }
}

/// `1 month 2 days`: months and days are the calendar's.
pub fn interval(interval: &Interval) -> String {
    let mut parts = vec![];
    let (years, months) = (interval.months / 12, interval.months % 12);
    for (count, unit) in [(years, "year"), (months, "month"), (interval.days, "day")] {
        if count != 0 {
            parts.push(counted(i64::from(count), unit));
        }
    }
    if interval.micros != 0 || parts.is_empty() {
        parts.push(duration(interval.micros));
    }
    parts.join(" ")
}

/// `1 event`, `2 events`.
pub fn counted(count: i64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `a, b and c`.
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use datafusion::prelude::{col, lit};

    #[test]
    fn durations_and_intervals_read_as_they_are_written() {
        assert_eq!(duration(0), "0 seconds");
        assert_eq!(duration(7 * 86_400_000_000 + 3_600_000_000), "7 days 1 hour");
        assert_eq!(duration(1_001), "1 millisecond 1 microsecond");
        assert_eq!(interval(&Interval { months: 13, days: 2, micros: 0 }), "1 year 1 month 2 days");
        assert_eq!(interval(&Interval::default()), "0 seconds");
    }

    #[test]
    fn expressions_are_sql_without_relations() {
        let expr = Expr::Column(Column::new(Some("t"), "amount")).gt(Expr::Cast(Cast::new(Box::new(lit(5i64)), DataType::Float64)));
        assert_eq!(sql(&expr), "amount > 5.0");
        assert_eq!(sql(&Expr::Column(Column::new_unqualified("User Id"))), "\"User Id\"");
        assert_eq!(sql(&(col("a") + col("b")).is_null()), "a + b IS NULL");
    }

    #[test]
    fn types_have_their_sql_names() {
        assert_eq!(sql_type(&DataType::Utf8), "VARCHAR");
        assert_eq!(sql_type(&crate::plan::timestamp_type()), "TIMESTAMP");
        assert_eq!(sql_type(&DataType::Decimal128(10, 2)), "DECIMAL(10, 2)");
        let item = Arc::new(arrow::datatypes::Field::new("item", DataType::Int64, true));
        assert_eq!(sql_type(&DataType::List(item)), "BIGINT[]");
    }
}
