//! What a program measured.

use std::{
    collections::HashMap,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::workspace::shown;

/// Lines of `name value`; those that begin with `#` are shown.
pub struct Figures(HashMap<String, String>);

/// Runs a program that measures.
pub fn figures(command: &mut Command) -> Result<Figures> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run {}", shown(command)))?;
    ensure!(output.status.success(), "{} failed ({})", shown(command), output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().filter(|line| line.starts_with('#')).for_each(|line| eprintln!("{line}"));
    let pair = |line: &str| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Figures(text.lines().filter_map(pair).collect()))
}

impl Figures {
    /// What was measured as this.
    pub fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("{name} was not measured"))
    }

    /// The same as a number.
    pub fn number(&self, name: &str) -> Result<f64> {
        let text = self.text(name)?;
        text.parse().with_context(|| format!("{name} is {text:?}, which is no number"))
    }
}
