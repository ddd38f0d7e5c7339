//! A training set as a partitioned folder: the rows of the file, wherever its reader comes from, and never half of them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimestampMicrosecondType};
use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};

use crate::support::{PATIENCE, Project, files_below, read, text};

const FEATURES: &str = "
CREATE SOURCE pings WITH (connector = 'files', location = 'pings.parquet', timestamp = 'at');
CREATE FEATURE VIEW seen AS
SELECT device, COUNT(*) OVER ever AS pings, AVG(device) OVER ever AS share FROM pings
WINDOW ever AS (PARTITION BY device ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
CREATE FEATURE SERVICE device_v1 (device BIGINT) AS
SELECT v.pings, v.share FROM request LEFT JOIN seen v ON v.device = request.device;
";

const DAY: i64 = 86_400_000_000;
const COUNTRIES: [&str; 5] = ["US", "DE", "a/b=c", "100%", "ä ö"];

/// Rows in no order of anything: 30 days around 1970, midnights and the last instants before them among them.
fn rows(n: usize) -> RecordBatch {
    let at = |i: usize| {
        let day = (i * 7_919 % 30) as i64 - 12;
        day * DAY + [0, DAY - 1, 40_000_000_000][i % 3]
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("device", Arc::new((0..n).map(|i| (i % 17) as i64).collect::<Int64Array>())),
        ("at", Arc::new(TimestampMicrosecondArray::from_iter_values((0..n).map(at)).with_timezone("UTC"))),
        ("country", Arc::new(StringArray::from_iter_values((0..n).map(|i| COUNTRIES[i * 31 % 5])))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn write(path: &Path, rows: &RecordBatch) {
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), rows.schema(), None).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

fn project(n: usize) -> Project {
    let project = Project::new(&[("features/devices.sql", FEATURES)]);
    write(&project.path("pings.parquet"), &rows(500));
    write(&project.path("labels.parquet"), &rows(n));
    project
}

fn args<'a>(out: &'a str, by: &'a str) -> Vec<&'a str> {
    let set =
        ["training-set", "--spine", "labels.parquet", "--service", "device_v1", "--timestamp", "at", "--out", out];
    let by = if by.is_empty() { vec![] } else { vec!["--partition-by", by] };
    set.into_iter().chain(by).collect()
}

fn refusal(project: &Project, args: &[&str]) -> String {
    let output = project.run(args);
    assert_eq!(output.status.code(), Some(1), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stderr)
}

fn whole(path: &Path) -> RecordBatch {
    let batches = read(path);
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// The rows of a set whose folder has a name.
fn of(set: &RecordBatch, name: &str) -> RecordBatch {
    let times = set["at"].as_primitive::<TimestampMicrosecondType>();
    let date = |row| chrono::DateTime::from_timestamp_micros(times.value(row)).unwrap().format("%Y-%m-%d").to_string();
    let (column, value) = name.split_once('=').unwrap();
    let value = value.replace("%2F", "/").replace("%3D", "=").replace("%25", "%");
    let there = |row| match column {
        "date" => date(row) == value,
        "month" => date(row).starts_with(&value),
        _ => set[column].as_string::<i32>().value(row) == value,
    };
    let rows = filter_record_batch(set, &(0..set.num_rows()).map(|row| Some(there(row))).collect()).unwrap();
    let kept: Vec<usize> = (0..rows.num_columns()).filter(|i| rows.schema().field(*i).name() != column).collect();
    rows.project(&kept).unwrap()
}

#[test]
fn each_file_of_a_folder_has_its_rows_of_the_file_in_their_order() {
    let project = project(3_000);
    project.ok(&args("whole.parquet", ""));
    let set = whole(&project.path("whole.parquet"));
    for (by, folders) in [("day", 30), ("month", 2), ("country", 5)] {
        let said = project.json(&[&["--json"][..], &args(by, by)].concat());
        let files = files_below(&project.path(by), "parquet");
        assert_eq!(files.len(), folders, "{files:?}");
        let mut named = BTreeMap::new();
        for file in &files {
            let name = file.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
            let rows = whole(file);
            assert_eq!(rows, of(&set, &name), "{name}");
            let pairs = SerializedFileReader::new(std::fs::File::open(file).unwrap()).unwrap();
            let pairs = pairs.metadata().file_metadata().key_value_metadata().cloned().unwrap();
            let footer = |key: &str| pairs.iter().find(|pair| pair.key == key).unwrap().value.clone().unwrap();
            assert_eq!(
                (footer("tidemark.rows"), footer("tidemark.service")),
                (rows.num_rows().to_string(), "device_v1".into())
            );
            named.insert(format!("{name}/part-0.parquet"), rows.num_rows() as u64);
        }
        assert_eq!(named.values().sum::<u64>(), 3_000);
        assert_eq!((said["rows"].as_u64(), said["folder"].as_str()), (Some(3_000), Some(by)));
        let listed = said["files"].as_array().unwrap().iter();
        let listed = listed.map(|file| (file["file"].as_str().unwrap().to_owned(), file["rows"].as_u64().unwrap()));
        assert_eq!(listed.collect::<BTreeMap<_, _>>(), named);
    }
    assert!(project.path("country/country=a%2Fb%3Dc/part-0.parquet").exists());
    // A little memory gives the same folder.
    project.ok(&[&args("small", "day")[..], &["--memory-limit", "1MB"]].concat());
    let say = |a: &str, b: &str| text(&project.run(&["training-set", "--diff", a, b]).stdout);
    assert!(say("day", "small").contains("are the same"));
}

#[tokio::test]
async fn a_reader_of_hive_style_folders_sees_the_rows_of_the_file() {
    let project = project(2_000);
    project.ok(&args("whole.parquet", ""));
    project.ok(&args("set", "day"));
    let set = whole(&project.path("whole.parquet"));
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(2));
    let partitions = vec![("date".to_owned(), DataType::Date32)];
    let options = ParquetReadOptions::default().table_partition_cols(partitions);
    session.register_parquet("set", project.path("set").to_str().unwrap(), options).await.unwrap();
    let query = "SELECT count(*), sum(pings), sum(CASE WHEN CAST(at AS DATE) = date THEN 1 ELSE 0 END) FROM set";
    let found = session.sql(query).await.unwrap().collect().await.unwrap();
    let found = concat_batches(&found[0].schema(), &found).unwrap();
    let number = |place: usize| found.column(place).as_primitive::<Int64Type>().value(0);
    let pings = arrow::compute::sum(set["pings"].as_primitive::<Int64Type>()).unwrap();
    assert_eq!((number(0), number(1), number(2)), (2_000, pings, 2_000));
    // One date is one file, and its columns are the file's.
    let day = "SELECT * FROM set WHERE date = '1970-01-03'";
    let day = session.sql(day).await.unwrap().collect().await.unwrap();
    let day = concat_batches(&day[0].schema(), &day).unwrap();
    let expected = of(&set, "date=1970-01-03");
    let columns = expected.schema().fields().iter().map(|field| day[field.name()].len()).collect::<Vec<_>>();
    assert_eq!(columns, vec![expected.num_rows(); expected.num_columns()]);
}

#[test]
fn folders_and_files_are_compared() {
    let project = project(1_000);
    project.ok(&args("whole.parquet", ""));
    for by in ["day", "month", "country"] {
        project.ok(&args(by, by));
    }
    let say = |a: &str, b: &str| {
        let output = project.run(&["training-set", "--diff", a, b]);
        assert!(output.stderr.is_empty(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    for (a, b) in [("whole.parquet", "day"), ("country", "whole.parquet"), ("month", "month")] {
        assert!(say(a, b).contains("are the same"), "{a} {b}: {}", say(a, b));
    }
    assert!(say("day", "month").contains("partitioned: A by day, B by month"), "{}", say("day", "month"));

    // A row of another device, in the middle: in the file and in the folders its own value differs, and its features.
    let mut labels = rows(1_000);
    let device = labels["device"].as_primitive::<Int64Type>();
    let device = (0..1_000).map(|i| if i == 500 { 99 } else { device.value(i) }).collect::<Int64Array>();
    labels.remove_column(0);
    let columns = [
        ("device", Arc::new(device) as ArrayRef),
        ("at", labels["at"].clone()),
        ("country", labels["country"].clone()),
    ];
    write(&project.path("labels.parquet"), &RecordBatch::try_from_iter(columns).unwrap());
    project.ok(&args("other", "country"));
    let said = say("whole.parquet", "other");
    assert!(said.contains("column device: 1 row differs; the first is row 501: A 7, B 99"), "{said}");
    let said = say("other", "whole.parquet");
    assert!(said.contains("column device: 1 row differs; the first is row 501: A 99, B 7"), "{said}");
    assert!(say("country", "other").contains("column device: 1 row differs"), "{}", say("country", "other"));

    // Fewer rows, and rows elsewhere.
    std::fs::remove_dir_all(project.path("other/country=US")).unwrap();
    let said = say("whole.parquet", "other");
    assert!(said.contains("rows: A 1000, B 800"), "{said}");
    std::fs::rename(project.path("country/country=US"), project.path("country/country=UK")).unwrap();
    let said = say("whole.parquet", "country");
    assert!(
        said.contains("rows in country=UK: A 0, B 200") && said.contains("rows in country=US: A 200, B 0"),
        "{said}"
    );

    // A folder of two sets is none.
    std::fs::create_dir_all(project.path("month/month=1980-01")).unwrap();
    std::fs::copy(project.path("whole.parquet"), project.path("month/month=1980-01/part-0.parquet")).unwrap();
    let said = refusal(&project, &["training-set", "--diff", "month", "whole.parquet"]);
    assert!(said.contains("month=1980-01/part-0.parquet") && said.contains("another training set"), "{said}");
}

#[test]
fn what_can_not_be_a_folder_is_said() {
    let project = project(100);
    for (by, wanted) in [
        (
            "contry",
            "no column `contry` to partition it by; expected day, month, or one of device, at, country, pings, share; hint: did you mean `country`?",
        ),
        ("share", "column `share` is Float64, whose values name no folders"),
        ("at", "hint: --partition-by day or month"),
    ] {
        let said = refusal(&project, &args("set", by));
        assert!(said.contains(wanted), "{by}: {said}");
        assert!(!project.path("set").exists() && !project.path(".set.part").exists(), "{by}");
    }
    let csv = [&args("set", "day")[..], &["--format", "csv"]].concat();
    assert!(refusal(&project, &csv).contains("hint: leave out --partition-by, or --format csv"));
    let none = [&args("set", "day")[..], &["--from", "2030-01-01"]].concat();
    assert!(refusal(&project, &none).contains("the set has no rows"));
    assert!(refusal(&project, &args("s3://bucket/set", "day")).contains("it is a URL"));

    // Never in place of what is there.
    project.write("set/notes.txt", "mine");
    assert!(refusal(&project, &args("set", "day")).contains("there is something in it"));
    assert!(refusal(&project, &args("set", "")).contains("it is a folder"));
    std::fs::remove_file(project.path("set/notes.txt")).unwrap();
    project.ok(&args("set", "day"));
    assert!(refusal(&project, &args("set", "day")).contains("there is something in it"));

    // A NULL has no folder, nor has a value beside a column of that name.
    let mut labels = rows(100);
    let country = (0..100).map(|i| (i != 70).then_some("US")).collect::<StringArray>();
    labels.remove_column(2);
    let with = |name, column: StringArray| {
        let columns =
            [("device", labels["device"].clone()), ("at", labels["at"].clone()), (name, Arc::new(column) as ArrayRef)];
        write(
            &project.path("labels.parquet"),
            &RecordBatch::try_from_iter_with_nullable(columns.map(|(n, c)| (n, c, true))).unwrap(),
        );
    };
    with("country", country);
    assert!(refusal(&project, &args("nulls", "country")).contains("column `country` is NULL in a row"));
    with("date", StringArray::from(vec!["x"; 100]));
    assert!(refusal(&project, &args("dates", "day")).contains("give the column another name"));
    assert_eq!(files_below(&project.path("."), "part").len(), 0);
}

#[test]
fn a_killed_run_leaves_no_set_and_the_next_one_makes_it() {
    let project = project(200_000);
    let draft = project.path(".set.part");
    let mut child = project.command().args(args("set", "country")).stdout(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while files_below(&draft, "parquet").is_empty() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no file in time");
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!project.path("set").exists() && draft.exists());
    project.ok(&args("set", "country"));
    assert!(!draft.exists());
    project.ok(&args("whole.parquet", ""));
    assert!(project.ok(&["training-set", "--diff", "set", "whole.parquet"]).contains("are the same"));
}
