//! Labels say whose a row is: host, process, pod, and what operators add. Matchers select by them, as PromQL has it.

use std::collections::BTreeMap;

use regex::{Regex, RegexBuilder};
use thiserror::Error;

/// Label names with their values. A label that is absent is the same as one that is empty.
pub type Labels = BTreeMap<String, String>;

/// Bytes that the program of a regular expression may take: thousands of characters' worth.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// How a label's value is compared.
#[derive(Clone, Debug)]
enum Test {
    Is(String),
    IsNot(String),
    /// All of the value matches.
    Matches(Regex),
    MatchesNot(Regex),
}

/// How a matcher is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `=`
    Is,
    /// `!=`
    IsNot,
    /// `=~`
    Matches,
    /// `!~`
    MatchesNot,
}

/// A condition on one label.
#[derive(Clone, Debug)]
pub struct Matcher {
    /// The label's name.
    pub name: String,
    test: Test,
}

/// A regular expression that cannot be used.
#[derive(Debug, Error)]
#[error("bad regular expression for {name}: {source}")]
pub struct BadRegex {
    name: String,
    source: regex::Error,
}

impl Matcher {
    /// A condition that `name`'s value is to fulfil. Regular expressions match all of a value or not at all.
    ///
    /// # Errors
    /// Where a regular expression is none, or would take too much memory.
    pub fn new(name: &str, operator: Operator, value: &str) -> Result<Self, BadRegex> {
        let regex = || {
            let build = |expression: &str| {
                RegexBuilder::new(expression)
                    .size_limit(MAX_REGEX_BYTES)
                    .build()
                    .map_err(|source| BadRegex { name: name.to_owned(), source })
            };
            // By itself, too: `a)|(b` is none, and would be one in brackets.
            build(value)?;
            build(&format!("^(?s:{value})$"))
        };
        let test = match operator {
            Operator::Is => Test::Is(value.to_owned()),
            Operator::IsNot => Test::IsNot(value.to_owned()),
            Operator::Matches => Test::Matches(regex()?),
            Operator::MatchesNot => Test::MatchesNot(regex()?),
        };
        Ok(Self { name: name.to_owned(), test })
    }

    /// Whether labels fulfil it.
    #[must_use]
    pub fn admits(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.name).map_or("", String::as_str);
        match &self.test {
            Test::Is(wanted) => value == wanted,
            Test::IsNot(unwanted) => value != unwanted,
            Test::Matches(regex) => regex.is_match(value),
            Test::MatchesNot(regex) => !regex.is_match(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_compare_as_promql_has_it() {
        let labels: Labels = [("host", "a1"), ("pod", "web-0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let admits = |name, operator, value| {
            Matcher::new(name, operator, value).expect("a good expression").admits(&labels)
        };
        assert!(admits("host", Operator::Is, "a1") && !admits("host", Operator::Is, "a"));
        assert!(admits("host", Operator::IsNot, "b"));
        // All of the value, and either of several.
        assert!(admits("pod", Operator::Matches, "web-.*|db") && !admits("pod", Operator::Matches, "web"));
        assert!(admits("pod", Operator::MatchesNot, "db-.*"));
        // What is absent is empty.
        assert!(admits("container", Operator::Is, "") && admits("container", Operator::Matches, ".*"));
        assert!(!admits("container", Operator::IsNot, ""));
        for bad in ["(", "a)|(b", "(a{1000}){1000}{1000}"] {
            assert!(Matcher::new("pod", Operator::Matches, bad).is_err(), "{bad}");
        }
    }
}
