//! The request plan: features at an instant, from the online store.
//!
//! A read loads each key's pieces in one trip per view, merges them into a timeline and evaluates the view's kernel at
//! the instant: the function that the point-in-time join calls over the archive. It never writes.
//!
//! Guarantee: a value served with status `PRESENT` or `NOT_FOUND` is what a training set gets for the same key and
//! instant. Where the store no longer holds what an instant needs, or never did since the view filled from an archive that no longer had it
//! ([`horizons`]), the status is `OUTSIDE_RETENTION` and the values are NULL.

mod horizons;

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use datafusion::error::DataFusionError;

use crate::kernel::{EncodingError, EntityKey, KernelError, Status, encode_keys};
use crate::online::{OnlineStore, StoreError, StoredPiece, ViewId};
use crate::plan::pipeline::{Rows, Step, batch};
use crate::plan::{FeatureService, FeatureView};

pub use horizons::{HEARD, HORIZON_OF, horizon_id};
use horizons::{Horizons, Moment};

/// What a key's life has to spare beyond what reads reach back to, in microseconds: a request takes its time.
const SPARE: i64 = 60_000_000;

/// Reads features from an online store.
#[derive(Debug, Clone)]
pub struct Reader {
    store: Arc<dyn OnlineStore>,
    /// Now, in microseconds UTC.
    clock: fn() -> i64,
    /// A clock that never goes back.
    ticks: fn() -> Instant,
    horizons: Arc<Horizons>,
}

/// Values for some rows, and how they came about.
#[derive(Debug)]
pub struct Answer {
    /// One row per row asked for, in the same order.
    pub values: RecordBatch,
    /// One per view that was read.
    pub views: Vec<ViewAnswer>,
}

#[derive(Debug, Clone)]
pub struct ViewAnswer {
    pub view: String,
    /// One per row.
    pub status: Vec<ReadStatus>,
    /// Microseconds between the newest event at or before the instant and the instant; one per row.
    pub age: Vec<Option<i64>>,
}

/// How a view answered for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadStatus {
    /// The key has events at or before the instant.
    Present,
    /// It has none: the values are those of empty windows.
    NotFound,
    /// The store no longer holds the events that the instant needs; the values are NULL.
    OutsideRetention,
    /// A part of the key is NULL, which joins nothing; the values are NULL.
    NullKey,
}

impl ReadStatus {
    /// As REST writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Present => "PRESENT",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideRetention => "OUTSIDE_RETENTION",
            Self::NullKey => "NULL_KEY",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("online store: {0}")]
    Store(#[from] StoreError),
    #[error("state of view {view}, key {key}: {source}")]
    State { view: String, key: EntityKey, source: EncodingError },
    #[error("view {view}: {source}")]
    Kernel { view: String, source: KernelError },
    /// An expression over the values failed, a division by zero say.
    #[error("{0}")]
    Evaluate(#[from] DataFusionError),
    #[error("{view} can't be read: the files of a dimension table that it joins are missing")]
    NotLoaded { view: String },
}

impl From<arrow::error::ArrowError> for ReadError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::Evaluate(error.into())
    }
}

impl Reader {
    pub fn new(store: Arc<dyn OnlineStore>) -> Self {
        let clock = || chrono::Utc::now().timestamp_micros();
        Self { store, clock, ticks: Instant::now, horizons: Arc::default() }
    }

    /// By other clocks.
    #[cfg(test)]
    pub(crate) fn at(self, clock: fn() -> i64, ticks: fn() -> Instant) -> Self {
        Self { clock, ticks, ..self }
    }

    /// How far back a view can be read for sure, if the store forgets keys that are idle: a key that isn't there may have
    /// had events before.
    fn known_since(&self, view: &FeatureView) -> i64 {
        match view.kernel.idle_after().filter(|_| self.store.forgets()) {
            // As far as `lateness`, and as much further as the keys' lives have to spare.
            Some(_) => (self.clock)().saturating_sub(view.kernel.spec().lateness).saturating_sub(SPARE),
            None => i64::MIN,
        }
    }

    /// Evaluates a service for request rows, each at its instant (microseconds UTC). `rows` has the service's signature.
    pub async fn service(
        &self,
        service: &FeatureService,
        rows: RecordBatch,
        instants: &[i64],
    ) -> Result<Answer, ReadError> {
        let mut views = vec![];
        let mut rows = Rows::from(request(service, rows, instants)?);
        for step in &service.pipeline.steps {
            rows = match step {
                Step::JoinView(join) => {
                    let n = rows.batch.num_rows();
                    let keys = join
                        .keys
                        .iter()
                        .map(|k| k.evaluate(&rows.batch)?.into_array(n))
                        .collect::<Result<Vec<_>, _>>()?;
                    let (values, answer) = self.read(&join.view, &keys, instants).await?;
                    let columns = rows.batch.columns().iter().chain(values.columns()).cloned().collect();
                    views.push(answer);
                    Rows { batch: batch(join.schema.clone(), columns, n)?, origin: rows.origin }
                }
                other => other.apply(rows)?,
            };
        }
        let n = rows.batch.num_rows();
        Ok(Answer { values: batch(service.schema.clone(), rows.batch.columns().to_vec(), n)?, views })
    }

    /// Evaluates a view for keys (one array per entity key of the view, in its order), each at its instant.
    pub async fn view(&self, view: &FeatureView, keys: &[ArrayRef], instants: &[i64]) -> Result<Answer, ReadError> {
        let (values, answer) = self.read(view, keys, instants).await?;
        Ok(Answer { values, views: vec![answer] })
    }

    async fn read(
        &self,
        view: &FeatureView,
        keys: &[ArrayRef],
        instants: &[i64],
    ) -> Result<(RecordBatch, ViewAnswer), ReadError> {
        if view.fingerprint.is_empty() {
            return Err(ReadError::NotLoaded { view: view.name.clone() });
        }
        let typed = typed_keys(view, keys)?;
        let kernel = |source| ReadError::Kernel { view: view.name.clone(), source };
        let texts = encode_keys(&typed.columns).map_err(kernel)?;
        let wanted: Vec<EntityKey> = texts.iter().flatten().cloned().collect();
        let id = view.id();
        let found = self.store.read(&id, &wanted).await?;
        let mut found = found.into_iter();
        let now = Moment((self.ticks)(), (self.clock)());
        let horizon = self.horizons.of(self.store.as_ref(), &id, now).await?;
        let mut rows = Evaluated::default();
        let known_since = self.known_since(view);
        for (i, text) in texts.iter().enumerate() {
            // A value outside the key's type can't have been seen; it reads as an empty timeline, like any unseen key.
            let pieces = match text {
                Some(key) => self.pieces(view, key, found.next().unwrap_or_default())?,
                None if typed.unseen.value(i) => vec![],
                None => {
                    rows.nothing(view, ReadStatus::NullKey);
                    continue;
                }
            };
            let lacks = horizon.is_some_and(|horizon| view.needs_before(horizon, instants[i]));
            if lacks || instants[i] < known_since {
                rows.nothing(view, ReadStatus::OutsideRetention);
                continue;
            }
            let timeline = view.kernel.timeline(&pieces).map_err(kernel)?;
            rows.push(view.kernel.evaluate(&timeline, &instants[i..=i]).map_err(kernel)?, instants[i]);
        }
        let values = rows.values(view, typed.columns)?;
        Ok((values, ViewAnswer { view: view.name.clone(), status: rows.status, age: rows.age }))
    }

    fn pieces(
        &self,
        view: &FeatureView,
        key: &EntityKey,
        stored: Vec<StoredPiece>,
    ) -> Result<Vec<crate::kernel::Piece>, ReadError> {
        stored.into_iter().map(|piece| decode(view, key, &piece)).collect()
    }
}

/// A call's rows as the service's query sees them.
fn request(service: &FeatureService, rows: RecordBatch, instants: &[i64]) -> Result<RecordBatch, ReadError> {
    if !service.reads_instant() {
        return Ok(rows);
    }
    let (n, mut columns) = (rows.num_rows(), rows.columns().to_vec());
    columns.push(Arc::new(TimestampMicrosecondArray::from(instants.to_vec()).with_timezone("UTC")));
    Ok(batch(service.request.clone(), columns, n)?)
}

/// A stored piece as the kernel has it.
pub fn decode(view: &FeatureView, key: &EntityKey, stored: &StoredPiece) -> Result<crate::kernel::Piece, ReadError> {
    let chunks = stored.chunks.iter().map(|(id, bytes)| (*id, bytes.as_ref()));
    view.kernel.decode_piece(stored.partition, &stored.head, chunks).map_err(|source| ReadError::State {
        view: view.name.clone(),
        key: key.clone(),
        source,
    })
}

impl FeatureView {
    /// Under which its state is kept.
    pub fn id(&self) -> ViewId {
        ViewId { name: self.name.clone(), fingerprint: self.fingerprint.clone() }
    }

    /// The view's columns from key columns and the aggregates' results. A row whose `live` is false answers nothing: all NULL.
    pub fn project(
        &self,
        keys: Vec<ArrayRef>,
        aggregates: Vec<ArrayRef>,
        live: &BooleanArray,
    ) -> Result<RecordBatch, DataFusionError> {
        let n = live.len();
        let columns: Vec<ArrayRef> = keys.into_iter().chain(aggregates).collect();
        let fields: Vec<_> = self
            .keys
            .iter()
            .cloned()
            .chain(self.kernel.spec().aggregates.iter().map(|a| a.output.clone()))
            .map(|f| f.as_ref().clone().with_nullable(true))
            .collect();
        let input = batch(Arc::new(arrow::datatypes::Schema::new(fields)), columns, n)?;
        let rows = self.projection.run(input)?;
        if live.true_count() == n {
            return batch(self.schema.clone(), rows.batch.columns().to_vec(), n);
        }
        let columns = rows.batch.columns().iter().map(|c| arrow::compute::nullif(c, &arrow::compute::not(live)?));
        batch(self.schema.clone(), columns.collect::<Result<_, _>>()?, n)
    }
}

/// Key columns in the view's types.
struct TypedKeys {
    columns: Vec<ArrayRef>,
    /// Rows whose key is not NULL but has no place in the view's type: 3,000,000,000 for an INT key.
    unseen: BooleanArray,
}

fn typed_keys(view: &FeatureView, keys: &[ArrayRef]) -> Result<TypedKeys, ReadError> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let columns = keys
        .iter()
        .zip(&view.keys)
        .map(|(array, field)| cast_with_options(array, field.data_type(), &options))
        .collect::<Result<Vec<_>, _>>()?;
    let n = keys.first().map_or(0, |k| k.len());
    let unseen = (0..n)
        .map(|i| {
            let given = keys.iter().all(|k| k.is_valid(i));
            Some(given && columns.iter().any(|c| c.is_null(i)))
        })
        .collect();
    Ok(TypedKeys { columns, unseen })
}

/// Evaluations gathered row by row.
#[derive(Default)]
struct Evaluated {
    columns: Vec<Vec<ArrayRef>>,
    status: Vec<ReadStatus>,
    age: Vec<Option<i64>>,
}

impl Evaluated {
    fn push(&mut self, evaluation: crate::kernel::Evaluation, instant: i64) {
        self.age.push(evaluation.newest.first().copied().flatten().map(|newest| instant.saturating_sub(newest)));
        self.status.push(match evaluation.status.first() {
            Some(Status::Present) => ReadStatus::Present,
            Some(Status::OutsideRetention) => ReadStatus::OutsideRetention,
            Some(Status::NotFound) | None => ReadStatus::NotFound,
        });
        self.columns.push(evaluation.columns);
    }

    fn nothing(&mut self, view: &FeatureView, status: ReadStatus) {
        self.age.push(None);
        self.status.push(status);
        self.columns
            .push(view.kernel.spec().aggregates.iter().map(|a| new_null_array(a.output.data_type(), 1)).collect());
    }

    fn values(&self, view: &FeatureView, keys: Vec<ArrayRef>) -> Result<RecordBatch, ReadError> {
        let aggregates = (0..view.kernel.spec().aggregates.len())
            .map(|a| {
                let parts: Vec<&dyn Array> = self.columns.iter().map(|row| row[a].as_ref()).collect();
                if parts.is_empty() {
                    Ok(new_null_array(view.kernel.spec().aggregates[a].output.data_type(), 0))
                } else {
                    concat(&parts)
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let live: BooleanArray = self
            .status
            .iter()
            .map(|s| Some(!matches!(s, ReadStatus::NullKey | ReadStatus::OutsideRetention)))
            .collect();
        Ok(view.project(keys, aggregates, &live)?)
    }
}
