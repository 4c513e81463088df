//! Reading request bodies: one level of a JSON object whose values stay as they were written.
//!
//! Values are kept raw so that each wrong field gets its own error code, and so that what is only echoed (`metadata`,
//! `additional_info`) comes back to the last digit: `1.10` stays `1.10`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A value has another JSON type than the field needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WrongType;

/// The members of a JSON object; a `null` counts as absent, and the last of two equal names wins.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(HashMap<Cow<'a, str>, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Reads a JSON object; anything else is a [`WrongType`].
    pub(super) fn parse(body: &'a [u8]) -> Result<Self, WrongType> {
        serde_json::from_slice(body).map_err(|_| WrongType)
    }

    /// Like [`Fields::parse`], where an empty body stands for an empty object.
    pub(super) fn parse_optional(body: &'a [u8]) -> Result<Self, WrongType> {
        if body.iter().all(u8::is_ascii_whitespace) {
            Ok(Self::default())
        } else {
            Self::parse(body)
        }
    }

    /// The value as it was written, unless it is absent or null.
    pub(super) fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().filter(|value| value.get() != "null")
    }

    /// Whether the member is there, null included.
    pub(super) fn names(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The names of all members, in no order.
    pub(super) fn all_names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(AsRef::as_ref)
    }

    fn read<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, WrongType> {
        self.raw(name)
            .map(|value| serde_json::from_str(value.get()))
            .transpose()
            .map_err(|_| WrongType)
    }

    /// A string.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, WrongType> {
        self.read(name)
    }

    /// A string, or a number as it was written: ids and documents come as either.
    pub(super) fn text_or_number(&self, name: &str) -> Result<Option<String>, WrongType> {
        match self.raw(name) {
            Some(value) if value.get().starts_with(|c: char| c.is_ascii_digit() || c == '-') => {
                Ok(Some(String::from(value.get())))
            }
            _ => self.text(name),
        }
    }

    /// A whole number.
    pub(super) fn integer(&self, name: &str) -> Result<Option<i64>, WrongType> {
        self.read(name)
    }

    /// A whole number, also when written as a string of digits (HTML forms of the documents send it so).
    pub(super) fn integer_or_text(&self, name: &str) -> Result<Option<i64>, WrongType> {
        self.text_or_number(name)?
            .map(|text| text.parse().map_err(|_| WrongType))
            .transpose()
    }

    /// True or false.
    pub(super) fn boolean(&self, name: &str) -> Result<Option<bool>, WrongType> {
        self.read(name)
    }

    /// An amount of money.
    pub(super) fn amount(&self, name: &str) -> Result<Option<Amount>, WrongType> {
        self.read(name)
    }

    /// An object.
    pub(super) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, WrongType> {
        self.read(name)
    }

    /// An object that is only echoed.
    pub(super) fn echo(&self, name: &str) -> Result<Option<Box<RawValue>>, WrongType> {
        match self.raw(name) {
            None => Ok(None),
            Some(value) if value.get().starts_with('{') => Ok(Some(value.to_owned())),
            Some(_) => Err(WrongType),
        }
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = HashMap::with_capacity(16);
                while let Some((name, value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.insert(name.0, value);
                }
                Ok(Fields(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A member's name, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// Money in hundredths of the currency's unit. JSON numbers on the wire: `100` or `100.5`, never cents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Amount(pub(super) i64);

impl Amount {
    /// Whether the amount has no more digits after the point than the currency.
    pub(super) fn fits(self, decimals: u32) -> bool {
        decimals >= 2 || self.0 % 100 == 0
    }

    /// This share of the amount, rounded down.
    pub(super) fn share(self, part: i64, whole: i64) -> Self {
        if whole == 0 {
            Self(0)
        } else {
            Self(self.0 * part / whole)
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 100 == 0 {
            serializer.serialize_i64(self.0 / 100)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "amounts are far below 2^53 hundredths")]
            serializer.serialize_f64(self.0 as f64 / 100.0)
        }
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hundredths = f64::deserialize(deserializer)? * 100.0;
        if hundredths.abs() > 1e15 || (hundredths - hundredths.round()).abs() > 1e-4 {
            return Err(D::Error::custom(
                "an amount has at most two digits after the point",
            ));
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "checked above to be whole and small"
        )]
        Ok(Self(hundredths.round() as i64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_is_read_by_its_own_type_and_null_is_absent() {
        let fields =
            Fields::parse(br#"{"a":1,"b":"2","c":null,"d":{"x":1.10},"e":true,"\u0066":10.55}"#).unwrap();
        assert_eq!(fields.integer("a"), Ok(Some(1)));
        assert_eq!(fields.integer("b"), Err(WrongType));
        assert_eq!(fields.integer_or_text("b"), Ok(Some(2)));
        assert_eq!(fields.text("c"), Ok(None));
        assert!(fields.names("c"));
        assert_eq!(fields.echo("d").unwrap().unwrap().get(), r#"{"x":1.10}"#);
        assert_eq!(fields.boolean("e"), Ok(Some(true)));
        assert_eq!(fields.amount("f"), Ok(Some(Amount(1055))));
        assert_eq!(fields.text_or_number("a"), Ok(Some(String::from("1"))));
    }

    #[test]
    fn an_amount_is_written_as_a_person_would() {
        let written = |amount| serde_json::to_string(&Amount(amount)).unwrap();
        assert_eq!(written(10_000), "100");
        assert_eq!(written(10_050), "100.5");
        assert_eq!(written(1), "0.01");
        assert!(serde_json::from_str::<Amount>("1.005").is_err());
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        assert_eq!(Fields::parse(b"[1]").err(), Some(WrongType));
        assert_eq!(Fields::parse(b"").err(), Some(WrongType));
        assert!(Fields::parse_optional(b" ").is_ok());
    }
}
