use chokepoint_analysis::top::{self, FunctionTotals};

use crate::recording::{self, PERIOD_NS};

#[test]
fn functions_are_ranked_by_their_own_weight() {
    let profile = recording::everything();
    let functions = top::functions(&profile);
    let shown: Vec<String> = functions
        .iter()
        .map(|f| format!("{:>3} {:>3}  {}  {}", f.self_count, f.total_count, f.name, f.module))
        .collect();
    crate::check("everything.top", &format!("{}\n", shown.join("\n")));

    for FunctionTotals { self_count, self_weight, total_count, total_weight, name, .. } in &functions {
        assert_eq!(
            (*self_weight, *total_weight),
            (self_count * PERIOD_NS, total_count * PERIOD_NS),
            "{name}"
        );
        assert!(self_count <= total_count && *total_count <= profile.total_count(), "{name}");
    }
    assert_eq!(functions.iter().map(|f| f.self_weight).sum::<u64>(), profile.total_weight());
    assert_eq!(functions.iter().map(|f| f.self_count).sum::<u64>(), profile.total_count());
    assert!(top::functions(&recording::empty()).is_empty());
}

#[test]
fn recursion_counts_once_and_inlined_functions_own_their_samples() {
    let functions = top::functions(&recording::everything());
    let of = |name: &str, module: &str| {
        let totals =
            functions.iter().find(|f| (f.name.as_str(), f.module.as_str()) == (name, module)).expect(name);
        (totals.self_count, totals.total_count)
    };
    assert_eq!(of("walk", "web"), (8, 8));
    assert_eq!(of("memchr", "web"), (30, 30));
    assert_eq!(of("http::Parser::parse()", "web"), (0, 30));
    assert_eq!((of("main", "web"), of("main", "java")), ((0, 65), (0, 13)));
    assert_eq!(of("libc.so.6+0x9d5a0", "libc.so.6"), (0, 22));
    assert_eq!(of("vfs_read", "[kernel]"), (20, 20));
    assert_eq!(of("[no stack]", ""), (3, 3));
}
