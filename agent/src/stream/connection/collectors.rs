//! Several collectors of one store: agents are spread over them, and move on when one does not answer.

/// The collectors of a list, `https://a:4040,https://b:4040`, as operators write it.
pub fn each(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim)
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn(usize);

impl Turn {
    /// Where an agent goes first: its identity is random, so a fleet's agents are spread evenly, each always the same way.
    #[must_use]
    pub fn of_agent(identity: &[u8]) -> Self {
        let eight = identity.first_chunk().copied().unwrap_or_default();
        Self(u64::from_le_bytes(eight) as usize)
    }

    /// The collector whose turn it is.
    #[must_use]
    pub fn collector(self, list: &str) -> &str {
        let count = each(list).count().max(1);
        each(list).nth(self.0 % count).unwrap_or(list)
    }

    /// It did not answer, or has ended the stream: it is the next one's turn.
    pub fn goes_on(&mut self) {
        self.0 = self.0.wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agents_are_spread_and_move_on() {
        let list = "http://a:1, http://b:1,http://c:1";
        assert_eq!(each(list).collect::<Vec<_>>(), ["http://a:1", "http://b:1", "http://c:1"]);
        let first = |first: u8| Turn::of_agent(&[first, 0, 0, 0, 0, 0, 0, 0, 9]).collector(list);
        assert_eq!([0, 1, 2, 3].map(first), ["http://a:1", "http://b:1", "http://c:1", "http://a:1"]);
        let mut turn = Turn::of_agent(&[2, 0, 0, 0, 0, 0, 0, 0]);
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(turn.collector(list));
            turn.goes_on();
        }
        assert_eq!(seen, ["http://c:1", "http://a:1", "http://b:1"]);
        assert_eq!(turn.collector("http://only:1"), "http://only:1");
    }
}
