use chokepoint_analysis::activity::Class;
use chokepoint_analysis::export::{Format, Options};

use crate::{PER_THREAD, check, recording, text};

/// The picture without inferno's script and style, which are not ours.
fn drawing(svg: &str) -> String {
    let mut drawing = svg.to_owned();
    for element in ["script", "style"] {
        let (before, rest) = drawing.split_once(&format!("<{element}")).expect("the element");
        let (_, after) = rest.split_once(&format!("</{element}>")).expect("its end");
        drawing = format!("{before}{after}");
    }
    drawing.replace("><", ">\n<")
}

/// Titles of frames as (name, amount, share).
fn titles(svg: &str) -> Vec<String> {
    svg.split("<title>").skip(1).filter_map(|rest| rest.split("</title>").next()).map(str::to_owned).collect()
}

#[test]
fn pictures_are_as_expected() {
    let profile = recording::everything();
    check("everything.svg", &drawing(&text(&profile, Format::Svg, &Options::default())));
    check("empty.svg", &text(&recording::empty(), Format::Svg, &Options::default()));
}

#[test]
fn partial_data_says_so_on_the_picture() {
    let svg = text(&recording::everything(), Format::Svg, &Options::default());
    for shown in [
        "CPU time: host",
        "web-1 · 2026-01-31 23:59:58 UTC · 5.0 s",
        "85 of 90 samples · 5 lost (ring buffer full 4, no scratch space 1) · 3 stacks truncated",
    ] {
        assert!(svg.contains(shown), "the picture lacks {shown:?}");
    }
}

#[test]
fn the_whole_width_is_every_sample() {
    let profile = recording::everything();
    for options in [Options::default(), PER_THREAD] {
        let svg = text(&profile, Format::Svg, &options);
        assert!(svg.contains(&format!("total_samples=\"{}\"", profile.total_count())));
        assert!(titles(&svg).contains(&"all (85 samples, 100%)".to_owned()), "{:?}", titles(&svg));
    }
}

#[test]
fn widths_are_cpu_time_where_samples_differ_in_what_they_stand_for() {
    let mut profile = recording::interleaved();
    profile.samples[0].weight = 92_929_292;
    let svg = text(&profile, Format::Svg, &Options::default());
    assert!(svg.contains(&format!("total_samples=\"{}\"", profile.total_weight())));
    assert_eq!(profile.total_weight(), 123_232_322);
    assert!(titles(&svg).contains(&"a (103,030 µs, 83.61%)".to_owned()), "{:?}", titles(&svg));
}

#[test]
fn a_frame_is_one_box_whatever_its_neighbours_are_called() {
    let mut titles = titles(&text(&recording::interleaved(), Format::Svg, &Options::default()));
    titles.sort();
    assert_eq!(
        titles,
        [
            "a (6 samples, 75.00%)",
            "a(int) (2 samples, 25.00%)",
            "all (8 samples, 100%)",
            "b (1 samples, 12.50%)",
            "b (2 samples, 25.00%)",
            "p (8 samples, 100.00%)",
        ]
    );
}

#[test]
fn threads_have_a_row_of_their_own_where_asked_for() {
    let profile = recording::everything();
    let row = "worker_1 (11) (33 samples, 38.82%)";
    assert!(titles(&text(&profile, Format::Svg, &PER_THREAD)).contains(&row.to_owned()));
    assert!(!text(&profile, Format::Svg, &Options::default()).contains("(11)"));
}

#[test]
fn names_cannot_add_markup_or_break_the_document() {
    let svg = text(&recording::everything(), Format::Svg, &Options::default());
    assert!(!svg.contains("<img"), "a name became an element");
    assert!(svg.contains("&lt;img src=x onerror=alert(1)&gt;"), "the name is gone");
    let forbidden = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    assert!(!svg.contains(forbidden), "XML cannot hold control characters");
}

#[test]
fn colours_tell_kernel_jit_and_native_code_apart_and_are_named() {
    let svg = text(&recording::everything(), Format::Svg, &Options::default());
    let colour = |name: &str| {
        let frame = svg.split("<title>").find(|part| part.starts_with(name)).expect(name);
        let rgb =
            frame.split("fill=\"rgb(").nth(1).and_then(|rest| rest.split(')').next()).expect("a colour");
        let rgb: Vec<u8> = rgb.split(',').map(|part| part.parse().expect("a number")).collect();
        (rgb[0], rgb[1], rgb[2])
    };
    let (red, _, blue) = colour("vfs_read (");
    assert!(blue > red, "kernel frames are blue");
    let (red, green, _) = colour("Lcom/example/App:::run (");
    assert!(green > red, "JIT frames are green");
    let (red, green, blue) = colour("libc.so.6+0x9d5a0 (");
    assert!(red == green && green == blue, "what has no symbol is grey");
    let (red, _, blue) = colour("not_kernel_(k) (");
    assert!(red > blue, "a name cannot pretend to be the kernel's");
    for name in ["kernel", "native", "C++, Rust", "JIT", "no symbol"] {
        assert!(svg.contains(&format!("■</tspan> {name}")), "the legend lacks {name}");
    }
}

#[test]
fn thread_time_is_coloured_by_class() {
    let profile = recording::waits();
    let svg = text(&profile, Format::Svg, &Options::default());
    for class in [Class::CpuUser, Class::Futex, Class::RunQueue] {
        let [r, g, b] = class.colour();
        assert!(svg.contains(&format!("fill=\"rgb({r},{g},{b})\">■</tspan> {class}")), "{class}");
    }
    // A function that does one thing has that thing's colour; one that does several has none of theirs.
    let fill = |name: &str| {
        let (_, rest) = svg.split_once(&format!("<title>{name} (")).unwrap_or_else(|| panic!("no {name}"));
        let (_, rest) = rest.split_once("fill=\"").expect("a colour");
        rest.split_once('"').expect("its end").0.to_owned()
    };
    let of = |class: Class| {
        let [r, g, b] = class.colour();
        format!("rgb({r},{g},{b})")
    };
    assert_eq!(fill("waits_for_lock"), of(Class::Futex));
    assert_eq!(fill("computes"), of(Class::CpuUser));
    assert_eq!(fill("[futex]"), of(Class::Futex));
    assert!(Class::ALL.into_iter().all(|class| fill("main") != of(class)));
}
