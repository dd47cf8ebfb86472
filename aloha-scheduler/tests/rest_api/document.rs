//! The OpenAPI document is what the server does.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Map, Value};

use crate::api::{Alone, Api, send};
use crate::common::Daemon;

fn paths(document: &Value) -> &Map<String, Value> {
    document["paths"].as_object().expect("there are paths")
}

/// Everything that is referred to, in any depth.
fn references(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Object(object) => {
            let own = object
                .get("$ref")
                .and_then(Value::as_str)
                .map(str::to_owned);
            object.values().flat_map(references).chain(own).collect()
        }
        Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => BTreeSet::new(),
    }
}

#[tokio::test]
async fn every_path_in_it_has_the_methods_that_it_says() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let document = api.get("/v1/openapi.json").await.body;
    assert!(paths(&document).len() >= 9, "{:?}", paths(&document).keys());
    for (path, operations) in paths(&document) {
        if path.starts_with("/v1/submissions") {
            continue;
        }
        let mut described: BTreeSet<String> = operations
            .as_object()
            .expect("operations")
            .keys()
            .map(|method| method.to_uppercase())
            .collect();
        if described.contains("GET") {
            described.insert("HEAD".into());
        }
        let path = path.replace("{id}", "app-1");
        let options = send(api.request(Method::OPTIONS, &path)).await;
        let allowed = options.header("allow").split(',').map(str::to_owned);
        assert_eq!(allowed.collect::<BTreeSet<_>>(), described, "{path}");
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn it_wants_a_token_where_the_server_does() {
    let cluster = Alone::start().await;
    let without = cluster.api.get("/v1/openapi.json").await.body;
    assert_eq!(without.get("security"), None);
    cluster.shutdown().await;

    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "0123456789abcdef\n").expect("written");
    let key = format!("aloha.master.rest.token.file={}", file.path().display());
    let master = Daemon::master(&["-D", &key]);
    let api = Api::of(&master);
    let refused = api.get("/v1/openapi.json").await;
    assert_eq!(refused.header("www-authenticate"), "Bearer");
    refused.problem(401);
    let request = api.request(Method::GET, "/v1/openapi.json");
    let with = send(request.bearer_auth("0123456789abcdef")).await.body;
    assert_eq!(with["security"], serde_json::json!([{"bearer": []}]));
    // A probe has none.
    let probe = &with["paths"]["/v1/submissions/readyz"]["get"];
    assert_eq!(probe["security"], serde_json::json!([]));
    assert_eq!(probe["responses"].get("401"), None);
}

#[tokio::test]
async fn it_is_whole() {
    let cluster = Alone::start().await;
    let document = cluster.api.get("/v1/openapi.json").await.body;
    assert_eq!(document["openapi"], "3.1.0");
    for reference in references(&document) {
        let pointer = reference.strip_prefix('#').expect("within the document");
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    for (path, operations) in paths(&document) {
        for (method, operation) in operations.as_object().expect("operations") {
            for field in ["operationId", "summary", "tags"] {
                assert!(operation.get(field).is_some(), "{method} {path}: {field}");
            }
        }
    }
    cluster.shutdown().await;
}

#[tokio::test]
async fn the_parameters_in_it_are_those_that_are_read() {
    let cluster = Alone::start().await;
    let api = &cluster.api;
    let document = api.get("/v1/openapi.json").await.body;
    let mut seen = 0;
    for (path, operations) in paths(&document) {
        let Some(parameters) = operations["get"]["parameters"].as_array() else {
            continue;
        };
        let queried = parameters
            .iter()
            .filter(|parameter| parameter["in"] == "query");
        let described: Vec<_> = queried
            .map(|it| it["name"].as_str().expect("a name"))
            .collect();
        if described.is_empty() {
            continue;
        }
        seen += 1;
        let path = path.replace("{id}", "app-1");
        let refused = api.get(&format!("{path}?unknown=1")).await;
        let detail = refused.problem(400);
        let read = detail
            .split_once("expected any of ")
            .expect("it names them")
            .1;
        assert_eq!(read.split(", ").collect::<Vec<_>>(), described, "{path}");
    }
    assert_eq!(seen, 3);
    cluster.shutdown().await;
}
