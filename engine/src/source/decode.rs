//! Messages in, columns and rejects out.
//!
//! Guarantees: no bytes make it fail or panic; a bad message is a [`Reject`] with its reason, and the good
//! ones around it come out exactly as if it had not been there. What another schema wrote is read by Avro's
//! rules of resolution, or rejected. Messages of both framings and of any schemas may be mixed.
//!
//! arrow-avro does the decoding; two of its habits are fenced off here: it does not roll back a row that fails
//! half way, and a truncated message eats into the next one. So every message must be consumed to its last byte
//! and make one row; on an error the decoder is thrown away and the good messages before it are decoded again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int32Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use arrow_avro::reader::{Decoder as AvroDecoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, SchemaStore};
use bytes::Bytes;

use super::compatible::check_compatible;
use super::contract::Contract;
use super::event_time::refuse_time;
use super::framing::WriterId;
use super::inline::inline;
use super::normalise::normalise;
use super::{Reject, event_schema};

/// One undecoded event of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub offset: i64,
    /// When the source took it in, microseconds UTC.
    pub ingested_at: i64,
    /// A datum behind what names its writer's schema, see [`super::framing`]. Empty where the source had no value.
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
    /// The JSON of the schema with this name, if it is known. An error is the store's own failure.
    fn schema(&self, writer: WriterId) -> Result<Option<String>, String>;
}

impl WriterSchemas for HashMap<WriterId, String> {
    fn schema(&self, writer: WriterId) -> Result<Option<String>, String> {
        Ok(self.get(&writer).cloned())
    }
}

/// Decodes the messages of one source into its contract's columns.
pub struct Decoder {
    contract: Arc<Contract>,
    writers: Arc<dyn WriterSchemas>,
    /// A ready decoder per writer schema, or why that schema can't be read under this contract.
    cache: HashMap<WriterId, Result<Writer, String>>,
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
        // Asked for once in a batch, however many of its messages say so.
        let mut unknown = HashSet::new();
        let mut rest = messages;
        while let Some(first) = rest.first() {
            let writer = WriterId::of(&first.payload);
            let same = rest.iter().take(RUN_LIMIT).take_while(|m| WriterId::of(&m.payload) == writer).count();
            let (run, tail) = rest.split_at(same);
            rest = tail;
            let ready = match writer {
                Ok(writer) => self.prepare(writer, &mut unknown)?.map(|()| writer),
                Err(reason) => Err(reason),
            };
            match ready {
                Ok(writer) => self.decode_run(writer, partition, run, &mut batches, &mut rejects)?,
                Err(reason) => rejects.extend(run.iter().map(|m| reject(m, reason.clone()))),
            }
        }
        let events = concat_batches(&self.schema, &batches).map_err(|e| e.to_string())?;
        rejects.sort_by_key(|r| r.offset);
        Ok(Decoded { events, rejects })
    }

    /// Makes sure that there is a decoder for a writer schema, or says why there can't be one.
    fn prepare(&mut self, writer: WriterId, unknown: &mut HashSet<WriterId>) -> Result<Result<(), String>, String> {
        if !self.cache.contains_key(&writer) {
            let json = if writer == WriterId::Rabin(self.contract.fingerprint()) {
                Some(self.contract.json().to_owned())
            } else if unknown.contains(&writer) {
                None
            } else {
                self.writers.schema(writer)?
            };
            let Some(json) = json else {
                // Not cached: the schema may be registered later.
                unknown.insert(writer);
                return Ok(Err(self.unknown(writer)));
            };
            let ready = check_compatible(&json, &self.contract)
                .and_then(|()| build(&json, &self.contract, writer))
                .map(|ready| Writer { json, ready: Some(ready) })
                .map_err(|cause| format!("writer schema {writer} can't be read as {}: {cause}", self.contract.name()));
            self.cache.insert(writer, ready);
        }
        Ok(match self.cache.get(&writer) {
            Some(Err(cause)) => Err(cause.clone()),
            _ => Ok(()),
        })
    }

    fn unknown(&self, writer: WriterId) -> String {
        match writer {
            WriterId::Rabin(_) => format!(
                "unknown writer schema {writer}; expected one that is registered, such as {} ({})",
                WriterId::Rabin(self.contract.fingerprint()),
                self.contract.name()
            ),
            WriterId::Registry(_) => format!(
                "unknown writer schema {writer}; expected one that the schema registry knows; \
                 hint: the producer may use another registry, or its schema was deleted"
            ),
        }
    }

    /// Decodes a run of messages of one writer schema; the bad ones become rejects.
    fn decode_run(
        &mut self,
        writer: WriterId,
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
            match self.try_run(writer, run) {
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
    fn try_run(&mut self, id: WriterId, run: &[Message]) -> Result<Vec<ArrayRef>, Failure> {
        let whole_run = |reason: String| Failure { at: None, reason };
        let Some(Ok(writer)) = self.cache.get_mut(&id) else {
            return Err(whole_run("the decoder is missing".into()));
        };
        let mut decoder = match writer.ready.take() {
            Some(ready) => ready,
            None => build(&writer.json, &self.contract, id).map_err(whole_run)?,
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

/// A decoder of what a schema wrote, into the types of a contract.
pub(super) fn build(writer_json: &str, contract: &Contract, writer: WriterId) -> Result<AvroDecoder, String> {
    let for_decoder = |json: &str| -> Result<AvroSchema, String> {
        let json = serde_json::from_str(json).map_err(|e| e.to_string())?;
        Ok(AvroSchema::new(inline(&json)?.to_string()))
    };
    let (fingerprint, algorithm) = writer.fingerprint();
    let mut store = SchemaStore::new_with_type(algorithm);
    store.set(fingerprint, for_decoder(writer_json)?).map_err(|e| e.to_string())?;
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

#[cfg(test)]
#[path = "resolution_tests.rs"]
mod resolution_tests;
