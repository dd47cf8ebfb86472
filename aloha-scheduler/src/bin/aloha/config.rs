//! `aloha config`, and the configuration of the commands that have one.

use aloha_scheduler::config::{Config, ConfigBuilder, ConfigError, ConfigRow, markdown_table};

use crate::args::{ConfigArgs, LocalArgs, MasterArgs, ShowConfigArgs, WorkerArgs};
use crate::table::{Column, lay_out, terminal_width};
use crate::{Failure, environment, print};

const COLUMNS: [Column; 5] = [
    Column::fixed("KEY"),
    Column::text("VALUE", 1),
    Column::text("SOURCE", 4),
    Column::text("DEFAULT", 3),
    Column::prose("MEANING", 2),
];

/// Prints all keys.
pub(crate) fn run(args: &ShowConfigArgs) -> Result<(), Failure> {
    let config = collect(&args.config).load()?;
    if args.markdown {
        print(markdown_table().trim_end());
    } else if args.json {
        let json = serde_json::to_string_pretty(&config.rows());
        print(json.expect("texts are always JSON"));
    } else {
        print(lay_out(
            COLUMNS,
            config.rows().into_iter().map(row),
            terminal_width(),
        ));
    }
    Ok(())
}

/// The configuration of `aloha master`.
pub(crate) fn of_master(args: &MasterArgs) -> Result<Config, ConfigError> {
    collect(&args.config)
        .flag("--host", "aloha.master.host", args.host.as_ref())
        .flag("--port", "aloha.master.port", args.port)
        .flag("--rest-port", "aloha.master.rest.port", args.rest_port)
        .load()
}

/// The configuration of `aloha worker`.
pub(crate) fn of_worker(args: &WorkerArgs) -> Result<Config, ConfigError> {
    let directory = args.work_dir.as_ref().map(|path| path.display());
    collect(&args.config)
        .flag("--host", "aloha.worker.host", args.host.as_ref())
        .flag("--port", "aloha.worker.port", args.port)
        .flag("--cores", "aloha.worker.cores", args.cores)
        .flag("--memory", "aloha.worker.memory", args.memory_mib)
        .flag("--work-dir", "aloha.worker.dir", directory)
        .load()
}

/// The configuration of `aloha local`, of its master and its workers alike.
pub(crate) fn of_local(args: &LocalArgs) -> Result<Config, ConfigError> {
    let directory = args.work_dir.as_ref().map(|path| path.display());
    collect(&args.config)
        .flag("--host", "aloha.master.host", args.host.as_ref())
        .flag("--host", "aloha.worker.host", args.host.as_ref())
        .flag("--port", "aloha.master.port", args.port)
        .flag("--rest-port", "aloha.master.rest.port", args.rest_port)
        .flag("--cores", "aloha.worker.cores", args.cores)
        .flag("--memory", "aloha.worker.memory", args.memory_mib)
        .flag("--work-dir", "aloha.worker.dir", directory)
        .load()
}

fn collect(args: &ConfigArgs) -> ConfigBuilder {
    Config::builder()
        .environment(environment)
        .properties_file(args.properties_file.clone())
        .overrides(args.overrides.iter().cloned())
}

fn row(row: ConfigRow) -> [String; 5] {
    [
        row.key.to_owned(),
        row.value.unwrap_or_else(|| "-".to_owned()),
        row.source,
        row.default,
        row.meaning.to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::args::{Cli, Command};

    fn parse(line: &str) -> Command {
        let words = std::iter::once("aloha").chain(line.split_whitespace());
        Cli::try_parse_from(words).expect(line).command
    }

    #[test]
    fn flags_reach_their_keys() {
        let Command::Master(args) = parse("master -h 127.0.0.2 -p 1 --rest-port 2") else {
            panic!("a master");
        };
        let config = of_master(&args).expect("valid");
        let (master, rest) = (config.master(), config.rest());
        assert_eq!(
            (master.host.as_str(), master.port, master.port_retries),
            ("127.0.0.2", 1, 0)
        );
        assert_eq!(
            (rest.host.as_str(), rest.port, rest.port_retries),
            ("127.0.0.2", 2, 0)
        );

        let line = "worker -h 127.0.0.2 -p 3 -c 4 -m 5G -d /w aloha://a:1";
        let Command::Worker(args) = parse(line) else {
            panic!("a worker");
        };
        let worker = of_worker(&args).expect("valid").worker();
        assert_eq!((worker.host.as_str(), worker.port), ("127.0.0.2", 3));
        assert_eq!((worker.cores, worker.memory_mib), (Some(4), Some(5120)));
        assert_eq!(worker.directory, std::path::Path::new("/w"));

        let Command::Local(args) = parse("local -p 1 --rest-port 2 -c 4 -m 256 -d /w") else {
            panic!("a local cluster");
        };
        let config = of_local(&args).expect("valid");
        assert_eq!((config.master().port, config.rest().port), (1, 2));
        assert_eq!(config.worker().memory_mib, Some(256));
    }
}
