//! What a request in Spark's form wants to have run: a class in a jar, or a script in one of three ways.

use super::ENTRY_POINT;

/// The main classes that are no program but run one.
pub(in crate::rest::submissions) const SPARK_SUBMIT: &str = "org.apache.spark.deploy.SparkSubmit";
pub(in crate::rest::submissions) const PYTHON_RUNNER: &str = "org.apache.spark.deploy.PythonRunner";

/// What `spark-submit` is to run.
pub(super) struct Program {
    /// What it is called where the request gives no name.
    pub(super) name: String,
    pub(super) class: Option<String>,
    pub(super) py_files: Option<String>,
    /// The file and its arguments.
    pub(super) command: Vec<String>,
}

impl Program {
    pub(super) fn of(resource: &str, class: &str, mut args: Vec<String>) -> Result<Self, String> {
        let with = |file: &str, args: Vec<String>| -> Vec<String> {
            [file.to_owned()].into_iter().chain(args).collect()
        };
        let (name, class, py_files, command) = match class {
            // Its arguments are those of a command line of their own, with the program in them.
            SPARK_SUBMIT if args.is_empty() => (resource, None, None, with(file(resource)?, args)),
            SPARK_SUBMIT => {
                let script = args.iter().find(|arg| is_script(arg));
                let name = script.map_or(resource, String::as_str).to_owned();
                return Ok(Self::named(&name, None, None, args));
            }
            // Its arguments are the script, the Python files beside it, and the script's own.
            PYTHON_RUNNER if args.first().is_some_and(|first| is_script(first)) => {
                let rest = args.split_off(args.len().min(2));
                let py_files = args.get(1).filter(|files| !files.is_empty()).cloned();
                (resource, None, py_files, with(file(&args[0])?, rest))
            }
            _ if is_script(resource) => (resource, None, None, with(file(resource)?, args)),
            "" => return Err("the field mainClass is missing".to_owned()),
            class => (
                class,
                Some(class.to_owned()),
                None,
                with(file(resource)?, args),
            ),
        };
        Ok(Self::named(name, class, py_files, command))
    }

    fn named(
        name: &str,
        class: Option<String>,
        py_files: Option<String>,
        command: Vec<String>,
    ) -> Self {
        // Of a path, the file name.
        let name = match name.rsplit('/').next().unwrap_or_default() {
            "" => ENTRY_POINT,
            name => name,
        };
        Self {
            name: name.to_owned(),
            class,
            py_files,
            command,
        }
    }
}

/// Whether `spark-submit` knows by the name what to run it with.
fn is_script(file: &str) -> bool {
    [".py", ".R", ".r"].iter().any(|end| file.ends_with(end))
}

/// A file that `spark-submit` does not take for an option of its own.
fn file(name: &str) -> Result<&str, String> {
    if name.is_empty() || name.starts_with('-') {
        let text = "the field appResource must be the path or URL of a jar or a Python file";
        return Err(text.to_owned());
    }
    Ok(name)
}
