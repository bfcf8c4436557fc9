//! What the tests of devices, families and backends share.

pub mod devices;
pub mod engines;
pub mod fixtures;
pub mod spy;
