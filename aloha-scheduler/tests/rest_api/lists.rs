//! Lists: filters, orders, pages.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::api::{Alone, Api, application, script};
use crate::common::Daemon;

/// The names of the applications on the page that this query gives.
async fn names(api: &Api, query: &str) -> Vec<String> {
    let page = api.get(&format!("/v1/applications?{query}")).await;
    assert_eq!(page.status, 200, "{query}: {page:?}");
    values(&page.body, "name")
}

fn values(page: &Value, field: &str) -> Vec<String> {
    let applications = page["applications"].as_array().expect("a list");
    let value = |application: &Value| application[field].as_str().expect("a text").to_owned();
    applications.iter().map(value).collect()
}

#[tokio::test]
async fn pages_hold_each_application_once_while_others_come_and_go() {
    let cluster = Alone::start_with(|settings| settings.retained_apps = 1_000).await;
    let api = &cluster.api;
    for sort in [
        "submitted",
        "-submitted",
        "name",
        "-name",
        "priority",
        "-priority",
    ] {
        let mut staying = BTreeSet::new();
        let mut going = Vec::new();
        for number in 0..40 {
            let mut submission = application(&format!("app {}", number * 7 % 13));
            submission["priority"] = json!(number % 3);
            let id = api.submit(&submission).await;
            match number % 4 {
                0 => going.push(id),
                _ => drop(staying.insert(id)),
            }
        }
        let mut seen = Vec::new();
        let mut after = String::new();
        loop {
            let page = api
                .get(&format!("/v1/applications?sort={sort}&limit=7{after}"))
                .await;
            assert_eq!(page.status, 200, "{page:?}");
            let ids = values(&page.body, "id");
            assert!(ids.len() <= 7, "{ids:?}");
            seen.extend(ids);
            let Some(next) = page.body["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
            // One comes, at any place of the order, and one goes.
            let mut comes = application(&format!("app {}", seen.len() % 13));
            comes["priority"] = json!(seen.len() % 3);
            api.submit(&comes).await;
            if let Some(goes) = going.pop() {
                api.end(&goes).await;
                let forgotten = api.delete(&format!("/v1/applications/{goes}")).await;
                assert_eq!(forgotten.status, 204, "{forgotten:?}");
            }
        }
        let distinct: BTreeSet<_> = seen.iter().cloned().collect();
        assert_eq!(distinct.len(), seen.len(), "{sort}: one is there twice");
        assert!(distinct.is_superset(&staying), "{sort}: one is missing");
        for id in api_ids(api).await {
            let status = api.get(&format!("/v1/applications/{id}")).await;
            if status.body["ended"] == false {
                api.end(&id).await;
            }
            api.delete(&format!("/v1/applications/{id}")).await;
        }
    }
    cluster.shutdown().await;
}

async fn api_ids(api: &Api) -> Vec<String> {
    let page = api.get("/v1/applications?limit=1000").await;
    values(&page.body, "id")
}

#[tokio::test]
async fn filters_and_orders_are_what_they_say() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    for (name, priority, tags) in [
        ("etl-b", 1, &["etl", "night"][..]),
        ("web", 5, &[]),
        ("etl-a", 1, &["etl"]),
        ("Etl c", -1, &["night"]),
    ] {
        let mut submission = application(name);
        submission["priority"] = json!(priority);
        submission["tags"] = json!(tags);
        let id = api.submit(&submission).await;
        if name.starts_with("etl") {
            api.end(&id).await;
        }
    }
    for (query, expected) in [
        ("", &["etl-b", "web", "etl-a", "Etl c"][..]),
        ("sort=submitted", &["etl-b", "web", "etl-a", "Etl c"]),
        ("sort=-submitted", &["Etl c", "etl-a", "web", "etl-b"]),
        ("sort=name", &["Etl c", "etl-a", "etl-b", "web"]),
        ("sort=-name&limit=2", &["web", "etl-b"]),
        ("sort=priority", &["Etl c", "etl-b", "etl-a", "web"]),
        ("sort=-priority", &["web", "etl-a", "etl-b", "Etl c"]),
        ("name=etl-", &["etl-b", "etl-a"]),
        ("name=", &["etl-b", "web", "etl-a", "Etl c"]),
        ("name=Etl%20c", &["Etl c"]),
        ("tag=etl", &["etl-b", "etl-a"]),
        ("tag=night&state=SUBMITTED", &["Etl c"]),
        ("tag=none", &[]),
        ("state=KILLED", &["etl-b", "etl-a"]),
        ("state=KILLED&sort=-ended&limit=1", &["etl-a"]),
        (
            "state=KILLED,SUBMITTED",
            &["etl-b", "web", "etl-a", "Etl c"],
        ),
        ("state=KILLED&state=RUNNING", &["etl-b", "etl-a"]),
        ("state=FINISHED,FAILED", &[]),
        ("worker=worker-1", &[]),
        ("limit=1", &["etl-b"]),
    ] {
        assert_eq!(names(api, query).await, expected, "{query}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_list_can_be_of_one_worker_and_in_the_order_of_starts() {
    let directory = tempdir().expect("a directory");
    let cluster = Daemon::local(directory.path());
    let api = Api::of(&cluster);
    for name in ["one", "two"] {
        let id = api.submit(&script(name, "true")).await;
        let ended = api.get(&format!("/v1/applications/{id}/wait")).await;
        assert_eq!(ended.body["state"], "FINISHED", "{ended:?}");
    }
    let mut large = application("waits");
    large["cores"] = json!(64);
    api.submit(&large).await;

    let workers = api.get("/v1/workers").await;
    let worker = workers.body["workers"][0]["id"].as_str().expect("an id");
    let here = format!("worker={worker}");
    assert_eq!(names(&api, &here).await, ["one", "two"]);
    assert_eq!(names(&api, "sort=-started").await, ["two", "one", "waits"]);
    assert_eq!(names(&api, "sort=ended").await, ["waits", "one", "two"]);

    let found = api.get(&format!("/v1/workers/{worker}")).await;
    assert_eq!((found.status, &found.body["state"]), (200, &json!("ALIVE")));
    assert_eq!(found.body["cores"], 2);
    let cluster = api.get("/v1/cluster").await.body;
    assert_eq!(
        cluster["applications"],
        json!({"FINISHED": 2, "SUBMITTED": 1})
    );
    assert_eq!(
        (&cluster["cores"], &cluster["coresUsed"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(cluster["workers"], json!({"ALIVE": 1}));
}

#[tokio::test]
async fn what_a_query_cannot_mean_is_refused() {
    let cluster = Alone::start().await;
    for (query, detail) in [
        (
            "colour=red",
            "unknown parameter \"colour\", expected any of state, name, tag, worker, sort, limit, after",
        ),
        ("name=a&name=b", "the parameter name is repeated"),
        (
            "state=running",
            "the parameter state is \"running\", expected any of SUBMITTED, LAUNCHING, RUNNING, FINISHED, \
            FAILED, KILLED, ERROR, RELAUNCHING, UNKNOWN",
        ),
        (
            "sort=size",
            "the parameter sort is \"size\", expected any of submitted, name, priority, started, ended, with or \
            without a - before it",
        ),
        (
            "limit=0",
            "the parameter limit is \"0\", expected a whole number from 1 to 1000",
        ),
        (
            "limit=1001",
            "the parameter limit is \"1001\", expected a whole number from 1 to 1000",
        ),
        (
            "tag=a%20b",
            "the parameter tag is \"a b\", expected 1 to 64 characters of A-Z a-z 0-9 . _ -",
        ),
        (
            "worker=..",
            "the parameter worker is \"..\", expected the id of a worker",
        ),
    ] {
        let answer = cluster.api.get(&format!("/v1/applications?{query}")).await;
        assert_eq!(answer.problem(400), detail);
    }
    // It is well formed, and yet no page gave it.
    for query in [
        "after=x",
        "after=",
        "after=1&sort=name",
        "after=1.x61",
        "after=1.5",
    ] {
        let answer = cluster.api.get(&format!("/v1/applications?{query}")).await;
        assert!(answer.problem(409).contains("which no page"), "{query}");
    }
    cluster.shutdown().await;
}
