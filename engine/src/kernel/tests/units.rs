//! What the random tests would not name: edges, counts, and errors.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::functions_aggregate::{count::count_udaf, sum::sum_udaf};

use super::random::{SECOND, field_of};
use crate::kernel::*;

fn seconds(seconds: i64) -> Interval {
    Interval { micros: seconds * SECOND, ..Interval::default() }
}

fn last(start: i64) -> Frame {
    Frame::Range { start: Some(seconds(start)), end: Interval::default() }
}

/// `SUM(x)` over each frame.
fn sums(frames: Vec<Frame>, tile: Option<i64>, lateness: i64, event_id: bool) -> TimelineSpec {
    let aggregates = (0..frames.len()).map(|frame| Aggregate {
        function: Function::Udaf(sum_udaf()),
        args: vec![Argument::Column(0)],
        filter: None,
        distinct: false,
        ignore_nulls: false,
        frame,
        output: field_of(&sum_udaf(), &[DataType::Int64], &format!("sum_{frame}")),
    });
    TimelineSpec {
        columns: vec![Field::new("x", DataType::Int64, true)],
        aggregates: aggregates.collect(),
        frames,
        tile: tile.map(|tile| tile * SECOND),
        lateness: lateness * SECOND,
        ahead: 0,
        event_id: event_id.then(|| Field::new("id", DataType::Utf8, true)),
    }
}

/// Rows of (seconds, x), with ids "a", "b", … if there is one.
fn rows(first_offset: i64, rows: &[(i64, i64)], ids: Option<&[&str]>) -> EventRows {
    EventRows {
        times: rows.iter().map(|(time, _)| time * SECOND).collect::<Vec<_>>().into(),
        partition: 0,
        offsets: (first_offset..first_offset + rows.len() as i64).collect::<Vec<_>>().into(),
        ids: ids.map(|ids| Arc::new(StringArray::from(ids.to_vec())) as ArrayRef),
        columns: vec![Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, x)| *x)))],
    }
}

fn read(kernel: &Kernel, piece: &Piece, second: i64) -> (Vec<Option<i64>>, Status) {
    let evaluation = kernel.evaluate(&kernel.timeline([piece]).unwrap(), &[second * SECOND]).unwrap();
    let value = |column: &ArrayRef| column.as_primitive::<Int64Type>().iter().next().unwrap();
    (evaluation.columns.iter().map(value).collect(), evaluation.status[0])
}

#[test]
fn both_ends_of_a_frame_count() {
    let kernel =
        Kernel::new(sums(vec![last(10), Frame::Range { start: Some(seconds(10)), end: seconds(1) }], None, 0, false))
            .unwrap();
    let mut piece = kernel.empty_piece(0);
    kernel.fold(&mut piece, &rows(0, &[(-5, 1), (5, 10), (5, 100)], None)).unwrap();
    assert_eq!(read(&kernel, &piece, 5), (vec![Some(111), Some(1)], Status::Present));
    assert_eq!(read(&kernel, &piece, 6), (vec![Some(110), Some(110)], Status::Present));
    assert_eq!(read(&kernel, &piece, 15), (vec![Some(110), Some(110)], Status::Present));
    assert_eq!(read(&kernel, &piece, 16), (vec![None, None], Status::Present));
    assert_eq!(read(&kernel, &piece, -6), (vec![None, None], Status::NotFound));
}

/// Whether a row is late depends on what came before it, not on how the rows were cut into batches.
#[test]
fn what_a_batch_itself_leaves_behind_was_not_late() {
    let kernel = Kernel::new(sums(vec![last(10)], None, 5, false)).unwrap();
    let events = [(10, 1), (50, 2), (20, 3), (100, 4)];
    let mut together = kernel.empty_piece(0);
    let counts = kernel.fold(&mut together, &rows(0, &events, None)).unwrap();
    assert_eq!(counts, FoldCounts { folded: 3, late: 1, ..FoldCounts::default() });
    let mut apart = kernel.empty_piece(0);
    let mut total = FoldCounts::default();
    for (offset, event) in events.iter().enumerate() {
        let counts = kernel.fold(&mut apart, &rows(offset as i64, &[*event], None)).unwrap();
        (total.folded, total.late) = (total.folded + counts.folded, total.late + counts.late);
    }
    assert_eq!(total, counts);
}

/// An event that is ahead of the clock takes nothing from reads at now, nor from events of now.
#[test]
fn what_is_ahead_of_now_costs_now_nothing() {
    let rows_frame = Frame::Rows { start: Some(1), end: 0 };
    for (frames, tile) in [(vec![last(10)], None), (vec![last(10)], Some(2)), (vec![rows_frame], None)] {
        let kernel = Kernel::new(TimelineSpec { ahead: 60 * SECOND, ..sums(frames, tile, 0, false) }).unwrap();
        let mut piece = kernel.empty_piece(0);
        kernel.fold(&mut piece, &rows(0, &[(80, 1), (95, 2), (100, 4)], None)).unwrap();
        kernel.fold(&mut piece, &rows(3, &[(160, 8)], None)).unwrap();
        let counts = kernel.fold(&mut piece, &rows(4, &[(98, 16)], None)).unwrap();
        assert_eq!(counts, FoldCounts { folded: 1, ..FoldCounts::default() });
        let expected = if kernel.spec().frames[0] == last(10) { 22 } else { 20 };
        assert_eq!(read(&kernel, &piece, 100), (vec![Some(expected)], Status::Present));
    }
}

#[test]
fn what_is_too_late_is_dropped_and_said() {
    let kernel = Kernel::new(sums(vec![last(10)], None, 5, false)).unwrap();
    let mut piece = kernel.empty_piece(0);
    let counts = kernel.fold(&mut piece, &rows(0, &[(100, 1), (84, 2), (85, 4), (90, 8)], None)).unwrap();
    assert_eq!(counts, FoldCounts { folded: 3, late: 1, ..FoldCounts::default() });
    assert_eq!(read(&kernel, &piece, 100), (vec![Some(9)], Status::Present));
    assert_eq!(read(&kernel, &piece, 95), (vec![Some(12)], Status::Present));
    assert_eq!(read(&kernel, &piece, 94), (vec![None], Status::OutsideRetention));
    assert_eq!(read(&kernel, &piece, 83), (vec![None], Status::NotFound));
    // Absorbed to the last offset; once more changes nothing.
    assert_eq!(piece.absorbed(), Some(3));
    let counts = kernel.fold(&mut piece, &rows(2, &[(85, 4), (90, 8), (95, 16)], None)).unwrap();
    assert_eq!(counts, FoldCounts { folded: 1, skipped: 2, ..FoldCounts::default() });
    assert_eq!(read(&kernel, &piece, 100), (vec![Some(25)], Status::Present));
}

#[test]
fn an_id_counts_once_also_when_its_first_is_long_folded() {
    for tile in [None, Some(10)] {
        let kernel =
            Kernel::new(sums(vec![Frame::Range { start: None, end: Interval::default() }], tile, 0, true)).unwrap();
        let mut piece = kernel.empty_piece(0);
        kernel.fold(&mut piece, &rows(0, &[(0, 1), (0, 2)], Some(&["a", "b"]))).unwrap();
        kernel.fold(&mut piece, &rows(2, &[(1000, 4)], Some(&["a"]))).unwrap();
        let counts = kernel
            .fold(&mut piece, &rows(3, &[(0, 64), (0, 8), (0, 16), (1000, 32)], Some(&["a", "c", "c", "a"])))
            .unwrap();
        assert_eq!(counts, FoldCounts { folded: 1, duplicate: 3, ..FoldCounts::default() });
        assert_eq!(read(&kernel, &piece, 1000), (vec![Some(15)], Status::Present));
        assert_eq!(read(&kernel, &piece, -1), (vec![None], Status::NotFound));
    }
}

#[test]
fn a_hot_key_writes_its_newest_chunk_only() {
    let kernel = Kernel::new(sums(vec![last(100_000)], None, 0, false)).unwrap();
    let mut piece = kernel.empty_piece(0);
    let many: Vec<(i64, i64)> = (0..375).map(|second| (second, 1)).collect();
    kernel.fold(&mut piece, &rows(0, &many, None)).unwrap();
    assert_eq!(kernel.encode_changes(&mut piece).unwrap().chunks.len(), 12);
    kernel.fold(&mut piece, &rows(375, &[(375, 1)], None)).unwrap();
    let delta = kernel.encode_changes(&mut piece).unwrap();
    assert!(delta.chunks.is_empty() && delta.removed.is_empty() && delta.head.len() < 256, "{delta:?}");
    // In the middle: one full chunk becomes two halves.
    kernel.fold(&mut piece, &rows(376, &[(180, 1)], None)).unwrap();
    assert_eq!(kernel.encode_changes(&mut piece).unwrap().chunks.len(), 2);
    assert_eq!(read(&kernel, &piece, 375).0, [Some(377)]);
    // In order, a fold needs nothing but the head.
    let mut piece = kernel.decode_head(0, &kernel.encode_changes(&mut piece).unwrap().head).unwrap();
    assert_eq!(kernel.needs(&piece, &rows(377, &[(10, 1)], None)).len(), 1, "a late one needs its own");
    for second in 376..=378 {
        let next = rows(second + 1, &[(second, 1)], None);
        match kernel.needs(&piece, &next).as_slice() {
            [] => assert!(second < 378),
            [before] => assert!(second == 378 && *before == 11, "a full tail goes into the chunk before: {before}"),
            more => panic!("{more:?}"),
        }
        if second < 378 {
            kernel.fold(&mut piece, &next).unwrap();
            let delta = kernel.encode_changes(&mut piece).unwrap();
            assert!(delta.chunks.is_empty() && delta.removed.is_empty() && delta.head.len() < 256, "{delta:?}");
        }
    }
    // Far ahead: all chunks that were stored go, and the tail, full now, becomes one.
    kernel.fold(&mut piece, &rows(379, &[(1_000_000, 1)], None)).unwrap();
    let delta = kernel.encode_changes(&mut piece).unwrap();
    assert_eq!((delta.chunks.len(), delta.removed.len()), (1, 13));
}

#[test]
fn tiles_round_the_tail_only() {
    let kernel = Kernel::new(sums(vec![last(20)], Some(10), 100, false)).unwrap();
    let mut piece = kernel.empty_piece(0);
    kernel.fold(&mut piece, &rows(0, &[(-11, 1), (-1, 2), (0, 4), (9, 8), (55, 16)], None)).unwrap();
    assert_eq!(piece.rows(), 1);
    // floor(15 - 20) = -10: the event at -11 is in the tile before.
    assert_eq!(read(&kernel, &piece, 15), (vec![Some(14)], Status::Present));
    // This read cuts the sealed tile that holds 0 and 9.
    assert_eq!(read(&kernel, &piece, 5), (vec![None], Status::OutsideRetention));
    assert_eq!(read(&kernel, &piece, -1), (vec![Some(3)], Status::Present));
    assert_eq!(read(&kernel, &piece, 55), (vec![Some(16)], Status::Present));
}

#[test]
fn specs_and_rows_that_can_not_be_are_refused() {
    let error = |spec: TimelineSpec| Kernel::new(spec).unwrap_err().to_string();
    assert!(error(sums(vec![Frame::Rows { start: Some(1), end: 0 }], Some(10), 0, false)).contains("ROWS"));
    assert!(error(sums(vec![last(1)], Some(-1), 0, false)).contains("tile"));
    assert!(error(sums(vec![last(1)], None, -1, false)).contains("lateness"));
    let mut spec = sums(vec![last(1)], Some(10), 0, false);
    spec.aggregates[0].function = Function::NthValue(2);
    assert!(error(spec.clone()).contains("tiled view"));
    spec.aggregates[0].args = vec![Argument::Column(7)];
    assert!(error(spec).contains("column 7"));
    let kernel = Kernel::new(sums(vec![last(1)], None, 0, false)).unwrap();
    let mut bad = rows(0, &[(1, 1), (2, 2)], None);
    bad.offsets = vec![2, 1].into();
    assert!(kernel.fold(&mut kernel.empty_piece(0), &bad).unwrap_err().to_string().contains("ascend"));
    assert!(kernel.fold(&mut kernel.empty_piece(1), &rows(0, &[(1, 1)], None)).is_err());
    let mut bad = rows(0, &[(1, 1)], None);
    bad.columns[0] = Arc::new(StringArray::from(vec!["x"]));
    assert!(kernel.fold(&mut kernel.empty_piece(0), &bad).unwrap_err().to_string().contains("Utf8"));
}

#[test]
fn constants_are_arguments_too() {
    let mut spec = sums(vec![last(10)], Some(10), 0, false);
    spec.aggregates[0].function = Function::Udaf(count_udaf());
    spec.aggregates[0].args = vec![Argument::Constant(datafusion::common::ScalarValue::from(1i64))];
    spec.aggregates[0].output = field_of(&count_udaf(), &[DataType::Int64], "n");
    let kernel = Kernel::new(spec).unwrap();
    let mut piece = kernel.empty_piece(0);
    kernel.fold(&mut piece, &rows(0, &[(0, 1), (1, 2), (100, 1)], None)).unwrap();
    assert_eq!(read(&kernel, &piece, 100).0, [Some(1)]);
}

#[test]
fn an_instant_reaches_as_far_back_as_its_frames_do() {
    use rand::{RngExt, SeedableRng};
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    let (mut before, mut after) = (0, 0);
    for case in 0..20_000 {
        let months = if case % 3 == 0 { random.random_range(0..14) } else { 0 };
        let start =
            Interval { months, days: random.random_range(0..40), micros: random.random_range(1..90_000) * SECOND };
        let end = seconds(random.random_range(0..2) * 600);
        let tile = (case % 2 == 0).then(|| random.random_range(1..90_000));
        let frames = vec![last(random.random_range(1..3_000_000)), Frame::Range { start: Some(start), end }];
        let kernel = Kernel::new(sums(frames.clone(), tile, 0, false)).unwrap();
        let horizon = random.random_range(-4_000_000_000..4_000_000_000) * 1_000;
        let at = horizon + random.random_range(0..500) * 86_400 * SECOND + random.random_range(-2..3);
        let from = kernel.reaches_no_further_than(horizon).unwrap();
        let expected = frames.iter().map(|frame| {
            let Frame::Range { start: Some(start), .. } = frame else { unreachable!() };
            let start = start.before(at);
            tile.map_or(start, |tile| start.div_euclid(tile * SECOND) * tile * SECOND)
        });
        assert_eq!(kernel.since(at), expected.min().unwrap());
        for at in [at, from, from + 1, from + random.random_range(0..90) * 86_400 * SECOND] {
            if at >= from {
                assert!(kernel.since(at) >= horizon, "case {case}");
                after += 1;
            }
        }
        if months == 0 {
            assert!(kernel.since(from - 1) < horizon, "case {case}: it is the first");
            before += 1;
        }
    }
    assert!(before > 1000 && after > 1000);
    let reaches = |frame| {
        let kernel = Kernel::new(sums(vec![last(60), frame], None, 0, false)).unwrap();
        (kernel.since(0), kernel.reaches_no_further_than(0))
    };
    assert_eq!(reaches(Frame::Range { start: None, end: seconds(9) }), (i64::MIN, None));
    assert_eq!(reaches(Frame::Rows { start: Some(3), end: 0 }), (i64::MIN, None));
    // It covers nothing.
    assert_eq!(reaches(Frame::Range { start: Some(seconds(99)), end: seconds(100) }).0, -60 * SECOND);
}
