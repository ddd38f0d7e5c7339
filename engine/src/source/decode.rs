//! Messages in, columns and rejects out.
//!
//! Guarantees: no bytes make it fail or panic; a bad message is a [`Reject`] with its reason, and the good
//! ones around it come out exactly as if it had not been there. arrow-avro does the decoding; two of its
//! habits are fenced off here: it does not roll back a row that fails half way, and a truncated message
//! eats into the next one. So every message must be consumed to its last byte and make one row; on an
//! error the decoder is thrown away and the good messages before it are decoded again.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow_avro::reader::{Decoder as AvroDecoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, SchemaStore};
use bytes::Bytes;

use super::compatible::check_compatible;
use super::contract::{Contract, decoder_json};
use super::event_time::refuse_time;
use super::normalise::normalise;
use super::{Reject, event_schema};

/// One undecoded event of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub offset: i64,
    /// When the source took it in, microseconds UTC.
    pub ingested_at: i64,
    /// Avro single-object encoding: `C3 01`, the writer schema's fingerprint (8 bytes, little endian), the datum.
    pub payload: Bytes,
}

/// What a batch of messages came to: every message is a row of `events` or one of `rejects`.
#[derive(Debug)]
pub struct Decoded {
    pub events: RecordBatch,
    pub rejects: Vec<Reject>,
}

/// Where the schemas that messages were written with are found.
pub trait WriterSchemas: Send + Sync {
    /// The JSON of the schema with this fingerprint, if it is known. An error is the store's own failure.
    fn schema(&self, fingerprint: u64) -> Result<Option<String>, String>;
}

impl WriterSchemas for HashMap<u64, String> {
    fn schema(&self, fingerprint: u64) -> Result<Option<String>, String> {
        Ok(self.get(&fingerprint).cloned())
    }
}

/// Decodes the messages of one source into its contract's columns.
pub struct Decoder {
    contract: Arc<Contract>,
    writers: Arc<dyn WriterSchemas>,
    /// A ready decoder per writer schema, or why that schema can't be read under this contract.
    cache: HashMap<u64, Result<Writer, String>>,
    schema: SchemaRef,
    time: Option<(usize, i64)>,
}

/// What messages of one writer schema are decoded with.
struct Writer {
    json: String,
    ready: Option<AvroDecoder>,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").field("contract", &self.contract.name()).finish_non_exhaustive()
    }
}

/// The prefix of a single-object message: two marker bytes and the fingerprint.
pub const HEADER_LEN: usize = 10;
const MARKER: [u8; 2] = [0xC3, 0x01];
/// arrow-avro counts rows down from here; a run never reaches it.
const RUN_LIMIT: usize = 1 << 16;

impl Decoder {
    /// A decoder for events of `contract`. `time` names the event-time column and how far (in microseconds)
    /// an event may lie in the future of its own ingestion before it is refused.
    ///
    /// Fails when the column is not one of the contract's timestamps.
    pub fn new(
        contract: Arc<Contract>,
        writers: Arc<dyn WriterSchemas>,
        time: Option<(&str, i64)>,
    ) -> Result<Decoder, String> {
        let time = time
            .map(|(column, max_future)| {
                let (index, field) = contract.columns().column_with_name(column).ok_or_else(|| {
                    format!("contract {} has no column \"{column}\" to take the event time from", contract.name())
                })?;
                match field.data_type() {
                    DataType::Timestamp(TimeUnit::Microsecond, _) => Ok((index, max_future)),
                    other => Err(format!(
                        "column \"{column}\" of contract {} is {other}; expected a timestamp; hint: {}",
                        contract.name(),
                        r#"use {"type": "long", "logicalType": "timestamp-micros"}"#
                    )),
                }
            })
            .transpose()?;
        let schema = event_schema(contract.columns());
        Ok(Decoder { contract, writers, cache: HashMap::new(), schema, time })
    }

    /// The contract's columns, then the platform's own.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Decodes messages of one partition, in offset order. Fails only if the schema store fails.
    pub fn decode(&mut self, partition: i32, messages: &[Message]) -> Result<Decoded, String> {
        let mut rejects = Vec::new();
        let mut batches = Vec::new();
        let mut rest = messages;
        while let Some(first) = rest.first() {
            let writer = header(&first.payload);
            let same = rest.iter().take(RUN_LIMIT).take_while(|m| header(&m.payload) == writer).count();
            let (run, tail) = rest.split_at(same);
            rest = tail;
            let ready = match writer {
                Ok(fingerprint) => self.prepare(fingerprint)?.map(|()| fingerprint),
                Err(reason) => Err(reason),
            };
            match ready {
                Ok(fingerprint) => self.decode_run(fingerprint, partition, run, &mut batches, &mut rejects)?,
                Err(reason) => rejects.extend(run.iter().map(|m| reject(m, reason.clone()))),
            }
        }
        let events = concat_batches(&self.schema, &batches).map_err(|e| e.to_string())?;
        rejects.sort_by_key(|r| r.offset);
        Ok(Decoded { events, rejects })
    }

    /// Makes sure that there is a decoder for a writer schema, or says why there can't be one.
    fn prepare(&mut self, fingerprint: u64) -> Result<Result<(), String>, String> {
        if !self.cache.contains_key(&fingerprint) {
            let json = if fingerprint == self.contract.fingerprint() {
                Some(self.contract.json().to_owned())
            } else {
                self.writers.schema(fingerprint)?
            };
            let Some(json) = json else {
                // Not cached: the schema may be registered later.
                return Ok(Err(format!(
                    "unknown writer schema {fingerprint:016x}; expected one that is registered, such as {:016x} ({})",
                    self.contract.fingerprint(),
                    self.contract.name()
                )));
            };
            let writer = check_compatible(&json, &self.contract)
                .and_then(|()| build(&json, &self.contract, fingerprint))
                .map(|ready| Writer { json, ready: Some(ready) })
                .map_err(|cause| {
                    format!("writer schema {fingerprint:016x} can't be read as {}: {cause}", self.contract.name())
                });
            self.cache.insert(fingerprint, writer);
        }
        Ok(match self.cache.get(&fingerprint) {
            Some(Err(cause)) => Err(cause.clone()),
            _ => Ok(()),
        })
    }

    /// Decodes a run of messages of one writer schema; the bad ones become rejects.
    fn decode_run(
        &mut self,
        fingerprint: u64,
        partition: i32,
        run: &[Message],
        batches: &mut Vec<RecordBatch>,
        rejects: &mut Vec<Reject>,
    ) -> Result<(), String> {
        let mut pending = vec![run];
        while let Some(run) = pending.pop() {
            if run.is_empty() {
                continue;
            }
            match self.try_run(fingerprint, run) {
                Ok(columns) => self.finish_run(partition, run, columns, batches, rejects)?,
                // What failed is known: the messages before it are good, those after it not yet seen.
                Err(Failure { at: Some(at), reason }) => {
                    let (before, rest) = run.split_at(at);
                    if let Some((bad, after)) = rest.split_first() {
                        rejects.push(reject(bad, reason));
                        pending.push(after);
                    }
                    pending.push(before);
                }
                Err(Failure { at: None, reason }) => match run {
                    [bad] => rejects.push(reject(bad, reason)),
                    _ => {
                        let (left, right) = run.split_at(run.len() / 2);
                        pending.push(right);
                        pending.push(left);
                    }
                },
            }
        }
        Ok(())
    }

    /// All messages of a run as the contract's columns, or the first thing that is wrong.
    fn try_run(&mut self, fingerprint: u64, run: &[Message]) -> Result<Vec<ArrayRef>, Failure> {
        let whole_run = |reason: String| Failure { at: None, reason };
        let Some(Ok(writer)) = self.cache.get_mut(&fingerprint) else {
            return Err(whole_run("the decoder is missing".into()));
        };
        let mut decoder = match writer.ready.take() {
            Some(ready) => ready,
            None => build(&writer.json, &self.contract, fingerprint).map_err(whole_run)?,
        };
        for (at, message) in run.iter().enumerate() {
            let capacity = decoder.capacity();
            let failed = match decoder.decode(&message.payload) {
                Err(e) => Some(e.to_string()),
                Ok(_) if decoder.capacity() == capacity => Some("the message ends in the middle of a field".into()),
                Ok(used) if used != message.payload.len() || decoder.capacity() + 1 != capacity => {
                    Some("bytes left over after the last field".into())
                }
                Ok(_) => None,
            };
            if let Some(reason) = failed {
                return Err(Failure { at: Some(at), reason });
            }
        }
        let batch = decoder.flush().map_err(|e| whole_run(e.to_string()))?;
        let batch = batch.ok_or_else(|| whole_run("no row came out".into()))?;
        if batch.num_rows() != run.len() {
            return Err(whole_run(format!("{} messages made {} rows", run.len(), batch.num_rows())));
        }
        let columns = normalise(&batch, &self.contract).map_err(whole_run)?;
        // Only a decoder whose rows all came out well is used again.
        writer.ready = Some(decoder);
        Ok(columns)
    }

    /// Adds the platform's columns to a run that decoded, and takes out the rows whose time is refused.
    fn finish_run(
        &self,
        partition: i32,
        run: &[Message],
        mut columns: Vec<ArrayRef>,
        batches: &mut Vec<RecordBatch>,
        rejects: &mut Vec<Reject>,
    ) -> Result<(), String> {
        let refused: Vec<Option<String>> = match self.time {
            Some((column, max_future)) => {
                let times = columns[column].as_primitive::<TimestampMicrosecondType>();
                let name = self.contract.columns().field(column).name();
                let time_of = |row: usize| times.is_valid(row).then(|| times.value(row));
                run.iter().enumerate().map(|(i, m)| refuse_time(name, time_of(i), m.ingested_at, max_future)).collect()
            }
            None => vec![None; run.len()],
        };
        columns.push(Arc::new(Int32Array::from(vec![partition; run.len()])));
        columns.push(Arc::new(run.iter().map(|m| m.offset).collect::<Int64Array>()));
        let ingested: TimestampMicrosecondArray = run.iter().map(|m| Some(m.ingested_at)).collect();
        columns.push(Arc::new(ingested.with_timezone("UTC")));
        let mut batch = RecordBatch::try_new(self.schema(), columns).map_err(|e| e.to_string())?;
        if refused.iter().any(Option::is_some) {
            let keep: BooleanArray = refused.iter().map(|r| Some(r.is_none())).collect();
            batch = filter_record_batch(&batch, &keep).map_err(|e| e.to_string())?;
            rejects.extend(run.iter().zip(refused).filter_map(|(m, reason)| reason.map(|reason| reject(m, reason))));
        }
        batches.push(batch);
        Ok(())
    }
}

struct Failure {
    /// Which message of the run failed, when that is known.
    at: Option<usize>,
    reason: String,
}

fn reject(message: &Message, reason: String) -> Reject {
    Reject { offset: message.offset, ingested_at: message.ingested_at, payload: message.payload.clone(), reason }
}

/// The fingerprint of the schema that a message says it was written with.
fn header(payload: &[u8]) -> Result<u64, String> {
    match payload {
        [] => Err("the message is empty".into()),
        [0xC3, 0x01, a, b, c, d, e, f, g, h, ..] => Ok(u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h])),
        [0xC3, 0x01, ..] => Err("the message ends within its header; expected c3 01 and 8 bytes of fingerprint".into()),
        [first, ..] => Err(format!(
            "the message starts with byte {first:02x}; expected Avro single-object encoding, which starts with c3 01"
        )),
    }
}

/// The header of a message written with the schema of this fingerprint.
pub(super) fn write_header(fingerprint: u64, payload: &mut Vec<u8>) {
    payload.extend_from_slice(&MARKER);
    payload.extend_from_slice(&fingerprint.to_le_bytes());
}

fn build(writer_json: &str, contract: &Contract, fingerprint: u64) -> Result<AvroDecoder, String> {
    let for_decoder = |json: &str| -> Result<AvroSchema, String> {
        let json = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Ok(AvroSchema::new(decoder_json(&json).to_string()))
    };
    let mut store = SchemaStore::new();
    store.set(Fingerprint::Rabin(fingerprint), for_decoder(writer_json)?).map_err(|e| e.to_string())?;
    ReaderBuilder::new()
        .with_writer_schema_store(store)
        .with_reader_schema(for_decoder(contract.json())?)
        .with_batch_size(RUN_LIMIT + 1)
        .build_decoder()
        .map_err(|e| e.to_string())
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
