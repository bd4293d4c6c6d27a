//! What comes when, at both changes of the year, in zones whose changes differ.

use super::*;

fn calendar(expression: &str, zone: &str) -> CronCalendar {
    let zone = TimeZone::get(zone).expect("the tests need a time zone database");
    CronCalendar::new(expression, zone).expect(expression)
}

/// The times after a first and up to a last one, in UTC, as they are written in RFC 3339.
fn between(expression: &str, zone: &str, after: &str, until: &str) -> Vec<String> {
    let calendar = calendar(expression, zone);
    let until: Timestamp = until.parse().expect("a time");
    let next = |at: &Timestamp| calendar.next_after(*at).filter(|next| *next <= until);
    let first = next(&after.parse().expect("a time"));
    std::iter::successors(first, next).map(|time| time.to_string().replace(":00.000Z", "")).collect()
}

#[test]
fn what_is_no_expression_is_refused_with_the_field_and_the_way_out() {
    let refused = |expression: &str| CronCalendar::new(expression, TimeZone::UTC).expect_err(expression);
    for (expression, why) in [
        ("", "it has 0 fields; write 5 fields"),
        ("* * * *", "it has 4 fields"),
        ("* * * * * * *", "it has 7 fields"),
        ("60 * * * *", "'60' is no minute: 0 to 59"),
        ("-1 * * * *", "'-1' is no minute"),
        ("0 24 * * *", "'24' is no hour: 0 to 23"),
        ("0 0 0 * *", "'0' is no day of the month"),
        ("0 0 32 * *", "'32' is no day of the month"),
        ("0 0 * 13 *", "'13' is no month"),
        ("0 0 * * 8", "'8' is no day of the week"),
        ("0 0 * * MOON", "'MOON' is no day of the week"),
        ("0 0 * MON *", "'MON' is no month"),
        ("MON 0 * * *", "'MON' is no minute"),
        ("0 0 * * JAN", "'JAN' is no day of the week"),
        ("*/0 * * * *", "'*/0' is no minute"),
        ("5-1 * * * *", "'5-1' is no minute"),
        ("1, * * * *", "'1,' is no minute"),
        ("0/5 * * * *", "'0/5' is no minute"),
        ("ü * * * *", "'ü' is no minute"),
        ("61 * * * * *", "'61' is no second"),
        ("@reboot", "the names are @hourly"),
        ("0 0 30 2 *", "never comes: no month that it names has such a day"),
        ("0 0 31 2,4,6,9,11 *", "never comes"),
    ] {
        let said = refused(expression);
        assert!(said.contains(why), "{expression}: {said}");
    }
    assert!(refused(&"1,".repeat(300)).contains("at most 256"));
}

#[test]
fn expressions_mean_what_they_mean_elsewhere() {
    let in_utc = |expression, until| between(expression, "UTC", "2026-01-01T00:00:00Z", until);
    assert_eq!(in_utc("30 2 * * *", "2026-01-03T00:00:00Z"), ["2026-01-01T02:30", "2026-01-02T02:30"]);
    assert_eq!(in_utc("0 0 29 2 *", "2032-12-31T00:00:00Z"), ["2028-02-29T00:00", "2032-02-29T00:00"]);
    // Either of both days, if both are given.
    let days = ["2026-01-02T00:00", "2026-01-09T00:00", "2026-01-13T00:00", "2026-01-16T00:00"];
    assert_eq!(in_utc("0 0 13 * FRI", "2026-01-20T00:00:00Z"), days);
    assert_eq!(in_utc("0 12 * * 1-5", "2026-01-05T13:00:00Z").len(), 3);
    assert_eq!(in_utc("0 12 * * 7", "2026-01-05T00:00:00Z"), ["2026-01-04T12:00"]);
    assert_eq!(in_utc("0 0 L * *", "2026-02-28T00:00:00Z"), ["2026-01-31T00:00", "2026-02-28T00:00"]);
    assert_eq!(in_utc("* * * * * *", "2026-01-01T00:01:00Z").len(), 60, "each second");
    for (name, same) in [("@daily", "0 0 * * *"), ("@Weekly", "0 0 * * 0"), ("@yearly", "0 0 1 1 *")] {
        assert_eq!(in_utc(name, "2027-12-31T00:00:00Z"), in_utc(same, "2027-12-31T00:00:00Z"));
    }
    // Not the second that has begun.
    let calendar = calendar("0 0 * * *", "UTC");
    let after = |text: &str| calendar.next_after(text.parse().expect("a time")).map(|next| next.to_string());
    assert_eq!(after("2026-01-01T23:59:59.999Z").as_deref(), Some("2026-01-02T00:00:00.000Z"));
    assert_eq!(after("2026-01-02T00:00:00.000Z").as_deref(), Some("2026-01-03T00:00:00.000Z"));
    assert_eq!(after("2026-01-02T00:00:00.001Z").as_deref(), Some("2026-01-03T00:00:00.000Z"));
    // At the end of all times there is nothing more.
    assert_eq!(after("9999-12-30T00:00:00Z"), None);
}

/// The clock goes from 2:00 to 3:00 on 29 March 2026, at 01:00 UTC.
const BERLIN_FORWARD: (&str, &str, &str) = ("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T12:00:00Z");
/// The clock goes from 3:00 back to 2:00 on 25 October 2026, at 01:00 UTC.
const BERLIN_BACK: (&str, &str, &str) = ("Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
/// From 2:00 to 3:00 on 8 March 2026, at 07:00 UTC.
const NEW_YORK_FORWARD: (&str, &str, &str) =
    ("America/New_York", "2026-03-07T12:00:00Z", "2026-03-09T12:00:00Z");
/// From 2:00 back to 1:00 on 1 November 2026, at 06:00 UTC.
const NEW_YORK_BACK: (&str, &str, &str) =
    ("America/New_York", "2026-10-31T12:00:00Z", "2026-11-02T12:00:00Z");
/// By half an hour, from 2:00 to 2:30 on 4 October 2026, at 15:30 UTC the day before.
const LORD_HOWE_FORWARD: (&str, &str, &str) =
    ("Australia/Lord_Howe", "2026-10-03T06:00:00Z", "2026-10-05T06:00:00Z");
/// From 2:00 back to 1:30 on 5 April 2026, at 15:00 UTC the day before.
const LORD_HOWE_BACK: (&str, &str, &str) =
    ("Australia/Lord_Howe", "2026-04-04T06:00:00Z", "2026-04-06T06:00:00Z");

fn at_change(expression: &str, (zone, after, until): (&str, &str, &str)) -> Vec<String> {
    between(expression, zone, after, until)
}

#[test]
fn a_fixed_time_that_the_clock_leaves_out_comes_once_when_the_clock_goes_forward() {
    assert_eq!(at_change("30 2 * * *", BERLIN_FORWARD), ["2026-03-29T01:00", "2026-03-30T00:30"]);
    assert_eq!(at_change("0 2 * * *", BERLIN_FORWARD), ["2026-03-29T01:00", "2026-03-30T00:00"]);
    assert_eq!(at_change("30 2 * * *", NEW_YORK_FORWARD), ["2026-03-08T07:00", "2026-03-09T06:30"]);
    assert_eq!(at_change("15 2 * * *", LORD_HOWE_FORWARD), ["2026-10-03T15:30", "2026-10-04T15:15"]);
    // Several of them are one, and so is one with that which is due right then.
    assert_eq!(
        at_change("0,20,40 2,3 * * *", BERLIN_FORWARD)[..3],
        ["2026-03-29T01:00", "2026-03-29T01:20", "2026-03-29T01:40"]
    );
    // What is not left out is as on any day.
    assert_eq!(at_change("30 1,4 29 3 *", BERLIN_FORWARD), ["2026-03-29T00:30", "2026-03-29T02:30"]);
}

#[test]
fn a_fixed_time_that_the_clock_shows_twice_comes_the_first_time_only() {
    assert_eq!(at_change("30 2 * * *", BERLIN_BACK), ["2026-10-25T00:30", "2026-10-26T01:30"]);
    assert_eq!(at_change("30 1 * * *", NEW_YORK_BACK), ["2026-11-01T05:30", "2026-11-02T06:30"]);
    assert_eq!(at_change("45 1 * * *", LORD_HOWE_BACK), ["2026-04-04T14:45", "2026-04-05T15:15"]);
    assert_eq!(
        at_change("0,30 2,3 25 10 *", BERLIN_BACK),
        ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T02:00", "2026-10-25T02:30"]
    );
    // Also for who asks between the two.
    let calendar = calendar("30 2 * * *", "Europe/Berlin");
    let next = calendar.next_after("2026-10-25T01:10:00Z".parse().expect("a time")).expect("one");
    assert_eq!(next.to_string(), "2026-10-26T01:30:00.000Z");
}

#[test]
fn what_goes_by_hours_or_minutes_goes_on_in_real_time() {
    for (change, hours) in
        [(BERLIN_FORWARD, 48), (BERLIN_BACK, 48), (NEW_YORK_FORWARD, 48), (NEW_YORK_BACK, 48)]
    {
        assert_eq!(at_change("0 * * * *", change).len(), hours, "{change:?}");
        assert_eq!(at_change("*/15 * * * *", change).len(), hours * 4, "{change:?}");
    }
    for change in [LORD_HOWE_FORWARD, LORD_HOWE_BACK] {
        assert_eq!(at_change("*/10 * * * *", change).len(), 288, "{change:?}");
    }
    // 2:00 is left out there, and comes half an hour later there.
    let hours = at_change("0 * * * *", LORD_HOWE_FORWARD);
    let around: Vec<&str> =
        hours.iter().map(String::as_str).filter(|time| time.starts_with("2026-10-03T1")).collect();
    assert_eq!(around[4..7], ["2026-10-03T14:30", "2026-10-03T16:00", "2026-10-03T17:00"]);
    let hours = at_change("0 * * * *", LORD_HOWE_BACK);
    let around: Vec<&str> =
        hours.iter().map(String::as_str).filter(|time| time.starts_with("2026-04-04T1")).collect();
    assert_eq!(around[3..6], ["2026-04-04T13:00", "2026-04-04T14:00", "2026-04-04T15:30"]);
    // A star in the minute is enough, in that hour alone: not at all, and twice.
    assert_eq!(at_change("*/30 2 29 3 *", BERLIN_FORWARD), [""; 0]);
    assert_eq!(at_change("*/30 2 25 10 *", BERLIN_BACK).len(), 4);
}

#[test]
fn a_zone_that_leaves_out_a_whole_day_leaves_out_no_job() {
    // Samoa had no 30 December 2011.
    let days = between("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", "2012-01-01T00:00:00Z");
    assert_eq!(days, ["2011-12-29T22:00", "2011-12-30T10:00", "2011-12-30T22:00", "2011-12-31T22:00"]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is written, it is refused in words or has times that go on.
    #[test]
    fn any_text_is_refused_or_has_times_in_their_order(
        text in "[0-9*/,\\-LW#?+@a-zA-Zü ]{0,24}|([0-9*/,-]{1,5} ){4}[0-9*A-Z#]{1,4}", after in 0_i64..4_000_000_000_000,
    ) {
        match CronCalendar::new(&text, TimeZone::get("Europe/Berlin").expect("a zone")) {
            Err(why) => proptest::prop_assert!(!why.is_empty()),
            Ok(calendar) => {
                let mut at = Timestamp::from_millis(after);
                for _ in 0..5 {
                    let Some(next) = calendar.next_after(at) else { break };
                    proptest::prop_assert!(next > at, "{}", text);
                    at = next;
                }
            }
        }
    }

    /// Compared with a walk through all minutes of some days around a change.
    #[test]
    fn every_minute_that_fits_comes_and_no_other(
        minute in 0_u32..60, step in 1_u32..40, hour in 0_u32..5, which in 0_usize..6, kind in 0..4,
    ) {
        let (zone, after, until) = [
            BERLIN_FORWARD, BERLIN_BACK, NEW_YORK_FORWARD, NEW_YORK_BACK, LORD_HOWE_FORWARD, LORD_HOWE_BACK,
        ][which];
        let (expression, fits): (String, Box<dyn Fn(u32, u32) -> bool>) = match kind {
            0 => (format!("*/{step} * * * *"), Box::new(move |_, m| m % step == 0)),
            1 => (format!("{minute} * * * *"), Box::new(move |_, m| m == minute)),
            2 => (format!("* {hour} * * *"), Box::new(move |h, _| h == hour)),
            _ => (format!("{minute} {hour} * * *"), Box::new(move |h, m| h == hour && m == minute)),
        };
        let tz = TimeZone::get(zone).expect("a zone");
        let (first, last): (Instant, Instant) = (after.parse().expect("a time"), until.parse().expect("a time"));
        let minutes = (1..).map(|n| first + SignedDuration::from_mins(n)).take_while(|at| *at <= last);
        let shown: Vec<String> = minutes.filter(|at| {
            let local = tz.to_datetime(*at);
            fits(local.hour().cast_unsigned().into(), local.minute().cast_unsigned().into())
        }).map(|at| at.to_string().replace(":00Z", "")).collect();
        let found = between(&expression, zone, after, until);
        if kind < 3 {
            proptest::prop_assert_eq!(found, shown, "{}", expression);
        } else {
            // Once a day, whatever the clock does.
            proptest::prop_assert_eq!(found.len(), 2, "{} {:?}", expression, found);
            let out_of_place = found.iter().filter(|time| !shown.contains(time)).count();
            proptest::prop_assert!(out_of_place <= 1 && (out_of_place == 0 || shown.len() < 2), "{} {:?}", expression, found);
        }
    }
}
