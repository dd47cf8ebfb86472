//! The JSON that goes out: sorted keys, no nulls.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::create::Dialect;
use super::driver_id::{app_of, dialect_of, driver_id};
use super::layout::like_spark;
use crate::app::{AppPhase, AppStatus, Transition};
use crate::ids::AppId;
use crate::messages::KillAnswer;

/// The version of Spark that this server is like. Clients take an answer without one for broken. It is 4.0.0, which brought
/// `readyz` and `{{NAME}}`; which Spark runs what is submitted is a matter of the worker.
const SERVER_SPARK_VERSION: &str = "4.0.0";

/// Everything the server answers. The fields stand in the order of their names in JSON; absent ones are left out.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::rest) struct Reply {
    /// How it is laid out.
    #[serde(skip)]
    dialect: Dialect,
    action: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver_state: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    highest_protocol_version: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    history: Vec<Change>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    server_spark_version: ServerSparkVersion,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submission_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submitted_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    success: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown_fields: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_host_port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
}

#[derive(Debug, Serialize)]
struct ServerSparkVersion(&'static str);

impl Default for ServerSparkVersion {
    fn default() -> Self {
        Self(SERVER_SPARK_VERSION)
    }
}

/// A change of an application's state.
#[derive(Debug, Serialize)]
struct Change {
    at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    state: AppPhase,
}

impl From<Transition> for Change {
    fn from(past: Transition) -> Self {
        Self {
            at: past.at,
            attempt: Some(past.attempt).filter(|attempt| *attempt > 0),
            reason: past.reason,
            state: past.to,
        }
    }
}

impl Reply {
    /// To a submission: the application it is, or why it is none.
    pub(super) fn created(
        dialect: Dialect,
        answer: Result<AppId, String>,
        unknown_fields: Option<Vec<String>>,
    ) -> Self {
        let success = Some(answer.is_ok());
        let (submission_id, message) = match (answer, dialect) {
            (Ok(app), Dialect::Aloha) => (
                Some(app.to_string()),
                format!("application submitted as {app}"),
            ),
            (Ok(app), Dialect::Spark) => {
                let id = driver_id(&app);
                let message = format!("Driver successfully submitted as {id}");
                (Some(id), message)
            }
            (Err(reason), _) => (None, reason),
        };
        Self {
            dialect,
            action: "CreateSubmissionResponse",
            message: Some(message),
            submission_id,
            success,
            unknown_fields,
            ..Self::default()
        }
    }

    pub(super) fn killed(id: &str, answer: KillAnswer) -> Self {
        // The master knows it by its own id.
        let message = match app_of(id) {
            Some(app) => answer.message.replace(app.as_str(), id),
            None => answer.message,
        };
        Self {
            dialect: dialect_of(id),
            action: "KillSubmissionResponse",
            message: Some(message),
            submission_id: Some(id.to_owned()),
            success: Some(answer.success),
            ..Self::default()
        }
    }

    pub(super) fn killed_all(count: u64) -> Self {
        Self {
            action: "KillAllSubmissionResponse",
            message: Some(format!("{count} applications were killed, or will be")),
            success: Some(true),
            ..Self::default()
        }
    }

    pub(super) fn cleared(count: u64) -> Self {
        Self {
            action: "ClearResponse",
            message: Some(format!("{count} applications that had ended are forgotten")),
            success: Some(true),
            ..Self::default()
        }
    }

    pub(super) fn status(id: &str, status: Option<AppStatus>) -> Self {
        let reply = Self {
            dialect: dialect_of(id),
            action: "SubmissionStatusResponse",
            submission_id: Some(id.to_owned()),
            success: Some(status.is_some()),
            ..Self::default()
        };
        let Some(status) = status else {
            return Self {
                message: Some(format!("application {id} is unknown")),
                ..reply
            };
        };
        let (worker_id, worker_host_port) = status
            .worker
            .map(|placed| (placed.worker.to_string(), placed.address.to_string()))
            .unzip();
        Self {
            attempt: Some(status.attempt).filter(|attempt| *attempt > 0),
            driver_state: Some(state(reply.dialect, status.phase).to_string()),
            exit_code: status.exit_code,
            finished_at: status.ended_at,
            history: status.history.into_iter().map(Change::from).collect(),
            message: status.message,
            not_before: status.not_before,
            priority: Some(status.priority),
            started_at: status.started_at,
            submitted_at: status.submitted_at,
            waiting_for: status.waiting_for,
            worker_host_port,
            worker_id,
            ..reply
        }
    }

    pub(super) fn ready() -> Self {
        Self {
            action: "ReadyzResponse",
            message: Some(String::new()),
            success: Some(true),
            ..Self::default()
        }
    }

    pub(in crate::rest) fn error(
        message: String,
        highest_protocol_version: Option<&'static str>,
    ) -> Self {
        Self {
            action: "ErrorResponse",
            highest_protocol_version,
            message: Some(message),
            ..Self::default()
        }
    }

    pub(in crate::rest) fn to_json(&self) -> Vec<u8> {
        let json = match self.dialect {
            Dialect::Aloha => serde_json::to_vec(self),
            Dialect::Spark => like_spark(self),
        };
        json.expect("texts and numbers are always JSON")
    }

    pub(in crate::rest) fn into_response(self, status: StatusCode) -> Response {
        let body = self.to_json();
        let json = HeaderValue::from_static("application/json");
        (status, [(header::CONTENT_TYPE, json)], body).into_response()
    }
}

/// The state in the words of a dialect. Spark has none for an application on its way to a worker, and there it runs for as
/// long as its worker is not given up: its pollers take `UNKNOWN` for an end, and would submit it a second time.
fn state(dialect: Dialect, phase: AppPhase) -> AppPhase {
    match (dialect, phase) {
        (Dialect::Spark, AppPhase::Launching) => AppPhase::Submitted,
        (Dialect::Spark, AppPhase::Unknown) => AppPhase::Running,
        (_, phase) => phase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_nulls_omitted() {
        let full = Reply {
            dialect: Dialect::Aloha,
            action: "A",
            attempt: Some(1),
            driver_state: Some(String::new()),
            exit_code: Some(0),
            finished_at: Some(0),
            highest_protocol_version: Some("v1"),
            // Its own keys are sorted among themselves, see below.
            history: Vec::new(),
            message: Some(String::new()),
            not_before: Some(0),
            priority: Some(0),
            server_spark_version: ServerSparkVersion::default(),
            started_at: Some(0),
            submission_id: Some(String::new()),
            submitted_at: Some(0),
            success: Some(true),
            unknown_fields: Some(Vec::new()),
            waiting_for: Some(String::new()),
            worker_host_port: Some(String::new()),
            worker_id: Some(String::new()),
        };
        let text = serde_json::to_string(&full).expect("JSON");
        let keys: Vec<_> = text.split('"').filter(|part| !part.is_empty()).collect();
        let keys: Vec<_> = keys
            .windows(2)
            .filter(|pair| pair[1].starts_with(':'))
            .map(|pair| pair[0])
            .collect();
        assert_eq!(keys.len(), 18, "{text}");
        assert!(keys.is_sorted(), "{keys:?}");
        let id = "app-1".parse().expect("an id");
        let created = Reply::created(Dialect::Aloha, Ok(id), None);
        assert_eq!(
            serde_json::to_string(&created).expect("JSON"),
            r#"{"action":"CreateSubmissionResponse","message":"application submitted as app-1","serverSparkVersion":"4.0.0","submissionId":"app-1","success":true}"#
        );
    }

    #[test]
    fn a_status_has_the_last_changes_of_state_with_time_and_reason() {
        let change = |at, to, attempt, reason: Option<&str>| Transition {
            at,
            to,
            attempt,
            reason: reason.map(str::to_owned),
        };
        let status = AppStatus {
            id: "app-1".parse().expect("an id"),
            name: "n".into(),
            entry_point: "e".into(),
            cores: 1,
            memory_mib: 1,
            supervise: false,
            phase: AppPhase::Relaunching,
            exit_code: None,
            attempt: 0,
            worker: None,
            waiting_for: None,
            message: None,
            submitted_at: None,
            started_at: None,
            ended_at: None,
            priority: -1,
            not_before: Some(9),
            history: vec![
                change(7, AppPhase::Submitted, 0, None),
                change(8, AppPhase::Relaunching, 1, Some("exited with code 3")),
            ],
        };
        let reply = Reply::status("app-1", Some(status));
        assert_eq!(
            serde_json::to_string(&reply).expect("JSON"),
            r#"{"action":"SubmissionStatusResponse","driverState":"RELAUNCHING","history":[{"at":7,"state":"SUBMITTED"},{"at":8,"attempt":1,"reason":"exited with code 3","state":"RELAUNCHING"}],"notBefore":9,"priority":-1,"serverSparkVersion":"4.0.0","submissionId":"app-1","success":true}"#
        );
    }

    #[test]
    fn sparks_pollers_get_no_state_that_they_would_misread() {
        for phase in AppPhase::ALL {
            assert_eq!(state(Dialect::Aloha, phase), phase);
            let expected = match phase {
                AppPhase::Launching => AppPhase::Submitted,
                AppPhase::Unknown => AppPhase::Running,
                phase => phase,
            };
            assert_eq!(state(Dialect::Spark, phase), expected);
        }
    }
}
