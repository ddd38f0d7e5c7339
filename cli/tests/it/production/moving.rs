//! Several engines that share the partitions.

use rand::RngExt;

use super::harness::{Shop, Topic, batches, caught_up, owned, random};
use crate::crash::events;
use crate::support::Up;

const REBALANCES: usize = 10;

/// Two engines; again and again one is killed or stopped and another one joins, so that partitions move.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_between_engines() {
    let mut random = random();
    let mut topic = Topic::new("moving").await;
    let shop = Shop::new(&topic, "moving").and_plain();
    let events = events(&mut random);
    let mut engines: Vec<Up> = vec![shop.engine(0), shop.engine(1)];
    let mut moves = 0;
    for (round, share) in events.chunks(events.len().div_ceil(REBALANCES)).enumerate() {
        for batch in batches(&mut random, share, 100) {
            topic.send(batch).await;
        }
        engines[0].wait_until("partitions somewhere", |_| engines.iter().any(|up| owned(up) > 0));
        let has: Vec<usize> = (0..engines.len()).filter(|i| owned(&engines[*i]) > 0).collect();
        let leaves = engines.remove(has.get(random.random_range(0..has.len().max(1))).copied().unwrap_or(0));
        moves += usize::from(owned(&leaves) > 0);
        if random.random_bool(0.7) {
            leaves.kill();
        } else {
            assert_eq!(leaves.stop(), Some(0));
        }
        engines.push(shop.engine(2 + round));
    }
    assert!(moves >= REBALANCES - 2, "{moves} of those that left had partitions");
    for engine in engines {
        engine.wait_until("the end", |up| owned(up) == 0 || caught_up(up));
        assert_eq!(engine.stop(), Some(0));
    }
    shop.equals_a_calm_run(&topic).await;
}

/// A topic keyed by user feeds views keyed by user and by shop: one, two and four engines come to the same values.
#[tokio::test(flavor = "multi_thread")]
async fn any_number_of_engines_gives_the_same_values() {
    let mut random = random();
    let mut topic = Topic::new("engines").await;
    let events = events(&mut random);
    let (first, second) = events.split_at(events.len() / 3);
    topic.send_keyed(first, "user_id").await;
    let shops = [1, 2, 4].map(|count| (count, Shop::new(&topic, &format!("engines-{count}"))));
    for (count, shop) in &shops {
        let engines: Vec<Up> = (0..*count).map(|i| shop.engine(i)).collect();
        if *count == 1 {
            topic.send_keyed(second, "user_id").await;
        }
        // Four engines, three partitions: one has none.
        let busy = |engines: &[Up]| engines.iter().filter(|up| owned(up) > 0).count() == (*count).min(3);
        let all = |engines: &[Up]| engines.iter().map(owned).sum::<usize>() == 3;
        engines[0].wait_until("each engine's share", |_| busy(&engines) && all(&engines));
        engines[0].wait_until("the end", |_| engines.iter().all(|up| owned(up) == 0 || caught_up(up)));
        for engine in engines {
            engine.wait_until("readiness", |up| up.get("/ready").0 == 200);
            assert_eq!(engine.stop(), Some(0));
        }
    }
    for (_, shop) in &shops {
        shop.equals_a_calm_run(&topic).await;
    }
}
