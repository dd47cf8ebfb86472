//! The record of what was started in the directory of an application, for the worker after this one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::procfs;
use crate::attempt::Outcome;

/// The version of the record this code writes.
const VERSION: u32 = 1;

/// What was started, and how it ended if it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Facts {
    version: u32,
    pub(super) app_id: String,
    pub(super) attempt: u32,
    /// The leader of the group, whose id is also the group's.
    pub(super) pid: i32,
    pub(super) start_ticks: u64,
    pub(super) boot_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) outcome: Option<Outcome>,
}

impl Facts {
    /// Describes a process that has not been waited for yet.
    pub(super) fn of(app_id: &str, attempt: u32, leader: Pid) -> io::Result<Self> {
        let stat = procfs::stat(leader).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            version: VERSION,
            app_id: app_id.to_owned(),
            attempt,
            pid: leader.as_raw_pid(),
            start_ticks: stat.start_ticks,
            boot_id: procfs::boot_id()?,
            outcome: None,
        })
    }

    /// Where the record lies.
    pub(super) fn path(directory: &Path) -> PathBuf {
        directory.join(".aloha-process.json")
    }

    /// Reads the record, if there is one.
    pub(super) fn read(directory: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(Self::path(directory)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let facts: Self = serde_json::from_slice(&bytes)?;
        // The application can write here too: 1 and below would mean everybody's processes.
        if facts.version != VERSION || facts.pid <= 1 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("version {} or pid {}", facts.version, facts.pid),
            ));
        }
        Ok(Some(facts))
    }

    /// Replaces the record as one. It is not synced: after a loss of power its boot id would be stale anyway.
    pub(super) fn write(&self, directory: &Path) -> io::Result<()> {
        let path = Self::path(directory);
        let unfinished = path.with_extension("new");
        fs::write(&unfinished, serde_json::to_vec(self)?)?;
        fs::rename(&unfinished, &path)
    }

    /// The group's id, while this run of the machine is the one it was started in.
    pub(super) fn group(&self) -> io::Result<Option<Pid>> {
        Ok((procfs::boot_id()? == self.boot_id)
            .then(|| Pid::from_raw(self.pid))
            .flatten())
    }

    /// Whether the leader exists, be it as a zombie. Its group then holds nothing but the application's processes.
    pub(super) fn leader_exists(&self) -> io::Result<bool> {
        Ok(self
            .group()?
            .and_then(procfs::stat)
            .is_some_and(|stat| stat.start_ticks == self.start_ticks && stat.group == self.pid))
    }
}
