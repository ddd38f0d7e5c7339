//! Views over an archive whose oldest events were removed: what is answered is what all events give, and the rest is refused, online and offline.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array};
use futures::FutureExt;
use futures::future::ready;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};

use self::house::{HOUR, House, KEYS, SHAPES, START, Shape, values};
use super::super::{FillConfig, Load, Past, Progress, StreamError, Until, WorkerConfig};
use crate::online::conformance::reopened;
use crate::online::{EmbeddedStore, OnlineStore};
use crate::plan::Project;
use crate::request::{ReadStatus, Reader};

#[path = "horizon_heard_tests.rs"]
mod heard;
#[path = "horizon_house_tests.rs"]
mod house;

/// What was met.
#[derive(Debug, Default)]
struct Met {
    online: usize,
    online_refused: usize,
    now_refused: usize,
    absent: usize,
    absent_refused: usize,
    offline: usize,
    offline_refused: usize,
    removed_while_filling: usize,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_what_all_events_give_and_the_rest_is_refused() {
    let mut met = Met::default();
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut house = House::new();
        let path = house.path().join("online.redb");
        let mut store = EmbeddedStore::open(&path).unwrap();
        // One is full before anything goes.
        let (old, new) = SHAPES.split_at(1);
        let before = house.project("", old).await;
        house.send(rng.random_range(150..500), &mut rng).await;
        let mut progress = Arc::new(Progress::default());
        house.worker(&before, &store, &progress, 1000).await.run(Until::End).await.unwrap();
        let kept = |house: &House, rng: &mut StdRng| START + (house.now - START) * rng.random_range(1..10) / 10;
        if rng.random_bool(0.7) {
            house.remove(kept(&house, &mut rng), rng.random_bool(0.7)).await;
        }

        let project = house.project("", &SHAPES).await;
        for _ in 0..rng.random_range(0..4) {
            progress = Arc::new(Progress::default());
            let mut worker = house.worker(&project, &store, &progress, rng.random_range(1..60)).await;
            for _ in 0..rng.random_range(0..6) {
                house.send(rng.random_range(0..20), &mut rng).await;
                worker.step().await.unwrap();
                if rng.random_bool(0.15) {
                    met.removed_while_filling += usize::from(worker.catches_up());
                    house.remove(kept(&house, &mut rng), rng.random_bool(0.7)).await;
                }
            }
            if rng.random_bool(0.3) {
                let load = Load {
                    view: project.views[new[rng.random_range(0..new.len())].name].clone(),
                    store: Arc::new(store.clone()) as Arc<dyn OnlineStore>,
                    past: Past::Archive { storage: house.storage(), contract: house.contract.clone(), history: None },
                    config: FillConfig {
                        records: rng.random_range(1..60),
                        pause: |_| ready(()).boxed(),
                        ..FillConfig::default()
                    },
                    reached: Default::default(),
                };
                load.run(&|_, _| ()).await.unwrap();
            }
            drop(worker);
            if rng.random_bool(0.5) {
                drop(store);
                store = reopened(&path).await;
            }
        }
        progress = Arc::new(Progress::default());
        let mut worker = house.worker(&project, &store, &progress, rng.random_range(1..60)).await;
        worker.run(Until::End).await.unwrap();
        let reader = Reader::new(Arc::new(store.clone()));
        let horizon = house.removed().await.horizon("at");
        for shape in &SHAPES {
            check(&house, &project, shape, (&reader, horizon), &mut rng, &mut met, seed).await;
        }
    }
    println!("{met:?}");
    assert!(met.online > 500 && met.online_refused > 200 && met.now_refused > 0, "{met:?}");
    assert!(met.absent > 20 && met.absent_refused > 20, "{met:?}");
    assert!(met.offline > 500 && met.offline_refused > 200 && met.removed_while_filling > 3, "{met:?}");
}

async fn check(
    house: &House,
    project: &Project,
    shape: &Shape,
    (reader, horizon): (&Reader, Option<i64>),
    rng: &mut StdRng,
    met: &mut Met,
    seed: u64,
) {
    let now = house.now;
    // Anywhere, and at the edges of what is left.
    let edges = horizon.map_or(vec![], |horizon| {
        let from = project.views[shape.name].kernel.reaches_no_further_than(horizon).unwrap();
        vec![from - 1, from, from + 1]
    });
    let anywhere = (0..12).map(|_| START + rng.random_range(0..now - START + 40 * 24 * HOUR));
    let instants: Vec<i64> = anywhere.chain(edges).chain([now]).collect();
    // The last but one was quiet for long, the last one never seen.
    let asked: Vec<(i64, i64)> = instants.iter().flat_map(|at| (0..=KEYS + 1).map(|k| (k, *at))).collect();
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(asked.iter().map(|(k, _)| *k)));
    let ats: Vec<i64> = asked.iter().map(|(_, at)| *at).collect();
    let answer = reader.view(&project.views[shape.name], &[keys], &ats).await.unwrap();
    let needs_gone = |at: i64| horizon.is_some_and(|horizon| shape.covers(at).0 < horizon);
    for (row, (k, at)) in asked.iter().enumerate() {
        let place = format!("seed {seed}, view {}, key {k}, as of {}", shape.name, crate::source::instant(*at));
        let status = answer.views[0].status[row];
        let absent = *k > KEYS;
        match status {
            ReadStatus::OutsideRetention => {
                // The one that was full before has a retention of its own, and no instant at now is outside of it; a sealed tile
                // knows no instant between its events.
                let own = shape.name == "short" && !absent && *at < now;
                let own = own || house.cuts_a_tile(shape, *k, *at);
                assert!(own || (shape.name != "short" && needs_gone(*at)), "{place}: it could be answered");
                met.online_refused += 1;
                met.now_refused += usize::from(*at == now);
                met.absent_refused += usize::from(absent);
            }
            _ => {
                assert_eq!(values(&answer.values, row), house.truth(shape, *k, *at), "{place}");
                met.online += 1;
                met.absent += usize::from(absent);
            }
        }
    }
    let service = &project.services[&format!("s_{}", shape.name)];
    let (refused, answered): (Vec<_>, Vec<_>) = asked.iter().copied().partition(|(_, at)| needs_gone(*at));
    let rows = house.training(project, service, &answered).await.unwrap();
    for (row, (k, at)) in answered.iter().enumerate() {
        assert_eq!(values(&rows, row), house.truth(shape, *k, *at), "seed {seed}, {}, {k} at {at}", shape.name);
        met.offline += 1;
    }
    if let Some(worst) = refused.get(rng.random_range(0..refused.len().max(1))) {
        let mut rows = answered.clone();
        let place = rng.random_range(0..=rows.len());
        rows.insert(place, *worst);
        let error = house.training(project, service, &rows).await.unwrap_err();
        let expected =
            format!("row {} of the spine, as of {}, view {}: ", place + 1, crate::source::instant(worst.1), shape.name);
        assert!(error.contains(&expected) && error.contains("removed from its archive by retention"), "{error}");
        met.offline_refused += refused.len();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_that_needs_all_events_is_refused_once_some_are_gone() {
    const EVER: &str = "CREATE FEATURE VIEW ever AS SELECT k, COUNT(*) OVER w AS n FROM e
        WINDOW w AS (PARTITION BY k ORDER BY at RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW);
        CREATE FEATURE VIEW latest AS SELECT k, SUM(x) OVER w AS n FROM e
        WINDOW w AS (PARTITION BY k ORDER BY at ROWS BETWEEN 2 PRECEDING AND CURRENT ROW);
        CREATE FEATURE SERVICE s_ever (k BIGINT) AS SELECT v.n FROM request LEFT JOIN ever v ON v.k = request.k;";
    let mut rng = StdRng::seed_from_u64(1);
    let mut house = House::new();
    let store = EmbeddedStore::open(house.path().join("online.redb")).unwrap();
    house.send(300, &mut rng).await;
    let project = house.project("", &SHAPES[..1]).await;
    let progress = Arc::new(Progress::default());
    house.worker(&project, &store, &progress, 1000).await.run(Until::End).await.unwrap();
    house.remove((START + house.now) / 2, true).await;
    let project = house.project(EVER, &SHAPES[..1]).await;
    let error = house.worker(&project, &store, &progress, 1000).await.run(Until::End).await.unwrap_err();
    let StreamError::Removed { view, why } = &error else { panic!("{error}") };
    assert!(["ever", "latest"].contains(&view.as_str()) && why.contains("needs all events"), "{error}");
    assert!(!progress.filled(&project.views["ever"].id()) && !progress.filled(&project.views["latest"].id()));
    let error = house.training(&project, &project.services["s_ever"], &[(1, house.now)]).await.unwrap_err();
    assert!(error.contains("view ever: it needs all events there ever were"), "{error}");
}
