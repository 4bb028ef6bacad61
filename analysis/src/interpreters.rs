//! Frames in which a runtime interprets a program. What the program itself calls is not in a native stack: such a frame stands
//! for functions that have no frames of their own.

/// The functions that interpreters spend their time in, and the runtime that each belongs to. Names are those of the
/// runtimes' own sources; each has kept its name for years.
const LOOPS: &[(&str, &str)] = &[
    ("_PyEval_EvalFrameDefault", "CPython"),
    ("PyEval_EvalFrameEx", "CPython"),
    ("Perl_runops_standard", "Perl"),
    ("Perl_runops_debug", "Perl"),
    ("vm_exec_core", "Ruby"),
    ("execute_ex", "PHP"),
    ("luaV_execute", "Lua"),
    ("lj_BC_FUNCF", "LuaJIT"),
    ("Builtins_InterpreterEntryTrampoline", "V8"),
    // In the perf maps of the JVM.
    ("Interpreter", "HotSpot"),
    ("bcEval", "R"),
    ("process_main", "Erlang"),
];

/// The runtime whose interpreter this function is; `None` for all others.
#[must_use]
pub fn runtime(function: &str) -> Option<&'static str> {
    // Compilers add `.cold`, `.isra.0` and the like to parts of a function.
    let name = function.split('.').next().unwrap_or(function);
    LOOPS.iter().find(|(known, _)| *known == name).map(|(_, runtime)| *runtime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_count() {
        assert_eq!(runtime("_PyEval_EvalFrameDefault"), Some("CPython"));
        assert_eq!(runtime("_PyEval_EvalFrameDefault.cold"), Some("CPython"));
        assert_eq!(runtime("Interpreter"), Some("HotSpot"));
        assert_eq!(runtime("my::Interpreter"), None);
        assert_eq!(runtime("PyEval_EvalFrame"), None);
    }
}
