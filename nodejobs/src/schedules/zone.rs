//! Time zones: by their names, and that of this machine.

use jiff::tz::TimeZone;

/// The zone of that name, with the name as the time zone database has it; says in words why there is none.
pub(crate) fn zone(name: &str) -> Result<(TimeZone, String), String> {
    let zone = TimeZone::get(name).ok().filter(|zone| !zone.is_unknown());
    match zone {
        Some(zone) => {
            let name = zone.iana_name().unwrap_or("UTC").to_owned();
            Ok((zone, name))
        }
        None if jiff::tz::db().is_definitively_empty() => Err(format!(
            "time zone '{name}' cannot be known: this machine has no time zone database (/usr/share/zoneinfo); install \
             tzdata, or use UTC"
        )),
        None => {
            Err(format!("time zone '{name}' is unknown; write it as Europe/Berlin, America/New_York or UTC"))
        }
    }
}

/// The name of the time zone that this process goes by: that of the variable `TZ`, else that of `/etc/localtime`, else UTC.
///
/// # Errors
/// In words, when the zone has no name in the time zone database.
///
/// ```
/// println!("schedules go by {}", nodejobs::machine_time_zone()?);
/// # Ok::<(), String>(())
/// ```
pub fn machine_time_zone() -> Result<String, String> {
    let is_said = std::env::var_os("TZ").is_some_and(|zone| !zone.is_empty());
    if !is_said && !std::path::Path::new("/etc/localtime").exists() {
        return Ok("UTC".to_owned());
    }
    let by = if is_said { "the variable TZ" } else { "/etc/localtime" };
    match TimeZone::try_system() {
        Ok(zone) if !zone.is_unknown() => match zone.iana_name() {
            Some(name) => Ok(name.to_owned()),
            None => {
                Err(format!("the time zone that {by} says has no name; say which one, such as Europe/Berlin"))
            }
        },
        Ok(_) | Err(_) => {
            Err(format!("the time zone that {by} says is unknown; say which one, such as Europe/Berlin"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_the_name_of_the_database_and_an_unknown_one_is_refused() {
        let name = |text| zone(text).map(|(_, name)| name);
        assert_eq!(name("europe/berlin").as_deref(), Ok("Europe/Berlin"));
        assert_eq!(name("UTC").as_deref(), Ok("UTC"));
        for bad in ["", "Mars/Olympus", "../etc/passwd", "+02:00", "Etc/Unknown", "/etc/localtime"] {
            assert!(zone(bad).expect_err(bad).contains("is unknown"), "{bad}");
        }
        assert!(machine_time_zone().is_ok_and(|name| zone(&name).is_ok()));
    }
}
