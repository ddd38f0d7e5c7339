//! An expression that failed on the data that it was given: the words that REST and training sets say it with.

use std::fmt;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// Which feature can't be computed, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The column of the definition, where it is known.
    pub feature: Option<String>,
    pub cause: String,
    pub hint: Option<&'static str>,
}

impl Failure {
    /// `None` for an error that is not the data's: that is our fault.
    pub fn of(error: &DataFusionError) -> Option<Self> {
        let feature = match error {
            DataFusionError::Context(feature, _) => Some(feature.clone()),
            _ => None,
        };
        let cause = match error.find_root() {
            DataFusionError::ArrowError(cause, _) => match cause.as_ref() {
                ArrowError::DivideByZero
                | ArrowError::ArithmeticOverflow(_)
                | ArrowError::ComputeError(_)
                | ArrowError::CastError(_)
                | ArrowError::ParseError(_)
                | ArrowError::InvalidArgumentError(_) => cause.to_string(),
                _ => return None,
            },
            DataFusionError::Execution(message) => message.clone(),
            _ => return None,
        };
        let hint =
            cause.to_lowercase().contains("divide by zero").then_some("guard it in the definition: a / NULLIF(b, 0)");
        Some(Self { feature, cause, hint })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(feature) = &self.feature {
            write!(f, "feature {feature}: ")?;
        }
        f.write_str(&self.cause)?;
        self.hint.map_or(Ok(()), |hint| write!(f, "; hint: {hint}"))
    }
}
