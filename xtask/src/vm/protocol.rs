//! What the guest says over its second serial port: the tests' own output, and between it lines with a mark
//! that say where it has got to. The kernel's log has a port of its own.

/// Something the guest said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has booted and is about to run the tests.
    Ready,
    /// The test with that index starts.
    Begin(usize),
    /// A line that a test wrote.
    Output(String),
    /// The test with that index ended with that exit status, as a shell gives it.
    End(usize, u8),
    /// All tests have run; the guest powers off.
    Done,
}

/// A line is cut at this length, lest a test that writes without end fills the memory.
const MAX_LINE_BYTES: usize = 64 << 10;

/// Turns the bytes from the guest into events.
pub struct Parser {
    /// Begins the guest's own words. Different in each run, so no test can write it by chance.
    mark: String,
    line: Vec<u8>,
}

impl Parser {
    /// A parser that knows the guest's own words by `mark`.
    pub fn new(mark: impl Into<String>) -> Self {
        Self { mark: mark.into(), line: Vec::new() }
    }

    /// Takes the next bytes, and returns what they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            if byte != b'\n' {
                self.line.push(byte);
            }
            if byte == b'\n' || self.line.len() == MAX_LINE_BYTES {
                self.complete(&mut events);
            }
        }
        events
    }

    /// Returns what was left of a line when the guest ended.
    pub fn finish(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        if !self.line.is_empty() {
            self.complete(&mut events);
        }
        events
    }

    fn complete(&mut self, events: &mut Vec<Event>) {
        let line = String::from_utf8_lossy(&self.line).trim_end_matches('\r').to_owned();
        self.line.clear();
        let Some((before, words)) = line.split_once(&self.mark) else {
            return events.push(Event::Output(line));
        };
        match parse(words) {
            Some(event) => {
                // A test that ended in the middle of a line.
                if !before.is_empty() {
                    events.push(Event::Output(before.to_owned()));
                }
                events.push(event);
            }
            None => events.push(Event::Output(line)),
        }
    }
}

fn parse(words: &str) -> Option<Event> {
    let words: Vec<&str> = words.split_whitespace().collect();
    Some(match words[..] {
        ["ready"] => Event::Ready,
        ["begin", index] => Event::Begin(index.parse().ok()?),
        ["end", index, status] => Event::End(index.parse().ok()?, status.parse().ok()?),
        ["done"] => Event::Done,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(line: &str) -> Event {
        Event::Output(line.to_owned())
    }

    #[test]
    fn events_are_the_same_however_the_bytes_are_cut() {
        let bytes = "#7 ready\n#7 begin 0\ntest a ... hello\r\nok\n#7 end 0 0\n\
                     #7 begin 1\n\u{fc}\n#7 end 1 101\n#7 done\n";
        let expected = [
            Event::Ready,
            Event::Begin(0),
            output("test a ... hello"),
            output("ok"),
            Event::End(0, 0),
            Event::Begin(1),
            output("\u{fc}"),
            Event::End(1, 101),
            Event::Done,
        ];
        for size in 1..bytes.len() {
            let mut parser = Parser::new("#7 ");
            let events: Vec<_> = bytes.as_bytes().chunks(size).flat_map(|chunk| parser.push(chunk)).collect();
            assert_eq!(events, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_mark_behind_an_unfinished_line_counts() {
        let events = Parser::new("#7 ").push(b"killed in mid-sen#7 end 3 137\n");
        assert_eq!(events, [output("killed in mid-sen"), Event::End(3, 137)]);
    }

    #[test]
    fn what_only_looks_like_the_guests_words_is_output() {
        for line in ["#8 done", "#7 end", "#7 end x 0", "#7 end 1 256", "#7 begin -1", "ready", "#7 done now"]
        {
            assert_eq!(Parser::new("#7 ").push(format!("{line}\n").as_bytes()), [output(line)]);
        }
    }

    #[test]
    fn bytes_that_are_no_text_and_lines_without_end_are_output() {
        let mut parser = Parser::new("#7 ");
        assert_eq!(parser.push(b"\xff\n"), [output("\u{fffd}")]);
        let events = parser.push(&vec![b'x'; MAX_LINE_BYTES + 1]);
        assert_eq!(events, [output(&"x".repeat(MAX_LINE_BYTES))]);
        assert_eq!(parser.finish(), [output("x")]);
        assert_eq!(parser.finish(), []);
    }
}
