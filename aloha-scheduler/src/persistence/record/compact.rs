//! An application as it is stored: without what is as it is by default. That halves the record, and what the disk does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;

use crate::app::{AppDescription, AppState, Transition};
use crate::constraint::Constraint;
use crate::ids::AppId;
use crate::limits::{ProcessLimits, StopPolicy};
use crate::master::AppRecord;
use crate::restart::RestartPolicy;

/// An [`AppRecord`], which is what it is read as.
#[derive(Debug, Serialize)]
pub(super) struct CompactApp<'a> {
    id: &'a AppId,
    number: u64,
    #[serde(skip_serializing_if = "is_default")]
    key: &'a Option<Arc<str>>,
    description: CompactDescription<'a>,
    state: &'a AppState,
    #[serde(skip_serializing_if = "is_default")]
    attempt: &'a u32,
    #[serde(skip_serializing_if = "is_default")]
    kill_requested: &'a bool,
    submitted_at: u64,
    #[serde(skip_serializing_if = "is_default")]
    restarts_in_a_row: &'a u32,
    #[serde(skip_serializing_if = "is_default")]
    overran: &'a bool,
    #[serde(skip_serializing_if = "is_default")]
    evicted: &'a bool,
    #[serde(skip_serializing_if = "is_default")]
    history: &'a Vec<Transition>,
}

#[derive(Debug, Serialize)]
pub(super) struct CompactDescription<'a> {
    name: &'a str,
    entry_point: &'a str,
    #[serde(skip_serializing_if = "is_default")]
    libs: &'a Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    args: &'a Vec<String>,
    cores: u32,
    memory_mib: u64,
    #[serde(skip_serializing_if = "is_default")]
    supervise: &'a bool,
    #[serde(skip_serializing_if = "is_default")]
    environment: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "is_default")]
    stop: &'a StopPolicy,
    #[serde(skip_serializing_if = "is_default")]
    limits: &'a ProcessLimits,
    #[serde(skip_serializing_if = "is_default")]
    priority: &'a i32,
    #[serde(skip_serializing_if = "is_default")]
    restart: &'a RestartPolicy,
    #[serde(skip_serializing_if = "is_default")]
    run_millis_max: &'a Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    constraints: &'a BTreeSet<Constraint>,
    #[serde(skip_serializing_if = "is_default")]
    tags: &'a BTreeSet<String>,
}

fn is_default<T: Default + PartialEq>(value: &&T) -> bool {
    **value == T::default()
}

// Taken apart without `..`: what is added to either is added here, or this does not compile.

impl<'a> From<&'a AppRecord> for CompactApp<'a> {
    fn from(app: &'a AppRecord) -> Self {
        let AppRecord {
            id,
            number,
            key,
            description,
            state,
            attempt,
            kill_requested,
            submitted_at,
            restarts_in_a_row,
            overran,
            evicted,
            history,
        } = app;
        Self {
            id,
            number: *number,
            key,
            description: (&**description).into(),
            state,
            attempt,
            kill_requested,
            submitted_at: *submitted_at,
            restarts_in_a_row,
            overran,
            evicted,
            history,
        }
    }
}

impl<'a> From<&'a AppDescription> for CompactDescription<'a> {
    fn from(description: &'a AppDescription) -> Self {
        let AppDescription {
            name,
            entry_point,
            libs,
            args,
            cores,
            memory_mib,
            supervise,
            environment,
            stop,
            limits,
            priority,
            restart,
            run_millis_max,
            constraints,
            tags,
        } = description;
        Self {
            name,
            entry_point,
            libs,
            args,
            cores: *cores,
            memory_mib: *memory_mib,
            supervise,
            environment,
            stop,
            limits,
            priority,
            restart,
            run_millis_max,
            constraints,
            tags,
        }
    }
}
