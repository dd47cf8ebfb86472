//! JSON laid out as Spark's server does it.
//!
//! There are clients that read it line by line: Airflow takes the state from what follows ` : ` in the line with
//! `driverState`.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Writes a value as Spark's server would: one field a line, ` : ` behind its name, lists in one line.
pub(super) fn like_spark<T: Serialize>(value: &T) -> serde_json::Result<Vec<u8>> {
    let mut text = Vec::new();
    let layout = Layout::default();
    value.serialize(&mut Serializer::with_formatter(&mut text, layout))?;
    Ok(text)
}

#[derive(Debug, Default)]
struct Layout {
    depth: usize,
    /// Whether the innermost object has a field.
    has_field: bool,
}

impl Layout {
    fn line<W: ?Sized + io::Write>(&self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\n")?;
        (0..self.depth).try_for_each(|_| out.write_all(b"  "))
    }
}

impl Formatter for Layout {
    fn begin_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.has_field = false;
        out.write_all(b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if self.has_field {
            self.line(out)?;
        } else {
            out.write_all(b" ")?;
        }
        out.write_all(b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if !first {
            out.write_all(b",")?;
        }
        self.line(out)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b" : ")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_field = true;
        Ok(())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b" ]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b" " } else { b", " })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn text(value: &Value) -> String {
        String::from_utf8(like_spark(value).expect("JSON")).expect("UTF-8")
    }

    #[test]
    fn it_looks_as_sparks_server_writes_it() {
        let status = json!({"action": "SubmissionStatusResponse", "driverState": "RUNNING", "success": true,
                            "unknownFields": ["potato", "tomato"]});
        let expected = r#"{
  "action" : "SubmissionStatusResponse",
  "driverState" : "RUNNING",
  "success" : true,
  "unknownFields" : [ "potato", "tomato" ]
}"#;
        assert_eq!(text(&status), expected);
    }

    #[test]
    fn objects_inside_are_indented() {
        let nested = json!({"a": [{"b": 1, "c": {}}, {"d": []}], "e": {"f": null}});
        let expected = r#"{
  "a" : [ {
    "b" : 1,
    "c" : { }
  }, {
    "d" : [ ]
  } ],
  "e" : {
    "f" : null
  }
}"#;
        assert_eq!(text(&nested), expected);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_reads_back(keys in proptest::collection::vec(".{0,8}", 0..6), words in proptest::collection::vec(".{0,8}", 0..4)) {
            let inner = json!({"words": words, "none": [], "empty": {}});
            let value: Value = keys.into_iter().map(|key| (key, inner.clone())).collect();
            let back: Value = serde_json::from_slice(&like_spark(&value).expect("JSON")).expect("JSON");
            proptest::prop_assert_eq!(back, value);
        }
    }
}
