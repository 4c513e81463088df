//! Reads the members of a JSON body, or the parameters of a query, one by one, so that every value that makes no sense is
//! told at once and by name (`invalid_field`, 422). What cannot be read at all is `invalid_request` (400).
//!
//! An unknown name is an error: a caller who writes `expires_inn` learns it now and not when the link ends too early.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequest, FromRequestParts, Request};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::request::Parts;
use serde_json::{Map, Value};

use super::AppState;
use super::error::{ApiError, FieldError};

/// What a body or a query is read from.
#[derive(Debug)]
pub(crate) struct Members {
    values: Map<String, Value>,
    errors: Vec<FieldError>,
}

/// A type that a body or a query is read as. `None` goes with at least one error.
pub(crate) trait FromMembers: Sized {
    fn read(members: &mut Members) -> Option<Self>;
}

impl Members {
    pub(crate) fn of_json(bytes: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(values)) => Ok(Self {
                values,
                errors: Vec::new(),
            }),
            Ok(_) => Err(ApiError::invalid_request("the body is not a JSON object")),
            // The message has the place and never what stands there.
            Err(error) => Err(ApiError::invalid_request(format!(
                "the body is not JSON: line {} column {}",
                error.line(),
                error.column()
            ))),
        }
    }

    fn of_query(query: &str) -> Result<Self, ApiError> {
        let mut values = Map::new();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = Value::String(value.into_owned());
            if values.insert(name.clone().into_owned(), value).is_some() {
                return Err(ApiError::invalid_request(format!(
                    "the parameter `{}` stands there twice",
                    shown(&name)
                )));
            }
        }
        Ok(Self {
            values,
            errors: Vec::new(),
        })
    }

    pub(crate) fn finish<T: FromMembers>(mut self) -> Result<T, ApiError> {
        let read = T::read(&mut self);
        let unknown: Vec<_> = self.values.keys().map(|name| shown(name)).collect();
        for name in unknown {
            self.error(&name, "is not known here");
        }
        match read {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(ApiError::invalid_fields(self.errors)),
        }
    }

    /// Notes that a value makes no sense.
    pub(crate) fn error(&mut self, field: &str, message: impl Display) {
        self.errors.push(FieldError {
            field: field.to_owned(),
            message: message.to_string(),
        });
    }

    /// The value as it is; null is as good as absent.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.values.remove(name).filter(|value| !value.is_null())
    }

    /// Whether the member is there and null, which means something else than absent to a few.
    pub(crate) fn is_null(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(Value::is_null)
    }

    /// A text.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        if let Value::String(text) = self.value(name)? {
            return Some(text);
        }
        self.error(name, "is not a string");
        None
    }

    /// A text of at most `max` characters without control characters.
    pub(crate) fn short_text(&mut self, name: &str, max: usize) -> Option<String> {
        let text = self.text(name)?;
        if text.trim().is_empty() || text.chars().count() > max || text.chars().any(char::is_control) {
            self.error(
                name,
                format!("has 1 to {max} characters, none of them a control character"),
            );
            return None;
        }
        Some(text)
    }

    /// A text that is parsed.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.error(name, error);
                None
            }
        }
    }

    /// A whole number between `min` and `max`; in a query, in digits.
    pub(crate) fn integer(&mut self, name: &str, min: i64, max: i64) -> Option<i64> {
        let number = match self.value(name)? {
            Value::Number(number) => number.as_i64(),
            Value::String(digits) => digits.parse().ok(),
            _ => None,
        };
        let number = number.filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.error(name, format!("is not a whole number from {min} to {max}"));
        }
        number
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<bool> {
        if let Value::Bool(value) = self.value(name)? {
            return Some(value);
        }
        self.error(name, "is neither true nor false");
        None
    }

    /// An instant in RFC 3339 form.
    pub(crate) fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let text = self.text(name)?;
        // In a query a plus sign means a blank: put the offset's sign back.
        if let Ok(time) = DateTime::parse_from_rfc3339(&text.replace(' ', "+")) {
            return Some(time.to_utc());
        }
        self.error(name, "is not a time in RFC 3339 form, like 2026-11-20T13:35:00Z");
        None
    }

    /// A JSON object of at most `max` bytes.
    pub(crate) fn object(&mut self, name: &str, max: usize) -> Option<Value> {
        let value = self.value(name)?;
        if value.is_object() && value.to_string().len() <= max {
            return Some(value);
        }
        self.error(name, format!("is not a JSON object of at most {max} bytes"));
        None
    }

    /// Notes that `name` is missing, unless it is there or what is wrong with it was told already.
    pub(crate) fn required<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.errors.iter().any(|error| error.field == name) {
            self.error(name, "is missing");
        }
        value
    }
}

/// A name that a stranger chose, fit to be shown.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// A JSON body, read member by member.
#[derive(Debug)]
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: FromMembers> FromRequest<AppState> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|_| ApiError::invalid_request("the body could not be read"))?;
        Members::of_json(&bytes)?.finish().map(Self)
    }
}

/// A query, read parameter by parameter.
#[derive(Debug)]
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<T: FromMembers> FromRequestParts<AppState> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        Members::of_query(parts.uri.query().unwrap_or_default())?
            .finish()
            .map(Self)
    }
}

/// The one parameter of a path, parsed; what does not parse is not there.
#[derive(Debug)]
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: FromStr<Err: Into<ApiError>> + Send> FromRequestParts<AppState> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let text = axum::extract::Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::not_found())?;
        text.0.parse().map(Self).map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Sample {
        name: String,
        count: Option<i64>,
        at: Option<DateTime<Utc>>,
    }

    impl FromMembers for Sample {
        fn read(members: &mut Members) -> Option<Self> {
            let name = members.short_text("name", 5);
            let name = members.required("name", name);
            Some(Self {
                count: members.integer("count", 1, 9),
                at: members.time("at"),
                name: name?,
            })
        }
    }

    fn fields(result: Result<Sample, ApiError>) -> Vec<String> {
        result
            .unwrap_err()
            .errors
            .into_iter()
            .map(|error| error.field)
            .collect()
    }

    #[test]
    fn every_wrong_value_is_told_at_once_and_by_name() {
        let body = br#"{"name": "too long", "count": 10, "at": "yesterday", "naem": 1}"#;
        assert_eq!(
            fields(Members::of_json(body).unwrap().finish()),
            ["name", "count", "at", "naem"]
        );
        assert_eq!(
            fields(Members::of_json(br#"{"name": null}"#).unwrap().finish()),
            ["name"]
        );
    }

    #[test]
    fn a_body_that_is_no_object_is_an_invalid_request_and_is_not_quoted() {
        for body in [
            &b"{"[..],
            b"[]",
            b"\"mck_canary\"",
            b"{\"mck_canary\": }",
            b"\xff",
        ] {
            let error = Members::of_json(body).unwrap_err();
            assert_eq!(error.status(), 400);
            assert!(!error.detail.contains("canary"), "{}", error.detail);
        }
    }

    #[test]
    fn a_query_is_read_by_the_same_rules() {
        let read = Members::of_query("name=a%20b&count=3&at=2026-11-20T10:00:00+03:00")
            .unwrap()
            .finish::<Sample>();
        let at = "2026-11-20T07:00:00Z".parse().unwrap();
        assert_eq!(
            read.unwrap(),
            Sample {
                name: "a b".to_owned(),
                count: Some(3),
                at: Some(at)
            }
        );
        assert_eq!(Members::of_query("name=a&name=b").unwrap_err().status(), 400);
    }
}
