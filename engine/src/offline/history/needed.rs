//! What a training set reads of a file.
//!
//! Guarantees: a row group is left out only if its statistics say that all of its times lie outside of what is asked for, and that each
//! of its rows is an event. What may be none is read, with the columns that say so: it is refused by file and row, as by a view that fills.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, TimestampMicrosecondArray};
use arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column as Named, Result, ScalarValue};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;

use super::file::File;

/// Row groups of a file, in order, and places of columns of the contract that are to be read beside those that are wanted.
#[derive(Debug)]
pub(super) struct Needed {
    pub groups: Vec<usize>,
    pub columns: BTreeSet<usize>,
}

impl File {
    /// What is needed of some row groups, if what is wanted are events that a filter takes: one over `schema`'s columns, of which only
    /// the event time is looked at.
    pub fn needed(
        &self,
        groups: Vec<usize>,
        filter: Option<&Arc<dyn PhysicalExpr>>,
        schema: &SchemaRef,
    ) -> Result<Needed> {
        let latest = self.judge().latest();
        let (mut columns, mut times) = (BTreeSet::new(), vec![]);
        for group in groups.iter().filter_map(|group| self.groups().get(*group)) {
            let unsure: Vec<usize> = self.required().filter(|place| !self.is_whole(group, *place)).collect();
            let known = self.times(group).filter(|(_, last)| unsure.is_empty() && *last <= latest);
            times.push(known);
            columns.extend(unsure);
        }
        let predicate = filter
            .and_then(|filter| PruningPredicateBuilder::new().with_file_schema(schema.clone()).build(filter.clone()));
        let Some(predicate) = predicate else { return Ok(Needed { groups, columns }) };
        let kept = predicate.prune(&Times { column: &self.judge().timestamp, of: &times })?;
        let groups = groups.into_iter().zip(kept).filter_map(|(group, kept)| kept.then_some(group)).collect();
        Ok(Needed { groups, columns })
    }

    /// The places of the contract's columns in which no event has a NULL.
    fn required(&self) -> impl Iterator<Item = usize> {
        let judge = self.judge();
        let required = move |field: &str, nullable: bool| !nullable || field == judge.timestamp;
        let fields = judge.contract.columns().fields().iter().enumerate();
        fields.filter(move |(_, f)| required(f.name(), f.is_nullable())).map(|(place, _)| place)
    }

    /// Whether it is certain that a column has no NULL in a row group.
    fn is_whole(&self, group: &RowGroupMetaData, place: usize) -> bool {
        let Some(column) = self.column(place) else { return false };
        if let Some(default) = column.downcast_ref::<Literal>() {
            return !default.value().is_null();
        }
        // What is cast is looked at.
        let Some(column) = column.downcast_ref::<Column>() else { return false };
        let schema = group.schema_descr();
        if schema.root_schema().get_fields().get(column.index()).is_some_and(|root| !root.is_optional()) {
            return true;
        }
        leaf(group, column).and_then(ColumnChunkMetaData::statistics).and_then(Statistics::null_count_opt) == Some(0)
    }

    /// The first and the last event time in a row group, where that is known.
    fn times(&self, group: &RowGroupMetaData) -> Option<(i64, i64)> {
        let place = self.judge().contract.columns().index_of(&self.judge().timestamp).ok()?;
        match leaf(group, self.column(place)?.downcast_ref::<Column>()?)?.statistics()? {
            Statistics::Int64(times) => Some((*times.min_opt()?, *times.max_opt()?)),
            _ => None,
        }
    }
}

/// A column that isn't nested: what Parquet counts as NULL in others has its own rules.
fn leaf<'a>(group: &'a RowGroupMetaData, column: &Column) -> Option<&'a ColumnChunkMetaData> {
    let schema = group.schema_descr();
    let mut leaves = (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == column.index());
    let (Some(leaf), None) = (leaves.next(), leaves.next()) else { return None };
    group.columns().get(leaf).filter(|leaf| leaf.column_path().parts().len() == 1)
}

/// Statistics of some row groups: of their times and of nothing else.
struct Times<'a> {
    column: &'a str,
    /// The first and the last one, where a row group may be left out by them.
    of: &'a [Option<(i64, i64)>],
}

impl Times<'_> {
    fn array(&self, column: &Named, one: impl Fn((i64, i64)) -> i64) -> Option<ArrayRef> {
        let times = || self.of.iter().map(|times| times.map(&one)).collect::<TimestampMicrosecondArray>();
        (column.name == self.column).then(|| Arc::new(times().with_timezone("UTC")) as ArrayRef)
    }
}

impl PruningStatistics for Times<'_> {
    fn min_values(&self, column: &Named) -> Option<ArrayRef> {
        self.array(column, |(first, _)| first)
    }

    fn max_values(&self, column: &Named) -> Option<ArrayRef> {
        self.array(column, |(_, last)| last)
    }

    fn num_containers(&self) -> usize {
        self.of.len()
    }

    fn null_counts(&self, _: &Named) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        None
    }

    fn contained(&self, _: &Named, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
