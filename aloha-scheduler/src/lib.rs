//! A cluster manager for long-living applications.

mod config;
mod rest;
mod worker;

pub use config::{
    ByteUnit, Codec, Config, ConfigBuilder, ConfigError, ConfigRow, Fallback, KEYS, Key, Kind,
    MasterSettings, Origin, RestSettings, RpcSettings, TimeUnit, Value, WorkerSettings,
    markdown_table, parse_bytes,
};
pub use rest::{
    ExposureError, GatewayError, KillAnswer, RestGuard, RestLimits, RestToken, Submission,
    SubmissionGateway, SubmissionStatus, SubmitAnswer, TokenError, rest_router, serve_rest,
};
pub use worker::{
    AdoptError, Adopted, LaunchError, LaunchSpec, Launcher, LogChunk, LogError, LogStream, Outcome,
    ProcessLauncher, RunningApp, Signal, SignalError, read_log,
};
