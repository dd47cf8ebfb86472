//! The figures as bars: a panel for each workload, each with a scale of its own.

use aloha_benches::{Kind, Workload};

use crate::driver::{Comparison, Contestant};
use crate::table::digits;

const COLUMNS: usize = 3;
const WIDTH: usize = 400;
const NAMES: usize = 150;
const BARS: usize = 180;
const ROW: usize = 17;
const TITLE: usize = 44;
const GAP: usize = 20;
const LEGEND: usize = 40;

/// A picture of all workloads that were measured.
pub(crate) fn svg(comparison: &Comparison) -> String {
    let workloads = Workload::ALL.into_iter();
    let panels: Vec<_> = workloads
        .map(|workload| (workload, comparison.of(workload)))
        .filter(|(_, contestants)| !contestants.is_empty())
        .collect();
    let mut body = legend();
    let mut top = LEGEND;
    for row in panels.chunks(COLUMNS) {
        let longest = row.iter().map(|(_, contestants)| contestants.len()).max();
        for (column, (workload, contestants)) in row.iter().enumerate() {
            body += &format!(
                "<g transform=\"translate({} {top})\">\n",
                GAP + column * (WIDTH + GAP)
            );
            body += &panel(*workload, contestants);
            body += "</g>\n";
        }
        top += TITLE + longest.unwrap_or(0) * ROW + GAP;
    }
    let width = GAP + COLUMNS * (WIDTH + GAP);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{top}\" viewBox=\"0 0 {width} {top}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{body}</svg>\n"
    )
}

fn colour(kind: Kind) -> &'static str {
    match kind {
        Kind::Ours => "#c8553d",
        Kind::Limit => "#7a7a7a",
        Kind::Aside => "#c9c9c9",
        Kind::Peer => "#4d7ea8",
    }
}

fn legend() -> String {
    let entries = [
        (Kind::Ours, "Aloha"),
        (Kind::Limit, "limit: the same means, no promises"),
        (Kind::Aside, "aside: other means"),
        (Kind::Peer, "another library"),
    ];
    let mut legend = String::new();
    let mut left = GAP;
    for (kind, name) in entries {
        let colour = colour(kind);
        legend += &format!(
            "<rect x=\"{left}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"24\">{name}</text>\n",
            left + 18
        );
        left += 40 + name.len() * 7;
    }
    legend
}

/// The longest bar is the largest figure; the line over it goes from the least to the largest of all rounds.
fn panel(workload: Workload, contestants: &[&Contestant]) -> String {
    let (name, description, unit) = (workload.name(), workload.description(), workload.unit());
    let mut panel = format!(
        "<text y=\"14\" font-weight=\"bold\">{name}: {description}</text>\n\
         <text y=\"30\" fill=\"#666666\">{}</text>\n",
        unit.name()
    );
    let mut measured: Vec<_> = contestants
        .iter()
        .filter_map(|contestant| Some((contestant, contestant.speed()?)))
        .collect();
    measured.sort_by(|(_, one), (_, other)| {
        let order = other[0].total_cmp(&one[0]);
        if unit.more_is_better() {
            order
        } else {
            order.reverse()
        }
    });
    let largest = measured.iter().map(|(_, [.., maximum])| *maximum);
    let largest = largest.fold(f64::MIN_POSITIVE, f64::max);
    for (row, (contestant, [median, minimum, maximum])) in measured.into_iter().enumerate() {
        let (y, text) = (TITLE + row * ROW, TITLE + row * ROW + 11);
        #[expect(clippy::cast_precision_loss, reason = "a width in pixels")]
        let length = |figure: f64| figure / largest * BARS as f64;
        let weight = match contestant.kind {
            Kind::Ours => " font-weight=\"bold\"",
            Kind::Limit | Kind::Aside | Kind::Peer => "",
        };
        #[expect(clippy::cast_precision_loss, reason = "a place in pixels")]
        let left = NAMES as f64;
        panel += &format!(
            "<text x=\"{}\" y=\"{text}\" text-anchor=\"end\"{weight}>{}</text>\
             <rect x=\"{NAMES}\" y=\"{y}\" width=\"{:.1}\" height=\"13\" fill=\"{}\"/>\
             <path d=\"M{:.1} {}H{:.1}\" stroke=\"#000000\"/>\
             <text x=\"{:.1}\" y=\"{text}\" fill=\"#333333\">{}</text>\n",
            NAMES - 6,
            contestant.name,
            length(median),
            colour(contestant.kind),
            left + length(minimum),
            y + 6,
            left + length(maximum),
            left + length(maximum).max(length(median)) + 5.0,
            digits(Some(median)),
        );
    }
    panel
}
