//! Plays cases of `bottlenecks` for a while, for those who record what an agent says of them:
//!
//!     play SECONDS CASE:constrained|relieved...

use std::process::ExitCode;
use std::time::Duration;

use chokepoint_tests::bottlenecks::{Stage, Variant, case};
use chokepoint_tests::live;

const USAGE: &str = "play SECONDS CASE:constrained|relieved...";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [seconds, cases @ ..] = arguments.as_slice() else { panic!("{USAGE}") };
    let seconds = Duration::from_secs(seconds.parse().expect("seconds are a number"));
    let _live = live();
    let mut stages = Vec::new();
    for text in cases {
        let (name, variant) = text.split_once(':').expect(USAGE);
        let variant = match variant {
            "constrained" => Variant::Constrained,
            "relieved" => Variant::Relieved,
            _ => panic!("{USAGE}"),
        };
        let mut stage = Stage::new(variant);
        if let Err(missing) = (case(name).play)(&mut stage) {
            eprintln!("{name}: for want of {missing}");
            return ExitCode::FAILURE;
        }
        stages.push(stage);
    }
    println!("begun");
    std::thread::sleep(seconds);
    ExitCode::SUCCESS
}
