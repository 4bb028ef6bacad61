//! What to test and what to do about each constraint.

use super::code::Code;
use super::finding::Amount::{High, Low, Medium};
use super::finding::{Finding, Step};

/// Adds the hypothesis, its cheapest test and the next steps.
pub(super) fn advise(finding: Finding) -> Finding {
    let (hypothesis, experiment, shown_by, steps): (&str, &str, &str, Vec<Step>) = match finding.code {
        Code::CpuSingleThread => (
            "If one thread is the limit, throughput rises when its work gets cheaper or is shared, and not with more CPUs.",
            "Give the process one CPU less (taskset): throughput stays.",
            "record -e cpu --per-thread",
            vec![
                Step::new("make the hottest functions of this thread cheaper", High, Medium, Low),
                Step::new("share its work among several threads or processes", High, High, Medium),
                Step::new("move it to a CPU with a higher clock", Low, Low, Low),
            ],
        ),
        Code::CpuSaturated => (
            "If CPUs are short, fewer threads at a time do the same work with shorter waits, and more CPUs do more.",
            "Halve the number of working threads: throughput stays and latency falls.",
            "record -e run-queue,cpu",
            vec![
                Step::new("let no more threads work at a time than there are CPUs", Medium, Low, Low),
                Step::new("make the hottest functions cheaper", High, Medium, Low),
                Step::new("add CPUs", High, Low, Low),
            ],
        ),
        Code::CpuNoisyNeighbour => (
            "If a neighbour has the CPUs, the queueing falls to near nothing when it stops or gets less.",
            "Lower the neighbour's CPU weight for a minute: run-queue latency falls.",
            "record -e run-queue",
            vec![
                Step::new("give the neighbour a lower cpu.weight, or a quota", High, Low, Medium),
                Step::new("keep the two on CPUs of their own (cpuset)", High, Medium, Low),
                Step::new("move one of them to another host", High, Medium, Medium),
            ],
        ),
        Code::CpuQuota => (
            "If the quota is the limit, raising it by a part raises throughput by up to that part.",
            "Raise the group's quota by a tenth: throttled time falls and throughput rises.",
            "record -e run-queue; signals: group.throttled_periods",
            vec![
                Step::new("raise the group's CPU quota", High, Low, Low),
                Step::new(
                    "run fewer threads at a time: bursts use a period's quota up in its first part",
                    Medium,
                    Medium,
                    Low,
                ),
                Step::new("make the hottest functions cheaper", Medium, Medium, Low),
            ],
        ),
        Code::CpuSteal => (
            "If the hypervisor takes the CPUs, the same work takes less time on another host.",
            "Run the same work on another instance: its time falls by the stolen part.",
            "signals: cpu.steal",
            vec![
                Step::new(
                    "move the machine to another host, or to an instance type with CPUs of its own",
                    High,
                    Medium,
                    Low,
                ),
                Step::new("use fewer CPUs: an instance above its share is cut", Low, Low, Low),
            ],
        ),
        Code::CpuKernel => (
            "If system calls are the limit, making eight times fewer, larger ones cuts the CPU time.",
            "Count them (perf trace -s, strace -c): a few calls make up most.",
            "record -e cpu",
            vec![
                Step::new("batch the system calls: larger buffers, sendmmsg, io_uring", High, Medium, Low),
                Step::new("keep what is asked for again and again (time, stat, open)", Medium, Low, Low),
            ],
        ),
        Code::ProcChurn => (
            "If starting processes is the limit, keeping them lowers the CPU time for the same work.",
            "Trace execs for a second (execsnoop): the same program is started over and over.",
            "record -e cpu",
            vec![
                Step::new("keep worker processes and give them one task after the other", High, Medium, Low),
                Step::new("do it within the process, by a library", High, Medium, Low),
            ],
        ),
        Code::IoRead => (
            "If reads are the limit, half the latency, or half the reads, halves the wait.",
            "Read the same data twice: the second time comes from memory.",
            "record -e io",
            vec![
                Step::new("keep more of it in memory", High, Low, Low),
                Step::new("read ahead, or several at a time: devices serve many at once", High, Medium, Low),
                Step::new("use a faster device", Medium, Medium, Low),
            ],
        ),
        Code::IoWrite => (
            "If writes are the limit, half the latency, or half the writes, halves the wait.",
            "Write to a file in memory (tmpfs) for a test: the wait goes.",
            "record -e io",
            vec![
                Step::new("write in larger pieces, several at a time", High, Medium, Low),
                Step::new("use a faster device", Medium, Medium, Low),
            ],
        ),
        Code::IoSyncWrite => (
            "If flushes are the limit, half as many of them, each for twice the work, halve the wait.",
            "Group two units of work into one flush: throughput nearly doubles.",
            "record -e io",
            vec![
                Step::new("flush for several units of work at once (group commit)", High, Medium, Low),
                Step::new("use a device with a protected write cache", High, Medium, Low),
                Step::new("give up durability of the last second where that is allowed", High, Low, High),
            ],
        ),
        Code::IoThrottle => (
            "If a group's limit holds I/O back, raising it raises the rate one for one.",
            "Raise the limit by a tenth: the rate follows.",
            "record -e io",
            vec![
                Step::new("raise the group's limit (io.max, blkio.throttle)", High, Low, Medium),
                Step::new("do less I/O: cache, batch", Medium, Medium, Low),
            ],
        ),
        Code::IoDirtyThrottle => (
            "If the device cannot keep up with what is written, a larger budget of dirty pages only delays the wait.",
            "Write at half the rate: the wait goes.",
            "record -e io",
            vec![
                Step::new("write less, or in larger pieces", High, Medium, Low),
                Step::new("use a faster device", High, Medium, Low),
                Step::new(
                    "begin writing back earlier (vm.dirty_background_bytes), so that bursts fit",
                    Low,
                    Low,
                    Low,
                ),
            ],
        ),
        Code::MemReclaim | Code::MemSwap => (
            "If memory is the limit, a quarter more of it more than halves the pages that are read again.",
            "Raise the group's limit, or stop something else that uses memory: memory.refaults falls.",
            "record -e reclaim,fault,io; signals: memory.refaults",
            vec![
                Step::new("raise the memory limit, or add memory", High, Low, Low),
                Step::new("make the working set smaller", High, High, Low),
                Step::new("move others that use memory away", Medium, Medium, Low),
            ],
        ),
        Code::MemFault => (
            "If page faults are the limit, using the same memory again lowers the kernel's CPU time.",
            "Keep freed memory in the allocator (MALLOC_TRIM_THRESHOLD_, MALLOC_TOP_PAD_): faults fall.",
            "record -e fault",
            vec![
                Step::new("use buffers again instead of freeing and allocating them", High, Medium, Low),
                Step::new("set the allocator to keep memory", Medium, Low, Low),
                Step::new("use huge pages for large areas", Medium, Low, Medium),
            ],
        ),
        Code::LockMutex | Code::LockMonitor | Code::LockSpin => (
            "If the lock is the limit, half the time that it is held halves the waits, and more threads add only waits.",
            "Use half as many threads: throughput stays.",
            "record -e offwake",
            vec![
                Step::new("do less while it is held", High, Medium, Low),
                Step::new("split it: by key, by CPU, readers apart from writers", High, High, Medium),
                Step::new("use fewer threads", Low, Low, Low),
            ],
        ),
        Code::LockRuntime => (
            "If the runtime's lock is the limit, processes do more work than threads.",
            "Run two processes with half the threads each: throughput nearly doubles.",
            "record -e offwake",
            vec![
                Step::new("use processes instead of threads", High, Medium, Low),
                Step::new("do the heavy part in code that gives the lock up", High, High, Low),
            ],
        ),
        Code::LockDb => (
            "If a lock inside the database is the limit, clients that change different rows, or hold them for less, do more.",
            "Ask the database who waits for whom (PostgreSQL: pg_locks, pg_stat_activity with pg_blocking_pids): most wait for the same.",
            "record -e offwake",
            vec![
                Step::new(
                    "end transactions sooner: nothing slow, and no wait for the client, between the change and the commit",
                    High,
                    Medium,
                    Low,
                ),
                Step::new("spread what all of them change over several rows, or tables", High, High, Medium),
                Step::new("use fewer clients at a time", Low, Low, Low),
            ],
        ),
        Code::MemGc => (
            "If the collection of garbage is the limit, a larger heap, or less garbage, gives its time back to the program.",
            "Give the runtime twice the heap (-Xmx, GOGC, --max-old-space-size): the collector's share of the CPU time falls.",
            "record -e cpu",
            vec![
                Step::new("give the heap more room than what lives in it", High, Low, Medium),
                Step::new(
                    "allocate less: keep objects, use arrays in place of many small objects",
                    High,
                    Medium,
                    Low,
                ),
                Step::new("choose another collector, or more threads for it", Medium, Low, Medium),
            ],
        ),
        Code::LockKernel => (
            "If a lock in the kernel is the limit, fewer threads that change the same thing do the same work.",
            "Use half as many threads: throughput stays.",
            "record -e lock,cpu",
            vec![
                Step::new(
                    "call what takes it less often: fewer mmap and munmap, one directory for each thread",
                    High,
                    Medium,
                    Low,
                ),
                Step::new(
                    "use processes instead of threads, which share an address space",
                    Medium,
                    High,
                    Medium,
                ),
            ],
        ),
        Code::LockFile => (
            "If the lock on the file is the limit, half the time that it is held halves the waits.",
            "Use half as many processes: throughput stays.",
            "record -e lock",
            vec![
                Step::new("hold it for less", High, Medium, Low),
                Step::new("use one file for each process, or lock ranges", High, Medium, Low),
            ],
        ),
        Code::PoolThreads => (
            "If the pool is too small, twice as many threads nearly double the throughput, until something else is full.",
            "Add a quarter to the pool: throughput rises by as much.",
            "record -e offwake",
            vec![
                Step::new("raise the number of threads", High, Low, Low),
                Step::new("have each unit of work keep its thread for less time", High, Medium, Low),
            ],
        ),
        Code::PoolConnections => (
            "If there are too few connections, twice as many nearly double the throughput, until the other side is full.",
            "Add a quarter to the pool: throughput rises by as much.",
            "record -e offwake",
            vec![
                Step::new("raise the number of connections", High, Low, Medium),
                Step::new("give a connection back sooner", High, Medium, Low),
            ],
        ),
        Code::NetDownstream => (
            "If the other service is the limit, half its latency halves the wait.",
            "Ask it for something cheap: the wait goes.",
            "record -e net",
            vec![
                Step::new("ask the same question of that service: run diagnose there", High, Low, Low),
                Step::new("ask several things at once, or keep answers", High, Medium, Low),
            ],
        ),
        Code::NetLoss => (
            "If lost packets are the limit, throughput rises by a multiple without them.",
            "Send over another path, or with a smaller MTU: retransmits fall.",
            "record -e retransmit",
            vec![
                Step::new("look at queues and errors of the interfaces on the path", High, Medium, Low),
                Step::new("send less at a time: pacing, a smaller window", Medium, Low, Low),
            ],
        ),
        Code::NetRetryStorm => (
            "If retries are the load, longer time-outs with a growing pause raise the useful rate.",
            "Double the clients' time-out: useful answers rise.",
            "record -e net",
            vec![
                Step::new(
                    "let clients wait longer between tries, with jitter and a budget",
                    High,
                    Medium,
                    Low,
                ),
                Step::new("refuse early what cannot be served in time", High, Medium, Medium),
            ],
        ),
        Code::NetListenOverflow => (
            "If the queue is too short, a longer one ends the overflows; if the server is too slow, it only delays them.",
            "Raise net.core.somaxconn and the program's backlog: tcp.listen_overflows falls to 0.",
            "signals: tcp.listen_overflows",
            vec![
                Step::new("raise the backlog of listen() and net.core.somaxconn", High, Low, Low),
                Step::new(
                    "accept connections sooner: a thread of its own, several listeners",
                    High,
                    Medium,
                    Low,
                ),
            ],
        ),
        Code::LimitFd => (
            "If the limit is met, raising it ends the failures.",
            "Raise it for the running process (prlimit --nofile): the failures end.",
            "signals: limit.process_files",
            vec![
                Step::new("raise the limit of open files", High, Low, Low),
                Step::new("find what is opened and not closed (ls -l /proc/PID/fd)", High, Medium, Low),
            ],
        ),
        Code::LimitPids => (
            "If the limit is met, raising it ends the failures.",
            "Raise pids.max: group.fork_failures falls to 0.",
            "signals: group.fork_failures",
            vec![
                Step::new("raise the group's limit of processes", High, Low, Medium),
                Step::new("find what is started and not ended", High, Medium, Low),
            ],
        ),
        Code::WaitIpc | Code::WaitChild => (
            "If the other process is the limit, whatever makes it faster shortens the wait.",
            "Include it in the target: the verdict goes on there.",
            "record -e offwake",
            vec![Step::new("diagnose the two together: --cgroup, or several --pid", High, Low, Low)],
        ),
        Code::WaitTimer => (
            "If pauses are the limit, shorter ones raise the throughput.",
            "Halve the pause: throughput rises.",
            "record -e wall",
            vec![
                Step::new("wait for the event instead of asking again and again", High, Medium, Low),
                Step::new("make the pause shorter", Medium, Low, Low),
            ],
        ),
        Code::NoneIdle | Code::NoneHealthy => (
            "If nothing limits it, more load raises the throughput in proportion.",
            "Raise the load by a tenth: throughput follows, latency stays.",
            "record -e wall",
            Vec::new(),
        ),
        Code::Unknown => (
            "",
            "Record longer, with all processes that take part (--cgroup, or the whole host).",
            "record -e wall",
            vec![Step::new("diagnose again for longer, or with more of what takes part", Medium, Low, Low)],
        ),
    };
    let mut finding = finding.tested(hypothesis, experiment).steps(steps);
    finding.shown_by = format!("chokepoint {shown_by}");
    if let Some(signals) = shown_by.strip_prefix("signals: ") {
        finding.shown_by = format!("chokepoint signals ({signals})");
    }
    finding
}
