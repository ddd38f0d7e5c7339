//! Entity keys as columns: what both sides of a join hold, hash and number.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

use crate::plan::FeatureView;

const HASHES: RandomState = RandomState::with_seed(0x71de_3a4b);

/// A view's key columns, without their names. Whatever a column's encoding, equal values are equal keys.
pub(super) fn key_fields(view: &FeatureView) -> Vec<Field> {
    let types = view.keys.iter().map(|key| match key.data_type() {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    });
    types.enumerate().map(|(i, data_type)| Field::new(format!("key_{i}"), data_type, true)).collect()
}

/// The keys of a view's rows as [`key_fields`] has them.
pub(super) fn key_columns(keys: &[ArrayRef], fields: &[Field]) -> Result<Vec<ArrayRef>> {
    keys.iter().zip(fields).map(|(key, field)| Ok(cast(key, field.data_type())?)).collect()
}

/// A hash for each of so many rows.
pub(super) fn hashes(keys: &[ArrayRef], rows: usize) -> Result<Vec<u64>> {
    let mut hashes = vec![0; rows];
    create_hashes(keys, &HASHES, &mut hashes)?;
    Ok(hashes)
}

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
