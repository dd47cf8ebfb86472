//! `aloha wait`, and what `aloha submit --wait` does.

use std::time::Duration;

use aloha_scheduler::{AppId, AppPhase, AppStatus, MasterClient};

use crate::Failure;
use crate::args::WaitArgs;
use crate::connection::{Interrupts, ask, parse, patient, unknown};
use crate::output::{note, print_json};
use crate::progress::Progress;

/// What a shell says of a process that SIGKILL ended.
const KILLED: u8 = 137;
/// How often a person is told how it is.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// Waits for the end of an application.
pub(crate) fn run(args: &WaitArgs) -> Result<u8, Failure> {
    let app = parse(&args.id)?;
    let json = args.client.json;
    ask(&args.client, async |master, _| {
        let master = patient(master);
        let ended = until_ended(&master, &app, json);
        let status = Interrupts::take()?.unless(&app, ended).await?;
        if json {
            print_json(&status);
        }
        exit_code(&status, json)
    })
}

/// Waits for the end of an application, and shows how it is meanwhile unless that is to be `silent`.
pub(crate) async fn until_ended(
    master: &MasterClient,
    app: &AppId,
    silent: bool,
) -> Result<AppStatus, Failure> {
    let progress = Progress::new(silent);
    if !progress.is_shown() {
        return master.wait(app).await?.ok_or_else(|| unknown(app));
    }
    let mut patience = Duration::ZERO;
    loop {
        let status = master.wait_for(app, patience).await?;
        let status = status.ok_or_else(|| unknown(app))?;
        if status.phase.is_final() {
            return Ok(status);
        }
        progress.show(&status);
        patience = NEWS_INTERVAL;
    }
}

/// The application's own exit code; what that does not say is explained on stderr.
pub(crate) fn exit_code(status: &AppStatus, json: bool) -> Result<u8, Failure> {
    match status.phase {
        AppPhase::Killed => Ok(KILLED),
        AppPhase::Finished | AppPhase::Failed => {
            if let Some(message) = &status.message {
                note(
                    json,
                    format_args!("{} {}: {message}", status.id, status.phase),
                );
            }
            let code = status.exit_code;
            Ok(code.map_or(1, |code| u8::try_from(code).unwrap_or(1)))
        }
        other => {
            let message = status.message.as_deref().unwrap_or("no reason is known");
            Err(Failure::new(format_args!(
                "{} ended as {other}: {message}",
                status.id
            )))
        }
    }
}
