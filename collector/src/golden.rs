//! Files that answers are compared with.

use std::path::Path;

/// Compares with `tests/data/NAME`; `BLESS=1` writes it instead.
pub(crate) fn check(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name);
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, actual).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(actual == golden, "{name}; BLESS=1 accepts what is new:\n{actual}");
}
