//! Entity keys as columns, numbered.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Field, Schema};
use datafusion::common::Result;
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Numbers for keys, from 0 in the order in which they are met.
pub(super) struct Numbers(Box<dyn GroupValues>);

impl Numbers {
    pub fn new(fields: &[Field]) -> Result<Self> {
        Ok(Self(new_group_values(Arc::new(Schema::new(fields.to_vec())), &GroupOrdering::None)?))
    }

    pub fn of(&mut self, keys: &[ArrayRef]) -> Result<Vec<u32>> {
        let mut groups = vec![];
        self.0.intern(keys, &mut groups)?;
        Ok(groups.into_iter().map(|group| group as u32).collect())
    }

    /// How many keys were met.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The keys by their numbers.
    pub fn into_keys(mut self) -> Result<Vec<ArrayRef>> {
        self.0.emit(EmitTo::All)
    }
}
