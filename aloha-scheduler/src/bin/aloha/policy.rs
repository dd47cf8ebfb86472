//! The flags of a submission that say when, where and how often it runs.

use aloha_scheduler::config::{TimeUnit, parse_duration};
use aloha_scheduler::{AppDescription, Constraint, RestartCondition, RestartPolicy};
use clap::{ArgGroup, Args};

/// When, where and how often an application runs.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("restarts").args(["supervise", "restart"]).multiple(true))]
pub(crate) struct PolicyArgs {
    /// Run it again when it fails, and elsewhere when its worker is lost; the same as --restart on-failure
    #[arg(long)]
    supervise: bool,
    /// Run it again after an end of its own: never, on-failure or always. Unless never, also when its worker is lost
    #[arg(long, value_name = "CONDITION")]
    restart: Option<RestartCondition>,
    /// How many restarts in a row there may be before it has failed; a long run counts from 0 again [default: any
    /// number]
    #[arg(long, value_name = "N", requires = "restarts")]
    restart_max: Option<u32>,
    /// Pause before the first restart in a row, such as 500ms or 5s; it doubles with each [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = millis, requires = "restarts")]
    restart_backoff: Option<u64>,
    /// Longest such pause [default: 1min]
    #[arg(long, value_name = "TIME", value_parser = millis, requires = "restarts")]
    restart_backoff_max: Option<u64>,
    /// How long a run must be to be a long one [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = millis, requires = "restarts")]
    restart_reset: Option<u64>,
    /// End it when it runs longer, such as 90s, 2h or 1d; it has failed then [default: any time]
    #[arg(long, value_name = "TIME", value_parser = millis)]
    max_run_time: Option<u64>,
    /// Its place in the queue: higher before lower, and among equals the first that came
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    priority: i32,
    /// What its worker must be or have (aloha.worker.attributes): zone=a, zone!=a, gpu or !gpu; may be repeated, all
    /// must hold
    #[arg(long = "constraint", value_name = "CONSTRAINT")]
    constraints: Vec<Constraint>,
    /// What it belongs to; the master may limit how many of a tag run at once. May be repeated
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
}

impl PolicyArgs {
    /// Writes it into a description.
    pub(crate) fn apply(&self, description: &mut AppDescription) {
        description.supervise = self.supervise;
        description.restart = RestartPolicy {
            condition: self.restart,
            backoff_initial_millis: self.restart_backoff,
            backoff_max_millis: self.restart_backoff_max,
            reset_after_millis: self.restart_reset,
            in_a_row_max: self.restart_max,
        };
        description.run_millis_max = self.max_run_time;
        description.priority = self.priority;
        description.constraints = self.constraints.iter().cloned().collect();
        description.tags = self.tags.iter().cloned().collect();
    }
}

fn millis(text: &str) -> Result<u64, String> {
    let time = parse_duration(text, TimeUnit::Seconds);
    let millis = time.and_then(|time| u64::try_from(time.as_millis()).ok());
    millis
        .filter(|millis| *millis > 0)
        .ok_or_else(|| "expected a time of at least 1ms, such as 500ms, 10s, 5min or 2h".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(flags: &str) -> Result<AppDescription, String> {
        let line = format!("aloha submit {flags} -- ls");
        let parsed = Cli::try_parse_from(line.split_whitespace());
        match parsed.map_err(|error| error.to_string())?.command {
            Command::Submit(args) => {
                let mut description = AppDescription::default();
                args.policy.apply(&mut description);
                Ok(description)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_flag_has_its_place_in_the_description() {
        let flags = "--priority -3 --restart always --restart-max 5 --restart-backoff 500ms --restart-backoff-max 1min \
                     --restart-reset 30 --max-run-time 2h --constraint zone=a --constraint !gpu --tag etl --tag db";
        let expected = AppDescription {
            priority: -3,
            restart: RestartPolicy {
                condition: Some(RestartCondition::Always),
                backoff_initial_millis: Some(500),
                backoff_max_millis: Some(60_000),
                reset_after_millis: Some(30_000),
                in_a_row_max: Some(5),
            },
            run_millis_max: Some(7_200_000),
            constraints: ["zone=a", "!gpu"]
                .map(|text| text.parse().expect("good"))
                .into(),
            tags: ["etl", "db"].map(str::to_owned).into(),
            ..AppDescription::default()
        };
        assert_eq!(parse(flags), Ok(expected));
        assert_eq!(parse(""), Ok(AppDescription::default()));
    }

    #[test]
    fn a_wrong_value_is_refused_by_the_name_of_its_flag() {
        for (flags, flag, expected) in [
            (
                "--restart sometimes",
                "--restart <CONDITION>",
                "expected never, on-failure or always",
            ),
            (
                "--supervise --restart-backoff 1week",
                "--restart-backoff <TIME>",
                "expected a time of at least 1ms",
            ),
            (
                "--max-run-time 0",
                "--max-run-time <TIME>",
                "expected a time",
            ),
            ("--priority high", "--priority <N>", "invalid"),
            (
                "--constraint a,b",
                "--constraint <CONSTRAINT>",
                "expected such as zone=a",
            ),
            ("--supervise --restart-max -1", "-1", "unexpected argument"),
            // Without a restart there is none to count.
            ("--restart-max 3", "--restart <CONDITION>", "not provided"),
        ] {
            let error = parse(flags).expect_err(flags);
            assert!(error.contains(flag) && error.contains(expected), "{error}");
        }
    }
}
