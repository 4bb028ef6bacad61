//! Functions in which runtimes collect garbage.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;

/// What their names have, by the runtimes' own sources. Where a collector has threads of its own, these are what all of their work is
/// done below.
const PARTS: &[&str] = &[
    // HotSpot: what its thread for operations does for a collection, threads that collect beside the program, and those that share
    // a collection's work, which are called workers since JDK 18.
    "CollectForAllocation::doit",
    "VM_GC_Operation::",
    "VM_CollectForMetadataAllocation::",
    "ConcurrentGCThread::run",
    "GangWorker::run",
    "CollectedHeap::do_collection",
    "CollectedHeap::collect",
    // V8.
    "v8::internal::Heap::CollectGarbage",
    "v8::internal::Scavenger",
    "v8::internal::MarkCompactCollector",
    "v8::internal::ConcurrentMarking",
    // Go.
    "runtime.gcBgMarkWorker",
    "runtime.gcAssistAlloc",
    "runtime.bgsweep",
    // CPython, Ruby, PHP, Erlang.
    "gc_collect_main",
    "gc_collect_generations",
    "_PyGC_Collect",
    "garbage_collect",
    "gc_marks",
    "zend_gc_run",
    // .NET and Mono.
    "gc_heap::garbage_collect",
    "sgen_perform_collection",
];

/// Finds any of them in one pass: names of all frames of all stacks are looked at.
static FINDER: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::new(PARTS).expect("some dozen short words are within its limits"));

/// How tasks of HotSpot's collectors are called, which is what their workers do since JDK 18.
const HOTSPOT: &[&str] = &["G1", "Shenandoah", "ScavengeRoots", "MarkFromRoots", "ZMark", "ZRelocate"];

/// Whether a function is part of a collection of garbage, or calls what is.
#[must_use]
pub fn is_collecting(function: &str) -> bool {
    let is_task = || {
        function.ends_with("Task::work") && HOTSPOT.iter().any(|collector| function.starts_with(collector))
    };
    FINDER.is_match(function) || is_task()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_known_and_other_functions_are_not() {
        for function in [
            "VM_G1CollectForAllocation::doit",
            "VM_GenCollectForAllocation::doit",
            "G1EvacuateRegionsBaseTask::work",
            "GangWorker::run",
            "v8::internal::Heap::CollectGarbage(v8::internal::AllocationSpace, v8::internal::GarbageCollectionReason)",
            "runtime.gcBgMarkWorker",
            "gc_collect_main",
        ] {
            assert!(is_collecting(function), "{function}");
        }
        for function in
            ["ResizeTask::work", "Heap::allocate", "G1BarrierSet::write_ref_field_post", "collect_words"]
        {
            assert!(!is_collecting(function), "{function}");
        }
    }
}
