//! Makes every workload ahead of the tests, for machines that have no compilers.

fn main() {
    for name in chokepoint_tests::workload::all() {
        let path = chokepoint_tests::workload::path(&name);
        println!("{}", path.display());
    }
}
