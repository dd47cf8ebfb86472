//! The JSON that comes in: a create request, validated field by field.

#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{policy, spark};
use crate::app::{AppDescription, ENTRY_POINT_CHARS_MAX, NAME_CHARS_MAX};
use crate::limits::{Limit, ProcessLimits, StopPolicy, StopSignal};

pub(super) const CREATE: &str = "CreateSubmissionRequest";
/// What a request that says nothing of it gets, as on the command line.
const CORES: u64 = 1;
const MEMORY_MIB: u64 = 512;
pub(in crate::rest) const CORES_MAX: u64 = 65_536;
/// A PiB.
pub(in crate::rest) const MEMORY_MIB_MAX: u64 = 1 << 30;
/// What the names of unknown fields may have together. An answer that has them all is so small that there is always room
/// for it: what was accepted is never told to come again.
const UNKNOWN_BYTES_MAX: usize = 4096;
/// What a create request of the original form may hold; its clients send the last.
const FIELDS: &[&str] = &[
    "name",
    "entryPoint",
    "libs",
    "args",
    "cores",
    "memory",
    "supervise",
    "clientVersion",
];
/// What it may hold in either form.
const COMMON_FIELDS: &[&str] = &[
    "action",
    "environmentVariables",
    "stopSignal",
    "stopTimeout",
    "limits",
    "message",
];

/// Whose words a client uses, and is answered in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Dialect {
    #[default]
    Aloha,
    Spark,
}

/// A create request that passed validation.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::rest) struct CreateRequest {
    pub(super) dialect: Dialect,
    pub(in crate::rest) submission: AppDescription,
    pub(in crate::rest) unknown_fields: Option<Vec<String>>,
}

/// Reads a create request; the error says which field is wrong, and how.
pub(super) fn create_request(body: &[u8]) -> Result<CreateRequest, String> {
    let mut object = object(body)?;
    match Fields(&object).text("action")? {
        CREATE => {}
        other => return Err(format!("action is {other:?}, expected {CREATE:?}")),
    }
    if spark::is_spark(&object) {
        spark::spread(&mut object);
        let submission = spark::description(&object)?;
        complete(Dialect::Spark, submission, &Fields(&object))
    } else {
        let fields = Fields(&object);
        complete(Dialect::Aloha, description(&fields)?, &fields)
    }
}

/// Reads the original form without an action.
pub(in crate::rest) fn application(body: &[u8]) -> Result<CreateRequest, String> {
    let object = object(body)?;
    let fields = Fields(&object);
    complete(Dialect::Aloha, description(&fields)?, &fields)
}

fn object(body: &[u8]) -> Result<Map<String, Value>, String> {
    let value: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is no JSON: {error}"))?;
    match value {
        Value::Object(object) => Ok(object),
        other => Err(format!("the body is {}, expected an object", kind(&other))),
    }
}

/// Reads what both forms have.
fn complete(
    dialect: Dialect,
    mut submission: AppDescription,
    fields: &Fields<'_>,
) -> Result<CreateRequest, String> {
    submission.stop = StopPolicy {
        signal: fields
            .optional("stopSignal", Fields::signal)?
            .unwrap_or_default(),
        grace_millis: fields.optional("stopTimeout", Fields::grace)?,
    };
    submission.limits = fields
        .optional("limits", Fields::limits)?
        .unwrap_or_default();
    policy::read(fields, &mut submission)?;
    let own = match dialect {
        Dialect::Aloha => FIELDS,
        Dialect::Spark => spark::FIELDS,
    };
    let known = [own, COMMON_FIELDS, policy::FIELDS];
    let is_known = |field: &String| known.iter().any(|known| known.contains(&field.as_str()));
    // The map is sorted.
    let unknown: Vec<String> = fields
        .0
        .keys()
        .filter(|field| !is_known(field))
        .cloned()
        .collect();
    let bytes: usize = unknown.iter().map(String::len).sum();
    if bytes > UNKNOWN_BYTES_MAX {
        return Err(format!(
            "the names of the fields that mean nothing here have {bytes} bytes, more than the {UNKNOWN_BYTES_MAX} \
             that an answer can name"
        ));
    }
    Ok(CreateRequest {
        dialect,
        submission,
        unknown_fields: (!unknown.is_empty()).then_some(unknown),
    })
}

/// Reads what only the original form has.
fn description(fields: &Fields<'_>) -> Result<AppDescription, String> {
    let name = fields.line("name", NAME_CHARS_MAX)?;
    let entry_point = fields.line("entryPoint", ENTRY_POINT_CHARS_MAX)?;
    let cores = fields.optional("cores", |fields, name| fields.count(name, CORES_MAX))?;
    let memory = fields.optional("memory", |fields, name| fields.count(name, MEMORY_MIB_MAX))?;
    Ok(AppDescription {
        name: name.to_owned(),
        entry_point: entry_point.to_owned(),
        libs: fields.optional("libs", Fields::texts)?.unwrap_or_default(),
        args: fields.optional("args", Fields::args)?.unwrap_or_default(),
        cores: u32::try_from(cores.unwrap_or(CORES)).expect("the maximum is far below u32's"),
        memory_mib: memory.unwrap_or(MEMORY_MIB),
        supervise: fields
            .optional("supervise", Fields::bool)?
            .unwrap_or_default(),
        environment: fields
            .optional("environmentVariables", Fields::variables)?
            .unwrap_or_default(),
        ..AppDescription::default()
    })
}

/// The fields of a request; `null` counts as absent, as in the original.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl<'a> Fields<'a> {
    pub(super) fn required(&self, name: &str) -> Result<&'a Value, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Err(format!("the field {name} is missing")),
            Some(value) => Ok(value),
        }
    }

    pub(super) fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self, &str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(_) => read(self, name).map(Some),
        }
    }

    fn text(&self, name: &str) -> Result<&'a str, String> {
        let value = self.required(name)?;
        value.as_str().ok_or_else(|| wrong(name, value, "a text"))
    }

    /// A text that can be shown in one line.
    fn line(&self, name: &str, chars_max: usize) -> Result<&'a str, String> {
        let text = self.text(name)?;
        let is_long = text.chars().count() > chars_max;
        if text.trim().is_empty() || is_long || text.contains(char::is_control) {
            return Err(format!(
                "the field {name} must have 1 to {chars_max} characters, none of them a control character"
            ));
        }
        Ok(text)
    }

    fn bool(&self, name: &str) -> Result<bool, String> {
        let value = self.required(name)?;
        value
            .as_bool()
            .ok_or_else(|| wrong(name, value, "true or false"))
    }

    fn count(&self, name: &str, max: u64) -> Result<u64, String> {
        let value = self.required(name)?;
        let number = whole(value).filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| wrong(name, value, &format!("a whole number from 1 to {max}")))
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let value = self.required(name)?;
        let texts = value.as_array().and_then(|items| {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect()
        });
        texts.ok_or_else(|| wrong(name, value, "a list of texts"))
    }

    fn args(&self, name: &str) -> Result<Vec<String>, String> {
        match self.required(name)? {
            Value::Array(_) => self.texts(name),
            _ => Ok(vec![self.text(name)?.to_owned()]),
        }
    }

    fn signal(&self, name: &str) -> Result<StopSignal, String> {
        let value = self.required(name)?;
        let signal = value.as_str().and_then(|text| text.parse().ok());
        signal.ok_or_else(|| wrong(name, value, &StopSignal::expected()))
    }

    fn grace(&self, name: &str) -> Result<u64, String> {
        let value = self.required(name)?;
        let millis = value.as_f64().and_then(StopPolicy::grace_of_seconds);
        millis.ok_or_else(|| wrong(name, value, "a number of seconds from 0 to 86400"))
    }

    fn limits(&self, name: &str) -> Result<ProcessLimits, String> {
        let value = self.required(name)?;
        let object = value
            .as_object()
            .ok_or_else(|| wrong(name, value, "an object of numbers"))?;
        let mut limits = ProcessLimits::default();
        for (limit_name, value) in object {
            let limit = Limit::ALL.iter().find(|limit| limit.name == limit_name);
            let limit = limit.ok_or_else(|| {
                format!(
                    "the field {name} holds {limit_name:?}, expected any of {}",
                    Limit::names()
                )
            })?;
            if value.is_null() {
                continue;
            }
            let number = whole(value).filter(|number| limit.allows(*number));
            let number = number
                .ok_or_else(|| wrong(&format!("{name}.{limit_name}"), value, &limit.expected()))?;
            *(limit.of)(&mut limits) = Some(number);
        }
        Ok(limits)
    }

    fn variables(&self, name: &str) -> Result<BTreeMap<String, String>, String> {
        let value = self.required(name)?;
        let variables = value.as_object().and_then(|object| {
            let variables = object
                .iter()
                .map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
            variables.collect::<Option<BTreeMap<_, _>>>()
        });
        let variables = variables.ok_or_else(|| wrong(name, value, "an object of texts"))?;
        match variables
            .keys()
            .find(|variable| variable.is_empty() || variable.contains(['=', '\0']))
        {
            Some(variable) => Err(format!(
                "the field {name} holds {variable:?}, which cannot name a variable"
            )),
            None => Ok(variables),
        }
    }
}

/// A whole number of a type, also where it is written as `1.0`: to JSON that is the same.
pub(super) fn whole<T: TryFrom<i64>>(value: &Value) -> Option<T> {
    let from_float = || {
        let number = value.as_f64()?;
        let fits = number.fract() == 0.0 && number.abs() < 2_f64.powi(63);
        fits.then_some(number as i64)
    };
    let number = value.as_i64().or_else(from_float)?;
    T::try_from(number).ok()
}

pub(super) fn wrong(name: &str, value: &Value, expected: &str) -> String {
    // Numbers are short; anything else may be long, or a secret.
    match value {
        Value::Number(number) => format!("the field {name} is {number}, expected {expected}"),
        other => format!("the field {name} is {}, expected {expected}", kind(other)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
