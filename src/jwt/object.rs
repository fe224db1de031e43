//! JSON objects of which each member is there once.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

/// The most members of an object.
const MOST: usize = 256;

/// The members of an object. Two parties may read a repeated one differently, so such an object is
/// none (RFC 7515, section 4; RFC 7519, section 4).
#[derive(Debug, Default)]
pub(super) struct Object(BTreeMap<String, Value>);

impl Object {
    pub(super) fn parse(octets: &[u8]) -> Option<Self> {
        serde_json::from_slice(octets).ok()
    }

    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members).map(Self)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = BTreeMap<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if members.len() >= MOST || members.insert(name, value).is_some() {
                return Err(A::Error::custom("too many members, or one of them twice"));
            }
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_there_once() {
        let object = Object::parse(br#"{ "a": 1, "b": { "c": [] } }"#).expect("an object");
        assert_eq!(object.get("a"), Some(&Value::from(1)));
        for other in [
            "",
            "[]",
            "1",
            "{",
            r#"{"a":1}{}"#,
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert!(Object::parse(other.as_bytes()).is_none(), "{other}");
        }
        let many: Vec<_> = (0..=MOST).map(|number| format!("\"{number}\":0")).collect();
        assert!(Object::parse(format!("{{{}}}", many.join(",")).as_bytes()).is_none());
    }
}
