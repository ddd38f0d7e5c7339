//! Two writers of one partition, one of them with a cache that is no longer so; and chunks that are gone.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::Int64Type;

use super::super::group::gather;
use super::*;
use crate::kernel::{EntityKey, EventRows};
use crate::online::{EmbeddedStore, OnlineStore as _, PieceWrite, Session, ViewId};
use crate::plan::Project;
use crate::request::Reader;
use crate::source::event_schema;

const SECOND: i64 = 1_000_000;
const CONTRACT: &str = r#"{"type": "record", "name": "E", "fields": [{"name": "k", "type": "long"}, {"name": "x", "type": "long"},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}]}"#;
const DEFINITIONS: &str = "
CREATE SOURCE e WITH (schema = 'e.v1', timestamp = 'at');
CREATE FEATURE VIEW v AS SELECT k, COUNT(*) OVER w AS n, SUM(x) OVER w AS s FROM e
WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW);
CREATE FEATURE VIEW ever AS SELECT k, SUM(x) OVER w AS s FROM e
WINDOW w AS (PARTITION BY k ORDER BY at ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
CREATE FEATURE VIEW latest AS SELECT k, SUM(x) OVER w AS s FROM e
WINDOW w AS (PARTITION BY k ORDER BY at ROWS BETWEEN 1 PRECEDING AND CURRENT ROW);";

async fn view(folder: &std::path::Path) -> Arc<FeatureView> {
    named(folder, "v").await
}

async fn named(folder: &std::path::Path, name: &str) -> Arc<FeatureView> {
    for (path, text) in [("schemas/e.v1.avsc", CONTRACT), ("features/e.sql", DEFINITIONS)] {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    Project::load(folder, &folder.join("features")).await.unwrap().views[name].clone()
}

/// Events of key 7, each a second after the one before; `late` moves their times.
fn events(view: &FeatureView, offsets: std::ops::Range<i64>, late: i64) -> RecordBatch {
    let times = |late: i64| {
        let times = offsets.clone().map(move |offset| (offset - late) * SECOND);
        TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC")
    };
    let n = offsets.clone().count();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![7; n])),
        Arc::new(Int64Array::from_iter_values(offsets.clone())),
        Arc::new(times(late)),
        Arc::new(Int32Array::from(vec![0; n])),
        Arc::new(Int64Array::from_iter_values(offsets.clone())),
        Arc::new(times(0)),
    ];
    RecordBatch::try_new(event_schema(&view.source.schema), columns).unwrap()
}

async fn values(store: &EmbeddedStore, view: &FeatureView) -> Vec<String> {
    let reader = Reader::new(Arc::new(store.clone()));
    let keys: ArrayRef = Arc::new(Int64Array::from(vec![7; 3]));
    let answer = reader.view(view, &[keys], &[150 * SECOND, 200 * SECOND, 400 * SECOND]).await.unwrap();
    answer.values.columns().iter().map(|column| format!("{column:?}")).collect()
}

#[tokio::test]
async fn a_writer_that_fell_behind_folds_into_what_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let view = view(folder.path()).await;
    let store = EmbeddedStore::open(folder.path().join("shared.redb")).unwrap();
    let alone = EmbeddedStore::open(folder.path().join("alone.redb")).unwrap();
    let to = Writing { store: Arc::new(store.clone()), session: Session::default() };
    let calm = Writing { store: Arc::new(alone.clone()), session: Session::default() };
    let (mut first, mut second, mut only) =
        (ViewFold::new(view.clone(), 1 << 20), ViewFold::new(view.clone(), 1 << 20), ViewFold::new(view.clone(), 0));
    // It takes the store for empty, which it isn't by then.
    second.fresh = true;
    let mut next = 0;
    // Each writer's cache is stale in turn; late events need chunks that its stale head names.
    for (round, length) in [90, 3, 40, 1, 70, 2, 33, 61].into_iter().enumerate() {
        let late = if round % 3 == 2 { 50 } else { 0 };
        let batch = events(&view, next..next + length, late);
        next += length;
        let writer = if round % 2 == 0 { &mut first } else { &mut second };
        let folded = writer.apply(&to, 0, &batch).await.unwrap();
        assert_eq!((folded.counts.folded, folded.counts.skipped), (batch.num_rows(), 0), "round {round}");
        only.apply(&calm, 0, &batch).await.unwrap();
    }
    assert_eq!(values(&store, &view).await, values(&alone, &view).await);
}

/// Also where later rows of a batch put most of it out of reach: a base reads all of them.
#[tokio::test]
async fn a_long_batch_is_what_many_short_ones_are() {
    const EVENTS: i64 = 20_000;
    for (name, sum) in [("ever", EVENTS * (EVENTS - 1) / 2), ("latest", 2 * EVENTS - 3)] {
        let folder = tempfile::tempdir().unwrap();
        let view = named(folder.path(), name).await;
        for length in [EVENTS, 999] {
            let store = EmbeddedStore::open(folder.path().join(format!("{length}.redb"))).unwrap();
            let to = Writing { store: Arc::new(store.clone()), session: Session::default() };
            let mut fold = ViewFold::new(view.clone(), 0);
            for from in (0..EVENTS).step_by(length as usize) {
                fold.apply(&to, 0, &events(&view, from..EVENTS.min(from + length), 0)).await.unwrap();
            }
            let key: ArrayRef = Arc::new(Int64Array::from(vec![7]));
            let answer = Reader::new(Arc::new(store)).view(&view, &[key], &[EVENTS * SECOND]).await.unwrap();
            assert_eq!(answer.values["s"].as_primitive::<Int64Type>().values(), &[sum], "{name}, {length} at once");
        }
    }
}

#[tokio::test]
async fn rows_that_are_gathered_are_those_that_are_grouped() {
    for name in ["v", "ever", "latest"] {
        let folder = tempfile::tempdir().unwrap();
        let view = named(folder.path(), name).await;
        let events = events(&view, 0..5_000, 0);
        let mut columns = events.columns().to_vec();
        columns[0] = Arc::new(Int64Array::from_iter_values((0..5_000).map(|row| row * row % 13)));
        let rows = view.rows(&RecordBatch::try_new(events.schema(), columns).unwrap()).unwrap();
        let whole = rows.clone().into_batch(&view).unwrap();
        let batches = [whole.slice(0, 1_000), whole.slice(1_000, 1), whole.slice(1_001, 3_999)];
        let (grouped, gathered) = (group(&view, rows, 0).unwrap(), gather(&view, &batches, 0).unwrap());
        assert_eq!(grouped.groups, gathered.groups);
        let expected = grouped.batch.rows.take(&grouped.batch.by_key.clone().unwrap().into()).unwrap();
        let found = &gathered.batch.rows;
        assert_eq!((&found.times, &found.offsets), (&expected.times, &expected.offsets), "{name}");
        for (_, rows) in &gathered.groups {
            let passed = view.kernel.passed(&found.times.values()[rows.clone()]);
            assert_eq!(passed > 0, name == "latest");
            let read = |all: &EventRows| all.slice(rows.start + passed, rows.len() - passed).columns;
            assert_eq!(read(found), read(&expected), "{name}");
        }
    }
}

#[tokio::test]
async fn a_chunk_that_is_gone_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let view = view(folder.path()).await;
    let store = EmbeddedStore::open(folder.path().join("store.redb")).unwrap();
    let to = Writing { store: Arc::new(store.clone()), session: Session::default() };
    ViewFold::new(view.clone(), 0).apply(&to, 0, &events(&view, 0..90, 0)).await.unwrap();
    let (id, key): (ViewId, _) = (view.id(), EntityKey::from("7".to_owned()));
    let piece = store.read(&id, std::slice::from_ref(&key)).await.unwrap().remove(0).remove(0);
    let removed: Vec<u32> = piece.chunks.iter().map(|(chunk, _)| *chunk).collect();
    assert!(!removed.is_empty());
    let damage = PieceWrite {
        key,
        partition: 0,
        expected: Some(89),
        absorbed: 89,
        head: piece.head,
        chunks: vec![],
        removed,
        whole: false,
        idle_after: None,
    };
    store.write(Session::default(), &id, vec![damage]).await.unwrap();
    let error = ViewFold::new(view.clone(), 0).apply(&to, 0, &events(&view, 90..95, 50)).await.unwrap_err().to_string();
    assert!(error.contains("view v") && error.contains("key 7") && error.contains("is missing"), "{error}");
}

#[tokio::test]
async fn state_that_went_back_is_not_built_on() {
    let folder = tempfile::tempdir().unwrap();
    let view = view(folder.path()).await;
    let store = EmbeddedStore::open(folder.path().join("store.redb")).unwrap();
    let to = Writing { store: Arc::new(store.clone()), session: Session::default() };
    let mut fold = ViewFold::new(view.clone(), 1 << 20);
    fold.apply(&to, 0, &events(&view, 0..90, 0)).await.unwrap();
    store.drop_view(&view.id()).await.unwrap();
    // A late event needs a chunk of a piece that is no longer there.
    let error = fold.apply(&to, 0, &events(&view, 90..95, 50)).await.unwrap_err();
    assert!(matches!(error, StreamError::StateLost { partition: 0, .. }), "{error}");
}
