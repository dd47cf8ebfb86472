//! The query of a request, read strictly: a parameter that is misspelt, repeated or out of range is an error, for
//! ignored it would answer another question than was asked.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use axum::extract::Query;
use axum::http::Uri;

use crate::rest::error::RestError;

/// The parameters of a request.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a query that may hold the parameters `known`, and no others.
    pub(super) fn read(uri: &Uri, known: &[&str]) -> Result<Self, RestError> {
        let Query(parameters) =
            Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|error| {
                malformed(format!("the query cannot be read: {}", error.body_text()))
            })?;
        match parameters
            .iter()
            .find(|(name, _)| !known.contains(&&**name))
        {
            Some((name, _)) => Err(malformed(format!(
                "unknown parameter {name:?}, expected any of {}",
                known.join(", ")
            ))),
            None => Ok(Self(parameters)),
        }
    }

    /// A parameter that may be repeated.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let values = self.0.iter().filter(move |(given, _)| given == name);
        values.map(|(_, value)| value.as_str())
    }

    /// A parameter that may not.
    pub(super) fn one(&self, name: &str) -> Result<Option<&str>, RestError> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            Some(_) => Err(malformed(format!("the parameter {name} is repeated"))),
            None => Ok(first),
        }
    }

    /// A parameter as what it stands for; `expected` says what that is.
    pub(super) fn parsed<T: FromStr>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, RestError> {
        let parse = |text: &str| text.parse().map_err(|_| wrong(name, text, expected));
        self.one(name)?.map(parse).transpose()
    }

    /// A parameter as a whole number within a range.
    pub(super) fn number<T>(
        &self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> Result<Option<T>, RestError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match self.parsed(name, &expected)? {
            Some(number) if !range.contains(&number) => {
                Err(wrong(name, &number.to_string(), &expected))
            }
            number => Ok(number),
        }
    }
}

/// The error for a parameter that is something else than `expected`.
pub(super) fn wrong(name: &str, found: &str, expected: &str) -> RestError {
    malformed(format!(
        "the parameter {name} is {found:?}, expected {expected}"
    ))
}

fn malformed(text: String) -> RestError {
    RestError::Malformed(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Parameters, String> {
        let uri: Uri = format!("/v1/x?{query}").parse().expect("a URI");
        Parameters::read(&uri, &["state", "limit"]).map_err(|error| error.to_string())
    }

    #[test]
    fn a_parameter_is_found_by_its_name_and_parsed() {
        let parameters = read("state=A&limit=7&state=B%20C").expect("well formed");
        assert_eq!(parameters.all("state").collect::<Vec<_>>(), ["A", "B C"]);
        let limit = parameters.parsed::<u32>("limit", "a number");
        assert_eq!(limit.expect("one"), Some(7));
        let none = read("").expect("well formed");
        assert_eq!(none.one("limit").expect("none"), None);
    }

    #[test]
    fn what_is_unknown_repeated_or_of_another_kind_is_named() {
        assert_eq!(
            read("limits=1").expect_err("unknown"),
            r#"unknown parameter "limits", expected any of state, limit"#
        );
        let parsed = |query: &str| {
            let parameters = read(query).expect("known");
            let limit = parameters.number("limit", 1..=9);
            limit.expect_err("wrong").to_string()
        };
        assert_eq!(parsed("limit=1&limit=1"), "the parameter limit is repeated");
        for limit in ["-1", "0", "10", "", "x"] {
            let expected =
                format!("the parameter limit is {limit:?}, expected a whole number from 1 to 9");
            assert_eq!(parsed(&format!("limit={limit}")), expected);
        }
    }
}
