//! A view that is read all the while it fills behind a gap.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::*;
use crate::online::StoreError;
use crate::online::conformance::{Hook, Hooked};

/// A clock that stands still, but for who waits: microseconds since this began.
static TIME: AtomicU64 = AtomicU64::new(0);
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// How often somebody waited.
static PAUSES: AtomicUsize = AtomicUsize::new(0);

fn ticks() -> Instant {
    *BEGAN + Duration::from_micros(TIME.load(Ordering::SeqCst))
}

fn wall() -> i64 {
    START + TIME.load(Ordering::SeqCst) as i64
}

fn pass(time: Duration) {
    TIME.fetch_add(time.as_micros() as u64, Ordering::SeqCst);
}

fn pause(time: Duration) -> BoxFuture<'static, ()> {
    PAUSES.fetch_add(1, Ordering::SeqCst);
    pass(time);
    ready(()).boxed()
}

/// Counts what is written before anybody waited.
#[derive(Debug, Default)]
struct Early(Arc<AtomicUsize>);

#[async_trait]
impl Hook for Early {
    async fn write(&self) -> Result<(), StoreError> {
        if PAUSES.load(Ordering::SeqCst) == 0 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// Lets nobody see progress once it is told to.
#[derive(Debug, Default)]
struct Blind(Arc<AtomicBool>);

#[async_trait]
impl Hook for Blind {
    async fn look(&self) -> Result<(), StoreError> {
        match self.0.load(Ordering::SeqCst) {
            true => Err(StoreError::SessionEnded { at: "here".into() }),
            false => Ok(()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_a_view_has_heard_of_its_horizon_before_it_has_an_event_behind_the_gap() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut house = House::new();
    let store = EmbeddedStore::open(house.path().join("online.redb")).unwrap();
    let run = async |house: &House, project: &Project| {
        let progress = Arc::new(Progress::default());
        house.worker(project, &store, &progress, 20).await.run(Until::End).await.unwrap();
    };
    house.send(200, &mut rng).await;
    let project = house.project("", &SHAPES).await;
    run(&house, &project).await;
    // The others stay behind, and what comes meanwhile goes again.
    let (short, others) = SHAPES.split_at(1);
    let alone = house.project("", short).await;
    house.send(300, &mut rng).await;
    run(&house, &alone).await;
    house.remove(house.now - 72 * HOUR, true).await;
    house.send(20, &mut rng).await;

    // Each looked at another time.
    let mut readers = vec![];
    for _ in 0..8 {
        let reader = Reader::new(Arc::new(store.clone())).at(wall, ticks);
        for shape in others {
            let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS));
            let answer = reader.view(&project.views[shape.name], &[keys], &[START; KEYS as usize]).await.unwrap();
            assert!(!answer.views[0].status.contains(&ReadStatus::OutsideRetention), "{}", shape.name);
        }
        readers.push(reader);
        pass(Duration::from_millis(150));
    }
    // One can't look again.
    let blind = Arc::new(AtomicBool::new(false));
    let hooked = Arc::new(Hooked { store: Arc::new(store.clone()), hook: Blind(blind.clone()) });
    let can_not_look = Reader::new(hooked).at(wall, ticks);
    let days = &project.views["days"];
    let read = async || {
        let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..KEYS));
        can_not_look.view(days, &[keys], &[START; KEYS as usize]).await
    };
    read().await.unwrap();
    blind.store(true, Ordering::SeqCst);
    read().await.unwrap();
    let early = Arc::new(AtomicUsize::new(0));
    let hooked = Arc::new(Hooked { store: Arc::new(store.clone()), hook: Early(early.clone()) });
    let fill = FillConfig { records: 20, pause, ..FillConfig::default() };
    let config = WorkerConfig { fill, ..WorkerConfig::default() };
    let project = house.project("", &SHAPES).await;
    let behind = house.project("", others).await;
    let mut worker = house.worker_with(&behind, hooked, &Arc::new(Progress::default()), config).await;
    worker.run(Until::End).await.unwrap();
    assert!(read().await.is_err(), "it knows nothing of the gap");
    assert_eq!((early.load(Ordering::SeqCst), PAUSES.load(Ordering::SeqCst)), (0, 1));
    let (mut met, horizon) = (Met::default(), house.removed().await.horizon("at"));
    for reader in &readers {
        for shape in others {
            check(&house, &project, shape, (reader, horizon), &mut rng, &mut met, 0).await;
        }
    }
    assert!(met.online > 100 && met.online_refused > 100, "{met:?}");
}
