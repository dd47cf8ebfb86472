//! Spark's protocol, as the OpenAPI document describes it.
//!
//! What Spark's server is known for is told as it is: fields that nobody knows are accepted, further segments of a path
//! are ignored, and what is refused for its meaning is answered with 200 and `success` false.

use serde_json::{Map, Value, json};

use super::create::{CORES_MAX, CREATE, MEMORY_MIB_MAX};
use super::spark::{PYTHON_RUNNER, SPARK_SUBMIT};
use crate::app::AppPhase;
use crate::rest::api::{REQUIRED, example, properties};

/// The paths, and the schemas that they refer to.
pub(in crate::rest) fn describe(paths: &mut Map<String, Value>, schemas: &mut Map<String, Value>) {
    for (of_the_document, own) in [(paths, self::paths()), (schemas, self::schemas())] {
        if let Value::Object(own) = own {
            of_the_document.extend(own);
        }
    }
}

fn paths() -> Value {
    let id = json!({
        "name": "id",
        "in": "path",
        "required": true,
        "description": "The submission's id, `app-…` or `driver-…`. Further segments after it are ignored.",
        "schema": {"type": "string", "pattern": "^[^/]+$"},
    });
    json!({
        "/v1/submissions/create": {"post": {
            "operationId": "createSubmission",
            "summary": "Submit an application",
            "description": "In the form of Aloha or of Spark. Fields that mean nothing are accepted and named in the answer.",
            "tags": ["submissions"],
            "parameters": [{
                "name": "Idempotency-Key",
                "in": "header",
                "description": "A text that the client makes up for this submission, and sends with each repetition of it.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
            }],
            "requestBody": {
                "required": true,
                "content": {"application/json": {"schema": {"anyOf": [
                    {"$ref": "#/components/schemas/CreateSubmissionRequest"},
                    {"$ref": "#/components/schemas/SparkCreateSubmissionRequest"},
                ]}}},
            },
            "responses": {
                "200": answer("It is submitted, or refused: `success` says which.", "CreateSubmissionResponse"),
                "400": {"description": "The request is malformed."},
                "409": {"description": "The idempotency key belongs to another submission."},
            },
        }},
        "/v1/submissions/kill/{id}": {"post": {
            "operationId": "killSubmission",
            "summary": "End an application",
            "tags": ["submissions"],
            "parameters": [id],
            "responses": {
                "200": answer("It is being ended, or there is nothing to end: `success` says which.", "SubmissionResponse"),
                "400": {"description": "The id is missing."},
            },
        }},
        "/v1/submissions/killall": {"post": {
            "operationId": "killAllSubmissions",
            "summary": "End every application",
            "tags": ["submissions"],
            "responses": {"200": answer("They are being ended.", "SubmissionResponse")},
        }},
        "/v1/submissions/clear": {"post": {
            "operationId": "clearSubmissions",
            "summary": "Forget every application that has ended",
            "tags": ["submissions"],
            "responses": {"200": answer("They are forgotten.", "SubmissionResponse")},
        }},
        "/v1/submissions/status/{id}": {"get": {
            "operationId": "getSubmissionStatus",
            "summary": "Show how an application is",
            "tags": ["submissions"],
            "parameters": [id],
            "responses": {
                "200": answer("How it is, or that there is no such one: `success` says which.", "SubmissionStatusResponse"),
                "400": {"description": "The id is missing."},
            },
        }},
        "/v1/submissions/readyz": {"get": {
            "operationId": "getReadiness",
            "summary": "Tell whether submissions are taken",
            "tags": ["submissions"],
            // Probes have no token.
            "security": [],
            "responses": {"200": answer("They are.", "SubmissionResponse")},
        }},
    })
}

fn answer(description: &str, schema: &str) -> Value {
    let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
    json!({"description": description, "content": {"application/json": {"schema": schema}}})
}

fn schemas() -> Value {
    let text = json!({"type": "string"});
    let moment = json!({"type": "integer", "format": "int64", "minimum": 0});
    let response = |action: Value, required: &[&str], more: Value| {
        let mut properties = json!({
            "action": action,
            "message": text,
            "serverSparkVersion": text,
            "submissionId": text,
            "success": {"type": "boolean"},
        });
        if let (Value::Object(properties), Value::Object(more)) = (&mut properties, more) {
            properties.extend(more);
        }
        let required = [&["action", "serverSparkVersion"], required].concat();
        json!({"type": "object", "required": required, "properties": properties})
    };
    let state = json!({"type": "string", "enum": AppPhase::ALL});
    json!({
        "CreateSubmissionRequest": original_form(),
        "SparkCreateSubmissionRequest": sparks_form(),
        "CreateSubmissionResponse": response(
            json!({"const": "CreateSubmissionResponse"}),
            &["message", "success"],
            json!({"unknownFields": {"type": "array", "items": text}}),
        ),
        "SubmissionResponse": response(
            json!({"enum": [
                "KillSubmissionResponse", "KillAllSubmissionResponse", "ClearResponse", "ReadyzResponse",
            ]}),
            &["message", "success"],
            json!({}),
        ),
        "SubmissionStatusResponse": response(
            json!({"const": "SubmissionStatusResponse"}),
            &["submissionId", "success"],
            json!({
                "attempt": {"type": "integer", "minimum": 1},
                "driverState": state,
                "exitCode": {"type": "integer"},
                "finishedAt": moment,
                "history": {"type": "array", "items": {"$ref": "#/components/schemas/StateChange"}},
                "notBefore": moment,
                "priority": {"type": "integer"},
                "startedAt": moment,
                "submittedAt": moment,
                "waitingFor": text,
                "workerHostPort": text,
                "workerId": text,
            }),
        ),
        "ErrorResponse": response(
            json!({"const": "ErrorResponse"}),
            &["message"],
            json!({"highestProtocolVersion": text}),
        ),
    })
}

/// What Aloha reads; what it refuses for its meaning is answered with 200.
fn original_form() -> Value {
    let mut properties = properties(&json!({"type": "string"}));
    properties.insert("action".into(), json!({"const": CREATE}));
    let required: Vec<_> = REQUIRED.iter().chain(&["action"]).collect();
    let mut example = example();
    example["action"] = json!(CREATE);
    json!({
        "type": "object",
        "description": "Aloha's form of a submission.",
        "required": required,
        "properties": properties,
        "examples": [example],
    })
}

/// What Spark reads: whatever is no list or object passes for a text.
fn sparks_form() -> Value {
    let text = json!({"type": ["string", "number", "boolean"]});
    let text_or_null = json!({"type": ["string", "number", "boolean", "null"]});
    let texts = |names: &str| {
        json!({
            "type": ["object", "null"],
            "propertyNames": {"pattern": names},
            "additionalProperties": text_or_null,
        })
    };
    let mut properties = properties(&json!({"type": "string"}));
    properties.retain(|name, _| !OF_THE_ORIGINAL.contains(&name.as_str()));
    properties.insert("action".into(), json!({"const": CREATE}));
    properties.insert(
        "clientSparkVersion".into(),
        json!({"not": {"type": "null"}}),
    );
    properties.insert("appResource".into(), text.clone());
    properties.insert("mainClass".into(), text_or_null.clone());
    properties.insert(
        "appArgs".into(),
        json!({"type": ["array", "null"], "items": text}),
    );
    properties.insert("environmentVariables".into(), texts(r"^[^=\u0000]+$"));
    properties.insert("sparkProperties".into(), spark_properties());
    let script = r"^[^-][\s\S]*\.(py|R|r)$";
    let file = json!({"anyOf": [
        {"type": "string", "pattern": r"^[^-]"},
        {"type": "number", "minimum": 0},
        {"type": "boolean"},
    ]});
    json!({
        "type": "object",
        "description": "Spark's form of a submission: `spark-submit` runs the program on a worker.",
        "required": ["action", "appResource", "clientSparkVersion", "sparkProperties"],
        "properties": properties,
        "not": {"required": ["entryPoint"]},
        "anyOf": [
            {"properties": {"appResource": {"type": "string", "pattern": script}}},
            {
                "required": ["mainClass"],
                "properties": {
                    "appResource": file,
                    "mainClass": {"type": ["string", "number", "boolean"], "minLength": 1},
                },
            },
            {
                "required": ["mainClass", "appArgs"],
                "properties": {
                    "mainClass": {"const": SPARK_SUBMIT},
                    "appArgs": {"type": "array", "minItems": 1},
                },
            },
            {
                "required": ["mainClass", "appArgs"],
                "properties": {
                    "mainClass": {"const": PYTHON_RUNNER},
                    "appArgs": {
                        "type": "array",
                        "minItems": 1,
                        "prefixItems": [{"type": "string", "pattern": script}],
                    },
                },
            },
        ],
        "examples": [{
            "action": CREATE,
            "appResource": "file:/opt/spark/examples/jars/spark-examples.jar",
            "mainClass": "org.apache.spark.examples.SparkPi",
            "appArgs": ["10"],
            "clientSparkVersion": "3.5.3",
            "sparkProperties": {"spark.app.name": "pi", "spark.driver.cores": "1"},
            "environmentVariables": {},
        }],
    })
}

/// What only the original form has.
const OF_THE_ORIGINAL: [&str; 8] = [
    "name",
    "entryPoint",
    "args",
    "cores",
    "memory",
    "libs",
    "supervise",
    "environmentVariables",
];

/// The properties that Spark's server or this one reads itself. Of sizes only such are described as anybody writes.
fn spark_properties() -> Value {
    let cores = r"^\s*\+?0*([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-6])\s*$";
    let truth = r"^\s*([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*$";
    let number = r"^\s*[+-]?[0-9]{1,15}(\.[0-9]{1,15})?\s*$";
    let size = r"^\s*([1-9][0-9]{7,14}[bB]?|[1-9][0-9]{4,11}[kK][bB]?|[1-9][0-9]{0,8}[mM][bB]?|[1-9][0-9]{0,5}[gG][bB]?)\s*$";
    let overhead = r"^\s*(0|[1-9][0-9]{0,8}([mM][bB]?)?|[1-9][0-9]{0,5}[gG][bB]?)\s*$";
    let master = r"^\s*[^\s-][\s\S]*$";
    let or_text = |plain: Value, pattern: &str| json!({"anyOf": [{"type": "null"}, plain, {"type": "string", "pattern": pattern}]});
    let plain = json!({"type": ["boolean", "number"], "minimum": 0});
    // Of less than a MiB too much nothing is seen.
    let bytes_max = ((MEMORY_MIB_MAX + 1) << 20) - 1;
    let bytes = json!({"type": "integer", "minimum": 1 << 20, "maximum": bytes_max});
    json!({
        "type": "object",
        "propertyNames": {"pattern": "^[^=]+$"},
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        "properties": {
            "spark.driver.cores": or_text(json!({"type": "integer", "minimum": 1, "maximum": CORES_MAX}), cores),
            "spark.driver.supervise": or_text(json!({"type": "boolean"}), truth),
            "spark.driver.memory": or_text(bytes.clone(), size),
            "spark.executor.memory": or_text(bytes, size),
            "spark.driver.memoryOverhead": or_text(json!({"type": "integer", "minimum": 0, "maximum": MEMORY_MIB_MAX}), overhead),
            "spark.cores.max": or_text(json!({"type": "number"}), number),
            "spark.aloha.master": or_text(plain.clone(), master),
            "spark.master": or_text(plain, &format!(r"^\s*$|{master}")),
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::mem::discriminant;

    use super::super::{Route, route};
    use super::*;

    #[test]
    fn every_route_is_described_with_its_method() {
        let text = paths().to_string().replace("{id}", "app-1");
        let paths: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
        let mut described = HashSet::new();
        for (path, item) in &paths {
            let route = route(path).expect("there is such a path");
            let methods: Vec<_> = item.as_object().expect("methods").keys().collect();
            assert_eq!(methods, [&route.method().as_str().to_lowercase()], "{path}");
            described.insert(discriminant(&route));
        }
        for route in [
            Route::Create,
            Route::Kill(""),
            Route::Status(""),
            Route::KillAll,
            Route::Clear,
            Route::Ready,
        ] {
            assert!(described.contains(&discriminant(&route)), "{route:?}");
        }
    }
}
