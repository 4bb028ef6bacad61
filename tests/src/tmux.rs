//! A terminal for programs that draw on one: tmux, with a server of its own for each.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::workload::{die_with_test, eventually};

/// A terminal in which a program runs. It ends with the test, and the program with it.
pub struct Terminal {
    server: Child,
    directory: TempDir,
}

/// What a pane says after its program has ended.
const ENDED: &str = "ended with code ";

impl Terminal {
    /// Starts a program in a terminal of this size.
    #[must_use]
    pub fn start(program: &str, arguments: &[&str], width: u16, height: u16) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = Command::new("tmux");
        // In the foreground, so that it can be killed with the test.
        command.arg("-D").args(["-f", "/dev/null", "-S"]).arg(directory.path().join("socket"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        die_with_test(&mut command);
        let server = command.spawn().expect("tmux can be run");
        let terminal = Self { server, directory };
        eventually("tmux's socket", || terminal.file("socket").exists().then_some(()));
        let (width, height) = (width.to_string(), height.to_string());
        let script = format!(
            "stty -g > '{0}/before'; \"$0\" \"$@\"; echo {ENDED}$?; stty -g > '{0}/after'; exec sleep 3600",
            terminal.directory.path().display()
        );
        let fixed = ["new-session", "-d", "-x", &width, "-y", &height, "--", "sh", "-c", &script, program];
        let all: Vec<&str> = fixed.iter().chain(arguments).copied().collect();
        terminal.tmux(&all);
        terminal
    }

    /// Presses keys, by tmux's names of them.
    pub fn press(&self, keys: &[&str]) {
        let all: Vec<&str> = ["send-keys"].iter().chain(keys).copied().collect();
        self.tmux(&all);
    }

    /// Changes its size.
    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// The lines on it.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p"]).lines().map(str::to_owned).collect()
    }

    /// Waits until what is on it satisfies `check`; panics with what is on it when it does not for long.
    pub fn until<T>(&self, what: &str, mut check: impl FnMut(&[String]) -> Option<T>) -> T {
        let mut last = Vec::new();
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(what, || {
                last = self.lines();
                check(&last)
            })
        }));
        found.unwrap_or_else(|_| panic!("{what} did not come; there is:\n{}", last.join("\n")))
    }

    /// Process id of the program that was started.
    #[must_use]
    pub fn program(&self) -> u32 {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]);
        let shell = shell.trim();
        let children = format!("/proc/{shell}/task/{shell}/children");
        eventually("the program", || fs::read_to_string(&children).ok()?.trim().parse().ok())
    }

    /// Waits for the program's end; returns its exit code after making sure that the terminal is as it was: its modes, its main
    /// screen, its cursor.
    #[must_use]
    pub fn end(&self) -> i32 {
        let code = self.until("the program's end", |lines| {
            lines.iter().find_map(|line| line.trim().strip_prefix(ENDED)?.parse().ok())
        });
        let read = |name: &str| {
            let path = self.file(name);
            eventually("the terminal's modes", || {
                fs::read_to_string(&path).ok().filter(|modes| !modes.is_empty())
            })
        };
        assert_eq!(read("before"), read("after"), "the terminal's modes are not what they were");
        let state = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state.trim(), "0 1", "alternate screen, cursor");
        code
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .arg("-S")
            .arg(self.file("socket"))
            .args(arguments)
            .output()
            .expect("tmux can be run");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
