//! The JSON that comes in: a create request, validated field by field.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{policy, spark};
use crate::app::{AppDescription, NAME_CHARS_MAX};
use crate::limits::{Limit, ProcessLimits, StopPolicy, StopSignal};

pub(super) const CREATE: &str = "CreateSubmissionRequest";
/// What a request that says nothing of it gets, as on the command line.
const CORES: u64 = 1;
const MEMORY_MIB: u64 = 512;
pub(in crate::rest) const CORES_MAX: u64 = 65_536;
/// A PiB.
pub(in crate::rest) const MEMORY_MIB_MAX: u64 = 1 << 30;
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
    Ok(CreateRequest {
        dialect,
        submission,
        unknown_fields: (!unknown.is_empty()).then_some(unknown),
    })
}

/// Reads what only the original form has.
fn description(fields: &Fields<'_>) -> Result<AppDescription, String> {
    let name = fields.text("name")?;
    let is_long = name.chars().count() > NAME_CHARS_MAX;
    if name.trim().is_empty() || is_long || name.contains(char::is_control) {
        return Err(format!(
            "the field name must have 1 to {NAME_CHARS_MAX} characters, none of them a control character"
        ));
    }
    let entry_point = fields.text("entryPoint")?;
    if entry_point.trim().is_empty() {
        return Err("the field entryPoint must not be empty".into());
    }
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

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// What a request asks for.
    pub(in crate::rest::submissions) fn create(request: &Value) -> Result<AppDescription, String> {
        create_request(request.to_string().as_bytes()).map(|request| request.submission)
    }

    pub(in crate::rest::submissions) fn valid() -> Value {
        json!({"action": CREATE, "name": "test", "entryPoint": "me.jrwang.app.SimpleProcess", "libs": [],
               "args": "echo hi", "cores": 1, "memory": 256})
    }

    fn with(field: &str, value: Value) -> Result<CreateRequest, String> {
        let mut request = valid();
        request[field] = value;
        create_request(request.to_string().as_bytes())
    }

    #[test]
    fn the_request_of_the_contract_is_understood() {
        let request = create_request(valid().to_string().as_bytes()).expect("valid");
        let expected = AppDescription {
            name: "test".into(),
            entry_point: "me.jrwang.app.SimpleProcess".into(),
            libs: Vec::new(),
            args: vec!["echo hi".into()],
            cores: 1,
            memory_mib: 256,
            ..AppDescription::default()
        };
        assert_eq!(request.submission, expected);
        assert_eq!(request.unknown_fields, None);
    }

    #[test]
    fn optional_fields_are_typed_and_unknown_ones_listed() {
        let mut request = valid();
        request["supervise"] = json!(true);
        request["environmentVariables"] = json!({"A": "1"});
        request["args"] = json!(["echo", "hi"]);
        request["libs"] = Value::Null;
        request["zebra"] = json!(1);
        request["Cores"] = json!(1);
        let request = create_request(request.to_string().as_bytes()).expect("valid");
        let AppDescription {
            supervise,
            environment,
            args,
            ..
        } = request.submission;
        assert!(supervise);
        assert_eq!(environment, [("A".to_owned(), "1".to_owned())].into());
        assert_eq!(args, ["echo", "hi"]);
        assert_eq!(
            request.unknown_fields,
            Some(vec!["Cores".into(), "zebra".into()])
        );
    }

    #[test]
    fn how_it_ends_and_what_its_processes_may_have_is_read() {
        let mut request = valid();
        request["stopSignal"] = json!("sigint");
        request["stopTimeout"] = json!(2.5);
        request["limits"] = json!({"openFiles": 64, "coreBytes": 0, "cpuSeconds": null});
        let request = create_request(request.to_string().as_bytes()).expect("valid");
        let expected = StopPolicy {
            signal: StopSignal::Int,
            grace_millis: Some(2500),
        };
        assert_eq!(request.submission.stop, expected);
        let expected = ProcessLimits {
            open_files: Some(64),
            core_bytes: Some(0),
            ..ProcessLimits::default()
        };
        assert_eq!(request.submission.limits, expected);
        assert_eq!(request.unknown_fields, None);
    }

    #[test]
    fn each_missing_field_is_named() {
        for field in ["action", "name", "entryPoint"] {
            let expected = Err(format!("the field {field} is missing"));
            assert_eq!(with(field, Value::Null), expected);
            let mut request = valid();
            request.as_object_mut().expect("an object").remove(field);
            assert_eq!(create_request(request.to_string().as_bytes()), expected);
        }
    }

    #[test]
    fn each_bad_field_is_named_with_what_it_should_be() {
        let cores = "a whole number from 1 to 65536";
        let memory = "a whole number from 1 to 1073741824";
        let cases = [
            ("cores", json!(0), format!("is 0, expected {cores}")),
            ("cores", json!(-1), format!("is -1, expected {cores}")),
            ("cores", json!(1.5), format!("is 1.5, expected {cores}")),
            (
                "cores",
                json!(65_537),
                format!("is 65537, expected {cores}"),
            ),
            ("cores", json!("1"), format!("is a text, expected {cores}")),
            ("memory", json!(0), format!("is 0, expected {memory}")),
            (
                "memory",
                json!(u64::MAX),
                format!("is {}, expected {memory}", u64::MAX),
            ),
            ("name", json!(1), "is 1, expected a text".into()),
            (
                "libs",
                json!("a"),
                "is a text, expected a list of texts".into(),
            ),
            (
                "libs",
                json!([1]),
                "is a list, expected a list of texts".into(),
            ),
            ("args", json!({}), "is an object, expected a text".into()),
            (
                "supervise",
                json!("true"),
                "is a text, expected true or false".into(),
            ),
            (
                "environmentVariables",
                json!({"A": 1}),
                "is an object, expected an object of texts".into(),
            ),
            (
                "environmentVariables",
                json!({"A=B": "1"}),
                "holds \"A=B\", which cannot name a variable".into(),
            ),
            (
                "name",
                json!("a\nb"),
                "must have 1 to 256 characters, none of them a control character".into(),
            ),
            ("entryPoint", json!(""), "must not be empty".into()),
            (
                "stopSignal",
                json!("KILL"),
                "is a text, expected one of TERM, INT, QUIT, HUP, USR1, USR2".into(),
            ),
            (
                "stopTimeout",
                json!(-1),
                "is -1, expected a number of seconds from 0 to 86400".into(),
            ),
            (
                "stopTimeout",
                json!("1"),
                "is a text, expected a number of seconds from 0 to 86400".into(),
            ),
            (
                "limits",
                json!(64),
                "is 64, expected an object of numbers".into(),
            ),
            (
                "limits",
                json!({"open_files": 64}),
                "holds \"open_files\", expected any of openFiles, processes, addressSpaceBytes, fileBytes, coreBytes, \
                 cpuSeconds"
                    .into(),
            ),
        ];
        for (field, value, message) in cases {
            assert_eq!(
                with(field, value),
                Err(format!("the field {field} {message}"))
            );
        }
    }

    #[test]
    fn a_bad_limit_is_named_with_what_it_should_be() {
        for (limits, message) in [
            (
                json!({"openFiles": 1}),
                "openFiles is 1, expected a whole number from 8 to 1073741824",
            ),
            (
                json!({"fileBytes": "1G"}),
                "fileBytes is a text, expected a number of bytes from 0 to 1152921504606846976",
            ),
        ] {
            let expected = Err(format!("the field limits.{message}"));
            assert_eq!(with("limits", limits), expected);
        }
    }

    #[test]
    fn what_is_no_create_request_is_refused() {
        let refused = |body: &str| create_request(body.as_bytes()).expect_err("refused");
        assert!(refused("").starts_with("the body is no JSON: "));
        assert!(refused("{\"action\":").starts_with("the body is no JSON: "));
        assert_eq!(
            refused("\"hello\""),
            "the body is a text, expected an object"
        );
        assert_eq!(
            with("action", json!("Kill")),
            Err("action is \"Kill\", expected \"CreateSubmissionRequest\"".into())
        );
    }

    #[test]
    fn what_is_not_said_is_as_on_the_command_line() {
        let request =
            json!({"action": CREATE, "name": "test", "entryPoint": "com.example.Greeter"});
        let read = create(&request).expect("valid");
        assert_eq!((read.cores, read.memory_mib), (1, 512));
        assert!(read.args.is_empty() && read.libs.is_empty());
    }

    #[test]
    fn sparks_form_may_say_what_only_ours_has_a_word_for() {
        let request = json!({"action": CREATE, "clientSparkVersion": "", "appResource": "pi.py", "sparkProperties": {},
            "tags": ["etl"], "stopTimeout": 1, "name": "n", "message": null});
        let mut by_property = request.clone();
        by_property["sparkProperties"] = json!({"spark.aloha.tags": "other", "spark.aloha.constraints": "spark, zone=a",
            "spark.aloha.priority": "-3"});
        let read = create_request(request.to_string().as_bytes()).expect("valid");
        assert_eq!(read.dialect, Dialect::Spark);
        assert_eq!(read.submission.name, "pi.py");
        assert_eq!(read.submission.tags, ["etl".to_owned()].into());
        assert_eq!(read.submission.stop.grace_millis, Some(1_000));
        assert_eq!(read.unknown_fields, Some(vec!["name".into()]));
        // Spark's client can send nothing but properties. A field wins over them.
        let read = create(&by_property).expect("valid");
        let constraints: Vec<_> = read.constraints.iter().map(ToString::to_string).collect();
        assert_eq!(constraints, ["zone=a", "spark"]);
        assert_eq!(read.tags, ["etl".to_owned()].into());
        assert_eq!(read.priority, -3);
        by_property["sparkProperties"]["spark.aloha.priority"] = json!("high");
        let refused = create(&by_property).expect_err("no number");
        assert!(
            refused.starts_with("the field priority is a text"),
            "{refused}"
        );
        by_property["sparkProperties"] = json!({"spark.aloha.colour": "red"});
        assert_eq!(
            create(&by_property),
            Err("the property spark.aloha.colour is unknown, expected spark.aloha.constraints, spark.aloha.master, \
                 spark.aloha.priority or spark.aloha.tags"
                .into())
        );
    }

    /// Any JSON, near enough to a request to come far.
    fn any_request() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let names: Vec<&str> = [
            FIELDS,
            COMMON_FIELDS,
            spark::FIELDS,
            policy::FIELDS,
            &["other"],
        ]
        .concat();
        let keys = [
            "spark.driver.cores",
            "spark.driver.memory",
            "spark.master",
            "spark.aloha.master",
            "",
            "a=b",
            "k",
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,6}".prop_map(Value::from),
            proptest::sample::select(vec![
                "Process",
                "pi.py",
                "-x",
                "1g",
                "99999999999p",
                "2",
                "true",
                "never",
                "TERM",
                "org.apache.spark.deploy.SparkSubmit",
                "org.apache.spark.deploy.PythonRunner",
                "a=b"
            ])
            .prop_map(Value::from),
        ];
        let value = leaf.prop_recursive(2, 12, 4, move |inner| {
            let key = proptest::sample::select(keys.to_vec()).prop_map(str::to_owned);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..4)
                    .prop_map(|fields| fields.into_iter().collect()),
            ]
        });
        let name = proptest::sample::select(names).prop_map(str::to_owned);
        prop::collection::vec((name, value), 0..10).prop_map(|fields| {
            let mut request: Value = fields.into_iter().collect();
            request["action"] = CREATE.into();
            request
        })
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config::with_cases(2_000))]

        #[test]
        fn any_json_is_taken_or_refused_by_name(request in any_request()) {
            match create_request(request.to_string().as_bytes()) {
                Ok(read) => {
                    proptest::prop_assert!((1..=65_536).contains(&read.submission.cores));
                    proptest::prop_assert!(!read.submission.entry_point.is_empty());
                }
                Err(reason) => proptest::prop_assert!(reason.starts_with("the field ") || reason.starts_with("the property "), "{reason}"),
            }
        }

        #[test]
        fn any_bytes_are_refused(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            proptest::prop_assert!(create_request(&body).is_err());
        }
    }
}
