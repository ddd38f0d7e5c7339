//! Archives that are whole, and archives that somebody damaged.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;

use super::super::archive_files::{compacted_name, stream_name};
use super::super::{ArchiveWriter, Compaction, compact};
use super::*;
use crate::source::event_schema;

/// Events at some offsets, a hundred a day. Every seventh offset was refused.
fn events(offsets: &[i64]) -> RecordBatch {
    let schema = event_schema(&Schema::new(vec![Field::new("amount", DataType::Float64, true)]));
    let day = |offset: &i64| offset / 100 * 86_400_000_000;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(offsets.iter().map(|offset| *offset as f64).collect::<Float64Array>()),
        Arc::new(Int32Array::from(vec![0; offsets.len()])),
        Arc::new(Int64Array::from(offsets.to_vec())),
        Arc::new(TimestampMicrosecondArray::from(offsets.iter().map(day).collect::<Vec<_>>()).with_timezone("UTC")),
    ];
    RecordBatch::try_new(schema, columns).unwrap()
}

struct Archive {
    dir: tempfile::TempDir,
    storage: Storage,
}

impl Archive {
    /// Ten files of twenty offsets each, and an end that was refused.
    async fn new() -> Archive {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(&dir.path().to_string_lossy()).unwrap();
        let schema = events(&[]).schema();
        let mut writer = ArchiveWriter::open(storage.clone(), "t", schema, 1_000).await.unwrap();
        for from in (0..200).step_by(20) {
            let taken: Vec<i64> = (from..from + 20).filter(|offset| offset % 7 != 0).collect();
            writer.append(0, &events(&taken), from + 20).await.unwrap();
            writer.flush().await.unwrap();
        }
        writer.append(0, &events(&[]), 204).await.unwrap();
        writer.flush().await.unwrap();
        Archive { dir, storage }
    }

    async fn compacted(self, days_before: Option<&str>) -> Archive {
        let how = Compaction {
            order: vec![],
            before: days_before.map(|day| day.parse().unwrap()),
            grace: Duration::from_secs(3600),
            rows_per_file: 1_000,
            retention: None,
            now: chrono::Utc::now(),
        };
        compact(&self.storage, "t", &how, &mut |_| ()).await.unwrap();
        self
    }

    /// With the embedded log beside it.
    async fn verify(&self) -> Verified {
        let refused = BTreeSet::from_iter((0..204).filter(|offset| offset % 7 == 0 || *offset >= 200));
        let beside = Beside { refused: BTreeMap::from([(0, refused)]), log: Some(BTreeMap::from([(0, (0, 204))])) };
        verify(&self.storage, "t", async || Ok(beside.clone())).await.unwrap()
    }

    fn file(&self, first: i64) -> PathBuf {
        let day = if first < 100 { "ingest_date=1970-01-01" } else { "ingest_date=1970-01-02" };
        self.dir.path().join("archive/t").join(day).join(stream_name(0, first))
    }

    fn compacted_file(&self) -> PathBuf {
        self.dir.path().join("archive/t/ingest_date=1970-01-01").join(compacted_name(0, 1, 99))
    }

    fn write(&self, path: &PathBuf, rows: &RecordBatch) {
        let mut writer = ArrowWriter::try_new(vec![], rows.schema(), None).unwrap();
        writer.write(rows).unwrap();
        std::fs::write(path, writer.into_inner().unwrap()).unwrap();
    }

    /// What is said, a line a fault.
    async fn faults(&self) -> Vec<String> {
        let line = |fault: &Fault| {
            let name = fault.path.rsplit('/').next().unwrap_or_default();
            let offsets = fault.offsets.map_or(String::new(), |(first, last)| format!(" {first}-{last}"));
            format!("{name}{offsets}: {}", fault.cause)
        };
        self.verify().await.faults.iter().map(line).collect()
    }
}

#[tokio::test]
async fn a_whole_archive_has_no_fault_compacted_or_not() {
    let archive = Archive::new().await;
    let whole = archive.verify().await;
    let partition = VerifiedPartition {
        partition: 0,
        removed: 0,
        files: 10,
        events: 171,
        offsets: Some((1, 199)),
        end: 204,
        refused: 33,
        holes: 0,
    };
    assert_eq!(whole, Verified { partitions: vec![partition.clone()], ..Verified::default() });
    let archive = archive.compacted(Some("1970-01-02")).await;
    let mut partition = VerifiedPartition { files: 6, ..partition };
    assert_eq!(
        archive.verify().await,
        Verified { partitions: vec![partition.clone()], covered: 5, ..Verified::default() }
    );
    let archive = archive.compacted(None).await;
    partition.files = 3;
    assert_eq!(
        archive.verify().await,
        Verified { partitions: vec![partition.clone()], covered: 9, ..Verified::default() }
    );

    // Without the log, and without letters, what is missing in between can't be told from holes.
    let alone = verify(&archive.storage, "t", async || Ok(Beside::default())).await.unwrap();
    (partition.refused, partition.holes) = (0, 32);
    assert_eq!(alone, Verified { partitions: vec![partition], covered: 9, ..Verified::default() });
}

#[tokio::test]
async fn every_damage_is_named() {
    let missing = "missing before it: neither archived nor refused";
    let name = |first| stream_name(0, first);

    let archive = Archive::new().await;
    std::fs::remove_file(archive.file(60)).unwrap();
    let gone = [(60, 62), (64, 69), (71, 76), (78, 79)];
    let expected = gone.map(|(first, last)| format!("{} {first}-{last}: {missing}", name(80)));
    assert_eq!(archive.faults().await, expected, "a file that is gone");

    let archive = Archive::new().await;
    std::fs::remove_file(archive.file(1)).unwrap();
    assert_eq!(archive.faults().await.len(), 3, "the first file");

    let archive = Archive::new().await;
    std::fs::remove_file(archive.file(180)).unwrap();
    assert_eq!(archive.faults().await, ["0.json 180-199: the archive went so far once; its last files are gone"]);

    let archive = Archive::new().await;
    let bytes = std::fs::read(archive.file(40)).unwrap();
    std::fs::write(archive.file(40), &bytes[..bytes.len() - 9]).unwrap();
    let [fault] = &archive.faults().await[..] else { panic!("a truncated file") };
    assert!(fault.starts_with(&format!("{} 40-40: can't read: ", name(40))), "{fault}");

    let archive = Archive::new().await;
    let mut torn = bytes.clone();
    torn[4..40].fill(1);
    std::fs::write(archive.file(40), torn).unwrap();
    let [fault] = &archive.faults().await[..] else { panic!("a file with other bytes in it") };
    assert!(fault.starts_with(&format!("{} 40-40: can't read: ", name(40))), "{fault}");

    let archive = Archive::new().await;
    std::fs::rename(archive.file(40), archive.file(41)).unwrap();
    assert_eq!(archive.faults().await, [format!("{}: its first offset is 40, and its name says 41", name(41))]);

    let archive = Archive::new().await;
    std::fs::rename(archive.file(40), archive.file(40).with_file_name("0-40.parquet")).unwrap();
    let faults = archive.faults().await;
    assert!(faults[0].starts_with("0-40.parquet: expected a name such as 0-0000000000000000042.parquet"), "{faults:?}");
    assert_eq!(faults[1..].iter().filter(|fault| fault.ends_with(missing)).count(), 4, "{faults:?}");

    let archive = Archive::new().await;
    std::fs::copy(archive.file(40), archive.file(140).with_file_name(name(40))).unwrap();
    let faults = archive.faults().await;
    let twice = faults.iter().filter(|fault| fault.ends_with("an event that another file holds too")).count();
    assert!(
        twice == 17 && faults.iter().any(|f| f.ends_with("expected the folder ingest_date=1970-01-01")),
        "{faults:?}"
    );

    let archive = Archive::new().await;
    let rows = events(&[40, 41, 43, 44, 45, 46, 47, 48]);
    archive.write(&archive.file(40), &concat_batches(&rows.schema(), &[rows.clone(), rows.slice(7, 1)]).unwrap());
    let faults = archive.faults().await;
    assert_eq!(faults[0], format!("{}: it holds offset 48 twice", name(40)), "{faults:?}");
    assert_eq!(
        faults[1..],
        [(50, 55), (57, 59)].map(|(a, b)| format!("{} {a}-{b}: {missing}", name(60))),
        "{faults:?}"
    );

    let archive = Archive::new().await;
    archive.write(&archive.file(40), &events(&[40, 43, 41]));
    assert!(archive.faults().await[0].ends_with("offset 41 comes after offset 43"));

    let archive = Archive::new().await;
    let mut columns = events(&[40, 41]).columns().to_vec();
    columns[1] = Arc::new(Int32Array::from(vec![0, 1]));
    archive.write(&archive.file(40), &RecordBatch::try_new(events(&[]).schema(), columns).unwrap());
    assert!(archive.faults().await[0].ends_with("it holds an event of partition 1"));

    // Of compacted files.
    let archive = Archive::new().await.compacted(None).await;
    let kept: Vec<i64> = (0..100).filter(|offset| offset % 7 != 0 && *offset != 50).collect();
    archive.write(&archive.compacted_file(), &events(&kept));
    let faults = archive.faults().await;
    let lacks = format!(
        "{} 50-50: it lacks an event of archive/t/ingest_date=1970-01-01/{}",
        compacted_name(0, 1, 99),
        name(40)
    );
    assert_eq!(faults[0], format!("{} 50-50: {missing}", compacted_name(0, 1, 99)));
    assert!(faults[1].starts_with(&lacks) && faults.len() == 2, "{faults:?}");

    let archive = Archive::new().await.compacted(None).await;
    let wide = archive.compacted_file().with_file_name(compacted_name(0, 1, 120));
    std::fs::rename(archive.compacted_file(), wide).unwrap();
    let faults = archive.faults().await;
    assert!(faults.len() == 1 && faults[0].contains("its offsets overlap those of"), "{faults:?}");

    // A log that was made anew.
    let archive = Archive::new().await;
    let beside = Beside { log: Some(BTreeMap::from([(0, (0, 90))])), ..Beside::default() };
    let found = verify(&archive.storage, "t", async || Ok(beside.clone())).await.unwrap();
    assert!(found.faults.iter().any(|fault| fault.cause.contains("the log ends at offset 90")), "{found:?}");
}
