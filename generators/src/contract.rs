//! The Avro contracts, built in, and the encoding by them.

use std::io::Cursor;
use std::sync::OnceLock;

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::{Error, Record, Result};

/// `schemas/transactions.v1.avsc`.
pub const TRANSACTIONS_CONTRACT: &str = include_str!("../../schemas/transactions.v1.avsc");
/// `schemas/clicks.v1.avsc`.
pub const CLICKS_CONTRACT: &str = include_str!("../../schemas/clicks.v1.avsc");

/// Encodes records as bare Avro datums (no framing, no header) by their contracts.
pub struct Encoder {
    transactions: GenericDatumWriter<'static>,
    clicks: GenericDatumWriter<'static>,
}

impl Encoder {
    /// Prepares both contracts; make one and keep it.
    pub fn new() -> Result<Self> {
        Ok(Self {
            transactions: writer(transactions_schema()?, "transactions.v1")?,
            clicks: writer(clicks_schema()?, "clicks.v1")?,
        })
    }

    /// Appends the record's datum to `bytes`.
    pub fn encode(&self, record: &Record, bytes: &mut Vec<u8>) -> Result<()> {
        let mut end = Cursor::new(bytes);
        end.set_position(end.get_ref().len() as u64);
        let (contract, written) = match record {
            Record::Transaction(transaction) => ("transactions.v1", self.transactions.write_ser(&mut end, transaction)),
            Record::Click(click) => ("clicks.v1", self.clicks.write_ser(&mut end, click)),
        };
        written.map(drop).map_err(|source| Error::Contract { contract, source: Box::new(source) })
    }
}

/// The contract of transactions, parsed.
pub fn transactions_schema() -> Result<&'static Schema> {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    parsed(&SCHEMA, "transactions.v1", TRANSACTIONS_CONTRACT)
}

/// The contract of clicks, parsed.
pub fn clicks_schema() -> Result<&'static Schema> {
    static SCHEMA: OnceLock<Schema> = OnceLock::new();
    parsed(&SCHEMA, "clicks.v1", CLICKS_CONTRACT)
}

fn parsed(cell: &'static OnceLock<Schema>, contract: &'static str, text: &str) -> Result<&'static Schema> {
    if let Some(schema) = cell.get() {
        return Ok(schema);
    }
    let schema = Schema::parse_str(text).map_err(|source| Error::Contract { contract, source: Box::new(source) })?;
    Ok(cell.get_or_init(|| schema))
}

fn writer(schema: &'static Schema, contract: &'static str) -> Result<GenericDatumWriter<'static>> {
    GenericDatumWriter::builder(schema)
        .human_readable(false)
        .build()
        .map_err(|source| Error::Contract { contract, source: Box::new(source) })
}
