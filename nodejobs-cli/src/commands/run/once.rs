//! The options of `run` for work that is to be done once: tried again until it succeeds, and not submitted twice.

use std::time::Duration;

use clap::Args;
use nodejobs::spec::{JobSpec, Restart, Retry, Unique};
use nodejobs::units::parse_duration;

use super::options::millis;

const AFTER: &str = "After other jobs, and once";

#[derive(Args, Debug)]
pub(crate) struct OnceOptions {
    /// Do not submit it while a job of this key lives: its id is the answer. The key is the job's label `unique`
    #[arg(long, value_name = "KEY", help_heading = AFTER)]
    unique: Option<String>,
    /// Let also an ended job of the key be the answer, if it was submitted within this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "unique", help_heading = AFTER)]
    window: Option<Duration>,
    /// Try it again at most so often when it has failed by itself; not if it could not be executed, or was stopped
    #[arg(long, value_name = "N", conflicts_with = "restart", allow_negative_numbers = true, help_heading = AFTER)]
    retries: Option<u32>,
    /// Try it again so long after its first failure, twice as long after the next one, and so on up to MAX
    /// [default: 1s..5m]
    #[arg(long, value_name = "DURATION[..MAX]", value_parser = backoff, requires = "retries", help_heading = AFTER)]
    backoff: Option<(Duration, Option<Duration>)>,
    /// Try it again also when it was lost because the machine restarted
    #[arg(long, requires = "retries", help_heading = AFTER)]
    retry_on_reboot: bool,
    /// Give it up after so many attempts in a row that ended by the same signal or with the same exit code, or
    /// `never` [default: 3 by the same signal, exit codes do not count]
    #[arg(long, value_name = "N", value_parser = park_after, requires = "retries", help_heading = AFTER)]
    park_after: Option<Park>,
}

impl OnceOptions {
    pub(super) fn apply(self, spec: &mut JobSpec) {
        spec.unique = self.unique.map(|key| Unique { key, window_ms: self.window.map(millis) });
        let Some(retries) = self.retries.filter(|retries| *retries > 0) else { return };
        let mut retry = Retry { retries, on_reboot: self.retry_on_reboot, ..Retry::default() };
        if let Some((first, longest)) = self.backoff {
            retry.delay_ms = millis(first);
            retry.delay_max_ms = longest.map_or(retry.delay_max_ms, millis).max(retry.delay_ms);
        }
        if let Some(Park(attempts)) = self.park_after {
            retry.park_after = attempts;
            retry.park_codes = attempts.is_some();
        }
        spec.policy.retry = Some(Box::new(retry));
        // One of `config.toml`, as none was said.
        spec.policy.restart = Restart::No;
    }
}

/// After how many attempts; clap takes an `Option` for one that may be left out.
#[derive(Clone, Copy, Debug)]
struct Park(Option<u32>);

fn park_after(text: &str) -> Result<Park, String> {
    if text == "never" {
        return Ok(Park(None));
    }
    let number = text.parse().ok().filter(|number| *number > 1);
    number.map(|number| Park(Some(number))).ok_or_else(|| "a number, 2 or more, or `never`".to_owned())
}

fn backoff(text: &str) -> Result<(Duration, Option<Duration>), String> {
    let parse = |text: &str| parse_duration(text).map_err(|error| error.to_string());
    let Some((first, longest)) = text.split_once("..") else { return Ok((parse(text)?, None)) };
    let (first, longest) = (parse(first)?, parse(longest)?);
    if longest < first {
        return Err("the longest delay is behind the `..`, and not below the first one".to_owned());
    }
    Ok((first, Some(longest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_is_a_delay_or_a_range_of_them() {
        let seconds = Duration::from_secs;
        assert_eq!(backoff("2s"), Ok((seconds(2), None)));
        assert_eq!(backoff("2s..1m"), Ok((seconds(2), Some(seconds(60)))));
        for bad in ["", "2", "2s..", "..1m", "1m..2s", "1s...2s"] {
            assert!(backoff(bad).is_err(), "{bad}");
        }
    }
}
