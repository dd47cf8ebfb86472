//! The reader of Java-properties files, which keeps line numbers.
//!
//! The syntax is that of `java.util.Properties`, so that files written for the Scala original mean the same here. The
//! one difference is the encoding: ours is UTF-8, where Java's is Latin-1.

/// One `key=value` of a properties file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property {
    /// The line on which the key stands, counted from 1.
    pub(super) line: usize,
    /// The key, escapes resolved.
    pub(super) key: String,
    /// The value, escapes resolved. As in Java, white space at its end is part of it.
    pub(super) value: String,
}

/// A place where a text is no properties file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) reason: &'static str,
}

/// Reads all properties in the order of the text; the last of two equal keys is meant to win.
pub(super) fn parse(text: &str) -> Result<Vec<Property>, SyntaxError> {
    let mut properties = Vec::new();
    let mut lines = natural_lines(text).enumerate();
    while let Some((index, first)) = lines.next() {
        let first = first.trim_start_matches(is_blank);
        if first.is_empty() || first.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = first.to_owned();
        while is_continued(&logical) {
            logical.pop();
            let Some((_, next)) = lines.next() else { break };
            logical.push_str(next.trim_start_matches(is_blank));
        }
        let (key, value) = split(&logical);
        let resolve = |part| {
            unescape(part).map_err(|reason| SyntaxError {
                line: index + 1,
                reason,
            })
        };
        properties.push(Property {
            line: index + 1,
            key: resolve(key)?,
            value: resolve(value)?,
        });
    }
    Ok(properties)
}

/// Java ends lines at `\n`, `\r` and `\r\n`.
fn natural_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n')
        .flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0c')
}

/// Whether the line ends in an odd number of backslashes: the last one is then not escaped itself.
fn is_continued(line: &str) -> bool {
    let backslashes = line.len() - line.trim_end_matches('\\').len();
    backslashes % 2 == 1
}

/// Cuts a logical line at the first separator that no backslash escapes.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if matches!(c, '=' | ':') || is_blank(c) {
            let rest = line[at..].trim_start_matches(is_blank);
            let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
            return (&line[..at], rest.trim_start_matches(is_blank));
        }
    }
    (line, "")
}

fn unescape(text: &str) -> Result<String, &'static str> {
    let mut resolved = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            resolved.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => resolved.push('\t'),
            Some('n') => resolved.push('\n'),
            Some('r') => resolved.push('\r'),
            Some('f') => resolved.push('\x0c'),
            Some('u') => resolved.push(unicode(&mut chars)?),
            Some(other) => resolved.push(other),
            None => {}
        }
    }
    Ok(resolved)
}

/// Reads what follows `\u`: four hexadecimal digits, or two such escapes that form one surrogate pair.
fn unicode(chars: &mut std::str::Chars<'_>) -> Result<char, &'static str> {
    const LONE: &str = "a \\u escape holds half of a surrogate pair";
    let unit = hex4(chars)?;
    if !(0xD800..0xE000).contains(&unit) {
        return char::from_u32(unit).ok_or(LONE);
    }
    if chars.next() != Some('\\') || chars.next() != Some('u') {
        return Err(LONE);
    }
    let low = hex4(chars)?;
    if unit >= 0xDC00 || !(0xDC00..0xE000).contains(&low) {
        return Err(LONE);
    }
    char::from_u32(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00)).ok_or(LONE)
}

fn hex4(chars: &mut std::str::Chars<'_>) -> Result<u32, &'static str> {
    (0..4).try_fold(0, |unit, _| {
        let digit = chars.next().and_then(|c| c.to_digit(16));
        digit
            .map(|digit| unit * 16 + digit)
            .ok_or("a \\u escape needs four hexadecimal digits")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        let properties = parse(text).expect("valid properties");
        properties
            .into_iter()
            .map(|p| (p.line, p.key, p.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{all:?}");
        let (_, key, value) = all.remove(0);
        (key, value)
    }

    fn pair(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn a_key_ends_at_an_equals_sign_a_colon_or_a_blank() {
        for text in ["a=b c", "a:b c", "a b c", "  a\t=  b c", "a : b c"] {
            assert_eq!(one(text), pair("a", "b c"), "{text:?}");
        }
        assert_eq!(one("a==b"), pair("a", "=b"));
        assert_eq!(one("a = : b"), pair("a", ": b"));
        assert_eq!(one("a"), pair("a", ""));
        assert_eq!(one("=b"), pair("", "b"));
    }

    #[test]
    fn comments_and_empty_lines_are_skipped_but_counted() {
        let text = "# one\n\n  ! two\r\na=1\rb=2\n c=# no comment";
        let expected = [(4, "a", "1"), (5, "b", "2"), (6, "c", "# no comment")];
        let expected = expected.map(|(line, key, value)| (line, key.to_owned(), value.to_owned()));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn a_line_goes_on_after_an_odd_number_of_backslashes() {
        let text = "a=1,\\\n   2,\\\r\n\t# 3\nb=x\\\\\nc=end\\";
        let expected = [(1, "a", "1,2,# 3"), (4, "b", "x\\"), (5, "c", "end")];
        let expected = expected.map(|(line, key, value)| (line, key.to_owned(), value.to_owned()));
        assert_eq!(read(text), expected);
        // A comment is never continued.
        assert_eq!(one("# a \\\nb=1"), pair("b", "1"));
    }

    #[test]
    fn escapes_are_resolved_in_keys_and_values() {
        assert_eq!(one(r"a\ b\=c\:d=1\t2\n3\q"), pair("a b=c:d", "1\t2\n3q"));
        assert_eq!(one(r"a=\u00e9\u20AC"), pair("a", "é€"));
        assert_eq!(one(r"a=\uD83D\uDE00"), pair("a", "😀"));
    }

    #[test]
    fn a_broken_unicode_escape_is_refused_with_its_line() {
        for (text, line) in [
            ("a=1\nb=\\u12", 2),
            ("a=\\u12g4", 1),
            ("a=\\uD83D", 1),
            ("\na=\\uDE00\\uD83D", 2),
        ] {
            assert_eq!(parse(text).map_err(|error| error.line), Err(line), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "[a\\\\\r\n#!=: \tuU0Dé]{0,60}") {
            let _ = parse(&text);
        }
    }
}
