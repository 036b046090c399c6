//! Parses JSON into types, more strictly than serde_json alone. For a type with named fields the
//! document must have an object (serde would also accept a list, by position), and an error says
//! where it is.
//!
//! One wrapper around the parser does both; it costs only a pointer per level.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt::{self, Write};

use serde::de::value::CowStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};

/// An error of the parser, and the JSON path of the value that it is about; the path is empty for
/// the whole document.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) path: String,
    pub(super) error: serde_json::Error,
}

/// Parses a whole document.
pub(super) fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Fault> {
    let place = RefCell::new(None);
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let strict = Strict {
        inner: &mut json,
        at: JsonPath {
            place: &place,
            up: None,
            step: JsonStep::Top,
        },
    };
    let parsed = T::deserialize(strict);
    let parsed = parsed.and_then(|value| json.end().map(|()| value));
    parsed.map_err(|error| Fault {
        path: place.take().unwrap_or_default(),
        error,
    })
}

/// The position of the parser in the document.
#[derive(Clone, Copy)]
struct JsonPath<'a> {
    /// The path of the innermost value that had an error.
    place: &'a RefCell<Option<String>>,
    up: Option<&'a JsonPath<'a>>,
    step: JsonStep<'a>,
}

#[derive(Clone, Copy)]
enum JsonStep<'a> {
    Top,
    Key(&'a str),
    Index(usize),
}

impl JsonPath<'_> {
    fn note<T, E>(&self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            self.place
                .borrow_mut()
                .get_or_insert_with(|| self.to_string());
        }
        result
    }
}

impl fmt::Display for JsonPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(up) = self.up else { return Ok(()) };
        up.fmt(f)?;
        match self.step {
            JsonStep::Top => Ok(()),
            JsonStep::Index(index) => write!(f, "[{index}]"),
            JsonStep::Key(key) => {
                if up.up.is_some() {
                    f.write_char('.')?;
                }
                f.write_str(key)
            }
        }
    }
}

/// A parser, a visitor, a list or an object, with its position.
struct Strict<'a, T> {
    inner: T,
    at: JsonPath<'a>,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(Strict {
            inner: visitor,
            at: self.at,
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_option(Strict {
            inner: visitor,
            at: self.at,
        })
    }

    /// The one difference from serde: an object is required, and a list of its values refused.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_map(Strict {
            inner: visitor,
            at: self.at,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_newtype_struct(
            name,
            Strict {
                inner: visitor,
                at: self.at,
            },
        )
    }

    /// An unknown property may have any value.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_ignored_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier
    }
}

/// Defines the `visit_*` functions for values without members.
macro_rules! visit {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool,
        visit_i64: i64,
        visit_u64: u64,
        visit_f64: f64,
        visit_str: &str,
        visit_borrowed_str: &'de str,
        visit_string: String,
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, json: D) -> Result<V::Value, D::Error> {
        self.inner.visit_some(Strict {
            inner: json,
            at: self.at,
        })
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, json: D) -> Result<V::Value, D::Error> {
        self.inner.visit_newtype_struct(Strict {
            inner: json,
            at: self.at,
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<V::Value, A::Error> {
        let at = self.at;
        self.inner.visit_seq(Members {
            inner: list,
            at,
            key: None,
            count: 0,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<V::Value, A::Error> {
        let at = self.at;
        self.inner.visit_map(Members {
            inner: object,
            at,
            key: None,
            count: 0,
        })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.inner.visit_enum(variant)
    }
}

/// A list or an object, positioned at one of its members.
struct Members<'a, 'de, A> {
    inner: A,
    at: JsonPath<'a>,
    key: Option<Cow<'de, str>>,
    count: usize,
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Members<'_, 'de, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let at = JsonPath {
            up: Some(&self.at),
            step: JsonStep::Index(self.count),
            ..self.at
        };
        self.count += 1;
        at.note(self.inner.next_element_seed(Strict { inner: seed, at }))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, 'de, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.key = self.at.note(self.inner.next_key_seed(Key))?;
        let key = self.key.clone().map(CowStrDeserializer::new);
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let key = self.key.as_deref().unwrap_or_default();
        let at = JsonPath {
            up: Some(&self.at),
            step: JsonStep::Key(key),
            ..self.at
        };
        at.note(self.inner.next_value_seed(Strict { inner: seed, at }))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<S::Value, D::Error> {
        self.inner.deserialize(Strict {
            inner: json,
            at: self.at,
        })
    }
}

/// Deserializes the name of a member, borrowed from the document unless it has escapes.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Spec;

    use super::*;

    fn fault(text: &str) -> String {
        match parse::<Spec>(text.as_bytes()) {
            Ok(_) => "none".to_string(),
            Err(Fault { path, error }) => format!("{path}: {error}"),
        }
    }

    #[test]
    fn a_list_is_no_object() {
        for (text, path) in [
            (r#"[]"#, ""),
            (r#"{"hooks":[]}"#, "hooks"),
            (r#"{"process":{"user":[0,0]}}"#, "process.user"),
            (
                r#"{"linux":{"resources":{"cpu":[1]}}}"#,
                "linux.resources.cpu",
            ),
            (r#"{"mounts":[{"destination":"/a"},["/b"]]}"#, "mounts[1]"),
            (
                r#"{"linux":{"timeOffsets":{"a b":[]}}}"#,
                "linux.timeOffsets.a b",
            ),
        ] {
            let fault = fault(text);
            assert!(
                fault.starts_with(&format!("{path}: invalid type: sequence")),
                "{fault}"
            );
        }
    }

    #[test]
    fn an_error_stands_at_the_innermost_value() {
        for (text, path) in [
            (r#"{"process":{"args":["a",1]}}"#, "process.args[1]"),
            (
                r#"{"process":{"rlimits":[{"type":"X"}]}}"#,
                "process.rlimits[0].type",
            ),
            (r#"{"annotations":{"\u0061":1}}"#, "annotations.a"),
            (
                r#"{"linux":{"namespaces":[{"type":"pid"}"#,
                "linux.namespaces[1]",
            ),
            (r#"{"ociVersion":"1.0.0"}}"#, ""),
        ] {
            let fault = fault(text);
            assert!(fault.starts_with(&format!("{path}: ")), "{fault}");
        }
    }

    #[test]
    fn what_is_unknown_may_be_anything() {
        let text = r#"{"vendor":[[{}],{"a":[[1.5e3]]}],"linux":{"new":[],"seccomp":null}}"#;
        assert_eq!(fault(text), "none");
    }
}
