//! Project folders, runs of the binary, and a running platform with a client.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value as Json;

/// How long a process may take to get somewhere before the test gives up: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A project folder that is gone when the test ends.
pub struct Project {
    folder: tempfile::TempDir,
    environment: Vec<(String, String)>,
}

impl Project {
    /// With these files: (path, text).
    pub fn new(files: &[(&str, &str)]) -> Self {
        let project = Self { folder: tempfile::tempdir().unwrap(), environment: vec![] };
        for (path, text) in files {
            project.write(path, text);
        }
        project
    }

    /// Whatever is run in it has these variables.
    pub fn with_environment(mut self, variables: Vec<(String, String)>) -> Self {
        self.environment.extend(variables);
        self
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Runs `tidemark` in the folder.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command().args(args).output().unwrap()
    }

    /// `tidemark` in the folder.
    pub fn command(&self) -> Command {
        let mut command = command(self.folder.path());
        command.envs(self.environment.iter().cloned());
        command
    }

    /// Runs it, expects it to succeed, and returns what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "tidemark {args:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout)
    }

    /// As [`Project::ok`], for `--json`.
    pub fn json(&self, args: &[&str]) -> Json {
        let printed = self.ok(args);
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("tidemark {args:?}: {e}: {printed}"))
    }

    pub fn up(&self, args: &[&str]) -> Up {
        Up::start(self, args).unwrap_or_else(|log| panic!("tidemark up did not start: {log}"))
    }
}

/// `tidemark`, undisturbed by the environment of whoever runs the tests.
fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.current_dir(folder).stdin(Stdio::null());
    let git = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"];
    let ours =
        ["TIDEMARK_FEATURES", "TIDEMARK_DATA", "TIDEMARK_OFFLINE", "TIDEMARK_LISTEN", "TIDEMARK_PROJECT", "LOG_LEVEL"];
    let services = ["KAFKA_BROKERS", "KAFKA_OPTIONS", "SCHEMA_REGISTRY_URL", "REDIS_URL"];
    for name in ours.iter().chain(&services).chain(&git) {
        command.env_remove(name);
    }
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A child that another thread may kill.
pub type Process = Arc<Mutex<Child>>;

/// A running `tidemark up` on a port of its own; killed when dropped.
pub struct Up {
    child: Process,
    agent: ureq::Agent,
    url: String,
    log: PathBuf,
}

/// An answer: its status and its body.
pub type Answer = (u16, Json);

impl Up {
    /// Starts it; an error is what it logged before it ended.
    pub fn start(project: &Project, args: &[&str]) -> Result<Self, String> {
        Self::spawn(project, args, |_| ())
    }

    /// As [`Up::start`]; `spawned` gets the process before it listens, and may kill it.
    pub fn spawn(project: &Project, args: &[&str], spawned: impl FnOnce(Process)) -> Result<Self, String> {
        let mut up = project.command();
        up.args(["--json", "up", "--listen", "127.0.0.1:0"]).args(args);
        Self::of(up, project.path("up.log"), spawned)
    }

    /// A process that says in one line of JSON where it listens.
    pub fn of(mut command: Command, log: PathBuf, spawned: impl FnOnce(Process)) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let child = Arc::new(Mutex::new(child));
        spawned(child.clone());
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let url = serde_json::from_str::<Json>(&line).ok().and_then(|said| Some(said.get("url")?.as_str()?.to_owned()));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .build()
            .new_agent();
        let Some(url) = url else {
            kill(&child);
            return Err(fs::read_to_string(&log).unwrap());
        };
        Ok(Self { child, agent, url, log })
    }

    pub fn process(&self) -> Process {
        self.child.clone()
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn get(&self, path: &str) -> Answer {
        let mut response = self.agent.get(format!("{}{path}", self.url)).call().unwrap();
        (
            response.status().as_u16(),
            serde_json::from_str(&response.body_mut().read_to_string().unwrap()).unwrap_or_default(),
        )
    }

    pub fn metrics(&self) -> String {
        self.agent.get(format!("{}/metrics", self.url)).call().unwrap().body_mut().read_to_string().unwrap()
    }

    /// The sum of a metric's samples whose labels contain `labels`.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let text = self.metrics();
        let samples =
            text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
        samples
            .filter(|line| line.contains(labels))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// None if the platform did not answer.
    pub fn try_post(&self, path: &str, body: &Json) -> Option<Answer> {
        let request = self.agent.post(format!("{}{path}", self.url)).content_type("application/json");
        let mut response = request.send(body.to_string()).ok()?;
        let status = response.status().as_u16();
        Some((status, serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()?))
    }

    pub fn post(&self, path: &str, body: &Json) -> Answer {
        self.try_post(path, body).unwrap_or_else(|| panic!("no answer: {}", self.logged()))
    }

    pub fn wait_until(&self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "{what} did not come about; log: {}", self.logged());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_until_ready(&self) {
        self.wait_until("readiness", |up| up.get("/ready").0 == 200);
    }

    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// SIGKILL: it gets no chance to finish anything.
    pub fn kill(&self) {
        kill(&self.child);
    }

    /// SIGTERM, and the exit code.
    #[cfg(unix)]
    pub fn stop(self) -> Option<i32> {
        self.signal("TERM");
        let mut child = self.child.lock().unwrap();
        child.wait().unwrap().code()
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: &str) {
        let id = self.child.lock().unwrap().id();
        Command::new("sh").arg("-c").arg(format!("kill -{signal} {id}")).status().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn kill(child: &Process) {
    let mut child = child.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = child.kill();
    let _ = child.wait();
}

/// All rows of the Parquet files below a folder, a batch a stretch.
pub fn parquet(folder: &Path) -> Vec<RecordBatch> {
    files_below(folder, "parquet").iter().flat_map(|path| read(path)).collect()
}

pub fn read(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

/// Files with an extension, in the order of their paths.
pub fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Every dead letter of a source.
pub fn dead_letters(project: &Project, source: &str) -> Vec<Json> {
    let files = files_below(&project.path("data/offline/dead-letters").join(source), "ndjson");
    let lines =
        files.iter().flat_map(|path| fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>());
    lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
}

/// The definitions of a small shop: payments by user, in exact, tiled, counted and unbounded frames.
pub fn shop(partitions: u32) -> Vec<(&'static str, String)> {
    let source = format!(
        "CREATE SOURCE payments WITH (schema = 'payments.v1', timestamp = 'at', event_id = 'id', partitions = {partitions});\n"
    );
    let views = "
CREATE FEATURE VIEW user_spend AS
SELECT user_id,
  COUNT(*) OVER hour AS payments_1h,
  SUM(amount) OVER hour AS spend_1h,
  AVG(amount) OVER hour AS avg_1h,
  STDDEV(amount) OVER hour AS stddev_1h,
  COUNT(DISTINCT shop) OVER hour AS shops_1h,
  LAST_VALUE(shop) OVER hour AS last_shop
FROM payments
WINDOW hour AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);

CREATE FEATURE VIEW user_last AS
SELECT user_id, SUM(amount) OVER five AS last_5, FIRST_VALUE(shop) OVER five AS fifth_shop
FROM payments
WINDOW five AS (PARTITION BY user_id ORDER BY at ROWS BETWEEN 4 PRECEDING AND CURRENT ROW);

CREATE FEATURE VIEW user_ever AS
SELECT user_id, COUNT(*) OVER ever AS payments, SUM(amount) OVER ever AS spend, MAX(amount) OVER ever AS largest
FROM payments
WINDOW ever AS (PARTITION BY user_id ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);

CREATE FEATURE VIEW shop_tiles WITH (tile = '5 minutes') AS
SELECT shop, COUNT(*) OVER hour AS payments_1h, SUM(amount) OVER hour AS turnover_1h
FROM payments
WINDOW hour AS (PARTITION BY shop ORDER BY at RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW);
";
    let service = "
CREATE FEATURE SERVICE score (user_id BIGINT, amount DOUBLE) AS
SELECT s.payments_1h, s.spend_1h, request.amount / NULLIF(s.avg_1h, 0) AS amount_vs_avg
FROM request LEFT JOIN user_spend s ON s.user_id = request.user_id;
";
    vec![
        ("schemas/payments.v1.avsc", CONTRACT.to_owned()),
        ("features/sources.sql", source),
        ("features/views.sql", views.to_owned()),
        ("features/services.sql", service.to_owned()),
    ]
}

pub fn shop_project(partitions: u32) -> Project {
    let files = shop(partitions);
    Project::new(&files.iter().map(|(path, text)| (*path, text.as_str())).collect::<Vec<_>>())
}

pub const CONTRACT: &str = r#"{"type": "record", "name": "Payment", "fields": [
  {"name": "id", "type": "string"},
  {"name": "user_id", "type": "long"},
  {"name": "shop", "type": "string"},
  {"name": "amount", "type": "double"},
  {"name": "note", "type": ["null", "string"], "default": null},
  {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}}
]}"#;
