//! Spark's protocol against the real server, row by row of the suites with which Spark tests its own.
//!
//! `spark-submit` is a script here that prints its arguments; `spark_submit.rs` has the real one.
//!
//! | StandaloneRestSubmitSuite | shown by |
//! |---|---|
//! | 1 request builder | Spark's client: `spark_submit.rs`, and the requests recorded from it |
//! | 2 create · 5 kill · 6 status | `create_kill_and_status_answer_with_sparks_fields` |
//! | 6 status: the reason in `message` | `a_worker_without_spark_makes_a_final_error_that_says_what_to_do` |
//! | 3 several masters, one dead · 4 create from the main entry | `spark_submit.rs` |
//! | 7 create then kill · 8 create then status · 9 one of two killed | `of_two_that_run_the_one_that_is_killed_ends` |
//! | 10 unknown ids | `an_unknown_id_is_processed_without_success` |
//! | 11 clear · 12 killall | `killall_ends_and_clear_forgets` |
//! | 13 readyz · 14 readyz on a standby | `a_master_that_leads_is_ready`, `a_standby_is_not_ready_and_sends_clients_to_the_next_master` |
//! | 15 good paths | `what_follows_the_id_is_ignored` |
//! | 16 bad bodies | `bad_bodies_are_refused_by_name` |
//! | 17 bad paths | `only_an_unknown_version_is_told_the_highest` |
//! | 18 unknown fields | `unknown_fields_are_named_and_absent_where_there_are_none` |
//! | 19 faulty server | `rest.rs`: `what_the_master_cannot_do_has_its_own_status`, `rest::panics`; an answer without a field it needs cannot be built |
//! | 20-22 variables the client keeps back | Spark's client; the server drops them too: `recorded_requests_run_as_they_would_on_sparks_server` |
//! | 23-24 `{{VAR}}` | `recorded_requests_run_as_they_would_on_sparks_server` |
//! | 25 JVM module options | `spark-submit` adds them itself: `spark_submit.rs`, on Java 17 |
//! | 26-28 filters, 403 without token | there are no filters to load; the token and its file: `rest::guard` (401 without one, as HTTP has it) |
//! | 29 name passed on | `recorded_requests_run_as_they_would_on_sparks_server` (`python-by-spark-submit`) |
//! | 30-31 limits of threads | there are no threads to count; the bounds that are: `rest_bounds.rs` |
//!
//! | SubmitRestProtocolSuite | shown by |
//! |---|---|
//! | 1 validation names each field · 4 create request, typed fields | `rest::submissions::spark`, `bad_bodies_are_refused_by_name` |
//! | 2-3 JSON: sorted keys, no nulls, action is the type's name | `rest::submissions::reply`, `answers_are_laid_out_as_sparks_are` |
//! | 5-8 create, kill, status and error responses, exact JSON | `create_kill_and_status_answer_with_sparks_fields`, `answers_are_laid_out_as_sparks_are` |

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/decided.rs"]
mod decided;
mod jobs;
mod protocol;

use common::Daemon;
use serde_json::{Value, json};

/// A server and a client that looks at everything it says.
struct Rest {
    url: String,
    /// Whose it is, where that is a process.
    daemon: Option<Daemon>,
    client: reqwest::Client,
}

impl Rest {
    /// A master that leads and has no worker.
    fn of_master() -> Self {
        Self::of(Daemon::master(&[]))
    }

    fn of(daemon: Daemon) -> Self {
        let mut this = Self::at(daemon.rest().to_owned());
        this.daemon = Some(daemon);
        this
    }

    fn at(url: String) -> Self {
        Self {
            url,
            daemon: None,
            client: reqwest::Client::new(),
        }
    }

    fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("it is a process")
    }

    async fn text(&self, request: reqwest::RequestBuilder) -> (u16, String) {
        let response = request.send().await.expect("an answer");
        let kind = response.headers()["content-type"].to_str().expect("text");
        assert_eq!(kind, "application/json");
        (
            response.status().as_u16(),
            response.text().await.expect("text"),
        )
    }

    /// Every answer tells the version of Spark whose protocol this is; it is taken out of the JSON here.
    async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let (code, text) = self.text(request).await;
        let mut body: Value = serde_json::from_str(&text).expect("JSON");
        let fields = body.as_object_mut().expect("an object");
        assert_eq!(
            fields.remove("serverSparkVersion"),
            Some(json!("4.0.0")),
            "{text}"
        );
        (code, body)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.answer(self.client.get(self.url(path))).await
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        self.answer(self.client.post(self.url(path)).body(body))
            .await
    }

    async fn create(&self, body: &Value) -> (u16, Value) {
        self.post("/v1/submissions/create", body.to_string()).await
    }

    /// Submits it; gives its id.
    async fn submit(&self, body: &Value) -> String {
        let (code, created) = self.create(body).await;
        assert_eq!(
            (code, &created["success"]),
            (200, &json!(true)),
            "{created}"
        );
        created["submissionId"].as_str().expect("an id").to_owned()
    }

    async fn state(&self, id: &str) -> Value {
        let (code, mut status) = self.get(&format!("/v1/submissions/status/{id}")).await;
        assert_eq!((code, &status["success"]), (200, &json!(true)), "{status}");
        status["driverState"].take()
    }
}

/// A create request that Spark's client could send.
fn request() -> Value {
    json!({
        "action": "CreateSubmissionRequest",
        "appArgs": ["one", "two", "four"],
        "appResource": "dummy.jar",
        "clientSparkVersion": "3.5.9",
        "environmentVariables": {},
        "mainClass": "Main",
        "sparkProperties": {"spark.app.name": "Main", "spark.driver.memory": "256m"},
    })
}

/// The id under which Spark's clients know an application.
#[track_caller]
fn assert_driver_id(id: &str) {
    let rest = id.strip_prefix("driver-").expect("Spark's form");
    let is_plain = |c: char| c.is_ascii_digit() || c == '-';
    assert!(rest.len() >= 19 && rest.chars().all(is_plain), "{id}");
}
