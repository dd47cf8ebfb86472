//! Tables that fit: whole lines for programs, and for people what their terminal has room for.

use std::io::{self, IsTerminal as _};

use comfy_table::{ColumnConstraint, ContentArrangement, Row, Table, presets};

/// Between two columns.
const GAP: u16 = 2;
/// Narrower than this, a column of texts is of no use.
const TEXT_WIDTH_MIN: u16 = 16;
/// Lines that a row of a narrow terminal may take.
const ROW_LINES_MAX: usize = 3;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    header: &'static str,
    /// Where there is no room for all, the one with the highest is left out first.
    order: u8,
    /// Whether its texts may be wrapped.
    wraps: bool,
    /// Whether its texts are worth any number of lines.
    is_prose: bool,
}

impl Column {
    /// A column that is there on every terminal.
    pub(crate) const fn fixed(header: &'static str) -> Self {
        Self::optional(header, 0)
    }

    /// A column that is left out where there is no room, the higher its order the sooner.
    pub(crate) const fn optional(header: &'static str, order: u8) -> Self {
        Self {
            header,
            order,
            wraps: false,
            is_prose: false,
        }
    }

    /// As [`optional`](Self::optional), of texts that may be long.
    pub(crate) const fn text(header: &'static str, order: u8) -> Self {
        Self {
            header,
            order,
            wraps: true,
            is_prose: false,
        }
    }

    /// As [`text`](Self::text), of texts that are never cut.
    pub(crate) const fn prose(header: &'static str, order: u8) -> Self {
        Self {
            is_prose: true,
            ..Self::text(header, order)
        }
    }
}

/// The width of the terminal that stdout is, if it is one.
pub(crate) fn terminal_width() -> Option<u16> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let size = ratatui::crossterm::terminal::size();
    size.ok().map(|(width, _)| width).filter(|width| *width > 0)
}

/// Lays rows out: one line each without a `width`, else so that they fit into it.
pub(crate) fn lay_out<const N: usize>(
    columns: [Column; N],
    rows: impl IntoIterator<Item = [String; N]>,
    width: Option<u16>,
) -> String {
    let rows: Vec<[String; N]> = rows.into_iter().map(|row| row.map(one_line)).collect();
    let natural = table(&columns, &rows, &[true; N]).column_max_content_widths();
    let mut shown = [true; N];
    if let Some(width) = width {
        let needed = |shown: &[bool; N]| -> u32 {
            let places = (0..N).filter(|place| shown[*place]);
            let widths = places.map(|place| {
                let natural = natural.get(place).copied().unwrap_or_default();
                let least = if columns[place].wraps {
                    natural.min(TEXT_WIDTH_MIN)
                } else {
                    natural
                };
                u32::from(least) + u32::from(GAP)
            });
            widths.sum::<u32>().saturating_sub(GAP.into())
        };
        while needed(&shown) > width.into() {
            let droppable = (0..N).filter(|place| shown[*place] && columns[*place].order > 0);
            let Some(place) = droppable.max_by_key(|place| columns[*place].order) else {
                break;
            };
            shown[place] = false;
        }
    }
    let mut table = table(&columns, &rows, &shown);
    if let Some(width) = width {
        // The last column has no gap behind it.
        table.set_width(width.saturating_add(GAP));
        table.set_content_arrangement(ContentArrangement::Dynamic);
        let kept = columns.iter().zip(shown).filter(|(_, shown)| *shown);
        for (place, (column, _)) in kept.enumerate() {
            if !column.wraps
                && let Some(column) = table.column_mut(place)
            {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    table.trim_fmt()
}

fn table<const N: usize>(columns: &[Column; N], rows: &[[String; N]], shown: &[bool; N]) -> Table {
    let kept = || (0..N).filter(|place| shown[*place]);
    let mut table = Table::new();
    table.load_style(presets::NOTHING).force_no_tty();
    table.set_header(kept().map(|place| columns[place].header));
    for row in rows {
        let mut cells = Row::from(kept().map(|place| &row[place]));
        if !columns.iter().any(|column| column.is_prose) {
            cells.max_height(ROW_LINES_MAX);
        }
        table.add_row(cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table
}

/// No text of a user breaks a line or commands the terminal.
pub(crate) fn one_line(text: String) -> String {
    if text.chars().any(char::is_control) {
        return text.replace(char::is_control, " ");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::fixed("ID"),
        Column::text("NAME", 2),
        Column::fixed("STATE"),
        Column::text("MESSAGE", 1),
    ];

    fn rows() -> [[String; 4]; 2] {
        let long =
            "needs 8 cores and 64 GiB\nof memory; the largest free worker has 4 cores and 2 GiB";
        [
            ["app-20190311221731-0000", "etl", "SUBMITTED", long],
            [
                "app-20190311221731-0001",
                "a name of many words",
                "RUNNING",
                "",
            ],
        ]
        .map(|row| row.map(str::to_owned))
    }

    #[test]
    fn a_program_gets_one_whole_line_for_each_row() {
        let text = lay_out(COLUMNS, rows(), None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[1].ends_with("GiB of memory; the largest free worker has 4 cores and 2 GiB"));
        assert!(
            lines[0].starts_with("ID  ") && lines[2].ends_with("RUNNING"),
            "{text}"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_no_id_is_broken() {
        for width in [34, 40, 60, 80, 120, 200] {
            let text = lay_out(COLUMNS, rows(), Some(width));
            for line in text.lines() {
                assert!(line.chars().count() <= width.into(), "{width}: {text}");
            }
            for needed in [
                "app-20190311221731-0000",
                "app-20190311221731-0001",
                "SUBMITTED",
            ] {
                assert!(text.contains(needed), "{width}: {text}");
            }
        }
    }

    #[test]
    fn what_matters_least_is_left_out_first() {
        let header = |width| {
            let text = lay_out(COLUMNS, rows(), Some(width));
            let header = text.lines().next().expect("a header").to_owned();
            header
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(header(80), "ID NAME STATE MESSAGE");
        assert_eq!(header(60), "ID STATE MESSAGE");
        assert_eq!(header(40), "ID STATE");
    }
}
