//! Expressions and durations as a person writes them in SQL.

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::{Cast, Expr};
use datafusion::sql::unparser::Unparser;
use datafusion::sql::unparser::dialect::Dialect;

pub use crate::catalog::sql_type;
use crate::kernel::Interval;

/// An expression as SQL, without the relations of its columns.
pub fn sql(expr: &Expr) -> String {
    with_columns(expr, &|column| quoted(&column.name))
}

/// An expression as SQL, columns with their relations.
pub fn qualified_sql(expr: &Expr) -> String {
    with_columns(expr, &|column| match &column.relation {
        Some(relation) => format!("{}.{}", quoted(relation.table()), quoted(&column.name)),
        None => quoted(&column.name),
    })
}

fn with_columns(expr: &Expr, name: &dyn Fn(&Column) -> String) -> String {
    let plain = expr.clone().transform_up(|e| {
        Ok(match e {
            Expr::Column(column) => Transformed::yes(Expr::Column(Column::new_unqualified(name(&column)))),
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
    let plain =
        name.chars().all(|c| c.is_lowercase() || c.is_numeric() || c == '_') && !name.starts_with(char::is_numeric);
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
    const UNITS: [(i64, &str); 6] = [
        (86_400_000_000, "day"),
        (3_600_000_000, "hour"),
        (60_000_000, "minute"),
        (1_000_000, "second"),
        (1_000, "millisecond"),
        (1, "microsecond"),
    ];
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
    use arrow::datatypes::DataType;
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
        let expr = Expr::Column(Column::new(Some("t"), "amount"))
            .gt(Expr::Cast(Cast::new(Box::new(lit(5i64)), DataType::Float64)));
        assert_eq!(sql(&expr), "amount > 5.0");
        assert_eq!(sql(&Expr::Column(Column::new_unqualified("User Id"))), "\"User Id\"");
        assert_eq!(sql(&(col("a") + col("b")).is_null()), "a + b IS NULL");
    }
}
