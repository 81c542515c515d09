//! Tables in a terminal.

use unicode_width::UnicodeWidthStr;

/// Writes `rows`, all of as many cells, a line each: the first column to the left, the
/// others to the right.
pub(crate) fn table<R: AsRef<[String]>>(text: &mut String, rows: &[R]) {
    let n_columns = rows.first().map_or(0, |row| row.as_ref().len());
    let width =
        |column: usize| rows.iter().map(|row| row.as_ref()[column].width()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    for row in rows {
        for (column, (cell, width)) in row.as_ref().iter().zip(&widths).enumerate() {
            let pad = " ".repeat(width - cell.width());
            match column {
                0 => text.extend([cell, &*pad]),
                _ => text.extend(["  ", &*pad, cell]),
            }
        }
        text.push('\n');
    }
}
