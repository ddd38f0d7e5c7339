//! The two answers of the engine: the online store's, after a stream with restarts, and the point-in-time operator's.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Schema};
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::col;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use tidemark_engine::batch::{Spine, session, session_within, spilled, training_plan};
use tidemark_engine::metrics::Metrics;
use tidemark_engine::offline::{DeadLetterWriter, Past as Archived, Storage};
use tidemark_engine::online::conformance::reopened;
use tidemark_engine::online::{EmbeddedStore, OnlineStore};
use tidemark_engine::plan::{FeatureService, FeatureView, Project};
use tidemark_engine::platform::{Events, Folder, Platform, event_table};
use tidemark_engine::request::{Answer, Reader};
use tidemark_engine::source::{Encoder, event_schema};
use tidemark_engine::stream::{FillConfig, Past, Progress, Until, Worker, WorkerConfig};

use super::events::{Event, avro, batch};
use super::services;
use super::source::Memory;
use super::view::View;
use super::world::{SpineRow, Way, World};

/// How the stream went, for the coverage report.
#[derive(Debug, Default)]
pub struct Run {
    pub interrupted: usize,
    pub reopened: usize,
    pub filled: usize,
}

/// What a stream leaves behind.
pub struct Streamed {
    pub store: Arc<dyn OnlineStore>,
    /// The events as an archive has them: in no order, or as a reader of files has them: in that of their places.
    pub archive: Arc<dyn TableProvider>,
}

/// Takes the events in, in one way or the other.
pub async fn stream(world: &World, project: &Arc<Project>, folder: &Path, run: &mut Run) -> Result<Streamed, String> {
    match world.way {
        Way::Log => return house(world, project, folder, run).await,
        Way::Services => return services::stream(world, project, folder).await,
        Way::Memory => {}
    }
    let mut rng = world.rng(2);
    let mut events: Vec<&Event> = world.events.iter().collect();
    let schema = event_schema(&project.sources["events"].schema);
    let archive: Arc<dyn TableProvider> = if rng.random_bool(0.4) {
        events.sort_by_key(|event| (event.partition, event.offset));
        in_order(&events, &schema, rng.random_range(1..40))
    } else {
        events.shuffle(&mut rng);
        table(&events, &schema, rng.random_range(1..4))
    };
    Ok(Streamed { store: in_memory(world, project, folder, run).await?, archive })
}

/// Through the platform that `tidemark up` runs: Avro messages in the log, drained in several goes, archived as Parquet.
async fn house(world: &World, project: &Arc<Project>, folder: &Path, run: &mut Run) -> Result<Streamed, String> {
    let mut rng = world.rng(3);
    let folder = Folder::new(folder.join("data"));
    let mut embedded = Platform::embedded(project.clone(), folder.clone()).map_err(|e| e.to_string())?;
    embedded.config.fill = fill(&mut rng);
    let Events::Log(log) = &embedded.intake.events else { return Err("no log".into()) };
    let source = &project.sources["events"];
    let encoder = Encoder::new(source.contract.clone().ok_or("no contract")?);
    let mut left = world.live();
    loop {
        let (now, later) = left.split_at(rng.random_range(left.len().min(1)..=left.len()));
        for partition in 0..world.shape.partitions {
            let messages = now.iter().filter(|e| e.partition == partition).map(|e| (e.time, encoder.frame(&avro(e))));
            let messages: Vec<_> = messages.collect();
            if !messages.is_empty() {
                log.append("events", partition, messages).await.map_err(|e| e.to_string())?;
            }
        }
        if rng.random_bool(0.3) {
            forget(project, embedded.store.as_ref(), run).await?;
        }
        for (_, summary) in embedded.drain().await.map_err(|e| format!("the stream fails: {e}"))? {
            if summary.rejected > 0 {
                return Err(format!("{} events were refused", summary.rejected));
            }
        }
        left = later;
        if left.is_empty() {
            break;
        }
    }
    let archive = event_table(&folder, source).await.map_err(|e| format!("the archive can't be read: {e}"))?.table;
    Ok(Streamed { store: embedded.store.clone(), archive })
}

/// Few events at once, and little memory for those that wait.
fn fill(rng: &mut impl RngExt) -> FillConfig {
    let memory = if rng.random_bool(0.5) { rng.random_range(1..100_000) } else { 1 << 20 };
    FillConfig { records: rng.random_range(1..60), memory, ..FillConfig::default() }
}

/// As if the views were new: what was before, they fill in from the past.
async fn forget(project: &Project, store: &dyn OnlineStore, run: &mut Run) -> Result<(), String> {
    for view in project.views.values() {
        let known = store.progress(&view.id()).await.map_err(|e| e.to_string())?;
        run.filled += usize::from(known.values().any(|next| *next > 0));
        store.drop_view(&view.id()).await.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// From memory into a store, with crashes on the way.
async fn in_memory(
    world: &World,
    project: &Project,
    folder: &Path,
    run: &mut Run,
) -> Result<Arc<dyn OnlineStore>, String> {
    let mut rng = world.rng(1);
    let path = folder.join("online.redb");
    let mut store: Arc<dyn OnlineStore> = Arc::new(EmbeddedStore::open(&path).map_err(|e| e.to_string())?);
    let lives = if rng.random_bool(0.5) { rng.random_range(1..4) } else { 0 };
    for life in 0..=lives {
        let schema = event_schema(&project.sources["events"].schema);
        let most = *[1, 3, 10, 1000].choose(&mut rng).unwrap();
        let mut source = Memory::new(&world.events, world.shape.partitions, schema, world.rng(10 + life), most);
        let again = source.clone();
        if life < lives {
            source.fails_after = Some(rng.random_range(0..world.events.len() + 2));
        }
        let config = WorkerConfig {
            max_records: most.max(rng.random_range(1..100)),
            commit_events: rng.random_range(1..40),
            commit_every: Duration::from_secs(3600),
            cache_bytes: *[0, 2000, 1 << 20].choose(&mut rng).unwrap(),
            fill: fill(&mut rng),
            ..WorkerConfig::default()
        };
        let letters = Storage::open(&folder.join("offline").to_string_lossy()).map_err(|e| e.to_string())?;
        let letters = DeadLetterWriter::open(letters, "events").await.map_err(|e| e.to_string())?;
        let shared = (Arc::new(Progress::default()), Metrics::new().map_err(|e| e.to_string())?);
        let mut worker = Worker::new(
            Box::new(source),
            project.views_of("events"),
            store.clone(),
            (None, Past::Source(Arc::new(move || Ok(Box::new(again.clone()))))),
            Box::new(letters),
            shared,
            config,
        );
        match worker.run(Until::End).await {
            Ok(summary) if life < lives && summary.rejected == 0 => {}
            Ok(summary) if summary.rejected > 0 => return Err(format!("{} events were refused", summary.rejected)),
            Ok(_) => {}
            Err(e) if e.to_string().contains("killed") => run.interrupted += 1,
            Err(e) => return Err(format!("the stream fails: {e}")),
        }
        drop(worker);
        if life < lives && rng.random_bool(0.3) {
            forget(project, store.as_ref(), run).await?;
        }
        if life < lives && rng.random_bool(0.3) {
            drop(store);
            store = Arc::new(reopened(&path).await);
            run.reopened += 1;
        }
    }
    Ok(store)
}

/// A service's answer from the online store.
pub async fn online(
    reader: &Reader,
    service: &FeatureService,
    view: &View,
    spine: &[SpineRow],
) -> Result<Answer, String> {
    let mut columns = keys(view, spine);
    columns.push(Arc::new(spine.iter().map(|r| r.threshold).collect::<Float64Array>()));
    columns.push(Arc::new(spine.iter().map(|r| r.place).collect::<StringArray>()));
    let rows = RecordBatch::try_new(service.signature.clone(), columns).map_err(|e| e.to_string())?;
    reader.service(service, rows, &instants(spine)).await.map_err(|e| format!("the service can't be read: {e}"))
}

/// A view's answer from the online store.
pub async fn online_view(
    reader: &Reader,
    compiled: &FeatureView,
    view: &View,
    spine: &[SpineRow],
) -> Result<Answer, String> {
    reader
        .view(compiled, &keys(view, spine), &instants(spine))
        .await
        .map_err(|e| format!("the view can't be read: {e}"))
}

/// So little memory that a point-in-time join spills all that it holds, and just enough for the sort above it.
const LITTLE: usize = 24 << 10;

/// What operators of a training set did.
pub struct Ran {
    /// Wrote to disk, and shared buckets out again, as they must with little memory.
    pub spilled: bool,
    pub shared_out: bool,
    /// Left row groups of the history out.
    pub skipped: bool,
    /// Went by the order of the events, without their places.
    pub in_order: bool,
}

/// A training set of the service over the spine, from the archive.
pub async fn offline(
    archive: &Arc<dyn TableProvider>,
    project: &Project,
    service: &FeatureService,
    view: &View,
    spine: &[SpineRow],
    little: bool,
) -> Result<(RecordBatch, Ran), String> {
    let mut fields: Vec<Field> = service.signature.fields().iter().map(|f| f.as_ref().clone()).collect();
    let mut columns = keys(view, spine);
    columns.push(Arc::new(spine.iter().map(|r| r.threshold).collect::<Float64Array>()));
    columns.push(Arc::new(spine.iter().map(|r| r.place).collect::<StringArray>()));
    let at: ArrayRef = Arc::new(TimestampMicrosecondArray::from(instants(spine)).with_timezone("UTC"));
    fields.push(Field::new("label_time", at.data_type().clone(), false));
    columns.push(at);
    let schema = Arc::new(Schema::new(fields));
    let rows = RecordBatch::try_new(schema.clone(), columns).map_err(|e| e.to_string())?;
    let rows = MemorySourceConfig::try_new_exec(&[vec![rows]], schema, None).map_err(|e| e.to_string())?;
    let spine = Spine::new(service, rows, "label_time").map_err(|e| e.to_string())?;

    let plan = training_plan(project, service, &spine, &|_| Ok(Archived::whole(archive.clone())), None)
        .map_err(|e| format!("the training set has no plan: {e}"))?;
    let failed = |e: DataFusionError| format!("the training set: {e}");
    let session = if little { session_within(LITTLE).map_err(failed)? } else { session() };
    let frame = session.execute_logical_plan(plan).await.map_err(failed)?;
    let schema = Arc::new(frame.schema().as_arrow().clone());
    let (context, plan) = (Arc::new(frame.task_ctx()), frame.create_physical_plan().await.map_err(failed)?);
    let batches = collect(plan.clone(), context).await.map_err(failed)?;
    let schema = batches.first().map_or(schema, |b| b.schema());
    let shared_out = any(&plan, &|plan| {
        plan.metrics().and_then(|metrics| metrics.sum_by_name("shared_out")).is_some_and(|n| n.as_usize() > 0)
    });
    let skipped = any(&plan, &|plan| {
        let pruned = |value: &MetricValue| match value {
            MetricValue::PruningMetrics { pruning_metrics, .. } => pruning_metrics.pruned() > 0,
            _ => false,
        };
        let metrics = plan.metrics().filter(|_| plan.name() == "HistoryExec");
        metrics.is_some_and(|metrics| metrics.iter().any(|metric| pruned(metric.value())))
    });
    let in_order = any(&plan, &|plan| displayable(plan.as_ref()).one_line().to_string().contains("events=in order"));
    let ran = Ran { spilled: spilled(&plan) > 0, shared_out, skipped, in_order };
    Ok((concat_batches(&schema, &batches).map_err(|e| e.to_string())?, ran))
}

fn any(plan: &Arc<dyn ExecutionPlan>, is: &dyn Fn(&Arc<dyn ExecutionPlan>) -> bool) -> bool {
    is(plan) || plan.children().into_iter().any(|plan| any(plan, is))
}

/// Events as a table of several files.
pub fn table(events: &[&Event], schema: &arrow::datatypes::SchemaRef, files: usize) -> Arc<dyn TableProvider> {
    let size = events.len().div_ceil(files).max(1);
    let mut parts: Vec<Vec<RecordBatch>> = events.chunks(size).map(|part| vec![batch(part, schema)]).collect();
    if parts.is_empty() {
        parts.push(vec![]);
    }
    Arc::new(MemTable::try_new(schema.clone(), parts).unwrap())
}

/// Events in the order of their places, so many a batch.
fn in_order(events: &[&Event], schema: &arrow::datatypes::SchemaRef, rows: usize) -> Arc<dyn TableProvider> {
    let batches = events.chunks(rows).map(|part| batch(part, schema)).collect();
    let place = ["_partition", "_offset"].map(|column| col(column).sort(true, true)).to_vec();
    Arc::new(MemTable::try_new(schema.clone(), vec![batches]).unwrap().with_sort_order(vec![place]))
}

pub fn keys(view: &View, spine: &[SpineRow]) -> Vec<ArrayRef> {
    (0..view.keys.len())
        .map(|k| ScalarValue::iter_to_array(spine.iter().map(|row| row.keys[k].clone())).unwrap())
        .collect()
}

pub fn instants(spine: &[SpineRow]) -> Vec<i64> {
    spine.iter().map(|row| row.at).collect()
}
