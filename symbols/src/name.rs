//! Names as people read them.
//!
//! What a file calls a function may be mangled, may be a megabyte long, and may contain terminal escapes. Every
//! name and path that is shown went through [`function`] or [`path`].
//!
//! C++ functions are shown without parameters and return types, template arguments kept:
//! `std::vector<int>::push_back`, not `void std::vector<int>::push_back(int const&)`. A flame graph box has room for
//! the former only, perf shows the same, and overloads that share a name are told apart by file and line. Rust
//! functions are shown without the hash that ends a legacy symbol and without crate disambiguators.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;

/// The longest function name or path that is reported. Names in heavily templated C++ reach a few hundred bytes
/// once parameters are gone; beyond this nobody reads them and they only cost memory.
pub const MAX_BYTES: usize = 1024;

/// The longest mangled name that is demangled: mangled names of real programs stay below, and the demanglers'
/// time grows with it.
const MAX_MANGLED_BYTES: usize = 16 * 1024;

/// A function's name: demangled, without control characters, at most [`MAX_BYTES`] long.
#[must_use]
pub fn function(raw: &str) -> String {
    clean(demangled(raw).unwrap_or(Cow::Borrowed(raw)))
}

/// A source file's path without control characters, at most [`MAX_BYTES`] long.
#[must_use]
pub fn path(raw: &Path) -> String {
    clean(raw.to_string_lossy())
}

/// A name that is not mangled, made of bytes of unknown origin.
#[must_use]
pub fn plain(raw: &[u8]) -> String {
    clean(String::from_utf8_lossy(&raw[..raw.len().min(2 * MAX_BYTES)]))
}

fn clean(text: Cow<'_, str>) -> String {
    let mut text = match text.contains(char::is_control) {
        true => text.replace(char::is_control, "?"),
        false => text.into_owned(),
    };
    if text.len() > MAX_BYTES {
        text.truncate(text.floor_char_boundary(MAX_BYTES - '…'.len_utf8()));
        text.push('…');
    }
    text
}

fn demangled(raw: &str) -> Option<Cow<'_, str>> {
    // Mangled names of both languages begin so; plain C names, the most frequent, are done here.
    let mangled = raw.starts_with("_Z") || raw.starts_with("_R") || raw.starts_with("__Z");
    if !mangled || raw.len() > MAX_MANGLED_BYTES {
        return None;
    }
    let mut out = Bounded(String::new());
    if let Ok(rust) = rustc_demangle::try_demangle(raw) {
        // An output over the bound ends in an error and stays cut at the bound.
        let complete = write!(out, "{rust:#}").is_ok() || out.is_full();
        return (complete && !out.0.is_empty()).then_some(Cow::Owned(out.0));
    }
    let symbol = cpp_demangle::BorrowedSymbol::new(raw.as_bytes()).ok()?;
    let options = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
    let complete = symbol.structured_demangle(&mut out, &options).is_ok() || out.is_full();
    (complete && !out.0.is_empty()).then_some(Cow::Owned(out.0))
}

/// Takes a little more than [`MAX_BYTES`], then fails: a few substitutions in a C++ name stand for gigabytes.
struct Bounded(String);

impl Bounded {
    fn is_full(&self) -> bool {
        self.0.len() > MAX_BYTES
    }
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = (2 * MAX_BYTES).saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room.min(text.len()))]);
        if self.is_full() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_demangled_for_reading() {
        let cases = [
            // Plain names stay.
            ("main", "main"),
            ("_start", "_start"),
            ("__libc_start_main@@GLIBC_2.34", "__libc_start_main@@GLIBC_2.34"),
            ("_Zebra", "_Zebra"),
            ("", ""),
            // C++: no parameters, no return type, template arguments kept.
            ("_ZN5space3fooEibc", "space::foo"),
            ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"),
            ("_ZN12_GLOBAL__N_14workEv", "(anonymous namespace)::work"),
            ("_Z3maxIdET_S0_S0_", "max<double>"),
            ("_ZN1CC1Ev", "C::C"),
            // Rust, legacy and v0.
            ("_ZN4core3fmt5Write9write_fmt17h0123456789abcdefE", "core::fmt::Write::write_fmt"),
            (
                "_ZN50_$LT$T$u20$as$u20$core..convert..Into$LT$U$GT$$GT$4into17h2b3d4c5e6f708192E",
                "<T as core::convert::Into<U>>::into",
            ),
            ("_RNvCskwGfYPst2Cb_3foo16example_function", "foo::example_function"),
            ("_RINvNtC3std3mem8align_ofjE", "std::mem::align_of::<usize>"),
        ];
        for (raw, expected) in cases {
            assert_eq!(function(raw), expected, "{raw}");
        }
    }

    #[test]
    fn hostile_names_are_cleaned_and_bounded() {
        assert_eq!(function("a\x1b[31m\nb\0c"), "a?[31m?b?c");
        assert_eq!(plain(b"\xffx\r"), "\u{fffd}x?");
        let long = function(&"é".repeat(5000));
        assert!(long.len() <= MAX_BYTES && long.ends_with('…'));
        // Each parameter pack refers to the last one twice: 2^40 names if it were written out.
        let mut bomb = String::from("_ZN1aI");
        bomb.push_str("1bI1cS_E");
        for i in 0..36 {
            let previous = char::from_digit(i, 36).unwrap().to_ascii_uppercase();
            bomb.push_str(&format!("S{previous}_IS{previous}_S{previous}_E"));
        }
        bomb.push_str("E1fEv");
        assert!(function(&bomb).len() <= MAX_BYTES);
        assert!(function(&format!("_ZN{}", "I".repeat(1_000_000))).len() <= MAX_BYTES);
    }
}
