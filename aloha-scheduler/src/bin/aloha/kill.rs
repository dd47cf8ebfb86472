//! `aloha kill` and `aloha forget`.

use aloha_scheduler::{ForgetAnswer, KillAnswer};
use serde_json::{Value, json};

use crate::Failure;
use crate::args::{ForgetArgs, KillArgs};
use crate::connection::{ask, parse_all};
use crate::output::{note, print, print_json};

/// Ends applications.
pub(crate) fn kill(args: &KillArgs) -> Result<u8, Failure> {
    let apps = parse_all(&args.ids)?;
    let json = args.client.json;
    ask(&args.client, async |master, _| {
        if args.all {
            let count = master.kill_all().await?;
            return Ok(told_count(json, count, "ended, or will be"));
        }
        let mut answers = Vec::new();
        for app in apps {
            let KillAnswer { success, message } = master.kill(app.clone()).await?;
            answers.push((app.to_string(), success, message));
        }
        tell(json, answers)
    })
}

/// Forgets applications that have ended.
pub(crate) fn forget(args: &ForgetArgs) -> Result<u8, Failure> {
    let apps = parse_all(&args.ids)?;
    let json = args.client.json;
    ask(&args.client, async |master, _| {
        if args.all {
            let count = master.clear().await?;
            return Ok(told_count(json, count, "forgotten"));
        }
        let mut answers = Vec::new();
        for app in apps {
            let (success, message) = match master.forget(app.clone()).await? {
                ForgetAnswer::Forgotten => (true, format!("{app} is forgotten")),
                ForgetAnswer::NoSuchApp => (false, format!("there is no application {app}")),
                ForgetAnswer::NotEnded { phase } => (
                    false,
                    format!(
                        "{app} is {phase}; only what has ended can be forgotten, and `aloha kill {app}` ends it"
                    ),
                ),
            };
            answers.push((app.to_string(), success, message));
        }
        tell(json, answers)
    })
}

fn told_count(json: bool, count: u64, what: &str) -> u8 {
    if json {
        print(json!({ "success": true, "count": count }));
    } else {
        let applications = if count == 1 {
            "application is"
        } else {
            "applications are"
        };
        print(format_args!("{count} {applications} {what}"));
    }
    0
}

/// Says what came of each; it failed where any did.
fn tell(json: bool, answers: Vec<(String, bool, String)>) -> Result<u8, Failure> {
    let failed = answers.iter().filter(|(_, success, _)| !success).count();
    if json {
        let objects: Vec<Value> = answers
            .into_iter()
            .map(|(id, success, message)| json!({ "id": id, "success": success, "message": message }))
            .collect();
        match objects.as_slice() {
            [one] => print(one),
            all => print_json(&all),
        }
        return Ok(u8::from(failed > 0));
    }
    let count = answers.len();
    for (_, success, message) in answers {
        if success {
            print(message);
        } else if count == 1 {
            return Err(Failure::new(message));
        } else {
            note(json, message);
        }
    }
    Ok(u8::from(failed > 0))
}
