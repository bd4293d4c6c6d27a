//! How long ago something was, in what the command line prints.

/// How long ago, in one unit.
pub(crate) fn show_ago(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => "now".to_owned(),
        1..60 => format!("{seconds}s ago"),
        60..3_600 => format!("{}m ago", seconds / 60),
        3_600..86_400 => format!("{}h ago", seconds / 3_600),
        _ => format!("{}d ago", seconds / 86_400),
    }
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
}
