//! Plain tables, never wider than 80 columns.

/// The widest line.
const WIDTH: usize = 80;
/// Text is not folded into less than this.
const NARROWEST: usize = 16;

/// Columns padded to their widest cell, two spaces apart; the last column takes what is left and is
/// folded there.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let before: usize = widths.iter().take(columns.saturating_sub(1)).map(|width| width + 2).sum();
    let room = WIDTH.saturating_sub(before);
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column + 1 < columns || room < NARROWEST {
                line.push_str(&format!("{cell:<width$}  "));
                continue;
            }
            for (number, part) in fold(cell, room).into_iter().enumerate() {
                if number > 0 {
                    push_line(&mut text, &std::mem::take(&mut line));
                    line = " ".repeat(before);
                }
                line.push_str(&part);
            }
        }
        push_line(&mut text, &line);
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    text.extend(line.trim_end().chars().take(WIDTH));
    text.push('\n');
}

/// Breaks text between words. A word that is too long stays whole, and is cut later.
fn fold(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let length = lines.last().map_or(0, |line| line.chars().count());
        match lines.last_mut() {
            Some(line) if length == 0 => line.push_str(word),
            Some(line) if length + 1 + word.chars().count() <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::table;

    #[test]
    fn the_last_column_is_folded_and_no_line_is_too_long() {
        let why = "it is degraded (loss is above its limit): only while no other is up";
        let rows = [["UPLINK", "TIER", "WHY"], ["fiber", "1", &format!("{why}, {why}")]];
        let text = table(&rows.map(|row| row.map(str::to_owned).to_vec()));
        let expected = "UPLINK  TIER  WHY
fiber   1     it is degraded (loss is above its limit): only while no other is
              up, it is degraded (loss is above its limit): only while no other
              is up
";
        assert_eq!(text, expected);
    }
}
