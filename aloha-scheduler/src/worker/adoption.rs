//! What a worker finds in its directory when it starts.

use std::path::Path;
use std::sync::Arc;

use tokio::task::JoinSet;
use tracing::warn;

use super::event::{FoundApp, FoundState};
use super::launcher::{Adopted, LaunchSpec, Launcher, RunningApp};
use crate::attempt::Outcome;
use crate::causes::with_causes;
use crate::ids::AppId;

/// Takes over what an earlier worker of this id left in the directory.
pub(super) async fn adopt_all(
    launcher: &Arc<dyn Launcher>,
    work_directory: &Path,
    worker_id: &str,
) -> Vec<(FoundApp, Option<Arc<dyn RunningApp>>)> {
    let directories = match launcher.left_behind(work_directory).await {
        Ok(directories) => directories,
        Err(error) => {
            warn!(%error, path = %work_directory.display(), "cannot look for what an earlier worker left");
            return Vec::new();
        }
    };
    // One that does not answer must not hold up the others.
    let mut adopting = JoinSet::new();
    for path in directories {
        let (launcher, worker_id) = (Arc::clone(launcher), worker_id.to_owned());
        adopting.spawn(async move {
            let adopted = launcher.adopt(&path, &worker_id).await;
            (path, adopted)
        });
    }
    let mut found = Vec::new();
    while let Some(adopted) = adopting.join_next().await {
        let (path, adopted) = match adopted {
            Ok(adopted) => adopted,
            Err(error) => {
                warn!(%error, "cannot take over an application");
                continue;
            }
        };
        let (spec, state, running) = match adopted {
            Ok(Adopted::Nothing) => continue,
            Ok(Adopted::Running { spec, app }) => (spec, FoundState::Running, Some(app.into())),
            Ok(Adopted::Ended {
                spec,
                reported: true,
                ..
            }) => (spec, FoundState::Settled, None),
            Ok(Adopted::Ended { spec, outcome, .. }) => (spec, FoundState::Ended(outcome), None),
            Err(error) => {
                warn!(path = %path.display(), error = with_causes(&error), "cannot take over an application");
                continue;
            }
        };
        found.extend(describe(spec, state).map(|found| (found, running)));
    }
    for stray in end_strays(launcher, work_directory, worker_id, &found).await {
        let is_new =
            |(other, _): &(FoundApp, _)| (&other.app, other.attempt) != (&stray.app, stray.attempt);
        if found.iter().all(is_new) {
            found.push((stray, None));
        }
    }
    found
}

/// Ends what runs although nothing that was found leads to it, lest it runs beside its own successor.
async fn end_strays(
    launcher: &Arc<dyn Launcher>,
    work_directory: &Path,
    worker_id: &str,
    found: &[(FoundApp, Option<Arc<dyn RunningApp>>)],
) -> Vec<FoundApp> {
    let running = found.iter().filter_map(|(_, running)| running.as_ref());
    let known = running
        .map(|running| (running.app_id().to_owned(), running.attempt()))
        .collect();
    let ended = launcher.end_strays(work_directory, worker_id, &known).await;
    let ended = ended.unwrap_or_else(|error| {
        warn!(%error, "cannot end a runner whose records are gone");
        Vec::new()
    });
    let lost = |(app_id, attempt): (String, u32)| {
        Some(FoundApp {
            app: app_id.parse().ok()?,
            attempt,
            description: Arc::default(),
            state: FoundState::Ended(Outcome::Lost(
                "its records were gone when its worker came back".to_owned(),
            )),
        })
    };
    ended.into_iter().filter_map(lost).collect()
}

fn describe(spec: LaunchSpec, state: FoundState) -> Option<FoundApp> {
    let app: AppId = match spec.app_id.parse() {
        Ok(app) => app,
        Err(error) => {
            warn!(id = spec.app_id, %error, "a directory is not that of an application");
            return None;
        }
    };
    Some(FoundApp {
        app,
        attempt: spec.attempt,
        description: spec.description,
        state,
    })
}
