//! Arrow types by the names that SQL has for them: what a user wrote in a definition.

use arrow::datatypes::DataType;

/// The SQL name of a type, as in `CREATE FEATURE SERVICE s (user_id BIGINT)`.
pub fn sql_type(data_type: &DataType) -> String {
    use DataType::*;
    let name = match data_type {
        Boolean => "BOOLEAN",
        Int8 => "TINYINT",
        Int16 => "SMALLINT",
        Int32 => "INTEGER",
        Int64 => "BIGINT",
        UInt8 => "TINYINT UNSIGNED",
        UInt16 => "SMALLINT UNSIGNED",
        UInt32 => "INTEGER UNSIGNED",
        UInt64 => "BIGINT UNSIGNED",
        Float16 | Float32 => "REAL",
        Float64 => "DOUBLE",
        Utf8 | LargeUtf8 | Utf8View => "VARCHAR",
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => "BYTEA",
        Date32 | Date64 => "DATE",
        Time32(_) | Time64(_) => "TIME",
        Timestamp(_, _) => "TIMESTAMP",
        Interval(_) | Duration(_) => "INTERVAL",
        Decimal32(p, s) | Decimal64(p, s) | Decimal128(p, s) | Decimal256(p, s) => return format!("DECIMAL({p}, {s})"),
        Dictionary(_, values) => return sql_type(values),
        List(item) | LargeList(item) | ListView(item) | LargeListView(item) => {
            return format!("{}[]", sql_type(item.data_type()));
        }
        FixedSizeList(item, n) => return format!("{}[{n}]", sql_type(item.data_type())),
        Struct(fields) => {
            let fields: Vec<String> =
                fields.iter().map(|f| format!("{} {}", f.name(), sql_type(f.data_type()))).collect();
            return format!("STRUCT<{}>", fields.join(", "));
        }
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Field;

    use super::*;

    #[test]
    fn types_have_their_sql_names() {
        let list = DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true)));
        assert_eq!(sql_type(&list), "VARCHAR[]");
        assert_eq!(
            sql_type(&DataType::Struct(
                vec![Field::new("a", list, true), Field::new("b", DataType::Decimal128(10, 2), true)].into()
            )),
            "STRUCT<a VARCHAR[], b DECIMAL(10, 2)>"
        );
    }
}
