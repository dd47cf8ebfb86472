//! What came of a day, as text and as a drawing.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::time::Duration;

use aloha_scheduler::AppPhase;

/// What came of a day.
pub(crate) struct Report {
    workers: u64,
    cores: u32,
    submitted: usize,
    left: usize,
    /// For how many milliseconds those of a priority waited for their first launch.
    waits: BTreeMap<i32, Vec<u64>>,
    ends: BTreeMap<AppPhase, usize>,
    relaunches: usize,
    decisions: u64,
    events: u64,
    /// The part of the cores that was used, every five minutes.
    used: Vec<f64>,
    whole: Duration,
}

impl Report {
    pub(crate) fn new(workers: u64, cores: u32, submitted: usize) -> Self {
        Self {
            workers,
            cores,
            submitted,
            left: 0,
            waits: BTreeMap::new(),
            ends: BTreeMap::new(),
            relaunches: 0,
            decisions: 0,
            events: 0,
            used: Vec::new(),
            whole: Duration::ZERO,
        }
    }

    pub(crate) fn handled(&mut self) {
        self.events += 1;
    }

    pub(crate) fn decided(&mut self) {
        self.decisions += 1;
    }

    pub(crate) fn waited(&mut self, priority: i32, millis: u64) {
        self.waits.entry(priority).or_default().push(millis);
    }

    pub(crate) fn ended(&mut self, phase: AppPhase) {
        *self.ends.entry(phase).or_default() += 1;
    }

    pub(crate) fn relaunched(&mut self) {
        self.relaunches += 1;
    }

    pub(crate) fn sample(&mut self, cores_used: u32) {
        self.used
            .push(f64::from(cores_used) / f64::from(self.cores));
    }

    /// The day is over, and this many have not ended.
    pub(crate) fn close(&mut self, left: usize, whole: Duration) {
        (self.left, self.whole) = (left, whole);
        for waits in self.waits.values_mut() {
            waits.sort_unstable();
        }
    }

    /// Whether each that was submitted either ended once or is still there.
    pub(crate) fn adds_up(&self) -> bool {
        self.ends.values().sum::<usize>() + self.left == self.submitted
    }

    /// Two drawings: how the cores were used over the day, and which part of each priority waited for how long.
    pub(crate) fn to_svg(&self) -> String {
        let mut svg = String::from(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 620\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"800\" height=\"620\" fill=\"white\"/>\n",
        );
        let used = (0..)
            .zip(&self.used)
            .map(|(sample, part)| (f64::from(sample) / 288.0, *part));
        let hours = [0, 6, 12, 18, 24].map(|hour| (f64::from(hour) / 24.0, format!("{hour}:00")));
        let parts = [0, 25, 50, 75, 100].map(|part| (f64::from(part) / 100.0, format!("{part} %")));
        let chart = Chart {
            top: 40.0,
            title: "Cores in use",
        };
        chart.axes(&mut svg, &hours, &parts);
        chart.line(&mut svg, used, "#1f6f8b", "");
        let times = [
            (0.0, "at once"),
            (1.0, "1 s"),
            (60.0, "1 min"),
            (3600.0, "1 h"),
            (43_200.0, "12 h"),
        ];
        let times = times.map(|(seconds, text)| (along(seconds), text.to_owned()));
        let chart = Chart {
            top: 350.0,
            title: "Applications placed within this time",
        };
        chart.axes(&mut svg, &times, &parts);
        for ((priority, waits), colour) in self.waits.iter().zip(["#8b1f3f", "#1f6f8b", "#4f8b1f"])
        {
            let points = (0..=100_u32).map(|part| {
                (
                    along(seconds(quantile(waits, part))),
                    f64::from(part) / 100.0,
                )
            });
            chart.line(&mut svg, points, colour, &format!("priority {priority}"));
        }
        svg.push_str("</svg>\n");
        svg
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            workers,
            cores,
            submitted,
            left,
            ..
        } = self;
        writeln!(
            f,
            "{workers} workers with {cores} cores, {submitted} applications, a day\n"
        )?;
        for (phase, count) in &self.ends {
            writeln!(f, "{count:>10} {phase}")?;
        }
        writeln!(f, "{left:>10} still there at midnight")?;
        writeln!(f, "{:>10} times one ran again\n", self.relaunches)?;
        writeln!(
            f,
            "  priority    placed   half waited   90 % waited   99 % waited       longest"
        )?;
        for (priority, waits) in self.waits.iter().rev() {
            let quantiles =
                [50, 90, 99, 100].map(|part| format!("{:>12.1} s", seconds(quantile(waits, part))));
            writeln!(f, "{priority:>10}{:>10}{}", waits.len(), quantiles.concat())?;
        }
        let mean =
            self.used.iter().sum::<f64>() / f64::from(u32::try_from(self.used.len()).unwrap_or(1));
        let most = self.used.iter().copied().fold(0.0, f64::max);
        writeln!(
            f,
            "\ncores in use: {:.0} % on average, {:.0} % at most",
            100.0 * mean,
            100.0 * most
        )?;
        #[expect(clippy::cast_precision_loss, reason = "it is far from 2^53")]
        let rate = self.decisions as f64 / self.whole.as_secs_f64();
        write!(
            f,
            "{} decisions and {} events in {:.1} s: {rate:.0} decisions/s",
            self.decisions,
            self.events,
            self.whole.as_secs_f64()
        )
    }
}

/// Of sorted times, the one that this part in a hundred does not exceed.
fn quantile(times: &[u64], part: u32) -> u64 {
    let last = times.len().saturating_sub(1);
    let place = last * usize::try_from(part).unwrap_or(0) / 100;
    times.get(place).copied().unwrap_or(0)
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

/// How far along an axis a time lies that grows tenfold with each step, up to twelve hours.
fn along(seconds: f64) -> f64 {
    ((1.0 + 10.0 * seconds).ln() / (1.0 + 432_000.0_f64).ln()).min(1.0)
}

/// Where one of the drawings lies.
struct Chart {
    top: f64,
    title: &'static str,
}

impl Chart {
    const LEFT: f64 = 60.0;
    const WIDTH: f64 = 700.0;
    const HEIGHT: f64 = 210.0;

    fn x(part: f64) -> f64 {
        Self::LEFT + Self::WIDTH * part
    }

    fn y(&self, part: f64) -> f64 {
        self.top + Self::HEIGHT * (1.0 - part)
    }

    fn axes(&self, svg: &mut String, along: &[(f64, String)], up: &[(f64, String)]) {
        let (title, above) = (self.title, self.top - 14.0);
        let left = Self::LEFT;
        push(
            svg,
            format_args!("<text x=\"{left}\" y=\"{above}\" font-weight=\"bold\">{title}</text>"),
        );
        for (part, text) in along {
            let (x, y) = (Self::x(*part), self.y(0.0) + 18.0);
            push(
                svg,
                format_args!("<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>"),
            );
        }
        for (part, text) in up {
            let (x, y, right) = (Self::LEFT, self.y(*part), Self::x(1.0));
            push(
                svg,
                format_args!("<path d=\"M{x} {y}H{right}\" stroke=\"#ddd\"/>"),
            );
            let (x, y) = (x - 8.0, y + 4.0);
            push(
                svg,
                format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{text}</text>"),
            );
        }
    }

    fn line(
        &self,
        svg: &mut String,
        points: impl Iterator<Item = (f64, f64)>,
        colour: &str,
        name: &str,
    ) {
        let mut path = String::new();
        let mut labelled = None;
        for (along, up) in points {
            let (x, y) = (Self::x(along), self.y(up));
            let _ = write!(path, "{x:.1},{y:.1} ");
            if up <= 0.6 {
                labelled = Some((x + 6.0, y));
            }
        }
        push(
            svg,
            format_args!(
                "<polyline points=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            ),
        );
        if let (Some((x, y)), false) = (labelled, name.is_empty()) {
            push(
                svg,
                format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{colour}\">{name}</text>"),
            );
        }
    }
}

fn push(svg: &mut String, element: fmt::Arguments<'_>) {
    svg.push_str(&element.to_string());
    svg.push('\n');
}
