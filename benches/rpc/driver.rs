//! Starts the contestants, one after the other, and gathers their figures.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use aloha_benches::{Figures, Kind, Workload};

/// No contestant may take longer for one workload.
const LIMIT: Duration = Duration::from_secs(60);

/// A program that has contestants.
#[derive(Debug, Clone)]
pub(crate) struct Program(PathBuf);

impl Program {
    /// The one that runs.
    pub(crate) fn this() -> Result<Self, String> {
        let path = std::env::current_exe();
        path.map(Self).map_err(|error| error.to_string())
    }

    fn entries(&self) -> Result<Vec<Contestant>, String> {
        let list = output(Command::new(&self.0).arg("--list"), LIMIT)?;
        let contestant = |line: &str| {
            let (kind, rest) = line.split_once(' ')?;
            let (workload, name) = rest.split_once(' ')?;
            Some(Contestant {
                program: self.clone(),
                name: name.to_owned(),
                kind: Kind::called(kind)?,
                workload: Workload::called(workload)?,
                rounds: Vec::new(),
                calls: None,
                failures: Vec::new(),
            })
        };
        let contestants: Option<_> = list.lines().map(contestant).collect();
        contestants.ok_or_else(|| format!("{} lists: {list}", self.0.display()))
    }
}

/// Builds the peers that the workloads need, beside what was built for this program.
pub(crate) fn build_peers(workloads: &[Workload]) -> Result<Vec<Program>, String> {
    let Program(this) = Program::this()?;
    // target/release/deps/rpc-…
    let target = this.ancestors().nth(3).ok_or("this program lies nowhere")?;
    let target = target.join("peers");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/Cargo.toml");
    let mut programs = Vec::new();
    for part in ["local", "remote"] {
        let is_remote = part == "remote";
        if !workloads
            .iter()
            .any(|workload| workload.is_remote() == is_remote)
        {
            continue;
        }
        let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        build.args(["build", "--release", "--locked", "--quiet"]);
        build.args(["--bin", part, "--features", part]);
        build.arg("--manifest-path").arg(&manifest);
        build.arg("--target-dir").arg(&target);
        let built = build.status().map_err(|error| error.to_string())?;
        if !built.success() {
            return Err(format!("the {part} peers cannot be built"));
        }
        programs.push(Program(target.join("release").join(part)));
    }
    Ok(programs)
}

/// One contestant in one workload, and how it went so far.
#[derive(Debug)]
pub(crate) struct Contestant {
    program: Program,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) workload: Workload,
    rounds: Vec<Figures>,
    /// System calls for each operation.
    pub(crate) calls: Option<f64>,
    failures: Vec<String>,
}

impl Contestant {
    fn command(&self, divisor: u64) -> Command {
        let mut command = Command::new(&self.program.0);
        command.args(["--run", &self.name, self.workload.name()]);
        command.arg(divisor.to_string());
        command
    }

    fn run(&mut self, divisor: u64) {
        let line = output(&mut self.command(divisor), LIMIT);
        let read = |line: String| {
            Figures::from_line(&line).ok_or_else(|| format!("it said what is no figure: {line}"))
        };
        match line.and_then(read) {
            Ok(figures) => self.rounds.push(figures),
            Err(reason) => self.fail(reason),
        }
    }

    fn fail(&mut self, reason: String) {
        eprintln!("{} {} failed: {reason}", self.workload.name(), self.name);
        self.failures.push(reason);
    }

    /// Counts them twice, for starting and ending are not part of it.
    fn count_calls(&mut self) {
        let (Some(many), Some(few)) = (self.calls(10), self.calls(40)) else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let calls =
            many.0.saturating_sub(few.0) as f64 / many.1.saturating_sub(few.1).max(1) as f64;
        self.calls = Some(calls);
    }

    /// How many system calls a short run does, and how many operations.
    fn calls(&self, divisor: u64) -> Option<(u64, u64)> {
        let plain = self.command(divisor);
        let summary = std::env::temp_dir().join(format!("aloha-calls-{}", std::process::id()));
        let mut traced = Command::new("strace");
        traced.args(["-f", "-q", "-c", "-o"]).arg(&summary);
        traced.arg(plain.get_program()).args(plain.get_args());
        let line = output(&mut traced, LIMIT);
        let counted = std::fs::read_to_string(&summary);
        drop(std::fs::remove_file(&summary));
        let operations = Figures::from_line(&line.ok()?)?.operations;
        let counted = counted.ok()?;
        let total = counted.lines().find(|line| line.ends_with("total"))?;
        let calls = total.split_whitespace().nth(3)?.parse().ok()?;
        Some((calls, operations))
    }

    /// Median, minimum and maximum.
    pub(crate) fn speed(&self) -> Option<[f64; 3]> {
        let figures = self.rounds.iter();
        summary(
            figures
                .filter_map(|figures| speed(self.workload, figures))
                .collect(),
        )
    }

    /// Microseconds of processor time for each operation, of both processes.
    pub(crate) fn cpu(&self) -> Option<f64> {
        let timed = self.rounds.iter().filter(|figures| figures.grown.is_none());
        let cpu = timed.map(|figures| each(figures.cpu, figures.operations));
        summary(cpu.collect()).map(|[median, ..]| median)
    }

    /// Microseconds that half of the operations take at most.
    pub(crate) fn latency(&self) -> Option<f64> {
        let medians = self.rounds.iter().filter_map(|figures| figures.median);
        summary(medians.map(|median| each(median, 1)).collect()).map(|[median, ..]| median)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn speed(workload: Workload, figures: &Figures) -> Option<f64> {
    use aloha_benches::Unit;

    let operations = figures.operations as f64;
    let speed = match workload.unit() {
        Unit::Bytes => figures.grown? as f64 / operations,
        Unit::Thousands => operations / figures.took.as_secs_f64() / 1e3,
        Unit::Megabytes => operations * f64::from(1 << 20) / figures.took.as_secs_f64() / 1e6,
    };
    Some(speed)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn each(time: Duration, operations: u64) -> f64 {
    time.as_secs_f64() * 1e6 / operations as f64
}

fn summary(mut figures: Vec<f64>) -> Option<[f64; 3]> {
    figures.sort_by(f64::total_cmp);
    let upper = figures.get(figures.len() / 2)?;
    // Of an even number, the middle of the two in the middle.
    let lower = figures.get((figures.len() - 1) / 2)?;
    Some([
        f64::midpoint(*lower, *upper),
        *figures.first()?,
        *figures.last()?,
    ])
}

/// All contestants.
#[derive(Debug)]
pub(crate) struct Comparison(Vec<Contestant>);

impl Comparison {
    /// Those of the programs that take part in the workloads; if names are given, they alone.
    pub(crate) fn between(
        programs: Vec<Program>,
        workloads: &[Workload],
        names: &[String],
    ) -> Result<Self, String> {
        let mut contestants = Vec::new();
        for program in programs {
            contestants.extend(program.entries()?);
        }
        let is_there = |name: &&String| contestants.iter().all(|there| there.name != **name);
        if let Some(unknown) = names.iter().find(is_there) {
            return Err(format!("no workload or contestant is called {unknown}"));
        }
        contestants.retain(|contestant| {
            workloads.contains(&contestant.workload)
                && (names.is_empty() || names.contains(&contestant.name))
        });
        contestants.sort_by_key(|contestant| {
            let mut all = Workload::ALL.iter();
            all.position(|&workload| workload == contestant.workload)
        });
        Ok(Self(contestants))
    }

    /// Everybody once. Every other time the other way round, so that nobody always follows the same one.
    pub(crate) fn round(&mut self, number: usize, divisor: u64) {
        let mut order: Vec<_> = self.0.iter_mut().collect();
        if number % 2 == 1 {
            order.reverse();
        }
        for contestant in order {
            contestant.run(divisor);
        }
    }

    /// Has `strace` count system calls, where it is there and may.
    pub(crate) fn count_calls(&mut self) {
        let works = output(
            Command::new("strace").args(["-o", "/dev/null", "true"]),
            LIMIT,
        );
        if works.is_ok() {
            let timed = |contestant: &&mut Contestant| contestant.workload != Workload::L5m;
            let contestants = self.0.iter_mut().filter(timed);
            contestants.for_each(Contestant::count_calls);
        }
    }

    /// Who took part in a workload.
    pub(crate) fn of(&self, workload: Workload) -> Vec<&Contestant> {
        let contestants = self.0.iter();
        contestants
            .filter(|contestant| contestant.workload == workload)
            .collect()
    }

    /// What went wrong, a line each; empty if nothing did.
    pub(crate) fn failures(&self) -> String {
        let mut failures = Vec::new();
        for contestant in &self.0 {
            let (workload, name) = (contestant.workload.name(), &contestant.name);
            let reasons = contestant.failures.iter();
            failures.extend(reasons.map(|reason| format!("{workload} {name} failed: {reason}")));
        }
        failures.join("\n")
    }
}

/// What a process writes; kills it when that takes too long. When this process dies, contestants do too.
fn output(command: &mut Command, limit: Duration) -> Result<String, String> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut process = spawned.map_err(|error| error.to_string())?;
    let mut pipe = process.stdout.take().ok_or("no pipe")?;
    let (done, all) = channel();
    // It ends with the process.
    std::thread::spawn(move || {
        let mut output = String::new();
        let read = pipe.read_to_string(&mut output);
        drop(done.send(read.map(|_| output)));
    });
    let output = match all.recv_timeout(limit) {
        Ok(read) => read.map_err(|error| error.to_string()),
        Err(RecvTimeoutError::Timeout) => Err(format!("it was not done within {limit:?}")),
        Err(RecvTimeoutError::Disconnected) => Err("nobody reads it".to_owned()),
    };
    if output.is_err() {
        drop(process.kill());
    }
    let ended = process.wait().map_err(|error| error.to_string())?;
    let output = output?;
    if ended.success() {
        Ok(output)
    } else {
        Err(format!("{ended}"))
    }
}
