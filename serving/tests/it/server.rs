//! A server on a loopback port over a platform in a folder of its own, and a client.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};
use tidemark_engine::online::conformance::Hooked;
use tidemark_engine::plan::Project;
use tidemark_engine::platform::{Folder, Platform};
use tidemark_serving::{Config, router, serve};
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};

use crate::gate::{Gate, Gated};
use crate::project;

/// 2026-03-01T12:00:00Z: what every test takes for now.
pub const NOW: i64 = 1_772_366_400_000_000;
pub const MINUTE: i64 = 60_000_000;

pub fn config() -> Config {
    Config { clock: || NOW, ..Config::default() }
}

pub struct Server {
    pub address: SocketAddr,
    pub platform: Arc<Platform>,
    pub gate: watch::Sender<Gate>,
    pub runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<std::io::Result<()>>>,
    workers: Option<(watch::Sender<bool>, Vec<Worker>)>,
    folder: Option<tempfile::TempDir>,
}

type Worker = (
    String,
    std::thread::JoinHandle<Result<tidemark_engine::stream::Summary, tidemark_engine::platform::PlatformError>>,
);

pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub allow: Option<String>,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e} in {}", self.text))
    }

    /// The JSON of an answer with this status.
    pub fn expect(&self, status: u16) -> Json {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    /// The members of a problem with this status, checked to be one.
    pub fn problem(&self, status: u16) -> Json {
        assert_eq!((self.status, self.content_type.as_str()), (status, "application/problem+json"), "{}", self.text);
        let json = self.json();
        assert_eq!(json["status"], json!(status));
        assert!(json["type"].as_str().unwrap().starts_with("urn:tidemark:problem:"), "{json}");
        assert!(json["title"].is_string() && json["detail"].is_string(), "{json}");
        json
    }
}

impl Server {
    pub fn start(config: Config) -> Self {
        let folder = tempfile::tempdir().unwrap();
        project::write(folder.path(), project::SQL);
        Self::over(folder, config)
    }

    /// A server with the usual events absorbed.
    pub fn with_events() -> Self {
        let server = Self::start(config());
        server.push(&usual_events());
        server.drain();
        server
    }

    /// Over a folder that has a project in it, and perhaps data.
    pub fn over(folder: tempfile::TempDir, config: Config) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (gate, watched) = watch::channel(Gate::Open);
        let platform = runtime.block_on(open(folder.path(), watched));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let router = router(platform.clone(), config).unwrap();
        let served = runtime.spawn(serve(listener, router, shutdown, Duration::from_secs(2)));
        Self {
            address,
            platform,
            gate,
            runtime,
            stop: Some(stop),
            served: Some(served),
            workers: None,
            folder: Some(folder),
        }
    }

    pub fn drain(&self) {
        self.runtime.block_on(self.platform.drain()).unwrap();
    }

    pub fn start_workers(&mut self) {
        let (stop, stopped) = watch::channel(false);
        let workers = self.platform.start(&stopped);
        self.workers = Some((stop, workers));
    }

    /// Tells the server to stop.
    pub fn stop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
    }

    /// Waits until it has.
    pub fn stopped(&mut self) -> std::io::Result<()> {
        self.runtime.block_on(self.served.take().unwrap()).unwrap()
    }

    /// Ends everything and gives the folder back, for another server over the same data.
    pub fn into_folder(mut self) -> tempfile::TempDir {
        self.end();
        self.folder.take().unwrap()
    }

    fn end(&mut self) {
        let _ = self.gate.send(Gate::Open);
        if let Some((stop, workers)) = self.workers.take() {
            stop.send(true).unwrap();
            for (source, worker) in workers {
                worker.join().unwrap().unwrap_or_else(|e| panic!("{source}: {e}"));
            }
        }
        if self.stop.is_some() {
            self.stop();
        }
        if self.served.is_some() {
            self.stopped().unwrap();
        }
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(agent().get(self.url(path)).call())
    }

    pub fn post(&self, path: &str, body: &Json) -> Answer {
        self.post_as(path, "application/json", body.to_string().as_bytes())
    }

    pub fn post_as(&self, path: &str, content_type: &str, body: &[u8]) -> Answer {
        answer(agent().post(self.url(path)).header("content-type", content_type).send(body))
    }

    pub fn delete(&self, path: &str) -> Answer {
        answer(agent().delete(self.url(path)).call())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn push(&self, events: &[Json]) {
        let answer = self.post("/v1/sources/transactions/events", &json!({ "events": events })).expect(200);
        assert_eq!(answer, json!({"source": "transactions", "accepted": events.len(), "refused": []}));
    }

    /// Asks until the answer is as wanted, for ten seconds at the most.
    pub fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{path} still answers {} {}", answer.status, answer.text);
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}

async fn open(root: &Path, gate: watch::Receiver<Gate>) -> Arc<Platform> {
    let project = Project::load(root, &root.join("features")).await.unwrap_or_else(|e| panic!("{e}"));
    let mut platform = Platform::embedded(Arc::new(project), Folder::new(root.join("data"))).unwrap();
    platform.store = Arc::new(Hooked { store: platform.store.clone(), hook: Gated { gate } });
    Arc::new(platform)
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
    Answer {
        status: response.status().as_u16(),
        content_type: header("content-type").unwrap_or_default(),
        allow: header("allow"),
        text: response.body_mut().read_to_string().unwrap(),
    }
}

/// An event of a user, so many minutes before now.
pub fn event(id: &str, user: i64, amount: f64, minutes_ago: i64) -> Json {
    json!({"transaction_id": id, "user_id": user, "amount": amount, "country": "SE", "event_time": NOW - minutes_ago * MINUTE})
}

/// User 1: three payments, of which one is older than an hour. User 2: one.
pub fn usual_events() -> Vec<Json> {
    vec![event("a", 1, 10.0, 90), event("b", 1, 20.0, 30), event("c", 1, 0.5, 10), event("d", 2, 7.0, 1)]
}
