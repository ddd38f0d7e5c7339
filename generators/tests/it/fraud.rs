//! The hidden pattern: raw columns can't tell fraud, simple window features can.

use std::collections::{HashMap, HashSet};

use tidemark_generators::{Click, Config, Record, Transaction, World};

use crate::auc::{auc, logistic, target_encoded};
use crate::{DAY, HOUR, START};

const MINUTE: i64 = HOUR / 60;

/// Twenty days in the order of event time, each record once.
fn history(seed: u64) -> (Vec<Transaction>, Vec<Click>) {
    let world = World::new(Config { seed, ..Config::default() }).unwrap();
    let (mut transactions, mut clicks) = (Vec::new(), Vec::new());
    for event in world.events(START, START + 20 * DAY).filter(|event| !event.duplicate) {
        match event.record {
            Record::Transaction(row) => transactions.push(row),
            Record::Click(row) => clicks.push(row),
        }
    }
    transactions.sort_by_key(|row| row.event_time);
    clicks.sort_by_key(|row| row.event_time);
    (transactions, clicks)
}

/// Every column of the record, as numbers and as the label's share of each value.
fn raw_columns(rows: &[Transaction], labels: &[bool], train: usize) -> Vec<(&'static str, Vec<f64>)> {
    let number = |of: fn(&Transaction) -> f64| rows.iter().map(of).collect::<Vec<f64>>();
    let text = |of: fn(&Transaction) -> String| target_encoded(&rows.iter().map(of).collect::<Vec<_>>(), labels, train);
    vec![
        ("user_id", number(|row| row.user_id as f64)),
        ("user_id, encoded", text(|row| row.user_id.to_string())),
        ("card_id", number(|row| row.card_id as f64)),
        ("card_id, encoded", text(|row| row.card_id.to_string())),
        ("merchant_id", number(|row| row.merchant_id as f64)),
        ("merchant_id, encoded", text(|row| row.merchant_id.to_string())),
        ("amount", number(|row| row.amount)),
        ("log amount", number(|row| row.amount.ln())),
        ("amount, binned", text(|row| format!("{:.1}", row.amount.ln()))),
        ("currency", text(|row| row.currency.to_owned())),
        ("country", text(|row| row.country.to_owned())),
        ("channel", text(|row| row.channel.to_owned())),
        ("status", text(|row| row.status.to_owned())),
        ("device_id", text(|row| row.device_id.clone().unwrap_or_default())),
        ("ip_country", text(|row| row.ip_country.unwrap_or_default().to_owned())),
        ("hour", text(|row| (row.event_time.rem_euclid(DAY) / HOUR).to_string())),
        ("day of the week", text(|row| (row.event_time.div_euclid(DAY) % 7).to_string())),
        ("time", number(|row| row.event_time as f64)),
        ("channel and merchant's country", text(|row| format!("{} {}", row.channel, row.country))),
        ("countries of device and merchant", text(|row| format!("{:?} {}", row.ip_country, row.country))),
        ("last digit of the id", text(|row| row.transaction_id.chars().last().unwrap().to_string())),
    ]
}

/// Window features of each transaction's card and user, over what happened before it.
fn window_columns(rows: &[Transaction], clicks: &[Click]) -> Vec<(&'static str, Vec<f64>)> {
    let mut by_card: HashMap<i64, Vec<&Transaction>> = HashMap::new();
    let mut by_user: HashMap<i64, Vec<&Click>> = HashMap::new();
    let mut coming = clicks.iter().peekable();
    let mut columns: [Vec<f64>; 6] = Default::default();
    for row in rows {
        while let Some(click) = coming.next_if(|click| click.event_time < row.event_time) {
            by_user.entry(click.user_id).or_default().push(click);
        }
        let past = by_card.entry(row.card_id).or_default();
        let within = |span: i64| past.iter().rev().take_while(move |other| other.event_time >= row.event_time - span);
        let recent = by_user.get(&row.user_id).map_or(0, |clicks| {
            clicks.iter().rev().take_while(|click| click.event_time >= row.event_time - 10 * MINUTE).count()
        });
        let week: Vec<f64> = within(7 * DAY).map(|other| other.amount).collect();
        let average = week.iter().sum::<f64>() / week.len().max(1) as f64;
        let values = [
            within(10 * MINUTE).count() as f64,
            within(HOUR).count() as f64,
            within(HOUR).map(|other| other.merchant_id).collect::<HashSet<_>>().len() as f64,
            recent as f64,
            if week.is_empty() { 0.0 } else { (row.amount / average).ln().abs() },
            f64::from(u8::from(!within(7 * DAY).any(|other| other.merchant_id == row.merchant_id))),
        ];
        for (column, value) in columns.iter_mut().zip(values) {
            column.push(value);
        }
        past.push(row);
    }
    let names = [
        "card's count, 10 minutes",
        "card's count, hour",
        "card's merchants, hour",
        "user's clicks, 10 minutes",
        "amount against average",
        "new merchant",
    ];
    names.into_iter().zip(columns).collect()
}

#[test]
fn windows_learn_what_raw_columns_cannot() {
    for seed in [42, 43] {
        let (rows, clicks) = history(seed);
        let labels: Vec<bool> = rows.iter().map(|row| row.is_fraud).collect();
        let train = rows.len() / 2;
        let tested = |scores: &[f64]| auc(&scores[train..], &labels[train..]);
        // A score that sorts the wrong way round tells as much.
        let strength = |scores: &[f64]| 0.5 + (tested(scores) - 0.5).abs();

        let raw = raw_columns(&rows, &labels, train);
        for (name, column) in &raw {
            let auc = strength(column);
            println!("seed {seed}: {name}: {auc:.3}");
            assert!(auc < 0.6, "seed {seed}: raw column {name} alone reaches {auc:.3}");
        }
        let raw: Vec<Vec<f64>> = raw.into_iter().map(|(_, column)| column).collect();
        let raw_auc = tested(&logistic(&raw, &labels, train));
        println!("seed {seed}: all raw columns: {raw_auc:.3}");
        assert!(raw_auc < 0.62, "seed {seed}: all raw columns together reach {raw_auc:.3}");

        let windows = window_columns(&rows, &clicks);
        for (name, column) in &windows {
            println!("seed {seed}: {name}: {:.3}", strength(column));
        }
        let windows: Vec<Vec<f64>> = windows.into_iter().map(|(_, column)| column).collect();
        let window_auc = tested(&logistic(&windows, &labels, train));
        println!("seed {seed}: all window features: {window_auc:.3}");
        assert!(window_auc > 0.8, "seed {seed}: window features reach only {window_auc:.3}");
    }
}

#[test]
fn a_fraud_is_an_episode_on_one_card_from_foreign_devices() {
    let (rows, _) = history(5);
    let mut devices: HashMap<i64, HashMap<&str, u32>> = HashMap::new();
    for row in rows.iter().filter(|row| !row.is_fraud) {
        if let Some(device) = &row.device_id {
            *devices.entry(row.user_id).or_default().entry(device).or_default() += 1;
        }
    }
    let frauds: Vec<&Transaction> = rows.iter().filter(|row| row.is_fraud).collect();
    let company = |row: &Transaction| {
        frauds.iter().any(|other| {
            other.transaction_id != row.transaction_id
                && other.card_id == row.card_id
                && (other.event_time - row.event_time).abs() <= 10 * MINUTE
        })
    };
    assert!(frauds.len() > 1_000, "{}", frauds.len());
    assert!(frauds.iter().all(|row| company(row)), "every fraudulent transaction has another within ten minutes");
    let online: Vec<_> = frauds.iter().filter_map(|row| Some((row.user_id, row.device_id.as_deref()?))).collect();
    let own =
        online.iter().filter(|(user, device)| devices.get(user).is_some_and(|own| own.contains_key(device))).count();
    assert!(own * 50 < online.len(), "{own} of {} from the victim's own device", online.len());
    let declined = frauds.iter().filter(|row| row.status == "declined").count() as f64 / frauds.len() as f64;
    assert!((0.03..0.12).contains(&declined), "{declined}");
}
