//! The production stream against real services: Kafka, a schema registry and Redis, as `infra/services` starts them.
//!
//! Every test ends by comparing every online value and every archived row with a run over the same topic that nothing
//! ever disturbed.

mod faults;
mod harness;
mod letters;
mod moving;
mod redis;
mod topic;
mod verbs;
