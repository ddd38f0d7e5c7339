//! Random streams, random compactions and removals that die anywhere, and readers that look all the time.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::super::archive_files::stream_name;
use super::super::{
    ArchiveReader, ArchiveWriter, Beside, Past, Removed, Verified, archive_table, archived_ends, gone, verify,
};
use super::*;
use crate::source::{Contract, event_schema};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: i64 = 86_400_000_000;
const ROWS: usize = 60;

/// A contract as it was, and as it is since it grew.
fn contract(grown: bool) -> Arc<Contract> {
    let more = if grown { r#",{"name":"more","type":"string","default":"none"}"# } else { "" };
    let json = format!(
        r#"{{"type":"record","name":"T","fields":[{{"name":"amount","type":["null","double"]}},
        {{"name":"key","type":"long"}},{{"name":"at","type":{{"type":"long","logicalType":"timestamp-micros"}}}}{more}]}}"#
    );
    Arc::new(Contract::parse("t.v1", &json).unwrap())
}

fn schema(grown: bool) -> SchemaRef {
    event_schema(contract(grown).columns())
}

/// Events at some offsets: days of two hundred offsets, times that go back and forth, amounts of every kind.
fn events(partition: i32, offsets: &[i64], grown: bool) -> RecordBatch {
    let mixed = |o: i64| ((o * 31 + i64::from(partition)) * 2_654_435_761) % 1_000;
    let amount = |o: i64| match mixed(o) % 10 {
        0 => None,
        1 => Some(f64::NAN),
        2 => Some(-0.0),
        _ => Some(mixed(o) as f64 / 3.0),
    };
    let utc = |times: Vec<i64>| TimestampMicrosecondArray::from(times).with_timezone("UTC");
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(offsets.iter().map(|o| amount(*o)).collect::<Float64Array>()),
        Arc::new(offsets.iter().map(|o| mixed(*o) % 7).collect::<Int64Array>()),
        Arc::new(utc(offsets.iter().map(|o| o * 1_000_000 - mixed(*o) * 500_000).collect())),
    ];
    if grown {
        columns.push(Arc::new(offsets.iter().map(|o| Some(format!("m{o}"))).collect::<StringArray>()));
    }
    columns.push(Arc::new(Int32Array::from(vec![partition; offsets.len()])));
    columns.push(Arc::new(Int64Array::from(offsets.to_vec())));
    columns.push(Arc::new(utc(offsets.iter().map(|o| o / 200 * DAY).collect())));
    RecordBatch::try_new(schema(grown), columns).unwrap()
}

/// What was appended, as it is to be read.
#[derive(Default, Clone)]
struct Truth {
    events: BTreeMap<(i32, i64), bool>,
    ends: BTreeMap<i32, i64>,
}

impl Truth {
    fn of(&self, partition: i32) -> Vec<(i64, bool)> {
        self.events.iter().filter(|((p, _), _)| *p == partition).map(|((_, o), grown)| (*o, *grown)).collect()
    }

    /// The rows of a partition that are held, under the contract of today.
    fn rows(&self, partition: i32, removed: &Removed) -> RecordBatch {
        let mut of = self.of(partition);
        of.retain(|(offset, _)| *offset >= removed.begin(partition));
        let rows = events(partition, &of.iter().map(|(o, _)| *o).collect::<Vec<_>>(), true);
        let more: StringArray =
            of.iter().map(|(o, grown)| Some(if *grown { format!("m{o}") } else { "none".into() })).collect();
        let mut columns = rows.columns().to_vec();
        columns[3] = Arc::new(more);
        RecordBatch::try_new(schema(true), columns).unwrap()
    }
}

/// Bits, not values: NaN is to be what it was.
fn same(found: &RecordBatch, expected: &RecordBatch) -> bool {
    let bits = |rows: &RecordBatch| {
        let amounts = rows.column(0).as_primitive::<arrow::datatypes::Float64Type>();
        amounts.iter().map(|value| value.map(f64::to_bits)).collect::<Vec<_>>()
    };
    bits(found) == bits(expected) && found.columns()[1..] == expected.columns()[1..]
}

async fn table(past: &Past) -> datafusion::common::Result<RecordBatch> {
    let context = crate::batch::session();
    context.register_table("archive", past.table.clone()).unwrap();
    let sql = "SELECT * FROM archive ORDER BY _partition, _offset";
    let rows = context.sql(sql).await?;
    let rows = rows.collect().await?;
    Ok(concat_batches(&schema(true), &rows).unwrap())
}

/// A reader that is somewhere in a partition.
struct Reading {
    reader: ArchiveReader,
    partition: i32,
    from: i64,
    most: usize,
    end: i64,
}

/// What retention removed is older than it says.
fn is_older(truth: &Truth, removed: &Removed) {
    for (partition, offset) in truth.events.keys() {
        if *offset < removed.begin(*partition) {
            let at = events(*partition, &[*offset], true)["at"].as_primitive::<TimestampMicrosecondType>().value(0);
            assert!(removed.horizon("at").is_some_and(|horizon| at < horizon), "offset {offset} of {partition}");
        }
    }
}

/// Everything that reads an archive reads what was written, once and in order, apart from what retention removed.
async fn holds(storage: &Storage, truth: &Truth) -> Removed {
    let mut reader = ArchiveReader::open(storage.clone(), "t", &contract(true)).await.unwrap();
    let past = archive_table(storage, "t", &contract(true)).await.unwrap();
    assert_eq!(archived_ends(storage, "t").await.unwrap(), truth.ends);
    assert_eq!(reader.removed(), &past.removed);
    is_older(truth, &past.removed);
    let rows = |partition: &i32| truth.rows(*partition, &past.removed);
    let expected: Vec<RecordBatch> = truth.ends.keys().map(rows).collect();
    let all = concat_batches(&schema(true), &expected).unwrap();
    assert!(same(&table(&past).await.unwrap(), &all), "the table");
    for (partition, expected) in truth.ends.keys().zip(&expected) {
        assert_eq!(reader.end(*partition), truth.ends[partition]);
        let offsets = offsets_in(expected);
        let known = past.offsets.get(partition).map(|range| (*range.start(), *range.end()));
        assert_eq!(known, offsets.first().copied().zip(offsets.last().copied()));
        let (mut found, mut from) = (vec![], 0);
        while let Some(rows) = reader.read(*partition, from, 37).await.unwrap() {
            from = offsets_in(&rows).last().unwrap() + 1;
            found.push(rows);
        }
        assert!(same(&concat_batches(&schema(true), &found).unwrap(), expected), "partition {partition}");
    }
    past.removed
}

/// Nothing is wrong, as far as the embedded log and the letters say.
async fn is_whole(storage: &Storage, truth: &Truth, begins: &BTreeMap<i32, i64>) -> Verified {
    let mut beside = Beside::default();
    let mut log = BTreeMap::new();
    for (partition, end) in &truth.ends {
        let taken: BTreeSet<i64> = truth.of(*partition).into_iter().map(|(offset, _)| offset).collect();
        let refused = (begins[partition]..*end).filter(|offset| !taken.contains(offset));
        beside.refused.insert(*partition, refused.collect());
        log.insert(*partition, (begins[partition], *end));
    }
    beside.log = Some(log);
    let verified = verify(storage, "t", async || Ok(beside.clone())).await.unwrap();
    assert_eq!(verified.faults, []);
    let events: u64 = verified.partitions.iter().map(|found| found.events + found.removed).sum();
    assert_eq!(events, truth.events.len() as u64);
    verified
}

/// Runs something until it has waited so often, and drops it there: as far as a killed process would have got.
async fn killed<T>(waits: usize, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut left) = (pin!(work), waits);
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// As `killed`, and then nothing of it goes on: a write that it had given to a thread would end beside what comes next.
fn killed_whole<T: Send>(waits: usize, work: impl AsyncFnOnce() -> T + Send) -> Option<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| scope.spawn(move || runtime.block_on(killed(waits, work()))).join().unwrap())
}

/// Runs something until it has waited so often, then something else to its end, and then the rest of it.
async fn paused<T>(waits: usize, work: impl Future<Output = T>, meanwhile: impl Future<Output = ()>) -> T {
    let mut work = Box::pin(work);
    match killed(waits, work.as_mut()).await {
        Some(done) => done,
        None => {
            meanwhile.await;
            work.await
        }
    }
}

fn before(before: i64) -> Retention {
    Retention { timestamp: "at".into(), before }
}

fn how(now: DateTime<Utc>) -> Compaction {
    Compaction {
        order: vec!["at".into(), "key".into()],
        before: None,
        grace: HOUR,
        rows_per_file: ROWS,
        retention: None,
        now,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_every_row_once_whatever_is_compacted_and_removed() {
    let (mut merged, mut removed, mut killed_at_work, mut going_on, mut plans, mut missing) = (0, 0, 0, 0, 0, 0);
    let (mut retired, mut skipped, mut beside_a_removal) = (0, 0, 0);
    for seed in 0..12 {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
        let mut truth = Truth::default();
        let (mut grown, mut next) = (false, BTreeMap::from([(0, 17), (3, 0)]));
        let mut writer = ArchiveWriter::open(storage.clone(), "t", schema(false), 25).await.unwrap();
        let mut reading: Option<Reading> = None;
        let mut planned: Option<(Past, Truth)> = None;
        let (begins, mut horizon) = (next.clone(), None);
        for _ in 0..50 {
            let now = Utc::now() + chrono::Duration::minutes(random.random_range(0..180));
            // Every third archive keeps everything.
            let newest = truth.ends.values().max().copied().unwrap_or(0) * 1_000_000;
            let oldest = newest - random.random_range(0..600) * 1_000_000;
            let kept = (seed % 3 > 0 && random.random_bool(0.4)).then(|| before(oldest));
            let how = |now| Compaction { retention: kept.clone(), ..how(now) };
            match random.random_range(0..12) {
                // The stream goes on; some of what comes is refused.
                0..=4 => {
                    if !grown && random.random_bool(0.05) {
                        grown = true;
                        writer = ArchiveWriter::open(storage.clone(), "t", schema(true), 25).await.unwrap();
                    }
                    for (partition, next) in &mut next {
                        let end = *next + random.random_range(0..60);
                        let taken: Vec<i64> = (*next..end).filter(|_| random.random_bool(0.9)).collect();
                        writer.append(*partition, &events(*partition, &taken, grown), end).await.unwrap();
                        truth.events.extend(taken.iter().map(|offset| ((*partition, *offset), grown)));
                        *next = end;
                    }
                    writer.flush().await.unwrap();
                    truth.ends = writer.durable().into_iter().filter(|(_, end)| *end > 0).collect();
                }
                5 | 6 => {
                    let mut steps = vec![];
                    compact(&storage, "t", &how(now), &mut |step| steps.push(step.clone())).await.unwrap();
                    merged += steps.iter().filter(|step| matches!(step, CompactStep::Merged { .. })).count();
                    removed += steps.iter().filter(|step| matches!(step, CompactStep::Removed { .. })).count();
                }
                7 => {
                    let how = how(now);
                    let waits = random.random_range(0..60);
                    let done = killed_whole(waits, async || compact(&storage, "t", &how, &mut |_| ()).await);
                    killed_at_work += usize::from(done.is_none());
                }
                8 => {
                    let (a, b) = (how(now), how(now));
                    let (mut none, mut neither) = (|_: &CompactStep| (), |_: &CompactStep| ());
                    let (a, b) =
                        futures::join!(compact(&storage, "t", &a, &mut none), compact(&storage, "t", &b, &mut neither));
                    a.and(b).unwrap();
                }
                9 => {
                    let past = archive_table(&storage, "t", &contract(true)).await.unwrap();
                    planned = Some((past, truth.clone()));
                }
                // A training set is made while things go: it has all that it doesn't know to be gone, or it says what it missed.
                _ => {
                    let (first, second) = (how(now), how(now + HOUR * 2));
                    let waits = random.random_range(0..12);
                    let beside = async {
                        for how in [first, second] {
                            compact(&storage, "t", &how, &mut |_| ()).await.unwrap();
                        }
                    };
                    let look = async {
                        let past = archive_table(&storage, "t", &contract(true)).await.map_err(|e| e.to_string())?;
                        Ok::<_, String>((table(&past).await, past.removed))
                    };
                    match paused(waits, look, beside).await {
                        Ok((Ok(rows), removed)) => {
                            let parts: Vec<_> = truth.ends.keys().map(|p| truth.rows(*p, &removed)).collect();
                            assert!(same(&rows, &concat_batches(&schema(true), &parts).unwrap()), "seed {seed}");
                            is_older(&truth, &removed);
                            beside_a_removal += 1;
                        }
                        Ok((Err(error), _)) => assert!(gone(&error), "{error}"),
                        Err(error) => assert!(error.contains("the file is gone"), "{error}"),
                    }
                }
            }
            let lost = holds(&storage, &truth).await;
            assert!(lost.horizon("at") >= horizon, "seed {seed}: it only rises");
            retired += usize::from(lost.horizon("at") > horizon);
            horizon = lost.horizon("at");
            if random.random_bool(0.2) {
                is_whole(&storage, &truth, &begins).await;
            }

            // A reader that began long ago goes on.
            let reader = match reading.take() {
                Some(reading) => reading,
                None => {
                    let reader = ArchiveReader::open(storage.clone(), "t", &contract(true)).await.unwrap();
                    let partition = if random.random_bool(0.5) { 0 } else { 3 };
                    let (end, most) = (reader.end(partition), random.random_range(1..40));
                    Reading { reader, partition, from: 0, most, end }
                }
            };
            let Reading { mut reader, partition, from, most, end } = reader;
            // What came since it was opened is none of its.
            let known = truth.of(partition).into_iter().map(|(offset, _)| offset);
            let mut known: Vec<i64> = known.filter(|offset| (from..end).contains(offset)).collect();
            let read = reader.read(partition, from, most).await.unwrap();
            // What is gone it skips, and knows it.
            let begin = reader.removed().begin(partition);
            is_older(&truth, reader.removed());
            skipped += usize::from(from < begin);
            known.retain(|offset| *offset >= begin);
            let read = read.map_or(vec![], |rows| offsets_in(&rows).to_vec());
            assert!(!read.is_empty() || known.is_empty(), "seed {seed}, partition {partition} from {from}");
            assert_eq!(read, known[..read.len()], "seed {seed}, partition {partition} from {from}");
            if let Some(last) = read.last() {
                assert_eq!(reader.end(partition), end);
                going_on += 1;
                reading = Some(Reading { from: last + 1, partition, most, end, reader });
            }

            // A plan that was made long ago reads all of what there was then, or says what is gone.
            if let Some((past, then)) = &planned
                && random.random_bool(0.3)
            {
                let rows = |partition: &i32| then.rows(*partition, &past.removed);
                let expected: Vec<RecordBatch> = then.ends.keys().map(rows).collect();
                match table(past).await {
                    Ok(rows) => {
                        let expected = concat_batches(&schema(true), &expected).unwrap();
                        assert!(same(&rows, &expected), "seed {seed}");
                    }
                    Err(error) => {
                        assert!(gone(&error), "{error}");
                        missing += 1;
                    }
                }
                plans += 1;
                planned = None;
            }
        }
    }
    println!("{merged} merged, {removed} removed, {killed_at_work} killed, {going_on} readers went on");
    println!(
        "{plans} old plans, {missing} of them without a file; {retired} times something was let go, {skipped} readers skipped it"
    );
    assert!(retired > 4 && skipped > 4 && beside_a_removal > 20);
    assert!(merged > 40 && removed > 80 && killed_at_work > 4 && going_on > 100 && plans > 10 && missing > 0);
}

async fn archive(dir: &tempfile::TempDir, flushes: i64, of: i64) -> Storage {
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let mut writer = ArchiveWriter::open(storage.clone(), "t", schema(true), 1_000_000).await.unwrap();
    for i in 0..flushes {
        let offsets: Vec<i64> = (i * of..(i + 1) * of).collect();
        writer.append(0, &events(0, &offsets, true), (i + 1) * of).await.unwrap();
        writer.flush().await.unwrap();
    }
    storage
}

async fn names(storage: &Storage) -> Vec<String> {
    let files = storage.list(&storage.path(&["archive", "t"]), "parquet").await.unwrap();
    let mut names: Vec<_> = files.iter().map(|file| file.location.filename().unwrap().to_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn files_are_put_together_by_day_up_to_the_newest_and_removed_after_the_grace_period() {
    let dir = tempfile::tempdir().unwrap();
    // A day has two hundred: five files a day, of which the cap of sixty takes one at a time; a higher one takes all.
    let storage = archive(&dir, 11, 40).await;
    let mut wide = how(Utc::now());
    wide.rows_per_file = 1_000;
    wide.before = Some(NaiveDate::from_ymd_opt(1970, 1, 2).unwrap());
    let mut said = vec![];
    compact(&storage, "t", &wide, &mut |step| said.push(step.clone())).await.unwrap();
    let [CompactStep::Merged { path, files: 5, rows: 200, .. }, CompactStep::Waiting { files: 5 }] = said.as_slice()
    else {
        panic!("{said:?}");
    };
    assert_eq!(path, &format!("archive/t/ingest_date=1970-01-01/{}", compacted_name(0, 0, 199)));
    wide.before = None;
    compact(&storage, "t", &wide, &mut |_| ()).await.unwrap();
    let (first, second) = (compacted_name(0, 0, 199), compacted_name(0, 200, 399));
    let mut expected: Vec<String> =
        (0..11).map(|i| stream_name(0, i * 40)).chain([first.clone(), second.clone()]).collect();
    expected.sort();
    assert_eq!(
        names(&storage).await,
        expected,
        "nothing is removed within the grace period, and the newest stays alone"
    );
    wide.now = Utc::now() + HOUR + Duration::from_secs(1);
    let mut said = vec![];
    compact(&storage, "t", &wide, &mut |step| said.push(step.clone())).await.unwrap();
    assert_eq!(said.len(), 11, "ten removed, none waiting: {said:?}");
    assert_eq!(names(&storage).await, [first, second, stream_name(0, 400)]);

    // Rows lie by time, in groups whose statistics say so, and none of doubles.
    let files = list_archive(&storage, "t").await.unwrap();
    let compacted = &files.counting[0];
    let rows = rows_of(compacted, &storage.get(&compacted.meta.location).await.unwrap()).unwrap();
    let times = rows["at"].as_primitive::<TimestampMicrosecondType>().values();
    assert!(times.is_sorted());
    let footer = storage.footer(&compacted.meta).await.unwrap();
    let stated = |name: &str| {
        let columns = footer.row_group(0).columns();
        columns.iter().find(|c| c.column_path().string() == name).unwrap().statistics().is_some()
    };
    assert!(stated("at") && stated(OFFSET) && !stated("amount"));

    // A second run finds nothing to do.
    let mut said = vec![];
    compact(&storage, "t", &wide, &mut |step| said.push(step.clone())).await.unwrap();
    assert_eq!(said, [CompactStep::Waiting { files: 0 }]);
}

#[tokio::test]
async fn a_long_file_alone_is_put_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let mut writer = ArchiveWriter::open(storage.clone(), "t", schema(true), 1_000_000).await.unwrap();
    let long: Vec<i64> = (0..ROW_GROUP_ROWS as i64 + 10).collect();
    let mut rows = events(0, &long, true).columns().to_vec();
    rows[6] = Arc::new(TimestampMicrosecondArray::from(vec![0; long.len()]).with_timezone("UTC"));
    let rows = RecordBatch::try_new(schema(true), rows).unwrap();
    writer.append(0, &rows, long.len() as i64).await.unwrap();
    writer.flush().await.unwrap();
    let newest = long.len() as i64;
    writer.append(0, &events(0, &[newest], true), newest + 1).await.unwrap();
    writer.flush().await.unwrap();
    let mut all = how(Utc::now());
    all.rows_per_file = 10;
    compact(&storage, "t", &all, &mut |_| ()).await.unwrap();
    let files = list_archive(&storage, "t").await.unwrap();
    assert_eq!(files.counting[0].last, Some(newest - 1));
    assert_eq!(storage.footer(&files.counting[0].meta).await.unwrap().num_row_groups(), 2);
    let mut reader = ArchiveReader::open(storage, "t", &contract(true)).await.unwrap();
    let read = reader.read(0, 5, 1_000_000).await.unwrap().unwrap();
    assert_eq!(read["_offset"].as_primitive::<Int64Type>().values().to_vec(), (5..newest).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_damaged_is_not_put_together() {
    for (damage, expected) in [("name", "its first offset is 40, and its name says 41"), ("bytes", "can't read")] {
        let dir = tempfile::tempdir().unwrap();
        let storage = archive(&dir, 4, 40).await;
        let folder = dir.path().join("archive/t/ingest_date=1970-01-01");
        let file = folder.join(stream_name(0, 40));
        match damage {
            "name" => std::fs::rename(&file, folder.join(stream_name(0, 41))).unwrap(),
            _ => {
                let mut bytes = std::fs::read(&file).unwrap();
                bytes[4..60].fill(7);
                std::fs::write(&file, bytes).unwrap();
            }
        }
        let before = names(&storage).await;
        let mut wide = how(Utc::now());
        wide.rows_per_file = 1_000;
        let error = compact(&storage, "t", &wide, &mut |_| ()).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(names(&storage).await, before);
    }
}

#[tokio::test]
async fn a_reader_goes_on_where_it_was_though_its_files_are_gone() {
    let dir = tempfile::tempdir().unwrap();
    let storage = archive(&dir, 10, 40).await;
    let mut reader = ArchiveReader::open(storage.clone(), "t", &contract(true)).await.unwrap();
    let mut read = offsets_in(&reader.read(0, 0, 50).await.unwrap().unwrap()).to_vec();
    let mut writer = ArchiveWriter::open(storage.clone(), "t", schema(true), 1_000_000).await.unwrap();
    writer.append(0, &events(0, &[400, 401], true), 402).await.unwrap();
    writer.flush().await.unwrap();
    let mut wide = how(Utc::now() + HOUR * 2);
    wide.rows_per_file = 1_000;
    for _ in 0..2 {
        compact(&storage, "t", &wide, &mut |_| ()).await.unwrap();
    }
    assert_eq!(names(&storage).await.len(), 3);
    while let Some(rows) = reader.read(0, read.last().unwrap() + 1, 50).await.unwrap() {
        read.extend_from_slice(offsets_in(&rows));
    }
    assert_eq!(read, (0..400).collect::<Vec<_>>(), "what there was when it was opened");
}

/// A zombie that creates a file whose name was taken, and is free again since the file was compacted and removed.
#[tokio::test]
async fn what_a_zombie_writes_into_a_range_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
    let mut zombie = ArchiveWriter::open(storage.clone(), "t", schema(true), 1_000).await.unwrap();
    zombie.append(0, &events(0, &(0..100).collect::<Vec<_>>(), true), 100).await.unwrap();
    let storage = archive(&dir, 4, 40).await;
    let mut wide = how(Utc::now() + HOUR * 2);
    wide.rows_per_file = 1_000;
    for _ in 0..2 {
        compact(&storage, "t", &wide, &mut |_| ()).await.unwrap();
    }
    assert_eq!(names(&storage).await, [compacted_name(0, 0, 119), stream_name(0, 120)]);
    zombie.flush().await.unwrap();
    assert_eq!(names(&storage).await.len(), 3);
    let truth =
        Truth { events: (0..160).map(|offset| ((0, offset), true)).collect(), ends: BTreeMap::from([(0, 160)]) };
    holds(&storage, &truth).await;
    zombie.adopt(&[0]).await.unwrap();
    assert_eq!(zombie.durable(), truth.ends);
    compact(&storage, "t", &wide, &mut |_| ()).await.unwrap();
    assert_eq!(names(&storage).await.len(), 2);
    holds(&storage, &truth).await;
}

#[path = "retention_tests.rs"]
mod retention;
