//! Signals by number and by name, as Linux numbers them on every common machine.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A signal that can be sent to a job: 1 to 31, those that have names.
///
/// ```
/// use nodejobs_core::signal::Signal;
///
/// assert_eq!("SIGTERM".parse(), Ok(Signal::TERM));
/// assert_eq!("term".parse(), Ok(Signal::TERM));
/// assert_eq!("15".parse(), Ok(Signal::TERM));
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// A text or number that names no signal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a signal; use a name such as TERM or a number from 1 to 31")]
pub struct UnknownSignal(String);

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Signal {
    /// What Ctrl-C at a terminal sends.
    pub const INT: Signal = Signal(2);
    /// Asks a process to end.
    pub const TERM: Signal = Signal(15);
    /// Ends a process without asking.
    pub const KILL: Signal = Signal(9);
    /// Halts a process.
    pub const STOP: Signal = Signal(19);
    /// Lets a halted process go on.
    pub const CONT: Signal = Signal(18);

    /// From a number, 1 to 31.
    ///
    /// # Errors
    /// [`UnknownSignal`] for any other number.
    pub fn from_number(number: i32) -> Result<Self, UnknownSignal> {
        match u8::try_from(number) {
            Ok(small @ 1..=31) => Ok(Self(small)),
            _ => Err(UnknownSignal(number.to_string())),
        }
    }

    /// The number, 1 to 31.
    pub fn number(self) -> i32 {
        i32::from(self.0)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The number is 1 to 31, and so many names there are.
        write!(f, "SIG{}", NAMES[usize::from(self.0) - 1])
    }
}

impl FromStr for Signal {
    type Err = UnknownSignal;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownSignal(text.to_owned());
        if let Ok(number) = text.parse::<i32>() {
            return Self::from_number(number).map_err(|_| unknown());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let index = NAMES.iter().position(|known| *known == name).ok_or_else(unknown)?;
        u8::try_from(index + 1).map(Self).map_err(|_| unknown())
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_number(i32::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_prints_as_something_and_named_ones_parse_back() {
        for number in 1..=31 {
            let signal = Signal::from_number(number).expect("1 to 31 are signals");
            assert_eq!(signal.number(), number);
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
        for bad in ["", "0", "32", "65", "-9", "SIG", "TERMINATE"] {
            assert!(bad.parse::<Signal>().is_err(), "{bad:?} was accepted");
        }
    }
}
