//! A feature view's facts.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column as DfColumn, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::facts::{About, Aggregate, Column, Evaluation, SourceFacts, StreamingPlan, ViewFacts, Window};
use super::service::lookups;
use super::{frames, plans, source};
use crate::kernel::{self, Argument, Function, TimelineSpec};
use crate::plan::words::{counted, list, sql, sql_type};
use crate::plan::{FeatureView, Project};

pub fn facts(project: &Project, view: &FeatureView) -> Result<ViewFacts> {
    let spec = view.kernel.spec();
    let key: Vec<String> = view.keys.iter().map(|k| k.name().clone()).collect();
    let column = |i: usize, expression: Option<String>| {
        let field = view.schema.field(i);
        Column {
            name: field.name().clone(),
            data_type: sql_type(field.data_type()),
            expression,
            description: view.docs.get(field.name()).cloned(),
        }
    };
    let expressions = expressions(view);
    let features = |key: bool| {
        let of_kind = view.key_columns.iter().enumerate().filter(move |(_, k)| k.is_some() == key);
        of_kind.map(|(i, _)| i)
    };
    let computed: Vec<String> = features(false)
        .filter_map(|i| Some((view.schema.field(i).name(), expressions.get(i)?)))
        .filter(|(_, e)| !spec.aggregates.iter().any(|a| over(spec, a) == **e))
        .map(|(name, e)| format!("{name} = {e}"))
        .collect();
    let windows = windows(view);
    Ok(ViewFacts {
        about: About {
            name: view.name.clone(),
            description: view.options.description.clone(),
            owner: view.options.owner.clone(),
        },
        source: SourceFacts {
            name: view.source.name.clone(),
            reads: source::reads(project, &view.source),
            timestamp: view.source.timestamp.clone(),
            event_id: view.source.event_id.clone(),
        },
        fingerprint: Some(view.fingerprint.clone()).filter(|f| !f.is_empty()),
        keys: features(true).map(|i| column(i, None)).collect(),
        features: features(false).map(|i| column(i, expressions.get(i).cloned())).collect(),
        state: frames::state(view),
        streaming_plan: StreamingPlan {
            read: format!("{}; each event is about one {}", source::reads(project, &view.source), list(&key)),
            row_stage: view.plans.row_stage.display_indent().to_string(),
            as_of: lookups(project, &view.plans.row_stage)
                .into_iter()
                .filter_map(|l| Some(format!("{} is looked up {}", l.relation, l.as_of?)))
                .collect(),
            fold: format!("into the timeline of its {}, at its {}", list(&key), view.source.timestamp),
            write: "the timeline's changed chunks to the online store; then the offset is committed".into(),
        },
        batch_plan: plans::view(project, view)?,
        request_plan: request_plan(&key, &windows, computed),
        windows,
    })
}

fn request_plan(key: &[String], windows: &[Window], computed: Vec<String>) -> Vec<String> {
    let mut steps = vec![
        format!("look up the timeline of {} in the online store: one round trip", list(key)),
        format!(
            "evaluate {} over {} at the read instant",
            counted(windows.iter().map(|w| w.aggregates.len() as i64).sum(), "aggregate"),
            counted(windows.len() as i64, "window")
        ),
    ];
    match computed.as_slice() {
        [] => steps.push("name the results".into()),
        computed => steps.push(format!("compute {}", computed.join(", "))),
    }
    steps
}

fn windows(view: &FeatureView) -> Vec<Window> {
    let spec = view.kernel.spec();
    let window = |(i, frame): (usize, &kernel::Frame)| {
        let mut aggregates: Vec<Aggregate> = vec![];
        for a in spec.aggregates.iter().filter(|a| a.frame == i) {
            let expression = label(spec, a);
            if !aggregates.iter().any(|seen| seen.expression == expression) {
                aggregates.push(Aggregate {
                    expression,
                    data_type: sql_type(a.output.data_type()),
                    evaluation: evaluation(view, a),
                });
            }
        }
        Window { name: window_name(i), covers: frames::covers(frame, spec.tile), aggregates }
    };
    spec.frames.iter().enumerate().map(window).collect()
}

fn evaluation(view: &FeatureView, aggregate: &kernel::Aggregate) -> Evaluation {
    match aggregate.function {
        _ if frames::typed(view, aggregate) => Evaluation::Typed,
        Function::Udaf(_) => Evaluation::Generic,
        Function::FirstValue | Function::LastValue | Function::NthValue(_) => Evaluation::Row,
    }
}

fn window_name(frame: usize) -> String {
    format!("w{}", frame + 1)
}

fn over(spec: &TimelineSpec, aggregate: &kernel::Aggregate) -> String {
    format!("{} OVER {}", label(spec, aggregate), window_name(aggregate.frame))
}

/// An aggregate as SQL, without its window.
pub fn label(spec: &TimelineSpec, aggregate: &kernel::Aggregate) -> String {
    let mut args: Vec<String> = aggregate.args.iter().map(|arg| argument(spec, arg)).collect();
    let name = match &aggregate.function {
        Function::Udaf(udaf) => {
            if args.is_empty() && udaf.name() == "count" {
                args.push("*".into());
            }
            udaf.name().to_uppercase()
        }
        Function::FirstValue => "FIRST_VALUE".into(),
        Function::LastValue => "LAST_VALUE".into(),
        Function::NthValue(n) => {
            args.push(n.to_string());
            "NTH_VALUE".into()
        }
    };
    let distinct = if aggregate.distinct { "DISTINCT " } else { "" };
    let nulls = if aggregate.ignore_nulls { " IGNORE NULLS" } else { "" };
    let filter = match aggregate.filter.and_then(|i| spec.columns.get(i)) {
        Some(column) => format!(" FILTER (WHERE {})", column.name()),
        None => String::new(),
    };
    format!("{name}({distinct}{}){nulls}{filter}", args.join(", "))
}

fn argument(spec: &TimelineSpec, argument: &Argument) -> String {
    match argument {
        Argument::Column(i) => spec.columns.get(*i).map(|f| f.name().clone()).unwrap_or_default(),
        Argument::Constant(value) => sql(&Expr::Literal(value.clone(), None)),
    }
}

pub fn argument_type(spec: &TimelineSpec, argument: &Argument) -> DataType {
    match argument {
        Argument::Column(i) => spec.columns.get(*i).map_or(DataType::Null, |f| f.data_type().clone()),
        Argument::Constant(value) => value.data_type(),
    }
}

/// Each column of the view over the windows' results.
fn expressions(view: &FeatureView) -> Vec<String> {
    let spec = view.kernel.spec();
    let labels: BTreeMap<&str, String> =
        spec.aggregates.iter().map(|a| (a.output.name().as_str(), over(spec, a))).collect();
    resolve(&view.plans.whole, &labels).iter().map(sql).collect()
}

/// The columns of a plan above the windows, as expressions over keys and labelled windows.
fn resolve(plan: &LogicalPlan, labels: &BTreeMap<&str, String>) -> Vec<Expr> {
    match plan {
        LogicalPlan::SubqueryAlias(alias) => resolve(&alias.input, labels),
        LogicalPlan::Projection(projection) => {
            let input = resolve(&projection.input, labels);
            let below = projection.input.schema();
            let replace = |expr: &Expr| {
                let replaced = expr.clone().transform_up(|e| {
                    let found = match &e {
                        Expr::Column(c) => below.maybe_index_of_column(c).and_then(|i| input.get(i).cloned()),
                        // The name is in the column that the expression makes.
                        Expr::Alias(alias) => Some(alias.expr.as_ref().clone()),
                        _ => None,
                    };
                    Ok(found.map_or(Transformed::no(e), Transformed::yes))
                });
                replaced.map_or_else(|_| expr.clone(), |t| t.data)
            };
            projection.expr.iter().map(replace).collect()
        }
        other => {
            let name = |name: &String| labels.get(name.as_str()).cloned().unwrap_or_else(|| name.clone());
            other.schema().fields().iter().map(|f| Expr::Column(DfColumn::new_unqualified(name(f.name())))).collect()
        }
    }
}
