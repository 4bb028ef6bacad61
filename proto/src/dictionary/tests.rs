use prost::Message;

use super::*;
use crate::stream::{Function, Line, ModuleKind, Signal};

/// A window of one process with stacks of these functions, outermost first, and a sample for each.
fn window(process: &str, stacks: &[&[&str]]) -> Window {
    let mut dictionary = Dictionary { reset: true, ..Dictionary::default() };
    let mut string = |text: &str| {
        dictionary.strings.push(text.to_owned());
        dictionary.strings.len() as u32 - 1
    };
    let (empty, process, class) = (string(""), string(process), string("cpu.user"));
    let names: Vec<Vec<u32>> =
        stacks.iter().map(|stack| stack.iter().map(|name| string(name)).collect()).collect();
    dictionary.modules.push(Module { kind: ModuleKind::Binary as i32, path: process, build_id: vec![1, 2] });
    dictionary.subjects.push(Subject { process, thread: empty, labels: vec![class, process] });
    let mut profile = Profile { kind: "wall".to_owned(), ..Profile::default() };
    for stack in names {
        let mut caller = 0;
        for name in stack {
            let function = dictionary.functions.len() as u32;
            dictionary.functions.push(Function { name, file: empty });
            dictionary.locations.push(Location {
                module: 0,
                address: u64::from(name),
                lines: vec![Line { function, line: 3 }],
                is_spin_wait: false,
            });
            dictionary.stack_parent.push(caller);
            dictionary.stack_location.push(function);
            caller = dictionary.stack_parent.len() as u32;
        }
        profile.subject.push(0);
        profile.stack.push(caller);
        profile.class.push(class);
        profile.count.push(1);
        profile.weight.push(5);
    }
    let signal = Signal {
        name: class,
        instance: empty,
        resource: class,
        kind: class,
        unit: empty,
        value: 1.5,
        ..Signal::default()
    };
    Window {
        duration_ns: 1,
        dictionary: Some(dictionary),
        profiles: vec![profile],
        signals: vec![signal],
        ..Window::default()
    }
}

/// What a window says, in words: with a dictionary that knows all of its numbers.
fn words(known: &Dictionary, window: &Window) -> Vec<String> {
    let string = |number: u32| known.strings[number as usize].as_str();
    let mut said = Vec::new();
    for profile in &window.profiles {
        for row in 0..profile.subject.len() {
            let mut frames = Vec::new();
            let mut node = profile.stack[row];
            while let Some(number) = node.checked_sub(1) {
                let location = &known.locations[known.stack_location[number as usize] as usize];
                let function = &known.functions[location.lines[0].function as usize];
                let module = &known.modules[location.module as usize];
                frames.push(format!("{}@{}", string(function.name), string(module.path)));
                node = known.stack_parent[number as usize];
            }
            let subject = &known.subjects[profile.subject[row] as usize];
            let labels: Vec<&str> = subject.labels.iter().map(|number| string(*number)).collect();
            said.push(format!(
                "{} {labels:?} {} {} {}",
                string(subject.process),
                string(profile.class[row]),
                frames.join("<"),
                profile.weight[row]
            ));
        }
    }
    said.extend(
        window.signals.iter().map(|signal| format!("{} {}", string(signal.name), string(signal.instance))),
    );
    said
}

fn whole_words(window: &Window) -> Vec<String> {
    words(window.dictionary.as_ref().expect("a whole window"), window)
}

#[test]
fn windows_mean_the_same_at_the_other_end() {
    let (mut sender, mut receiver) = (Sender::new(), Receiver::new());
    let windows = [
        window("web", &[&["main", "serve", "read"], &["main", "idle"]]),
        window("db", &[&["main", "flush"]]),
        window("web", &[&["main", "idle"], &["main", "serve", "read"], &["start"]]),
    ];
    for (index, whole) in windows.iter().enumerate() {
        let sent = sender.next(whole).expect("a valid window");
        let bytes = sent.encode_to_vec();
        let mut received = Window::decode(bytes.as_slice()).expect("a message");
        assert_eq!(receiver.take(&mut received), Ok(index == 0));
        assert_eq!(words(receiver.known(), &received), whole_words(whole));
    }
}

#[test]
fn what_was_said_is_not_said_again() {
    let mut sender = Sender::new();
    let whole = window("web", &[&["main", "serve"], &["main", "idle"]]);
    let first = sender.next(&whole).expect("valid").dictionary.expect("it has one");
    assert!(first.reset && !first.strings.is_empty());
    let second = sender.next(&whole).expect("valid").dictionary.expect("it has one");
    assert_eq!(second, Dictionary::default());
}

#[test]
fn lists_that_become_too_long_begin_anew() {
    let (mut sender, mut receiver) = (Sender::new(), Receiver::new());
    let mut resets = 0;
    // Each window has a name of 8 MB, and four fit.
    for number in 0..10 {
        let name = format!("{number}{}", "x".repeat(8 << 20));
        let whole = window("web", &[&["main", &name]]);
        let mut sent = sender.next(&whole).expect("valid");
        resets += u32::from(receiver.take(&mut sent).expect("valid"));
        assert_eq!(words(receiver.known(), &sent), whole_words(&whole));
    }
    assert!((2..=5).contains(&resets), "{resets}");
}

#[test]
fn a_sender_with_little_memory_begins_anew_more_often() {
    let limits = Limits { entries: 12, ..LIMITS };
    let (mut sender, mut receiver) = (Sender::with_limits(limits), Receiver::new());
    let mut begins_anew = |whole: &Window| {
        let mut window = sender.next(whole).expect("it is whole");
        receiver.take(&mut window).expect("it is as the protocol says")
    };
    // Five strings each.
    let [one, other, third] =
        ["a", "b", "c"].map(|name| window(name, &[&[&format!("{name}1"), &format!("{name}2")]]));
    assert_eq!([&one, &one, &other].map(&mut begins_anew), [true, false, false]);
    assert!(begins_anew(&third), "there is no room for it, too");
    // Alone it is more than that.
    let long = window("d", &[&["k", "l", "m", "n", "o", "p", "q", "r", "s", "t"]]);
    assert_eq!([&long, &long].map(&mut begins_anew), [true, true]);
}

#[test]
fn what_is_not_what_the_protocol_says_is_refused() {
    let check = |expected: Invalid, damage: &dyn Fn(&mut Window)| {
        let mut window = window("web", &[&["main", "serve"]]);
        damage(&mut window);
        assert_eq!(Sender::new().next(&window), Err(expected));
        assert_eq!(Receiver::new().take(&mut window), Err(expected));
    };
    fn list(window: &mut Window) -> &mut Dictionary {
        window.dictionary.as_mut().expect("it has one")
    }
    check(Invalid::NoReset, &|window| list(window).reset = false);
    check(Invalid::NoReset, &|window| window.dictionary = None);
    check(Invalid::Reference("string"), &|window| list(window).functions[0].name = 99);
    check(Invalid::Reference("string"), &|window| list(window).modules[0].path = 99);
    check(Invalid::Reference("string"), &|window| list(window).subjects[0].labels[1] = 99);
    check(Invalid::Columns("labels"), &|window| _ = list(window).subjects[0].labels.pop());
    check(Invalid::Reference("module"), &|window| list(window).locations[0].module = 1);
    check(Invalid::Reference("function"), &|window| list(window).locations[0].lines[0].function = 9);
    // A node that is its own caller would never end.
    check(Invalid::Reference("caller"), &|window| list(window).stack_parent[1] = 2);
    check(Invalid::Reference("location"), &|window| list(window).stack_location[0] = 2);
    check(Invalid::Columns("stacks"), &|window| list(window).stack_parent.push(0));
    check(Invalid::Reference("subject"), &|window| window.profiles[0].subject[0] = 1);
    check(Invalid::Reference("stack"), &|window| window.profiles[0].stack[0] = 3);
    check(Invalid::Reference("string"), &|window| window.profiles[0].class[0] = 99);
    check(Invalid::Columns("samples"), &|window| window.profiles[0].weight.push(1));
    check(Invalid::Columns("samples"), &|window| window.profiles[0].class.push(1));
    check(Invalid::Twice("kind of profile"), &|window| window.profiles.push(window.profiles[0].clone()));
    check(Invalid::Reference("string"), &|window| window.signals[0].unit = 99);
    let many = LIMITS.entries + 1;
    check(Invalid::TooLong("strings"), &|window| list(window).strings.resize(many, String::new()));
    check(Invalid::TooLong("stacks"), &|window| {
        list(window).stack_parent.resize(many, 0);
        list(window).stack_location.resize(many, 0);
    });
}
