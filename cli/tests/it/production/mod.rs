//! The production stream against real services: Kafka, a schema registry and Redis, as `infra/services` starts them.
//!
//! Tests of faults, of several engines and of a cluster end by comparing every online value, every archived row and every dead
//! letter with a run over the same topic that nothing ever disturbed, and counts with what was sent. The others are about
//! what a topic or a verb may do, and say themselves what must come of it.

mod cluster;
mod faults;
mod handover;
pub mod harness;
mod letters;
mod moving;
mod past;
mod redis;
mod retention;
mod secure;
mod topic;
mod verbs;
