//! Separate debug files, and files that are no longer what their path says.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use chokepoint::symbolize::{Note, Options, Symbolizer};

use crate::build::{C, C_LINES, Program, Workshop, check, debug_dir, run};

const WITHOUT_ID: [&str; 3] = ["-g", "-O2", "-Wl,--build-id=none"];

fn build_id_path(program: &Program) -> String {
    let id = program.build_id();
    format!(".build-id/{}/{}.debug", &id[..2], &id[2..])
}

#[test]
fn by_build_id() {
    let workshop = Workshop::new();
    for flags in [&["-g", "-O2"][..], &["-g", "-O2", "-gz=zlib"]] {
        let program = workshop.c("program", flags);
        let stripped = program.stripped(&workshop.path("stripped"));
        let empty = debug_dir(workshop.path("nowhere"));
        check(&stripped.symbolize(empty), "", &[]);
        let place = workshop.path("debug").join(build_id_path(&program));
        program.debug_file(&place);
        let symbols = stripped.symbolize(debug_dir(workshop.path("debug")));
        check(&symbols, "program.c", &C_LINES);
        assert_eq!(symbols.build_id.to_string(), program.build_id());

        // Another build in its place.
        workshop.c("other", &["-g", "-O1"]).debug_file(&place);
        let symbols = stripped.symbolize(debug_dir(workshop.path("debug")));
        check(&symbols, "", &[]);
        assert_eq!(symbols.notes, [Note::DebugFilesOfOtherBuilds(1)]);
        // The same root by another name is searched once.
        let mut symbolizer = Symbolizer::new(debug_dir(workshop.path("debug")));
        let root = Path::new("/proc/self/root");
        let offsets = [stripped.offset("marker")];
        symbolizer.binary(&stripped.open(), &stripped.path, root, &offsets).unwrap();
        assert_eq!(symbolizer.counters().debug_files_rejected, 1);
    }
}

#[test]
fn by_debug_link_in_every_place() {
    let workshop = Workshop::new();
    let below_debug_dir = {
        let directory = workshop.path("");
        workshop.path("debug").join(directory.strip_prefix("/").unwrap()).join("program.debug")
    };
    let places = [workshop.path("program.debug"), workshop.path(".debug/program.debug"), below_debug_dir];
    // With a build id and without, when the checksum decides.
    for flags in [&["-g", "-O2"][..], &WITHOUT_ID] {
        for place in &places {
            let program = workshop.c("program", flags);
            let stripped = program.stripped(&workshop.path("stripped"));
            program.debug_file(place);
            stripped.objcopy(&["--add-gnu-debuglink", place.to_str().unwrap()]);
            let options = || debug_dir(workshop.path("debug"));
            check(&stripped.symbolize(options()), "program.c", &C_LINES);

            fs::remove_file(place).unwrap();
            check(&stripped.symbolize(options()), "", &[]);
        }
    }
}

#[test]
fn a_debug_link_with_another_checksum_is_not_followed() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &WITHOUT_ID);
    let stripped = program.stripped(&workshop.path("stripped"));
    let place = workshop.path("program.debug");
    program.debug_file(&place);
    stripped.objcopy(&["--add-gnu-debuglink", place.to_str().unwrap()]);
    let mut content = fs::read(&place).unwrap();
    content.push(0);
    fs::write(&place, content).unwrap();
    let symbols = stripped.symbolize(debug_dir(workshop.path("debug")));
    check(&symbols, "", &[]);
    assert_eq!(symbols.notes, [Note::DebugFilesOfOtherBuilds(1)]);
}

#[test]
fn in_the_root_of_a_container() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let root = workshop.path("root");
    fs::create_dir_all(root.join("opt/app")).unwrap();
    let stripped = program.stripped(&root.join("opt/app/program"));
    let debug_file = root.join("usr/lib/debug").join(build_id_path(&program));
    let symbolize = |root: &Path, options: Options| {
        let path = Path::new("/opt/app/program");
        let offsets = [stripped.offset("marker")];
        Symbolizer::new(options).binary(&stripped.open(), path, root, &offsets).unwrap()
    };
    check(&symbolize(&root, Options::default()), "", &[]);
    program.debug_file(&debug_file);
    check(&symbolize(&root, Options::default()), "program.c", &C_LINES);
    // The container is gone, and with it its root; the open file is not.
    check(&symbolize(&workshop.path("gone"), Options::default()), "", &[]);

    // An absolute link means the container's own root.
    fs::rename(root.join("usr/lib/debug"), root.join("elsewhere")).unwrap();
    symlink("/elsewhere", root.join("usr/lib/debug")).unwrap();
    check(&symbolize(&root, Options::default()), "program.c", &C_LINES);

    // Beside the program, by its name in the container.
    fs::remove_dir_all(root.join("elsewhere")).unwrap();
    let beside = root.join("opt/app/.debug/program.debug");
    program.debug_file(&beside);
    stripped.objcopy(&["--add-gnu-debuglink", beside.to_str().unwrap()]);
    check(&symbolize(&root, Options::default()), "program.c", &C_LINES);
    // The host's debug directory serves a container without debug files.
    fs::remove_file(&beside).unwrap();
    program.debug_file(&workshop.path("host-debug").join(build_id_path(&program)));
    check(&symbolize(&root, debug_dir(workshop.path("host-debug"))), "program.c", &C_LINES);
}

#[test]
fn deleted_and_replaced_files_are_what_they_were() {
    let workshop = Workshop::new();
    for flags in [&["-g", "-O2"][..], &["-g", "-O2", "-gz=zlib"]] {
        let program = workshop.c("program", flags);
        let (file, offsets) = (program.open(), [program.offset("marker")]);
        let symbolize = || {
            Symbolizer::new(Options::default())
                .binary(&file, &program.path, Path::new("/"), &offsets)
                .unwrap()
        };
        fs::remove_file(&program.path).unwrap();
        check(&symbolize(), "program.c", &C_LINES);

        let other = "__attribute__((noinline)) int impostor(void) { return 1; }\nint main(void) { return impostor(); }\n";
        let replaced = workshop.compile("gcc", "other.c", other, "program", &["-g"]);
        assert_eq!(replaced.path, program.path);
        check(&symbolize(), "program.c", &C_LINES);
    }
}

#[test]
fn a_file_that_gets_new_content_is_read_anew() {
    let workshop = Workshop::new();
    let program = workshop.c("program", &["-g", "-O2"]);
    let mut symbolizer = Symbolizer::new(Options::default());
    let mut symbolize = |program: &Program| {
        let offsets = [program.offset("marker")];
        symbolizer.binary(&program.open(), &program.path, Path::new("/"), &offsets).unwrap()
    };
    check(&symbolize(&program), "program.c", &C_LINES);
    // In place: the same inode.
    let source = C.replace("inner", "fresh");
    let other = workshop.compile("gcc", "other.c", &source, "other", &["-g", "-O2"]);
    fs::write(&program.path, fs::read(&other.path).unwrap()).unwrap();
    let expected =
        C_LINES.map(|(function, line)| (if function == "inner" { "fresh" } else { function }, line));
    let rewritten = other.at(&program.path);
    check(&symbolize(&rewritten), "other.c", &expected);
}

/// dwz moves what two programs have in common to a third file: here strings, the names of functions among them.
#[test]
fn what_dwz_moved_to_a_common_file() {
    if std::process::Command::new("dwz").arg("--version").output().is_err() {
        eprintln!("skipped: dwz is not installed");
        return;
    }
    let workshop = Workshop::new();
    for flags in [&["-gdwarf-4", "-O2"][..], &["-gdwarf-5", "-O2"]] {
        let one = workshop.compile("gcc", "program.c", C, "one", flags);
        // Other lines, so that the functions themselves stay where they are.
        let two = workshop.compile("gcc", "two.c", &format!("\n{C}"), "two", flags);
        let common = workshop.path("common.debug");
        run("dwz", &["-m".as_ref(), common.as_os_str(), one.path.as_os_str(), two.path.as_os_str()]);
        let dump = run("readelf", &["--debug-dump=info".as_ref(), one.path.as_os_str()]);
        assert!(dump.contains("(alt indirect string"), "{dump}");
        check(&one.symbolize(Options::default()), "program.c", &C_LINES);
        check(&two.symbolize(Options::default()), "two.c", &C_LINES.map(|(name, line)| (name, line + 1)));
        // By its build id, and without it: there is still the symbol table.
        let place = workshop.path("debug").join(build_id_path(&one.at(&common)));
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::rename(&common, &place).unwrap();
        check(&one.symbolize(debug_dir(workshop.path("debug"))), "program.c", &C_LINES);
        check(&one.symbolize(debug_dir(workshop.path("nowhere"))), "", &[("outer", 0)]);
    }
}
