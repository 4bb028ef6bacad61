//! Selectors, as PromQL writes them: `cpu{service="web", pod=~"web-.*"}`. The name before the braces says what is asked for; label names
//! that are no identifiers stand in quotes: `{"app.kubernetes.io/name"="web"}`.
//!
//! The matcher `class` is not of a label but of a class of thread time: `wall{class=~"io[.].*"}`.

use std::fmt;

use crate::labels::{Matcher, Operator};

/// Bytes of a selector at most: the names of a hundred pods.
pub const MAX_BYTES: usize = 8 << 10;
/// Matchers at most. Each may cost as much memory as a regular expression is allowed.
pub const MAX_MATCHERS: usize = 32;
/// The matcher that is of a class of thread time.
const CLASS: &str = "class";

/// What a selector says.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    /// The name before the braces; empty where there is none.
    pub name: String,
    /// What labels are to fulfil.
    pub matchers: Vec<Matcher>,
    /// What classes of thread time are to fulfil, by their name.
    pub classes: Vec<Matcher>,
}

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadSelector {
    /// Where it stops being one: the number of the character, from 1.
    pub at: usize,
    /// What is wrong there.
    pub message: String,
}

impl fmt::Display for BadSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}: {}", self.at, self.message)
    }
}

impl std::error::Error for BadSelector {}

/// Reads a selector.
///
/// # Errors
/// The text is none, or longer than is accepted.
pub fn parse(text: &str) -> Result<Selector, BadSelector> {
    if text.len() > MAX_BYTES {
        let message = format!("the selector is longer than {MAX_BYTES} bytes: use fewer matchers");
        return Err(BadSelector { at: 1, message });
    }
    let mut reader = Reader { text, offset: 0 };
    let mut selector = Selector::default();
    reader.skip_space();
    selector.name = reader.name(is_type_character).to_owned();
    reader.skip_space();
    if reader.takes('{') {
        matchers(&mut reader, &mut selector)?;
    } else if selector.name.is_empty() {
        return Err(reader.expected("a name or {"));
    }
    reader.skip_space();
    match reader.peek() {
        None => Ok(selector),
        Some(_) if text.trim_end().ends_with('}') => Err(reader.expected("{")),
        Some(_) => Err(reader.expected("the end")),
    }
}

fn matchers(reader: &mut Reader<'_>, selector: &mut Selector) -> Result<(), BadSelector> {
    loop {
        reader.skip_space();
        if reader.takes('}') {
            return Ok(());
        }
        let at = reader.offset;
        if selector.matchers.len() + selector.classes.len() >= MAX_MATCHERS {
            return Err(reader.error_at(at, format!("more than {MAX_MATCHERS} matchers: use fewer")));
        }
        let name = reader.label_name()?;
        reader.skip_space();
        let operator = reader.operator()?;
        reader.skip_space();
        let value_at = reader.offset;
        let value = reader.string()?.ok_or_else(|| reader.expected("a value in quotes"))?;
        if name == "__name__" {
            return Err(reader.error_at(at, "write what is asked for before the braces: cpu{...}".to_owned()));
        }
        let matcher = Matcher::new(&name, operator, &value)
            .map_err(|error| reader.error_at(value_at, one_line(&error.to_string())))?;
        if name == CLASS {
            selector.classes.push(matcher)
        } else {
            selector.matchers.push(matcher)
        }
        reader.skip_space();
        if !reader.takes(',') {
            return if reader.takes('}') { Ok(()) } else { Err(reader.expected(", or }")) };
        }
    }
}

/// Errors of regular expressions are drawings of several lines; the last says what is wrong.
fn one_line(error: &str) -> String {
    let first = error.lines().next().unwrap_or_default().trim_end();
    match error.lines().last().and_then(|line| line.trim().strip_prefix("error: ")) {
        Some(reason) => format!("{} {reason}", first.trim_end_matches("regex parse error:").trim_end()),
        None => first.to_owned(),
    }
}

/// Beside PromQL's, `.` and `-`: signals have the one, kinds of profiles may have the other, and nothing is calculated here.
fn is_type_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '.' | '-')
}

fn is_label_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

struct Reader<'t> {
    text: &'t str,
    /// In bytes, at the begin of a character.
    offset: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        &self.text[self.offset..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.offset += c.len_utf8();
        Some(c)
    }

    fn takes(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        if is_there {
            self.offset += wanted.len_utf8();
        }
        is_there
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.offset += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// The characters from here on that may be in a name; empty where the first must not begin one.
    fn name(&mut self, is_part: impl Fn(char) -> bool) -> &'t str {
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
            return "";
        }
        let name = &rest[..rest.find(|c| !is_part(c)).unwrap_or(rest.len())];
        self.offset += name.len();
        name
    }

    fn label_name(&mut self) -> Result<String, BadSelector> {
        let at = self.offset;
        if let Some(name) = self.string()? {
            let message = "a label's name is not empty".to_owned();
            return if name.is_empty() { Err(self.error_at(at, message)) } else { Ok(name) };
        }
        match self.name(is_label_character) {
            "" => Err(self.expected("a label's name or }")),
            name => Ok(name.to_owned()),
        }
    }

    fn operator(&mut self) -> Result<Operator, BadSelector> {
        for (written, operator) in [
            ("=~", Operator::Matches),
            ("!~", Operator::MatchesNot),
            ("!=", Operator::IsNot),
            ("=", Operator::Is),
        ] {
            if self.rest().starts_with(written) {
                self.offset += written.len();
                return Ok(operator);
            }
        }
        Err(self.expected("=, !=, =~ or !~"))
    }

    /// A string in quotes; `None` where no quote begins here.
    fn string(&mut self) -> Result<Option<String>, BadSelector> {
        let start = self.offset;
        let Some(quote @ ('"' | '\'' | '`')) = self.peek() else { return Ok(None) };
        self.offset += 1;
        let mut bytes = Vec::new();
        loop {
            let at = self.offset;
            match self.next() {
                None => return Err(self.error_at(start, "the string has no end".to_owned())),
                Some('\n') if quote != '`' => {
                    return Err(self.error_at(at, "a line ends within a string: write \\n".to_owned()));
                }
                Some(c) if c == quote => break,
                Some('\\') if quote != '`' => self.escape(at, quote, &mut bytes)?,
                Some(c) => bytes.extend(c.encode_utf8(&mut [0; 4]).bytes()),
            }
        }
        let string = String::from_utf8(bytes)
            .map_err(|_| self.error_at(start, "the string's escapes make no UTF-8".to_owned()))?;
        Ok(Some(string))
    }

    /// What follows a backslash, as Go and PromQL have it.
    fn escape(&mut self, at: usize, quote: char, bytes: &mut Vec<u8>) -> Result<(), BadSelector> {
        let unknown =
            |reader: &Self| reader.error_at(at, "unknown escape: write \\\\ for a backslash".to_owned());
        let (digits, radix) = match self.next() {
            Some('a') => return push(bytes, 0x07),
            Some('b') => return push(bytes, 0x08),
            Some('f') => return push(bytes, 0x0c),
            Some('n') => return push(bytes, b'\n'),
            Some('r') => return push(bytes, b'\r'),
            Some('t') => return push(bytes, b'\t'),
            Some('v') => return push(bytes, 0x0b),
            Some('\\') => return push(bytes, b'\\'),
            Some(c) if c == quote => {
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                return Ok(());
            }
            Some('x') => (2, 16),
            Some('u') => (4, 16),
            Some('U') => (8, 16),
            Some('0'..='7') => {
                self.offset -= 1;
                (3, 8)
            }
            _ => return Err(unknown(self)),
        };
        let mut value: u32 = 0;
        for _ in 0..digits {
            let digit = self.next().and_then(|c| c.to_digit(radix)).ok_or_else(|| unknown(self))?;
            // Eight hexadecimal digits just fit.
            value = value.wrapping_mul(radix).wrapping_add(digit);
        }
        if digits > 3 {
            let c = char::from_u32(value).ok_or_else(|| unknown(self))?;
            bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
            return Ok(());
        }
        push(bytes, u8::try_from(value).map_err(|_| unknown(self))?)
    }

    fn expected(&self, what: &str) -> BadSelector {
        let found = match self.peek() {
            None => "the end".to_owned(),
            Some(c) => format!("{c:?}"),
        };
        self.error_at(self.offset, format!("expected {what}, found {found}"))
    }

    fn error_at(&self, offset: usize, message: String) -> BadSelector {
        BadSelector { at: self.text[..offset].chars().count() + 1, message }
    }
}

fn push(bytes: &mut Vec<u8>, byte: u8) -> Result<(), BadSelector> {
    bytes.push(byte);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::labels::Labels;

    fn admits(text: &str, labels: &[(&str, &str)]) -> bool {
        let labels: Labels = labels.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        parse(text).expect(text).matchers.iter().all(|matcher| matcher.admits(&labels))
    }

    #[test]
    fn selectors_are_those_of_promql() {
        let web = [("host", "a"), ("pod", "web-1")];
        for (text, name) in [
            ("cpu", "cpu"),
            (" wall { } ", "wall"),
            ("{}", ""),
            ("cpu.utilization{host='a'}", "cpu.utilization"),
            (r#"off-cpu{host="a",pod=~"web-.*",}"#, "off-cpu"),
            (r#"{"pod" != `db`, host !~ "b|c"}"#, ""),
        ] {
            assert_eq!(parse(text).expect(text).name, name, "{text}");
            assert!(admits(text, &web), "{text}");
        }
        assert!(!admits(r#"cpu{pod=~"web"}"#, &web));
        assert!(admits(r#"{"app.kubernetes.io/name"="x"}"#, &[("app.kubernetes.io/name", "x")]));
        let selector = parse(r#"wall{class=~"io[.].*", host="a"}"#).expect("a selector");
        assert_eq!((selector.classes.len(), selector.matchers.len()), (1, 1));
    }

    #[test]
    fn strings_have_the_escapes_of_promql() {
        for (written, value) in [
            (r#""a\"b""#, "a\"b"),
            (r"'a\'b'", "a'b"),
            (r#""\n\t\\\x41\101\u00e9\U0001f600""#, "\n\t\\AA\u{e9}\u{1f600}"),
            (r#""\xc3\xa9""#, "\u{e9}"),
            (r"`a\n`", r"a\n"),
        ] {
            assert!(admits(&format!("{{x={written}}}"), &[("x", value)]), "{written}");
        }
    }

    #[test]
    fn errors_say_where_and_what() {
        for (text, error) in [
            ("", "at 1: expected a name or {, found the end"),
            ("1{}", "at 1: expected a name or {, found '1'"),
            ("cpu host=\"a\"}", "at 5: expected {, found 'h'"),
            ("cpu{} x", "at 7: expected the end, found 'x'"),
            ("cpu{host}", "at 9: expected =, !=, =~ or !~, found '}'"),
            ("cpu{host=a}", "at 10: expected a value in quotes, found 'a'"),
            ("{hé=\"a\"}", "at 3: expected =, !=, =~ or !~, found 'é'"),
            ("{é=\"é\" b}", "at 2: expected a label's name or }, found 'é'"),
            ("{a=\"é\" b}", "at 8: expected , or }, found 'b'"),
            ("{,}", "at 2: expected a label's name or }, found ','"),
            ("{a=\"b", "at 4: the string has no end"),
            ("{a=\"b\n\"}", "at 6: a line ends within a string: write \\n"),
            (r#"{a="b\q"}"#, r"at 6: unknown escape: write \\ for a backslash"),
            (r#"{a="\777"}"#, r"at 5: unknown escape: write \\ for a backslash"),
            (r#"{a="\ud800"}"#, r"at 5: unknown escape: write \\ for a backslash"),
            (r#"{a="\xff"}"#, "at 4: the string's escapes make no UTF-8"),
            (r#"{""="a"}"#, "at 2: a label's name is not empty"),
            (r#"{__name__="cpu"}"#, "at 2: write what is asked for before the braces: cpu{...}"),
            (r#"{a=~"("}"#, "at 5: bad regular expression for a: unclosed group"),
        ] {
            assert_eq!(parse(text).expect_err(text).to_string(), error, "{text}");
        }
        let many = format!("{{{}}}", "a=\"\",".repeat(MAX_MATCHERS + 1));
        assert!(parse(&many).expect_err("too many").message.contains("matchers"));
        assert!(parse(&"a".repeat(MAX_BYTES + 1)).is_err());
    }

    #[test]
    fn no_text_makes_it_panic() {
        let seeds =
            [r#"cpu{host="a\x41\u00e9", pod=~"web-.*|\d+",} é"#, "wall{`a`!~'b'}", "{\"\\U0001f600\"=\"\"}"];
        let alphabet: Vec<char> = "{}=!~\"'`\\xuU0179aé,. \n(*[\u{1f600}".chars().collect();
        // xorshift: the same texts in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).expect("below")
        };
        for round in 0..20_000 {
            let mut text: Vec<char> = seeds[round % seeds.len()].chars().collect();
            for _ in 0..=random(4) {
                let at = random(text.len().max(1)).min(text.len());
                match random(3) {
                    0 if at < text.len() => drop(text.remove(at)),
                    1 if at < text.len() => text[at] = alphabet[random(alphabet.len())],
                    _ => text.insert(at, alphabet[random(alphabet.len())]),
                }
            }
            let text: String = text.into_iter().collect();
            if let Err(error) = parse(&text) {
                assert!(error.at >= 1 && error.at <= text.chars().count() + 1, "{text}");
                assert!(!error.message.contains('\n'), "{error}");
            }
        }
    }
}
