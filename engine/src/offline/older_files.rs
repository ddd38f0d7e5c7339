//! Files that were written before a contract grew, read under the contract of today.
//!
//! Guarantee: the columns that a file lacks, or has in a narrower type or under another name, are read as a replay of its
//! events reads them (Avro's rules of resolution); where a replay would refuse the events, so does this, by name.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{Column, cast, lit};
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};

use crate::source::Contract;

/// Reads the files of one source.
#[derive(Debug, Clone)]
pub(super) struct OlderFiles {
    source: String,
    contract: Arc<Contract>,
    defaults: Arc<HashMap<String, ScalarValue>>,
}

impl OlderFiles {
    pub(super) fn new(source: &str, contract: Arc<Contract>) -> Result<Self, String> {
        let mut defaults = HashMap::new();
        for (field, default) in contract.columns().fields().iter().zip(contract.defaults()?) {
            if let Some(default) = default {
                let value = ScalarValue::try_from_array(&default, 0).map_err(|e| e.to_string())?;
                defaults.insert(field.name().clone(), value);
            }
        }
        Ok(Self { source: source.to_owned(), contract, defaults: Arc::new(defaults) })
    }
}

impl PhysicalExprAdapterFactory for OlderFiles {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let casts = DefaultPhysicalExprAdapterFactory.create(table, file.clone())?;
        Ok(Arc::new(OlderFile { of: self.clone(), file, casts }))
    }
}

/// Reads one file.
#[derive(Debug)]
struct OlderFile {
    of: OlderFiles,
    file: SchemaRef,
    casts: Arc<dyn PhysicalExprAdapter>,
}

impl PhysicalExprAdapter for OlderFile {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let resolved = expr.transform(|expr| match expr.downcast_ref::<Column>() {
            Some(column) => Ok(self.resolve(column.name())?.map_or_else(|| Transformed::no(expr), Transformed::yes)),
            None => Ok(Transformed::no(expr)),
        });
        self.casts.rewrite(resolved.data()?)
    }
}

impl OlderFile {
    /// What stands for a column that the file does not have under its name.
    fn resolve(&self, name: &str) -> Result<Option<Arc<dyn PhysicalExpr>>> {
        let contract = &self.of.contract;
        let Some((index, field)) = contract.columns().column_with_name(name) else {
            return Ok(None);
        };
        let check = |stored: &DataType| match contract.check_promotion(index, stored) {
            Ok(()) => Ok(()),
            Err(cause) => exec_err!(
                "source {}: an archived event {cause}; hint: give a field with a new meaning a new name",
                self.of.source
            ),
        };
        if let Ok(stored) = self.file.field_with_name(name) {
            return check(stored.data_type()).map(|()| None);
        }
        let known = contract.aliases(index).iter().find_map(|alias| self.file.column_with_name(alias));
        if let Some((place, stored)) = known {
            check(stored.data_type())?;
            let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(stored.name(), place));
            return cast(column, &self.file, field.data_type().clone()).map(Some);
        }
        match self.of.defaults.get(name) {
            Some(default) => Ok(Some(lit(default.clone()))),
            None => exec_err!(
                "source {}: archived events from before contract {} had the field `{name}` don't have it, and it has no \
                 default; expected a default, as for every field that is added to a contract; hint: add \"default\" to \
                 the field, null if it may be null",
                self.of.source,
                contract.name()
            ),
        }
    }
}
