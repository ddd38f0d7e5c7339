//! Which aggregates have a typed fold, and how a state becomes their result.

use std::sync::Arc;

use arrow::datatypes::{DataType, i256};
use datafusion::functions_aggregate::{average, count, first_last, min_max, stddev, sum, variance};
use datafusion::logical_expr::AggregateUDF;

use super::Kind;
use super::value::value_kind;
use crate::kernel::spec::Function;

/// A typed fold of an aggregate, before it knows its columns.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Compiled {
    pub kind: Kind,
    pub finish: Finish,
    pub skip_nulls: bool,
    /// The type of the result.
    pub result: DataType,
}

/// How a state becomes a result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Finish {
    Count,
    /// The value that the state holds: MIN, MAX, FIRST_VALUE, LAST_VALUE.
    Value,
    Sum,
    Average,
    /// The average of decimals: the sum is scaled up, divided (towards zero) and must fit the precision.
    DecimalAverage {
        scale_up: i256,
        precision: u8,
    },
    Variance {
        sample: bool,
        root: bool,
    },
    /// How many distinct values there are.
    DistinctCount,
    /// The distinct values, folded into a state of that kind.
    Distinct(Kind, Box<Finish>),
}

/// The typed fold of an aggregate over columns of these types; `None` if it has none.
pub(crate) fn compile(
    function: &Function,
    arg_types: &[DataType],
    distinct: bool,
    ignore_nulls: bool,
) -> Option<Compiled> {
    match function {
        Function::FirstValue => position(Kind::First, arg_types, ignore_nulls),
        Function::LastValue => position(Kind::Last, arg_types, ignore_nulls),
        Function::NthValue(_) => None,
        Function::Udaf(udaf) => aggregate(udaf, arg_types, distinct, ignore_nulls),
    }
}

fn position(kind: Kind, arg_types: &[DataType], ignore_nulls: bool) -> Option<Compiled> {
    let [arg] = arg_types else { return None };
    value_kind(arg)?;
    Some(Compiled { kind, finish: Finish::Value, skip_nulls: ignore_nulls, result: arg.clone() })
}

fn aggregate(udaf: &Arc<AggregateUDF>, arg_types: &[DataType], distinct: bool, ignore_nulls: bool) -> Option<Compiled> {
    let is = |known: Arc<AggregateUDF>| **udaf == *known;
    if is(count::count_udaf()) && !distinct {
        return Some(Compiled { kind: Kind::Count, finish: Finish::Count, skip_nulls: true, result: DataType::Int64 });
    }
    let [arg] = arg_types else { return None };
    if !distinct && is(first_last::first_value_udaf()) {
        return position(Kind::First, arg_types, ignore_nulls);
    }
    if !distinct && is(first_last::last_value_udaf()) {
        return position(Kind::Last, arg_types, ignore_nulls);
    }
    let compiled = |kind, finish, result| Some(Compiled { kind, finish, skip_nulls: true, result });
    if is(count::count_udaf()) {
        value_kind(arg)?;
        return compiled(Kind::Distinct, Finish::DistinctCount, DataType::Int64);
    }
    if is(min_max::min_udaf()) || is(min_max::max_udaf()) {
        value_kind(arg)?;
        let kind = if is(min_max::min_udaf()) { Kind::Min } else { Kind::Max };
        return compiled(kind, Finish::Value, arg.clone());
    }
    let result = udaf.return_type(arg_types).ok()?;
    let (kind, finish) = if is(sum::sum_udaf()) {
        (sum_kind(arg)?, Finish::Sum)
    } else if is(average::avg_udaf()) {
        average_of(arg, &result, distinct)?
    } else {
        let known = [
            (variance::var_samp_udaf(), true, false),
            (variance::var_pop_udaf(), false, false),
            (stddev::stddev_udaf(), true, true),
            (stddev::stddev_pop_udaf(), false, true),
        ];
        let (_, sample, root) = known.into_iter().find(|(known, ..)| is(Arc::clone(known)))?;
        if *arg != DataType::Float64 {
            return None;
        }
        (Kind::Moments, Finish::Variance { sample, root })
    };
    match distinct {
        false => compiled(kind, finish, result),
        true => compiled(Kind::Distinct, Finish::Distinct(kind, Box::new(finish)), result),
    }
}

fn sum_kind(arg: &DataType) -> Option<Kind> {
    match arg {
        DataType::Int64 | DataType::UInt64 | DataType::Duration(_) => Some(Kind::Wide),
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            Some(Kind::Wide)
        }
        DataType::Float64 => Some(Kind::Float),
        _ => None,
    }
}

fn average_of(arg: &DataType, result: &DataType, distinct: bool) -> Option<(Kind, Finish)> {
    match (arg, result) {
        (DataType::Float64, _) => Some((Kind::Float, Finish::Average)),
        // DataFusion has no AVG(DISTINCT) of durations.
        (DataType::Duration(_), _) if !distinct => Some((Kind::Wide, Finish::Average)),
        _ => {
            let (_, scale) = decimal(arg)?;
            let (precision, target_scale) = decimal(result)?;
            // A negative scale is left to DataFusion.
            let up = u32::try_from(target_scale.checked_sub(scale)?).ok().filter(|_| scale >= 0)?;
            let scale_up = i256::from_i128(10).checked_pow(up)?;
            Some((Kind::Wide, Finish::DecimalAverage { scale_up, precision }))
        }
    }
}

fn decimal(data_type: &DataType) -> Option<(u8, i8)> {
    match data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => Some((*precision, *scale)),
        _ => None,
    }
}
