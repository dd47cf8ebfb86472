//! The configuration as people read it: the README's table and the rows of `aloha config`.

use std::fmt::Write as _;

use serde::Serialize;

use super::registry::{Fallback, KEYS, Key};
use super::{Config, Value};

/// One key as `aloha config` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ConfigRow {
    /// The key.
    pub key: &'static str,
    /// The value in force, in a form the key would read back; none if it is unset.
    pub value: Option<String>,
    /// Where the value came from.
    pub source: String,
    /// What would hold if nobody set it.
    pub default: String,
    /// The environment variable that sets it too.
    pub variable: Option<&'static str>,
    /// What values are allowed.
    pub allowed: String,
    /// What it does, and why its default is what it is.
    pub meaning: &'static str,
}

impl Config {
    /// All keys in the order of the registry, with what is in force.
    pub fn rows(&self) -> Vec<ConfigRow> {
        let rows = KEYS.iter().zip(&self.entries);
        rows.map(|(key, entry)| ConfigRow {
            key: key.name,
            value: entry.value.as_ref().map(Value::to_string),
            source: entry.origin.to_string(),
            default: default(key),
            variable: key.variable,
            allowed: key.kind.to_string(),
            meaning: key.meaning,
        })
        .collect()
    }
}

/// The table of all keys in Markdown, for the README.
pub fn markdown_table() -> String {
    let mut table = "| key | default | allowed | meaning |\n|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let variable = key
            .variable
            .map_or_else(String::new, |name| format!(" (`{name}`)"));
        let Key { name, kind, .. } = key;
        writeln!(
            table,
            "| `{name}`{variable} | {} | {kind} | {} |",
            default(key),
            key.meaning
        )
        .expect("a String takes everything");
    }
    table
}

/// The default in words.
fn default(key: &Key) -> String {
    match key.default {
        // Shown with its unit, however the registry spells it.
        Fallback::Text(text) => key
            .kind
            .parse(text)
            .map_or_else(|_| text.to_owned(), |value| value.to_string()),
        Fallback::Unset(meaning) => format!("none: {meaning}"),
        Fallback::Below { places, otherwise } => {
            let mut words = String::new();
            for (variable, path) in places {
                write!(words, "${variable}/{path}, else ").expect("a String takes everything");
            }
            words + otherwise
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_row_with_its_value_source_default_and_meaning() {
        let config = Config::builder()
            .overrides(["aloha.worker.memory=2048"])
            .load()
            .expect("valid");
        let rows = config.rows();
        assert_eq!(rows.len(), KEYS.len());
        let memory = rows.iter().find(|row| row.key == "aloha.worker.memory");
        let memory = memory.expect("in the table");
        assert_eq!(memory.value.as_deref(), Some("2G"));
        assert_eq!(memory.source, "-D");
        assert_eq!(memory.default, "none: all of the machine but 1 GiB");
        assert_eq!(memory.variable, Some("ALOHA_WORKER_MEMORY"));
        let row = rows.iter().find(|row| row.key == "aloha.worker.timeout");
        let row = row.expect("in the table");
        assert_eq!(
            (row.value.as_deref(), row.default.as_str()),
            (Some("60s"), "60s")
        );
    }

    #[test]
    fn the_readme_shows_the_table_that_is_printed() {
        let readme = include_str!("../../../README.md");
        assert!(
            readme.contains(markdown_table().trim_end()),
            "paste `aloha config --markdown` into README.md"
        );
    }

    #[test]
    fn the_markdown_table_has_a_line_for_every_key_and_four_columns() {
        let table = markdown_table();
        assert_eq!(table.lines().count(), KEYS.len() + 2);
        for line in table.lines() {
            assert_eq!(line.matches('|').count(), 5, "{line}");
        }
        assert!(table.contains(
            "| `aloha.master.port` (`ALOHA_MASTER_PORT`) | 7077 | a whole number from 0 to 65535 |"
        ));
    }
}
