//! Who speaks.

use chokepoint_proto::stream::Hello;
use thiserror::Error;

/// The newest version of the protocol that is spoken here.
pub(super) const PROTOCOL: u32 = 1;

/// Bytes of an agent's identity.
const AGENT_BYTES: usize = 16;
/// Bytes of a host's name: what DNS has.
const MAX_HOST: usize = 253;
/// Bytes of a kernel's release, a program's version.
const MAX_VERSION: usize = 128;
/// Labels that an operator may give a host.
const MAX_LABELS: usize = 32;
/// Bytes of a label's name.
const MAX_NAME: usize = 64;
/// Bytes of a label's value.
const MAX_VALUE: usize = 256;
/// What rows are called by what they are of, and no operator may call a host by.
const RESERVED: &[&str] = &["host", "process", "thread", "instance"];

/// A hello that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum BadHello {
    #[error("protocol 0 does not exist: the oldest is 1")]
    Protocol,
    #[error("an agent's identity has 16 bytes that are not all zero")]
    Agent,
    #[error("a host's name has 1 to {MAX_HOST} bytes and no control characters")]
    Host,
    #[error(
        "a kernel's release and a program's version have at most {MAX_VERSION} bytes and no control characters"
    )]
    Version,
    #[error("more than {MAX_LABELS} labels: keep those by which hosts are told apart")]
    TooManyLabels,
    #[error("a label's name has 1 to {MAX_NAME} letters, digits and underscores, and begins with no digit")]
    LabelName,
    #[error("no host can be labelled {0}: it is what rows are labelled by")]
    Reserved(&'static str),
    #[error("the value of the label {0} has more than {MAX_VALUE} bytes or control characters")]
    LabelValue(String),
    #[error("labels are to be in the order of their names, each once")]
    LabelOrder,
}

/// Checks a hello.
///
/// # Errors
/// What is not accepted of it.
pub(super) fn check(hello: &Hello) -> Result<(), BadHello> {
    let ensure = |is_well: bool, error: BadHello| if is_well { Ok(()) } else { Err(error) };
    ensure(hello.protocol > 0, BadHello::Protocol)?;
    ensure(hello.agent.len() == AGENT_BYTES && hello.agent.iter().any(|byte| *byte != 0), BadHello::Agent)?;
    ensure(!hello.host.is_empty() && is_plain(&hello.host, MAX_HOST), BadHello::Host)?;
    for version in [&hello.kernel, &hello.program] {
        ensure(is_plain(version, MAX_VERSION), BadHello::Version)?;
    }
    ensure(hello.labels.len() <= MAX_LABELS, BadHello::TooManyLabels)?;
    for label in &hello.labels {
        ensure(is_name(&label.name), BadHello::LabelName)?;
        if let Some(reserved) = RESERVED.iter().find(|reserved| **reserved == label.name) {
            return Err(BadHello::Reserved(reserved));
        }
        if !is_plain(&label.value, MAX_VALUE) {
            return Err(BadHello::LabelValue(label.name.clone()));
        }
    }
    let is_in_order = hello.labels.is_sorted_by(|one, next| one.name < next.name);
    ensure(is_in_order, BadHello::LabelOrder)
}

fn is_plain(text: &str, most: usize) -> bool {
    text.len() <= most && !text.chars().any(char::is_control)
}

fn is_name(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    (1..=MAX_NAME).contains(&name.len())
        && name.bytes().next().is_some_and(is_letter)
        && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use chokepoint_proto::stream::Label;

    use super::*;

    fn with(change: impl FnOnce(&mut Hello)) -> Result<(), BadHello> {
        let mut hello = Hello {
            protocol: 2,
            agent: vec![1; 16],
            host: "a-host.example".to_owned(),
            labels: vec![label("rack", "7"), label("zone", "b")],
            ..Hello::default()
        };
        change(&mut hello);
        check(&hello)
    }

    fn label(name: &str, value: &str) -> Label {
        Label { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn hellos_are_bounded_and_call_nothing_by_another_name() {
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|hello| hello.protocol = 0), Err(BadHello::Protocol));
        assert_eq!(with(|hello| hello.agent = vec![0; 16]), Err(BadHello::Agent));
        assert_eq!(with(|hello| hello.agent = vec![1; 15]), Err(BadHello::Agent));
        assert_eq!(with(|hello| hello.host = String::new()), Err(BadHello::Host));
        assert_eq!(with(|hello| hello.host = "a\nb".to_owned()), Err(BadHello::Host));
        assert_eq!(with(|hello| hello.kernel = "x".repeat(129)), Err(BadHello::Version));
        let many =
            |hello: &mut Hello| hello.labels = (0..33).map(|n| label(&format!("a{n:02}"), "")).collect();
        assert_eq!(with(many), Err(BadHello::TooManyLabels));
        for name in ["", "1a", "a-b", "ä", &"a".repeat(65)] {
            assert_eq!(
                with(|hello| hello.labels = vec![label(name, "")]),
                Err(BadHello::LabelName),
                "{name}"
            );
        }
        assert_eq!(with(|hello| hello.labels = vec![label("host", "x")]), Err(BadHello::Reserved("host")));
        let long = "x".repeat(257);
        assert_eq!(with(|hello| hello.labels[1].value = long), Err(BadHello::LabelValue("zone".to_owned())));
        assert_eq!(with(|hello| hello.labels.swap(0, 1)), Err(BadHello::LabelOrder));
        assert_eq!(with(|hello| hello.labels[1].name = "rack".to_owned()), Err(BadHello::LabelOrder));
    }
}
