//! Text for people: times, names and lists, cut and cleaned for a terminal. No more than text, so that errors may use it.

use std::time::{SystemTime, UNIX_EPOCH};

use nodejobs::Timestamp;
use nodejobs::api::Candidate;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// A name beyond this is cut, so that there is room for the rest.
pub(crate) const NAME_WIDTH: usize = 24;

/// Wall time.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// How long ago that was, as people say it.
pub(crate) fn ago(now: Timestamp, then: Timestamp) -> String {
    show_ago(now.as_millis().saturating_sub(then.as_millis()).max(0).unsigned_abs())
}

/// In how long that will be, as people say it.
pub(crate) fn ahead(now: Timestamp, then: Timestamp) -> String {
    let seconds = then.as_millis().saturating_sub(now.as_millis()).max(0).unsigned_abs() / 1000;
    if seconds == 0 { "now".to_owned() } else { format!("in {}", in_one_unit(seconds)) }
}

/// Text of a job's choosing, safe on a terminal: no line breaks, no control sequences.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' => ' ',
            // Controls move the cursor and colour the screen; the others turn the direction of what follows.
            c if c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}') => {
                '\u{FFFD}'
            }
            c => c,
        })
        .collect()
}

/// How long ago, in one unit.
fn show_ago(millis: u64) -> String {
    let seconds = millis / 1000;
    if seconds == 0 { "now".to_owned() } else { format!("{} ago", in_one_unit(seconds)) }
}

fn in_one_unit(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..86_400 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Jobs among which somebody has to choose, a line each: id, name, status, age.
pub(crate) fn candidate_lines(candidates: &[Candidate], now: Timestamp) -> Vec<String> {
    let cells = |job: &Candidate| {
        let name = job.name.as_deref().map_or_else(|| "-".to_owned(), printable);
        [job.id.to_string(), fit(&name, Some(NAME_WIDTH)), job.status.to_string()]
    };
    let rows: Vec<_> = candidates.iter().map(cells).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
    let widths = [width(0), width(1), width(2)];
    let line = |(row, job): (&[String; 3], &Candidate)| {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(cell);
            text.push_str(&" ".repeat(width - cell.width() + 2));
        }
        text + &ago(now, job.created_at)
    };
    rows.iter().zip(candidates).map(line).collect()
}

/// The text, or as much of it as fits and an ellipsis.
pub(crate) fn fit(text: &str, width: Option<usize>) -> String {
    let Some(width) = width.filter(|width| text.width() > *width) else {
        return text.to_owned();
    };
    let (mut cut, mut used) = (String::new(), 1);
    for c in text.chars() {
        used += c.width().unwrap_or(0);
        if used > width {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_says_how_long_ago() {
        for (millis, shown) in [
            (999, "now"),
            (1_000, "1s ago"),
            (180_000, "3m ago"),
            (7_200_000, "2h ago"),
            (86_400_000, "1d ago"),
        ] {
            assert_eq!(show_ago(millis), shown);
        }
    }

    #[test]
    fn what_a_job_chose_cannot_move_the_cursor() {
        assert_eq!(printable("a\x1b[2J\nb\u{202E}c\u{9b}"), "a\u{FFFD}[2J b\u{FFFD}c\u{FFFD}");
    }
}
