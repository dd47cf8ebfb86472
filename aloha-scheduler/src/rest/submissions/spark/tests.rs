use serde_json::json;

use super::program::{PYTHON_RUNNER, SPARK_SUBMIT};
use super::properties::MASTER;
use super::*;

fn valid() -> Value {
    json!({
        "action": "CreateSubmissionRequest",
        "clientSparkVersion": "3.5.9",
        "appResource": "file:/jobs/pi.jar",
        "mainClass": "com.example.Pi",
        "appArgs": ["10"],
        "sparkProperties": {"spark.app.name": "Pi", "spark.master": "spark://master:6066"},
        "environmentVariables": {"KEY": "value"},
    })
}

fn read(request: &Value) -> Result<AppDescription, String> {
    description(request.as_object().expect("an object"))
}

fn with(field: &str, value: Value) -> Result<AppDescription, String> {
    let mut request = valid();
    request[field] = value;
    read(&request)
}

fn with_property(key: &str, value: Value) -> Result<AppDescription, String> {
    let mut request = valid();
    request["sparkProperties"][key] = value;
    read(&request)
}

/// The arguments that follow those that each request has.
#[track_caller]
fn program(request: &Value) -> Vec<String> {
    let args = read(request).expect("valid").args;
    let common = ["--master", "local[1]", "--deploy-mode", "client", "--name"];
    assert_eq!(args[..5], common);
    let args = args[6..].iter();
    let is_heap = |arg: &&String| arg.starts_with("spark.driver.memory=");
    let heap = args
        .clone()
        .position(|arg| is_heap(&arg))
        .expect("always said");
    let but_for_heap = args
        .enumerate()
        .filter(|(at, _)| *at != heap && at + 1 != heap);
    but_for_heap.map(|(_, arg)| arg.clone()).collect()
}

#[test]
fn a_request_becomes_a_call_of_spark_submit() {
    let mut request = valid();
    request["sparkProperties"] = json!({
        "spark.app.name": "Pi of Spark",
        "spark.cores.max": "10000",
        "spark.driver.cores": "2",
        "spark.driver.extraJavaOptions": " -Dslices=5 -Dcolor=mostly_red",
        "spark.driver.memory": "5g",
        "spark.driver.supervise": "TRUE",
        "spark.executor.memory": "256m",
        "spark.jars": "file:/jobs/pi.jar",
        "spark.master": "spark://a:6066,b:6066",
        "spark.submit.deployMode": "cluster",
    });
    let expected = AppDescription {
        name: "Pi of Spark".into(),
        entry_point: "SparkSubmit".into(),
        args: [
            "--master",
            "local[2]",
            "--deploy-mode",
            "client",
            "--name",
            "Pi of Spark",
            "--class",
            "com.example.Pi",
            "--conf",
            "spark.cores.max=10000",
            "--conf",
            "spark.driver.cores=2",
            "--conf",
            "spark.driver.extraJavaOptions= -Dslices=5 -Dcolor=mostly_red",
            "--conf",
            "spark.driver.memory=5g",
            "--conf",
            "spark.executor.memory=256m",
            "--conf",
            "spark.jars=file:/jobs/pi.jar",
            "file:/jobs/pi.jar",
            "10",
        ]
        .map(str::to_owned)
        .into(),
        cores: 2,
        // A tenth more than the heap.
        memory_mib: 5120 + 512,
        supervise: true,
        environment: [("KEY".to_owned(), "value".to_owned())].into(),
        ..AppDescription::default()
    };
    assert_eq!(read(&request), Ok(expected));
}

#[test]
fn what_is_not_said_has_sparks_defaults() {
    let mut request = valid();
    request["sparkProperties"] = json!({});
    for optional in ["appArgs", "environmentVariables"] {
        request.as_object_mut().expect("an object").remove(optional);
    }
    let read = read(&request).expect("valid");
    assert_eq!(
        (read.cores, read.memory_mib, read.supervise),
        (1, 1024 + 384, false)
    );
    assert_eq!(read.name, "com.example.Pi");
    assert_eq!(
        read.args.last().map(String::as_str),
        Some("file:/jobs/pi.jar")
    );
    assert!(read.environment.is_empty());
}

#[test]
fn memory_beside_the_heap_is_as_asked_for() {
    for (overhead, beside) in [("0", 0), ("100", 100), ("1g", 1024)] {
        let read = with_property("spark.driver.memoryOverhead", json!(overhead));
        assert_eq!(read.map(|read| read.memory_mib), Ok(1024 + beside));
    }
}

#[test]
fn the_driver_has_the_cores_of_its_worker_unless_it_asks_for_another_master() {
    for (key, value, master) in [
        ("spark.master", "spark://here:6066", "local[1]"),
        ("spark.master", "", "local[1]"),
        ("spark.master", "local[4]", "local[4]"),
        ("spark.master", "yarn", "yarn"),
        (MASTER, "spark://other:7077", "spark://other:7077"),
        (MASTER, "k8s://https://h:443", "k8s://https://h:443"),
    ] {
        let args = with_property(key, json!(value)).expect("valid").args;
        assert_eq!(args[1], master, "{key}={value}");
        let repeated = args.iter().any(|arg| arg.starts_with(&format!("{key}=")));
        assert!(!repeated, "{args:?}");
    }
}

#[test]
fn python_runs_in_each_of_the_ways_in_use() {
    let mut request = valid();
    request["sparkProperties"] = json!({"spark.driver.memory": "1g"});
    let python = |resource: &str, class: Value, args: Value| {
        let mut request = request.clone();
        request["appResource"] = json!(resource);
        request["mainClass"] = class;
        request["appArgs"] = args;
        request
    };
    // The script is what runs, whatever class is named.
    for class in [
        json!("com.example.Pi"),
        json!(""),
        Value::Null,
        json!(PYTHON_RUNNER),
    ] {
        let plain = python("/jobs/pi.py", class, json!(["10"]));
        assert_eq!(program(&plain), ["/jobs/pi.py", "10"]);
    }
    // Spark's server takes a command line of spark-submit for a program.
    let nested = python("", json!(SPARK_SUBMIT), json!(["/jobs/pi.py", 10]));
    assert_eq!(program(&nested), ["/jobs/pi.py", "10"]);
    assert_eq!(read(&nested).expect("valid").name, "pi.py");
    let nested = python(
        "",
        json!(SPARK_SUBMIT),
        json!(["--conf", "a=b", "/jobs/pi.py"]),
    );
    assert_eq!(program(&nested), ["--conf", "a=b", "/jobs/pi.py"]);
    let nested = python("/jobs/pi.py", json!(SPARK_SUBMIT), json!([]));
    assert_eq!(program(&nested), ["/jobs/pi.py"]);
    // And the class that it runs Python with.
    for (args, expected) in [
        (json!(["/jobs/pi.py"]), &["/jobs/pi.py"][..]),
        (json!(["/jobs/pi.py", "", "10"]), &["/jobs/pi.py", "10"]),
        (
            json!(["/jobs/pi.py", "a.py,b.zip", "10"]),
            &["--py-files", "a.py,b.zip", "/jobs/pi.py", "10"],
        ),
    ] {
        let runner = python("file:/jobs/pi.py", json!(PYTHON_RUNNER), args);
        assert_eq!(program(&runner), expected);
    }
}

#[test]
fn variables_about_the_clients_own_spark_stay_behind() {
    let variables = json!({"SPARK_ENV_LOADED": "1", "SPARK_HOME": "/spark", "SPARK_CONF_DIR": "/conf",
        "SPARK_LOCAL_IP": "10.0.0.1", "SPARK_LOCAL_HOSTNAME": "laptop", "SPARK_LOCAL_DIRS": "/scratch", "A": 1});
    let environment = with("environmentVariables", variables)
        .expect("valid")
        .environment;
    let expected = [("A", "1"), ("SPARK_LOCAL_DIRS", "/scratch")];
    assert_eq!(
        environment,
        expected.map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    );
}

#[test]
fn each_missing_field_is_named() {
    for field in [
        "clientSparkVersion",
        "appResource",
        "sparkProperties",
        "mainClass",
    ] {
        let expected = Err(format!("the field {field} is missing"));
        assert_eq!(with(field, Value::Null), expected);
        let mut request = valid();
        request.as_object_mut().expect("an object").remove(field);
        assert_eq!(read(&request), expected);
    }
}

#[test]
fn each_bad_field_and_property_is_named_with_what_it_should_be() {
    for (field, value, message) in [
        ("appResource", json!([]), "must be a text"),
        (
            "appResource",
            json!(""),
            "must be the path or URL of a jar or a Python file",
        ),
        (
            "appResource",
            json!("--verbose"),
            "must be the path or URL of a jar or a Python file",
        ),
        ("mainClass", json!({}), "must be a text"),
        ("appArgs", json!("10"), "must be a list of texts"),
        ("appArgs", json!([null]), "must be a list of texts"),
        ("sparkProperties", json!("a"), "must be an object of texts"),
        (
            "sparkProperties",
            json!({"a": []}),
            "must be an object of texts",
        ),
        (
            "sparkProperties",
            json!({"a=b": ""}),
            "holds \"a=b\", which cannot name a property",
        ),
        (
            "environmentVariables",
            json!([1]),
            "must be an object of texts",
        ),
        (
            "environmentVariables",
            json!({"A=B": "1"}),
            "holds \"A=B\", which cannot name a variable",
        ),
    ] {
        let expected = Err(format!("the field {field} {message}"));
        assert_eq!(with(field, value), expected);
    }
    let cores = "a whole number from 1 to 65536";
    let size = "a size of at least 1m and at most 1024t, such as 512m or 2g";
    for (key, value, expected) in [
        ("spark.driver.cores", "one hundred feet", cores),
        (
            "spark.app.name",
            "a\nb",
            "at most 256 characters, none of them a control character",
        ),
        ("spark.driver.cores", "0", cores),
        ("spark.driver.cores", "-1", cores),
        ("spark.cores.max", "two men", "a number"),
        ("spark.driver.supervise", "nope, never", "true or false"),
        ("spark.driver.memory", "1.5g", size),
        ("spark.driver.memory", "1024", size),
        ("spark.executor.memory", "lots", size),
        (
            "spark.driver.memoryOverhead",
            "-1",
            "a number of MiB, or a size such as 384m",
        ),
        (
            MASTER,
            "",
            "a master of Spark, such as local[4], yarn or spark://host:7077",
        ),
        (
            MASTER,
            "--x",
            "a master of Spark, such as local[4], yarn or spark://host:7077",
        ),
    ] {
        let expected = Err(format!("the property {key} must be {expected}"));
        assert_eq!(with_property(key, json!(value)), expected);
    }
}

#[test]
fn one_field_of_sparks_makes_a_request_one_of_sparks() {
    let is_spark = |request: Value| is_spark(request.as_object().expect("an object"));
    for field in FIELDS {
        assert!(is_spark(
            json!({"action": "CreateSubmissionRequest", *field: null})
        ));
    }
    assert!(!is_spark(
        json!({"action": "CreateSubmissionRequest", "name": "n"})
    ));
    assert!(!is_spark(
        json!({"entryPoint": "Process", "appResource": "x"})
    ));
}
