//! Window expressions to the kernel's terms: frames, aggregates, and the columns that a timeline must hold.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Volatility, WindowFrame, WindowFrameBound, WindowFrameUnits,
    WindowFunctionDefinition,
};

use super::problem::{PlanResult, Problem};
use crate::kernel::{Aggregate, Argument, Frame, Function, Interval, Kernel};

/// Gathers the windows of one view.
#[derive(Debug, Default)]
pub struct Windows {
    /// Expressions over the row stage's result, each once: what a timeline holds of an event.
    pub columns: Vec<(Expr, Field)>,
    pub frames: Vec<Frame>,
    pub aggregates: Vec<Aggregate>,
    /// The PARTITION BY of every window.
    pub keys: Vec<Expr>,
}

/// What a view's options and its source say about its windows.
pub struct Context<'a> {
    /// Columns that windows see.
    pub input: &'a DFSchema,
    pub tiled: bool,
    /// Whether an ORDER BY expression is the source's timestamp.
    pub is_timestamp: &'a dyn Fn(&Expr) -> bool,
    pub timestamp: &'a str,
}

impl Windows {
    /// Adds one window expression; `name` is its column in the plan's schema.
    pub fn add(&mut self, window: &WindowFunction, name: &Field, context: &Context<'_>) -> PlanResult<()> {
        let params = &window.params;
        let called = window.fun.name().to_owned();
        self.check_partition(params, &called)?;
        check_order(params, context, &called)?;
        let frame = frame(&params.window_frame, &called)?;
        if context.tiled && matches!(frame, Frame::Rows { .. }) {
            return Err(Problem::new("a tiled view has no rows to count, so it can't have a ROWS frame")
                .hint("move this feature to a view without `tile`")
                .in_window(called, "rows"));
        }
        let mut args = params.args.as_slice();
        let function = match &window.fun {
            WindowFunctionDefinition::AggregateUDF(udaf) => {
                if udaf.signature().volatility == Volatility::Volatile {
                    return Err(Problem::new(format!("`{called}` is volatile")).at_name(&called));
                }
                if called == "count" && matches!(args, [Expr::Literal(value, _)] if !value.is_null()) {
                    args = &[];
                }
                Function::Udaf(Arc::clone(udaf))
            }
            WindowFunctionDefinition::WindowUDF(udwf) => match (udwf.name(), args) {
                ("first_value", [_]) => Function::FirstValue,
                ("last_value", [_]) => Function::LastValue,
                ("nth_value", [value, Expr::Literal(n, _)]) => {
                    let n = n.cast_to(&DataType::Int64).ok();
                    let Some(ScalarValue::Int64(Some(n))) = n.filter(|n| *n != ScalarValue::Int64(Some(0))) else {
                        return Err(Problem::new("NTH_VALUE has no row 0")
                            .expected("1 for the first row of the frame, 2 for the second, -1 for the last, …")
                            .at_name(&called));
                    };
                    args = std::slice::from_ref(value);
                    Function::NthValue(n)
                }
                ("nth_value", _) => {
                    return Err(Problem::new("NTH_VALUE takes a value and a number that is known beforehand")
                        .expected("NTH_VALUE(amount, 2) or NTH_VALUE(amount, -2)")
                        .at_name(&called));
                }
                _ => return Err(no_meaning(&called)),
            },
        };
        if !matches!(function, Function::Udaf(_)) && params.distinct {
            return Err(Problem::new(format!("DISTINCT has no meaning in `{called}`"))
                .hint("leave it out")
                .at_name(&called));
        }
        let args = args.iter().map(|a| self.argument(a, context.input)).collect::<PlanResult<Vec<_>>>()?;
        let filter = params.filter.as_deref().map(|f| self.column(f, context.input)).transpose()?;
        let frame = index_of(&mut self.frames, frame);
        let aggregate = Aggregate {
            function,
            args,
            filter,
            distinct: params.distinct,
            ignore_nulls: params.null_treatment == Some(NullTreatment::IgnoreNulls),
            frame,
            output: Arc::new(name.clone()),
        };
        if context.tiled && !Kernel::is_typed(&aggregate.function, &self.types(&aggregate.args), aggregate.distinct) {
            return Err(Problem::new(format!("`{called}` can't be tiled: its partial results don't merge exactly"))
                .expected("COUNT, SUM, AVG, MIN, MAX, VAR, STDDEV, COUNT(DISTINCT), FIRST_VALUE or LAST_VALUE")
                .hint("move this feature to a view without `tile`")
                .at_name(&called));
        }
        self.aggregates.push(aggregate);
        Ok(())
    }

    pub fn fields(&self) -> Vec<Field> {
        self.columns.iter().map(|(_, f)| f.clone()).collect()
    }

    fn types(&self, args: &[Argument]) -> Vec<DataType> {
        args.iter()
            .filter_map(|arg| match arg {
                Argument::Column(i) => self.columns.get(*i).map(|(_, f)| f.data_type().clone()),
                Argument::Constant(value) => Some(value.data_type()),
            })
            .collect()
    }

    fn check_partition(&mut self, params: &WindowFunctionParams, called: &str) -> PlanResult<()> {
        if params.partition_by.is_empty() {
            return Err(Problem::new("this window has no PARTITION BY, so there is no entity that it is about")
                .expected("OVER (PARTITION BY <key columns> ORDER BY <timestamp> …)")
                .in_window(called, "order"));
        }
        if let Some(odd) = params.partition_by.iter().find(|e| !matches!(e, Expr::Column(_))) {
            return Err(Problem::new(format!("PARTITION BY takes columns, not the expression {}", short(odd)))
                .hint("compute the key in a subquery or a CREATE VIEW and partition by that column")
                .in_window(called, "partition"));
        }
        if self.keys.is_empty() {
            self.keys = params.partition_by.clone();
        }
        let same =
            self.keys.len() == params.partition_by.len() && params.partition_by.iter().all(|k| self.keys.contains(k));
        if !same {
            let list = |keys: &[Expr]| keys.iter().map(short).collect::<Vec<_>>().join(", ");
            return Err(Problem::new("every window of a feature view must have the same keys")
                .expected(format!("PARTITION BY {}", list(&self.keys)))
                .hint(format!(
                    "make a second view for features by {}, and join both in a service",
                    list(&params.partition_by)
                ))
                .in_window(called, "partition"));
        }
        Ok(())
    }

    fn argument(&mut self, expr: &Expr, input: &DFSchema) -> PlanResult<Argument> {
        match expr {
            Expr::Literal(value, _) => Ok(Argument::Constant(value.clone())),
            other => Ok(Argument::Column(self.column(other, input)?)),
        }
    }

    fn column(&mut self, expr: &Expr, input: &DFSchema) -> PlanResult<usize> {
        if let Some(found) = self.columns.iter().position(|(e, _)| e == expr) {
            return Ok(found);
        }
        super::pipeline::physical(expr, input)?;
        let field = Field::new(short(expr), expr.get_type(input)?, true);
        self.columns.push((expr.clone(), field));
        Ok(self.columns.len() - 1)
    }
}

/// An expression as a person wrote it, near enough: without qualifiers on plain columns.
pub fn short(expr: &Expr) -> String {
    match expr {
        Expr::Column(column) => column.name.clone(),
        other => super::words::sql(other),
    }
}

fn index_of(frames: &mut Vec<Frame>, frame: Frame) -> usize {
    frames.iter().position(|f| *f == frame).unwrap_or_else(|| {
        frames.push(frame);
        frames.len() - 1
    })
}

fn check_order(params: &WindowFunctionParams, context: &Context<'_>, called: &str) -> PlanResult<()> {
    let expected = format!("ORDER BY {}", context.timestamp);
    match params.order_by.as_slice() {
        [sort] if !sort.asc => Err(Problem::new("a window runs forward in time: ORDER BY … DESC is not supported")
            .expected(expected)
            .in_window(called, "desc")),
        [sort] if (context.is_timestamp)(&sort.expr) => Ok(()),
        [sort] => Err(Problem::new(format!(
            "a window must be ordered by its source's timestamp, not by {}",
            short(&sort.expr)
        ))
        .expected(expected)
        .in_window(called, "order")),
        [] => Err(Problem::new("this window has no ORDER BY").expected(expected).in_window(called, "partition")),
        _ => Err(Problem::new("a window is ordered by its source's timestamp alone")
            .expected(expected)
            .in_window(called, "order")),
    }
}

/// Refuses bounds of RANGE frames over time that have no unit, such as `3600 PRECEDING`: before type coercion, which
/// would find one.
pub fn check_bounds(plan: &LogicalPlan) -> PlanResult<()> {
    if let LogicalPlan::Window(window) = plan {
        for expr in &window.window_expr {
            let Expr::WindowFunction(function) = expr.clone().unalias() else { continue };
            let frame = &function.params.window_frame;
            let over_time = |e: &Expr| e.get_type(window.input.schema().as_ref()).is_ok_and(|t| t.is_temporal());
            if frame.units != WindowFrameUnits::Range || !function.params.order_by.iter().all(|o| over_time(&o.expr)) {
                continue;
            }
            for bound in [&frame.start_bound, &frame.end_bound] {
                if let WindowFrameBound::Preceding(value) | WindowFrameBound::Following(value) = bound
                    && !value.is_null()
                    && value.to_string().trim().parse::<f64>().is_ok()
                {
                    return Err(Problem::new(format!(
                        "a RANGE frame over time is bounded by an INTERVAL, not by {value}"
                    ))
                    .expected("INTERVAL '1 hour' PRECEDING")
                    .in_window(function.fun.name(), "range"));
                }
            }
        }
    }
    plan.inputs().into_iter().try_for_each(check_bounds)
}

fn frame(frame: &WindowFrame, called: &str) -> PlanResult<Frame> {
    match frame.units {
        WindowFrameUnits::Groups => {
            Err(Problem::new("GROUPS frames are not supported").expected("RANGE or ROWS").in_window(called, "groups"))
        }
        WindowFrameUnits::Range => {
            let start = match &frame.start_bound {
                WindowFrameBound::Preceding(value) if value.is_null() => None,
                WindowFrameBound::Preceding(value) => Some(interval(value, called)?),
                WindowFrameBound::CurrentRow => Some(Interval::default()),
                WindowFrameBound::Following(_) => return Err(forward(called, &frame.units)),
            };
            let end = match &frame.end_bound {
                WindowFrameBound::CurrentRow => Interval::default(),
                WindowFrameBound::Preceding(value) if !value.is_null() => interval(value, called)?,
                WindowFrameBound::Preceding(_) => {
                    return Err(Problem::new("a frame can't end at UNBOUNDED PRECEDING").in_window(called, "unbounded"));
                }
                WindowFrameBound::Following(_) => return Err(forward(called, &frame.units)),
            };
            if start.is_some_and(|s| s.longest_micros() < end.longest_micros()) {
                return Err(Problem::new("the frame ends before it starts, so it is always empty")
                    .expected("RANGE BETWEEN <longer> PRECEDING AND <shorter> PRECEDING")
                    .in_window(called, "range"));
            }
            Ok(Frame::Range { start, end })
        }
        WindowFrameUnits::Rows => {
            let start = match &frame.start_bound {
                WindowFrameBound::Preceding(value) if value.is_null() => None,
                WindowFrameBound::Preceding(value) => Some(count(value, called)?),
                WindowFrameBound::CurrentRow => Some(0),
                WindowFrameBound::Following(_) => return Err(forward(called, &frame.units)),
            };
            let end = match &frame.end_bound {
                WindowFrameBound::CurrentRow => 0,
                WindowFrameBound::Preceding(value) if !value.is_null() => count(value, called)?,
                WindowFrameBound::Preceding(_) => {
                    return Err(Problem::new("a frame can't end at UNBOUNDED PRECEDING").in_window(called, "unbounded"));
                }
                WindowFrameBound::Following(_) => return Err(forward(called, &frame.units)),
            };
            if start.is_some_and(|s| s < end) {
                return Err(Problem::new("the frame ends before it starts, so it is always empty")
                    .expected("ROWS BETWEEN <more> PRECEDING AND <fewer> PRECEDING")
                    .in_window(called, "rows"));
            }
            Ok(Frame::Rows { start, end })
        }
    }
}

fn interval(value: &ScalarValue, called: &str) -> PlanResult<Interval> {
    let found = value.cast_to(&DataType::Interval(arrow::datatypes::IntervalUnit::MonthDayNano));
    let Ok(ScalarValue::IntervalMonthDayNano(Some(i))) = found else {
        return Err(Problem::new(format!("a RANGE frame over time is bounded by an INTERVAL, not by {value}"))
            .expected("INTERVAL '1 hour' PRECEDING")
            .in_window(called, "range"));
    };
    if i.months < 0 || i.days < 0 || i.nanoseconds < 0 {
        return Err(forward(called, &WindowFrameUnits::Range).in_window(called, "range"));
    }
    if i.nanoseconds % 1000 != 0 {
        return Err(Problem::new("instants have microseconds: a frame can't be finer")
            .expected("whole microseconds")
            .in_window(called, "range"));
    }
    Ok(Interval { months: i.months, days: i.days, micros: i.nanoseconds / 1000 })
}

fn count(value: &ScalarValue, called: &str) -> PlanResult<u64> {
    match value.cast_to(&DataType::UInt64) {
        Ok(ScalarValue::UInt64(Some(n))) if n <= MAX_ROWS => Ok(n),
        Ok(ScalarValue::UInt64(Some(n))) => {
            Err(Problem::new(format!("a ROWS frame of {n} events is too long: they are all kept in the online store"))
                .expected(format!("a whole number up to {MAX_ROWS}"))
                .in_window(called, "rows"))
        }
        _ => Err(Problem::new(format!("a ROWS frame is bounded by a number of events, not by {value}"))
            .expected(format!("a whole number up to {MAX_ROWS}"))
            .in_window(called, "rows")),
    }
}

/// A ROWS frame keeps its events in the online store: more than this is a mistake.
const MAX_ROWS: u64 = 1_000_000;

fn forward(called: &str, units: &WindowFrameUnits) -> Problem {
    let expected = match units {
        WindowFrameUnits::Rows => "ROWS BETWEEN <n> PRECEDING AND CURRENT ROW",
        _ => "RANGE BETWEEN INTERVAL '…' PRECEDING AND CURRENT ROW",
    };
    Problem::new("the frame looks forward: at the read instant the future is not known")
        .expected(expected)
        .in_window(called, "following")
}

fn no_meaning(called: &str) -> Problem {
    let hint = match called {
        "row_number" => "COUNT(*) OVER w counts the events up to the read instant",
        "lead" => "LAST_VALUE(x) OVER w is the latest value",
        "lag" => "NTH_VALUE(x, -2) OVER w is the value before the latest",
        _ => "use an aggregate: COUNT, SUM, AVG, MIN, MAX, FIRST_VALUE, LAST_VALUE, …",
    };
    Problem::new(format!(
        "`{called}` has no meaning between events: it numbers or compares rows, and a read stands on none"
    ))
    .hint(hint)
    .at_name(called)
}
