//! The `update` block: how many instances at once, how long to wait, in what order.

use serde_json::{Map, Value};

use crate::error_code::ErrorCode;
use crate::fields::{Checked, Fields};
use crate::instance::WatchTime;
use crate::task::TaskError;

/// Whether groups, or zones of a first deploy, take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turns {
    /// One after the other.
    Serial,
    /// All at once.
    Parallel,
}

/// In which order the VM of an instance is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmStrategy {
    /// The old one is deleted before the new one is made: they may have the same addresses.
    DeleteCreate,
    /// The new one is made ahead, while the old one works; when their instance's turn comes, they are swapped.
    CreateSwapDelete,
}

/// How a group is updated.
#[derive(Clone, Debug, PartialEq)]
pub struct UpdateConfig {
    /// How many instances go first: a number or a percentage.
    pub canaries: String,
    /// How many instances at once: a number or a percentage.
    pub max_in_flight: String,
    /// Window for canaries.
    pub canary_watch_time: WatchTime,
    /// Window for the others.
    pub update_watch_time: WatchTime,
    /// Whether the group waits for the one before it.
    pub turns: Turns,
    /// Whether zones take turns on a deployment that never succeeded.
    pub initial_az_turns: Turns,
    /// How VMs are replaced.
    pub vm_strategy: VmStrategy,
}

/// What the command line says, above every `update` block.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overrides<'a> {
    /// `--canaries`.
    pub canaries: Option<&'a str>,
    /// `--max-in-flight`.
    pub max_in_flight: Option<&'a str>,
}

impl UpdateConfig {
    /// Reads the manifest's own block, in which the numbers and windows must be given.
    pub fn parse_top(block: &Map<String, Value>, overrides: Overrides<'_>) -> Checked<Self> {
        Self::parse(&Fields::new(block), None, overrides)
    }

    /// Reads a group's block: what it leaves out comes from `defaults`.
    pub fn parse_group(
        block: Option<&Map<String, Value>>,
        defaults: &Self,
        overrides: Overrides<'_>,
    ) -> Checked<Self> {
        match block {
            None => Ok(defaults.clone()),
            Some(block) => Self::parse(&Fields::new(block), Some(defaults), overrides),
        }
    }

    fn parse(fields: &Fields<'_>, defaults: Option<&Self>, overrides: Overrides<'_>) -> Checked<Self> {
        let number = |key: &str, default: Option<&String>| -> Checked<String> {
            match (fields.text_opt(key)?, default) {
                (Some(text), _) => Ok(text),
                (None, Some(default)) => Ok(default.clone()),
                (None, None) => Err(fields.missing(key)),
            }
        };
        let canaries = number("canaries", defaults.map(|d| &d.canaries))?;
        let max_in_flight = number("max_in_flight", defaults.map(|d| &d.max_in_flight))?;
        let window = |key: &str, default: Option<WatchTime>| -> Checked<WatchTime> {
            match (fields.text_opt(key)?, default) {
                (Some(text), _) => parse_watch_time(&text),
                (None, Some(default)) => Ok(default),
                (None, None) => Err(fields.missing(key)),
            }
        };
        let canary_watch_time = window("canary_watch_time", defaults.map(|d| d.canary_watch_time))?;
        let update_watch_time = window("update_watch_time", defaults.map(|d| d.update_watch_time))?;
        let turns = match fields.boolean_opt("serial")? {
            Some(true) => Turns::Serial,
            Some(false) => Turns::Parallel,
            None => defaults.map_or(Turns::Serial, |d| d.turns),
        };
        let vm_strategy = match fields.text_opt("vm_strategy")?.as_deref() {
            Some("delete-create") => VmStrategy::DeleteCreate,
            Some("create-swap-delete") => VmStrategy::CreateSwapDelete,
            None => defaults.map_or(VmStrategy::DeleteCreate, |d| d.vm_strategy),
            Some(other) => return Err(unknown_vm_strategy(other)),
        };
        let initial_az_turns = match fields.text_opt("initial_deploy_az_update_strategy")?.as_deref() {
            Some("serial") => Turns::Serial,
            Some("parallel") => Turns::Parallel,
            None => defaults.map_or(Turns::Serial, |d| d.initial_az_turns),
            Some(other) => {
                return Err(TaskError::new(
                    ErrorCode::ValidationInvalidValue,
                    format!(
                        "Invalid initial_deploy_az_update_strategy '{other}', valid strategies are: serial, parallel"
                    ),
                ));
            }
        };
        for (what, text) in [("canaries", overrides.canaries), ("max_in_flight", overrides.max_in_flight)] {
            // Also where nothing changes that it would count for.
            if text.is_some_and(|text| resolve(text, 1, what).is_err()) {
                return Err(TaskError::plain(format!("{what} value should be integer or percent")));
            }
        }
        Ok(Self {
            canaries: overrides.canaries.map_or(canaries, str::to_owned),
            max_in_flight: overrides.max_in_flight.map_or(max_in_flight, str::to_owned),
            canary_watch_time,
            update_watch_time,
            turns,
            initial_az_turns,
            vm_strategy,
        })
    }

    /// Returns how many of `changed` instances are canaries.
    pub fn canaries_of(&self, changed: usize) -> Checked<u32> {
        resolve(&self.canaries, changed, "canaries")
    }

    /// Returns how many of `changed` instances may be updated at once; at least one.
    pub fn in_flight_of(&self, changed: usize) -> Checked<u32> {
        Ok(resolve(&self.max_in_flight, changed, "max_in_flight")?.max(1))
    }
}

fn unknown_vm_strategy(said: &str) -> TaskError {
    TaskError::new(
        ErrorCode::ValidationInvalidValue,
        format!("Invalid vm_strategy '{said}', valid strategies are: create-swap-delete, delete-create"),
    )
}

/// Returns a number, or a percentage of `total` rounded down.
fn resolve(text: &str, total: usize, what: &str) -> Checked<u32> {
    let invalid = || {
        TaskError::plain(format!("{what} value should be integer or percent: '{text}' cannot be calculated"))
    };
    let total = u32::try_from(total).unwrap_or(u32::MAX);
    if let Some(percent) = text.trim().strip_suffix('%') {
        let percent: u32 =
            if percent.starts_with('+') { None } else { percent.parse().ok() }.ok_or_else(invalid)?;
        let share = u64::from(percent) * u64::from(total) / 100;
        return Ok(u32::try_from(share).unwrap_or(u32::MAX).min(total));
    }
    let number: i64 = text.trim().parse().map_err(|_| invalid())?;
    Ok(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}

fn parse_watch_time(text: &str) -> Checked<WatchTime> {
    let invalid = |message: &str| TaskError::new(ErrorCode::UpdateConfigInvalidWatchTime, message);
    let number = |part: &str| {
        let part = part.trim();
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u64>().ok()).flatten()
    };
    let window = match text.split_once('-') {
        None => number(text).map(|ms| (ms, ms)),
        Some((min, max)) => number(min).zip(number(max)),
    };
    let (min_ms, max_ms) =
        window.ok_or_else(|| invalid("Watch time should be an integer or a range of two integers"))?;
    if min_ms > max_ms {
        return Err(invalid("Min watch time cannot be greater than max watch time"));
    }
    Ok(WatchTime { min_ms, max_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_down() {
        assert_eq!(resolve("30%", 5, "x").unwrap(), 1);
        assert_eq!(resolve("10%", 5, "x").unwrap(), 0);
        assert_eq!(resolve("200%", 5, "x").unwrap(), 5);
        assert_eq!(resolve("7", 5, "x").unwrap(), 7);
        assert_eq!(resolve("a lot", 5, "x").unwrap_err().code, 100);
    }

    #[test]
    fn watch_times_are_a_number_or_a_range() {
        assert_eq!(parse_watch_time(" 1 - 1000 ").unwrap(), WatchTime { min_ms: 1, max_ms: 1000 });
        assert_eq!(parse_watch_time("30000").unwrap().min_ms, 30000);
        for bad in ["5-1", "x", "1-", "-1"] {
            assert_eq!(parse_watch_time(bad).unwrap_err().code, 180001, "{bad}");
        }
    }
}
