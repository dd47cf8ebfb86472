//! `aloha submit`.

use std::time::Duration;

use aloha_rpc::RpcEnv;
use aloha_scheduler::worker::LogStream;
use aloha_scheduler::{
    AppDescription, AppId, LogRequest, MasterClient, ProcessLimits, StopPolicy, SubmitAnswer,
};
use serde_json::json;

use crate::args::SubmitArgs;
use crate::connection::{Interrupts, ask, patient};
use crate::output::{note, print};
use crate::{Failure, logs, wait};

/// For how long a submission is repeated that the master has no time for, or does not take while it is not sure that it
/// leads: within that another leads, by the session timeout that is the default.
const BUSY_PATIENCE: Duration = Duration::from_secs(15);

/// The longest name that is taken from a command: a word that is longer is none to look at.
const DEFAULT_NAME_CHARS_MAX: usize = 64;

/// Submits an application; prints its id.
pub(crate) fn run(args: &SubmitArgs) -> Result<u8, Failure> {
    let description = describe(args)?;
    let json = args.client.json;
    ask(&args.client, async |master, env| {
        let key = args.key.clone().unwrap_or_else(|| random_key(env));
        let mut interrupts = Interrupts::take()?;
        let unknown = format_args!(
            "it may have been submitted; repeat the command with --key {key}, and it runs once"
        );
        let submitted = submit(&master, description, &key, json);
        let app = interrupts.or_say(unknown, submitted).await?;
        if json {
            print(json!({ "id": app }));
        } else {
            print(&app);
        }
        let master = patient(master);
        let rest = async {
            if args.follow {
                let streams = [LogStream::Stdout, LogStream::Stderr];
                logs::follow(&master, &app, &streams.map(LogRequest::new), json).await?;
            }
            if !args.wait {
                return Ok(0);
            }
            // A line of its own would wipe out the end of an output that ends in the middle of a line.
            let silent = json || args.follow;
            let status = wait::until_ended(&master, &app, silent).await?;
            if json {
                print(json!(status));
            }
            wait::exit_code(&status, json)
        };
        interrupts.unless(&app, rest).await
    })
}

/// Submits, and again where the master is busy.
async fn submit(
    master: &MasterClient,
    description: AppDescription,
    key: &str,
    json: bool,
) -> Result<AppId, Failure> {
    let mut waited = Duration::ZERO;
    loop {
        let answer = master.submit_once(description.clone(), key).await?;
        match answer {
            SubmitAnswer::Accepted { app } => return Ok(app),
            SubmitAnswer::Refused { reason } => {
                return Err(Failure::new(format_args!("refused: {reason}")));
            }
            SubmitAnswer::KeyReused { app } => {
                return Err(Failure::new(format_args!(
                    "refused: the key {key} is that of {app}, which is another submission; give this one its own"
                )));
            }
            SubmitAnswer::Busy { reason, .. } if waited >= BUSY_PATIENCE => {
                return Err(Failure::new(format_args!(
                    "{reason}; repeat the command later with --key {key}, and it runs once"
                )));
            }
            SubmitAnswer::Busy {
                reason,
                retry_after_millis,
            } => {
                if waited.is_zero() {
                    note(json, format_args!("trying again: {reason}"));
                }
                let pause = Duration::from_millis(retry_after_millis.max(1));
                tokio::time::sleep(pause).await;
                waited += pause;
            }
        }
    }
}

/// A key that nobody else has.
fn random_key(env: &RpcEnv) -> String {
    let chance = || env.runtime().random_u64();
    format!("cli-{:016x}{:016x}", chance(), chance())
}

fn describe(args: &SubmitArgs) -> Result<AppDescription, Failure> {
    let (entry_point, words) = match &args.shell {
        Some(line) => ("SimpleProcess", std::slice::from_ref(line)),
        None => (args.entry_point.as_str(), args.command.as_slice()),
    };
    let is_blank = words.first().is_none_or(|first| first.trim().is_empty());
    if takes_command(entry_point) && is_blank {
        return Err(Failure::usage(&format!(
            "aloha: {entry_point} needs a command: put it behind two dashes, as in `aloha submit -- sleep 60`"
        )));
    }
    let name = args.name.clone();
    let libs: Result<Vec<String>, _> = args.libs.iter().map(|lib| absolute(lib)).collect();
    let mut limits = ProcessLimits::default();
    for (name, value) in &args.limits {
        limits.set(name, value).map_err(Failure::new)?;
    }
    let mut description = AppDescription {
        name: name.unwrap_or_else(|| default_name(entry_point, words)),
        entry_point: entry_point.to_owned(),
        libs: libs?,
        args: words.to_vec(),
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
    Ok(description)
}

/// Whether this entry point is one of those that execute a command.
fn takes_command(entry_point: &str) -> bool {
    matches!(
        entry_point,
        "Process" | "SimpleProcess" | "me.jrwang.app.SimpleProcess"
    )
}

/// What people call an application that nobody named. Nobody is told that a name is no good which they did not give.
fn default_name(entry_point: &str, words: &[String]) -> String {
    let first = words.first().map(String::as_str);
    let name = match entry_point {
        "Process" => first,
        // A script of several lines is no name.
        script if takes_command(script) => {
            first.and_then(|script| script.split_whitespace().next())
        }
        own => Some(own),
    };
    let shown = name.unwrap_or_default().chars();
    let shown = shown.map(|char| if char.is_control() { ' ' } else { char });
    shown.take(DEFAULT_NAME_CHARS_MAX).collect()
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

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(words: &[&str]) -> SubmitArgs {
        let words = ["aloha", "submit"].iter().chain(words);
        match Cli::try_parse_from(words).expect("valid").command {
            Command::Submit(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_has_to_name_an_application() {
        for (words, name) in [
            (&["--", "/bin/my app", "x"][..], "/bin/my app"),
            (&["--entry-point", "SimpleProcess", "--", "cd /\nls"], "cd"),
            (&["--shell", "cd /\nls"], "cd"),
            (
                &["--entry-point", "com.example.Greeter", "--", "WALL-E"],
                "com.example.Greeter",
            ),
            (
                &["--entry-point", "com.example.Greeter"],
                "com.example.Greeter",
            ),
        ] {
            assert_eq!(
                describe(&parse(words)).expect("valid").name,
                name,
                "{words:?}"
            );
        }
    }

    #[test]
    fn a_command_that_is_no_name_is_no_reason_to_refuse_it() {
        let long = format!("/{}", "x".repeat(300));
        let named = |words: &[&str]| describe(&parse(words)).expect("valid").name;
        assert_eq!(named(&["--", &long]), long[..64]);
        assert_eq!(named(&["--shell", &long]), long[..64]);
        assert_eq!(named(&["--", "a\nb"]), "a b");
        for blank in [&["--shell", " "][..], &["--", ""]] {
            let failure = describe(&parse(blank)).expect_err("nothing to run");
            assert!(failure.text.contains("needs a command"), "{failure:?}");
        }
    }

    #[test]
    fn a_line_for_bash_is_the_same_as_the_long_form() {
        let line = "i=0; while [ $i -le 10 ]; do echo $i; ((i++)); sleep 1; done";
        let short = describe(&parse(&["--shell", line])).expect("valid");
        let long = describe(&parse(&["--entry-point", "SimpleProcess", "--", line]));
        assert_eq!(short, long.expect("valid"));
        assert_eq!(short.args, [line]);
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
