//! Spark's form of a create request: it becomes an application that runs `spark-submit` on a worker.
//!
//! ```text
//!   appResource, mainClass, appArgs,          SparkSubmit: --master local[2] --deploy-mode client --name N
//!   sparkProperties, environmentVariables ──►   --class C --conf k=v … app.jar args…
//!                                             cores, memory and supervise from spark.driver.*
//! ```
//!
//! Required is what Spark requires, and numbers and truth values pass for texts, as they do there.

mod json;
mod jvm_size;
mod program;
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use self::json::{Presence, as_text, required, text, texts, texts_by_name};
use self::program::Program;
pub(super) use self::program::{PYTHON_RUNNER, SPARK_SUBMIT};
use self::properties::{OWN, Properties};
use crate::app::AppDescription;

/// The entry point that such an application has.
const ENTRY_POINT: &str = "SparkSubmit";

/// What only Spark's form has: one of these makes a request one of Spark's.
pub(super) const FIELDS: &[&str] = &[
    "appArgs",
    "appResource",
    "clientSparkVersion",
    "mainClass",
    "sparkProperties",
];

/// Variables that say where Spark lies and which address it has: those of the worker count.
const OF_THE_WORKER: &[&str] = &[
    "SPARK_CONF_DIR",
    "SPARK_ENV_LOADED",
    "SPARK_HOME",
    "SPARK_LOCAL_HOSTNAME",
    "SPARK_LOCAL_IP",
];

/// Whether a request is in Spark's form.
pub(super) fn is_spark(request: &Map<String, Value>) -> bool {
    !request.contains_key("entryPoint") && FIELDS.iter().any(|field| request.contains_key(*field))
}

/// Makes fields of the properties that are fields of ours: Spark's client can send nothing else. What is there as a field
/// counts.
pub(super) fn spread(request: &mut Map<String, Value>) {
    let property = |field: &str| {
        let properties = request.get("sparkProperties")?.as_object()?;
        as_text(properties.get(&format!("{OWN}{field}"))?)
    };
    let words = |text: String| -> Value { text.split(',').map(str::trim).collect() };
    let number = |text: String| text.trim().parse::<i64>().map_or(text.into(), Value::from);
    let fields = [
        ("constraints", property("constraints").map(words)),
        ("priority", property("priority").map(number)),
        ("tags", property("tags").map(words)),
    ];
    for (field, value) in fields {
        if let Some(value) = value {
            request.entry(field).or_insert(value);
        }
    }
}

/// Reads a request in Spark's form; the error says which field or property is wrong, and how.
pub(super) fn description(request: &Map<String, Value>) -> Result<AppDescription, String> {
    // Its value concerns nobody, but Spark wants it.
    required(request, "clientSparkVersion")?;
    let properties = Properties::new(texts_by_name(
        request,
        "sparkProperties",
        Presence::Required,
    )?);
    let cores = properties.cores()?;
    let resource = text(request, "appResource", Presence::Required)?.unwrap_or_default();
    let main_class = text(request, "mainClass", Presence::Optional)?.unwrap_or_default();
    let app_args = texts(request, "appArgs")?;
    let program = Program::of(&resource, &main_class, app_args)?;
    let name = properties.name().unwrap_or(&program.name).to_owned();
    properties.check()?;

    let mut args: Vec<String> = ["--master", &properties.master(cores)?]
        .into_iter()
        .chain(["--deploy-mode", "client", "--name", &name])
        .map(str::to_owned)
        .collect();
    if let Some(class) = program.class {
        args.extend(["--class".to_owned(), class]);
    }
    if let Some(py_files) = program.py_files {
        args.extend(["--py-files".to_owned(), py_files]);
    }
    for (key, value) in properties.passed_on() {
        args.extend(["--conf".to_owned(), format!("{key}={value}")]);
    }
    args.extend(program.command);
    Ok(AppDescription {
        memory_mib: properties.memory_mib()?,
        supervise: properties.supervise()?,
        environment: environment(request)?,
        entry_point: ENTRY_POINT.to_owned(),
        name,
        args,
        cores,
        ..AppDescription::default()
    })
}

fn environment(request: &Map<String, Value>) -> Result<BTreeMap<String, String>, String> {
    let mut variables = texts_by_name(request, "environmentVariables", Presence::Optional)?;
    let cannot = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
    if let Some(name) = variables.keys().find(cannot) {
        return Err(format!(
            "the field environmentVariables holds {name:?}, which cannot name a variable"
        ));
    }
    variables.retain(|name, _| !OF_THE_WORKER.contains(&&**name));
    Ok(variables)
}
