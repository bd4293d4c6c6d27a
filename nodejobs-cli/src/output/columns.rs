//! Plain columns under a header, as wide as what is in them.

use unicode_width::UnicodeWidthStr as _;

use crate::readable::printable;

/// A header and rows. The last column is not padded.
pub(crate) fn columns<const N: usize>(header: [&str; N], rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> =
        rows.iter().map(|row| std::array::from_fn(|column| printable(&row[column]))).collect();
    let header = header.map(str::to_owned);
    let width =
        |column: usize| rows.iter().chain([&header]).map(|row| row[column].width()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in [&header].into_iter().chain(&rows) {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < N {
                text.push_str(&" ".repeat(widths[column] - cell.width() + 2));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [["a".to_owned(), "x\ny".to_owned()], ["日本".to_owned(), String::new()]];
        assert_eq!(columns(["ID", "TEXT"], &rows), "ID    TEXT\na     x y\n日本  \n");
        assert_eq!(columns(["ID", "TEXT"], &[]), "ID  TEXT\n");
    }
}
