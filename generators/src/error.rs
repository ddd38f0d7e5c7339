use std::path::PathBuf;

/// What can go wrong: a setting out of range, or a file that can't be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("generator setting `{field}` is {value}, expected {expected}")]
    Setting { field: &'static str, value: String, expected: &'static str },

    #[error("unknown format '{value}', expected one of 'parquet', 'avro', 'ndjson'")]
    Format { value: String },

    #[error("empty history: it would end at {to} but starts at {from}; give an end after the start")]
    EmptyRange { from: String, to: String },

    #[error(
        "instant {micros} µs since 1970 lies outside the years that a calendar date can name; give an instant of our era"
    )]
    Instant { micros: i64 },

    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },

    #[error("cannot write Parquet to {}: {source}", path.display())]
    Parquet { path: PathBuf, source: parquet::errors::ParquetError },

    #[error("cannot write Avro to {}: {source}", path.display())]
    AvroFile { path: PathBuf, source: Box<apache_avro::Error> },

    #[error("cannot write JSON to {}: {source}", path.display())]
    JsonFile { path: PathBuf, source: serde_json::Error },

    #[error("the contract {contract} does not fit the generator's record: {source}")]
    Contract { contract: &'static str, source: Box<apache_avro::Error> },

    #[error("cannot build a record batch of {what}: {source}")]
    Batch { what: &'static str, source: arrow::error::ArrowError },

    #[error("cannot write an event as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
