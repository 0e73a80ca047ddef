//! Two stories side by side.

/// How wide each of the two columns is.
const WIDTH: usize = 58;

/// What the script says at the left, what the system did at the right; `|` marks lines that are only at one side.
pub(super) fn side_by_side(script: &[String], real: &[String]) -> String {
    let mut page = row("the script", ' ', "the system");
    page += &format!("{}\n", "-".repeat(2 * WIDTH + 3));
    for line in compare(script, real) {
        page += &match line {
            Line::Both(text) => row(text, ' ', text),
            Line::First(text) => row(text, '|', ""),
            Line::Second(text) => row("", '|', text),
        };
    }
    page
}

fn row(left: &str, mark: char, right: &str) -> String {
    let (left, right) = (wrap(left), wrap(right));
    let line = |at: usize| {
        let cell = |column: &[String]| column.get(at).cloned().unwrap_or_default();
        let (left, right) = (cell(&left), cell(&right));
        let text = format!("{left:<WIDTH$} {mark} {right}");
        format!("{}\n", text.trim_end())
    };
    (0..left.len().max(right.len())).map(line).collect()
}

/// A line in pieces that fit a column; what is continued is indented.
fn wrap(text: &str) -> Vec<String> {
    let indent = text.len() - text.trim_start().len();
    let mut lines = vec![" ".repeat(indent)];
    for word in text.split_whitespace() {
        let Some(last) = lines.last_mut() else { continue };
        let is_begun = !last.trim().is_empty();
        if is_begun && last.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(format!("{}{word}", " ".repeat(indent + 4)));
        } else {
            if is_begun {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// A line of one transcript or of both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line<'a> {
    /// Both have it.
    Both(&'a str),
    /// Only the first has it.
    First(&'a str),
    /// Only the second has it.
    Second(&'a str),
}

/// The lines of both in order, as many as possible together.
fn compare<'a>(first: &'a [String], second: &'a [String]) -> Vec<Line<'a>> {
    // How many lines the ends have in common, from each pair of places on.
    let width = second.len() + 1;
    let mut common = vec![0_usize; (first.len() + 1) * width];
    for a in (0..first.len()).rev() {
        for b in (0..second.len()).rev() {
            common[a * width + b] = if first[a] == second[b] {
                common[(a + 1) * width + b + 1] + 1
            } else {
                common[(a + 1) * width + b].max(common[a * width + b + 1])
            };
        }
    }
    let (mut a, mut b, mut lines) = (0, 0, vec![]);
    loop {
        match (first.get(a), second.get(b)) {
            (Some(one), Some(other)) if one == other => {
                lines.push(Line::Both(one));
                (a, b) = (a + 1, b + 1);
            }
            (Some(one), other)
                if other.is_none() || common[(a + 1) * width + b] >= common[a * width + b + 1] =>
            {
                lines.push(Line::First(one));
                a += 1;
            }
            (_, Some(other)) => {
                lines.push(Line::Second(other));
                b += 1;
            }
            (Some(_) | None, None) => return lines,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_stands_at_its_side() {
        let lines = |text: &[&str]| text.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let model = lines(&["> power loss", "  term 2: n1 leads"]);
        let long = "  at rest: nobody leads, writes stand still; nobody is promoted yet: n2 may hold acknowledged writes";
        let page = side_by_side(&model, &lines(&["> power loss", long]));
        let expected = "\
the script                                                   the system
-----------------------------------------------------------------------------------------------------------------------
> power loss                                                 > power loss
  term 2: n1 leads                                         |
                                                           |   at rest: nobody leads, writes stand still; nobody is
                                                           |       promoted yet: n2 may hold acknowledged writes
";
        assert_eq!(page, expected);
    }

    fn lines(text: &str) -> Vec<String> {
        text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn what_both_have_stands_together() {
        let (one, other) = (lines("a b c d"), lines("a c x d e"));
        let expected = [
            Line::Both("a"),
            Line::First("b"),
            Line::Both("c"),
            Line::Second("x"),
            Line::Both("d"),
            Line::Second("e"),
        ];
        assert_eq!(compare(&one, &other), expected);
        assert_eq!(compare(&[], &lines("a")), [Line::Second("a")]);
        assert_eq!(compare(&lines("a"), &[]), [Line::First("a")]);
        assert_eq!(compare(&lines("a"), &lines("b")), [Line::First("a"), Line::Second("b")]);
    }
}
