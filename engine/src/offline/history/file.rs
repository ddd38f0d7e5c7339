//! A file of a history as events.
//!
//! Guarantees: every byte that is read is of the file that was listed, or the read fails and says so. Rows are numbered as they lie in the
//! file, whichever row groups of it are read. A file is opened only if all of the contract's columns can be read from it, whoever wants them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{FieldRef, SchemaRef, TimestampMicrosecondType};
use bytes::Bytes;
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, lit};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns};
use datafusion::physical_expr_adapter::PhysicalExprAdapterFactory;
use datafusion::physical_plan::metrics::Count;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};

use super::{HISTORY, History, HistoryFile, Judge, ROW_BITS};
use crate::offline::OfflineError;
use crate::source::{INGESTED_AT, OFFSET, PARTITION};

/// Rows that are unpacked at once.
const ROWS: usize = 8192;

/// Reads the bytes of a file as it was listed.
struct Pinned {
    store: Arc<dyn ObjectStore>,
    meta: ObjectMeta,
    /// How many bytes were asked for.
    asked: Count,
}

impl AsyncFileReader for Pinned {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        self.asked.add(usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX));
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

/// A file whose footer is read, and of whose columns is known how they become the contract's.
pub(super) struct File {
    history: Arc<History>,
    file: usize,
    pinned: Pinned,
    footer: ArrowReaderMetadata,
    /// The contract's columns, over the file's.
    columns: Vec<Arc<dyn PhysicalExpr>>,
}

/// Rows of a file, in order.
pub(super) struct Rows {
    history: Arc<History>,
    file: usize,
    rows: ParquetRecordBatchStream<Pinned>,
    /// The contract's columns that are wanted, over the file's that are read.
    columns: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    /// The numbers of the rows to come.
    numbers: Box<dyn Iterator<Item = i64> + Send>,
}

impl History {
    /// Opens a file; none if there are not so many. `asked` counts the bytes that are asked for.
    pub(super) async fn file(self: &Arc<Self>, file: usize, asked: Count) -> Result<Option<File>, OfflineError> {
        let Some(found) = self.files.get(file) else { return Ok(None) };
        let mut pinned = Pinned { store: Arc::clone(&self.store), meta: found.meta.clone(), asked };
        // What a writer of Arrow says of its own types (large texts, dictionaries) is no matter here.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let footer = ArrowReaderMetadata::load_async(&mut pinned, options).await;
        let footer = footer.map_err(|e| self.refused(&found.name, format!("can't read: {}", told(&e))))?;
        let rows = footer.metadata().file_metadata().num_rows();
        if rows >= 1 << ROW_BITS {
            return Err(self.refused(&found.name, format!("{rows} rows; expected fewer than {}", 1_i64 << ROW_BITS)));
        }
        let columns = self.columns(footer.schema()).map_err(|e| self.refused(&found.name, e.message()))?;
        Ok(Some(File { history: Arc::clone(self), file, pinned, footer, columns }))
    }

    /// The contract's columns as expressions over a file's.
    fn columns(&self, file: &SchemaRef) -> DfResult<Vec<Arc<dyn PhysicalExpr>>> {
        let contract = self.judge.contract.columns();
        let adapter = self.older.create(Arc::clone(contract), Arc::clone(file))?;
        let column = |(place, field): (usize, &FieldRef)| match file.column_with_name(field.name()) {
            // As it is, whatever the file says of NULLs.
            Some((place, stored)) if stored.data_type() == field.data_type() => {
                Ok(Arc::new(Column::new(field.name(), place)) as Arc<dyn PhysicalExpr>)
            }
            // What a writer of Parquet makes of a column without a value.
            Some((_, stored)) if stored.data_type().is_null() && field.is_nullable() => {
                Ok(lit(ScalarValue::try_from(field.data_type())?))
            }
            _ => adapter.rewrite(Arc::new(Column::new(field.name(), place))),
        };
        contract.fields().iter().enumerate().map(column).collect()
    }
}

impl File {
    pub fn judge(&self) -> &Judge {
        &self.history.judge
    }

    pub fn groups(&self) -> &[RowGroupMetaData] {
        self.footer.metadata().row_groups()
    }

    /// How a column of the contract is read.
    pub fn column(&self, place: usize) -> Option<&Arc<dyn PhysicalExpr>> {
        self.columns.get(place)
    }

    /// Rows of some of its row groups, which come in order, but for the first so many of those; with some of the
    /// [`schema`](History::schema)'s columns.
    pub fn rows(self, groups: Vec<usize>, skipped: usize, schema: SchemaRef) -> Result<Rows, OfflineError> {
        let Self { history, file, pinned, footer, columns } = self;
        let name = history.files.get(file).map_or("", |file| &file.name);
        let unread = |e: &dyn fmt::Display| history.refused(name, format!("can't read: {}", told(e)));
        let contract = history.judge.contract.columns();
        let wanted = schema.fields().iter().filter_map(|field| contract.index_of(field.name()).ok());
        let wanted: Vec<_> = wanted.filter_map(|place| columns.get(place)).collect();
        let read: BTreeSet<usize> =
            wanted.iter().flat_map(|column| collect_columns(column)).map(|c| c.index()).collect();
        let read: Vec<usize> = read.into_iter().collect();
        let left = footer.schema().project(&read).map_err(|e| unread(&e))?;
        let columns = wanted.into_iter().map(|column| reassign_expr_columns(Arc::clone(column), &left));
        let columns = columns.collect::<DfResult<_>>().map_err(|e| unread(&e))?;
        let mut first = 0;
        let mut numbers = vec![];
        for group in footer.metadata().row_groups() {
            numbers.push(first..first + group.num_rows());
            first += group.num_rows();
        }
        let numbers: Vec<Range<i64>> = groups.iter().filter_map(|group| numbers.get(*group).cloned()).collect();
        let mask = ProjectionMask::roots(footer.parquet_schema(), read);
        let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(pinned, footer).with_projection(mask);
        let builder = builder.with_row_groups(groups).with_offset(skipped).with_batch_size(ROWS);
        let rows = builder.build().map_err(|e| unread(&e))?;
        let numbers = Box::new(numbers.into_iter().flatten().skip(skipped));
        Ok(Rows { history, file, rows, columns, schema, numbers })
    }
}

impl Rows {
    /// The next ones; none at the end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>, OfflineError> {
        let history = Arc::clone(&self.history);
        let Some(file) = history.files.get(self.file) else { return Ok(None) };
        let read = self.rows.try_next().await;
        let unread = |e: String| history.refused(&file.name, format!("can't read: {e}"));
        let rows = read.map_err(|e| unread(told(&e)))?;
        let n = rows.as_ref().map_or(1, RecordBatch::num_rows);
        let numbers: Vec<i64> = self.numbers.by_ref().take(n).collect();
        match rows {
            Some(rows) if numbers.len() == n => self.events(&rows, file, &numbers).map(Some),
            None if numbers.is_empty() => Ok(None),
            _ => Err(unread("it has not as many rows as its footer says".to_owned())),
        }
    }

    fn events(&self, rows: &RecordBatch, file: &HistoryFile, numbers: &[i64]) -> Result<RecordBatch, OfflineError> {
        let history = &self.history;
        let n = rows.num_rows();
        let unread = |e: String| history.refused(&file.name, format!("can't read: {e}"));
        let at = |row: usize| format!("{}, row {}", file.name, numbers.get(row).map_or(0, |number| number + 1));
        let mut columns = self.columns.iter();
        let mut read: Vec<ArrayRef> = vec![];
        for field in self.schema.fields() {
            let column: ArrayRef = match field.name().as_str() {
                PARTITION => Arc::new(Int32Array::from_value(HISTORY, n)),
                OFFSET => {
                    let base = (self.file as i64) << ROW_BITS;
                    Arc::new(Int64Array::from_iter_values(numbers.iter().map(|number| base | number)))
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
        let last = judge.latest();
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
fn told(error: &dyn fmt::Display) -> String {
    let text = error.to_string();
    text.strip_prefix("Parquet error: ").unwrap_or(&text).to_owned()
}
