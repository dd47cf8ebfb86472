//! Programs for Spark, run by the `spark-submit` of the worker.

use std::path::Path;
use std::process::Command;

use super::{ApplicationContext, ApplicationError, ApplicationWithProcess};
use crate::app::AppDescription;

/// Where a worker's Spark lies.
const SPARK_HOME: &str = "SPARK_HOME";
/// The options of `spark-submit` that are followed by no value.
const WITHOUT_VALUE: [&str; 7] = [
    "--help",
    "-h",
    "--supervise",
    "--usage-error",
    "--verbose",
    "-v",
    "--version",
];

/// `bin/spark-submit` below the worker's `SPARK_HOME`; the arguments are its own.
///
/// A value of `--conf`, or of a variable of the description, that is `{{NAME}}` as a whole stands for the variable `NAME` of
/// the worker. It stays as it is where the worker has no such variable.
#[derive(Debug, Clone, Copy, Default)]
pub struct SparkSubmit;

impl ApplicationWithProcess for SparkSubmit {
    fn command(&self, context: &ApplicationContext) -> Result<Command, ApplicationError> {
        let of_worker = |name: &str| std::env::var(name).ok();
        command(context.description(), of_worker).map_err(ApplicationError::new)
    }
}

/// Why a worker cannot run programs for Spark.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum NoSpark {
    #[error(
        "this worker has no SPARK_HOME; start it with SPARK_HOME set to the directory of a Spark, or give such workers an \
         attribute and ask for it with a constraint"
    )]
    NoHome,
    #[error(
        "SPARK_HOME of this worker is {home:?}, where there is no bin/spark-submit; set it to the directory of a Spark"
    )]
    NoProgram { home: String },
}

fn command(
    description: &AppDescription,
    of_worker: impl Fn(&str) -> Option<String>,
) -> Result<Command, NoSpark> {
    let home = of_worker(SPARK_HOME).filter(|home| !home.is_empty());
    let home = home.ok_or(NoSpark::NoHome)?;
    let program = Path::new(&home).join("bin/spark-submit");
    if !program.is_file() {
        return Err(NoSpark::NoProgram { home });
    }
    let replaced = |value: &str| replace(value, &of_worker);
    let mut command = Command::new(program);
    command.args(arguments(&description.args, replaced));
    for (name, value) in &description.environment {
        if let Some(value) = replaced(value) {
            command.env(name, value);
        }
    }
    // The script would trust another one of the description.
    command.env(SPARK_HOME, home);
    Ok(command)
}

/// The arguments, with the values of `--conf` replaced. What follows the program is its own affair.
fn arguments(args: &[String], replaced: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut done = Vec::with_capacity(args.len());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        done.push(arg.clone());
        if !arg.starts_with('-') {
            break;
        }
        if WITHOUT_VALUE.contains(&&**arg) || arg.contains('=') {
            continue;
        }
        let Some(value) = rest.next() else { break };
        let property = value
            .split_once('=')
            .filter(|_| arg == "--conf" || arg == "-c");
        let property =
            property.and_then(|(key, value)| Some(format!("{key}={}", replaced(value)?)));
        done.push(property.unwrap_or_else(|| value.clone()));
    }
    done.extend(rest.cloned());
    done
}

/// What `{{NAME}}` stands for, if the value is that and the worker has such a variable.
fn replace(value: &str, of_worker: impl Fn(&str) -> Option<String>) -> Option<String> {
    of_worker(value.strip_prefix("{{")?.strip_suffix("}}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a `bin/spark-submit` in it.
    fn spark() -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(home.path().join("bin")).expect("made");
        std::fs::write(home.path().join("bin/spark-submit"), "").expect("written");
        home
    }

    fn args(args: &[&str]) -> Vec<String> {
        args.iter().map(ToString::to_string).collect()
    }

    fn of_worker(name: &str) -> Option<String> {
        (name == "SECRET").then(|| "of the worker".to_owned())
    }

    #[test]
    fn the_command_is_spark_submit_of_the_worker() {
        let home = spark();
        let home = home.path().to_str().expect("UTF-8");
        let description = AppDescription {
            args: args(&["--conf", "spark.a={{SECRET}}", "pi.py", "{{SECRET}}"]),
            environment: [
                ("KEY".to_owned(), "{{SECRET}}".to_owned()),
                ("SPARK_HOME".to_owned(), "/elsewhere".to_owned()),
                ("UNKNOWN".to_owned(), "{{NOWHERE}}".to_owned()),
            ]
            .into(),
            ..AppDescription::default()
        };
        let with_home = |name: &str| match name {
            SPARK_HOME => Some(home.to_owned()),
            other => of_worker(other),
        };
        let command = command(&description, with_home).expect("there is a Spark");
        assert_eq!(command.get_program(), &*format!("{home}/bin/spark-submit"));
        let arguments: Vec<_> = command.get_args().collect();
        let expected = ["--conf", "spark.a=of the worker", "pi.py", "{{SECRET}}"];
        assert_eq!(arguments, expected);
        // The others are added as they are.
        let variables: Vec<_> = command.get_envs().collect();
        let set = |name, value| {
            (
                std::ffi::OsStr::new(name),
                Some(std::ffi::OsStr::new(value)),
            )
        };
        let expected = [set("KEY", "of the worker"), set(SPARK_HOME, home)];
        assert_eq!(variables, expected);
    }

    #[test]
    fn only_options_before_the_program_are_replaced() {
        for (given, expected) in [
            (&["-c", "a={{SECRET}}"][..], &["-c", "a=of the worker"][..]),
            (&["--conf", "a=x{{SECRET}}"], &["--conf", "a=x{{SECRET}}"]),
            (&["--conf", "a={{NOWHERE}}"], &["--conf", "a={{NOWHERE}}"]),
            (&["--conf", "{{SECRET}}"], &["--conf", "{{SECRET}}"]),
            (&["--name", "a={{SECRET}}"], &["--name", "a={{SECRET}}"]),
            (
                &["--verbose", "--conf", "a={{SECRET}}", "x"],
                &["--verbose", "--conf", "a=of the worker", "x"],
            ),
            (
                &["--name=n", "--conf", "a={{SECRET}}", "x"],
                &["--name=n", "--conf", "a=of the worker", "x"],
            ),
            (
                &["app.jar", "--conf", "a={{SECRET}}"],
                &["app.jar", "--conf", "a={{SECRET}}"],
            ),
            (&["--conf"], &["--conf"]),
            (&[], &[]),
        ] {
            let replaced = arguments(&args(given), |value| replace(value, of_worker));
            assert_eq!(replaced, expected, "{given:?}");
        }
    }

    #[test]
    fn a_worker_without_spark_says_what_to_do() {
        let description = AppDescription::default();
        for home in [None, Some(String::new())] {
            let refused = command(&description, |_| home.clone()).expect_err("no Spark");
            assert_eq!(refused, NoSpark::NoHome);
        }
        let home = tempfile::tempdir().expect("a directory");
        let home = home.path().to_str().expect("UTF-8").to_owned();
        let refused = command(&description, |_| Some(home.clone())).expect_err("no Spark");
        assert_eq!(
            refused.to_string(),
            format!(
                "SPARK_HOME of this worker is {home:?}, where there is no bin/spark-submit; set it to the directory of a Spark"
            )
        );
    }
}
