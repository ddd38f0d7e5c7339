//! A walk over many keys against the evaluation of each key's timeline by itself: the same bits.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, UInt32Array};
use arrow::compute::{concat, take};
use arrow::datatypes::{Int32Type, Int64Type};
use rand::RngExt;

use super::cases;
use super::random::{Case, SECOND};
use crate::kernel::*;

const DAY: i64 = 86_400 * SECOND;

#[test]
fn a_walk_equals_the_evaluation_of_each_timeline() {
    let (mut answers, mut slid) = (0, 0);
    for seed in 0..cases(400) {
        let mut case = Case::new(seed);
        if seed % 5 == 0 {
            in_months(&mut case);
        }
        let kernel = Arc::new(Kernel::new(case.spec.clone()).unwrap());
        let keys = case.random.random_range(1..6u32);
        let rows = shuffled(&mut case, keys);
        let whole = clone(&rows);
        let timelines = kernel.timelines(rows, keys as usize).unwrap();
        let walk = kernel.walk(timelines).unwrap();
        // One key more than there is: it has no events.
        let mut questions: Vec<Question> = vec![];
        for key in 0..=keys {
            let instants = case.instants.iter().filter(|_| case.random.random_range(0..4) > 0);
            questions.extend(instants.map(|at| Question { key, at: *at }));
        }
        questions.sort();
        let found = walk.answer(&questions);
        let mut expected: Vec<Vec<ArrayRef>> = vec![vec![]; case.spec.aggregates.len()];
        let mut overflow = false;
        for key in 0..=keys {
            let of: Vec<u32> =
                (0..whole.keys.len() as u32).filter(|row| whole.keys[*row as usize] == key && key < keys).collect();
            let rows = pick(&whole, of);
            let timeline =
                kernel.timeline_from_rows(rows.times, rows.partitions, rows.offsets, rows.ids, rows.columns).unwrap();
            let instants: Vec<i64> = questions.iter().filter(|q| q.key == key).map(|q| q.at).collect();
            slid += usize::from(instants.len() > 1 && timeline.rows() > 1);
            match kernel.evaluate(&timeline, &instants) {
                Ok(evaluation) => expected.iter_mut().zip(evaluation.columns).for_each(|(all, part)| all.push(part)),
                Err(_) => overflow = true,
            }
        }
        assert_eq!(found.is_err(), overflow, "seed {seed}: {:?}", found.as_ref().err());
        let Ok(found) = found else { continue };
        for (aggregate, (found, parts)) in case.spec.aggregates.iter().zip(found.iter().zip(&expected)) {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            let expected = concat(&parts).unwrap();
            assert_eq!(found.to_data(), expected.to_data(), "seed {seed}: {aggregate:?}");
            answers += found.len();
        }
        // A walk may begin anywhere: who shares a key's questions out gets the same answers.
        if let Some(at) = questions.len().checked_sub(1).map(|most| case.random.random_range(0..=most)) {
            let rest = walk.answer(&questions[at..]).unwrap();
            for (whole, rest) in found.iter().zip(&rest) {
                assert_eq!(
                    whole.slice(at, rest.len()).to_data(),
                    rest.slice(0, rest.len()).to_data(),
                    "seed {seed}, from {at}"
                );
            }
        }
    }
    assert!(answers > 10_000 && slid > 500, "{answers} answers, {slid} timelines");
}

/// 28 March 23:00 less a month is later than 31 March 10:00 less a month: the frame begins earlier again.
#[test]
fn a_frame_of_months_may_begin_earlier_later_on() {
    let spec = TimelineSpec {
        columns: vec![],
        frames: vec![Frame::Range {
            start: Some(Interval { months: 1, days: 0, micros: 0 }),
            end: Interval::default(),
        }],
        aggregates: vec![Aggregate {
            function: Function::Udaf(datafusion::functions_aggregate::count::count_udaf()),
            args: vec![],
            filter: None,
            distinct: false,
            ignore_nulls: false,
            frame: 0,
            output: Arc::new(arrow::datatypes::Field::new("n", arrow::datatypes::DataType::Int64, false)),
        }],
        tile: None,
        lateness: 0,
        ahead: 0,
        event_id: None,
    };
    let at = |text: &str| chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros();
    let kernel = Arc::new(Kernel::new(spec).unwrap());
    let rows = KeyedRows {
        keys: vec![0, 0],
        times: vec![at("2025-02-28T12:00:00Z"), at("2025-03-01T00:00:00Z")].into(),
        partitions: vec![0, 0].into(),
        offsets: vec![0, 1].into(),
        ids: None,
        columns: vec![],
    };
    let walk = kernel.walk(kernel.timelines(rows, 1).unwrap()).unwrap();
    let questions = ["2025-03-28T23:00:00Z", "2025-03-31T10:00:00Z"].map(|text| Question { key: 0, at: at(text) });
    let found = walk.answer(&questions).unwrap();
    assert_eq!(found[0].as_primitive::<Int64Type>().values().to_vec(), [1, 2]);
}

/// Stretches a case's frames and times to months: a later instant less a month may be an earlier one.
fn in_months(case: &mut Case) {
    for frame in &mut case.spec.frames {
        if let Frame::Range { start: Some(start), end } = frame {
            start.months = 1;
            end.months = case.random.random_range(0..2);
        }
    }
    let stretch = |time: i64| time.wrapping_mul(DAY / SECOND / 7);
    for rows in &mut case.partitions {
        rows.times = rows.times.values().iter().map(|time| stretch(*time)).collect();
    }
    case.instants.iter_mut().for_each(|at| *at = stretch(*at));
}

/// All events of a case, each some key's or nobody's, in disorder.
fn shuffled(case: &mut Case, keys: u32) -> KeyedRows {
    let blocks: Vec<&EventRows> = case.partitions.iter().rev().collect();
    let all = EventRows::concat(&blocks).unwrap();
    let partitions = blocks.iter().flat_map(|rows| std::iter::repeat_n(rows.partition, rows.len())).collect();
    let of = (0..all.len()).map(|_| case.random.random_range(0..=keys)).collect();
    let rows = KeyedRows {
        keys: of,
        times: all.times.clone(),
        partitions,
        offsets: all.offsets.clone(),
        ids: all.ids.clone(),
        columns: all.columns,
    };
    if case.random.random() {
        return rows;
    }
    let mut order: Vec<u32> = (0..rows.keys.len() as u32).collect();
    rand::seq::SliceRandom::shuffle(&mut order[..], &mut case.random);
    pick(&rows, order)
}

fn clone(rows: &KeyedRows) -> KeyedRows {
    pick(rows, (0..rows.keys.len() as u32).collect())
}

fn pick(rows: &KeyedRows, order: Vec<u32>) -> KeyedRows {
    let keys = order.iter().map(|row| rows.keys[*row as usize]).collect();
    let order = UInt32Array::from(order);
    let pick = |array: &dyn Array| take(array, &order, None).unwrap();
    KeyedRows {
        keys,
        times: Int64Array::clone(pick(&rows.times).as_primitive::<Int64Type>()),
        partitions: Int32Array::clone(pick(&rows.partitions).as_primitive::<Int32Type>()),
        offsets: Int64Array::clone(pick(&rows.offsets).as_primitive::<Int64Type>()),
        ids: rows.ids.as_ref().map(|ids| pick(ids)),
        columns: rows.columns.iter().map(|column| pick(column)).collect(),
    }
}
