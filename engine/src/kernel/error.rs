//! What can go wrong in the kernel. Input never panics it: it answers with one of these.

use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

/// An error of the kernel.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A spec that no timeline can hold; found when the kernel is compiled.
    #[error("timeline spec: {0}")]
    Spec(String),
    /// Rows or columns that don't have the shape that the spec names.
    #[error("rows of a timeline: {0}")]
    Rows(String),
    /// A key column of a type that has no canonical text.
    #[error(
        "key column {index}: {data_type} can't be a key: expected an integer, a string, a boolean, a date, a timestamp or a decimal \
         (hint: cast it to one of them in the query)"
    )]
    KeyType { index: usize, data_type: DataType },
    /// A key text that doesn't read back as the key's columns.
    #[error("key {key:?}: {message}")]
    KeyText { key: String, message: String },
    /// A result that its type can't hold.
    #[error("{aggregate}: {message}")]
    Overflow { aggregate: String, message: String },
    /// A fold that needs a chunk which only the store has: [`Kernel::needs`](super::Kernel::needs) says which to load.
    #[error("chunk {chunk} of a timeline is not loaded")]
    NotLoaded { chunk: u32 },
    #[error(transparent)]
    Encoding(#[from] EncodingError),
    #[error(transparent)]
    Arrow(#[from] ArrowError),
    #[error(transparent)]
    DataFusion(Box<DataFusionError>),
}

impl From<DataFusionError> for KernelError {
    fn from(error: DataFusionError) -> Self {
        KernelError::DataFusion(Box::new(error))
    }
}

/// Stored bytes that can't be read back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    #[error(
        "stored timeline: version {found} of the state encoding is unknown, this build reads version {known} \
         (hint: a newer build wrote it; read it with that build, or let the view fill anew)"
    )]
    UnknownVersion { found: u8, known: u8 },
    #[error("stored timeline: bytes end at offset {offset}, more were expected")]
    Truncated { offset: usize },
    #[error("stored timeline: at offset {offset}: {message}")]
    Corrupt { offset: usize, message: String },
}
