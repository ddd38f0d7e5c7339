//! Random specs, events and instants, all from one seed.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::functions_aggregate::*;
use datafusion::logical_expr::AggregateUDF;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::values::column;
use crate::kernel::*;

pub const SECOND: i64 = 1_000_000;
/// The boolean column.
const FLAG: usize = 2;

pub fn columns() -> Vec<Field> {
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    [
        ("amount", DataType::Float64),
        ("quantity", DataType::Int64),
        ("flag", DataType::Boolean),
        ("country", DataType::Utf8),
        ("price", DataType::Decimal128(12, 2)),
        ("seen", utc),
        ("ratio", DataType::Float32),
        ("code", DataType::Utf8View),
        ("bytes", DataType::Binary),
        ("big", DataType::Decimal256(50, 3)),
        ("small", DataType::Decimal32(5, 1)),
        ("day", DataType::Date32),
        ("count", DataType::UInt64),
        ("age", DataType::Duration(TimeUnit::Millisecond)),
        ("wide", DataType::LargeUtf8),
    ]
    .into_iter()
    .map(|(name, data_type)| Field::new(name, data_type, true))
    .collect()
}

/// The aggregates that have typed folds, with the columns that they take.
pub fn typed() -> Vec<(Arc<AggregateUDF>, Vec<usize>)> {
    let every: Vec<usize> = (0..columns().len()).collect();
    let comparable: Vec<usize> = every.clone();
    vec![
        (count::count_udaf(), every.clone()),
        (sum::sum_udaf(), vec![0, 1, 4, 9, 10, 12, 13]),
        (average::avg_udaf(), vec![0, 4, 9, 10, 13]),
        (min_max::min_udaf(), comparable.clone()),
        (min_max::max_udaf(), comparable),
        (variance::var_samp_udaf(), vec![0]),
        (variance::var_pop_udaf(), vec![0]),
        (stddev::stddev_udaf(), vec![0]),
        (stddev::stddev_pop_udaf(), vec![0]),
    ]
}

/// Some that have none.
pub fn generic() -> Vec<(Arc<AggregateUDF>, Vec<Argument>)> {
    use datafusion::common::ScalarValue;
    let column = Argument::Column;
    vec![
        (median::median_udaf(), vec![column(1)]),
        (bool_and_or::bool_or_udaf(), vec![column(FLAG)]),
        (bit_and_or_xor::bit_xor_udaf(), vec![column(1)]),
        (array_agg::array_agg_udaf(), vec![column(3)]),
        (correlation::corr_udaf(), vec![column(0), column(0)]),
        (string_agg::string_agg_udaf(), vec![column(3), Argument::Constant(ScalarValue::from(", "))]),
        (
            approx_percentile_cont::approx_percentile_cont_udaf(),
            vec![column(0), Argument::Constant(ScalarValue::from(0.9f64))],
        ),
    ]
}

pub struct Case {
    pub random: ChaCha8Rng,
    pub spec: TimelineSpec,
    /// All events, a batch per partition, offsets ascending.
    pub partitions: Vec<EventRows>,
    pub instants: Vec<i64>,
}

impl Case {
    pub fn new(seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let draw = &mut random;
        let spec = spec(draw);
        let partitions = draw.random_range(1..4);
        // Cross-partition duplicates are exact only while rows: give each partition ids of its own otherwise.
        let rows_only = spec.tile.is_none()
            && spec
                .frames
                .iter()
                .all(|frame| !matches!(frame, Frame::Range { start: None, .. } | Frame::Rows { start: None, .. }));
        let partitions: Vec<EventRows> = (0..partitions)
            .map(|partition| {
                let rows = if draw.random_range(0..12) == 0 {
                    0
                } else {
                    let most = [120, 120, 120, 700][draw.random_range(0..4)];
                    draw.random_range(1..most)
                };
                let owner = if rows_only { 0 } else { partition };
                events(draw, &spec, partition, owner, rows)
            })
            .collect();
        let times: Vec<i64> = partitions.iter().flat_map(|rows| rows.times.values().to_vec()).collect();
        let mut instants = Vec::new();
        for _ in 0..12 {
            let near = times.get(draw.random_range(0..times.len().max(1))).copied().unwrap_or(0);
            // On edges of frames as often as between them.
            let shift = draw.random_range(-3..40) * SECOND + if draw.random() { 0 } else { draw.random_range(-2..3) };
            instants.push(near + shift);
        }
        let newest = times.iter().max().copied().unwrap_or(0);
        instants.extend([newest, newest + 1, newest + 30 * SECOND, newest + 1_000_000 * SECOND]);
        Case { random, spec, partitions, instants }
    }

    /// The whole history as one timeline.
    pub fn offline(&self, kernel: &Kernel) -> Timeline {
        let mut times: Vec<i64> = Vec::new();
        let mut partitions: Vec<i32> = Vec::new();
        let mut offsets: Vec<i64> = Vec::new();
        for rows in self.partitions.iter().rev() {
            times.extend(rows.times.values());
            partitions.extend(std::iter::repeat_n(rows.partition, rows.len()));
            offsets.extend(rows.offsets.values());
        }
        let blocks: Vec<&EventRows> = self.partitions.iter().rev().collect();
        let all = EventRows::concat(&blocks).unwrap();
        kernel.timeline_from_rows(times.into(), partitions.into(), offsets.into(), all.ids, all.columns).unwrap()
    }
}

pub fn field_of(function: &AggregateUDF, args: &[DataType], name: &str) -> FieldRef {
    let fields: Vec<FieldRef> = args.iter().map(|arg| Arc::new(Field::new("arg", arg.clone(), true))).collect();
    Arc::new(function.return_field(&fields).unwrap().as_ref().clone().with_name(name))
}

fn spec(random: &mut ChaCha8Rng) -> TimelineSpec {
    let columns = columns();
    let tile = (random.random_range(0..3) == 0).then(|| [SECOND, 7 * SECOND, 10 * SECOND][random.random_range(0..3)]);
    let interval = |random: &mut ChaCha8Rng, most: i64| Interval {
        months: 0,
        days: 0,
        micros: random.random_range(0..=most) * SECOND,
    };
    let frames: Vec<Frame> = (0..random.random_range(1..4))
        .map(|_| match random.random_range(0..10) {
            0..5 => {
                let end = if random.random_range(0..3) == 0 { interval(random, 10) } else { Interval::default() };
                let start = interval(random, 60);
                Frame::Range { start: Some(Interval { micros: start.micros + end.micros, ..start }), end }
            }
            5..7 => Frame::Range {
                start: None,
                end: if random.random() { interval(random, 10) } else { Interval::default() },
            },
            _ if tile.is_some() => Frame::Range { start: Some(interval(random, 30)), end: Interval::default() },
            7..9 => {
                let end = if random.random() { 0 } else { random.random_range(0..3) };
                Frame::Rows { start: Some(end + random.random_range(0..10)), end }
            }
            _ => Frame::Rows { start: None, end: random.random_range(0..3) },
        })
        .collect();
    let with_generic = tile.is_none() && random.random_range(0..3) == 0;
    let aggregates = (0..random.random_range(1..7))
        .map(|index| aggregate(random, &columns, frames.len(), with_generic, index))
        .collect();
    TimelineSpec {
        columns,
        frames,
        aggregates,
        tile,
        lateness: random.random_range(0..3) * 10 * SECOND,
        ahead: [0, 0, 7 * SECOND, 60 * SECOND][random.random_range(0..4)],
        event_id: (random.random_range(0..2) == 0).then(|| {
            let data_type = [DataType::Utf8, DataType::Int64, DataType::Utf8View][random.random_range(0..3)].clone();
            Field::new("event_id", data_type, true)
        }),
    }
}

fn aggregate(random: &mut ChaCha8Rng, columns: &[Field], frames: usize, with_generic: bool, index: usize) -> Aggregate {
    let name = format!("f{index}");
    let frame = random.random_range(0..frames);
    let filter = (random.random_range(0..3) == 0).then_some(FLAG);
    let ignore_nulls = random.random();
    if random.random_range(0..4) == 0 {
        let column = random.random_range(0..columns.len());
        let function = match random.random_range(0..if with_generic { 3 } else { 2 }) {
            0 => Function::FirstValue,
            1 => Function::LastValue,
            _ => Function::NthValue([1, 2, 5, -1, -3][random.random_range(0..5)]),
        };
        let output = Arc::new(columns[column].clone().with_name(name));
        return Aggregate {
            function,
            args: vec![Argument::Column(column)],
            filter,
            distinct: false,
            ignore_nulls,
            frame,
            output,
        };
    }
    let (function, args, distinct) = if with_generic && random.random() {
        let generic = generic();
        let (function, args) = generic[random.random_range(0..generic.len())].clone();
        (function, args, false)
    } else {
        let typed = typed();
        let (function, takes) = &typed[random.random_range(0..typed.len())];
        if function.name() == "count" && random.random_range(0..3) == 0 {
            (Arc::clone(function), Vec::new(), false)
        } else {
            let column = takes[random.random_range(0..takes.len())];
            let no_distinct = function.name().starts_with("stddev") || (function.name() == "avg" && column == 13);
            (Arc::clone(function), vec![Argument::Column(column)], !no_distinct && random.random_range(0..4) == 0)
        }
    };
    let types = types(columns, &args);
    let output = field_of(&function, &types, &name);
    Aggregate { function: Function::Udaf(function), args, filter, distinct, ignore_nulls: false, frame, output }
}

pub fn types(columns: &[Field], args: &[Argument]) -> Vec<DataType> {
    args.iter()
        .map(|arg| match arg {
            Argument::Column(index) => columns[*index].data_type().clone(),
            Argument::Constant(value) => value.data_type(),
        })
        .collect()
}

/// Events whose times drift forward, with ties, disorder, a few very late ones, and repeated ids.
pub fn events(random: &mut ChaCha8Rng, spec: &TimelineSpec, partition: i32, owner: i32, rows: usize) -> EventRows {
    let mut clock = random.random_range(-200..200) * SECOND;
    let pace = random.random_range(1..4);
    let mut offset = random.random_range(0..5);
    let mut times: Vec<i64> = Vec::new();
    let mut offsets: Vec<i64> = Vec::new();
    let mut ids: Vec<Option<i64>> = Vec::new();
    for row in 0..rows {
        clock += random.random_range(0..pace) * SECOND / 2;
        let late = match random.random_range(0..20) {
            0 => random.random_range(0..400) * SECOND,
            1..6 => random.random_range(0..5) * SECOND,
            _ => 0,
        };
        let repeated = (row > 0 && random.random_range(0..10) == 0).then(|| random.random_range(0..row));
        times.push(repeated.map_or(clock - late, |row| times[row]));
        ids.push(match repeated {
            Some(row) => ids[row],
            None if random.random_range(0..15) == 0 => None,
            None => Some((row as i64 % 97) * 1000 + i64::from(owner)),
        });
        offsets.push(offset);
        offset += random.random_range(1..4);
    }
    let ids: ArrayRef = Arc::new(Int64Array::from(ids));
    EventRows {
        times: times.into(),
        partition,
        offsets: offsets.into(),
        ids: spec.event_id.as_ref().map(|field| arrow::compute::cast(&ids, field.data_type()).unwrap()),
        columns: spec.columns.iter().map(|field| column(random, field.data_type(), rows)).collect(),
    }
}
