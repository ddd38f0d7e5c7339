//! Determinism, seams, order, lateness, duplicates, rhythm and skew.

use std::collections::HashMap;

use tidemark_generators::{Config, Event, Record, World};

use crate::{DAY, HOUR, START};

fn world(config: Config) -> World {
    World::new(config).unwrap()
}

fn all(world: &World, from: i64, to: i64) -> Vec<Event> {
    world.events(from, to).collect()
}

fn id(event: &Event) -> &str {
    match &event.record {
        Record::Transaction(transaction) => &transaction.transaction_id,
        Record::Click(click) => &click.click_id,
    }
}

#[test]
fn the_seed_decides_everything() {
    let events = |seed| all(&world(Config { seed, duplicates: 0.05, ..Config::default() }), START, START + DAY);
    let first = events(7);
    assert!(first.len() > 5_000, "{}", first.len());
    assert_eq!(first, events(7));
    assert_ne!(first, events(8));
}

#[test]
fn adjacent_ranges_join_without_a_seam() {
    for start in [START, -2 * DAY - 1, 0] {
        let world = world(Config { seed: 3, duplicates: 0.1, late_share: 0.5, ..Config::default() });
        let whole = all(&world, start, start + DAY);
        // Seams on and off the borders of blocks, and between two events of the same microsecond's neighbourhood.
        let seam = whole[whole.len() / 2].arrival;
        for cuts in [
            vec![start + 6 * HOUR],
            vec![start + 1, start + 7 * HOUR + 123_457],
            vec![seam, seam + 1],
            vec![start, start],
        ] {
            let mut bounds = vec![start];
            bounds.extend(&cuts);
            bounds.push(start + DAY);
            let joined: Vec<Event> = bounds.windows(2).flat_map(|pair| all(&world, pair[0], pair[1])).collect();
            assert!(
                joined == whole,
                "start {start}, cuts {cuts:?}: {} events joined, {} whole",
                joined.len(),
                whole.len()
            );
        }
    }
}

#[test]
fn live_traffic_has_no_end_and_an_empty_range_no_events() {
    let world = world(Config::default());
    let live: Vec<Event> = world.events(START, i64::MAX).take(20_000).collect();
    assert_eq!(live.len(), 20_000);
    let last = live[19_999].arrival;
    let bounded = all(&world, START, last);
    assert_eq!(bounded[..], live[..bounded.len()]);
    assert!(all(&world, START, START).is_empty());
    assert!(all(&world, START, START - DAY).is_empty());
}

#[test]
fn events_arrive_in_order_and_within_bounds() {
    let config = Config { late_share: 0.2, duplicates: 0.05, ..Config::default() };
    let max_delay = config.max_delay;
    let events = all(&world(config), START, START + 3 * DAY);
    assert!(events.is_sorted_by_key(|event| event.arrival));
    assert!(events.iter().all(|event| (START..START + 3 * DAY).contains(&event.arrival)));
    let delays: Vec<i64> =
        events.iter().filter(|event| !event.duplicate).map(|event| event.arrival - event.event_time()).collect();
    assert!(delays.iter().all(|delay| *delay > 0 && *delay <= max_delay));
    let late = delays.iter().filter(|delay| **delay > 2_000_000).count() as f64 / delays.len() as f64;
    assert!((late - 0.2).abs() < 0.01, "late share {late}");
    let hours = delays.iter().filter(|delay| **delay > HOUR).count();
    assert!(hours > delays.len() / 100, "only {hours} of {} came hours late", delays.len());
    assert!(events.iter().filter(|event| event.duplicate).all(|event| event.arrival - event.event_time() <= max_delay));
    assert!(!events.is_sorted_by_key(|event| event.event_time()), "events must also come out of order");
}

#[test]
fn without_lateness_and_duplicates_there_is_none() {
    let events = all(&world(Config { late_share: 0.0, ..Config::default() }), START, START + DAY);
    assert!(events.iter().all(|event| !event.duplicate && event.arrival - event.event_time() <= 2_000_000));
}

#[test]
fn duplicates_repeat_an_earlier_record_unchanged() {
    let events = all(&world(Config { duplicates: 0.03, ..Config::default() }), START, START + 5 * DAY);
    let mut seen: HashMap<&str, &Event> = HashMap::new();
    let (mut repeats, mut orphans) = (0, 0);
    for event in &events {
        match seen.insert(id(event), event) {
            Some(earlier) => {
                assert!(
                    event.duplicate && !earlier.duplicate && event.record == earlier.record,
                    "{event:?} after {earlier:?}"
                );
                repeats += 1;
            }
            // Its first arrival lies before the range.
            None if event.duplicate => orphans += 1,
            None => {}
        }
    }
    let share = f64::from(repeats) / (events.len() - repeats as usize) as f64;
    assert!((share - 0.03).abs() < 0.004, "{share}");
    assert!(orphans < repeats / 20, "{orphans} orphans");
}

#[test]
fn rates_rhythm_and_skew_are_as_configured() {
    let config = Config { transactions_per_day: 3_000.0, clicks_per_day: 5_000.0, ..Config::default() };
    let world = world(config.clone());
    let (mut transactions, mut clicks, mut frauds) = (0.0, 0.0, 0.0);
    let (mut hours, mut days) = ([0u32; 24], [0u32; 7]);
    let (mut users, mut merchants) = (HashMap::<i64, u32>::new(), HashMap::<i64, u32>::new());
    for event in world.events(START, START + 28 * DAY) {
        match event.record {
            Record::Transaction(row) => {
                transactions += 1.0;
                frauds += f64::from(u8::from(row.is_fraud));
                hours[(row.event_time.rem_euclid(DAY) / HOUR) as usize] += 1;
                days[(row.event_time - START).div_euclid(DAY).rem_euclid(7) as usize] += 1;
                *users.entry(row.user_id).or_default() += 1;
                *merchants.entry(row.merchant_id).or_default() += 1;
                assert!((1..=i64::from(config.users)).contains(&row.user_id) && row.amount > 0.0);
            }
            Record::Click(_) => clicks += 1.0,
        }
    }
    let close = |what: &str, value: f64, expected: f64, tolerance: f64| {
        assert!((value / expected - 1.0).abs() < tolerance, "{what}: {value}, expected about {expected}");
    };
    close("transactions a day", transactions / 28.0, 3_000.0, 0.05);
    // The clicks of takeovers come on top.
    close("clicks a day", clicks / 28.0, 5_000.0, 0.08);
    close("fraud share", frauds / transactions, config.fraud_share, 0.15);
    assert!(hours[18] > 5 * hours[3], "evening {} against night {}", hours[18], hours[3]);
    // Day 0 is a Thursday: 1 is Friday, 3 is Sunday.
    assert!(f64::from(days[1]) > 1.3 * f64::from(days[3]), "Friday {} against Sunday {}", days[1], days[3]);
    for (what, counts) in [("users", users), ("merchants", merchants)] {
        let mut counts: Vec<u32> = counts.into_values().collect();
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let tenth = counts[..counts.len() / 10].iter().sum::<u32>() as f64 / transactions;
        assert!((0.25..0.8).contains(&tenth), "the busiest tenth of the {what} has {tenth} of all transactions");
    }
}

#[test]
fn rates_of_one_stream_leave_the_other_alone() {
    let transactions = |clicks_per_day| -> Vec<Record> {
        all(&world(Config { clicks_per_day, fraud_share: 0.0, ..Config::default() }), START, START + DAY)
            .into_iter()
            .map(|event| event.record)
            .filter(|record| matches!(record, Record::Transaction(_)))
            .collect()
    };
    let quiet = transactions(0.0);
    assert!(quiet.len() > 2_000);
    assert!(quiet == transactions(10_000.0));
    let none = world(Config { transactions_per_day: 0.0, clicks_per_day: 0.0, ..Config::default() });
    assert!(all(&none, START, START + DAY).is_empty());
}
