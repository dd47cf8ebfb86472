//! What is looked at, all at about one moment.

use std::collections::BTreeSet;

use aloha_scheduler::master::WorkerStatus;
use aloha_scheduler::worker::LogStream;
use aloha_scheduler::{
    AppId, AppPhase, AppStatus, AppsQuery, AppsSort, ClientError, ClusterStatus, LogAnswer,
    LogRequest, MasterClient,
};

use crate::cluster::Masters;

/// How many applications of a kind are shown: those that run, wait, and have ended.
const APPS_MAX: u32 = 500;
/// How much of an output is shown.
const TAIL_BYTES: u32 = 8 << 10;

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    pub(super) cluster: ClusterStatus,
    pub(super) masters: Masters,
    /// Those that run, then those that wait, then those that ended last; not all where there are very many.
    pub(super) apps: Vec<AppStatus>,
    pub(super) workers: Vec<WorkerStatus>,
}

/// An application that is looked at more closely.
#[derive(Debug, Clone)]
pub(super) struct Detail {
    pub(super) status: AppStatus,
    /// The end of its standard output, or why there is none.
    pub(super) tail: Result<String, String>,
}

impl Snapshot {
    pub(super) async fn take(master: &MasterClient) -> Result<Self, ClientError> {
        let cluster = master.cluster().await?;
        let workers = master.workers().await?;
        let of = |is_wanted: fn(AppPhase) -> bool, sort, descending| {
            let states: BTreeSet<_> = AppPhase::ALL
                .into_iter()
                .filter(|p| is_wanted(*p))
                .collect();
            master.apps_page(AppsQuery {
                states,
                sort,
                descending,
                limit: Some(APPS_MAX),
                ..AppsQuery::default()
            })
        };
        let mut apps = of(AppPhase::is_placed, AppsSort::Started, true).await?.apps;
        let waits = |phase: AppPhase| !phase.is_placed() && !phase.is_final();
        apps.extend(of(waits, AppsSort::Priority, true).await?.apps);
        apps.extend(of(AppPhase::is_final, AppsSort::Ended, true).await?.apps);
        Ok(Self {
            cluster,
            masters: Masters::tried(master),
            apps,
            workers,
        })
    }
}

impl Detail {
    /// Looks at one application; none where it is forgotten.
    pub(super) async fn take(
        master: &MasterClient,
        app: &AppId,
    ) -> Result<Option<Self>, ClientError> {
        let Some(status) = master.status(app.clone()).await? else {
            return Ok(None);
        };
        let tail = match status.attempt {
            0 => Err("it has not run yet".to_owned()),
            _ => tail(master, app).await,
        };
        Ok(Some(Self { status, tail }))
    }
}

/// The end of an application's standard output.
async fn tail(master: &MasterClient, app: &AppId) -> Result<String, String> {
    let read = async |offset, bytes_max| {
        let request = LogRequest {
            offset,
            bytes_max,
            ..LogRequest::new(LogStream::Stdout)
        };
        match master.read_log(app, request).await {
            Ok(LogAnswer::Chunk { bytes, next_offset }) => Ok((bytes, next_offset)),
            Ok(LogAnswer::Unavailable { reason }) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    };
    // Behind the end there is nothing, but it says where that is.
    let (_, end) = read(u64::MAX, 0).await?;
    let (bytes, _) = read(end.saturating_sub(TAIL_BYTES.into()), TAIL_BYTES).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
