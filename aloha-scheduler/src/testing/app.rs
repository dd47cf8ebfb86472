use std::time::Duration;

use crate::app::AppDescription;

/// An application of a simulation: what it will do stands in its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimApp {
    /// How long it works, unless it is asked to end.
    pub work: Duration,
    /// With what it exits then.
    pub exit_code: i32,
    /// How long it takes to end once asked; `None` if it has to be killed.
    pub stops_within: Option<Duration>,
}

impl SimApp {
    /// One that works so long, exits with 0, and ends at once when asked.
    #[must_use]
    pub fn working_for(work: Duration) -> Self {
        Self {
            work,
            exit_code: 0,
            stops_within: Some(Duration::ZERO),
        }
    }

    /// What to submit, under this name: one core and 256 MiB.
    #[must_use]
    pub fn description(&self, name: &str) -> AppDescription {
        let stops_within = self.stops_within.map(|it| it.as_millis().to_string());
        AppDescription {
            name: name.to_owned(),
            entry_point: "Simulated".to_owned(),
            args: vec![
                self.work.as_millis().to_string(),
                self.exit_code.to_string(),
                stops_within.unwrap_or_default(),
            ],
            cores: 1,
            memory_mib: 256,
            ..AppDescription::default()
        }
    }

    /// What a description says; nothing done where it says nothing.
    pub(super) fn of(description: &AppDescription) -> Self {
        let number = |place: usize| -> Option<u64> { description.args.get(place)?.parse().ok() };
        let exit_code = description.args.get(1).and_then(|code| code.parse().ok());
        Self {
            work: Duration::from_millis(number(0).unwrap_or_default()),
            exit_code: exit_code.unwrap_or_default(),
            stops_within: number(2).map(Duration::from_millis),
        }
    }
}
