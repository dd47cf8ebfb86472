//! `aloha logs`, and what `aloha submit --follow` does.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::time::Duration;

use aloha_scheduler::master::WorkerState;
use aloha_scheduler::worker::LogStream;
use aloha_scheduler::{
    AppId, ClientError, FollowError, LogAnswer, LogFollower, LogNews, LogRequest, MasterClient,
};
use serde_json::json;

use crate::Failure;
use crate::args::LogsArgs;
use crate::connection::{Interrupts, ask, parse, patient, unknown};
use crate::output::note;
use crate::progress::Progress;

/// How often a person is told how an application is that has not written anything.
const NEWS_INTERVAL: Duration = Duration::from_secs(1);

/// Prints the output of an application.
pub(crate) fn run(args: &LogsArgs) -> Result<u8, Failure> {
    let app = parse(&args.id)?;
    let json = args.client.json;
    let stream = if args.stderr {
        LogStream::Stderr
    } else {
        LogStream::Stdout
    };
    let request = LogRequest {
        attempt: args.attempt,
        ..LogRequest::new(stream)
    };
    ask(&args.client, async |master, _| {
        if let Some(attempt) = request.attempt {
            let status = master.status(app.clone()).await?;
            let latest = status.ok_or_else(|| unknown(&app))?.attempt;
            if attempt > latest {
                return Err(Failure::new(format_args!(
                    "there is no attempt {attempt} of {app}, the latest is {latest}"
                )));
            }
        }
        if args.follow {
            let master = patient(master);
            let requests = [request];
            let following = follow(&master, &app, &requests, json);
            Interrupts::take()?.unless(&app, following).await?;
        } else {
            copy(&master, &app, request, json).await?;
        }
        Ok(0)
    })
}

/// Prints outputs until the application has ended and all of them is printed: what it wrote to its standard output to
/// ours, and the other to the other where both are asked for.
pub(crate) async fn follow(
    master: &MasterClient,
    app: &AppId,
    requests: &[LogRequest],
    json: bool,
) -> Result<(), Failure> {
    let mut progress = Progress::new(json);
    let both = requests.len() > 1;
    let mut outputs: Vec<Output> = requests
        .iter()
        .map(|request| Output::new(request.stream, both, json))
        .collect();
    let mut followers: Vec<Option<LogFollower>> = requests
        .iter()
        .map(|request| Some(master.follow_log(app, *request)))
        .collect();
    let mut patience = Duration::ZERO;
    while followers.iter().any(Option::is_some) {
        let (place, news) = tokio::select! {
            news = next(&mut followers) => news,
            status = master.wait_for(app, patience), if progress.is_shown() => {
                patience = NEWS_INTERVAL;
                match status? {
                    Some(status) if !status.phase.is_final() => progress.show(&status),
                    _ => progress.end(),
                }
                continue;
            }
        };
        let news = news.map_err(|error| match error {
            FollowError::NoSuchApp(app) => unknown(&app),
            FollowError::Client(error) => error.into(),
            other => Failure::new(other),
        })?;
        match news {
            None => followers[place] = None,
            Some(LogNews::Piece(bytes)) => {
                progress.end();
                if outputs[place].write(&bytes)?.is_break() {
                    return Ok(());
                }
            }
            // Both hear of it.
            Some(LogNews::Attempt(_)) if place > 0 => {}
            Some(other) => {
                progress.end();
                note(json, other);
            }
        }
    }
    Ok(())
}

/// The next news of any follower that is left. Cancel safe.
async fn next(
    followers: &mut [Option<LogFollower>],
) -> (usize, Result<Option<LogNews>, FollowError>) {
    let (first, second) = followers.split_at_mut(1);
    let one = async {
        match &mut first[0] {
            Some(follower) => follower.next().await,
            None => std::future::pending().await,
        }
    };
    let other = async {
        match second.first_mut() {
            Some(Some(follower)) => follower.next().await,
            _ => std::future::pending().await,
        }
    };
    tokio::select! {
        news = one => (0, news),
        news = other => (1, news),
    }
}

/// Prints output to its present end.
async fn copy(
    master: &MasterClient,
    app: &AppId,
    mut request: LogRequest,
    json: bool,
) -> Result<(), Failure> {
    let mut output = Output::new(request.stream, false, json);
    loop {
        let answer = match master.read_log(app, request).await {
            Ok(answer) => answer,
            Err(error) => return Err(cannot_read(master, app, error).await),
        };
        match answer {
            LogAnswer::Chunk { bytes, next_offset } => {
                let begins = next_offset.saturating_sub(bytes.len() as u64);
                if begins > request.offset {
                    note(json, LogNews::Missed(begins - request.offset));
                }
                if bytes.is_empty() || output.write(&bytes)?.is_break() {
                    return Ok(());
                }
                request.offset = next_offset;
            }
            LogAnswer::Unavailable { reason } => return Err(Failure::new(reason)),
        }
    }
}

/// Why output cannot be read: that its worker is away says more than which call was lost.
async fn cannot_read(master: &MasterClient, app: &AppId, error: ClientError) -> Failure {
    let status = master.status(app.clone()).await.ok().flatten();
    let placed = status.and_then(|status| status.worker);
    let workers = master.workers().await.unwrap_or_default();
    let away = workers.iter().find(|worker| {
        worker.state == WorkerState::Disconnected
            && placed.as_ref().is_some_and(|on| on.worker == worker.id)
    });
    match away {
        Some(worker) => Failure::new(format_args!(
            "{} is disconnected; the output of {app} can be read once it is back",
            worker.id
        )),
        None => error.into(),
    }
}

/// Where an output goes.
struct Output {
    stream: LogStream,
    to_stderr: bool,
    json: bool,
    /// The beginning of a character whose rest has not come.
    rest: Vec<u8>,
}

impl Output {
    fn new(stream: LogStream, both: bool, json: bool) -> Self {
        Self {
            stream,
            to_stderr: both && stream == LogStream::Stderr && !json,
            json,
            rest: Vec::new(),
        }
    }

    /// Prints a piece, for as long as anybody reads it: that they stop, as in `aloha logs ID | head`, is no failure.
    fn write(&mut self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        let line;
        let bytes = if self.json {
            let stream = match self.stream {
                LogStream::Stdout => "stdout",
                LogStream::Stderr => "stderr",
            };
            let text = self.text(bytes);
            line = format!("{}\n", json!({ "stream": stream, "text": text })).into_bytes();
            &line
        } else {
            bytes
        };
        let written = if self.to_stderr {
            put(&mut io::stderr().lock(), bytes)
        } else {
            put(&mut io::stdout().lock(), bytes)
        };
        match written {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(Failure::new(format_args!("cannot write: {error}"))),
        }
    }

    /// The characters that are whole by now.
    fn text(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.rest) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.rest.len(),
        };
        let text = String::from_utf8_lossy(&self.rest[..whole]).into_owned();
        self.rest.drain(..whole);
        text
    }
}

fn put(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_two_pieces_share_is_whole_in_json() {
        let mut output = Output::new(LogStream::Stdout, false, true);
        let bytes = "aä\n".as_bytes();
        assert_eq!(output.text(&bytes[..2]), "a");
        assert_eq!(output.text(&bytes[2..]), "ä\n");
        assert_eq!(output.text(&[0xff, b'x']), "\u{fffd}x");
    }
}
