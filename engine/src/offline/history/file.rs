//! A file of a history as events.
//!
//! Guarantees: every byte that is read is of the file that was listed, or the read fails and says so. Rows are numbered as they lie in the
//! file, whatever part of it is read.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Schema, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::{HISTORY, History, HistoryFile, ROW_BITS};
use crate::offline::OfflineError;
use crate::source::{INGESTED_AT, OFFSET, PARTITION};

/// Rows that are unpacked at once.
const ROWS: usize = 8192;

/// Reads the bytes of a file as it was listed.
struct Pinned {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
}

impl AsyncFileReader for Pinned {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            if_match: self.meta.e_tag.clone(),
            ..GetOptions::default()
        };
        async move {
            let changed = |what: &str| ParquetError::General(format!("the file {what} since it was listed"));
            let read = self.store.get_opts(&self.meta.location, options).await.map_err(|e| match e {
                object_store::Error::NotFound { .. } => changed("is gone"),
                object_store::Error::Precondition { .. } => changed("was changed"),
                e => ParquetError::External(e.into()),
            })?;
            if read.meta.size != self.meta.size {
                return Err(changed("was changed"));
            }
            read.bytes().await.map_err(|e| ParquetError::External(e.into()))
        }
        .boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.meta.size;
            Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// Rows of a file, in order.
pub(super) struct Rows {
    history: Arc<History>,
    file: usize,
    rows: ParquetRecordBatchStream<Pinned>,
    /// The contract's columns that are wanted, over the file's that are read.
    columns: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    next: i64,
}

impl History {
    /// The rows of a file from one on, with some of the [`schema`](Self::schema)'s columns.
    pub(super) async fn rows(
        self: &Arc<Self>,
        file: usize,
        from: i64,
        schema: SchemaRef,
    ) -> Result<Option<Rows>, OfflineError> {
        let Some(found) = self.files.get(file) else { return Ok(None) };
        let unread = |e: &dyn std::fmt::Display| self.refused(&found.name, format!("can't read: {}", told(e)));
        let pinned = Pinned { store: Arc::clone(&self.store), meta: found.meta.clone() };
        // What a writer of Arrow says of its own types (large texts, dictionaries) is no matter here.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder =
            ParquetRecordBatchStreamBuilder::new_with_options(pinned, options).await.map_err(|e| unread(&e))?;
        let expected = builder.metadata().file_metadata().num_rows();
        if expected >= 1 << ROW_BITS {
            return Err(
                self.refused(&found.name, format!("{expected} rows; expected fewer than {}", 1_i64 << ROW_BITS))
            );
        }
        let (columns, mask) = self
            .columns(builder.schema(), builder.parquet_schema(), &schema)
            .map_err(|e| self.refused(&found.name, e.message()))?;
        let builder = builder.with_projection(mask).with_batch_size(ROWS);
        let rows = builder.with_offset(usize::try_from(from).unwrap_or(0)).build().map_err(|e| unread(&e))?;
        Ok(Some(Rows { history: Arc::clone(self), file, rows, columns, schema, next: from }))
    }

    /// The columns that are wanted as expressions over those of the file that they need, and which those are.
    fn columns(
        &self,
        file: &SchemaRef,
        parquet: &parquet::schema::types::SchemaDescriptor,
        wanted: &Schema,
    ) -> DfResult<(Vec<Arc<dyn PhysicalExpr>>, ProjectionMask)> {
        let contract = self.judge.contract.columns();
        let adapter = self.older.create(Arc::clone(contract), Arc::clone(file))?;
        let mut columns = vec![];
        for field in wanted.fields() {
            // What a writer of Parquet makes of a column without a value.
            let empty = file.field_with_name(field.name()).is_ok_and(|stored| stored.data_type().is_null());
            if empty && field.is_nullable() {
                columns.push(lit(ScalarValue::try_from(field.data_type())?));
            } else if let Some((place, _)) = contract.column_with_name(field.name()) {
                columns.push(adapter.rewrite(Arc::new(Column::new(field.name(), place)))?);
            }
        }
        let mut read: BTreeMap<usize, ()> = BTreeMap::new();
        for column in columns.iter().flat_map(collect_columns) {
            read.insert(column.index(), ());
        }
        let places: Vec<usize> = read.into_keys().collect();
        let left = file.project(&places)?;
        let columns = columns.into_iter().map(|column| reassign_expr_columns(column, &left));
        Ok((columns.collect::<DfResult<_>>()?, ProjectionMask::roots(parquet, places)))
    }
}

impl Rows {
    /// The next ones; none at the end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, OfflineError> {
        let history = Arc::clone(&self.history);
        let Some(file) = history.files.get(self.file) else { return Ok(None) };
        let read = self.rows.try_next().await;
        let unread = |e: String| history.refused(&file.name, format!("can't read: {e}"));
        let Some(rows) = read.map_err(|e| unread(told(&e)))? else { return Ok(None) };
        let first = self.next;
        self.next += rows.num_rows() as i64;
        self.events(&rows, file, first).map(Some)
    }

    fn events(&self, rows: &RecordBatch, file: &HistoryFile, first: i64) -> Result<RecordBatch, OfflineError> {
        let history = &self.history;
        let n = rows.num_rows();
        let unread = |e: String| history.refused(&file.name, format!("can't read: {e}"));
        let at = |row: usize| format!("{}, row {}", file.name, first + row as i64 + 1);
        let mut columns = self.columns.iter();
        let mut read: Vec<ArrayRef> = vec![];
        for field in self.schema.fields() {
            let column: ArrayRef = match field.name().as_str() {
                PARTITION => Arc::new(Int32Array::from_value(HISTORY, n)),
                OFFSET => {
                    let base = ((self.file as i64) << ROW_BITS) | first;
                    Arc::new((base..base + n as i64).collect::<Int64Array>())
                }
                // They came when they happened.
                INGESTED_AT => match self.schema.index_of(&history.judge.timestamp).ok().and_then(|i| read.get(i)) {
                    Some(times) => Arc::clone(times),
                    None => return Err(unread("its event time is not read".to_owned())),
                },
                _ => {
                    let column = columns.next().map(|column| column.evaluate(rows).and_then(|c| c.into_array(n)));
                    let column = column.ok_or_else(|| unread(format!("column {} is not read", field.name())))?;
                    column.map_err(|e| unread(e.message().to_string()))?
                }
            };
            if !field.is_nullable()
                && let Some(row) = (0..n).find(|row| column.is_null(*row))
            {
                let cause = format!("`{}` is NULL; expected a value, as the contract says", field.name());
                return Err(history.refused(&at(row), cause));
            }
            read.push(column);
        }
        self.check_times(&read, &at)?;
        let options = RecordBatchOptions::new().with_row_count(Some(n));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), read, &options).map_err(|e| unread(e.to_string()))
    }

    /// An event without a time has no place, and one from the future would push what is known out of what is kept.
    fn check_times(&self, columns: &[ArrayRef], at: &dyn Fn(usize) -> String) -> Result<(), OfflineError> {
        let judge = &self.history.judge;
        let place = self.schema.index_of(&judge.timestamp).ok();
        let times = place.and_then(|i| columns.get(i)).and_then(|c| c.as_primitive_opt::<TimestampMicrosecondType>());
        let Some(times) = times else { return Ok(()) };
        let last = chrono::Utc::now().timestamp_micros().saturating_add(judge.max_future);
        for row in 0..times.len() {
            let cause = match times.is_null(row) {
                true => format!("`{}` is NULL; expected the event's time", judge.timestamp),
                false if times.value(row) > last => {
                    let time = chrono::DateTime::from_timestamp_micros(times.value(row));
                    let time = time.map_or_else(|| format!("{} µs", times.value(row)), |time| time.to_rfc3339());
                    format!("`{}` is {time}, in the future; expected an event of the past", judge.timestamp)
                }
                false => continue,
            };
            return Err(self.history.refused(&at(row), cause));
        }
        Ok(())
    }
}

/// Without the reader's own words about the kind of error.
fn told(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    text.strip_prefix("Parquet error: ").unwrap_or(&text).to_owned()
}
