//! What both directions call things: attributes of profiles, by the semantic conventions of OpenTelemetry where these have a name.

/// What a frame is, where a profiler says it.
pub(super) const FRAME_TYPE: &str = "profile.frame.type";
/// The frame type of code of the kernel.
pub(super) const KERNEL: &str = "kernel";
/// The frame type of code that a compiler made of a file.
pub(super) const NATIVE: &str = "native";
/// Of files, hexadecimal.
pub(super) const BUILD_ID: &str = "process.executable.build_id.gnu";
/// Of samples of time: the class of thread time, which nobody else has a name for.
pub(super) const CLASS: &str = "chokepoint.class";
/// Of profiles: how many samples of the window were lost.
pub(super) const LOST_SAMPLES: &str = "chokepoint.lost_samples";
/// Samples of time on a CPU, in nanoseconds.
pub(super) const CPU: &str = "cpu";
/// Samples of time off the CPUs, in nanoseconds; others call it by the other names.
pub(super) const OFF_CPU: &str = "off_cpu";
pub(super) const OFF_CPU_TOO: [&str; 3] = ["events", "off-cpu", "offcpu"];
/// The unit of time.
pub(super) const NANOSECONDS: &str = "nanoseconds";
/// The unit of things.
pub(super) const COUNT: &str = "count";
