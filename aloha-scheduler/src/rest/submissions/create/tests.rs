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
fn unknown_fields_are_no_more_than_an_answer_can_name() {
    assert!(with(&"x".repeat(4096), Value::Null).is_ok());
    let message = "the names of the fields that mean nothing here have 4097 bytes, more than the 4096 that an answer can name";
    assert_eq!(with(&"x".repeat(4097), Value::Null), Err(message.into()));
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
        (
            "entryPoint",
            json!(""),
            "must have 1 to 1024 characters, none of them a control character".into(),
        ),
        (
            "entryPoint",
            json!("x".repeat(1025)),
            "must have 1 to 1024 characters, none of them a control character".into(),
        ),
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
    let request = json!({"action": CREATE, "name": "test", "entryPoint": "com.example.Greeter"});
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
