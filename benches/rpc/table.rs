//! The figures as tables.

use aloha_benches::{Kind, Workload};

use crate::driver::{Comparison, Contestant};

/// Ours divided by the best of the others.
#[derive(Debug)]
pub(crate) struct Ratios {
    /// The best peer and ours divided by it.
    pub(crate) to_peer: Option<(String, f64)>,
    /// The best limit and ours divided by it.
    pub(crate) to_limit: Option<(String, f64)>,
}

impl Ratios {
    /// Ours is one contestant, or none.
    pub(crate) fn of(comparison: &Comparison, workload: Workload) -> Self {
        let contestants = comparison.of(workload);
        let ours = best(workload, &contestants, Kind::Ours);
        let ratio = |kind| {
            let (_, ours) = ours.as_ref()?;
            let (name, other) = best(workload, &contestants, kind)?;
            Some((name, ours / other))
        };
        Self {
            to_peer: ratio(Kind::Peer),
            to_limit: ratio(Kind::Limit),
        }
    }
}

fn best(workload: Workload, contestants: &[&Contestant], kind: Kind) -> Option<(String, f64)> {
    let of_kind = contestants
        .iter()
        .filter(|contestant| contestant.kind == kind);
    let figures =
        of_kind.filter_map(|contestant| Some((contestant.name.clone(), contestant.speed()?[0])));
    let by_figure = |one: &(String, f64), other: &(String, f64)| one.1.total_cmp(&other.1);
    if workload.unit().more_is_better() {
        figures.max_by(by_figure)
    } else {
        figures.min_by(by_figure)
    }
}

/// A figure with as many digits as mean something; a dash for none.
pub(crate) fn digits(figure: Option<f64>) -> String {
    match figure {
        None => "–".to_owned(),
        Some(figure) if figure.abs() >= 100.0 => format!("{figure:.0}"),
        Some(figure) if figure.abs() >= 10.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.2}"),
    }
}

/// The cells of a contestant: median, minimum, maximum, p50, processor time, calls.
pub(crate) fn cells(contestant: &Contestant) -> [String; 6] {
    let [median, minimum, maximum] = match contestant.speed() {
        Some(speed) => speed.map(|figure| digits(Some(figure))),
        None => ["failed"; 3].map(str::to_owned),
    };
    [
        median,
        minimum,
        maximum,
        digits(contestant.latency()),
        digits(contestant.cpu()),
        digits(contestant.calls),
    ]
}

/// For a terminal.
pub(crate) fn text(comparison: &Comparison) -> String {
    let mut text = String::new();
    for workload in Workload::ALL {
        let contestants = comparison.of(workload);
        if contestants.is_empty() {
            continue;
        }
        let (name, unit) = (workload.name(), workload.unit().name());
        let description = workload.description();
        text += &format!("{name}: {description}; {unit}\n");
        let titles = [
            "median",
            "minimum",
            "maximum",
            "p50 µs",
            "CPU µs/op",
            "calls/op",
        ];
        line(&mut text, "", titles.map(str::to_owned));
        for contestant in contestants {
            line(&mut text, &contestant.name, cells(contestant));
        }
        let Ratios { to_peer, to_limit } = Ratios::of(comparison, workload);
        for (name, ratio) in [to_limit, to_peer].into_iter().flatten() {
            text += &format!("  aloha ÷ {name}: {ratio:.2}\n");
        }
        text.push('\n');
    }
    text
}

fn line(text: &mut String, name: &str, cells: [String; 6]) {
    *text += &format!("  {name:<24}");
    for cell in cells {
        *text += &format!(" {cell:>10}");
    }
    text.push('\n');
}
