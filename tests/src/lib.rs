//! What the tests of devices, families and backends share.

pub mod devices;
pub mod fixtures;
