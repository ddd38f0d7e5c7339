//! The offline root in an object store: a real S3 API on loopback, on good days and on bad ones.

use std::path::Path;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use tidemark_engine::offline::Storage;

use crate::archive::{set, spine};
use crate::crash::{self, PLAIN_VIEWS, events};
use crate::production::harness::{service, unique};
use crate::retention;
use crate::support::{Project, Up, files_below, shop_project};

mod proxy;

use proxy::{FAULTS, Fault, Proxy};

/// What a process needs to know of an S3 API at an endpoint.
fn options(endpoint: &str) -> Vec<(String, String)> {
    let options = [
        ("AWS_ENDPOINT", endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
        // An answer that doesn't come is missed soon.
        ("AWS_TIMEOUT", "1 second"),
    ];
    options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn endpoint() -> String {
    service("S3_ENDPOINT", "s3")
}

/// A place that no other test has.
fn location(name: &str) -> String {
    format!("s3://tidemark/{}", unique(name))
}

/// The project, with its offline root in a store behind an endpoint.
fn remote(project: Project, endpoint: &str, location: &str) -> Project {
    project.write("tidemark.toml", format!("offline = '{location}'\n"));
    project.with_environment(options(endpoint))
}

/// Brings what a store has under a location to a project's folder, where tests look for it.
fn download(location: &str, project: &Project) -> usize {
    let storage = Storage::open_with(location, options(&endpoint())).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (root, mut files) = (storage.path(&[]), 0);
        for extension in ["parquet", "ndjson", "json"] {
            for file in storage.list(&root, extension).await.unwrap() {
                let parts: Vec<_> = file.location.prefix_match(&root).unwrap().collect();
                let path = parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/");
                project.write(&format!("data/offline/{path}"), storage.get(&file.location).await.unwrap());
                files += 1;
            }
        }
        files
    })
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap();
}

/// The project that ships, without data.
fn shipped() -> Project {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let project = Project::new(&[]);
    for (folder, extension) in [("features", "sql"), ("schemas", "avsc")] {
        for file in files_below(&root.join(folder), extension) {
            copy(&file, &project.path(file.strip_prefix(root).unwrap().to_str().unwrap()));
        }
    }
    project
}

/// The project that ships, over generated days: everything that is made of its archive in a store is what is made of it in
/// a folder.
#[test]
fn an_archive_in_s3_gives_what_one_in_a_folder_gives() {
    let here = shipped();
    here.ok(&["generate", "--days", "3", "--to", "log"]);
    let place = location("shipped");
    let there = remote(shipped(), &endpoint(), &place);
    for file in files_below(&here.path("data"), "redb").iter().chain(&files_below(&here.path("data"), "parquet")) {
        copy(file, &there.path(file.strip_prefix(here.path("")).unwrap().to_str().unwrap()));
    }
    for project in [&here, &there] {
        project.ok(&["stream", "--until-end"]);
        project.ok(&["training-set", "fraud_training", "--out", "set.parquet"]);
    }
    assert!(!there.path("data/offline").exists(), "{:?}", files_below(&there.path("data"), "parquet"));
    let (a, b) = (here.path("set.parquet"), there.path("set.parquet"));
    here.ok(&["training-set", "--diff", a.to_str().unwrap(), b.to_str().unwrap()]);

    // The middle one of the days that there are.
    let days = files_below(&here.path("data/offline/archive/transactions"), "parquet");
    let day = days[days.len() / 2].parent().unwrap().file_name().unwrap().to_str().unwrap();
    let day = day.strip_prefix("ingest_date=").unwrap();
    let last = chrono::Utc::now().date_naive() - chrono::Days::new(2);
    let day = day.parse::<chrono::NaiveDate>().unwrap().min(last).to_string();
    let backfill = ["backfill", "--view", "user_spend", "--from", &day, "--to", &day];
    for project in [&here, &there] {
        let said = project.ok(&backfill);
        assert!(said.contains("1 date made, 0 there already"), "{said}");
        let said = project.ok(&backfill);
        assert!(said.contains("0 dates made, 1 there already"), "{said}");
    }
    let fetched = Project::new(&[]);
    assert!(download(&place, &fetched) > 2);
    for folder in ["archive", "snapshots"] {
        let root = |project: &Project| project.path("data/offline").join(folder);
        let files = |project: &Project| {
            let files = files_below(&root(project), "parquet");
            let read = |file: &std::path::PathBuf| {
                (file.strip_prefix(root(project)).unwrap().to_owned(), std::fs::read(file).unwrap())
            };
            files.iter().map(read).collect::<Vec<_>>()
        };
        assert!(files(&here) == files(&fetched), "{folder}: files differ");
        assert!(!files(&here).is_empty());
    }
}

/// A history in a store is what one in a folder is; other bytes there are another version, and what isn't there is an error by name.
#[test]
fn a_history_in_s3_is_what_one_in_a_folder_is() {
    let payments = crate::past::payments(3_000);
    let place = location("past");
    let with = |history: &str| {
        let project = shop_project(2);
        let source = std::fs::read_to_string(project.path("features/sources.sql")).unwrap();
        let source = source.replace("partitions = 2", &format!("partitions = 2, history = '{history}'"));
        project.write("features/sources.sql", source);
        project.write("spine.csv", spine());
        project.with_environment(options(&endpoint()))
    };
    let (here, there) = (with("past/*.parquet"), with(&format!("{place}/past/*.parquet")));
    crate::past::files(&here.path("past"), &payments[..2_000]);
    let storage = Storage::open_with(&place, options(&endpoint())).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let upload = |name: &str, bytes: Vec<u8>| {
        runtime.block_on(storage.put(&storage.path(&["past", name]), bytes.into())).unwrap();
    };
    let missing = there.run(&["stream", "--until-end"]);
    let said = crate::support::text(&missing.stderr);
    assert!(
        !missing.status.success() && said.contains("no file there") && said.contains("features/sources.sql:1:"),
        "{said}"
    );
    there.ok(&["check"]);
    for file in files_below(&here.path("past"), "parquet") {
        upload(file.file_name().unwrap().to_str().unwrap(), std::fs::read(&file).unwrap());
    }
    upload("notes.txt", b"no Parquet".to_vec());
    for project in [&here, &there] {
        let up = project.up(&["--commit-every", "0.2"]);
        let (status, answer) = up.post("/v1/sources/payments/events", &json!({ "events": &payments[2_000..] }));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(up.stop(), Some(0));
        project.ok(&["stream", "--until-end"]);
    }
    assert_eq!(set(&here, "set.parquet"), set(&there, "set.parquet"));
    let values = |project: &Project| {
        let up = project.up(&[]);
        up.wait_until_ready();
        let users: Vec<Json> = (0..crash::USERS).map(|user| json!({ "user_id": user })).collect();
        let body = json!({"keys": users, "as_of": crash::START + crash::SPAN});
        let (status, answer) = up.post("/v1/views/user_ever", &body);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(up.stop(), Some(0));
        answer["rows"].clone()
    };
    let before = values(&here);
    assert_eq!(before, values(&there));
    assert!(before[7]["payments"].as_u64() > Some(50), "{before}");

    // A payment twice as large: of the same name, and other bytes.
    let mut other = payments[..2_000].to_vec();
    other[5]["amount"] = json!(1_000_000.5);
    crate::past::files(&here.path("past"), &other);
    for file in files_below(&here.path("past"), "parquet") {
        upload(file.file_name().unwrap().to_str().unwrap(), std::fs::read(&file).unwrap());
    }
    assert_eq!(set(&here, "set.parquet"), set(&there, "set.parquet"));
    // Filled, or the version before would be served.
    for project in [&here, &there] {
        project.ok(&["stream", "--until-end"]);
    }
    let after = values(&there);
    assert_ne!(before, after);
    assert_eq!(after, values(&here));
}

fn shop() -> Project {
    let project = shop_project(3);
    let plain = "CREATE SOURCE plain WITH (schema = 'payments.v1', timestamp = 'at', partitions = 2);\n";
    project.write("features/plain.sql", plain.to_owned() + PLAIN_VIEWS);
    project
}

fn push(up: &Up, batch: &[Json]) {
    for source in ["payments", "plain"] {
        let (status, answer) = up.post(&format!("/v1/sources/{source}/events"), &json!({ "events": batch }));
        assert_eq!(status, 200, "{answer}");
    }
}

fn committed(up: &Up) -> f64 {
    up.metric("tidemark_source_committed_offset", "")
}

/// What the stream left in a store, while the store had bad days, is what a run leaves in a folder over the same log: complete,
/// nothing twice, the same values online.
fn equals_a_calm_run(project: &Project, place: &str) {
    let calm = shop();
    copy(&project.path("data/log.redb"), &calm.path("data/log.redb"));
    calm.ok(&["stream", "--until-end"]);
    let fetched = Project::new(&[]);
    download(place, &fetched);
    for source in ["payments", "plain"] {
        let (places, rows) = crash::archive(&fetched, source);
        let mut once = places.clone();
        once.dedup();
        assert_eq!(places.len(), once.len(), "{source}: a row is in the archive twice");
        assert_eq!((places, rows), crash::archive(&calm, source), "{source}");
    }
    let (here, there) = (crash::online(project), crash::online(&calm));
    assert_eq!(here.len(), there.len());
    for (what, expected) in &there {
        assert_eq!(here.get(what), Some(expected), "{what}");
    }
}

#[test]
fn faults_of_the_store_change_nothing() {
    let seed = std::env::var("TIDEMARK_FAULT_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(11);
    println!("reproduce with TIDEMARK_FAULT_SEED={seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (proxy, place) = (Proxy::start(&endpoint()), location("faults"));
    let project = remote(shop(), &proxy.url(), &place);
    let events = events(&mut random);
    let up = project.up(&["--commit-every", "0.1"]);
    up.wait_until_ready();
    proxy.random(random);
    let mut sent = 0.0;
    for batch in events.chunks(100) {
        push(&up, batch);
        sent += 2.0 * batch.len() as f64;
        // Each meets a commit of its own.
        let before = proxy.met().iter().sum::<usize>();
        up.wait_until("a commit, or a fault", |up| committed(up) == sent || proxy.met().iter().sum::<usize>() > before);
    }
    up.wait_until("faults of each kind", |up| committed(up) == sent || proxy.met().iter().all(|met| *met > 0));
    println!("writes that met {FAULTS:?}: {:?}", proxy.met());
    assert!(proxy.met().iter().all(|met| *met > 0), "{:?}", proxy.met());
    proxy.calm();
    up.wait_until("the last commit", |up| committed(up) == sent);
    assert_eq!(up.stop(), Some(0));
    equals_a_calm_run(&project, &place);

    // Compactions on bad days: whatever becomes of them, the archive is the same, and a calm one does what is left.
    project.write("spine.csv", spine());
    let before = set(&project, "before.parquet");
    for seed in 0..2 {
        proxy.random(ChaCha8Rng::seed_from_u64(seed));
        project.run(&["compact"]);
        proxy.calm();
        assert_eq!(set(&project, "after.parquet"), before);
    }
    project.ok(&["compact"]);
    assert_eq!(set(&project, "after.parquet"), before);
    let said = project.ok(&["archive", "verify"]);
    let complete = said.contains("payments: complete") && said.contains("plain: complete");
    assert!(complete && said.contains("compacted since"), "{said}");
}

/// Retention on bad days and on good ones: whatever becomes of a run, what is there is read right, and a calm one does what is left.
#[test]
fn retention_in_s3_is_retention_in_a_folder() {
    let (proxy, place) = (Proxy::start(&endpoint()), location("retention"));
    let project = remote(retention::project(), &proxy.url(), &place);
    retention::stream(&project);
    for seed in 0..3 {
        proxy.random(ChaCha8Rng::seed_from_u64(seed));
        project.run(&["compact", "--before", "2020-01-01"]);
        proxy.calm();
        project.ok(&["archive", "verify"]);
    }
    // One of them may have got through: without its record it is as if none had.
    let storage = Storage::open_with(&place, options(&endpoint())).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for record in storage.list(&storage.path(&["archive", "pings", "_retention"]), "json").await.unwrap() {
            storage.remove(&record.location).await.unwrap();
        }
    });
    retention::forgets_by_name(&project);
}

/// A store that is away, or hangs: the stream says why it waits, serves reads, and goes on by itself.
#[test]
fn a_store_that_is_away_stalls_the_stream_and_says_so() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let (proxy, place) = (Proxy::start(&endpoint()), location("away"));
    let project = remote(shop(), &proxy.url(), &place);
    let up = project.up(&["--commit-every", "0.1"]);
    up.wait_until_ready();
    let events = events(&mut random);
    let mut sent = 0.0;
    for (batch, fault) in
        events.chunks(750).zip([None, Some(Fault::Refused(503)), Some(Fault::NoAnswer), Some(Fault::CutBefore)])
    {
        if let Some(fault) = fault {
            proxy.always(fault);
        }
        push(&up, batch);
        sent += 2.0 * batch.len() as f64;
        if fault.is_none() {
            up.wait_until("the first commit", |up| committed(up) == sent);
            continue;
        }
        up.wait_until("a stall", |up| {
            let (status, answer) = up.get("/ready");
            status == 503 && answer["reasons"].to_string().contains("can't write")
        });
        assert!(up.metric("tidemark_stream_stalled", "cause=\"archive\"") >= 1.0, "{}", up.metrics());
        let (status, _) = up.get("/v1/views/user_spend?user_id=1");
        assert_eq!(status, 200);
        assert!(committed(&up) < sent);
        proxy.calm();
        up.wait_until("the commit", |up| committed(up) == sent);
        up.wait_until_ready();
    }
    assert_eq!(up.stop(), Some(0));
    equals_a_calm_run(&project, &place);
}

/// Wrong credentials, no bucket, no server: said at the start, by name, and soon.
#[test]
fn a_store_that_can_not_be_used_is_an_error() {
    let project = shop();
    project.write("tidemark.toml", "offline = 's3://no-such-bucket-here/x'\n");
    let project = project.with_environment(options(&endpoint()));
    let output = project.run(&["stream", "--until-end"]);
    let said = crate::support::text(&output.stderr);
    assert!(!output.status.success() && said.contains("no-such-bucket-here"), "{said}");

    let project = remote(shop(), "http://127.0.0.1:1", "s3://tidemark/nobody");
    let output = project.run(&["stream", "--until-end"]);
    let said = crate::support::text(&output.stderr);
    assert!(!output.status.success() && said.contains("can't list") && said.contains("127.0.0.1:1"), "{said}");
}
