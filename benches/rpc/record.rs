//! Writes `RESULTS.md` and `results.svg`: what was measured in this run, and nothing else.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use aloha_benches::{Goal, Kind, Unit, Workload};

use crate::driver::Comparison;
use crate::table::{Ratios, cells, digits};
use crate::{Options, plot};

const HOW_TO_READ: &str = "\
Each contestant did each workload in a process of its own (two where it is remote), all of them once in each round, every other
round the other way round. Figures differ between machines, and between hours on a shared one: **what counts is ours beside another
in the same run.**

- **ours** is Aloha. A **limit** is what the machine does with the same means and none of the promises: a tokio channel, a
  vector swapped under a mutex, a tokio socket with one buffer that is swapped and written at once. *Deferred* ones yield once
  before they write while more than one ask is under way; with an *inbox*, another task handles what was read. What stands **aside** reaches its figure by means that ours does not
  choose: a thread blocked for each connection, or looking again and again for up to 50 µs before waiting. A **peer** is another
  library, set up as its own documentation has it.
- Messages carry a text of 32 bytes, allocated for each; a reply echoes it. The driver is a task on a runtime of two workers.
- *p50* is taken of single asks after the timed ones. *CPU* is the processor time of both processes. *calls* are system calls of
  both, counted in a short run under `strace`, which slows each of them, so that more is gathered in one.
- actix runs everything on one thread, or its actors on two. tarpc has no one-way messages; those of tonic are one stream, those of
  kameo's remote actors are acknowledged, 64 under way, and encrypted as all its traffic is. Slow ones do fewer operations.
";

/// Writes both files beside the manifest.
pub(crate) fn write(comparison: &Comparison, options: &Options) -> Result<(), String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        ("RESULTS.md", results(comparison, options)),
        ("results.svg", plot::svg(comparison)),
    ];
    for (name, text) in files {
        let path = directory.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn results(comparison: &Comparison, options: &Options) -> String {
    let mut text = String::from("# Results\n\n");
    text += "Written by `cargo bench -p aloha-benches --bench rpc -- ";
    text += &options.given.join(" ");
    text += "`.\n\n| | |\n|---|---|\n";
    for (name, fact) in facts() {
        text += &format!("| {name} | {fact} |\n");
    }
    text += &format!(
        "| others used just before | {} % of the processors |\n| rounds | {} |\n",
        options.busy, options.rounds
    );
    if options.divisor > 1 {
        text += &format!(
            "| operations | a {}th of what the workloads have |\n",
            options.divisor
        );
    }
    if options.peers {
        text += &format!("| peers | {} |\n", versions().join(", "));
    }
    if options.is_trial() {
        text += "\n**A trial, to see that all works: too short, or on a busy machine. These figures say little.**\n";
    }
    text += "\n![The figures as bars](results.svg)\n\n## How to read it\n\n";
    text += HOW_TO_READ;
    text += "\n## Goals\n\n";
    text += &goals(comparison, options.is_trial());
    for workload in Workload::ALL {
        text += &section(comparison, workload);
    }
    let failures = comparison.failures();
    if !failures.is_empty() {
        text += &format!("\n## Failures\n\n```text\n{failures}\n```\n");
    }
    text
}

fn goals(comparison: &Comparison, is_trial: bool) -> String {
    let mut text = String::from(
        "Ours divided by the best of the others, and what that shall be at least (at most where fewer is better).\n\n\
         | workload | ours ÷ best peer | shall be | | ours ÷ limit | shall be | |\n|---|---|---|---|---|---|---|\n",
    );
    for workload in Workload::ALL {
        let Some(Goal { to_peer, to_limit }) = workload.goal() else {
            continue;
        };
        if comparison.of(workload).is_empty() {
            continue;
        }
        let ratios = Ratios::of(comparison, workload);
        text += &format!("| {} ", workload.name());
        for (ratio, goal) in [(ratios.to_peer, to_peer), (ratios.to_limit, to_limit)] {
            let is_better = |ratio: f64| match workload.unit().more_is_better() {
                true => ratio >= goal,
                false => ratio <= goal,
            };
            let (measured, verdict) = match ratio {
                None => ("–".to_owned(), "not measured"),
                Some((name, ratio)) if is_trial => (format!("{ratio:.2} ({name})"), "a trial"),
                Some((name, ratio)) if is_better(ratio) => {
                    (format!("{ratio:.2} ({name})"), "reached")
                }
                Some((name, ratio)) => (format!("{ratio:.2} ({name})"), "**missed**"),
            };
            text += &format!("| {measured} | {goal:.2} | {verdict} ");
        }
        text += "|\n";
    }
    text
}

fn section(comparison: &Comparison, workload: Workload) -> String {
    let mut contestants = comparison.of(workload);
    if contestants.is_empty() {
        return String::new();
    }
    let best_first = |figure: Option<[f64; 3]>| match (figure, workload.unit()) {
        (None, _) => f64::INFINITY,
        (Some([median, ..]), Unit::Bytes) => median,
        (Some([median, ..]), _) => -median,
    };
    contestants.sort_by(|one, other| best_first(one.speed()).total_cmp(&best_first(other.speed())));
    let mut text = format!(
        "\n## {}: {}\n\nIn {}.\n\n| | | median | minimum | maximum | p50 µs | CPU µs each | calls each | ours ÷ it |\n\
         |---|---|--:|--:|--:|--:|--:|--:|--:|\n",
        workload.name(),
        workload.description(),
        workload.unit().name(),
    );
    let ours = contestants
        .iter()
        .find(|contestant| contestant.kind == Kind::Ours);
    let ours = ours.and_then(|ours| ours.speed());
    for contestant in contestants {
        let ratio = match (ours, contestant.speed()) {
            (Some([ours, ..]), Some([it, ..])) => Some(ours / it),
            _ => None,
        };
        let (name, kind) = (&contestant.name, contestant.kind.name());
        let name = match contestant.kind {
            Kind::Ours => format!("**{name}**"),
            Kind::Limit | Kind::Aside | Kind::Peer => name.clone(),
        };
        let figures = cells(contestant).join(" | ");
        writeln!(text, "| {name} | {kind} | {figures} | {} |", digits(ratio))
            .expect("a string takes everything");
    }
    text
}

/// When and on what it was measured.
fn facts() -> Vec<(&'static str, String)> {
    let first_of = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let said_by = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let memory = first_of("/proc/meminfo", "MemTotal").and_then(|memory| {
        let kib: u64 = memory.split_whitespace().next()?.parse().ok()?;
        Some(format!("{} GiB", (kib + (1 << 19)) >> 20))
    });
    let cores = std::thread::available_parallelism().map(|cores| cores.to_string());
    let facts = [
        ("date", said_by("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        (
            "commit",
            said_by("git", &["describe", "--always", "--dirty"]),
        ),
        ("processor", first_of("/proc/cpuinfo", "model name")),
        ("cores", cores.ok()),
        ("memory", memory),
        ("kernel", said_by("uname", &["-sr"])),
        ("compiler", said_by("rustc", &["--version"])),
    ];
    let known = |(name, fact): (&'static str, Option<String>)| Some((name, fact?));
    facts.into_iter().filter_map(known).collect()
}

/// What the lock file of the peers says of those that take part.
fn versions() -> Vec<String> {
    const NAMES: [&str; 9] = [
        "actix",
        "kameo",
        "kanal",
        "ractor",
        "ractor_cluster",
        "tarpc",
        "tokio",
        "tonic",
        "xtra",
    ];
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap_or_default();
    let packages = lock.split("[[package]]").filter_map(|package| {
        let value = |key: &str| {
            let mut lines = package.lines();
            lines.find_map(|line| Some(line.strip_prefix(key)?.trim_matches('"').to_owned()))
        };
        let name = value("name = ")?;
        NAMES
            .contains(&&*name)
            .then(|| Some(format!("{name} {}", value("version = ")?)))?
    });
    packages.collect()
}
