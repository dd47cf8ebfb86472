//! For tests under a clock that jumps: what they submit, and what time it is.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use aloha_scheduler::{AppDescription, AppId, ClientError, SubmitAnswer};
use tokio::time::Instant;

/// An application of one core.
pub fn description(name: &str) -> AppDescription {
    AppDescription {
        name: name.to_owned(),
        entry_point: "Process".to_owned(),
        args: vec!["true".to_owned()],
        cores: 1,
        memory_mib: 1,
        ..AppDescription::default()
    }
}

pub fn accepted(answer: Result<SubmitAnswer, ClientError>) -> AppId {
    let accepted = answer.expect("an answer").accepted();
    accepted.expect("accepted")
}

pub fn now() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "the clock of the simulation")]
    Instant::now()
}
