//! `aloha drain`.

use std::time::Duration;

use aloha_rpc::AskError;
use aloha_scheduler::{
    ClientError, DrainAnswer, DrainMode, DrainPhase, DrainRequest, DrainStatus, MasterClient,
};

use crate::Failure;
use crate::args::DrainArgs;
use crate::connection::{Interrupts, ask, patient};
use crate::output::{note, print, print_json};
use crate::progress::Progress;

/// How often the master is asked how far it is.
const NEWS_INTERVAL: Duration = Duration::from_millis(300);
/// How long a worker on which nothing is left has to leave before it is taken for one that does not.
const LEAVES_WITHIN: Duration = Duration::from_secs(15);

/// Drains a worker, and waits for that unless told not to.
pub(crate) fn run(args: &DrainArgs) -> Result<u8, Failure> {
    let (json, worker) = (args.client.json, &args.worker);
    ask(&args.client, async |master, _| {
        let mode = if args.wait {
            DrainMode::Wait
        } else {
            DrainMode::Move
        };
        let request = match (args.cancel, args.status) {
            (true, _) => DrainRequest::Cancel,
            (_, true) => DrainRequest::Look,
            _ => DrainRequest::begin(mode, args.timeout.map(Duration::from_millis)),
        };
        let status = put(&master, worker, request).await?;
        let status = status.map_err(Failure::new)?;
        if status.phase == DrainPhase::None && !args.cancel && !args.status {
            return Err(Failure::new(status.message));
        }
        if args.cancel || args.status || args.no_wait {
            tell(&status, json);
            return Ok(0);
        }
        let goes_on = format!(
            "the drain of {id} goes on; `aloha drain --status {id}` says how far it is, and `aloha drain --cancel {id}` \
             takes it back",
            id = status.worker
        );
        let drained = until_drained(patient(master), status, json);
        let status = Interrupts::take()?.or_say(goes_on, drained).await?;
        tell(&status, json);
        Ok(0)
    })
}

/// Puts a question; says in words if there is no such worker.
async fn put(
    master: &MasterClient,
    worker: &str,
    request: DrainRequest,
) -> Result<Result<DrainStatus, String>, Failure> {
    match master.drain(worker, request).await {
        Ok(DrainAnswer::Drain(status)) => Ok(Ok(status)),
        Ok(DrainAnswer::NoSuchWorker { reason }) => {
            Ok(Err(format!("{reason}; `aloha workers` lists them")))
        }
        Err(ClientError::Unanswered {
            reason: AskError::Undecodable { .. },
            ..
        }) => Err(Failure::new(
            "the master is of an earlier version, which cannot drain workers; upgrade the masters first",
        )),
        Err(error) => Err(error.into()),
    }
}

/// Waits until a worker has left, or nothing is left on one that stays.
async fn until_drained(
    master: MasterClient,
    mut status: DrainStatus,
    json: bool,
) -> Result<DrainStatus, Failure> {
    let progress = Progress::new(json);
    let (mut told, mut looks) = (String::new(), 0);
    loop {
        match status.phase {
            DrainPhase::Gone => return Ok(status),
            DrainPhase::None => {
                let worker = &status.worker;
                return Err(Failure::new(format_args!(
                    "the drain of {worker} was called off"
                )));
            }
            DrainPhase::Drained if looks * NEWS_INTERVAL >= LEAVES_WITHIN => {
                status.message = format!(
                    "nothing is left on {}, which does not leave by itself (an earlier version does not): stop its process",
                    status.worker
                );
                return Ok(status);
            }
            DrainPhase::Drained => looks += 1,
            DrainPhase::Draining => looks = 0,
        }
        if progress.is_shown() {
            progress.say(&status.message);
        } else if !json && told != status.message {
            note(json, &status.message);
            told.clone_from(&status.message);
        }
        tokio::time::sleep(NEWS_INTERVAL).await;
        status = match put(&master, status.worker.as_str(), DrainRequest::Look).await? {
            Ok(status) => status,
            // It was drained a moment ago: whoever leads now knows of no such worker any more.
            Err(_) => DrainStatus {
                phase: DrainPhase::Gone,
                message: format!("{} is gone; nothing is left on it", status.worker),
                left: Vec::new(),
                waiting: Vec::new(),
                ..status
            },
        };
    }
}

fn tell(status: &DrainStatus, json: bool) {
    if json {
        return print_json(status);
    }
    print(&status.message);
    for app in &status.left {
        print(format_args!("  {}  {}", app.id, app.fate));
    }
}
