//! What a message type looks like from outside: the name and variants of its enum, read without a macro.
//!
//! `type_name` and `TypeId` change between builds; what a type's `Deserialize` asks for does not. A
//! deserializer that writes down the first question, and then fails, learns the name and the variants.

use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The outside of a message type, as text: `Hello{SayHi,SayBye}`.
///
/// Two ends whose schemas are equal agree on the order and the names of the variants, which is what
/// an encoded enum rests on; fields may still differ, and then decoding fails.
pub(crate) fn schema_of<M: DeserializeOwned>() -> String {
    match M::deserialize(Recorder) {
        Err(Recorded(schema)) => schema,
        Ok(_) => "()".to_owned(),
    }
}

struct Recorder;

#[derive(Debug)]
struct Recorded(String);

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Recorded {}

impl de::Error for Recorded {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(format!("?{message}"))
    }
}

fn named(name: &str, parts: &[&str]) -> Recorded {
    Recorded(format!("{name}{{{}}}", parts.join(",")))
}

impl<'de> Deserializer<'de> for Recorder {
    type Error = Recorded;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Recorded> {
        struct Expected<V>(V);
        impl<'de, V: Visitor<'de>> fmt::Display for Expected<V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.expecting(f)
            }
        }
        Err(Recorded(Expected(visitor).to_string()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Recorded> {
        Err(named(name, variants))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Recorded> {
        Err(named(name, fields))
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _visitor: V,
    ) -> Result<V::Value, Recorded> {
        Err(named(name, &[]))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _visitor: V,
    ) -> Result<V::Value, Recorded> {
        Err(named(name, &["0"]))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        _visitor: V,
    ) -> Result<V::Value, Recorded> {
        Err(named(name, &[&len.to_string()]))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit seq
        tuple map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Serialize, Deserialize)]
    enum Hello {
        SayHi(String),
        SayBye { name: String },
    }

    #[test]
    fn an_enum_shows_its_name_and_variants() {
        assert_eq!(schema_of::<Hello>(), "Hello{SayHi,SayBye}");
        drop((
            Hello::SayHi(String::new()),
            Hello::SayBye {
                name: String::new(),
            },
        ));
    }

    #[test]
    fn other_types_are_told_apart() {
        assert_eq!(schema_of::<String>(), "a string");
        assert_ne!(schema_of::<u64>(), schema_of::<String>());
        assert_eq!(schema_of::<()>(), "unit");
    }
}
