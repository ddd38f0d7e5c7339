//! Arrow types by their SQL names, which are the ones that definitions use.

use arrow::datatypes::{DataType, TimeUnit};

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
        Timestamp(unit, zone) => {
            format!("TIMESTAMP in {unit}{}", zone.as_ref().map(|z| format!(" at {z}")).unwrap_or_default())
        }
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => format!("DECIMAL({p}, {s})"),
        Interval(_) => "INTERVAL".into(),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) | FixedSizeList(item, _) => {
            format!("{}[]", sql_type(item.data_type()))
        }
        Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type()))).collect();
            format!("STRUCT({})", fields.join(", "))
        }
        Dictionary(_, values) => sql_type(values),
        Null => "NULL".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn types_have_their_sql_names() {
        assert_eq!(sql_type(&DataType::Utf8), "VARCHAR");
        assert_eq!(sql_type(&DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))), "TIMESTAMP");
        assert_eq!(sql_type(&DataType::Decimal128(10, 2)), "DECIMAL(10, 2)");
        let item = Arc::new(arrow::datatypes::Field::new("item", DataType::Int64, true));
        assert_eq!(sql_type(&DataType::List(item)), "BIGINT[]");
    }
}
