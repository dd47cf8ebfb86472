//! The Spark properties of a request: what they say of its application, and which of them its driver gets.

use std::collections::BTreeMap;

use super::jvm_size::mib_of;
use crate::app::NAME_CHARS_MAX;

/// What properties of ours begin with, and which there are.
pub(super) const OWN: &str = "spark.aloha.";
const OWN_ALL: &[&str] = &[
    "spark.aloha.constraints",
    MASTER,
    "spark.aloha.priority",
    "spark.aloha.tags",
];
/// The driver's own master, where it is not to be `local[cores]`.
pub(super) const MASTER: &str = "spark.aloha.master";
/// Properties that `spark-submit` gets in another way, or that meant the request itself.
const TAKEN: &[&str] = &[
    "spark.app.name",
    "spark.driver.supervise",
    "spark.master",
    "spark.submit.deployMode",
];
const CORES: u32 = 1;
const CORES_MAX: u32 = 65_536;
const MEMORY: &str = "spark.driver.memory";
const MEMORY_DEFAULT: &str = "1g";
/// A PiB.
const MEMORY_MIB_MAX: u64 = 1 << 30;
/// What a JVM needs beside its heap, by Spark's own rule for clusters that hold a driver to its memory.
const OVERHEAD_MIB_MIN: u64 = 384;
const OVERHEAD_DIVISOR: u64 = 10;

/// The `sparkProperties` of a request.
pub(super) struct Properties(BTreeMap<String, String>);

impl Properties {
    pub(super) fn new(mut properties: BTreeMap<String, String>) -> Self {
        // Said to the driver too: the worker's own defaults must not give it a heap that nobody set aside.
        let memory = properties.entry(MEMORY.to_owned());
        memory.or_insert_with(|| MEMORY_DEFAULT.to_owned());
        Self(properties)
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn read<T>(
        &self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, String> {
        // Its value is not repeated: it may be long.
        let wrong = || format!("the property {key} must be {expected}");
        let value = self.get(key).map(str::trim);
        value.map(|value| read(value).ok_or_else(wrong)).transpose()
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.get("spark.app.name")
            .filter(|name| !name.trim().is_empty())
    }

    pub(super) fn cores(&self) -> Result<u32, String> {
        let expected = format!("a whole number from 1 to {CORES_MAX}");
        let cores = self.read("spark.driver.cores", &expected, |value| {
            let cores = value.parse().ok();
            cores.filter(|cores| (1..=CORES_MAX).contains(cores))
        })?;
        Ok(cores.unwrap_or(CORES))
    }

    pub(super) fn supervise(&self) -> Result<bool, String> {
        let supervise = self.read("spark.driver.supervise", "true or false", |value| {
            value.to_ascii_lowercase().parse().ok()
        })?;
        Ok(supervise.unwrap_or_default())
    }

    fn size_mib(&self, key: &str) -> Result<Option<u64>, String> {
        let expected = "a size of at least 1m and at most 1024t, such as 512m or 2g";
        self.read(key, expected, |value| {
            mib_of(value).filter(|mib| (1..=MEMORY_MIB_MAX).contains(mib))
        })
    }

    /// What is set aside for the driver: its heap, and what it needs beside that, since a worker ends what uses more.
    pub(super) fn memory_mib(&self) -> Result<u64, String> {
        let heap = self.size_mib(MEMORY)?.expect("it has a default");
        let expected = "a number of MiB, or a size such as 384m";
        let beside = self.read("spark.driver.memoryOverhead", expected, |value| {
            let mib = value.parse().ok().or_else(|| mib_of(value));
            mib.filter(|mib| *mib <= MEMORY_MIB_MAX)
        })?;
        Ok(heap + beside.unwrap_or_else(|| OVERHEAD_MIB_MIN.max(heap / OVERHEAD_DIVISOR)))
    }

    /// The master that the driver itself gets: this cluster has no executors for it.
    pub(super) fn master(&self, cores: u32) -> Result<String, String> {
        let here = |master: &&str| !master.is_empty() && !master.starts_with("spark://");
        let named = self.get(MASTER).map(str::trim);
        let master = named.or_else(|| self.get("spark.master").map(str::trim).filter(here));
        match master {
            None => Ok(format!("local[{cores}]")),
            Some(master) if master.is_empty() || master.starts_with('-') => Err(format!(
                "the property {MASTER} must be a master of Spark, such as local[4], yarn or spark://host:7077"
            )),
            Some(master) => Ok(master.to_owned()),
        }
    }

    /// Those that concern the driver and not its submission.
    pub(super) fn passed_on(&self) -> impl Iterator<Item = (&String, &String)> {
        self.0
            .iter()
            .filter(|(key, _)| !TAKEN.contains(&&***key) && !key.starts_with(OWN))
    }

    /// Checks what Spark checks and nobody here reads.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(key) = self
            .0
            .keys()
            .find(|key| key.is_empty() || key.contains('='))
        {
            return Err(format!(
                "the field sparkProperties holds {key:?}, which cannot name a property"
            ));
        }
        let unknown = |key: &&String| key.starts_with(OWN) && !OWN_ALL.contains(&&***key);
        if let Some(key) = self.0.keys().find(unknown) {
            return Err(format!(
                "the property {key} is unknown, expected spark.aloha.constraints, spark.aloha.master, \
                 spark.aloha.priority or spark.aloha.tags"
            ));
        }
        let expected =
            format!("at most {NAME_CHARS_MAX} characters, none of them a control character");
        self.read("spark.app.name", &expected, |name| {
            let fits = name.chars().count() <= NAME_CHARS_MAX && !name.contains(char::is_control);
            fits.then_some(())
        })?;
        self.read("spark.cores.max", "a number", |value| {
            value
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite())
        })?;
        self.size_mib("spark.executor.memory")?;
        Ok(())
    }
}
