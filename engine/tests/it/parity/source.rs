//! A stream of events in memory, read in batches of random size; it may fail half way, as a process that is killed does.

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int64Type, SchemaRef};
use async_trait::async_trait;
use rand::RngExt;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use tidemark_engine::source::{EventSource, OFFSET, SourceBatch, SourceError};

use super::events::{Event, batch};

#[derive(Debug, Clone)]
pub struct Memory {
    schema: SchemaRef,
    /// By partition, in offset order.
    partitions: Vec<RecordBatch>,
    rng: ChaCha8Rng,
    /// The most events in a batch.
    most: usize,
    /// Reads until it fails.
    pub fails_after: Option<usize>,
}

impl Memory {
    pub fn new(events: &[Event], partitions: i32, schema: SchemaRef, rng: ChaCha8Rng, most: usize) -> Self {
        let of = |partition| batch(&events.iter().filter(|e| e.partition == partition).collect::<Vec<_>>(), &schema);
        Self { partitions: (0..partitions).map(of).collect(), schema, rng, most, fails_after: None }
    }

    fn offsets(&self, partition: i32) -> &[i64] {
        self.partitions[partition as usize].column_by_name(OFFSET).unwrap().as_primitive::<Int64Type>().values()
    }
}

#[async_trait]
impl EventSource for Memory {
    fn name(&self) -> &str {
        "events"
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    async fn partitions(&mut self) -> Result<Vec<i32>, SourceError> {
        let mut partitions: Vec<i32> = (0..self.partitions.len() as i32).collect();
        partitions.shuffle(&mut self.rng);
        Ok(partitions)
    }

    async fn end_offset(&mut self, partition: i32) -> Result<i64, SourceError> {
        Ok(self.offsets(partition).last().map_or(0, |last| last + 1))
    }

    async fn read(
        &mut self,
        partition: i32,
        from: i64,
        max_records: usize,
    ) -> Result<Option<SourceBatch>, SourceError> {
        if let Some(left) = &mut self.fails_after {
            if *left == 0 {
                return Err(SourceError::Internal { source_name: "events".into(), what: "killed".into() });
            }
            *left -= 1;
        }
        let most = self.rng.random_range(1..=self.most.min(max_records));
        let offsets = self.offsets(partition);
        let start = offsets.partition_point(|o| *o < from);
        let count = most.min(offsets.len() - start);
        if count == 0 {
            return Ok(None);
        }
        Ok(Some(SourceBatch {
            partition,
            first_offset: from,
            next_offset: offsets[start + count - 1] + 1,
            events: self.partitions[partition as usize].slice(start, count),
            rejects: vec![],
        }))
    }

    async fn wait(&mut self) {
        // A fill that runs beside has its turn.
        tokio::task::yield_now().await;
    }
}
