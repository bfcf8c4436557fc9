//! What the tests of devices, families and backends share.

pub mod card;
pub mod decoding;
pub mod engines;
pub mod fixtures;
pub mod gguf;
pub mod golden;
pub mod gpu;
pub mod greedy;
pub mod metal;
pub mod quantised;
pub mod spy;
