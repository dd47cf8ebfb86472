//! What a submission may hold, as a JSON schema: made of the constants by which submissions are read.

use std::borrow::Cow;

use serde_json::{Map, Value, json};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType};
use utoipa::openapi::{RefOr, extensions::Extensions};
use utoipa::{PartialSchema, ToSchema};

use crate::app::{CONSTRAINTS_MAX, ENTRY_POINT_CHARS_MAX, MILLIS_MAX, NAME_CHARS_MAX, TAGS_MAX};
use crate::limits::{GRACE_MAX, Limit, StopSignal};
use crate::rest::submissions::{CORES_MAX, MEMORY_MIB_MAX};
use crate::restart::RestartCondition;

/// Stands for the schema of a submission.
#[derive(Debug)]
pub(in crate::rest) struct NewApplication;

impl ToSchema for NewApplication {
    fn name() -> Cow<'static, str> {
        "NewApplication".into()
    }
}

impl PartialSchema for NewApplication {
    fn schema() -> RefOr<Schema> {
        let mut schema = json!({
            "type": "object",
            "description": "What is to run. Fields that are not listed here are accepted, and named in the answer.",
            "required": REQUIRED,
            "properties": properties(&json!({"type": "string", "pattern": r"^[^\u0000]*$"})),
        });
        schema["not"] = contradiction();
        schema["examples"] = json!([example()]);
        verbatim(schema)
    }
}

/// A schema as it is written.
pub(in crate::rest) fn verbatim(schema: Value) -> RefOr<Schema> {
    let Value::Object(keywords) = schema else {
        unreachable!("a schema is written as an object");
    };
    let keywords: Extensions = keywords.into_iter().collect();
    let object = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
    object.extensions(Some(keywords)).into()
}

/// The fields that must be there.
pub(in crate::rest) const REQUIRED: [&str; 2] = ["name", "entryPoint"];

/// A submission that does nothing.
pub(in crate::rest) fn example() -> Value {
    json!({"name": "nothing", "entryPoint": "SimpleProcess", "args": "true", "cores": 1, "memory": 64})
}

/// The fields that mean something; `text` is what a process can be given.
pub(in crate::rest) fn properties(text: &Value) -> Map<String, Value> {
    let texts = json!({"type": "array", "items": text});
    let Value::Object(properties) = json!({
        "name": {
            "type": "string",
            "description": "For people; need not be unique. It is not blank and has no control characters.",
            "maxLength": NAME_CHARS_MAX,
            "pattern": NAME,
        },
        "entryPoint": {
            "type": "string",
            "description": "Which kind of application: `SimpleProcess` hands `args` to bash, `Process` executes them, \
                            and anything else is a type of one's own.",
            "maxLength": ENTRY_POINT_CHARS_MAX,
            "pattern": NAME,
        },
        "args": or_null("What it is given; nothing where absent.", json!({"anyOf": [text, texts]})),
        "cores": or_null(
            "Whole cores to set aside; 1 where absent.",
            json!({"type": "integer", "minimum": 1, "maximum": CORES_MAX}),
        ),
        "memory": or_null(
            "Memory to set aside, in MiB; 512 where absent.",
            json!({"type": "integer", "minimum": 1, "maximum": MEMORY_MIB_MAX}),
        ),
        "libs": or_null("Paths or URLs of what it needs beside it.", texts),
        "supervise": or_null(
            "Whether it runs again when it fails or its worker is lost.",
            json!({"type": "boolean"}),
        ),
        "environmentVariables": or_null(
            "Variables added to its environment.",
            json!({
                "type": "object",
                "propertyNames": {"pattern": r"^[^=\u0000]+$"},
                "additionalProperties": text,
            }),
        ),
        "stopSignal": or_null(
            "How it is asked to end; TERM where absent. `SIG` may stand before it, and case does not matter.",
            json!({"type": "string", "pattern": signals()}),
        ),
        "stopTimeout": or_null(
            "How long it then may go on, in seconds.",
            json!({"type": "number", "minimum": 0, "maximum": GRACE_MAX.as_secs()}),
        ),
        "limits": or_null("What each of its processes may have.", limits()),
        "priority": or_null(
            "Its place in the queue: higher before lower.",
            json!({"type": "integer", "minimum": i32::MIN, "maximum": i32::MAX}),
        ),
        "restart": or_null(
            "When it runs again: a condition, or more than that.",
            json!({"anyOf": [condition(), restart()]}),
        ),
        "maxRunTime": or_null("The longest an attempt may run, in seconds.", seconds()),
        "constraints": or_null(
            "What a worker must be or have: `zone=a`, `zone!=a`, `gpu` or `!gpu`.",
            json!({
                "type": "array",
                "maxItems": CONSTRAINTS_MAX,
                "items": {"type": "string", "pattern": CONSTRAINT},
            }),
        ),
        "tags": or_null(
            "What it belongs to. The master may limit how many of a tag run at once.",
            json!({
                "type": "array",
                "maxItems": TAGS_MAX,
                "items": {"type": "string", "pattern": TAG},
            }),
        ),
    }) else {
        unreachable!("written as an object");
    };
    properties
}

/// Not blank, and without control characters.
const NAME: &str = r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";
const TAG: &str = "^[A-Za-z0-9._-]{1,64}$";
const CONSTRAINT: &str =
    r"^(!?[A-Za-z0-9._-]{1,64}|[A-Za-z0-9._-]{1,64}!?=[^,\u0000-\u001f\u007f-\u009f]{0,256})$";

fn or_null(description: &str, schema: Value) -> Value {
    json!({"description": description, "anyOf": [schema, {"type": "null"}]})
}

fn seconds() -> Value {
    json!({"type": "number", "minimum": 0.001, "maximum": MILLIS_MAX / 1000})
}

fn condition() -> Value {
    json!({"type": "string", "enum": RestartCondition::ALL.map(RestartCondition::as_str)})
}

fn restart() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "condition": or_null("After which ends it runs again.", condition()),
            "backoffInitial": or_null("The pause before the first restart in a row, in seconds; it doubles.", seconds()),
            "backoffMax": or_null("The longest pause, in seconds.", seconds()),
            "resetAfter": or_null("How long a run must be, in seconds, to begin a new row.", seconds()),
            "maxInARow": or_null(
                "How many restarts in a row there may be.",
                json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            ),
        },
    })
}

fn limits() -> Value {
    let limit = |limit: &Limit| {
        let schema =
            json!({"type": ["integer", "null"], "minimum": limit.min, "maximum": limit.max});
        (limit.name.to_owned(), schema)
    };
    let properties: Map<String, Value> = Limit::ALL.iter().map(limit).collect();
    json!({"type": "object", "additionalProperties": false, "properties": properties})
}

/// The names of signals in any case, with or without `SIG`.
fn signals() -> String {
    let any_case = |name: &str| -> String {
        let letter = |c: char| match c.is_ascii_alphabetic() {
            true => format!("[{}{}]", c.to_ascii_uppercase(), c.to_ascii_lowercase()),
            false => c.to_string(),
        };
        name.chars().map(letter).collect()
    };
    let names = StopSignal::ALL.map(|signal| any_case(&signal.to_string()));
    format!("^({})?({})$", any_case("SIG"), names.join("|"))
}

/// What contradicts itself: supervised, and never to run again.
pub(in crate::rest) fn contradiction() -> Value {
    let never = json!({"const": RestartCondition::Never.as_str()});
    let restart = json!({"anyOf": [
        never,
        {"type": "object", "required": ["condition"], "properties": {"condition": never}},
    ]});
    json!({
        "required": ["supervise", "restart"],
        "properties": {"supervise": {"const": true}, "restart": restart},
    })
}
