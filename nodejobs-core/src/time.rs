//! Two clocks: wall time for people, boot time for measuring. The caller reads them; core only carries them.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Wall time in milliseconds since the Unix epoch, shown as RFC 3339 in UTC with milliseconds.
///
/// ```
/// use nodejobs_core::Timestamp;
///
/// let time = Timestamp::from_millis(1_784_000_000_123);
/// assert_eq!(time.to_string(), "2026-07-14T03:33:20.123Z");
/// assert_eq!("2026-07-14T03:33:20.123Z".parse(), Ok(time));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// A text that is not an RFC 3339 time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not an RFC 3339 time such as 2026-07-14T03:33:20.123Z")]
pub struct TimestampError(String);

impl Timestamp {
    /// From milliseconds since the Unix epoch; what RFC 3339 cannot write (beyond year 9999) is brought to its bounds.
    pub fn from_millis(millis: i64) -> Self {
        // In whole seconds: jiff refuses the last 999 of its milliseconds.
        Self(millis.clamp(jiff::Timestamp::MIN.as_second() * 1000, jiff::Timestamp::MAX.as_second() * 1000))
    }

    /// Milliseconds since the Unix epoch.
    pub fn as_millis(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time:.3}"),
            // `from_millis` keeps the value inside jiff's range, so this is not reached.
            Err(_) => write!(f, "@{}ms", self.0),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let time: jiff::Timestamp = text.parse().map_err(|_| TimestampError(text.to_owned()))?;
        Ok(Self::from_millis(time.as_millisecond()))
    }
}

/// Text where people may read it, a number elsewhere.
impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            serializer.serialize_i64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return i64::deserialize(deserializer).map(Timestamp::from_millis);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Milliseconds since the machine started, suspended time included (`CLOCK_BOOTTIME`). Never set back by anybody, and
/// comparable only within one boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct BootTime(pub u64);

impl BootTime {
    /// Milliseconds from `earlier` to this instant, zero if `earlier` is later.
    pub fn millis_since(self, earlier: BootTime) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// This instant plus so many milliseconds.
    #[must_use]
    pub fn plus_millis(self, millis: u64) -> BootTime {
        BootTime(self.0.saturating_add(millis))
    }
}

/// One instant on both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Moment {
    /// For people, `--at` and cron.
    pub wall: Timestamp,
    /// For timeouts, backoff and run times.
    pub boot: BootTime,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_time_survive_their_text() {
        for millis in [i64::MIN, -1, 0, i64::MAX] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(time.to_string().parse(), Ok(time), "{time}");
        }
    }
}
