//! Collects settings from all their places and lets the strongest win.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::registry::{self, Fallback, KEYS, Key, LATER};
use super::value::{Unreadable, Value};
use super::{Config, ConfigError, Entry, Origin, properties};

/// The file looked for where no properties file is named.
const FILE_NAME: &str = "aloha-default.conf";

/// Collects a configuration; see [`Config`] for an example.
///
/// Whatever the order of the calls, a flag beats `-D`, which beats an environment variable, which beats the file.
#[derive(Default)]
pub struct ConfigBuilder {
    #[expect(clippy::type_complexity, reason = "an alias would only hide it")]
    environment: Option<Box<dyn Fn(&str) -> Option<String>>>,
    file: Option<PathBuf>,
    overrides: Vec<String>,
    flags: Vec<(&'static str, &'static str, String)>,
}

impl fmt::Debug for ConfigBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigBuilder")
            .field("file", &self.file)
            .field("overrides", &self.overrides)
            .field("flags", &self.flags)
            .finish_non_exhaustive()
    }
}

impl ConfigBuilder {
    /// Says how environment variables are looked up; without it, none is set. A variable set to nothing counts as unset.
    #[must_use]
    pub fn environment(mut self, lookup: impl Fn(&str) -> Option<String> + 'static) -> Self {
        self.environment = Some(Box::new(lookup));
        self
    }

    /// Names the properties file, which must then exist.
    ///
    /// Without one, `$ALOHA_CONF_DIR/aloha-default.conf` is read, else `$ALOHA_HOME/conf/aloha-default.conf`, where they exist.
    #[must_use]
    pub fn properties_file(mut self, path: Option<PathBuf>) -> Self {
        self.file = path.or(self.file);
        self
    }

    /// Adds `key=value` texts from `-D`; the last one of a key wins.
    #[must_use]
    pub fn overrides<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> Self {
        self.overrides.extend(texts.into_iter().map(Into::into));
        self
    }

    /// Sets a key from a flag of its own, if the flag was given.
    #[must_use]
    pub fn flag(
        mut self,
        flag: &'static str,
        key: &'static str,
        value: Option<impl ToString>,
    ) -> Self {
        if let Some(value) = value {
            self.flags.push((flag, key, value.to_string()));
        }
        self
    }

    /// Reads the file and everything collected, and checks all of it.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, even where a stronger place would have hidden it: a bad line in a file is an error
    /// today, not on the day somebody drops the flag.
    pub fn load(self) -> Result<Config, ConfigError> {
        let lookup = |name: &str| {
            let value = self.environment.as_ref().and_then(|lookup| lookup(name));
            value.filter(|value| !value.is_empty())
        };
        let mut config = Config {
            entries: KEYS
                .iter()
                .map(|key| default(key, &lookup))
                .collect::<Result<_, _>>()?,
        };
        if let Some((path, text)) = read_file(self.file.as_deref(), &lookup)? {
            config.apply_file(&path, &text)?;
        }
        for key in KEYS {
            let variable = key.variable.and_then(|name| Some((name, lookup(name)?)));
            if let Some((name, text)) = variable {
                config.set(key.name, &text, Origin::Variable(name))?;
            }
        }
        for text in &self.overrides {
            let Some((key, value)) = text.split_once('=') else {
                return Err(ConfigError::MalformedOverride { text: text.clone() });
            };
            config.set(key.trim(), value, Origin::Override)?;
        }
        for (flag, key, text) in &self.flags {
            config.set(key, text, Origin::Flag(flag))?;
        }
        config.check_pairs()?;
        Ok(config)
    }
}

impl Config {
    fn apply_file(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let properties = properties::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.line,
            reason: error.reason,
        })?;
        // The file may be shared with other programs, whose keys are none of our business.
        for property in properties
            .iter()
            .filter(|property| property.key.starts_with("aloha."))
        {
            let origin = Origin::File {
                path: path.to_owned(),
                line: property.line,
            };
            self.set(&property.key, &property.value, origin)?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, text: &str, origin: Origin) -> Result<(), ConfigError> {
        let Some(at) = registry::position(key) else {
            return Err(match LATER.iter().find(|later| **later == key) {
                Some(key) => ConfigError::KeyNotSupported { key, origin },
                None => ConfigError::UnknownKey {
                    key: key.to_owned(),
                    origin,
                    nearest: registry::nearest(key),
                },
            });
        };
        let value = Some(read(&KEYS[at], text, &origin)?);
        self.entries[at] = Entry { value, origin };
        Ok(())
    }

    /// Checks what no single key can: the order of pairs.
    fn check_pairs(&self) -> Result<(), ConfigError> {
        let ordered = [
            (
                "aloha.worker.register.backoff.initial",
                "aloha.worker.register.backoff.max",
            ),
            ("aloha.rpc.message.maxSize", "aloha.rpc.outbox.bytesMax"),
            (
                "aloha.rpc.handshakes.perAddressMax",
                "aloha.rpc.handshakes.max",
            ),
            (
                "aloha.rpc.reconnect.backoffMin",
                "aloha.rpc.reconnect.backoffMax",
            ),
        ];
        for (small, large) in ordered {
            let (Some(low), Some(high)) = (self.value(small), self.value(large)) else {
                continue;
            };
            let fits = match (low, high) {
                (Value::Duration(low), Value::Duration(high)) => low <= high,
                (Value::Bytes(low), Value::Bytes(high)) => low <= high,
                (Value::Count(low), Value::Count(high)) => low <= high,
                _ => true,
            };
            if !fits {
                // Blame the key that somebody set.
                let (key, value, expected) = if self.origin(large) == Some(&Origin::Default) {
                    (small, low, format!("at most {large}, which is {high}"))
                } else {
                    (large, high, format!("at least {small}, which is {low}"))
                };
                return Err(ConfigError::BadValue {
                    key,
                    value: value.to_string(),
                    origin: self.origin(key).cloned().unwrap_or(Origin::Default),
                    expected,
                });
            }
        }
        Ok(())
    }
}

fn default(key: &Key, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Entry, ConfigError> {
    let text = match key.default {
        Fallback::Text(text) => Some(text.to_owned()),
        Fallback::Unset(_) => None,
        Fallback::Below { places, otherwise } => Some(
            places
                .iter()
                .find_map(|(variable, path)| Some(format!("{}/{path}", lookup(variable)?)))
                .unwrap_or_else(|| otherwise.to_owned()),
        ),
    };
    let read = |text: String| read(key, &text, &Origin::Default);
    Ok(Entry {
        value: text.map(read).transpose()?,
        origin: Origin::Default,
    })
}

fn read(key: &Key, text: &str, origin: &Origin) -> Result<Value, ConfigError> {
    key.kind.parse(text).map_err(|unreadable| {
        let (key, expected) = (key.name, key.kind.to_string());
        let (value, origin) = (text.to_owned(), origin.clone());
        match unreadable {
            Unreadable::Wrong => ConfigError::BadValue {
                key,
                value,
                origin,
                expected,
            },
            Unreadable::Later => ConfigError::ValueNotSupported {
                key,
                value,
                origin,
                accepted: expected,
            },
        }
    })
}

/// The named file, else the first of the customary ones that exists.
fn read_file(
    named: Option<&Path>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let customary = || {
        let directory = lookup("ALOHA_CONF_DIR").map(PathBuf::from);
        directory.or_else(|| Some(Path::new(&lookup("ALOHA_HOME")?).join("conf")))
    };
    let path = match named {
        Some(path) => path.to_owned(),
        None => match customary() {
            Some(directory) => directory.join(FILE_NAME),
            None => return Ok(None),
        },
    };
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(cause) if named.is_none() && cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(ConfigError::Unreadable { path, cause }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("written");
        file
    }

    fn environment(
        variables: &[(&'static str, &str)],
    ) -> impl Fn(&str) -> Option<String> + 'static {
        let variables: HashMap<_, _> = variables
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        move |name| variables.get(name).cloned()
    }

    fn refusal(builder: ConfigBuilder) -> String {
        builder.load().expect_err("refused").to_string()
    }

    #[test]
    fn each_place_beats_the_ones_before_it() {
        let file = file("# ours\naloha.master.port = 1\n");
        let path = file.path().to_owned();
        let check = |builder: ConfigBuilder, port: u16, origin: Origin| {
            let config = builder.load().expect("valid");
            assert_eq!(config.master().port, port);
            assert_eq!(config.origin("aloha.master.port"), Some(&origin));
        };
        let in_file = || Config::builder().properties_file(Some(path.clone()));
        let in_variable = || in_file().environment(environment(&[("ALOHA_MASTER_PORT", "2")]));
        let overridden = || in_variable().overrides(["aloha.master.port=3"]);
        check(Config::builder(), 7077, Origin::Default);
        let line = Origin::File {
            path: path.clone(),
            line: 2,
        };
        check(in_file(), 1, line);
        check(in_variable(), 2, Origin::Variable("ALOHA_MASTER_PORT"));
        check(overridden(), 3, Origin::Override);
        let flagged = overridden().flag("--port", "aloha.master.port", Some(4));
        check(flagged, 4, Origin::Flag("--port"));
        let absent = overridden().flag("--port", "aloha.master.port", None::<u16>);
        check(absent, 3, Origin::Override);
    }

    #[test]
    fn the_customary_file_is_found_through_the_environment_and_may_be_missing() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().to_str().expect("UTF-8").to_owned();
        let load = |variable| {
            let builder = Config::builder().environment(environment(&[(variable, &path)]));
            builder.load().expect("valid").master().port
        };
        assert_eq!(load("ALOHA_HOME"), 7077);
        std::fs::create_dir(home.path().join("conf")).expect("created");
        let file = home.path().join("conf").join(FILE_NAME);
        std::fs::write(file, "aloha.master.port=7000").expect("written");
        assert_eq!(load("ALOHA_HOME"), 7000);
        std::fs::write(home.path().join(FILE_NAME), "aloha.master.port=7001").expect("written");
        assert_eq!(load("ALOHA_CONF_DIR"), 7001);
    }

    #[test]
    fn a_named_file_must_exist() {
        let builder = Config::builder().properties_file(Some("/nonexistent/x.conf".into()));
        assert_eq!(
            refusal(builder),
            "cannot read the properties file /nonexistent/x.conf"
        );
    }

    #[test]
    fn a_mistake_in_a_file_is_named_with_its_line() {
        let cases = [
            (
                "\naloha.worker.timout=5",
                ":2: unknown key aloha.worker.timout, did you mean aloha.worker.timeout?",
            ),
            (
                "aloha.worker.timeout=0",
                ":1: aloha.worker.timeout=0: expected a duration from 1s to 86400s (plain number: seconds)",
            ),
            (
                "aloha.worker.timeout=-5",
                ":1: aloha.worker.timeout=-5: expected a duration from 1s to 86400s (plain number: seconds)",
            ),
            (
                "aloha.deploy.recoveryMode=SOME",
                ":1: aloha.deploy.recoveryMode=SOME: expected one of NONE, FILESYSTEM, ZOOKEEPER, CUSTOM",
            ),
            (
                "aloha.deploy.zookeeper.sessionTimeout=0",
                ":1: aloha.deploy.zookeeper.sessionTimeout=0: expected a duration from 1s to 86400s (plain number: seconds)",
            ),
            (
                "aloha.worker.attributes=zone=a,zone=b",
                ":1: aloha.worker.attributes=zone=a,zone=b: expected such as zone=a,gpu, each name once",
            ),
            (
                "aloha.rpc.codec=java",
                ":1: aloha.rpc.codec=java: expected one of bincode, postcard",
            ),
            (
                "aloha.master.port=\\u00",
                ":1: a \\u escape needs four hexadecimal digits",
            ),
        ];
        for (text, message) in cases {
            let file = file(text);
            let path = file.path().to_owned();
            let builder = Config::builder().properties_file(Some(path.clone()));
            assert_eq!(refusal(builder), format!("{}{message}", path.display()));
        }
    }

    #[test]
    fn keys_of_other_programs_are_ignored_in_files_but_not_on_the_command_line() {
        let file = file("spark.master=local\nlog4j.x=y\naloha.worker.timeout=7");
        let config = Config::builder()
            .properties_file(Some(file.path().to_owned()))
            .load()
            .expect("valid");
        assert_eq!(config.master().worker_timeout.as_secs(), 7);
        let message = refusal(Config::builder().overrides(["worker.timeout=7"]));
        assert_eq!(
            message,
            "-D: unknown key worker.timeout, did you mean aloha.worker.timeout?"
        );
        let message = refusal(Config::builder().overrides(["aloha.worker.timeout"]));
        assert_eq!(message, "-D aloha.worker.timeout: expected key=value");
    }

    #[test]
    fn a_bad_variable_is_named_and_an_empty_one_is_unset() {
        let with =
            |value| Config::builder().environment(environment(&[("ALOHA_WORKER_MEMORY", value)]));
        assert_eq!(
            refusal(with("lots")),
            "environment variable ALOHA_WORKER_MEMORY: aloha.worker.memory=lots: \
             expected a size from 1M to 1024T (plain number: MiB)"
        );
        let config = with("").load().expect("valid");
        assert_eq!(config.worker().memory_mib, None);
        let config = with("2g").load().expect("valid");
        assert_eq!(config.worker().memory_mib, Some(2048));
    }

    #[test]
    fn a_pair_in_the_wrong_order_is_refused() {
        let message = refusal(Config::builder().overrides(["aloha.rpc.message.maxSize=128m"]));
        assert_eq!(
            message,
            "-D: aloha.rpc.message.maxSize=128M: expected at most aloha.rpc.outbox.bytesMax, which is 64M"
        );
        let message = refusal(Config::builder().overrides(["aloha.rpc.outbox.bytesMax=1m"]));
        assert_eq!(
            message,
            "-D: aloha.rpc.outbox.bytesMax=1M: expected at least aloha.rpc.message.maxSize, which is 16M"
        );
        let message = refusal(Config::builder().overrides(["aloha.rpc.handshakes.max=9"]));
        assert_eq!(
            message,
            "-D: aloha.rpc.handshakes.max=9: expected at least aloha.rpc.handshakes.perAddressMax, which is 256"
        );
    }

    #[test]
    fn the_work_directory_follows_the_environment() {
        let directory = |variables: &[(&'static str, &str)]| {
            let builder = Config::builder().environment(environment(variables));
            builder.load().expect("valid").worker().directory
        };
        assert_eq!(
            directory(&[("HOME", "/h"), ("ALOHA_HOME", "/a")]),
            Path::new("/a/work")
        );
        assert_eq!(
            directory(&[("HOME", "/h")]),
            Path::new("/h/.local/share/aloha/work")
        );
        assert_eq!(
            directory(&[("ALOHA_WORKER_DIR", "/w"), ("HOME", "/h")]),
            Path::new("/w")
        );
        assert_eq!(directory(&[]), Path::new("work"));
    }
}
