//! Flame graphs as parts of a document: of some of a profile's samples, as a picture that is bounded in size, and as text.

use std::collections::BTreeMap;
use std::io;

use super::Options;
use super::fold::{Labels, Sums};
use super::svg::{MIN_WIDTH_PCT, Scene, height};
use crate::activity::Rgb;
use crate::profile::{Profile, Sample};

/// A picture is drawn with fewer frames until it is no larger: some five thousand frames, which a phone's browser still shows.
const MAX_PICTURE_BYTES: usize = 1 << 20;
/// By how much the narrowest frame grows from one try to the next. Most frames are narrow, so few tries are needed.
const WIDER: f64 = 3.0;
/// Frames of a stack that are shown. The kernel programs take 512 of a program; a file may claim any number.
const MAX_DEPTH: usize = 1024;
/// Lines of text that are told of a flame graph: what fits on a page.
const MAX_LINES: usize = 60;
/// Frames with less than this share are not told in text.
const MIN_SHARE: f64 = 0.01;
/// A frame with at least this share of its caller's is told below it without being indented: stacks are deeper than pages wide.
const WHOLE: f64 = 0.98;

/// Some of a profile's samples, to be drawn.
#[derive(Clone, Debug)]
pub struct Selection<'p> {
    profile: &'p Profile,
    samples: Vec<Sample>,
}

/// A flame graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// As SVG, with the script by which a click zooms in.
    pub svg: String,
    /// Its height, pixels; its width is that of what it stands in.
    pub height_px: usize,
    /// What the colours stand for.
    pub legend: Vec<(Rgb, &'static str)>,
    /// Frames with less than this share of the width, per cent, are left out.
    pub min_width_pct: f64,
}

/// A flame graph as text: one frame a line, the widest first, callers before what they call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HotPaths {
    /// Share of all, then the frame, indented where a caller's time divides.
    pub lines: Vec<String>,
    /// Frames that are wide enough to be told and had no room.
    pub left_out: usize,
}

impl<'p> Selection<'p> {
    /// The samples that this holds for.
    pub fn of(profile: &'p Profile, holds: impl Fn(&Sample) -> bool) -> Self {
        Self { profile, samples: profile.samples.iter().filter(|sample| holds(sample)).copied().collect() }
    }

    /// Sum of their weights.
    #[must_use]
    pub fn total_weight(&self) -> u64 {
        self.samples.iter().map(|sample| sample.weight).sum()
    }

    /// The picture; `None` where there is nothing to draw.
    ///
    /// # Errors
    /// The picture could not be drawn, which should not happen.
    pub fn draw(&self, title: &str) -> io::Result<Option<Picture>> {
        let labels = Labels::new(self.profile, &Options::default());
        let scene = Scene::new(self.profile, &labels, self.fold(&labels));
        let mut min_width_pct = MIN_WIDTH_PCT;
        loop {
            let Some(svg) = scene.draw(title.to_owned(), None, min_width_pct)? else { return Ok(None) };
            // A frame as wide as the picture stays whatever is asked for, and stacks are bounded.
            if svg.len() <= MAX_PICTURE_BYTES || min_width_pct >= 100.0 {
                let height_px = height(&svg).ok_or_else(|| io::Error::other("a picture without a height"))?;
                let legend = scene.legend().into_iter().map(|(c, name)| ([c.r, c.g, c.b], name)).collect();
                return Ok(Some(Picture { svg, height_px, legend, min_width_pct }));
            }
            min_width_pct *= WIDER;
        }
    }

    /// The paths that most of the weight is on.
    #[must_use]
    pub fn hot_paths(&self) -> HotPaths {
        let labels = Labels::new(self.profile, &Options::default());
        let mut root = Node::default();
        for (stack, sums) in self.fold(&labels) {
            let mut node = &mut root;
            node.weight += sums.weight;
            for name in stack {
                node = node.callees.entry(name).or_default();
                node.weight += sums.weight;
            }
        }
        let mut paths = HotPaths::default();
        root.tell(root.weight.max(1) as f64, 0, &mut paths);
        paths
    }

    fn fold<'l>(&self, labels: &'l Labels) -> BTreeMap<Vec<&'l str>, Sums> {
        let mut stacks: BTreeMap<Vec<&str>, Sums> = BTreeMap::new();
        for (mut stack, sums) in labels.fold_samples(self.profile, &self.samples) {
            stack.truncate(MAX_DEPTH);
            let sum = stacks.entry(stack).or_default();
            sum.count += sums.count;
            sum.weight += sums.weight;
        }
        stacks
    }
}

/// A frame below the same callers.
#[derive(Default)]
struct Node<'a> {
    weight: u64,
    callees: BTreeMap<&'a str, Node<'a>>,
}

impl Node<'_> {
    /// Tells the callees, `indent` steps deep. Depth of the recursion is bounded by that of stacks.
    fn tell(&self, all: f64, indent: usize, paths: &mut HotPaths) {
        let mut callees: Vec<_> = self.callees.iter().collect();
        callees.sort_by(|a, b| b.1.weight.cmp(&a.1.weight).then(a.0.cmp(b.0)));
        for (name, callee) in callees {
            let share = callee.weight as f64 / all;
            if share < MIN_SHARE {
                break;
            }
            if paths.lines.len() < MAX_LINES {
                paths.lines.push(format!(
                    "{:5.1} %  {:indent$}{name}",
                    share * 100.0,
                    "",
                    indent = 2 * indent
                ));
            } else {
                paths.left_out += 1;
            }
            let goes_on =
                callee.callees.values().any(|next| next.weight as f64 >= WHOLE * callee.weight as f64);
            callee.tell(all, indent + usize::from(!goes_on), paths);
        }
    }
}
