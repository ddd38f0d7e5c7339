//! Which stretch of which file has which number, whatever becomes of the files.

use std::fs;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};

use super::super::INGESTED_AT;
use super::listing::Listing;
use super::location::{Found, list};
use super::stretch::Kind;
use super::*;

/// 2026-01-01T00:00:00Z
const NOW: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;

/// A folder of events beside a folder of state.
pub(super) struct Place(tempfile::TempDir);

impl Place {
    pub(super) fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        fs::create_dir_all(self.path(path).parent().unwrap()).unwrap();
        fs::write(self.path(path), content).unwrap();
    }

    /// Events with these numbers, as CSV.
    pub(super) fn csv(&self, path: &str, xs: &[i64]) {
        self.write(path, format!("at,x\n{}", rows(xs)));
    }

    fn append(&self, path: &str, text: &str) {
        let whole = fs::read_to_string(self.path(path)).unwrap() + text;
        self.write(path, whole);
    }

    pub(super) fn config(&self, location: &str, reading: Reading) -> FilesConfig {
        FilesConfig {
            location: self.path(location).to_string_lossy().into_owned(),
            format: None,
            timestamp: "at".into(),
            max_future: i64::MAX / 2,
            of: location.into(),
            manifest: Some(self.path("state/t.ndjson")),
            reading,
            clock: || NOW,
        }
    }

    fn open(&self, location: &str) -> Result<FileSource, SourceError> {
        FileSource::open("t", self.config(location, Reading::Draining))
    }

    /// What a training set reads.
    async fn again(&self, location: &str) -> Result<Vec<i64>, SourceError> {
        let mut source = FileSource::open("t", self.config(location, Reading::Looking))?;
        Ok(read(&mut source, 0).await?.0)
    }

    fn listing(&self, location: &str) -> Listing {
        Listing::open("t", self.config(location, Reading::Following)).unwrap()
    }

    /// The files as they are, last changed at an instant.
    fn found(&self, location: &str, modified: i64) -> Vec<Found> {
        let files = list("t", &self.path(location).to_string_lossy(), None).unwrap();
        files.into_iter().map(|file| Found { modified, ..file }).collect()
    }
}

fn rows(xs: &[i64]) -> String {
    xs.iter().map(|x| format!("2026-01-01,{x}\n")).collect()
}

/// The numbers in the events from an offset on, the reasons of the rejects, and the end.
async fn read(source: &mut FileSource, from: i64) -> Result<(Vec<i64>, Vec<String>, i64), SourceError> {
    let (mut at, mut xs, mut reasons) = (from, vec![], vec![]);
    while let Some(batch) = source.read(0, at, 2).await? {
        at = batch.next_offset;
        xs.extend(batch.events["x"].as_primitive::<Int64Type>().values());
        reasons.extend(batch.rejects.into_iter().map(|reject| reject.reason));
    }
    Ok((xs, reasons, at))
}

fn said<T: std::fmt::Debug>(result: Result<T, SourceError>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn new_files_are_numbered_behind_the_old_ones_and_restarts_change_nothing() {
    let place = Place::new();
    place.csv("events/2.csv", &[2]);
    place.csv("events/4.csv", &[4, 5]);
    let (xs, _, end) = read(&mut place.open("events/*.csv").unwrap(), 0).await.unwrap();
    assert_eq!((xs, end), (vec![2, 4, 5], 2 << 32));
    place.csv("events/3.csv", &[3]);
    let mut source = place.open("events/*.csv").unwrap();
    assert_eq!(read(&mut source, end).await.unwrap(), (vec![3], vec![], 3 << 32));
    assert_eq!(place.again("events/*.csv").await.unwrap(), [2, 4, 5, 3]);
    assert!(said(source.read(1, 0, 1).await).contains("no partition 1; it has only 0"));
}

#[tokio::test]
async fn a_moved_folder_and_another_spelling_are_the_same_files() {
    let place = Place::new();
    place.csv("a/events/1.csv", &[1]);
    place.csv("a/events/deep/2.csv", &[2]);
    let of = |config: FilesConfig| FilesConfig { of: "the same".into(), ..config };
    let open = |location: &str| FileSource::open("t", of(place.config(location, Reading::Draining)));
    assert_eq!(read(&mut open("a/events").unwrap(), 0).await.unwrap().0, [1, 2]);
    fs::rename(place.path("a"), place.path("b")).unwrap();
    let mut spelt = vec!["b/events", "b/events/", "b/../b/./events/**/*.csv"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(place.path("b/events"), place.path("link")).unwrap();
        spelt.extend(["link", "link/**/*.csv"]);
    }
    for location in spelt {
        let mut source = open(location).unwrap();
        assert_eq!(source.end_offset(0).await.unwrap(), 2 << 32, "{location}");
        assert_eq!(read(&mut source, 0).await.unwrap().0, [1, 2], "{location}");
    }
}

#[test]
fn a_location_is_called_the_same_wherever_its_project_is() {
    let root = tempfile::tempdir().unwrap();
    let project = root.path().join("p");
    fs::create_dir_all(project.join("events")).unwrap();
    let absolute = |rest: &str| project.join(rest).to_string_lossy().into_owned();
    for spelt in ["events/*.csv", "./events/*.csv", "x/../events//*.csv", &absolute("events/*.csv")] {
        assert_eq!(place(&project, spelt), "events/*.csv", "{spelt}");
        assert_eq!(place(&root.path().join("p/../p"), spelt), "events/*.csv", "{spelt}");
    }
    for spelt in ["events", "events/", &absolute("events"), &format!("file://{}", absolute("events/"))] {
        assert_eq!(place(&project, spelt), "events", "{spelt}");
    }
    assert_eq!(place(&project, "../shared/*.csv"), "../shared/*.csv");
    assert_eq!(place(&project.join("q"), &absolute("x.csv")), absolute("x.csv"));
}

#[tokio::test]
async fn a_file_that_is_gone_is_named_until_it_is_back() {
    let place = Place::new();
    place.csv("events/1.csv", &[1]);
    place.csv("events/2.csv", &[2]);
    let mut source = place.open("events").unwrap();
    assert_eq!(read(&mut source, 0).await.unwrap().0, [1, 2]);
    fs::rename(place.path("events/1.csv"), place.path("1.away")).unwrap();
    for error in [said(source.end_offset(0).await), said(place.open("events")), said(place.again("events").await)] {
        assert!(error.contains("1.csv of location") && error.contains("is gone"), "{error}");
        assert!(error.contains("put it back") && error.contains("new folder"), "{error}");
    }
    fs::rename(place.path("1.away"), place.path("events/1.csv")).unwrap();
    assert_eq!(source.end_offset(0).await.unwrap(), 2 << 32);
    assert_eq!(place.again("events").await.unwrap(), [1, 2]);
}

#[tokio::test]
async fn another_location_is_numbered_anew_behind_the_old_one() {
    let place = Place::new();
    place.csv("old/1.csv", &[1]);
    place.csv("old/2.csv", &[2]);
    place.csv("new/2.csv", &[20]);
    assert_eq!(read(&mut place.open("old").unwrap(), 0).await.unwrap().2, 2 << 32);
    assert_eq!(place.again("new").await.unwrap(), [20], "what a drain would read");
    assert_eq!(read(&mut place.open("new").unwrap(), 0).await.unwrap(), (vec![20], vec![], 3 << 32));
    place.csv("old/3.csv", &[3]);
    let mut back = place.open("old").unwrap();
    assert_eq!(back.between(0, 0, 3 << 32).await.unwrap(), 2, "the other location's are not on the way");
    assert_eq!(read(&mut back, 0).await.unwrap(), (vec![1, 2, 3], vec![], 4 << 32));
    assert_eq!(place.again("new").await.unwrap(), [20]);
}

#[test]
fn a_stream_takes_a_file_once_it_has_stayed_the_same() {
    let place = Place::new();
    place.write("events/none.txt", "");
    let mut listing = place.listing("events");
    let numbered = |listing: &Listing| -> Vec<(String, u64, u64, i64)> {
        listing.stretches.iter().map(|s| (s.file.clone(), s.from, s.to, s.numbered)).collect()
    };
    place.csv("events/a.csv", &[1]);
    let look = |listing: &mut Listing, modified: i64, at: i64| {
        listing.look(&place.found("events", modified), at).unwrap();
    };
    look(&mut listing, NOW, NOW);
    look(&mut listing, NOW, NOW + SECOND - 1);
    assert_eq!(numbered(&listing), []);
    place.append("events/a.csv", "2026-01-01,");
    look(&mut listing, NOW + SECOND, NOW + SECOND);
    assert_eq!(numbered(&listing), [], "it is still being written");
    look(&mut listing, NOW + SECOND, NOW + 2 * SECOND);
    let first = ("a.csv".to_owned(), 0, 18, NOW + 2 * SECOND);
    assert_eq!(numbered(&listing), std::slice::from_ref(&first), "without the line that has no end");
    place.append("events/a.csv", "2\n2026-01-01,3");
    look(&mut listing, NOW + 3 * SECOND, NOW + 3 * SECOND);
    look(&mut listing, NOW + 3 * SECOND, NOW + 9 * SECOND);
    let second = ("a.csv".to_owned(), 18, 31, NOW + 9 * SECOND);
    assert_eq!(numbered(&listing), [first.clone(), second.clone()]);
    look(&mut listing, NOW + 3 * SECOND, NOW + 62 * SECOND);
    assert_eq!(listing.stretches.len(), 2);
    look(&mut listing, NOW + 3 * SECOND, NOW + 63 * SECOND);
    let third = ("a.csv".to_owned(), 31, 43, NOW + 63 * SECOND);
    assert_eq!(numbered(&listing), [first, second, third], "a minute on it is taken for whole");
}

#[test]
fn text_whose_writer_never_rests_is_taken_every_minute() {
    let place = Place::new();
    place.csv("events/none.csv", &[]);
    let mut listing = Listing::open("t", place.config("events/a.*", Reading::Following)).unwrap();
    place.csv("events/a.csv", &[]);
    place.write("events/a.parquet", "PAR1");
    for second in 0..125 {
        for name in ["events/a.csv", "events/a.parquet"] {
            place.append(name, "2026-01-01,1\n2026");
        }
        let at = NOW + second * SECOND;
        listing.look(&place.found("events/a.*", at), at).unwrap();
    }
    let numbered: Vec<(&str, i64)> =
        listing.stretches.iter().map(|s| (s.file.as_str(), (s.numbered - NOW) / SECOND)).collect();
    assert_eq!(numbered, [("a.csv", 60), ("a.csv", 121)]);
}

#[test]
fn what_is_there_at_the_start_is_taken_by_its_last_change() {
    let place = Place::new();
    let file = |name: &str, end: &str, seconds: i64| {
        place.csv(name, &[1]);
        place.append(name, end);
        touch(&place.path(name), seconds);
    };
    file("events/a.csv", "", -2);
    file("events/b.csv", "2026-01-01,\"two\nlines", -2);
    file("events/c.csv", "", 0);
    file("events/d.csv", "2026-01-01,2", -60);
    file("events/e.csv", "", 5);
    let listing = place.listing("events");
    let taken: Vec<(&str, u64, u64)> = listing.stretches.iter().map(|s| (s.file.as_str(), s.to, s.rows)).collect();
    assert_eq!(taken, [("a.csv", 18, 1), ("b.csv", 18, 1), ("d.csv", 30, 2)]);
}

#[tokio::test]
async fn text_that_grows_by_lines_is_read_on() {
    let place = Place::new();
    place.csv("events/a.csv", &[1]);
    place.write("events/b.ndjson", r#"{"at": "2026-01-01", "x": 10}"#);
    let mut source = place.open("events").unwrap();
    let (xs, _, end) = read(&mut source, 0).await.unwrap();
    assert_eq!((xs, end), (vec![1, 10], 2 << 32));
    place.append("events/a.csv", "2026-01-01,2\nnever,3\n2026-01-01,4");
    place.append("events/b.ndjson", "\r\n{\"at\": \"2026-01-01\", \"x\": 11}\n");
    assert_eq!(source.end_offset(0).await.unwrap(), 4 << 32);
    let (xs, reasons, end) = read(&mut source, end).await.unwrap();
    assert_eq!((xs, end), (vec![2, 4, 11], 4 << 32));
    assert!(reasons.len() == 1 && reasons[0].contains("a.csv, from byte 18 on, row 2: "), "{reasons:?}");
    assert_eq!(place.again("events").await.unwrap(), [1, 10, 2, 4, 11]);
    // What was read as 4 becomes 45: no line that is new.
    place.append("events/a.csv", "5\n2026-01-01,6\n");
    let (xs, reasons, _) = read(&mut source, end).await.unwrap();
    assert!(xs.is_empty() && reasons.len() == 1 && reasons[0].contains("a.csv has changed"), "{reasons:?}");
}

#[tokio::test]
async fn a_change_is_told_once_by_name_and_the_others_go_on() {
    let place = Place::new();
    place.csv("events/a.csv", &[1, 2]);
    place.csv("events/b.csv", &[3]);
    let mut source = place.open("events").unwrap();
    let (_, _, end) = read(&mut source, 0).await.unwrap();
    // As long as before.
    place.csv("events/a.csv", &[1, 9]);
    touch(&place.path("events/a.csv"), 7);
    place.csv("events/c.csv", &[4]);
    let (xs, reasons, end) = read(&mut source, end).await.unwrap();
    assert_eq!((xs, end), (vec![4], 4 << 32));
    assert!(reasons.len() == 1 && reasons[0].contains("a.csv has changed since its events were read"), "{reasons:?}");
    assert!(reasons[0].contains("put it back as it was"), "{reasons:?}");
    let mut source = place.open("events").unwrap();
    assert_eq!(source.end_offset(0).await.unwrap(), end, "once");
    for error in [said(read(&mut source, 0).await), said(place.again("events").await)] {
        assert!(error.contains("a.csv has changed"), "{error}");
    }
    place.csv("events/a.csv", &[1, 2]);
    touch(&place.path("events/a.csv"), 9);
    assert_eq!(place.again("events").await.unwrap(), [1, 2, 3, 4], "it is back as it was");
    assert_eq!(read(&mut source, 0).await.unwrap().0, [1, 2, 3, 4]);
}

/// Sets a file's last change, in seconds from NOW.
fn touch(path: &Path, seconds: i64) {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs((NOW / SECOND + seconds) as u64);
    fs::File::options().write(true).open(path).unwrap().set_modified(at).unwrap();
}

/// A file with one event.
fn parquet(x: i64) -> Vec<u8> {
    let at = arrow::array::TimestampMicrosecondArray::from(vec![0]);
    let x = arrow::array::Int64Array::from(vec![x]);
    let batch = RecordBatch::try_from_iter([("at", Arc::new(at) as _), ("x", Arc::new(x) as _)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(vec![], batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Without a stream there are no checksums, so its size and its last change tell.
#[tokio::test]
async fn a_file_that_is_only_looked_at_stays_as_it_is_or_is_refused() {
    let place = Place::new();
    place.write("events/a.parquet", parquet(1));
    place.write("events/b.parquet", parquet(2));
    let looking = || FileSource::open("t", place.config("events", Reading::Looking)).unwrap();
    assert_eq!(read(&mut looking(), 0).await.unwrap(), (vec![1, 2], vec![], 2 << 32));
    assert!(!place.path("state/t.ndjson").exists());
    let mut source = looking();
    place.write("events/b.parquet", parquet(3));
    touch(&place.path("events/b.parquet"), 7);
    let error = said(read(&mut source, 0).await);
    assert!(error.contains("b.parquet") && error.contains("changed"), "{error}");
    assert_eq!(place.again("events").await.unwrap(), [1, 3]);
    // A stream that comes later writes checksums down.
    assert_eq!(read(&mut place.open("events").unwrap(), 0).await.unwrap().0, [1, 3]);
    touch(&place.path("events/b.parquet"), 9);
    assert_eq!(place.again("events").await.unwrap(), [1, 3]);
}

#[tokio::test]
async fn a_file_of_which_nothing_was_read_may_turn_into_anything() {
    let place = Place::new();
    let whole = parquet(5);
    place.write("events/a.parquet", parquet(1));
    place.write("events/half.parquet", &whole[..whole.len() / 2]);
    place.write("events/no.parquet", "nothing");
    place.write("events/void.csv", "");
    let mut source = place.open("events").unwrap();
    let (xs, reasons, end) = read(&mut source, 0).await.unwrap();
    assert_eq!((xs, reasons.len(), end), (vec![1], 3, 4 << 32), "{reasons:?}");
    assert_eq!(place.again("events").await.unwrap(), [1]);
    place.write("events/half.parquet", whole);
    fs::remove_file(place.path("events/no.parquet")).unwrap();
    place.csv("events/void.csv", &[6]);
    let mut source = place.open("events").unwrap();
    assert_eq!(read(&mut source, end).await.unwrap(), (vec![5, 6], vec![], 6 << 32));
    assert_eq!(read(&mut source, 0).await.unwrap(), (vec![1, 5, 6], vec![], 6 << 32));
    assert_eq!(place.again("events").await.unwrap(), [1, 5, 6]);
    // Now that something was read of it, it may not go.
    fs::remove_file(place.path("events/half.parquet")).unwrap();
    assert!(said(source.end_offset(0).await).contains("half.parquet of location"));
}

#[tokio::test]
async fn events_were_ingested_when_their_file_was_numbered_whatever_its_age() {
    let place = Place::new();
    place.csv("events/a.csv", &[1]);
    place.append("events/a.csv", "2026-01-03,2\n");
    touch(&place.path("events/a.csv"), -NOW / SECOND);
    let day = 86_400 * SECOND;
    let open = |reading, clock| {
        let config = FilesConfig { max_future: day, clock, ..place.config("events", reading) };
        FileSource::open("t", config).unwrap()
    };
    let never_streamed = read(&mut open(Reading::Looking, || NOW), 0).await.unwrap().0;
    let mut source = open(Reading::Draining, || NOW);
    let batch = source.read(0, 0, 10).await.unwrap().unwrap();
    assert_eq!(batch.events[INGESTED_AT].as_primitive::<TimestampMicrosecondType>().values(), &[NOW]);
    let reason = &batch.rejects[0].reason;
    assert!(reason.contains("2026-01-03T00:00:00Z, later than its ingestion at 2026-01-01T00:00:00Z"), "{reason}");
    // A year on the instant is the same, and so is what is refused.
    for reading in [Reading::Draining, Reading::Looking] {
        let again = read(&mut open(reading, || NOW + 365 * 86_400 * SECOND), 0).await.unwrap();
        assert_eq!((&again.0, again.1.len()), (&never_streamed, 1));
    }
}

#[tokio::test]
async fn what_lies_between_offsets_is_counted_in_rows() {
    let place = Place::new();
    place.csv("events/a.csv", &[1, 2, 3]);
    place.csv("events/b.csv", &[4, 5]);
    let mut source = place.open("events").unwrap();
    for (from, to, rows) in [(0, 2 << 32, 5), (1, 2 << 32, 4), (1 << 32, 2 << 32, 2), (2, (1 << 32) + 1, 2), (7, 7, 0)]
    {
        assert_eq!(source.between(0, from, to).await.unwrap(), rows, "{from} to {to}");
    }
    assert_eq!(source.between(0, (1 << 32) + 2, 2 << 32).await.unwrap(), 1, "the file's end is still to be reached");
}

#[test]
fn a_damaged_manifest_is_refused() {
    let place = Place::new();
    place.csv("events/a.csv", &[1]);
    place.write("state/t.ndjson", "{}\n");
    let error = said(place.open("events"));
    assert!(error.contains("t.ndjson is damaged") && error.contains("restore it"), "{error}");
    assert_eq!(Kind::default(), Kind::Events);
}
