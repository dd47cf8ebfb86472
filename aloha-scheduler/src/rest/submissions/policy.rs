//! The part of a create request that says when, where and how often an application runs.

use std::time::Duration;

use serde_json::Value;

use super::create::{Fields, whole, wrong};
use crate::app::{AppDescription, CONSTRAINTS_MAX, MILLIS_MAX, TAGS_MAX};
use crate::constraint::{BadConstraint, Constraint, is_name};
use crate::restart::{RestartCondition, RestartPolicy};

/// What this part may hold.
pub(super) const FIELDS: &[&str] = &["priority", "restart", "maxRunTime", "constraints", "tags"];

const RESTART_FIELDS: [&str; 5] = [
    "condition",
    "backoffInitial",
    "backoffMax",
    "resetAfter",
    "maxInARow",
];

/// Reads it into a description.
pub(super) fn read(fields: &Fields<'_>, into: &mut AppDescription) -> Result<(), String> {
    into.priority = fields.optional("priority", priority)?.unwrap_or_default();
    into.restart = fields.optional("restart", restart)?.unwrap_or_default();
    into.run_millis_max = fields.optional("maxRunTime", seconds)?;
    let constraints = fields.optional("constraints", constraints)?;
    into.constraints = constraints.unwrap_or_default().into_iter().collect();
    let tags = fields.optional("tags", tags)?;
    into.tags = tags.unwrap_or_default().into_iter().collect();
    Ok(())
}

fn priority(fields: &Fields<'_>, name: &str) -> Result<i32, String> {
    let value = fields.required(name)?;
    let (min, max) = (i32::MIN, i32::MAX);
    let expected = format!("a whole number from {min} to {max}");
    whole(value).ok_or_else(|| wrong(name, value, &expected))
}

fn restart(fields: &Fields<'_>, name: &str) -> Result<RestartPolicy, String> {
    let object = match fields.required(name)? {
        Value::Object(object) => object,
        Value::String(_) => {
            return Ok(RestartPolicy {
                condition: Some(condition(fields, name)?),
                ..RestartPolicy::default()
            });
        }
        other => return Err(wrong(name, other, "a text or an object")),
    };
    let known = |field: &&String| RESTART_FIELDS.contains(&field.as_str());
    if let Some(unknown) = object.keys().find(|field| !known(field)) {
        let known = RESTART_FIELDS.join(", ");
        return Err(format!(
            "the field {name} holds {unknown:?}, expected any of {known}"
        ));
    }
    let inside = |error: String| error.replacen("the field ", &format!("the field {name}."), 1);
    restart_object(&Fields(object)).map_err(inside)
}

fn restart_object(fields: &Fields<'_>) -> Result<RestartPolicy, String> {
    Ok(RestartPolicy {
        condition: fields.optional("condition", condition)?,
        backoff_initial_millis: fields.optional("backoffInitial", seconds)?,
        backoff_max_millis: fields.optional("backoffMax", seconds)?,
        reset_after_millis: fields.optional("resetAfter", seconds)?,
        in_a_row_max: fields.optional("maxInARow", times)?,
    })
}

fn condition(fields: &Fields<'_>, name: &str) -> Result<RestartCondition, String> {
    let value = fields.required(name)?;
    let condition = value.as_str().and_then(|text| text.parse().ok());
    condition.ok_or_else(|| {
        let known = RestartCondition::ALL.map(RestartCondition::as_str);
        wrong(name, value, &format!("one of {}", known.join(", ")))
    })
}

/// A number of seconds, in milliseconds.
fn seconds(fields: &Fields<'_>, name: &str) -> Result<u64, String> {
    let value = fields.required(name)?;
    let max = Duration::from_millis(MILLIS_MAX).as_secs_f64();
    let expected = format!("a number of seconds from 0.001 to {max}");
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.001..=max).contains(seconds));
    let seconds = seconds.ok_or_else(|| wrong(name, value, &expected))?;
    let millis = Duration::from_secs_f64(seconds).as_millis();
    Ok(u64::try_from(millis).expect("at most ten years"))
}

fn times(fields: &Fields<'_>, name: &str) -> Result<u32, String> {
    let value = fields.required(name)?;
    let expected = format!("a whole number from 0 to {}", u32::MAX);
    whole(value).ok_or_else(|| wrong(name, value, &expected))
}

fn constraints(fields: &Fields<'_>, name: &str) -> Result<Vec<Constraint>, String> {
    let read = |text: String| {
        let constraint = text.parse();
        constraint.map_err(|error: BadConstraint| format!("the field {name}: {error}"))
    };
    let texts = fields.texts(name)?;
    at_most(name, &texts, CONSTRAINTS_MAX)?;
    texts.into_iter().map(read).collect()
}

fn tags(fields: &Fields<'_>, name: &str) -> Result<Vec<String>, String> {
    let tags = fields.texts(name)?;
    at_most(name, &tags, TAGS_MAX)?;
    match tags.iter().find(|tag| !is_name(tag)) {
        Some(tag) => Err(format!(
            "the field {name} holds {tag:?}, expected 1 to 64 characters of A-Z a-z 0-9 . _ -"
        )),
        None => Ok(tags),
    }
}

fn at_most(name: &str, texts: &[String], max: usize) -> Result<(), String> {
    match texts.len() {
        count if count > max => Err(format!(
            "the field {name} holds {count} entries, expected {max} at the most"
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::create::tests::{create, valid};
    use super::*;

    #[test]
    fn every_field_is_read() {
        let mut request = valid();
        request["priority"] = json!(-5);
        request["restart"] = json!({"condition": "always", "backoffInitial": 0.5, "backoffMax": 60, "resetAfter": 30,
                                    "maxInARow": 3});
        request["maxRunTime"] = json!(3600);
        request["constraints"] = json!(["zone=a", "!gpu"]);
        request["tags"] = json!(["etl", "etl", "db"]);
        let read = create(&request).expect("valid");
        assert_eq!(read.priority, -5);
        let expected = RestartPolicy {
            condition: Some(RestartCondition::Always),
            backoff_initial_millis: Some(500),
            backoff_max_millis: Some(60_000),
            reset_after_millis: Some(30_000),
            in_a_row_max: Some(3),
        };
        assert_eq!(read.restart, expected);
        assert_eq!(read.run_millis_max, Some(3_600_000));
        let constraints: Vec<_> = read.constraints.iter().map(ToString::to_string).collect();
        assert_eq!(constraints, ["zone=a", "!gpu"]);
        assert_eq!(read.tags, ["db".to_owned(), "etl".to_owned()].into());
    }

    #[test]
    fn a_restart_may_be_a_text_and_what_is_not_said_has_its_default() {
        let mut request = valid();
        request["restart"] = json!("on-failure");
        let read = create(&request).expect("valid").restart;
        assert_eq!(read.condition, Some(RestartCondition::OnFailure));
        request["restart"] = json!({"maxInARow": 0, "condition": null});
        let read = create(&request).expect("valid").restart;
        assert_eq!((read.condition, read.in_a_row_max), (None, Some(0)));
        let plain = create(&valid()).expect("valid");
        assert_eq!((plain.priority, plain.restart), Default::default());
    }

    #[test]
    fn each_bad_field_is_named_with_what_it_should_be() {
        let conditions = "expected one of never, on-failure, always";
        let seconds = "expected a number of seconds from 0.001 to 315360000";
        let number = "expected a whole number from 0 to 4294967295";
        let priority = "expected a whole number from -2147483648 to 2147483647";
        let cases = [
            ("priority", json!(1.5), format!("priority is 1.5, {priority}")),
            ("priority", json!("high"), format!("priority is a text, {priority}")),
            ("restart", json!("sometimes"), format!("restart is a text, {conditions}")),
            ("restart", json!(3), "restart is 3, expected a text or an object".into()),
            (
                "restart",
                json!({"condition": true}),
                format!("restart.condition is a truth value, {conditions}"),
            ),
            (
                "restart",
                json!({"backoffMax": 0}),
                format!("restart.backoffMax is 0, {seconds}"),
            ),
            (
                "restart",
                json!({"resetAfter": "10s"}),
                format!("restart.resetAfter is a text, {seconds}"),
            ),
            (
                "restart",
                json!({"maxInARow": -1}),
                format!("restart.maxInARow is -1, {number}"),
            ),
            (
                "restart",
                json!({"max": 1}),
                "restart holds \"max\", expected any of condition, backoffInitial, backoffMax, resetAfter, maxInARow"
                    .into(),
            ),
            ("maxRunTime", json!(1e300), format!("maxRunTime is 1e+300, {seconds}")),
            (
                "constraints",
                json!(["zone=a", "a b"]),
                "constraints: \"a b\" is no constraint, expected such as zone=a, zone!=a, gpu or !gpu".into(),
            ),
            (
                "tags",
                json!(["a b"]),
                "tags holds \"a b\", expected 1 to 64 characters of A-Z a-z 0-9 . _ -".into(),
            ),
        ];
        for (field, value, message) in cases {
            let mut request = valid();
            request[field] = value;
            assert_eq!(create(&request), Err(format!("the field {message}")));
        }
    }
}
