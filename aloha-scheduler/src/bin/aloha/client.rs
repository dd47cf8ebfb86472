//! The commands that ask a master.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::ops::ControlFlow;
use std::time::Duration;

use aloha_rpc::{RpcAddress, RpcEnv};
use aloha_scheduler::config::{Config, Value};
use aloha_scheduler::master::{WorkerState, WorkerStatus};
use aloha_scheduler::worker::LogStream;
use aloha_scheduler::{
    AppDescription, AppId, AppPhase, AppStatus, ClientError, FollowError, KillAnswer, LogAnswer,
    LogNews, LogRequest, MasterClient, Moment, ProcessLimits, StopPolicy, Transition,
};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;

use crate::args::{
    AppsArgs, ClientArgs, KillArgs, LogsArgs, StatusArgs, SubmitArgs, WaitArgs, WorkersArgs,
};
use crate::{Failure, environment, print, serve};

/// What a shell says of a process that SIGKILL ended.
const KILLED: u8 = 137;

/// Submits an application; prints its id.
pub(crate) fn submit(args: &SubmitArgs) -> Result<u8, Failure> {
    let name = args.name.clone().unwrap_or_else(|| default_name(args));
    if takes_command(&args.entry_point) && args.command.is_empty() {
        return Err(Failure::usage(&format!(
            "aloha: {} needs a command: put it behind two dashes, as in `aloha submit -- sleep 60`",
            args.entry_point
        )));
    }
    let libs: Result<Vec<String>, _> = args.libs.iter().map(|lib| absolute(lib)).collect();
    let mut limits = ProcessLimits::default();
    for (name, value) in &args.limits {
        limits.set(name, value).map_err(Failure::new)?;
    }
    let mut description = AppDescription {
        name,
        entry_point: args.entry_point.clone(),
        libs: libs?,
        args: args.command.clone(),
        cores: args.cores,
        memory_mib: args.memory_mib,
        environment: args.environment.iter().cloned().collect(),
        stop: StopPolicy {
            signal: args.stop_signal,
            grace_millis: args.stop_timeout,
        },
        limits,
        ..AppDescription::default()
    };
    args.policy.apply(&mut description);
    ask(&args.client, async |master| {
        let app = master.submit(description).await?.accepted();
        let app = app.map_err(|reason| Failure::new(format_args!("refused: {reason}")))?;
        if args.client.json {
            print(json!({ "id": app }));
        } else {
            print(&app);
        }
        if args.follow {
            follow(&master, &app, LogRequest::new(LogStream::Stdout)).await?;
        }
        if args.wait {
            exit_code(&wait_for(&master, &app).await?)
        } else {
            Ok(0)
        }
    })
}

/// Whether this entry point is one of those that execute a command.
fn takes_command(entry_point: &str) -> bool {
    matches!(
        entry_point,
        "Process" | "SimpleProcess" | "me.jrwang.app.SimpleProcess"
    )
}

/// What people call an application that nobody named.
fn default_name(args: &SubmitArgs) -> String {
    let first = match args.entry_point.as_str() {
        "Process" => args.command.first().map(String::as_str),
        // A script of several lines is no name.
        script if takes_command(script) => args
            .command
            .first()
            .and_then(|script| script.split_whitespace().next()),
        own => Some(own),
    };
    first.unwrap_or_default().to_owned()
}

/// The same file for whoever is in another directory; a URL stays as it is.
fn absolute(lib: &str) -> Result<String, Failure> {
    if lib.contains("://") {
        return Ok(lib.to_owned());
    }
    let path = std::path::absolute(lib);
    let path = path.map_err(|error| Failure::at("cannot make absolute", lib.as_ref(), &error))?;
    let text = path.into_os_string().into_string();
    text.map_err(|path| {
        Failure::new(format_args!(
            "--lib {lib}: its path {} is no UTF-8; give it another name",
            path.display()
        ))
    })
}

/// Prints what is known of an application.
pub(crate) fn status(args: &StatusArgs) -> Result<u8, Failure> {
    let app = parse(&args.id)?;
    ask(&args.client, async |master| {
        let status = master
            .status(app.clone())
            .await?
            .ok_or_else(|| unknown(&app))?;
        if args.client.json {
            print_json(&status);
        } else {
            print(describe(&status));
        }
        Ok(0)
    })
}

/// Waits for the end of an application.
pub(crate) fn wait(args: &WaitArgs) -> Result<u8, Failure> {
    let app = parse(&args.id)?;
    ask(&args.client, async |master| {
        let status = wait_for(&master, &app).await?;
        if args.client.json {
            print_json(&status);
        }
        exit_code(&status)
    })
}

/// Ends an application.
pub(crate) fn kill(args: &KillArgs) -> Result<u8, Failure> {
    let app = parse(&args.id)?;
    ask(&args.client, async |master| {
        let KillAnswer { success, message } = master.kill(app).await?;
        if args.client.json {
            print(json!({ "success": success, "message": message }));
            return Ok(u8::from(!success));
        }
        if !success {
            return Err(Failure::new(message));
        }
        print(message);
        Ok(0)
    })
}

/// Prints the output of an application.
pub(crate) fn logs(args: &LogsArgs) -> Result<u8, Failure> {
    let app = parse(&args.id)?;
    let stream = if args.stderr {
        LogStream::Stderr
    } else {
        LogStream::Stdout
    };
    let request = LogRequest {
        attempt: args.attempt,
        ..LogRequest::new(stream)
    };
    ask(&args.client, async |master| {
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
            follow(&master, &app, request).await?;
        } else {
            copy(&master, &app, request).await?;
        }
        Ok(0)
    })
}

/// Lists the applications.
pub(crate) fn apps(args: &AppsArgs) -> Result<u8, Failure> {
    ask(&args.client, async |master| {
        let apps = master.apps().await?;
        if args.client.json {
            print_json(&apps);
            return Ok(0);
        }
        let mut table = table([
            "ID", "NAME", "STATE", "CORES", "MIB", "ATTEMPT", "WORKER", "MESSAGE",
        ]);
        for app in apps {
            table.add_row([
                app.id.to_string(),
                app.name,
                app.phase.to_string(),
                app.cores.to_string(),
                app.memory_mib.to_string(),
                app.attempt.to_string(),
                app.worker
                    .map_or_else(String::new, |worker| worker.address.to_string()),
                app.waiting_for.or(app.message).unwrap_or_default(),
            ]);
        }
        print(table.trim_fmt());
        Ok(0)
    })
}

/// Lists the workers.
pub(crate) fn workers(args: &WorkersArgs) -> Result<u8, Failure> {
    ask(&args.client, async |master| {
        let workers = master.workers().await?;
        if args.client.json {
            print_json(&workers);
            return Ok(0);
        }
        let notes = not_enforced(&workers);
        let mut table = table([
            "ID",
            "ADDRESS",
            "STATE",
            "CORES",
            "MIB",
            "ENFORCES",
            "ATTRIBUTES",
            "APPLICATIONS",
        ]);
        for WorkerStatus {
            id,
            host,
            port,
            state,
            cores,
            cores_used,
            memory_mib,
            memory_mib_used,
            apps,
            enforces,
            attributes,
            ..
        } in workers
        {
            table.add_row([
                id.to_string(),
                format!("{host}:{port}"),
                state.to_string(),
                format!("{cores_used}/{cores}"),
                format!("{memory_mib_used}/{memory_mib}"),
                enforces.summary(),
                Value::Attributes(attributes).to_string(),
                apps.len().to_string(),
            ]);
        }
        print(table.trim_fmt());
        for note in notes {
            print(note);
        }
        Ok(0)
    })
}

/// A line for each reason why some worker does not enforce something.
fn not_enforced(workers: &[WorkerStatus]) -> BTreeSet<String> {
    let there = workers.iter().filter(|w| w.state != WorkerState::Dead);
    there
        .flat_map(|worker| worker.enforces.reasons())
        .map(|(what, reason)| format!("not enforced: {what}: {reason}"))
        .collect()
}

/// Finds the master and puts a question to it.
fn ask(
    args: &ClientArgs,
    question: impl AsyncFnOnce(MasterClient) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    // Limits and the codec must be those of the cluster.
    let config = Config::builder().environment(environment).load()?;
    let masters = args.masters(environment).map_err(Failure::new)?;
    let addresses: Result<Vec<RpcAddress>, _> = masters
        .host_ports()
        .iter()
        .map(|text| text.parse())
        .collect();
    let addresses = addresses.map_err(Failure::new)?;
    crate::runtime()?.block_on(async {
        let rpc = serve::rpc_config(&config.rpc());
        let env = RpcEnv::builder("aloha-cli").config(rpc).start().await;
        let env = env.map_err(Failure::new)?;
        let master = MasterClient::connect(&env, &addresses).await?;
        let answer = question(master).await;
        env.shutdown().await;
        answer
    })
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let hint = match &error {
            ClientError::NoMaster { .. } => {
                "; start one with `aloha master` or `aloha local`, or name it with --master"
            }
            _ => "",
        };
        Self::new(format_args!("{error}{hint}"))
    }
}

fn parse(id: &str) -> Result<AppId, Failure> {
    id.parse()
        .map_err(|error| Failure::new(format_args!("{id:?} is no id of an application: {error}")))
}

fn unknown(app: &AppId) -> Failure {
    Failure::new(format_args!(
        "there is no application {app}; `aloha apps` lists them"
    ))
}

async fn wait_for(master: &MasterClient, app: &AppId) -> Result<AppStatus, Failure> {
    master.wait(app).await?.ok_or_else(|| unknown(app))
}

/// The application's own exit code; what that does not say is explained on stderr.
fn exit_code(status: &AppStatus) -> Result<u8, Failure> {
    match status.phase {
        AppPhase::Killed => Ok(KILLED),
        AppPhase::Finished | AppPhase::Failed => {
            if let Some(message) = &status.message {
                note(format_args!("{} {}: {message}", status.id, status.phase));
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

/// Prints output until the application has ended and all of it is printed.
async fn follow(master: &MasterClient, app: &AppId, request: LogRequest) -> Result<(), Failure> {
    let mut follower = master.follow_log(app, request);
    let failed = |error| match error {
        FollowError::NoSuchApp(app) => unknown(&app),
        FollowError::Client(error) => error.into(),
        other => Failure::new(other),
    };
    while let Some(news) = follower.next().await.map_err(failed)? {
        match news {
            LogNews::Piece(bytes) => {
                if write_out(&bytes)?.is_break() {
                    return Ok(());
                }
            }
            other => note(other),
        }
    }
    Ok(())
}

/// Prints output to its present end.
async fn copy(master: &MasterClient, app: &AppId, mut request: LogRequest) -> Result<(), Failure> {
    loop {
        let answer = match master.read_log(app, request).await {
            Ok(answer) => answer,
            Err(error) => return Err(cannot_read(master, app, error).await),
        };
        match answer {
            LogAnswer::Chunk { bytes, next_offset } => {
                let begins = next_offset.saturating_sub(bytes.len() as u64);
                if begins > request.offset {
                    note(LogNews::Missed(begins - request.offset));
                }
                if bytes.is_empty() || write_out(&bytes)?.is_break() {
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

/// Prints output, for as long as anybody reads it: that they stop, as in `aloha logs ID | head`, is no failure.
fn write_out(bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(ControlFlow::Continue(())),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
        Err(error) => Err(Failure::new(format_args!("cannot write: {error}"))),
    }
}

/// Says something beside the output; that nobody reads it is no failure.
fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "aloha: {text}");
}

fn describe(status: &AppStatus) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            table.add_row([key.to_owned(), value]);
        }
    };
    row("id", Some(status.id.to_string()));
    row("name", Some(status.name.clone()));
    row("state", Some(status.phase.to_string()));
    row("waiting for", status.waiting_for.clone());
    let not_before = status.not_before.map(Moment);
    row(
        "runs again",
        not_before.map(|at| format!("at {at} or later")),
    );
    row("message", status.message.clone());
    row("exit code", status.exit_code.map(|code| code.to_string()));
    row(
        "attempt",
        Some(status.attempt)
            .filter(|attempt| *attempt > 0)
            .map(|attempt| attempt.to_string()),
    );
    row(
        "worker",
        status
            .worker
            .as_ref()
            .map(|placed| format!("{} at {}", placed.worker, placed.address)),
    );
    let ran = status.started_at.zip(status.ended_at);
    let ran = ran.and_then(|(started, ended)| ended.checked_sub(started));
    row(
        "ran for",
        ran.map(|millis| format!("{:?}", Duration::from_millis(millis))),
    );
    row("entry point", Some(status.entry_point.clone()));
    row("cores", Some(status.cores.to_string()));
    row("memory", Some(format!("{} MiB", status.memory_mib)));
    row("supervised", status.supervise.then(|| "yes".to_owned()));
    row("priority", Some(status.priority.to_string()));
    let history: Vec<_> = status.history.iter().map(past).collect();
    row(
        "history",
        Some(history.join("\n")).filter(|text| !text.is_empty()),
    );
    table.trim_fmt()
}

/// A change of state in a line.
fn past(change: &Transition) -> String {
    let mut line = format!("{}  {}", Moment(change.at), change.to);
    if change.attempt > 0 {
        line += &format!(" (attempt {})", change.attempt);
    }
    if let Some(reason) = &change.reason {
        line += &format!(": {reason}");
    }
    line
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header);
    table
}

fn print_json(value: &impl Serialize) {
    print(serde_json::to_string_pretty(value).expect("these have only texts for keys"));
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(words: &[&str]) -> SubmitArgs {
        let words = ["aloha", "submit"].iter().chain(words);
        match Cli::try_parse_from(words).expect("valid").command {
            Command::Submit(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_has_to_name_an_application() {
        for (words, name) in [
            (&["--", "/bin/my app", "x"][..], "/bin/my app"),
            (&["--entry-point", "SimpleProcess", "--", "cd /\nls"], "cd"),
            (
                &["--entry-point", "com.example.Greeter", "--", "WALL-E"],
                "com.example.Greeter",
            ),
            (
                &["--entry-point", "com.example.Greeter"],
                "com.example.Greeter",
            ),
            (&[], ""),
        ] {
            assert_eq!(default_name(&parse(words)), name, "{words:?}");
        }
    }

    #[test]
    fn a_status_says_why_it_waits_when_it_runs_again_and_what_was() {
        let status: AppStatus = serde_json::from_value(json!({
            "id": "app-1", "name": "etl", "entry_point": "Process", "cores": 1, "memory_mib": 512, "supervise": true,
            "phase": "RELAUNCHING", "exit_code": null, "attempt": 1, "worker": null,
            "waiting_for": "needs 8 cores; the largest free worker has 4", "message": "exited with code 3",
            "submitted_at": 0, "started_at": null, "ended_at": null, "priority": -2, "not_before": 1_552_342_651_000u64,
            "history": [
                {"at": 1_552_342_650_000u64, "to": "SUBMITTED", "attempt": 0, "reason": null},
                {"at": 1_552_342_650_500u64, "to": "RELAUNCHING", "attempt": 1, "reason": "exited with code 3"},
            ],
        }))
        .expect("a status");
        let text = describe(&status);
        let lines: Vec<_> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        for expected in [
            "waiting for needs 8 cores; the largest free worker has 4",
            "runs again at 2019-03-11 22:17:31.000 UTC or later",
            "priority -2",
            "history 2019-03-11 22:17:30.000 UTC SUBMITTED",
            "2019-03-11 22:17:30.500 UTC RELAUNCHING (attempt 1): exited with code 3",
        ] {
            assert!(lines.iter().any(|line| line == expected), "{text}");
        }
    }

    #[test]
    fn a_lib_is_the_same_file_for_a_worker_in_another_directory() {
        let here = std::env::current_dir().expect("there is one");
        let here = here.to_str().expect("UTF-8");
        for (lib, expected) in [
            ("a/b", format!("{here}/a/b")),
            ("./b", format!("{here}/b")),
            ("/a", "/a".to_owned()),
            ("file:///a", "file:///a".to_owned()),
            ("https://a/b", "https://a/b".to_owned()),
        ] {
            assert_eq!(absolute(lib).expect(lib), expected);
        }
    }
}
