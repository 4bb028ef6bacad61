//! Makes names from profiled processes safe to show. A process chooses its own name, the names of its threads and files
//! and, through a perf map, of its functions, so all of them are hostile input.

/// What begins the name that stands for the outermost frames of a stack where these are missing; the cause follows.
pub const INCOMPLETE: &str = "[incomplete: ";

/// The name without characters that act instead of being shown: control characters (a terminal's escape sequences),
/// those that change the direction of text, and those that XML cannot hold. White space becomes plain spaces.
#[must_use]
pub fn printable(name: &str) -> String {
    name.chars().map(shown).collect()
}

/// A name as one element of a folded stack. It is [`printable`] and not empty, and a reader of folded stacks can take it
/// for nothing else:
///
/// | in the name | why it is changed |
/// |---|---|
/// | `;` becomes `:` | separates elements |
/// | spaces around it are dropped | readers do so |
/// | a last word that is a number is joined with `_` | would be read as a second count |
/// | a final `_[k]`, `_[j]`, `_[i]` or `_[w]` gets round brackets | marks kernel and JIT frames |
/// | `_` precedes a first `#` | begins a comment |
#[must_use]
pub fn element(name: &str) -> String {
    let name = printable(name).replace(';', ":");
    let name = name.trim();
    if name.is_empty() {
        return "[unnamed]".to_owned();
    }
    let mut name = name.to_owned();
    if let Some(space) = name.rfind(' ')
        && name[space + 1..].chars().all(|c| c.is_ascii_digit() || c == '.')
    {
        name.replace_range(space..=space, "_");
    }
    if let Some(mark) = ["k", "j", "i", "w"].iter().find(|mark| name.ends_with(&format!("_[{mark}]"))) {
        name.truncate(name.len() - "[k]".len());
        name.push_str(&format!("({mark})"));
    }
    if name.starts_with('#') {
        name.insert(0, '_');
    }
    name
}

fn shown(c: char) -> char {
    let changes_direction =
        matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let no_character = u32::from(c) & 0xfffe == 0xfffe;
    if c.is_whitespace() {
        ' '
    } else if c.is_control() || changes_direction || no_character {
        '?'
    } else {
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printable_names_hold_nothing_that_acts() {
        for (name, expected) in [
            ("std::vec<T>::push", "std::vec<T>::push"),
            ("größe 尺寸", "größe 尺寸"),
            ("red\u{1b}[31m", "red?[31m"),
            ("two\nlines\tand\u{2028}more\u{85}", "two lines and more "),
            ("nul\0", "nul?"),
            ("back\u{202e}wards", "back?wards"),
            ("\u{ffff}\u{fffe}\u{1fffe}", "???"),
        ] {
            assert_eq!(printable(name), expected, "{name:?}");
        }
    }

    #[test]
    fn elements_cannot_be_taken_for_anything_else_in_a_folded_line() {
        for (name, expected) in [
            ("main", "main"),
            ("operator new(unsigned long)", "operator new(unsigned long)"),
            ("[u8; 4]::fill", "[u8: 4]::fill"),
            ("a;b;c 7\nd 8", "a:b:c 7 d_8"),
            ("worker 3", "worker_3"),
            ("share 0.5", "share_0.5"),
            ("3", "3"),
            ("  padded\n", "padded"),
            ("", "[unnamed]"),
            (" \t", "[unnamed]"),
            ("# a comment", "_# a comment"),
            ("schedule_[k]", "schedule_(k)"),
            ("a_[j]_[k]", "a_[j]_(k)"),
            ("a_[x]", "a_[x]"),
            ("_[é]", "_[é]"),
        ] {
            assert_eq!(element(name), expected, "{name:?}");
        }
    }
}
