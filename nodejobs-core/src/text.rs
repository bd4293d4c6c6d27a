//! Text as the operating system has it: bytes that are usually, but not always, UTF-8.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};

/// A command argument, environment value or path, kept byte for byte.
///
/// JSON shows it as a string where it is UTF-8, and as `{"base64": "…"}` where it is not, so nothing is lost on
/// the way through the socket or the store.
///
/// ```
/// use nodejobs_core::RawText;
///
/// let path = RawText::from("/tmp/ü");
/// assert_eq!(serde_json::to_string(&path)?, "\"/tmp/ü\"");
/// let odd = RawText::from(vec![0xff, 0xfe]);
/// assert_eq!(serde_json::to_string(&odd)?, r#"{"base64":"//4="}"#);
/// assert_eq!(serde_json::from_str::<RawText>(r#"{"base64":"//4="}"#)?, odd);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RawText(Vec<u8>);

impl RawText {
    /// The bytes, as they are.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes, taken out.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The text for people: invalid UTF-8 is replaced by U+FFFD.
    pub fn to_lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// Whether there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it contains a NUL byte, which no argument, variable or path may.
    pub fn has_nul(&self) -> bool {
        self.0.contains(&0)
    }
}

impl From<&str> for RawText {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for RawText {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<Vec<u8>> for RawText {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_lossy(), f)
    }
}

impl fmt::Display for RawText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_lossy())
    }
}

impl Serialize for RawText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) if !serializer.is_human_readable() => serializer.serialize_bytes(&self.0),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &BASE64.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for RawText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RawTextVisitor;

        impl<'de> Visitor<'de> for RawTextVisitor {
            type Value = RawText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or {\"base64\": \"…\"}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RawText, E> {
                Ok(RawText::from(text))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<RawText, E> {
                Ok(RawText::from(text))
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<RawText, E> {
                Ok(RawText::from(bytes.to_vec()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawText, A::Error> {
                let Some((key, value)) = map.next_entry::<String, String>()? else {
                    return Err(de::Error::missing_field("base64"));
                };
                if key != "base64" {
                    return Err(de::Error::unknown_field(&key, &["base64"]));
                }
                BASE64.decode(value).map(RawText).map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(RawTextVisitor)
    }
}
