//! Which names are referred to, while those that are not are looked for.

/// A set of numbers, a bit for each.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(Vec<u64>);

impl Marks {
    /// Adds a number.
    pub(super) fn add(&mut self, number: u32) {
        let word = number as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (number % 64);
    }

    /// Adds all of another set.
    pub(super) fn add_all(&mut self, other: &Self) {
        if other.0.len() > self.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own |= other;
        }
    }

    fn has(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }
}

/// The names of a table that are in use. From when they are asked for on, every number that is given out is in use, however old the name.
#[derive(Debug, Default)]
pub(super) struct InUse {
    marks: Option<Marks>,
    /// Numbers from this one on were given out later.
    end: u32,
}

impl InUse {
    /// Begins to find out; so far none is, of the numbers before this one.
    pub(super) fn begin(&mut self, end: u32) {
        *self = Self { marks: Some(Marks::default()), end };
    }

    /// Ends.
    pub(super) fn end(&mut self) {
        self.marks = None;
    }

    /// One is; nothing happens where nobody asks.
    pub(super) fn mark(&mut self, number: u32) {
        if let Some(marks) = &mut self.marks {
            marks.add(number);
        }
    }

    /// These are.
    pub(super) fn mark_all(&mut self, numbers: &Marks) {
        if let Some(marks) = &mut self.marks {
            marks.add_all(numbers);
        }
    }

    /// Whether one is; all are where nobody asks.
    pub(super) fn has(&self, number: u32) -> bool {
        number >= self.end || self.marks.as_ref().is_none_or(|marks| marks.has(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_in_use_that_were_marked_or_came_later() {
        let mut names = InUse::default();
        assert!(names.has(3));
        names.begin(200);
        names.mark(3);
        let mut others = Marks::default();
        [64, 150, 300].into_iter().for_each(|number| others.add(number));
        names.mark_all(&others);
        let expected = [
            (0, false),
            (2, false),
            (3, true),
            (4, false),
            (64, true),
            (150, true),
            (199, false),
            (200, true),
        ];
        for (number, is_used) in expected {
            assert_eq!(names.has(number), is_used, "{number}");
        }
        names.end();
        assert!(names.has(199));
    }
}
