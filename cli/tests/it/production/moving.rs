//! Several engines that share the partitions.

use rand::RngExt;

use super::harness::{Shop, Topic, batches, caught_up, owned, random, service};
use crate::crash::events;
use crate::support::Up;

const MOVES: usize = 10;

/// Events that an engine has absorbed since it started.
fn absorbed(up: &Up) -> f64 {
    up.metric("tidemark_source_events_total", "")
}

/// Two engines; again and again one that has partitions, and has absorbed events, is killed or stopped and another one
/// joins: each time its partitions move.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_engines() {
    let mut random = random();
    let mut topic = Topic::new("moving").await;
    let shop = Shop::new(&topic, "moving").and_plain();
    let events = events(&mut random);
    let mut engines: Vec<Up> = vec![shop.engine(0), shop.engine(1)];
    let mut left = vec![];
    for (round, share) in events.chunks(events.len().div_ceil(MOVES)).enumerate() {
        for batch in batches(&mut random, share, 100) {
            topic.send(batch).await;
        }
        let mut at_work = vec![];
        engines[0].wait_until("an engine at work", |_| {
            at_work = (0..engines.len()).filter(|i| owned(&engines[*i]) > 0 && absorbed(&engines[*i]) > 0.0).collect();
            !at_work.is_empty()
        });
        let leaves = engines.remove(at_work[random.random_range(0..at_work.len())]);
        left.push(owned(&leaves));
        if random.random_bool(0.7) {
            leaves.kill();
        } else {
            assert_eq!(leaves.stop(), Some(0));
        }
        engines.push(shop.engine(2 + round));
    }
    println!("partitions of those that left: {left:?}");
    assert!(left.len() == MOVES && left.iter().all(|partitions| *partitions > 0), "{left:?}");
    let all = |engines: &[Up]| engines.iter().map(owned).sum::<usize>();
    engines[0].wait_until("that each partition has an owner", |_| all(&engines) == 6);
    for engine in engines {
        engine.wait_until("the end", |up| owned(up) == 0 || caught_up(up));
        assert!(engine.metric("tidemark_source_rebalances_total", "") > 0.0);
        assert_eq!(engine.stop(), Some(0));
    }
    shop.equals_a_calm_run(&topic).await;
}

/// A topic keyed by user feeds views keyed by user and by shop: one, two and four engines, each of which does its share of
/// the work, come to the same values.
#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_engines_gives_the_same_values() {
    const PARTITIONS: u32 = 4;
    let mut random = random();
    let events = events(&mut random);
    let mut values = None;
    for count in [1, 2, 4] {
        let mut topic = Topic::at(&service("KAFKA_BROKERS", "kafka"), &format!("engines-{count}"), PARTITIONS).await;
        let shop = Shop::new(&topic, &format!("engines-{count}"));
        let engines: Vec<Up> = (0..count).map(|i| shop.engine(i)).collect();
        let share = PARTITIONS as usize / count;
        engines[0].wait_until("each engine's share", |_| engines.iter().all(|up| owned(up) == share));
        for batch in batches(&mut random, &events, 400) {
            topic.send_keyed(batch, "user_id").await;
        }
        engines[0].wait_until("the end", |_| {
            let events: f64 = engines.iter().map(absorbed).sum();
            events as usize == topic.events() && engines.iter().all(caught_up)
        });
        let each: Vec<f64> = engines.iter().map(absorbed).collect();
        println!("{count} engines absorbed {each:?} events");
        assert!(each.iter().all(|events| *events > 0.0), "an engine had nothing to do: {each:?}");
        let rejected: f64 = engines.iter().map(|up| up.metric("tidemark_source_events_rejected_total", "")).sum();
        assert_eq!(rejected as usize, topic.poisoned());
        for engine in engines {
            engine.wait_until("readiness", |up| up.get("/ready").0 == 200);
            assert_eq!(engine.stop(), Some(0));
        }
        shop.equals_a_calm_run(&topic).await;
        let here = shop.online().await;
        assert!(*values.get_or_insert_with(|| here.clone()) == here, "{count} engines come to other values");
    }
}
