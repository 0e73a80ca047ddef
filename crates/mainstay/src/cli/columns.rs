//! Tables of a running system, whose cells may have colours.

use super::output::{Look, Output};

/// Between two columns.
const GAP: &str = "  ";

/// One cell.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    text: String,
    look: Option<Look>,
}

impl Cell {
    /// A cell that has to be noticed.
    pub(crate) fn new(look: Look, text: impl Into<String>) -> Self {
        Self { text: text.into(), look: Some(look) }
    }

    /// What stands in it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), look: None }
    }
}

/// A heading and a table below it; nothing when there are no rows.
pub(crate) fn section(title: &str, heads: &[&str], rows: &[Vec<Cell>], output: Output) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{}\n{}", output.on_stdout(Look::Heading, title), table(heads, rows, output))
}

/// The rows under their heads, indented.
pub(crate) fn table(heads: &[&str], rows: &[Vec<Cell>], output: Output) -> String {
    let heads: Vec<Cell> = heads.iter().map(|head| Cell::new(Look::Faint, *head)).collect();
    let all = || std::iter::once(&heads).chain(rows);
    let length = |cell: &Cell| cell.text.chars().count();
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(length).max().unwrap_or(0);
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    all().fold(String::new(), |out, row| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let painted = cell.look.map_or(cell.text.clone(), |look| output.on_stdout(look, &cell.text));
            painted + &" ".repeat(width - length(cell))
        });
        let line = cells.fold(String::new(), |line, cell| line + GAP + &cell);
        out + line.trim_end() + "\n"
    })
}

/// `a, b and c`.
pub(crate) fn listed<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> String {
    joined(names, "and")
}

/// `a, b or c`.
pub(crate) fn either<N: AsRef<str>>(names: impl IntoIterator<Item = N>) -> String {
    joined(names, "or")
}

fn joined<N: AsRef<str>>(names: impl IntoIterator<Item = N>, word: &str) -> String {
    let names: Vec<N> = names.into_iter().collect();
    let comma = |names: &[N]| names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    match names.as_slice() {
        [] => "none".to_owned(),
        [one] => one.as_ref().to_owned(),
        [rest @ .., last] => format!("{} {word} {}", comma(rest), last.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::Color;
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_whatever_the_colours() {
        let rows = [vec!["e1".into(), Cell::new(Look::Error, "down")], vec!["north-1".into(), "up".into()]];
        let plain = table(&["node", "state"], &rows, Output::new(Color::Never));
        assert_eq!(plain, "  node     state\n  e1       down\n  north-1  up\n");
        let coloured = table(&["node", "state"], &rows, Output::new(Color::Always));
        assert!(coloured.contains("\u{1b}["), "{coloured:?}");
        assert!(coloured.contains("north-1  up"), "{coloured:?}");
    }

    #[test]
    fn names_are_listed_as_people_do() {
        assert_eq!(listed(["a", "b", "c"]), "a, b and c");
        assert_eq!(either(["a", "b"]), "a or b");
        assert_eq!(listed(["a"]), "a");
    }
}
