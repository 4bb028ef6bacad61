//! Every format is written and read back, by a consumer of its own where the machine has one.

mod firefox;
mod flame_graph;
mod folded;
mod json;
mod pprof;
mod recording;
mod speedscope;
mod top;

use std::path::Path;

use chokepoint_analysis::export::{self, ExportError, Format, Options};
use chokepoint_analysis::profile::Profile;

fn export(profile: &Profile, format: Format, options: &Options) -> Vec<u8> {
    let mut out = Vec::new();
    export::write(profile, format, options, &mut out).unwrap_or_else(|error| panic!("{format}: {error}"));
    out
}

fn text(profile: &Profile, format: Format, options: &Options) -> String {
    String::from_utf8(export(profile, format, options)).expect("UTF-8")
}

fn value(profile: &Profile, format: Format, options: &Options) -> serde_json::Value {
    serde_json::from_slice(&export(profile, format, options)).expect("JSON")
}

const PER_THREAD: Options = Options { per_thread: true };

/// Compares with `tests/data/NAME`; `BLESS=1` writes it instead.
fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, actual).expect("write the golden file");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, (expected, actual)) in golden.lines().zip(actual.lines()).enumerate() {
        assert_eq!(actual, expected, "{name}:{}; BLESS=1 accepts what is new", number + 1);
    }
    assert_eq!(actual.lines().count(), golden.lines().count(), "{name}; BLESS=1 accepts what is new");
}

#[test]
fn equal_profiles_give_equal_bytes() {
    for format in Format::ALL {
        for options in [Options::default(), PER_THREAD] {
            let [first, second] = [(), ()].map(|()| export(&recording::everything(), format, &options));
            assert!(first == second, "{format} differs from one run to the next");
        }
    }
}

#[test]
fn an_empty_profile_is_written_in_every_format() {
    for format in Format::ALL {
        export(&recording::empty(), format, &Options::default());
    }
}

#[test]
fn a_writer_that_fails_is_an_error_in_every_format() {
    struct Full;
    impl std::io::Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for format in Format::ALL {
        let result = export::write(&recording::everything(), format, &Options::default(), &mut Full);
        let Err(ExportError::Io(error)) = result else { panic!("{format}: {result:?}") };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{format}");
    }
}
