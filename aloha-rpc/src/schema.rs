//! What a message type looks like from outside: the name and variants of its enum, read without a macro.
//!
//! `type_name` and `TypeId` change between builds; what a type's `Deserialize` asks for does not. A
//! deserializer that writes down the first question, and then fails, learns the name and the variants.

use std::fmt;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The outside of a message type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    /// As it travels: `Hello{SayHi,SayBye}`.
    pub(crate) text: String,
    variants: Option<&'static [&'static str]>,
}

impl Schema {
    /// Whether messages of this type can be spoken with an end whose type looks like that.
    ///
    /// Equal ends agree on the order and the names of the variants, which is what an encoded enum rests on. An enum
    /// that grew by appended variants agrees with what it was before: the one end may know variants that the other
    /// does not, and a message of such a variant fails alone. Fields may differ in any case, and then decoding fails.
    pub(crate) fn speaks(&self, other: &str) -> bool {
        if self.text == other {
            return true;
        }
        let is_enum = self.variants.is_some();
        let parts = parts(&self.text).zip(parts(other));
        parts.is_some_and(|((name, ours), (others, theirs))| {
            is_enum && name == others && ours.zip(theirs).all(|(ours, theirs)| ours == theirs)
        })
    }

    /// Why a message that cannot be decoded may be one of a newer enum, if its variant is none of ours.
    pub(crate) fn on_unknown(&self, variant: u32) -> Option<String> {
        let known = self.variants?.len();
        (variant as usize >= known).then(|| {
            format!(
                "variant {variant} of {} is not known here, where there are {known}: this end may be of an earlier \
                 version than the sender",
                self.text.split('{').next().unwrap_or_default()
            )
        })
    }
}

/// The name of a schema, and its variants or fields.
fn parts(text: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let (name, rest) = text.split_once('{')?;
    Some((name, rest.strip_suffix('}')?.split(',')))
}

/// What a message type looks like.
pub(crate) fn schema_of<M: DeserializeOwned>() -> Schema {
    match M::deserialize(Recorder) {
        Err(Recorded(schema)) => schema,
        Ok(_) => Schema {
            text: "()".to_owned(),
            variants: None,
        },
    }
}

struct Recorder;

#[derive(Debug)]
struct Recorded(Schema);

impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl std::error::Error for Recorded {}

impl de::Error for Recorded {
    fn custom<T: fmt::Display>(message: T) -> Self {
        plain(format!("?{message}"))
    }
}

fn plain(text: String) -> Recorded {
    Recorded(Schema {
        text,
        variants: None,
    })
}

fn named(name: &str, parts: &[&str]) -> Recorded {
    plain(format!("{name}{{{}}}", parts.join(",")))
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
        Err(plain(Expected(visitor).to_string()))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Recorded> {
        let Recorded(schema) = named(name, variants);
        Err(Recorded(Schema {
            variants: Some(variants),
            ..schema
        }))
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

    /// What [`Hello`] grew to.
    mod grown {
        use super::*;

        #[derive(Serialize, Deserialize)]
        pub(super) enum Hello {
            SayHi(String),
            SayBye { name: String },
            Nod,
        }
    }

    /// Another type of the same name.
    mod reordered {
        use super::*;

        #[derive(Serialize, Deserialize)]
        pub(super) enum Hello {
            SayBye { name: String },
            SayHi(String),
            Nod,
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Point {
        x: u32,
    }

    fn text_of<M: DeserializeOwned>() -> String {
        schema_of::<M>().text
    }

    #[test]
    fn an_enum_shows_its_name_and_variants() {
        assert_eq!(text_of::<Hello>(), "Hello{SayHi,SayBye}");
        drop((
            Hello::SayHi(String::new()),
            Hello::SayBye {
                name: String::new(),
            },
        ));
    }

    #[test]
    fn other_types_are_told_apart() {
        assert_eq!(text_of::<String>(), "a string");
        assert_ne!(schema_of::<u64>(), schema_of::<String>());
        assert_eq!(text_of::<()>(), "unit");
        assert!(!schema_of::<u64>().speaks("a string"));
    }

    #[test]
    fn an_enum_that_grew_speaks_with_what_it_was_and_the_other_way_round() {
        let (before, after) = (schema_of::<Hello>(), schema_of::<grown::Hello>());
        assert!(before.speaks(&after.text) && after.speaks(&before.text));
        assert!(before.speaks(&before.text));
    }

    #[test]
    fn other_orders_other_names_and_structs_that_grew_do_not_agree() {
        let (before, after) = (schema_of::<Hello>(), schema_of::<reordered::Hello>());
        assert!(!before.speaks(&after.text) && !after.speaks(&before.text));
        assert!(!before.speaks("Helloo{SayHi,SayBye}"));
        assert!(!before.speaks("Hello{SayHi,SayByeBye}"));
        assert!(!before.speaks("Hello{SayHi,SayBye"));
        assert!(!before.speaks("Hello"));
        let point = schema_of::<Point>();
        assert_eq!(point.text, "Point{x}");
        assert!(point.speaks("Point{x}") && !point.speaks("Point{x,y}"));
    }

    #[test]
    fn a_variant_beyond_the_last_is_explained() {
        let schema = schema_of::<Hello>();
        assert_eq!(schema.on_unknown(1), None);
        let why = schema.on_unknown(2).expect("there are two");
        assert!(
            why.starts_with("variant 2 of Hello is not known here"),
            "{why}"
        );
        assert_eq!(schema_of::<Point>().on_unknown(9), None);
    }
}
