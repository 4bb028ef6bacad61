//! A flame graph as a picture that explains itself: what was measured, of whom, when, and how much of it was seen stand
//! above the flames, and the colours are named below them. Drawn by inferno.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};

use inferno::flamegraph::color::{BackgroundColor, Color, PaletteMap, StrokeColor};
use inferno::flamegraph::{self, Direction, TextTruncateDirection};

use crate::activity;
use crate::frames::{Frame, Origin};
use crate::names;
use crate::profile::{Basis, Profile, Sample, Unit};

use super::fold::{Labels, Sums};
use super::{Options, caption};

/// Share of the picture below which a frame is left out. It would be half a pixel wide, and a busy host has so many that a
/// browser could not show them.
pub(crate) const MIN_WIDTH_PCT: f64 = 0.05;

pub(super) fn write(profile: &Profile, options: &Options, out: &mut dyn Write) -> io::Result<()> {
    let labels = Labels::new(profile, options);
    let scene = Scene::new(profile, &labels, labels.fold(profile));
    let subtitle = caption::facts(profile).join(" · ");
    match scene.draw(caption::title(&profile.header), Some(subtitle), MIN_WIDTH_PCT)? {
        Some(picture) => out.write_all(add_legend(picture, &scene.legend()).as_bytes()),
        None => write_empty(profile, out),
    }
}

/// How every flame graph here is drawn, on this background and without frames that are narrower.
pub(crate) fn drawing<'a>(background: Color, min_width_pct: f64) -> flamegraph::Options<'a> {
    let mut flames = flamegraph::Options::default();
    flames.flame_chart = true;
    // The root above, so that a deep stack does not push what all have in common out of sight.
    flames.direction = Direction::Inverted;
    flames.min_width = min_width_pct;
    flames.name_type = String::new();
    flames.font_type = "monospace".to_owned();
    flames.bgcolors = Some(BackgroundColor::Flat(background));
    // Parts neighbours that have the same colour.
    flames.stroke_color = StrokeColor::Color(background);
    flames.text_truncate_direction = TextTruncateDirection::Right;
    flames
}

/// What is drawn.
pub(super) struct Scene<'a> {
    labels: &'a Labels,
    stacks: BTreeMap<Vec<&'a str>, Sums>,
    activities: Activities<'a>,
    width: Width,
}

impl<'a> Scene<'a> {
    pub(super) fn new(profile: &Profile, labels: &'a Labels, stacks: BTreeMap<Vec<&'a str>, Sums>) -> Self {
        Self { labels, activities: Activities::of(labels, &stacks), stacks, width: Width::of(profile) }
    }

    /// The picture, without frames that are narrower; `None` where there is nothing to draw.
    pub(super) fn draw(
        &self,
        title: String,
        subtitle: Option<String>,
        min_width_pct: f64,
    ) -> io::Result<Option<String>> {
        // inferno closes a frame where the next line differs, so a frame stays in one piece only if lines are in the order of
        // their elements. It sorts them as text, where `a b` and `a(b)` come between `a` and `a;c`; only the lines of a flame
        // chart keep their order, reversed.
        let lines: Vec<String> = self
            .stacks
            .iter()
            .rev()
            .map(|(stack, sums)| (stack, self.width.measure(sums)))
            .filter(|(_, measure)| *measure > 0)
            .map(|(stack, measure)| format!("{} {measure}", stack.join(";")))
            .collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let mut colours = self
            .activities
            .colours(self.labels, &self.stacks)
            .unwrap_or_else(|| colours(self.labels, &self.stacks));
        let mut flames = drawing(BACKGROUND, min_width_pct);
        flames.title = title;
        flames.subtitle = subtitle;
        flames.count_name = self.width.unit.to_owned();
        flames.factor = self.width.factor;
        flames.palette_map = Some(&mut colours);

        let mut picture = Vec::new();
        flamegraph::from_lines(&mut flames, lines.iter().map(String::as_str), &mut picture)?;
        String::from_utf8(picture).map(Some).map_err(io::Error::other)
    }

    /// What the colours stand for.
    pub(super) fn legend(&self) -> Vec<(Color, &'static str)> {
        let legend = self.activities.legend();
        if legend.is_empty() { Class::present(self.labels) } else { legend }
    }
}

/// Height of a picture of inferno's, pixels.
pub(super) fn height(picture: &str) -> Option<usize> {
    let (_, rest) = picture.split_once(HEIGHT)?;
    rest.split_once('"')?.0.parse().ok()
}

/// The attribute of the picture's own element, which comes first.
const HEIGHT: &str = "height=\"";

/// What a frame's width stands for.
struct Width {
    by_weight: bool,
    /// What one of those that are counted is in `unit`.
    factor: f64,
    unit: &'static str,
}

impl Width {
    /// Samples, as they also tell how much a width can be relied on; the weight where samples differ in it. The unit is
    /// small since inferno rounds to it before it computes a share.
    fn of(profile: &Profile) -> Self {
        let (count, weight) = (u128::from(profile.total_count()), u128::from(profile.total_weight()));
        let alike = |sample: &Sample| u128::from(sample.weight) * count == u128::from(sample.count) * weight;
        let by_samples = profile.header.basis == Basis::Samples && profile.samples.iter().all(alike);
        match profile.header.unit {
            _ if by_samples => Self { by_weight: false, factor: 1.0, unit: "samples" },
            Unit::Nanoseconds => Self { by_weight: true, factor: 1e-3, unit: "µs" },
            Unit::Count => Self { by_weight: true, factor: 1.0, unit: "times" },
        }
    }

    fn measure(&self, sums: &Sums) -> u64 {
        if self.by_weight { sums.weight } else { sums.count }
    }
}

/// What frames are coloured by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Kernel,
    Native,
    /// C++, Rust and others whose names have namespaces.
    Namespaced,
    Jit,
    Interpreter,
    NoSymbol,
    /// Processes and threads.
    Above,
}

impl Class {
    const LEGEND: [(Self, &'static str); 6] = [
        (Self::Kernel, "kernel"),
        (Self::Native, "native"),
        (Self::Namespaced, "C++, Rust"),
        (Self::Jit, "JIT"),
        (Self::Interpreter, "interpreter"),
        (Self::NoSymbol, "no symbol"),
    ];

    fn of(frame: &Frame) -> Self {
        match frame.origin {
            _ if !frame.symbolized => Self::NoSymbol,
            Origin::Kernel => Self::Kernel,
            Origin::Jit => Self::Jit,
            Origin::Interpreter => Self::Interpreter,
            Origin::Activity => Self::Above,
            Origin::User if frame.name.contains("::") => Self::Namespaced,
            Origin::User => Self::Native,
        }
    }

    fn present(labels: &Labels) -> Vec<(Color, &'static str)> {
        let classes: Vec<Self> = labels.frames.entries().iter().map(Self::of).collect();
        Self::LEGEND
            .into_iter()
            .filter(|(class, _)| classes.contains(class))
            .map(|(class, name)| (class.range()[0], name))
            .collect()
    }

    /// The two ends of its colours.
    fn range(self) -> [Color; 2] {
        let [from, to] = match self {
            Self::Kernel => [[117, 163, 214], [156, 192, 230]],
            Self::Native => [[235, 116, 84], [246, 158, 126]],
            Self::Namespaced => [[240, 184, 72], [250, 212, 122]],
            Self::Jit => [[112, 184, 116], [158, 212, 154]],
            Self::Interpreter => [[190, 142, 204], [214, 174, 224]],
            Self::NoSymbol => [[186, 186, 186], [208, 208, 208]],
            Self::Above => [[206, 208, 222], [222, 224, 234]],
        };
        [from, to].map(|[r, g, b]| Color { r, g, b })
    }

    /// The colour of a name: always the same one, and of neighbours mostly different ones.
    fn shade(self, name: &str) -> Color {
        let [from, to] = self.range();
        // FNV-1a, whose low bits are well mixed.
        let hash = name
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        let mix = |from: u8, to: u8| {
            let (from, to, share) = (u32::from(from), u32::from(to), hash % 256);
            u8::try_from((from * (255 - share) + to * share) / 255).unwrap_or(u8::MAX)
        };
        Color { r: mix(from.r, to.r), g: mix(from.g, to.g), b: mix(from.b, to.b) }
    }
}

/// Time by class of activity, of every name: pictures of thread time are coloured by it.
struct Activities<'a> {
    of_name: HashMap<&'a str, BTreeMap<activity::Class, u64>>,
    total: BTreeMap<activity::Class, u64>,
}

impl<'a> Activities<'a> {
    /// A name whose time is of one class to this share has its colour.
    const DOMINANT_PCT: u64 = 80;
    /// Classes with less than this share of the time are not in the legend.
    const LEGEND_PCT: f64 = 0.1;

    fn of(labels: &'a Labels, stacks: &BTreeMap<Vec<&'a str>, Sums>) -> Self {
        let classes: HashMap<&str, activity::Class> = labels
            .frames
            .entries()
            .iter()
            .enumerate()
            .filter(|(_, frame)| frame.origin == Origin::Activity)
            .filter_map(|(index, frame)| {
                Some((labels.of_frame(index), activity::Class::from_frame(&frame.name)?))
            })
            .collect();
        let mut activities = Self { of_name: HashMap::new(), total: BTreeMap::new() };
        for (stack, sums) in stacks {
            let Some(class) = stack.iter().rev().find_map(|name| classes.get(name)) else { continue };
            *activities.total.entry(*class).or_default() += sums.weight;
            let mut names = stack.clone();
            names.sort_unstable();
            names.dedup();
            for name in names {
                *activities.of_name.entry(name).or_default().entry(*class).or_default() += sums.weight;
            }
        }
        activities
    }

    /// `None` where the picture is of no activities.
    fn colours(&self, labels: &Labels, stacks: &BTreeMap<Vec<&str>, Sums>) -> Option<PaletteMap> {
        if self.total.is_empty() {
            return None;
        }
        let mut colours = PaletteMap::default();
        for name in stacks.keys().flatten().copied().chain([""]) {
            colours.insert(name, self.dominant(name).map_or_else(|| Class::Above.shade(name), colour));
        }
        for (index, frame) in labels.frames.entries().iter().enumerate() {
            if let Some(class) = activity::Class::from_frame(&frame.name)
                && frame.origin == Origin::Activity
            {
                colours.insert(labels.of_frame(index), colour(class));
            }
        }
        Some(colours)
    }

    fn dominant(&self, name: &str) -> Option<activity::Class> {
        let classes = self.of_name.get(name)?;
        let total: u64 = classes.values().sum();
        let (class, most) = classes.iter().max_by_key(|(_, weight)| **weight)?;
        (most.saturating_mul(100) >= total.saturating_mul(Self::DOMINANT_PCT)).then_some(*class)
    }

    fn legend(&self) -> Vec<(Color, &'static str)> {
        let all: u64 = self.total.values().sum();
        let mut legend: Vec<_> = self
            .total
            .iter()
            .filter(|(_, weight)| **weight as f64 * 100.0 >= Self::LEGEND_PCT * all as f64)
            .map(|(class, _)| (colour(*class), class.name()))
            .collect();
        if !legend.is_empty() {
            legend.push((Class::Above.range()[0], "several"));
        }
        legend
    }
}

fn colour(class: activity::Class) -> Color {
    let [r, g, b] = class.colour();
    Color { r, g, b }
}

const BACKGROUND: Color = Color { r: 252, g: 252, b: 250 };

fn colours(labels: &Labels, stacks: &BTreeMap<Vec<&str>, Sums>) -> PaletteMap {
    let mut colours = PaletteMap::default();
    // The frame below all others has no name.
    for above in stacks.keys().flatten().chain([&""]) {
        colours.insert(above, Class::Above.shade(above));
    }
    for (index, frame) in labels.frames.entries().iter().enumerate() {
        let label = labels.of_frame(index);
        colours.insert(label, Class::of(frame).shade(label));
    }
    colours
}

/// inferno's picture with a strip at its lower edge that names the colours.
fn add_legend(picture: String, classes: &[(Color, &str)]) -> String {
    const STRIP: usize = 20;
    /// Plain spaces would collapse.
    const GAP: &str = "\u{a0}\u{a0} ";
    let Some(height) = height(&picture) else { return picture };
    let Some((picture, end)) = picture.rsplit_once("</svg>") else { return picture };

    let taller = height + STRIP;
    // The picture, its view box and its background.
    let picture = picture
        .replacen(&format!("{HEIGHT}{height}\""), &format!("{HEIGHT}{taller}\""), 2)
        .replacen(&format!(" {height}\""), &format!(" {taller}\""), 1);
    let mut legend = format!(r#"<text id="legend" x="10" y="{}">"#, taller - 12);
    for (Color { r, g, b }, name) in classes {
        legend.push_str(&format!(r#"<tspan fill="rgb({r},{g},{b})">■</tspan> {name}{GAP}"#));
    }
    format!("{picture}{}</text></svg>{end}", legend.trim_end())
}

/// A picture that says that there is nothing to draw, and what is known of the reason.
fn write_empty(profile: &Profile, out: &mut dyn Write) -> io::Result<()> {
    const LINE: usize = 22;
    let mut lines =
        vec![caption::facts(profile).join(" · "), "no samples: nothing ran in the target".to_owned()];
    lines.extend(profile.coverage.notes.iter().map(|note| names::printable(note)));
    let height = 80 + LINE * lines.len();
    writeln!(
        out,
        r#"<?xml version="1.0" standalone="no"?>
<svg xmlns="http://www.w3.org/2000/svg" version="1.1" width="1200" height="{height}" viewBox="0 0 1200 {height}">
<style>text {{ font-family: monospace; font-size: 12px; text-anchor: middle; }}</style>
<rect width="100%" height="100%" fill="rgb({},{},{})"/>
<text x="50%" y="30" style="font-size: 17px">{}</text>"#,
        BACKGROUND.r,
        BACKGROUND.g,
        BACKGROUND.b,
        escape(&caption::title(&profile.header)),
    )?;
    for (index, line) in lines.iter().enumerate() {
        writeln!(out, r#"<text x="50%" y="{}">{}</text>"#, 58 + LINE * index, escape(line))?;
    }
    writeln!(out, "</svg>")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
