//! What a profile query asks for: which stored kind, and which classes of thread time of it.

use chokepoint_analysis::activity::{Class, Group};

use super::QueryError;
use super::selector::Selector;
use crate::labels::Labels;

/// The stored kind that has the time of threads by class.
pub(crate) const WALL: &str = "wall";
const WALL_TITLE: &str = "Thread time";

/// What is asked for, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileType {
    /// As it was asked for: `cpu`.
    pub name: String,
    /// What its weights are, in words: `CPU time`.
    pub title: String,
    /// The stored kind.
    pub kind: String,
    /// The classes; `None` for all, and for kinds that have none.
    pub classes: Option<Vec<Class>>,
}

/// Types that are classes of the stored `wall`: name, other name, title, which classes. Those of `chokepoint record -e` mean the same here.
type Named = (&'static str, &'static str, &'static str, fn(Group) -> bool);
const NAMED: [Named; 10] = [
    ("cpu", "cpu", "CPU time", |group| group == Group::Cpu),
    ("offcpu", "off-cpu", "Off-CPU time", |group| group != Group::Cpu),
    ("blocked", "blocked", "Blocked time", |group| !matches!(group, Group::Cpu | Group::Queue)),
    ("queue", "run-queue", "Run-queue time", |group| group == Group::Queue),
    ("io", "io", "I/O wait", |group| group == Group::Io),
    ("memory", "memory", "Memory wait", |group| group == Group::Memory),
    ("lock", "lock", "Lock wait", |group| group == Group::Lock),
    ("net", "net", "Network wait", |group| group == Group::Net),
    ("wait", "wait", "Other waits", |group| group == Group::Wait),
    ("idle", "idle", "Idle time", |group| group == Group::Idle),
];

/// The names of the types that are classes of thread time, and of all thread time, with their titles.
pub fn of_time() -> impl Iterator<Item = (&'static str, &'static str)> {
    NAMED.into_iter().map(|(name, _, title, _)| (name, title)).chain([(WALL, WALL_TITLE)])
}

/// Whether a type of this name is time of threads, so that no kind of that name is ever asked for.
pub fn is_of_time(name: &str) -> bool {
    name == WALL || NAMED.iter().any(|(one, other, ..)| [*one, *other].contains(&name))
}

impl ProfileType {
    /// The type that a selector names. Any name that is not known here is that of a stored kind: `faults`.
    ///
    /// # Errors
    /// The selector names none, or classes that the type does not have.
    pub fn of(selector: &Selector) -> Result<Self, QueryError> {
        let name = selector.name.as_str();
        if name.is_empty() {
            return Err(QueryError::bad(
                "say what of: cpu{...}, offcpu{...}, wall{...}, or another kind that is stored",
            ));
        }
        let named = NAMED.iter().find(|(one, other, ..)| [*one, *other].contains(&name));
        let of_groups =
            named.map(|(.., has)| Class::ALL.into_iter().filter(|class| has(class.group())).collect());
        let is_wall = is_of_time(name);
        if !is_wall && !selector.classes.is_empty() {
            return Err(QueryError::bad(format!(
                "{name} has no classes: leave class out, or ask for wall{{class=...}}"
            )));
        }
        let classes = if selector.classes.is_empty() {
            of_groups
        } else {
            let mut classes: Vec<Class> = of_groups.unwrap_or_else(|| Class::ALL.to_vec());
            classes.retain(|class| {
                let labels: Labels = [("class".to_owned(), class.name().to_owned())].into();
                selector.classes.iter().all(|matcher| matcher.admits(&labels))
            });
            if classes.is_empty() {
                let known = Class::ALL.map(Class::name).join(", ");
                return Err(QueryError::bad(format!("{name} has no such class; the classes are {known}")));
            }
            Some(classes)
        };
        let title = match named {
            Some((_, _, title, _)) => *title,
            None if is_wall => WALL_TITLE,
            None => name,
        };
        Ok(Self {
            name: name.to_owned(),
            title: title.to_owned(),
            kind: if is_wall { WALL } else { name }.to_owned(),
            classes,
        })
    }

    /// The names of the classes, as the store is asked for them: none for all.
    #[must_use]
    pub fn class_names(&self) -> Vec<String> {
        self.classes.iter().flatten().map(|class| class.name().to_owned()).collect()
    }

    /// Whether time of this class is part of it.
    #[must_use]
    pub fn has(&self, class: Class) -> bool {
        self.classes.as_ref().is_none_or(|classes| classes.contains(&class))
    }

    /// Whether it is time of threads, which has classes.
    #[must_use]
    pub fn is_of_time(&self) -> bool {
        self.kind == WALL
    }

    /// Whether its classes say more than its functions do: on a CPU they do not.
    #[must_use]
    pub fn is_told_by_class(&self) -> bool {
        self.kind == WALL
            && self
                .classes
                .as_ref()
                .is_none_or(|classes| classes.iter().any(|class| class.group() != Group::Cpu))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::selector::parse;

    fn of(text: &str) -> Result<ProfileType, QueryError> {
        ProfileType::of(&parse(text).expect(text))
    }

    #[test]
    fn types_are_classes_of_thread_time_or_stored_kinds() {
        for (text, kind, classes) in [
            ("wall", "wall", &[] as &[&str]),
            ("cpu{host='a'}", "wall", &["cpu.user", "cpu.kernel", "cpu.stolen"]),
            ("run-queue", "wall", &["run-queue", "throttled"]),
            ("lock", "wall", &["lock.kernel", "lock.file", "futex"]),
            ("wall{class='futex'}", "wall", &["futex"]),
            ("net{class!~'net[.](send|recv)'}", "wall", &["net.connect", "net.accept"]),
            ("faults", "faults", &[]),
        ] {
            let found = of(text).expect(text);
            assert_eq!(
                (found.kind.as_str(), found.class_names()),
                (kind, classes.iter().map(ToString::to_string).collect())
            );
        }
        // What is on a CPU and what is not add up to all.
        let both = of("cpu").unwrap().class_names().len() + of("offcpu").unwrap().class_names().len();
        assert_eq!(both, Class::ALL.len());
        assert!(of("wall").unwrap().is_told_by_class() && !of("cpu").unwrap().is_told_by_class());
        for bad in ["{}", "faults{class='futex'}", "cpu{class='futex'}"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }
}
