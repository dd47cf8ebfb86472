//! Applications: submitted, listed, waited for, ended and forgotten.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::new_application::NewApplication;
use super::parameters::{Parameters, wrong};
use super::path_id::{PathId, no_such};
use super::problem::ApiError;
use super::resources::{Application, ApplicationList, Killed, Submitted};
use crate::app::{AppPhase, AppStatus};
use crate::app_query::{AppsCursor, AppsQuery, AppsSort, PAGE_MAX};
use crate::constraint::{NAME_EXPECTED, is_name};
use crate::ids::AppId;
use crate::messages::{ForgetAnswer, KillAnswer};
use crate::rest::Server;
use crate::rest::error::RestError;
use crate::rest::idempotency::idempotency_key;
use crate::rest::submissions::{self, CreateRequest};

/// What may stand in the query of a list.
pub(super) const LIST_PARAMETERS: [&str; 7] =
    ["state", "name", "tag", "worker", "sort", "limit", "after"];
/// How many applications a page has where nobody says.
const LIMIT: u32 = 100;
/// How long a wait takes where nobody says, and at the most.
const WAIT: Duration = Duration::from_secs(30);
const WAIT_MAX: Duration = Duration::from_secs(60);
/// How long one question stays open at the master: less than it takes a question to expire.
const PATIENCE: Duration = Duration::from_secs(30);

/// List applications.
///
/// Read page by page, an application that is there all the while is there once, however others come and go. Unknown
/// parameters are refused.
#[utoipa::path(
    get,
    path = "/v1/applications",
    operation_id = "listApplications",
    tag = "applications",
    params(
        ("state" = Option<Vec<AppPhase>>, Query, style = Form, explode,
            description = "Only those in one of these states; repeated, or separated by commas."),
        ("name" = Option<String>, Query, description = "Only those whose name contains this text."),
        ("tag" = Option<String>, Query, pattern = "^[A-Za-z0-9._-]{1,64}$",
            description = "Only those with this tag."),
        ("worker" = Option<String>, Query, pattern = "^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}$",
            description = "Only those that are on this worker, or were last."),
        ("sort" = Option<String>, Query, pattern = "^-?(submitted|name|priority|started|ended)$",
            description = "Their order, descending with `-` before it. `submitted` where absent."),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "How many at the most. 100 where absent."),
        ("after" = Option<String>, Query,
            description = "Where the page begins: `next` of the page before, with the same filters and order."),
    ),
    responses(
        (status = 200, description = "The applications.", body = ApplicationList),
        (status = 400, description = "A parameter is unknown, repeated or wrong."),
        (status = 409, description = "`after` is no `next` of a list in this order."),
    )
)]
pub(super) async fn list(
    State(server): State<Server>,
    uri: Uri,
) -> Result<Json<ApplicationList>, ApiError> {
    let page = server.gateway.apps(list_query(&uri)?).await?;
    Ok(Json(ApplicationList {
        applications: page.apps.into_iter().map(Application::from).collect(),
        next: page.next.map(|next| next.to_string()),
    }))
}

fn list_query(uri: &Uri) -> Result<AppsQuery, RestError> {
    let parameters = Parameters::read(uri, &LIST_PARAMETERS)?;
    let mut query = AppsQuery::default();
    for state in parameters.all("state").flat_map(|text| text.split(',')) {
        let phase = state.parse();
        query.states.insert(phase.map_err(|_| {
            let all = AppPhase::ALL.map(|phase| phase.to_string()).join(", ");
            wrong("state", state, &format!("any of {all}"))
        })?);
    }
    query.name = parameters.one("name")?.map(str::to_owned);
    query.tag = match parameters.one("tag")? {
        Some(tag) if !is_name(tag) => return Err(wrong("tag", tag, NAME_EXPECTED)),
        tag => tag.map(str::to_owned),
    };
    query.worker = parameters.parsed("worker", "the id of a worker")?;
    if let Some(sort) = parameters.one("sort")? {
        (query.sort, query.descending) = AppsSort::parse(sort).ok_or_else(|| {
            let all = AppsSort::ALL.map(AppsSort::name).join(", ");
            wrong(
                "sort",
                sort,
                &format!("any of {all}, with or without a - before it"),
            )
        })?;
    }
    let limit = parameters.number("limit", 1..=PAGE_MAX)?;
    query.limit = Some(limit.unwrap_or(LIMIT));
    if let Some(after) = parameters.one("after")? {
        let cursor = after.parse().ok();
        let cursor = cursor.filter(|cursor: &AppsCursor| cursor.is_of(query.sort));
        query.after = Some(cursor.ok_or_else(|| {
            RestError::Conflict(format!(
                "after is {after:?}, which no page of a list in this order gave as its next"
            ))
        })?);
    }
    Ok(query)
}

/// Submit an application.
///
/// Fields that mean nothing are accepted and named in the answer. With an `Idempotency-Key`, the same submission sent
/// again becomes no second application, also after a restart of the master.
#[utoipa::path(
    post,
    path = "/v1/applications",
    operation_id = "submitApplication",
    tag = "applications",
    params(
        ("Idempotency-Key" = Option<String>, Header, pattern = "^[!-~]{1,128}$",
            description = "A text that the client makes up for this submission, and sends with each repetition of it."),
    ),
    request_body = NewApplication,
    responses(
        (status = 201, description = "It will run, or wait for its turn.", body = Submitted,
            headers(("Location" = String, description = "The path of the application.")),
            links(
                ("application" = (operation_id = "getApplication", parameters(("id" = "$response.body#/id")))),
                ("wait" = (operation_id = "waitForApplication", parameters(("id" = "$response.body#/id")))),
                ("kill" = (operation_id = "killApplication", parameters(("id" = "$response.body#/id")))),
                ("forget" = (operation_id = "forgetApplication", parameters(("id" = "$response.body#/id")))),
                ("logs" = (operation_id = "readLogs", parameters(("id" = "$response.body#/id")))),
            )),
        (status = 400, description = "The submission is malformed; nothing will run."),
        (status = 409, description = "The idempotency key belongs to another submission; nothing more will run."),
    )
)]
pub(super) async fn submit(
    State(server): State<Server>,
    request: Request,
) -> Result<Response, ApiError> {
    let key = idempotency_key(request.headers())?;
    let body = server.body(request).await?;
    let CreateRequest {
        submission,
        unknown_fields,
        ..
    } = submissions::application(&body).map_err(RestError::Malformed)?;
    let answer = server.submit(submission, key.as_deref()).await?;
    let id = answer.map_err(RestError::Malformed)?.to_string();
    let location = HeaderValue::try_from(format!("/v1/applications/{id}"));
    let location = location.expect("an id is harmless in a header");
    let submitted = Submitted { id, unknown_fields };
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(submitted),
    )
        .into_response())
}

/// Show an application.
#[utoipa::path(
    get,
    path = "/v1/applications/{id}",
    operation_id = "getApplication",
    tag = "applications",
    params(("id" = String, Path, description = "The application's id.")),
    responses(
        (status = 200, description = "The application, with its history.", body = Application),
        (status = 404, description = "There is no such application."),
    )
)]
pub(super) async fn show(
    State(server): State<Server>,
    PathId(id): PathId<AppId>,
) -> Result<Json<Application>, ApiError> {
    found(&id, server.gateway.status(id.clone()).await?)
}

/// Forget an application that has ended.
#[utoipa::path(
    delete,
    path = "/v1/applications/{id}",
    operation_id = "forgetApplication",
    tag = "applications",
    params(("id" = String, Path, description = "The application's id.")),
    responses(
        (status = 204, description = "It is forgotten."),
        (status = 404, description = "There is no such application."),
        (status = 409, description = "It has not ended: end it first."),
    )
)]
pub(super) async fn forget(
    State(server): State<Server>,
    PathId(id): PathId<AppId>,
) -> Result<StatusCode, ApiError> {
    match server.gateway.forget(id.clone()).await? {
        ForgetAnswer::Forgotten => Ok(StatusCode::NO_CONTENT),
        ForgetAnswer::NoSuchApp => Err(no_such::<AppId>(id.as_str())),
        ForgetAnswer::NotEnded { phase } => Err(RestError::Conflict(format!(
            "{id} is {phase}, and only what has ended is forgotten; end it by POST /v1/applications/{id}/kill"
        ))
        .into()),
    }
}

/// End an application, or keep it from starting.
#[utoipa::path(
    post,
    path = "/v1/applications/{id}/kill",
    operation_id = "killApplication",
    tag = "applications",
    params(("id" = String, Path, description = "The application's id.")),
    responses(
        (status = 202, description = "It is being ended, or has ended by this.", body = Killed),
        (status = 404, description = "There is no such application."),
        (status = 409, description = "It has ended before."),
    )
)]
pub(super) async fn kill(
    State(server): State<Server>,
    PathId(id): PathId<AppId>,
) -> Result<Response, ApiError> {
    let KillAnswer { success, message } = server.gateway.kill(id.clone()).await?;
    if success {
        let id = id.to_string();
        return Ok((StatusCode::ACCEPTED, Json(Killed { id, message })).into_response());
    }
    match server.gateway.status(id.clone()).await? {
        Some(_) => Err(RestError::Conflict(message).into()),
        None => Err(no_such::<AppId>(id.as_str())),
    }
}

/// Wait until an application has ended.
///
/// The answer comes as soon as the application has ended, else once the time is over: `ended` says which. Whoever wants
/// to wait on asks again.
#[utoipa::path(
    get,
    path = "/v1/applications/{id}/wait",
    operation_id = "waitForApplication",
    tag = "applications",
    params(
        ("id" = String, Path, description = "The application's id."),
        ("timeout" = Option<f64>, Query, minimum = 0, maximum = 60,
            description = "How many seconds to wait at the most. 30 where absent."),
    ),
    responses(
        (status = 200, description = "The application as it is now, with its history.", body = Application),
        (status = 400, description = "The timeout is wrong, or a parameter is unknown."),
        (status = 404, description = "There is no such application."),
    )
)]
pub(super) async fn wait(
    State(server): State<Server>,
    PathId(id): PathId<AppId>,
    uri: Uri,
) -> Result<Json<Application>, ApiError> {
    let mut left = timeout(&uri)?;
    loop {
        let patience = left.min(PATIENCE);
        left -= patience;
        match server.gateway.wait(&id, patience).await? {
            Some(status) if !status.phase.is_final() && !left.is_zero() => {}
            status => return found(&id, status),
        }
    }
}

fn timeout(uri: &Uri) -> Result<Duration, RestError> {
    let parameters = Parameters::read(uri, &["timeout"])?;
    let expected = "a number of seconds from 0 to 60";
    let Some(seconds) = parameters.parsed::<f64>("timeout", expected)? else {
        return Ok(WAIT);
    };
    // Compared as given: a duration is rounded.
    match (0.0..=WAIT_MAX.as_secs_f64()).contains(&seconds) {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(wrong("timeout", &seconds.to_string(), expected)),
    }
}

fn found(id: &AppId, status: Option<AppStatus>) -> Result<Json<Application>, ApiError> {
    let status = status.ok_or_else(|| no_such::<AppId>(id.as_str()))?;
    Ok(Json(status.into()))
}
