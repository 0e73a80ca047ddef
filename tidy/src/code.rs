//! Just enough of Rust's grammar to tell code from comments and strings, and to measure functions.

/// A function and its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Function {
    /// Its name without path.
    pub(crate) name: String,
    /// The line of `fn`, from 1.
    pub(crate) line: usize,
    /// Lines of its body that hold code: neither blank nor only comment, without the line that closes it.
    pub(crate) lines: usize,
}

/// The text with every comment blanked and the inside of every string and character literal turned into `s`; line
/// breaks and byte positions stay.
pub(crate) fn mask(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let ends_word = out.last().is_some_and(|b: &u8| b.is_ascii_alphanumeric() || *b == b'_');
        let (length, filler) = if let Some(length) = comment(rest) {
            (length, b' ')
        } else if let Some(length) = literal(rest, ends_word) {
            (length, b's')
        } else {
            out.extend_from_slice(&rest.as_bytes()[..c.len_utf8()]);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        out.extend(rest.bytes().take(length).map(|b| if b == b'\n' { b } else { filler }));
        rest = &rest[length..];
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The length of the comment that `rest` begins with. Block comments nest.
fn comment(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    if !rest.starts_with("/*") {
        return None;
    }
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let pair = rest.as_bytes().get(at..at + 2).unwrap_or_default();
        match pair {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    Some(at)
}

/// The length of the string or character literal that `rest` begins with.
fn literal(rest: &str, ends_word: bool) -> Option<usize> {
    if rest.starts_with('"') {
        return Some(quoted(rest, '"'));
    }
    if rest.starts_with('\'') {
        // A lifetime has no closing quote after its first character.
        let mut chars = rest.chars().skip(1);
        let first = chars.next()?;
        return (first == '\\' || (first != '\'' && chars.next() == Some('\''))).then(|| quoted(rest, '\''));
    }
    let hashes_at = ["r", "br", "cr"].iter().find(|p| !ends_word && rest.starts_with(**p))?.len();
    let hashes = rest[hashes_at..].bytes().take_while(|b| *b == b'#').count();
    let open = hashes_at + hashes;
    rest[open..].starts_with('"').then_some(())?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = rest[open + 1..].find(&close).map_or(rest.len(), |at| open + 1 + at + close.len());
    Some(end)
}

/// The length of a literal with escapes, both quotes included.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The byte position after the bracket that closes the one at `open` in masked text.
pub(crate) fn closing(masked: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, b) in masked.bytes().enumerate().skip(open) {
        match b {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Byte positions at which `word` stands alone in masked text.
pub(crate) fn words<'a>(masked: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    masked.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let after = &masked[at + word.len()..];
        !masked[..*at].ends_with(part) && !after.starts_with(part)
    })
}

/// The line of a byte position, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|b| **b == b'\n').count() + 1
}

/// The identifier that `text` begins with.
pub(crate) fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    &text[..end]
}

/// Every function that has a body.
pub(crate) fn functions(text: &str) -> Vec<Function> {
    let masked = mask(text);
    words(&masked, "fn").filter_map(|at| function(&masked, at)).collect()
}

fn function(masked: &str, at: usize) -> Option<Function> {
    let after = masked[at + 2..].trim_start();
    let name = identifier(after);
    if name.is_empty() {
        return None; // a function pointer's type
    }
    let open = body(masked, masked.len() - after.len())?;
    let end = closing(masked, open)?;
    let lines = masked[open + 1..end - 1].lines().filter(|line| !line.trim().is_empty()).count();
    Some(Function { name: name.to_owned(), line: line_of(masked, at), lines })
}

/// The brace that opens the body of the function whose name stands at `name`; none for a declaration.
fn body(masked: &str, name: usize) -> Option<usize> {
    let mut depth = 0_i32;
    for (at, b) in masked.bytes().enumerate().skip(name) {
        match b {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth -= 1,
            b'{' if depth == 0 => return Some(at),
            b';' if depth == 0 => return None,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_masked_and_positions_stay() {
        let text =
            "let a = \"}\\\"{\"; // }\nlet b = '{'; /* { /* } */ */ let c: &'static str = r#\"\n\"{\"#;";
        let masked = mask(text);
        assert_eq!(masked.len(), text.len());
        assert!(!masked.contains(['{', '}']), "{masked}");
        assert!(masked.contains("&'static str"), "{masked}");
        assert_eq!(masked.lines().count(), text.lines().count());
    }

    #[test]
    fn functions_are_measured_without_blank_and_comment_lines() {
        let text = "fn a() {\n    x();\n\n    // why\n    y(\"}\");\n}\nfn b(f: fn(u8) -> [u8; 2]) -> u8 { 1 }\n\
                    trait T { fn c(&self); }\n";
        let found: Vec<_> = functions(text).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("a".to_owned(), 1, 2), ("b".to_owned(), 7, 1)]);
    }

    #[test]
    fn lines_inside_a_string_count() {
        let text = "fn a() {\n    sql(\"\n        select 1\n    \");\n}\n";
        assert_eq!(functions(text)[0].lines, 3);
    }
}
