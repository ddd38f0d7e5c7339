//! What librdkafka calls back, on the consumer's own thread: rebalances, statistics, complaints.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, RebalanceProtocol};
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::buffer::Buffer;
use super::shared::Shared;

/// Keeps what the reader sees up to date.
#[derive(Debug)]
pub struct Context {
    pub(super) shared: Arc<Shared>,
}

impl ClientContext for Context {
    fn stats(&self, statistics: Statistics) {
        let mut state = self.shared.lock();
        let connected = statistics.brokers.values().any(|broker| broker.state == "UP" && broker.nodeid >= 0);
        match connected {
            true if state.assigned => state.error = None,
            true => {}
            false => {
                let why = || self.shared.complaint.text().unwrap_or_else(|| "no broker is connected".to_owned());
                state.error.get_or_insert_with(why);
                self.shared.tell();
            }
        }
        let Some(topic) = statistics.topics.get(&self.shared.topic) else { return };
        for (partition, of_partition) in &topic.partitions {
            if let Some((_, buffer)) = state.partitions.get_mut(partition)
                && of_partition.hi_offset >= 0
            {
                buffer.ended_at(of_partition.hi_offset);
            }
        }
    }

    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        self.shared.complaint.hear_log(facility, line);
    }

    fn error(&self, error: ClientError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::PartitionEOF) {
            return;
        }
        self.shared.complaint.hear(&error, reason);
        let mut state = self.shared.lock();
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) || !state.assigned {
            state.error = Some(self.shared.complaint.text().unwrap_or_else(|| reason.to_owned()));
            drop(state);
            self.shared.tell();
        }
    }
}

impl ConsumerContext for Context {
    /// Partitions begin at their first offset, until the reader says where. Were they to begin at the committed one, the
    /// broker's answer could come after the reader's seek and overrule it, and what lies between would be skipped: from
    /// the first offset on nothing is, whichever comes last.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let cooperative = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let done = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.pre_rebalance(consumer, &Rebalance::Assign(partitions));
                partitions.set_all_offsets(Offset::Offset(0)).and_then(|()| match cooperative {
                    true => consumer.incremental_assign(partitions),
                    false => consumer.assign(partitions),
                })
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS => {
                self.pre_rebalance(consumer, &Rebalance::Revoke(partitions));
                match cooperative {
                    true => consumer.incremental_unassign(partitions),
                    false => consumer.unassign(),
                }
            }
            other => {
                self.pre_rebalance(consumer, &Rebalance::Error(ClientError::Rebalance(other.into())));
                consumer.unassign()
            }
        };
        if let Err(error) = done {
            self.shared.lock().error = Some(error.to_string());
            self.shared.tell();
        }
    }

    /// Before they are given up: from here on nothing of them is read.
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let generation = self.shared.generation.fetch_add(1, Ordering::AcqRel) + 1;
        let mut state = self.shared.lock();
        match rebalance {
            Rebalance::Assign(partitions) => {
                for element in partitions.elements() {
                    state.partitions.insert(element.partition(), (generation, Buffer::default()));
                }
                state.assigned = true;
                state.error = None;
            }
            Rebalance::Revoke(partitions) => {
                for element in partitions.elements() {
                    state.partitions.remove(&element.partition());
                }
            }
            Rebalance::Error(error) => state.error = Some(error.to_string()),
        }
        drop(state);
        self.shared.metrics.rebalances.with_label_values(&[&self.shared.source]).inc();
        self.shared.tell();
    }
}
