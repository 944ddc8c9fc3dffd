//! Plain tables, never wider than 80 columns.

/// The widest line.
const WIDTH: usize = 80;

/// Columns padded to their widest cell, two spaces apart; the last column takes what is left and is
/// cut there.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        let line: String = line.trim_end().chars().take(WIDTH).collect();
        text.push_str(&line);
        text.push('\n');
    }
    text
}
