//! Every other aggregate: DataFusion's own accumulator over a frame's rows, in the timeline's order.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{cast, filter};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::function::AccumulatorArgs;
use datafusion::logical_expr::{Accumulator, AggregateUDF};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, Literal};

use super::Input;
use crate::kernel::KernelError;
use crate::kernel::spec::Argument;

/// An aggregate that runs through its own accumulator, fresh for every frame.
#[derive(Debug, Clone)]
pub(crate) struct Generic {
    function: Arc<AggregateUDF>,
    distinct: bool,
    ignore_nulls: bool,
    schema: Schema,
    exprs: Vec<Arc<dyn PhysicalExpr>>,
    expr_fields: Vec<FieldRef>,
    /// What the accumulator is told that it returns, and what the aggregate returns.
    output: FieldRef,
}

impl Generic {
    /// `fields` are those of the arguments: a constant's has its type.
    pub fn new(
        function: &Arc<AggregateUDF>,
        args: &[Argument],
        fields: Vec<Field>,
        distinct: bool,
        ignore_nulls: bool,
        output: &FieldRef,
    ) -> Result<Self, KernelError> {
        let exprs = args.iter().zip(&fields).enumerate().map(|(index, (arg, field))| -> Arc<dyn PhysicalExpr> {
            match arg {
                Argument::Column(_) => Arc::new(Column::new(field.name(), index)),
                Argument::Constant(value) => Arc::new(Literal::new(value.clone())),
            }
        });
        let generic = Generic {
            function: Arc::clone(function),
            distinct,
            ignore_nulls,
            exprs: exprs.collect(),
            expr_fields: fields.iter().cloned().map(Arc::new).collect(),
            schema: Schema::new(fields),
            output: Arc::clone(output),
        };
        // What the accumulator refuses (types, missing constants) is known now, not at the first event.
        generic.accumulator()?;
        Ok(generic)
    }

    /// The result over the rows of a range that count.
    pub fn evaluate(&self, input: &Input, range: Range<usize>) -> Result<ScalarValue, KernelError> {
        let mut accumulator = self.accumulator()?;
        let mut length = range.len();
        let mut columns: Vec<ArrayRef> = input.args.iter().map(|arg| arg.slice(range.start, range.len())).collect();
        if let Some(mask) = &input.mask {
            let mask: BooleanBuffer = mask.slice(range.start, range.len());
            length = mask.count_set_bits();
            let mask = BooleanArray::new(mask, None);
            columns = columns.iter().map(|column| filter(column, &mask)).collect::<Result<_, _>>()?;
        }
        if length > 0 {
            accumulator.update_batch(&columns)?;
        }
        Ok(accumulator.evaluate()?)
    }

    /// Results as a column of the aggregate's type; `None` is NULL.
    pub fn build(&self, values: Vec<Option<ScalarValue>>) -> Result<ArrayRef, KernelError> {
        let data_type: DataType =
            values.iter().flatten().next().map_or(self.output.data_type().clone(), ScalarValue::data_type);
        let null = ScalarValue::try_from(&data_type)?;
        let column = ScalarValue::iter_to_array(values.into_iter().map(|value| value.unwrap_or_else(|| null.clone())))?;
        to_type(column, self.output.data_type())
    }

    fn accumulator(&self) -> Result<Box<dyn Accumulator>, KernelError> {
        Ok(self.function.accumulator(AccumulatorArgs {
            return_field: Arc::clone(&self.output),
            schema: &self.schema,
            ignore_nulls: self.ignore_nulls,
            order_bys: &[],
            is_reversed: false,
            name: self.output.name(),
            is_distinct: self.distinct,
            exprs: &self.exprs,
            expr_fields: &self.expr_fields,
        })?)
    }
}

/// A column in exactly this type.
pub(crate) fn to_type(column: ArrayRef, data_type: &DataType) -> Result<ArrayRef, KernelError> {
    if column.data_type() == data_type { Ok(column) } else { Ok(cast(&column, data_type)?) }
}
