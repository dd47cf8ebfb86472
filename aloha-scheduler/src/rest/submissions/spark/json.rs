//! The fields of a request, read as Spark reads them: whatever is no list or object passes for a text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::rest::submissions::create::whole;

/// Whether a field may be left out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Presence {
    Required,
    Optional,
}

pub(super) fn required<'a>(
    request: &'a Map<String, Value>,
    name: &str,
) -> Result<&'a Value, String> {
    let value = request.get(name).filter(|value| !value.is_null());
    value.ok_or_else(|| format!("the field {name} is missing"))
}

fn field<'a>(
    request: &'a Map<String, Value>,
    name: &str,
    presence: Presence,
) -> Result<Option<&'a Value>, String> {
    match required(request, name) {
        Err(_) if presence == Presence::Optional => Ok(None),
        found => found.map(Some),
    }
}

/// What passes for a text.
pub(super) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        // `2.0` is `2` to JSON, and to whoever reads it for a number of cores.
        Value::Number(number) => Some(match whole::<i64>(value) {
            Some(whole) => whole.to_string(),
            None => number.to_string(),
        }),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(super) fn text(
    request: &Map<String, Value>,
    name: &str,
    presence: Presence,
) -> Result<Option<String>, String> {
    let wrong = || format!("the field {name} must be a text");
    let value = field(request, name, presence)?;
    value
        .map(|value| as_text(value).ok_or_else(wrong))
        .transpose()
}

pub(super) fn texts(request: &Map<String, Value>, name: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("the field {name} must be a list of texts");
    let Some(value) = field(request, name, Presence::Optional)? else {
        return Ok(Vec::new());
    };
    let items = value.as_array().ok_or_else(wrong)?;
    let texts = items.iter().map(|item| as_text(item).ok_or_else(wrong));
    texts.collect()
}

pub(super) fn texts_by_name(
    request: &Map<String, Value>,
    name: &str,
    presence: Presence,
) -> Result<BTreeMap<String, String>, String> {
    let wrong = || format!("the field {name} must be an object of texts");
    let Some(value) = field(request, name, presence)? else {
        return Ok(BTreeMap::new());
    };
    let object = value.as_object().ok_or_else(wrong)?;
    let set = object.iter().filter(|(_, value)| !value.is_null());
    let texts = set.map(|(key, value)| Ok((key.clone(), as_text(value).ok_or_else(wrong)?)));
    texts.collect()
}
