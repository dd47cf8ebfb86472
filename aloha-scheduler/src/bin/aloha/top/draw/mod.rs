//! How the model looks on a terminal of any size.

use std::time::Duration;

use aloha_scheduler::{AppPhase, AppStatus, ClusterStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Cell, Clear, LineGauge, Paragraph, Row, Table, TableState, Wrap};

use super::keys::HELP;
use super::model::{Model, Overlay, Page};
use super::snapshot::Detail;
use crate::cluster::counts;
use crate::status;

/// Lower terminals get a short head.
const HEIGHT_FOR_ALL: u16 = 14;
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const ALARM: Style = Style::new().fg(Color::Red);

/// A column: its header, its width, and at which width of the terminal it is shown.
type Column = (&'static str, Constraint, u16);

const APP_COLUMNS: [Column; 9] = [
    ("ID", Constraint::Length(23), 0),
    ("STATE", Constraint::Length(11), 0),
    ("NAME", Constraint::Max(24), 50),
    ("CORES", Constraint::Length(5), 90),
    ("MIB", Constraint::Length(7), 100),
    ("TRY", Constraint::Length(3), 85),
    ("WORKER", Constraint::Max(40), 130),
    ("ELAPSED", Constraint::Length(8), 60),
    ("WAITS FOR", Constraint::Fill(1), 75),
];
/// The place of the name, which gets a part of the width.
const NAME: usize = 2;
const WORKER_COLUMNS: [Column; 6] = [
    ("ID", Constraint::Max(44), 0),
    ("STATE", Constraint::Length(12), 34),
    ("CORES", Constraint::Length(9), 60),
    ("MIB", Constraint::Length(15), 75),
    ("APPS", Constraint::Length(5), 90),
    ("HEARD", Constraint::Length(8), 100),
];

/// Draws all of it.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let area = frame.area();
    let head = head(model, area);
    let rows = [
        Constraint::Length(head.height()),
        Constraint::Min(1),
        Constraint::Length(1),
    ];
    let [top, list, bottom] = Layout::vertical(rows).areas(area);
    head.draw(frame, top);
    match model.page {
        Page::Apps => draw_apps(frame, model, list),
        Page::Workers => draw_workers(frame, model, list),
    }
    frame.render_widget(footer(model), bottom);
    match &model.overlay {
        Overlay::None | Overlay::Kill(_) => {}
        Overlay::Help => draw_help(frame, list),
        Overlay::Detail(id, detail) => {
            draw_detail(frame, id.as_str(), detail.as_deref(), model.scroll, list);
        }
    }
}

/// What stands above the list.
struct Head<'a> {
    lines: Vec<Line<'a>>,
    /// Below the first line, where there is room.
    gauges: Vec<(String, f64)>,
}

fn head(model: &Model, area: Rect) -> Head<'_> {
    let mut lines = Vec::new();
    let mut gauges = Vec::new();
    match &model.snapshot {
        None => lines.push(Line::styled("asking the master", DIM)),
        Some(snapshot) => {
            let cluster = &snapshot.cluster;
            lines.push(title(cluster));
            if area.height >= HEIGHT_FOR_ALL {
                let cores = (cluster.cores_used, cluster.cores);
                let memory = (cluster.memory_mib_used, cluster.memory_mib);
                gauges.push((format!("cores {}/{}", cores.0, cores.1), share(cores)));
                gauges.push((format!("MiB {}/{}", memory.0, memory.1), share(memory)));
                lines.push(labelled("workers ", counts(&cluster.workers)));
            }
            lines.push(labelled("apps ", counts(&cluster.apps)));
            let others = snapshot.masters.others();
            if area.height >= HEIGHT_FOR_ALL && !others.is_empty() {
                lines.push(labelled("masters that do not lead ", others.join(", ")));
            }
            if let Some(trouble) = &cluster.store_trouble {
                lines.push(Line::styled(format!("store: {trouble}"), ALARM));
            }
        }
    }
    if let Some(trouble) = &model.trouble {
        lines.push(Line::styled(format!("not up to date: {trouble}"), ALARM));
    }
    Head { lines, gauges }
}

fn title(cluster: &ClusterStatus) -> Line<'_> {
    let mut spans = vec![
        Span::styled("Aloha ", BOLD),
        Span::raw(cluster.master.as_str()),
        Span::styled(format!(" epoch {}", cluster.epoch), DIM),
        Span::styled(format!(" version {}", cluster.version), DIM),
    ];
    if cluster.is_recovering {
        spans.insert(2, Span::styled(" recovering", ALARM));
    }
    Line::from(spans)
}

fn labelled(label: &'static str, text: String) -> Line<'static> {
    Line::from(vec![Span::styled(label, DIM), Span::raw(text)])
}

fn share((used, all): (u64, u64)) -> f64 {
    if all == 0 {
        return 0.0;
    }
    (used as f64 / all as f64).min(1.0)
}

impl Head<'_> {
    fn height(&self) -> u16 {
        let lines = self.lines.len() + usize::from(!self.gauges.is_empty());
        u16::try_from(lines).unwrap_or(u16::MAX)
    }

    fn draw(mut self, frame: &mut Frame<'_>, area: Rect) {
        if !self.gauges.is_empty() {
            self.lines.insert(1, Line::default());
        }
        frame.render_widget(Text::from(self.lines), area);
        let [_, row, _] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Min(0),
        ])
        .areas(area);
        let parts = Layout::horizontal(vec![Constraint::Fill(1); self.gauges.len()]).spacing(1);
        for ((label, ratio), part) in self.gauges.into_iter().zip(parts.split(row).iter()) {
            let color = if ratio < 0.9 {
                Color::Green
            } else {
                Color::Yellow
            };
            let gauge = LineGauge::default()
                .label(label)
                .ratio(ratio)
                .filled_style(Style::new().fg(color))
                .unfilled_style(DIM);
            frame.render_widget(gauge, *part);
        }
    }
}

/// The columns there is room for.
fn shown<const N: usize>(columns: &[Column; N], width: u16) -> Vec<usize> {
    (0..N).filter(|place| width >= columns[*place].2).collect()
}

fn draw_list<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    model: &Model,
    columns: &[Column; N],
    rows: Vec<([String; N], Style)>,
) {
    let shown = shown(columns, area.width);
    let header = Row::new(shown.iter().map(|place| columns[*place].0))
        .style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let rows = rows.into_iter().map(|(cells, style)| {
        let cells = shown.iter().map(|place| Cell::from(cells[*place].clone()));
        Row::new(cells.collect::<Vec<_>>()).style(style)
    });
    let widths = shown.iter().map(|place| columns[*place].1);
    let table = Table::new(rows, widths)
        .header(header)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(Some(model.selected));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_apps(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let row = |app: &AppStatus| {
        let on = app.worker.as_ref().filter(|_| !app.phase.is_final());
        let why = app.waiting_for.as_ref().or(app.message.as_ref());
        let elapsed = Duration::from_millis(model.elapsed_millis(app));
        let cells = [
            app.id.to_string(),
            app.phase.to_string(),
            app.name.clone(),
            app.cores.to_string(),
            app.memory_mib.to_string(),
            app.attempt.to_string(),
            on.map_or_else(String::new, |on| on.worker.to_string()),
            short(elapsed),
            why.cloned().unwrap_or_default(),
        ];
        (cells, style_of(app.phase))
    };
    let rows: Vec<_> = model.apps().into_iter().map(row).collect();
    if rows.is_empty() && model.snapshot.is_some() {
        let text = format!("no applications ({})", model.filter.name());
        frame.render_widget(Line::styled(text, DIM), area);
        return;
    }
    let mut columns = APP_COLUMNS;
    columns[NAME].1 = Constraint::Max((area.width / 6).clamp(8, 30));
    draw_list(frame, area, model, &columns, rows);
}

fn draw_workers(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let rows = model.workers().iter().map(|worker| {
        let heard = Duration::from_millis(worker.heard_millis_ago);
        let cells = [
            worker.id.to_string(),
            worker.state.to_string(),
            format!("{}/{}", worker.cores_used, worker.cores),
            format!("{}/{}", worker.memory_mib_used, worker.memory_mib),
            worker.apps.len().to_string(),
            format!("{} ago", short(heard)),
        ];
        (cells, Style::new())
    });
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() && model.snapshot.is_some() {
        frame.render_widget(Line::styled("no workers", DIM), area);
        return;
    }
    draw_list(frame, area, model, &WORKER_COLUMNS, rows);
}

fn style_of(phase: AppPhase) -> Style {
    match phase {
        AppPhase::Running => Style::new().fg(Color::Green),
        AppPhase::Launching | AppPhase::Relaunching => Style::new().fg(Color::Cyan),
        AppPhase::Submitted => Style::new(),
        AppPhase::Unknown => Style::new().fg(Color::Yellow),
        AppPhase::Failed | AppPhase::Error => ALARM,
        AppPhase::Finished | AppPhase::Killed => DIM,
    }
}

fn footer(model: &Model) -> Line<'_> {
    if let Overlay::Kill(id) = &model.overlay {
        return Line::styled(format!("kill {id}? y/n"), BOLD.patch(ALARM));
    }
    if let Some(message) = &model.message {
        return Line::styled(message.as_str(), BOLD);
    }
    if let Overlay::Detail(..) = model.overlay {
        return Line::styled("Esc back  k kill  up/down scroll", DIM);
    }
    let order = if model.is_reversed { " reversed" } else { "" };
    let text = match model.page {
        Page::Apps => format!(
            "q quit  ? help  Tab workers  Enter details  k kill  s {}{order}  f {}",
            model.sort.name(),
            model.filter.name()
        ),
        Page::Workers => "q quit  ? help  Tab applications".to_owned(),
    };
    Line::styled(text, DIM)
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let lines = HELP.map(|(key, does)| {
        Line::from(vec![
            Span::styled(format!("{key:10} "), BOLD),
            Span::raw(does),
        ])
    });
    let help = Paragraph::new(lines.to_vec())
        .block(Block::bordered().title("keys"))
        .wrap(Wrap { trim: false });
    frame.render_widget(Clear, area);
    frame.render_widget(help, area);
}

fn draw_detail(
    frame: &mut Frame<'_>,
    title: &str,
    detail: Option<&Detail>,
    scroll: u16,
    area: Rect,
) {
    let width = usize::from(area.width.saturating_sub(2)).max(1);
    let (above, output) = match detail {
        None => (vec![Line::styled("asking the master", DIM)], Vec::new()),
        Some(detail) => {
            let output = match &detail.tail {
                Ok(text) => wrapped(text, width),
                Err(reason) => wrapped(reason, width),
            };
            (wrapped(&status::describe(&detail.status), width), output)
        }
    };
    // The newest output is always in sight.
    let wanted = u16::try_from(above.len() + 2).unwrap_or(u16::MAX);
    let most = area.height.saturating_sub(area.height / 3);
    let parts = [Constraint::Length(wanted.min(most)), Constraint::Min(0)];
    let [upper, lower] = Layout::vertical(parts).areas(area);
    let scroll = usize::from(scroll).min(beyond(&above, upper));
    let begin = beyond(&output, lower);
    frame.render_widget(Clear, area);
    for (area, title, lines, skipped) in [
        (upper, title, above, scroll),
        (lower, "end of its standard output", output, begin),
    ] {
        let lines: Vec<_> = lines.into_iter().skip(skipped).collect();
        let shown = Paragraph::new(lines).block(Block::bordered().title(title));
        frame.render_widget(shown, area);
    }
}

/// How many lines have no room inside a border.
fn beyond(lines: &[Line<'_>], area: Rect) -> usize {
    (lines.len() + 2).saturating_sub(area.height.into())
}

/// The lines of a text, none longer than `width` characters, with nothing in them that commands a terminal.
fn wrapped(text: &str, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let harmless = line.chars().map(|c| if c.is_control() { ' ' } else { c });
        let chars: Vec<char> = harmless.collect();
        if chars.is_empty() {
            lines.push(Line::default());
        }
        let parts = chars
            .chunks(width)
            .map(|part| part.iter().collect::<String>());
        lines.extend(parts.map(Line::raw));
    }
    lines
}

/// A time in at most eight characters.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    if days > 0 {
        format!("{days}d{hours}h")
    } else if hours > 0 {
        format!("{hours}h{minutes:02}m")
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
pub(super) mod tests;
