//! Numbers of what is stored once for all hosts. They are made of the content, so that collectors that never heard of each other agree.
//!
//! A number is the first 64 bits of a SHA-256. Of the 100 million stacks of a large fleet two have the same one with a probability of
//! 1 in 3,700, and then one is shown as the other; nobody can look for a stack that is taken for a given one of somebody else's. 128 bits
//! would be past all doubt, and twice the bytes of the largest column.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};

/// What a number is of, so that things of several kinds with the same bytes have several numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of {
    Series = 1,
    Frame = 2,
    Stack = 3,
}

/// Adds parts up to a number. Each part's length is in it, so that no two lists of parts run together.
pub(super) struct Content(Context);

impl Content {
    pub(super) fn new(of: Of) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&[of as u8]);
        Self(context)
    }

    pub(super) fn number(mut self, number: u64) -> Self {
        self.0.update(&number.to_le_bytes());
        self
    }

    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let mut with_length = self.number(bytes.len() as u64);
        with_length.0.update(bytes);
        with_length
    }

    /// The number; 0 stands for none, and is never one.
    pub(super) fn finish(self) -> u64 {
        let digest = self.0.finish();
        let first = digest.as_ref().first_chunk().copied().unwrap_or_default();
        u64::from_le_bytes(first).max(1)
    }
}

/// The number of a label set.
pub(super) fn of_labels(labels: &BTreeMap<String, String>) -> u64 {
    let content = Content::new(Of::Series);
    labels
        .iter()
        .fold(content, |content, (name, value)| content.bytes(name.as_bytes()).bytes(value.as_bytes()))
        .finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_of_the_content_and_stay() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let one = of_labels(&labels(&[("host", "a"), ("process", "web")]));
        assert_eq!(one, of_labels(&labels(&[("process", "web"), ("host", "a")])));
        assert_ne!(one, of_labels(&labels(&[("host", "apro"), ("cess", "web")])));
        assert_ne!(Content::new(Of::Frame).number(1).finish(), Content::new(Of::Stack).number(1).finish());
        // What is stored refers to it: another release must not make another number.
        assert_eq!(of_labels(&labels(&[("host", "a")])), 16_843_299_763_575_291_791);
    }
}
