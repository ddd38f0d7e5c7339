//! A training set's rows in the order of the spine, without comparing them.
//!
//! Guarantee: what a sort by the rows' numbers gives, which are never NULL and never the same. A row's place is how many numbers are below
//! its own, so each column is written to where it belongs, and columns side by side. All rows are held in memory:
//! a session with a memory limit sorts, which can spill.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{Int64Type, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, exec_datafusion_err, internal_datafusion_err, internal_err};
use datafusion::error::DataFusionError;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{Boundedness, ChildrenPropertiesMode, EmissionType};
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning, PlanProperties,
    ReplaceChildrenOptions,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;

use crate::buckets::{scatter, side_by_side};
use crate::plan::service::ROW;

/// Rows that are put in their places at once: what is written lies in the caches, and strings of so many fit into one array.
const AT_ONCE: usize = 131_072;

/// Puts [`SpineOrderExec`] in the place of a sort by the numbers of the spine's rows.
#[derive(Debug)]
pub(super) struct InSpineOrder;

impl PhysicalOptimizerRule for InSpineOrder {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(sort) = node.as_ref().downcast_ref::<SortExec>() else { return Ok(Transformed::no(node)) };
            match by_row(sort) {
                Some(row) => Ok(Transformed::yes(Arc::new(SpineOrderExec::new(sort.input().clone(), row)))),
                None => Ok(Transformed::no(node)),
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "in_spine_order"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The column that a sort is by, if it is that one alone.
fn by_row(sort: &SortExec) -> Option<usize> {
    let [by] = sort.expr().as_ref() else { return None };
    let column = by.expr.as_ref().downcast_ref::<Column>()?;
    let ascending = by.options == SortOptions { descending: false, nulls_first: false };
    let whole = sort.fetch().is_none() && sort.input().output_partitioning().partition_count() == 1;
    (column.name() == ROW && ascending && whole).then(|| column.index())
}

#[derive(Debug)]
struct SpineOrderExec {
    input: Arc<dyn ExecutionPlan>,
    /// The column with the rows' numbers.
    row: usize,
    properties: Arc<PlanProperties>,
}

impl SpineOrderExec {
    fn new(input: Arc<dyn ExecutionPlan>, row: usize) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { input, row, properties: Arc::new(properties) }
    }
}

impl DisplayAs for SpineOrderExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("SpineOrderExec")
    }
}

impl ExecutionPlan for SpineOrderExec {
    fn name(&self) -> &str {
        "SpineOrderExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::SinglePartition]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Ok([input]) = <[Arc<dyn ExecutionPlan>; 1]>::try_from(children) else {
            return internal_err!("the order of a spine has one input");
        };
        Ok(Arc::new(Self::new(input, self.row)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return internal_err!("the order of a spine has one partition, not {partition}");
        }
        let (input, row, schema) = (self.input.execute(0, context)?, self.row, self.input.schema());
        let in_order = async move {
            let rows: Arc<Vec<RecordBatch>> = Arc::new(input.try_collect().await?);
            let of = rows.clone();
            let ordered = spawn_blocking(move || ordered(&of, row, AT_ONCE)).await.map_err(ended)??;
            let parts = stream::iter(ordered).then(move |part| {
                let (schema, rows) = (schema.clone(), rows.clone());
                async move { spawn_blocking(move || gathered(schema, &rows, &part)).await.map_err(ended)? }
            });
            Ok::<_, DataFusionError>(parts)
        };
        let rows = stream::once(in_order).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.input.schema(), rows)))
    }
}

/// Neighbours in the order: of each batch its rows, and their places from the first one's on.
struct Part {
    named: Vec<Vec<(u32, u32)>>,
    rows: usize,
}

/// The order of some rows by their numbers, `at_once` at a time.
fn ordered(rows: &[RecordBatch], row: usize, at_once: usize) -> Result<Vec<Part>> {
    let numbers = rows.iter().map(|rows| {
        let numbers = rows.columns().get(row).and_then(|column| column.as_primitive_opt::<Int64Type>());
        numbers.map(|numbers| numbers.values()).ok_or_else(|| internal_datafusion_err!("rows without their numbers"))
    });
    let numbers = numbers.collect::<Result<Vec<_>>>()?;
    let (mut all, mut most) = (0, 0);
    for number in numbers.iter().flat_map(|numbers| numbers.iter()) {
        let Ok(number) = usize::try_from(*number) else { return internal_err!("a row with the number {number}") };
        most = most.max(number);
        all += 1;
    }
    // Which numbers there are, and for each word of that how many are below.
    let mut there = vec![0u64; if all > 0 { most / 64 + 1 } else { 0 }];
    numbers
        .iter()
        .flat_map(|numbers| numbers.iter())
        .for_each(|number| there[*number as usize / 64] |= 1 << (number % 64));
    let (mut below, mut before) = (0, Vec::with_capacity(there.len()));
    for word in &there {
        before.push(below);
        below += word.count_ones() as usize;
    }
    if below != all {
        return internal_err!("{all} rows with {below} numbers");
    }
    let part = |from: usize| Part { named: vec![vec![]; rows.len()], rows: at_once.min(all - from) };
    let mut parts: Vec<Part> = (0..all).step_by(at_once).map(part).collect();
    for (batch, numbers) in numbers.into_iter().enumerate() {
        for (row, number) in (0u32..).zip(numbers) {
            let (word, bit) = (*number as usize / 64, number % 64);
            let place = before[word] + (there[word] & ((1 << bit) - 1)).count_ones() as usize;
            parts[place / at_once].named[batch].push((row, (place % at_once) as u32));
        }
    }
    Ok(parts)
}

fn gathered(schema: SchemaRef, rows: &[RecordBatch], part: &Part) -> Result<RecordBatch> {
    let column = |column: usize| {
        let parts: Vec<_> = rows.iter().map(|rows| rows.column(column).as_ref()).collect();
        scatter(&parts, &part.named, part.rows)
    };
    let columns = side_by_side((schema.fields().len(), part.rows), column)?;
    Ok(RecordBatch::try_new(schema, columns)?)
}

fn ended(error: tokio::task::JoinError) -> DataFusionError {
    exec_datafusion_err!("a task that orders a training set was ended: {error}")
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, StringArray};
    use rand::rngs::StdRng;
    use rand::seq::SliceRandom;
    use rand::{RngExt as _, SeedableRng};

    use super::*;

    #[tokio::test]
    async fn rows_come_in_the_order_of_their_numbers_however_many_are_missing() {
        let mut rng = StdRng::seed_from_u64(3);
        for case in 0..200 {
            let most = rng.random_range(1..300);
            let mut numbers: Vec<i64> = (0..most).filter(|_| rng.random_bool(0.7)).collect();
            let expected = numbers.clone();
            numbers.shuffle(&mut rng);
            let mut batches = vec![];
            while !numbers.is_empty() {
                let some = numbers.split_off(numbers.len() - rng.random_range(1..=numbers.len()));
                let texts: StringArray = some.iter().map(|n| (n % 3 > 0).then(|| n.to_string())).collect();
                let columns: [(_, ArrayRef, bool); 2] =
                    [("text", Arc::new(texts), true), ("number", Arc::new(Int64Array::from(some)), false)];
                batches.push(RecordBatch::try_from_iter_with_nullable(columns).unwrap());
            }
            let Some(schema) = batches.first().map(RecordBatch::schema) else { continue };
            let at_once = rng.random_range(1..400);
            let batches = Arc::new(batches);
            let mut found = vec![];
            for part in ordered(&batches, 1, at_once).unwrap() {
                let rows = gathered(schema.clone(), &batches, &part).unwrap();
                assert!(rows.num_rows() <= at_once);
                let texts = rows.column(0).as_string::<i32>().iter().map(|text| text.map(str::to_owned));
                found.extend(rows.column(1).as_primitive::<Int64Type>().values().iter().copied().zip(texts));
            }
            let expected = expected.into_iter().map(|n| (n, (n % 3 > 0).then(|| n.to_string())));
            assert_eq!(found, expected.collect::<Vec<_>>(), "case {case}");
        }
        assert!(ordered(&[], 0, 5).unwrap().is_empty());
        let same: ArrayRef = Arc::new(Int64Array::from(vec![4, 4]));
        assert!(ordered(&[RecordBatch::try_from_iter([("number", same)]).unwrap()], 0, 5).is_err());
    }
}
