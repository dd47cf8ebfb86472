//! A cluster manager for long-living applications.

mod config;

pub use config::{
    ByteUnit, Codec, Config, ConfigBuilder, ConfigError, ConfigRow, Fallback, KEYS, Key, Kind,
    MasterSettings, Origin, RestSettings, RpcSettings, TimeUnit, Value, WorkerSettings,
    markdown_table, parse_bytes,
};
