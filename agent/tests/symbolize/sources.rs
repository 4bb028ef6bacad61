//! The kernel, the vDSO and maps of compiled code, as this machine has them.

use std::fs;

use chokepoint::address::{AbsoluteAddress, FileOffset};
use chokepoint::symbolize::{Options, SymbolizeError, Symbolizer};

use crate::build::Workshop;

#[test]
fn kernel_functions() {
    let mut symbolizer = Symbolizer::new(Options::default());
    let kallsyms = fs::read_to_string("/proc/kallsyms").unwrap();
    let address_of = |name: &str| {
        let line = kallsyms.lines().find(|line| line.split(' ').nth(2) == Some(name)).unwrap();
        u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
    };
    let start = address_of("schedule");
    if start == 0 {
        let error = symbolizer.kernel(&[AbsoluteAddress(1 << 63)]).unwrap_err();
        assert!(matches!(error, SymbolizeError::KernelAddressesHidden), "{error}");
        eprintln!("skipped: {error}");
        return;
    }
    let addresses = [start, start + 5, address_of("vfs_read") + 1, 0x1000, u64::MAX].map(AbsoluteAddress);
    let symbols = symbolizer.kernel(&addresses).unwrap();
    let functions: Vec<_> =
        symbols.iter().map(|symbol| symbol.lines.first().map(|line| line.function.as_str())).collect();
    assert_eq!(functions, [Some("schedule"), Some("schedule"), Some("vfs_read"), None, None]);
    assert!(symbols.iter().map(|symbol| symbol.address).eq(addresses));
}

#[test]
fn vdso_functions() {
    // Where the C library finds it: in our own vDSO.
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let Some(range) = maps.lines().find(|line| line.ends_with("[vdso]")) else {
        eprintln!("skipped: this kernel gives processes no vDSO");
        return;
    };
    let base = u64::from_str_radix(range.split('-').next().unwrap(), 16).unwrap();
    // SAFETY: the C strings end in zero; the handle is not closed.
    let function = unsafe {
        let vdso = libc::dlopen(c"linux-vdso.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        assert!(!vdso.is_null());
        libc::dlsym(vdso, c"__vdso_clock_gettime".as_ptr()) as u64
    };
    let mut symbolizer = Symbolizer::new(Options::default());
    let offsets = [FileOffset(function - base + 2), FileOffset(1 << 40)];
    for _ in 0..2 {
        let symbols = symbolizer.vdso(&offsets).unwrap().symbols;
        // The kernel has it under both names.
        let name = symbols[0].lines[0].function.as_str();
        assert!(["__vdso_clock_gettime", "clock_gettime"].contains(&name), "{name}");
        assert_eq!(symbols[0].address.unwrap().0, function - base + 2);
        assert!(symbols[1].lines.is_empty());
    }
}

#[test]
fn a_perf_map_is_read_anew_for_each_batch() {
    let workshop = Workshop::new();
    let path = workshop.path("perf-1.map");
    fs::write(&path, "1000 20 before\nbad line\n").unwrap();
    let mut symbolizer = Symbolizer::new(Options::default());
    let file = fs::File::open(&path).unwrap();
    let mut name = || {
        let symbols = symbolizer.perf_map(&file, &[AbsoluteAddress(0x1010)]).unwrap();
        symbols.symbols[0].lines[0].function.clone()
    };
    assert_eq!(name(), "before");
    fs::write(&path, "1000 20 before\nbad line\n1008 20 after").unwrap();
    assert_eq!(name(), "after");
    assert_eq!(symbolizer.counters().perf_map_lines_skipped, 2);
    let directory = fs::File::open(workshop.path("")).unwrap();
    assert!(matches!(symbolizer.perf_map(&directory, &[]), Err(SymbolizeError::NotRegular)));
}
