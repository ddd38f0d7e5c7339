//! Care of the archive: compacted while it is read and written, and verified.

use std::fmt::Write;
use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};

use crate::crash::{self, MINUTE, SPAN, START, USERS, events};
use crate::support::{Project, Up, files_below, parquet, read, shop_project, text};

const SET: [&str; 7] = ["training-set", "--spine", "spine.csv", "--service", "score", "--timestamp", "at"];

/// Rows for every user at several instants.
pub fn spine() -> String {
    let mut spine = String::from("user_id,amount,at\n");
    for user in 0..USERS {
        for at in [START + SPAN / 3, START + SPAN / 2, START + SPAN, START + SPAN + 30 * MINUTE] {
            let at = chrono::DateTime::from_timestamp_micros(at).unwrap().to_rfc3339();
            writeln!(spine, "{user},7.5,{at}").unwrap();
        }
    }
    spine
}

pub fn set(project: &Project, name: &str) -> RecordBatch {
    project.ok(&[&SET[..], &["--out", name]].concat());
    let batches = read(&project.path(name));
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn push(up: &Up, events: &[Json], sent: &mut f64) {
    let (status, answer) = up.post("/v1/sources/payments/events", &json!({ "events": events }));
    assert_eq!(status, 200, "{answer}");
    *sent += events.len() as f64;
    up.wait_until("a commit", |up| up.metric("tidemark_source_committed_offset", "") == *sent);
}

fn archived(project: &Project) -> Vec<PathBuf> {
    files_below(&project.path("data/offline/archive/payments"), "parquet")
}

fn compacted(files: &[PathBuf]) -> usize {
    // <partition>-<first>-<last>.parquet
    files.iter().filter(|file| file.file_name().unwrap().to_str().unwrap().matches('-').count() == 2).count()
}

#[test]
fn an_archive_that_is_compacted_is_the_same_archive() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let project = shop_project(2);
    project.write("spine.csv", spine());
    let events = events(&mut random);
    let (early, late) = events.split_at(events.len() - 200);
    let (mut sent, up) = (0.0, project.up(&["--commit-every", "0.01"]));
    for batch in early.chunks(100) {
        push(&up, batch, &mut sent);
    }
    let (before, places) = (set(&project, "before.parquet"), crash::archive(&project, "payments"));
    let small = archived(&project).len();
    assert!(small > 40, "{small} files");
    assert!(before.num_rows() > 100);

    // Compactions, two at once and some of them killed, while the stream goes on with what no row of the spine sees.
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for seed in 0..2 {
            let (project, done) = (&project, &done);
            scope.spawn(move || {
                let mut random = ChaCha8Rng::seed_from_u64(seed);
                while !done.load(Ordering::SeqCst) {
                    let mut compaction =
                        project.command().arg("compact").stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
                    if random.random_bool(0.5) {
                        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
                        let _ = compaction.kill();
                        compaction.wait().unwrap();
                    } else {
                        assert!(compaction.wait().unwrap().success());
                    }
                }
            });
        }
        for (i, batch) in late.chunks(40).enumerate() {
            let after: Vec<Json> = batch
                .iter()
                .map(|event| {
                    let mut event = event.clone();
                    event["at"] = json!(START + SPAN + 40 * MINUTE);
                    event["id"] = json!(format!("late {i} {}", event["id"]));
                    event
                })
                .collect();
            push(&up, &after, &mut sent);
            assert_eq!(set(&project, "during.parquet"), before, "while it is compacted");
        }
        done.store(true, Ordering::SeqCst);
    });
    assert_eq!(up.stop(), Some(0));
    project.ok(&["compact"]);
    let files = archived(&project);
    assert!(compacted(&files) >= 2 && files.len() >= small, "{files:?}");
    assert_eq!(set(&project, "after.parquet"), before);
    let said = project.ok(&["archive", "verify"]);
    assert!(said.contains("payments: complete") && said.contains("more, compacted since"), "{said}");

    // An hour later what is covered goes.
    let hour_ago = SystemTime::now() - Duration::from_secs(3601);
    for file in &files {
        File::options().append(true).open(file).unwrap().set_modified(hour_ago).unwrap();
    }
    let said = project.ok(&["compact"]);
    assert!(!said.contains(" 0 removed"), "{said}");
    let files = archived(&project);
    assert!(files.len() <= 6 && compacted(&files) >= 2, "{files:?}");
    assert_eq!(set(&project, "after.parquet"), before);
    let now = crash::archive(&project, "payments");
    assert_eq!(now.0.len(), places.0.len() + late.len());
    assert!(places.0.iter().all(|place| now.0.binary_search(place).is_ok()));
    let said = project.ok(&["archive", "verify", "--source", "payments"]);
    assert!(said.contains("payments: complete") && !said.contains("compacted since"), "{said}");

    // A view that is new fills from the compacted archive, and reads what a training set reads.
    project.write(
        "features/new.sql",
        "CREATE FEATURE VIEW fresh AS SELECT user_id, COUNT(*) OVER ever AS payments, SUM(amount) OVER ever AS spend, \
         LAST_VALUE(shop) OVER ever AS last_shop FROM payments WINDOW ever AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN \
         UNBOUNDED PRECEDING AND CURRENT ROW);\n\
         CREATE FEATURE SERVICE fresh_v1 (user_id BIGINT) AS SELECT f.payments, f.spend, f.last_shop FROM request LEFT JOIN fresh f \
         ON f.user_id = request.user_id;",
    );
    let fresh =
        ["training-set", "--spine", "spine.csv", "--service", "fresh_v1", "--timestamp", "at", "--out", "f.parquet"];
    project.ok(&fresh);
    let rows = read(&project.path("f.parquet"));
    let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
    let up = project.up(&[]);
    up.wait_until_ready();
    let at = START + SPAN + 30 * MINUTE;
    let request = json!({"rows": (0..USERS).map(|user| json!({"user_id": user})).collect::<Vec<_>>(), "as_of": at});
    let (status, answer) = up.post("/v1/services/fresh_v1", &request);
    assert_eq!(status, 200, "{answer}");
    let counts = rows["payments"].as_any().downcast_ref::<arrow::array::Int64Array>().unwrap();
    let spends = rows["spend"].as_any().downcast_ref::<arrow::array::Float64Array>().unwrap();
    for user in 0..USERS as usize {
        let (row, online) = (user * 4 + 3, &answer["rows"][user]);
        assert_eq!(online["payments"], json!(counts.value(row)), "user {user}");
        let spend = arrow::array::Array::is_valid(spends, row).then(|| spends.value(row));
        assert_eq!(online["spend"], json!(spend), "user {user}");
    }
}

#[test]
fn verify_names_what_is_wrong() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let project = shop_project(1);
    let up = project.up(&["--commit-every", "0.01"]);
    let mut sent = 0.0;
    for batch in events(&mut random)[..300].chunks(100) {
        push(&up, batch, &mut sent);
    }
    // What is refused is missing from the archive, and no fault.
    let refused = json!({"id": "x", "user_id": 1, "shop": "s", "amount": 1.0, "note": null, "at": i64::MAX / 4});
    up.try_post("/v1/sources/payments/events", &json!({ "events": [refused] }));
    let output = project.run(&["archive", "verify"]);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && said.contains("the event log can't be asked"), "{said}");
    assert_eq!(up.stop(), Some(0));
    let said = project.json(&["archive", "verify", "--json"]);
    assert_eq!(
        (&said["source"], &said["faults"], &said["partitions"][0]["events"]),
        (&json!("payments"), &json!([]), &json!(300))
    );
    let files = archived(&project);
    assert_eq!(
        parquet(&project.path("data/offline/archive/payments")).iter().map(RecordBatch::num_rows).sum::<usize>(),
        300
    );
    let middle = &files[files.len() / 2];
    std::fs::rename(middle, project.path("kept")).unwrap();
    let output = project.run(&["archive", "verify"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("missing before it: neither archived nor refused") && said.contains("payments: 1 fault"),
        "{said}"
    );
    std::fs::rename(project.path("kept"), middle).unwrap();
    project.ok(&["archive", "verify"]);

    let output = project.run(&["archive", "verify", "--source", "nobody"]);
    let said = text(&output.stderr);
    assert!(!output.status.success() && said.contains("no source `nobody`") && said.contains("payments"), "{said}");
    let output = project.run(&["compact", "--grace", "5"]);
    assert!(output.status.code() == Some(2) && text(&output.stderr).contains("a minute at least"));
}
