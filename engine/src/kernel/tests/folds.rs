//! Every aggregate over every frame against DataFusion's accumulators on the rows that the definition names.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{filter, take};
use arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};

use super::random::{Case, types};
use crate::kernel::tile::floor;
use crate::kernel::*;

/// The rows of a sorted timeline in a frame, straight from the definition.
fn rows_of(spec: &TimelineSpec, frame: &Frame, times: &[i64], t: i64) -> Vec<u32> {
    let seen: Vec<usize> = (0..times.len()).filter(|row| times[*row] <= t).collect();
    let kept: Vec<usize> = match frame {
        Frame::Range { start, end } => {
            let floor = |t: i64| spec.tile.map_or(t, |tile| floor(t, tile));
            let starts = |time: i64| start.is_none_or(|start| floor(time) >= floor(start.before(t)));
            seen.into_iter().filter(|row| starts(times[*row]) && times[*row] <= end.before(t)).collect()
        }
        Frame::Rows { start, end } => {
            let latest = seen.iter().rev().take(start.map_or(usize::MAX, |start| start as usize + 1));
            let mut kept: Vec<usize> = latest.skip(*end as usize).copied().collect();
            kept.reverse();
            kept
        }
    };
    kept.into_iter().map(|row| row as u32).collect()
}

/// What DataFusion's accumulator says.
fn expected(spec: &TimelineSpec, aggregate: &Aggregate, timeline: &Timeline, rows: &[u32]) -> ScalarValue {
    let rows = UInt32Array::from(rows.to_vec());
    let mut columns: Vec<ArrayRef> = timeline.columns.iter().map(|column| take(column, &rows, None).unwrap()).collect();
    if let Some(index) = aggregate.filter {
        let mask = columns[index].as_boolean().clone();
        columns = columns.iter().map(|column| filter(column, &mask).unwrap()).collect();
    }
    let length = columns[0].len();
    let args: Vec<ArrayRef> = aggregate
        .args
        .iter()
        .map(|arg| match arg {
            Argument::Column(index) => Arc::clone(&columns[*index]),
            Argument::Constant(value) => value.to_array_of_size(length).unwrap(),
        })
        .collect();
    let function = match &aggregate.function {
        Function::Udaf(function) => function,
        position => {
            let mut rows: Vec<usize> =
                (0..length).filter(|row| !aggregate.ignore_nulls || !args[0].is_null(*row)).collect();
            let n = match position {
                Function::FirstValue => 1,
                Function::LastValue => -1,
                Function::NthValue(n) => *n,
                Function::Udaf(_) => unreachable!(),
            };
            if n < 0 {
                rows.reverse();
            }
            let row = rows.get(n.unsigned_abs() as usize - 1);
            return row.map_or(ScalarValue::try_from(args[0].data_type()).unwrap(), |row| {
                ScalarValue::try_from_array(&args[0], *row).unwrap()
            });
        }
    };
    let arg_types = types(&spec.columns, &aggregate.args);
    let fields: Vec<Field> = arg_types
        .iter()
        .enumerate()
        .map(|(index, data_type)| Field::new(format!("c{index}"), data_type.clone(), true))
        .collect();
    let exprs: Vec<Arc<dyn PhysicalExpr>> = aggregate
        .args
        .iter()
        .enumerate()
        .map(|(index, arg)| match arg {
            Argument::Column(_) => Arc::new(Column::new(&format!("c{index}"), index)) as Arc<dyn PhysicalExpr>,
            Argument::Constant(value) => Arc::new(Literal::new(value.clone())),
        })
        .collect();
    if args.is_empty() {
        return ScalarValue::from(length as i64);
    }
    let mut accumulator = function
        .accumulator(AccumulatorArgs {
            return_field: Arc::clone(&aggregate.output),
            schema: &Schema::new(fields.clone()),
            ignore_nulls: aggregate.ignore_nulls,
            order_bys: &[],
            is_reversed: false,
            name: "expected",
            is_distinct: aggregate.distinct,
            exprs: &exprs,
            expr_fields: &fields.into_iter().map(Arc::new).collect::<Vec<_>>(),
        })
        .unwrap();
    if length > 0 {
        accumulator.update_batch(&args).unwrap();
    }
    accumulator.evaluate().unwrap()
}

fn close(found: f64, expected: f64, largest: f64) -> bool {
    if found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()) || found == expected {
        return true;
    }
    // DataFusion's own sums are off by what rounding the largest intermediate result takes.
    (found - expected).abs() <= 1e-9 * expected.abs().max(largest)
}

#[test]
fn every_frame_of_every_aggregate_is_what_datafusion_computes() {
    let mut compared = 0;
    for seed in 10_000..10_250 {
        let case = Case::new(seed);
        let kernel = Kernel::new(case.spec.clone()).unwrap();
        let timeline = case.offline(&kernel);
        let evaluation = kernel.evaluate(&timeline, &case.instants).unwrap();
        for (column, aggregate) in evaluation.columns.iter().zip(&case.spec.aggregates) {
            assert_eq!(column.data_type(), aggregate.output.data_type());
            for (index, t) in case.instants.iter().enumerate() {
                let rows = rows_of(&case.spec, &case.spec.frames[aggregate.frame], timeline.times.values(), *t);
                let expected = expected(&case.spec, aggregate, &timeline, &rows);
                let found = ScalarValue::try_from_array(column, index).unwrap();
                let equal = match (&found, &expected) {
                    (ScalarValue::Float64(Some(found)), ScalarValue::Float64(Some(expected))) => {
                        let values = timeline.columns[0].as_primitive::<Float64Type>();
                        let largest = rows
                            .iter()
                            .map(|row| values.value(*row as usize).abs())
                            .filter(|value| value.is_finite())
                            .fold(0.0, f64::max);
                        close(*found, *expected, largest)
                    }
                    (found, expected) => found == expected,
                };
                assert!(
                    equal,
                    "seed {seed}: {} of {:?} (distinct {}) over {:?} at {t}: {found:?}, DataFusion says {expected:?}",
                    aggregate.output, aggregate.args, aggregate.distinct, case.spec.frames[aggregate.frame]
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 5_000);
}

#[test]
fn typed_is_what_a_tile_can_hold() {
    let is_typed =
        |function, data_type: DataType, distinct| Kernel::is_typed(&Function::Udaf(function), &[data_type], distinct);
    use datafusion::functions_aggregate::*;
    assert!(is_typed(count::count_udaf(), DataType::Utf8, true));
    assert!(is_typed(sum::sum_udaf(), DataType::Float64, true));
    assert!(is_typed(stddev::stddev_udaf(), DataType::Float64, false));
    assert!(!is_typed(median::median_udaf(), DataType::Int64, false));
    let list = DataType::new_list(DataType::Int64, true);
    assert!(is_typed(count::count_udaf(), list.clone(), false));
    assert!(!is_typed(min_max::min_udaf(), list.clone(), false));
    assert!(!Kernel::is_typed(&Function::LastValue, &[list], false));
    assert!(Kernel::is_typed(&Function::LastValue, &[DataType::Utf8View], false));
    assert!(!Kernel::is_typed(&Function::NthValue(2), &[DataType::Int64], false));
}
