use std::fs;
use std::path::Path;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, DictionaryArray, Float64Array, Int32Array, Int64Array, LargeStringArray, NullArray,
    RecordBatch, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use parquet::arrow::ArrowWriter;

use super::super::{OFFSET, conformance};
use super::*;

const NEVER: i64 = i64::MAX / 2;
/// 2026-01-01T00:00:00Z
const NOW: i64 = 1_767_225_600_000_000;

fn config(location: &Path) -> FilesConfig {
    FilesConfig {
        location: location.to_string_lossy().into_owned(),
        format: None,
        timestamp: "at".into(),
        max_future: NEVER,
        of: String::new(),
        manifest: None,
        reading: Reading::Draining,
        clock: || NOW,
    }
}

fn open(location: &Path) -> FileSource {
    FileSource::open("t", config(location)).unwrap()
}

fn write_parquet(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = ArrowWriter::try_new(fs::File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn ten(path: &Path, from: i64) {
    let millis = |i| (from + i) * 1000;
    write_parquet(
        path,
        vec![
            ("at", Arc::new((0..10).map(|i| Some(millis(i))).collect::<TimestampMillisecondArray>())),
            ("id", Arc::new((from..from + 10).collect::<Int64Array>())),
            ("name", Arc::new(LargeStringArray::from_iter((0..10).map(|i| (i % 3 > 0).then(|| format!("n{i}")))))),
        ],
    );
}

/// Everything from an offset on: the events, and the rejects as (file, row, reason).
async fn drain(source: &mut FileSource) -> (RecordBatch, Vec<(i64, i64, String)>) {
    let (mut at, mut batches, mut rejects) = (0, Vec::new(), Vec::new());
    while let Some(batch) = source.read(0, at, 100).await.unwrap() {
        at = batch.next_offset;
        batches.push(batch.events);
        rejects.extend(batch.rejects.into_iter().map(|r| (r.offset >> 32, r.offset & 0xFFFF_FFFF, r.reason)));
    }
    assert_eq!(at, source.end_offset(0).await.unwrap());
    (arrow::compute::concat_batches(&source.schema(), &batches).unwrap(), rejects)
}

fn doubles(events: &RecordBatch, column: &str) -> Vec<Option<f64>> {
    events[column].as_primitive::<Float64Type>().iter().collect()
}

#[tokio::test]
async fn parquet_conforms() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..3 {
        ten(&dir.path().join(format!("{i}.parquet")), i * 10);
    }
    fs::write(dir.path().join("3.parquet"), &fs::read(dir.path().join("2.parquet")).unwrap()[..200]).unwrap();
    let mut source = open(&dir.path().join("*.parquet"));
    let add = async || {
        let batch: Vec<(&str, ArrayRef)> = vec![("at", Arc::new(TimestampMillisecondArray::from(vec![5])))];
        write_parquet(&dir.path().join("new.tmp"), batch);
        fs::rename(dir.path().join("new.tmp"), dir.path().join("4.parquet")).map_err(|e| e.to_string())
    };
    conformance::run(&mut source, 30, 1, add).await.unwrap();
}

#[tokio::test]
async fn csv_and_ndjson_conform() {
    let dir = tempfile::tempdir().unwrap();
    let mut csv = "at,id,note\n".to_owned();
    for i in 0..20 {
        csv +=
            &if i % 6 == 5 { format!("never,{i},x\n") } else { format!("2026-01-01T00:00:{i:02}Z,{i},\"a, b\nc\"\n") };
    }
    fs::write(dir.path().join("a.csv"), csv).unwrap();
    let lines: Vec<String> = (0..20)
        .map(|i| match i % 7 {
            3 => "{broken".into(),
            5 => "\n".into(),
            _ => format!(r#"{{"at": "2026-01-01T00:00:{i:02}+01:00", "id": {i}, "extra": {{"x": [1]}}}}"#),
        })
        .collect();
    fs::write(dir.path().join("b.ndjson"), lines.join("\n")).unwrap();
    fs::write(dir.path().join("readme.txt"), "not events").unwrap();
    let mut source = open(dir.path());
    let add = async || {
        fs::write(dir.path().join("c.json"), "{\"at\": \"2026-01-01T00:00:00Z\", \"id\": 9}").map_err(|e| e.to_string())
    };
    let bad_csv = 3;
    let (bad_lines, blank) = (3, 3);
    conformance::run(&mut source, 40 - bad_csv - bad_lines - blank, bad_csv + bad_lines, add).await.unwrap();
}

#[tokio::test]
async fn avro_files_conform() {
    let dir = tempfile::tempdir().unwrap();
    let schema = apache_avro::Schema::parse_str(
        r#"{"type":"record","name":"E","fields":[{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
           {"name":"kind","type":{"type":"enum","name":"K","symbols":["a","b"]}},{"name":"x","type":["null","double"]}]}"#,
    )
    .unwrap();
    let write = |name: &str, rows: i64| {
        let mut writer = apache_avro::Writer::new(&schema, Vec::new()).unwrap();
        for i in 0..rows {
            let mut record = apache_avro::types::Record::new(&schema).unwrap();
            record.put("at", apache_avro::types::Value::TimestampMillis(i));
            record
                .put("kind", apache_avro::types::Value::Enum(i as u32 % 2, if i % 2 == 0 { "a" } else { "b" }.into()));
            record.put("x", (i % 3 > 0).then_some(i as f64));
            writer.append_value(record).unwrap();
        }
        fs::write(dir.path().join(name), writer.into_inner().unwrap()).unwrap();
    };
    write("1.avro", 25);
    let mut source = open(&dir.path().join("*.avro"));
    let (events, _) = drain(&mut source).await;
    let kinds: Vec<&str> = events["kind"].as_string::<i32>().iter().flatten().take(3).collect();
    assert_eq!(kinds, ["a", "b", "a"]);
    assert_eq!(events["at"].as_primitive::<TimestampMicrosecondType>().value(7), 7_000);
    let add = async || {
        write("2.avro", 1);
        Ok(())
    };
    conformance::run(&mut source, 25, 0, add).await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_is_rejected_with_its_reason_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).unwrap();
    // The first file decides the types; in a file of its own `abc` would make the column text.
    file("0.csv", b"at,amount\n2026-01-01T00:00:00Z,0.5\n");
    file("a.csv", b"at,amount\n2026-01-01T00:00:00Z,1.5\n2026-01-01,abc\n2026-01-01T00:00:01,2\n,3\n2026-01-01,4,5\n2026-01-02T00:00:00Z,\n");
    file("b.csv", b"");
    file("c.csv", b"at,amount\n");
    file("d.ndjson", b"{\"at\":\"2026-01-01T00:00:00Z\",\"amount\":2.5}\n[1]\n{\"at\":1767225600,\"amount\":1}\n{\"at\":\"2026-01-01T00:00:00Z\",\"amount\":\"x\"}\n{\"at\":\"2026-01-01T00:00:00Z\",\"amount\":7}");
    file("e.parquet", b"PAR1 and then nothing");
    ten(&dir.path().join("f.parquet"), 0);
    let whole = fs::read(dir.path().join("f.parquet")).unwrap();
    file("f.parquet", &whole[..whole.len() - 9]);
    write_parquet(
        &dir.path().join("g.parquet"),
        vec![("at", Arc::new(Int64Array::from(vec![1]))), ("amount", Arc::new(Float64Array::from(vec![1.0])))],
    );
    write_parquet(
        &dir.path().join("h.parquet"),
        vec![
            ("at", Arc::new(Date32Array::from(vec![Some(0), None]))),
            ("amount", Arc::new(StringArray::from(vec!["8.5", "9"]))),
        ],
    );
    file("i.avro", b"Obj\x01 cut");
    file("j.csv", b"at,amount\n2026-01-01,\xFF\n2026-01-01,11\n");
    let mut source = open(dir.path());
    let (events, rejects) = drain(&mut source).await;
    assert_eq!(
        doubles(&events, "amount"),
        [Some(0.5), Some(1.5), Some(2.0), None, Some(2.5), Some(7.0), Some(8.5), Some(11.0)]
    );
    let expected = [
        (1, 1, "a.csv, row 2: \"amount\" is \"abc\", expected a number"),
        (1, 3, "a.csv, row 4: \"at\" is NULL, expected a timestamp"),
        (1, 4, "a.csv, row 5: line 6: 3 values, expected 2"),
        (2, 0, "b.csv: the file can't be read: the file is empty"),
        (4, 1, "d.ndjson, row 2: not a JSON object"),
        (4, 2, "d.ndjson, row 3: "),
        (4, 3, "d.ndjson, row 4: "),
        (5, 0, "e.parquet: the file can't be read"),
        (6, 0, "f.parquet: the file can't be read"),
        (
            7,
            0,
            "g.parquet: the file can't be read: \"at\" is Int64, expected a timestamp; hint: a number does not say its unit",
        ),
        (8, 1, "h.parquet, row 2: \"at\" is NULL"),
        (9, 0, "i.avro: the file can't be read"),
        (10, 0, "j.csv, row 1: line 2: not UTF-8 text"),
    ];
    assert_eq!(rejects.len(), expected.len(), "{rejects:#?}");
    for (found, expected) in rejects.iter().zip(expected) {
        let same = found.0 == expected.0 && found.1 == expected.1 && found.2.contains(expected.2);
        assert!(same, "found {found:?}\nexpected {expected:?}");
    }
}

#[tokio::test]
async fn who_reads_few_columns_gets_the_same_events_and_rejects() {
    let dir = tempfile::tempdir().unwrap();
    ten(&dir.path().join("0.parquet"), 0);
    // Another type in this file: what doesn't fit is a reject, whoever reads the column.
    let texts = StringArray::from_iter((0..10).map(|i| Some(if i == 4 { "four".to_owned() } else { i.to_string() })));
    let at = (0..10).map(|i| (i != 7).then_some(i)).collect::<TimestampMillisecondArray>();
    let batch: Vec<(&str, ArrayRef)> =
        vec![("at", Arc::new(at)), ("id", Arc::new(texts)), ("name", Arc::new(Int64Array::from(vec![5; 10])))];
    write_parquet(&dir.path().join("1.parquet"), batch);
    let field = |name: &str, data_type: DataType, nullable| Field::new(name, data_type, nullable);
    let utc = DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()));
    let columns =
        vec![field("at", utc, false), field("id", DataType::Int64, false), field("name", DataType::Utf8, true)];
    let columns = Arc::new(Schema::new(columns));
    let mut whole = FileSource::with_columns("t", config(dir.path()), columns.clone()).unwrap();
    let (events, rejects) = drain(&mut whole).await;
    assert_eq!((events.num_rows(), rejects.len()), (18, 2));
    for only in ["at", "id", "name"] {
        let mut pruned =
            FileSource::with_only("t", config(dir.path()), columns.clone(), BTreeSet::from([only.to_owned()])).unwrap();
        let (found, found_rejects) = drain(&mut pruned).await;
        let places = |rejects: &[(i64, i64, String)]| rejects.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>();
        assert_eq!(places(&found_rejects), places(&rejects), "{only}");
        for column in ["at", OFFSET, only] {
            assert_eq!(&found[column], &events[column], "{only}: {column}");
        }
        let nulls = found["id"].null_count();
        assert_eq!(nulls, if only == "id" { 0 } else { 10 }, "{only}: the first file's numbers are not read");
    }
}

#[tokio::test]
async fn a_column_of_type_null_is_null_in_every_row() {
    let dir = tempfile::tempdir().unwrap();
    let at = || -> ArrayRef { Arc::new(TimestampMillisecondArray::from(vec![1000, 2000])) };
    write_parquet(&dir.path().join("a.parquet"), vec![("at", at()), ("x", Arc::new(Int64Array::from(vec![1, 2])))]);
    write_parquet(&dir.path().join("b.parquet"), vec![("at", at()), ("x", Arc::new(NullArray::new(2)))]);
    let (events, rejects) = drain(&mut open(dir.path())).await;
    assert_eq!(rejects, []);
    let x: Vec<Option<i64>> = events["x"].as_primitive::<Int64Type>().iter().collect();
    assert_eq!(x, [Some(1), Some(2), None, None]);
}

#[test]
fn a_null_among_a_dictionarys_values_is_null() {
    let values = Arc::new(StringArray::from(vec![None, Some("7"), Some("seven")]));
    let dictionary = DictionaryArray::<Int32Type>::new(Int32Array::from(vec![0, 1, 2]), values);
    let batch = RecordBatch::try_from_iter([("x", Arc::new(dictionary) as ArrayRef)]).unwrap();
    let columns: SchemaRef = Arc::new(Schema::new(vec![Field::new("x", DataType::Int64, true)]));
    let raw = convert::RawRows { first: 0, rows: 3, batch, numbers: vec![0, 1, 2], rejects: vec![] };
    let chunk = convert::convert(raw, &columns, reader::row_json).unwrap();
    let x: Vec<Option<i64>> = chunk.batch["x"].as_primitive::<Int64Type>().iter().collect();
    assert_eq!((x, chunk.numbers), (vec![None, Some(7)], vec![0, 1]));
    assert_eq!(chunk.rejects.iter().map(|reject| reject.number).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_fraction_is_no_whole_number() {
    let dir = tempfile::tempdir().unwrap();
    let line = |id: &str| format!("{{\"at\": \"2026-01-01\", \"id\": {id}, \"ids\": [1, {id}]}}\n");
    fs::write(dir.path().join("a.ndjson"), line("1")).unwrap();
    // Known by then: a fraction among the first files' numbers makes them all doubles.
    let mut source = open(dir.path());
    fs::write(dir.path().join("b.ndjson"), ["2.7", "2", "1e3", "-3"].map(line).concat()).unwrap();
    let (events, rejects) = drain(&mut source).await;
    assert_eq!(events["id"].as_primitive::<Int64Type>().values(), &[1, 2, -3]);
    let reasons: Vec<&str> = rejects.iter().map(|(_, _, reason)| reason.as_str()).collect();
    assert_eq!(rejects.iter().map(|(file, row, _)| (*file, *row)).collect::<Vec<_>>(), [(1, 0), (1, 2)]);
    assert!(reasons[0].ends_with("b.ndjson, row 1: \"id\" is 2.7, expected a whole number"), "{}", reasons[0]);
}

#[tokio::test]
async fn an_event_far_in_the_future_of_its_file_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.csv"), "at,x\n2020-01-01,1\n2999-01-01,2\n2020-01-01,3\n").unwrap();
    let mut source = FileSource::open("t", FilesConfig { max_future: 86_400_000_000, ..config(dir.path()) }).unwrap();
    let (events, rejects) = drain(&mut source).await;
    assert_eq!((events.num_rows(), rejects.len()), (2, 1));
    let reason = &rejects[0].2;
    assert!(reason.contains("row 2: \"at\" is 2999-01-01T00:00:00Z, later than its ingestion at"), "{reason}");
}

#[test]
fn columns_are_inferred_and_normalised() {
    let dir = tempfile::tempdir().unwrap();
    ten(&dir.path().join("a.parquet"), 0);
    fs::write(dir.path().join("b.csv"), "at,id,more,void\n2026-01-01,1.5,true,\n").unwrap();
    let schema = infer("t", &dir.path().to_string_lossy(), None).unwrap();
    let of = |name: &str| schema.field_with_name(name).unwrap().data_type().clone();
    assert_eq!(of("id"), DataType::Float64);
    assert_eq!((of("name"), of("more"), of("void")), (DataType::Utf8, DataType::Boolean, DataType::Utf8));
    assert!(schema.fields().iter().all(|field| field.is_nullable()));
    let columns = file_columns("t", &schema, "at").unwrap();
    assert_eq!(columns.field(0), &Field::new("at", super::super::normalise::utc_micros(), false));
    let refusal = |schema: &Schema, timestamp: &str| file_columns("t", schema, timestamp).unwrap_err().to_string();
    let error = refusal(&schema, "mor");
    assert!(error.contains("no column \"mor\"") && error.contains("did you mean \"more\"?"), "{error}");
    assert!(refusal(&schema, "id").contains("column \"id\" is Float64; expected a timestamp"));
    let reserved = Schema::new(vec![Field::new("at", DataType::Utf8, true), Field::new(OFFSET, DataType::Int64, true)]);
    assert!(refusal(&reserved, "at").contains("rename it"));
}

#[tokio::test]
async fn a_stated_format_goes_before_a_files_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.csv"), "at,x\n2020-01-01,1\n").unwrap();
    fs::write(dir.path().join("b.txt"), "at,x\n2020-01-02,2\n").unwrap();
    fs::write(dir.path().join("c.ndjson"), "{\"at\": \"2020-01-03\", \"x\": 3}\n").unwrap();
    for (location, format, expected) in [
        ("", None, vec![1, 3]),
        ("", Some(Format::Csv), vec![1]),
        ("", Some(Format::NdJson), vec![3]),
        ("[ab].*", Some(Format::Csv), vec![1, 2]),
        ("b.txt", Some(Format::Csv), vec![2]),
    ] {
        let mut source = FileSource::open("t", FilesConfig { format, ..config(&dir.path().join(location)) }).unwrap();
        let (events, rejects) = drain(&mut source).await;
        let read: Vec<i64> = events["x"].as_primitive::<Int64Type>().values().to_vec();
        assert_eq!((read, rejects), (expected, vec![]), "{location} {format:?}");
    }
}

#[test]
fn a_location_without_events_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let refusal = |location: &str| infer("t", location, None).unwrap_err().to_string();
    let at = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    assert!(refusal(&at("*.csv")).contains("no files match"));
    fs::write(at("x.parquet"), "junk").unwrap();
    assert!(refusal(&at("*.parquet")).contains("x.parquet: "));
    fs::write(at("x.xlsx"), "junk").unwrap();
    assert!(refusal(&at("x.*")).contains("x.xlsx has no known extension; expected .parquet, .csv"));
    assert!(refusal("s3://bucket/x/*.parquet").contains("not on this machine"));
    assert!(refusal(&at("a[.csv")).contains("can't list"));
}
