//! The promise: the value served for (entity, t) and the value that a training set gets for (entity, t) are the same.
//!
//! Draws random feature views over random event streams and asks three engines for values at random instants: the
//! stream with the online store, the point-in-time operator, and plain DataFusion. The first two must agree bit for
//! bit, the third within rounding. Some of the events may be the source's declared [`history`], which the stream doesn't read. Views and services look into a plain table and into one with history ([`rates`]) as well.
//!
//! ```text
//! TIDEMARK_PARITY_CASES=50000 cargo test --workspace --test it parity      a longer run
//! TIDEMARK_PARITY_SEED=17 cargo test --workspace --test it parity          one seed again
//! TIDEMARK_PARITY_SERVICES=400                                                   a longer run through Kafka and Redis
//! TIDEMARK_PARITY_FIRST=100000                                                    other seeds than the usual ones
//! ```

mod check;
mod coverage;
mod engine;
mod events;
mod grammar;
mod history;
mod oracle;
mod rates;
mod retention;
mod services;
mod shrink;
mod source;
mod view;
mod world;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use check::Failure;
use coverage::Coverage;
use datafusion::prelude::SessionContext;
use world::{VIEWS, Way, World};

/// Cases of an ordinary run. With as many or more, every kind of view, frame and status must have been met.
const CASES: u64 = 2000;

/// Cases of an ordinary run through Kafka and Redis.
const SERVICE_CASES: u64 = 64;

#[test]
fn online_offline_and_plain_sql_agree() {
    let (cases, coverage) = run("TIDEMARK_PARITY_CASES", CASES, None);
    if cases >= CASES {
        assert!(coverage.missing().is_empty(), "never met: {:?}", coverage.missing());
        let answered = coverage.of("status PRESENT") + coverage.of("status NOT_FOUND");
        assert!(answered > 3 * coverage.of("status OUTSIDE_RETENTION"), "too few instants within retention");
    }
}

/// The same through a real Kafka, schema registry and Redis, one server and a cluster.
#[test]
fn they_agree_through_kafka_and_redis() {
    run("TIDEMARK_PARITY_SERVICES", SERVICE_CASES, Some(Way::Services));
}

fn run(variable: &str, ordinary: u64, way: Option<Way>) -> (u64, Coverage) {
    let number = |name: &str| {
        std::env::var(name)
            .ok()
            .map(|text| text.parse::<u64>().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
    };
    let (first, worlds) = match number("TIDEMARK_PARITY_SEED") {
        Some(seed) => (seed, 1),
        None => {
            (number("TIDEMARK_PARITY_FIRST").unwrap_or(0), number(variable).unwrap_or(ordinary).div_ceil(VIEWS as u64))
        }
    };
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let total = Mutex::new((Coverage::default(), None::<String>));
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(worlds as usize);
        for _ in 0..threads {
            // An unoptimised DataFusion needs a deep stack.
            let worker = std::thread::Builder::new().stack_size(32 << 20);
            let run = || {
                let (runtime, plain) = environment();
                let mut coverage = Coverage::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + worlds {
                        break;
                    }
                    let world = World::draw(seed, way);
                    if let Err(failure) = attempt(&runtime, &world, &plain, &mut coverage) {
                        if stop.swap(true, Ordering::Relaxed) {
                            break;
                        }
                        let report = shrink::report(&runtime, world, failure, &plain);
                        total.lock().unwrap().1.get_or_insert(report);
                    }
                }
                total.lock().unwrap().0.merge(&coverage);
            };
            worker.spawn_scoped(scope, run).unwrap();
        }
    });
    let (coverage, failure) = total.into_inner().unwrap();
    if let Some(failure) = failure {
        panic!("{failure}");
    }
    println!("{} cases in {:?}\n{}", coverage.of("cases"), started.elapsed(), coverage.report());
    (worlds * VIEWS as u64, coverage)
}

/// What a thread needs: a runtime, and a DataFusion that knows nothing of Tidemark.
fn environment() -> (tokio::runtime::Runtime, SessionContext) {
    (tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(), oracle::context())
}

/// Runs a world; a panic is a failure too.
fn attempt(
    runtime: &tokio::runtime::Runtime,
    world: &World,
    plain: &SessionContext,
    coverage: &mut Coverage,
) -> Result<(), Failure> {
    let run = std::panic::AssertUnwindSafe(|| runtime.block_on(check::run(world, plain, coverage)));
    std::panic::catch_unwind(run).unwrap_or_else(|panic| {
        let text =
            panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
        Err(Failure { view: None, message: format!("panic: {}", text.unwrap_or_default()) })
    })
}
