//! Decides whether text is JSON as this protocol reads it, before anything is decoded from it.
//!
//! Common parsers disagree about text that RFC 8259 leaves open (a repeated member name, for instance), and two readers
//! that understand one message differently are a security hole. Such text is refused as a whole.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

/// The deepest nesting of arrays and objects.
pub const MAX_DEPTH: usize = 64;

/// Why text is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("the text is not UTF-8 after {valid_up_to} bytes")]
    NotUtf8 {
        /// The length of the valid beginning in bytes.
        valid_up_to: usize,
    },
    /// The text begins with a byte order mark.
    #[error("the text begins with a byte order mark")]
    ByteOrderMark,
    /// The text breaks a rule of JSON or of this protocol.
    #[error("the text is not valid JSON")]
    Invalid(#[source] serde_json::Error),
}

/// Checks that `bytes` are one JSON text: UTF-8 without a byte order mark, no member name twice in one object, no NUL in
/// a member name, finite numbers, at most [`MAX_DEPTH`] levels.
///
/// # Errors
///
/// The first rule broken.
pub fn check(bytes: &[u8]) -> Result<&str, JsonError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| JsonError::NotUtf8 { valid_up_to: error.valid_up_to() })?;
    if text.starts_with('\u{feff}') {
        return Err(JsonError::ByteOrderMark);
    }
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Strict { depth: 0 }.deserialize(&mut deserializer).map_err(JsonError::Invalid)?;
    deserializer.end().map_err(JsonError::Invalid)?;
    Ok(text)
}

/// Visits a value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Strict {
    depth: usize,
}

impl Strict {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nesting is deeper than {MAX_DEPTH} levels")));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        while items.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let inner = self.inner()?;
        let mut seen = HashSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if name.contains('\0') {
                return Err(A::Error::custom("a member name contains NUL"));
            }
            if seen.contains(&name) {
                return Err(A::Error::custom(format_args!("member `{name}` appears twice")));
            }
            seen.insert(name);
            members.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &[u8]) -> String {
        let error = check(text).expect_err(&String::from_utf8_lossy(text));
        match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn ordinary_json_is_accepted() {
        for text in
            ["null", " 1 ", "[]", "{}", r#"{"a":{"a":[1,-2.5e3,"\u00e9",true]}}"#, "18446744073709551616"]
        {
            check(text.as_bytes()).unwrap_or_else(|error| panic!("{text}: {error:?}"));
        }
    }

    #[test]
    fn a_member_name_twice_is_refused_at_any_depth_and_however_it_is_spelled() {
        assert!(refused(br#"{"a":1,"a":2}"#).contains("`a` appears twice"));
        assert!(refused(br#"{"p":[{"x":{"a":1,"a":1}}]}"#).contains("`a` appears twice"));
        assert!(refused(br#"{"a":1,"\u0061":2}"#).contains("`a` appears twice"));
    }

    #[test]
    fn depth_64_is_accepted_and_65_is_refused() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        check(nested(MAX_DEPTH).as_bytes()).expect("the deepest allowed");
        assert!(refused(nested(MAX_DEPTH + 1).as_bytes()).contains("deeper than 64"));
        refused("[".repeat(1 << 20).as_bytes());
        refused("{\"a\":".repeat(1 << 18).as_bytes());
    }

    #[test]
    fn text_that_is_not_json_is_refused() {
        let cases: &[&[u8]] = &[
            b"",
            b" ",
            b"nul",
            b"True",
            b"NaN",
            b"Infinity",
            b"-Infinity",
            b"1e999",
            b"-1e999",
            b"01",
            b"+1",
            b".5",
            b"1.",
            b"0x10",
            b"1 2",
            b"{} {}",
            b"{}x",
            b"[1,]",
            b"[,1]",
            b"[1",
            b"]",
            b"{",
            b"}",
            b"{\"a\"}",
            b"{\"a\":}",
            b"{\"a\":1,}",
            b"{a:1}",
            b"{'a':1}",
            b"{1:1}",
            b"{null:1}",
            b"\"",
            b"\"\\x\"",
            b"\"\\u12\"",
            b"\"\\ud800\"",
            b"\"\\udc00\"",
            b"\"\t\"",
            b"\"\x00\"",
            b"\x00",
            b"// c\n1",
            b"/* c */1",
            b"[1 2]",
            b"[1:2]",
            b"\xff",
            b"\"\xc0\x80\"",
            b"\"\xed\xa0\x80\"",
            b"\xef\xbb\xbf{}",
            b"{\"a\\u0000b\":1}",
            b"\xfe\xff\x00{",
            b"--1",
            b"1e",
            b"-",
        ];
        for case in cases {
            refused(case);
        }
    }

    #[test]
    fn utf8_and_mark_errors_are_told_apart() {
        assert_eq!(refused(b"[\"\xff\"]"), "the text is not UTF-8 after 2 bytes");
        assert_eq!(refused(b"\xef\xbb\xbf{}"), "the text begins with a byte order mark");
    }
}
