//! What the names of the kernel's functions say of a stack: which class of wait it is in, and where the scheduler, an interrupt
//! or a wake-up begins.

use crate::activity::Class;

/// What the scheduler says of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Whether signals interrupt it.
    pub interruptible: bool,
    /// Whether the kernel counts it as a wait for a device.
    pub io: bool,
    /// Whether the thread is the kernel's own.
    pub kernel_thread: bool,
}

/// The class of a wait, by the names of the kernel's functions it waits in (leaf first, without the scheduler's own or with
/// them) and by what the scheduler says of it.
///
/// Names are of kernels from 5.10 to 6.18. The rules go from the most specific to the least: the first that any frame meets
/// holds, wherever in the stack that is, because a wait for a lock within a read is a wait for a lock. Compilers' suffixes
/// (`.isra.0`, `.constprop.0`) do not count.
#[must_use]
pub fn classify<'a>(frames: impl IntoIterator<Item = &'a str> + Clone, blocked: Blocked) -> Class {
    let has = |rules: &[Rule]| {
        frames.clone().into_iter().any(|frame| rules.iter().any(|rule| rule.holds(plain(frame))))
    };
    for (class, rules) in RULES {
        if has(rules) {
            return *class;
        }
    }
    if has(STORAGE) || blocked.io {
        return if has(WRITES) { Class::IoWrite } else { Class::IoRead };
    }
    for (class, rules) in LATER_RULES {
        if has(rules) {
            return *class;
        }
    }
    match blocked {
        // The loops of the kernel's own threads have too many names; they sleep so that signals would interrupt them, or
        // uncounted.
        Blocked { kernel_thread: true, interruptible: true, .. } => Class::Idle,
        _ => Class::Other,
    }
}

/// Whether a function of the kernel is the last of a switch from one thread to another: what lies above it is no part of what
/// the thread waited in.
#[must_use]
pub fn ends_switch(function: &str) -> bool {
    plain(function) == "finish_task_switch"
}

/// Whether a function of the kernel is the scheduler's way of giving up the CPU, in which every wait ends. The kernel leaves
/// them out itself where it tells the stack of a thread that does not run.
#[must_use]
pub fn is_scheduling(function: &str) -> bool {
    const RULES: &[Rule] = &[
        Is("__schedule"),
        Is("schedule"),
        Is("schedule_preempt_disabled"),
        Is("preempt_schedule_common"),
        Is("preempt_schedule_irq"),
        Starts("schedule_timeout"),
        Starts("schedule_hrtimeout"),
        Starts("io_schedule"),
    ];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

/// Whether a function of the kernel is part of how a tracepoint calls a program.
#[must_use]
pub fn is_tracing(function: &str) -> bool {
    const RULES: &[Rule] = &[
        Starts("bpf_"),
        Starts("__bpf_"),
        Starts("__traceiter_"),
        Starts("__SCT__tp_func_"),
        Starts("trace_call_bpf"),
    ];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

/// Whether a function of the kernel is a system call that sends a signal.
#[must_use]
pub fn is_signalling(function: &str) -> bool {
    const CALLS: [&str; 6] = [
        "sys_kill",
        "sys_tkill",
        "sys_tgkill",
        "sys_rt_sigqueueinfo",
        "sys_rt_tgsigqueueinfo",
        "sys_pidfd_send_signal",
    ];
    CALLS.iter().any(|call| function.ends_with(call))
}

/// Whether a function of the kernel is that which handles all page faults.
#[must_use]
pub fn is_fault(function: &str) -> bool {
    plain(function) == "handle_mm_fault"
}

/// Whether a function of the kernel makes data safe on a device: what happens below it, on a CPU or off it, is for that.
#[must_use]
pub fn is_flush(function: &str) -> bool {
    const RULES: &[Rule] = &[
        Has("_fsync"),
        Is("ext4_sync_file"),
        Is("sync_filesystem"),
        Is("sync_inodes_sb"),
        Is("iterate_supers"),
    ];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

/// Whether a function of the kernel is where an interrupt or a deferred part of one begins.
#[must_use]
pub fn is_interrupt(function: &str) -> bool {
    const RULES: &[Rule] = &[
        Starts("asm_sysvec_"),
        Starts("sysvec_"),
        Is("asm_common_interrupt"),
        Is("common_interrupt"),
        Is("__common_interrupt"),
        Is("handle_softirqs"),
        Is("__do_softirq"),
        Is("__softirqentry_text_start"),
        Is("do_softirq"),
        Is("__irq_exit_rcu"),
        Is("irq_exit_rcu"),
        Is("el1h_64_irq"),
        Is("el0t_64_irq"),
        Is("el1_irq"),
        Is("el0_irq"),
        Is("exc_nmi"),
    ];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

/// The frame of an interrupt's entry among a stack's kernel frames, leaf first. `is` tells whether a frame, by its position, has a
/// function of this kind.
///
/// What a thread sends to the host itself is received in a deferred part of an interrupt that the thread runs on its way out of
/// sending: that is its own doing, and no interrupt.
#[must_use]
pub fn interrupt(frames: usize, is: impl Fn(usize, fn(&str) -> bool) -> bool) -> Option<usize> {
    let entry = (0..frames).rev().find(|frame| is(*frame, is_interrupt))?;
    let is_own = is(entry, is_deferred)
        && (entry + 1..frames).any(|caller| is(caller, is_sending))
        && (0..entry).any(|called| is(called, is_receiving_own));
    (!is_own).then_some(entry)
}

/// Whether a function of the kernel is where a timer that a thread set comes due.
#[must_use]
pub fn is_timer(function: &str) -> bool {
    const RULES: &[Rule] =
        &[Is("hrtimer_wakeup"), Is("process_timeout"), Is("it_real_fn"), Is("timerfd_tmrproc")];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

/// Deferred parts of interrupts, which also run where a thread enables them again.
fn is_deferred(function: &str) -> bool {
    const RULES: &[Rule] =
        &[Is("handle_softirqs"), Is("__do_softirq"), Is("__softirqentry_text_start"), Is("do_softirq")];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

fn is_sending(function: &str) -> bool {
    const RULES: &[Rule] = &[Is("__dev_queue_xmit"), Is("ip_finish_output2"), Is("ip6_finish_output2")];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

/// Packets of a real device come by its own poll function, those of this host's own sockets by the backlog.
fn is_receiving_own(function: &str) -> bool {
    Is("process_backlog").holds(plain(function))
}

/// Whether a function of the kernel is part of waking a thread, and says nothing of why.
#[must_use]
pub fn is_waking(function: &str) -> bool {
    const RULES: &[Rule] = &[
        Starts("bpf_prog_"),
        Starts("bpf_trace_run"),
        Starts("__bpf_trace_"),
        Starts("__traceiter_"),
        Starts("trace_event_raw_event_"),
        Is("try_to_wake_up"),
        Is("wake_up_process"),
        Is("default_wake_function"),
    ];
    RULES.iter().any(|rule| rule.holds(plain(function)))
}

/// How a frame is recognised.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Is(&'static str),
    Starts(&'static str),
    /// Starts and ends so.
    Spans(&'static str, &'static str),
    Has(&'static str),
}

use Rule::{Has, Is, Spans, Starts};

impl Rule {
    fn holds(self, frame: &str) -> bool {
        match self {
            Is(name) => frame == name,
            Starts(name) => frame.starts_with(name),
            Spans(start, end) => frame.starts_with(start) && frame.ends_with(end),
            Has(part) => frame.contains(part),
        }
    }
}

/// The name without what compilers add.
fn plain(frame: &str) -> &str {
    frame.split_once('.').map_or(frame, |(name, _)| name)
}

/// Before it is asked whether the wait is for storage.
const RULES: &[(Class, &[Rule])] = &[
    (Class::IoDirtyThrottled, &[Starts("balance_dirty_pages")]),
    (
        Class::MemoryReclaim,
        &[
            Is("shrink_lruvec"),
            Starts("try_to_free_"),
            Is("__mem_cgroup_handle_over_high"),
            Is("mem_cgroup_handle_over_high"),
            Is("reclaim_throttle"),
            Is("throttle_direct_reclaim"),
            Is("do_swap_page"),
        ],
    ),
    (
        Class::LockKernel,
        &[
            Spans("rwsem_down_", "_slowpath"),
            Starts("__mutex_lock"),
            Is("mutex_lock"),
            Is("percpu_rwsem_wait"),
            Is("__percpu_down_read"),
            Is("percpu_down_write"),
            Is("__down_common"),
            Is("rt_mutex_slowlock"),
        ],
    ),
    (
        Class::LockFile,
        &[
            Is("locks_lock_inode_wait"),
            Is("__do_sys_flock"),
            Is("__x64_sys_flock"),
            Is("fcntl_setlk"),
            Is("flock_lock_inode_wait"),
        ],
    ),
    (
        Class::IoSync,
        &[
            Is("folio_wait_writeback"),
            Is("wait_on_page_writeback"),
            Is("__filemap_fdatawait_range"),
            Has("_fsync"),
            Is("ext4_sync_file"),
            Is("xfs_file_fsync"),
            Is("blkdev_issue_flush"),
            Is("jbd2_log_wait_commit"),
            Is("__sync_dirty_buffer"),
            Is("sync_inodes_sb"),
            Is("sync_filesystem"),
        ],
    ),
    (
        Class::Futex,
        &[
            Is("futex_do_wait"),
            Is("futex_wait_queue"),
            Is("futex_wait_queue_me"),
            Is("__futex_wait"),
            Is("futex_wait"),
            Is("futex_lock_pi"),
            Is("futex_wait_requeue_pi"),
            Is("futex_wait_multiple"),
        ],
    ),
    (Class::NetSend, &[Is("sk_stream_wait_memory"), Is("sock_alloc_send_pskb"), Is("sock_wait_for_wmem")]),
    (
        Class::NetConnect,
        &[
            Is("inet_wait_for_connect"),
            Is("__inet_stream_connect"),
            Is("unix_stream_connect"),
            Is("unix_wait_for_peer"),
        ],
    ),
    (Class::NetAccept, &[Is("inet_csk_accept"), Is("inet_csk_wait_for_connect"), Is("unix_accept")]),
    (
        Class::NetReceive,
        &[
            Is("sk_wait_data"),
            Starts("tcp_recvmsg"),
            Starts("unix_stream_read_generic"),
            Is("unix_stream_data_wait"),
            Starts("__skb_wait_for_more_packets"),
            Starts("__skb_recv_"),
            Is("netlink_recvmsg"),
        ],
    ),
    (
        Class::Event,
        &[
            Is("do_epoll_wait"),
            Is("ep_poll"),
            Is("do_sys_poll"),
            Is("do_poll"),
            Is("do_select"),
            Is("io_cqring_wait"),
            Is("eventfd_read"),
            Is("signalfd_read"),
            Is("signalfd_read_iter"),
            Is("inotify_read"),
            Is("fanotify_read"),
            Is("read_events"),
        ],
    ),
    (
        Class::Ipc,
        &[
            Is("anon_pipe_read"),
            Is("anon_pipe_write"),
            Is("pipe_read"),
            Is("pipe_write"),
            Is("pipe_wait_readable"),
            Is("fifo_open"),
            Is("wait_for_partner"),
            Is("do_msgrcv"),
            Is("do_msgsnd"),
            Starts("do_semtimedop"),
            Starts("__do_semtimedop"),
            Is("do_mq_timedreceive"),
            Is("do_mq_timedsend"),
            Is("wq_sleep"),
            Is("n_tty_read"),
            Is("n_tty_write"),
        ],
    ),
    (Class::Child, &[Is("do_wait"), Is("__do_wait"), Is("kernel_wait4"), Is("wait_for_vfork_done")]),
    (
        Class::Timer,
        &[
            Is("hrtimer_nanosleep"),
            Is("do_nanosleep"),
            Is("common_nsleep"),
            Is("timerfd_read"),
            Is("timerfd_read_iter"),
        ],
    ),
    (
        Class::Idle,
        &[
            Is("do_signal_stop"),
            Is("ptrace_stop"),
            Is("do_freezer_trap"),
            Is("__refrigerator"),
            Is("__do_sys_pause"),
            Is("__x64_sys_pause"),
            Is("sigsuspend"),
            Is("do_sigtimedwait"),
            Is("__do_sys_rt_sigtimedwait"),
            Is("worker_thread"),
            Is("rescuer_thread"),
            Is("smpboot_thread_fn"),
            Is("kthreadd"),
            Is("rcu_gp_kthread"),
            Is("rcu_gp_fqs_loop"),
            Is("kswapd"),
            Is("kcompactd"),
            Is("khugepaged"),
            Is("ksm_scan_thread"),
            Is("kauditd_thread"),
            Is("io_wq_worker"),
            Is("io_sq_thread"),
            Is("kjournald2"),
            Is("oom_reaper"),
            Is("irq_thread"),
            Is("watchdog"),
        ],
    ),
];

/// Functions in which a thread waits for storage.
const STORAGE: &[Rule] = &[
    Is("__iomap_dio_rw"),
    Is("iomap_dio_rw"),
    Is("folio_wait_bit_common"),
    Is("wait_on_page_bit_common"),
    Is("__wait_on_page_locked_async"),
    Is("filemap_read"),
    Is("filemap_fault"),
    Is("filemap_read_folio"),
    Is("submit_bio_wait"),
    Is("blk_mq_get_tag"),
    Is("rq_qos_wait"),
    Is("__bio_queue_enter"),
    Is("__wait_on_buffer"),
    Is("bit_wait_io"),
    Is("blkdev_direct_IO"),
    Starts("__blkdev_direct_IO"),
    Is("do_get_write_access"),
    Is("wait_transaction_locked"),
    Is("xlog_wait_on_iclog"),
];

/// Below which of those it is a write.
const WRITES: &[Rule] = &[
    Is("vfs_write"),
    Is("ksys_write"),
    Is("do_writev"),
    Is("vfs_writev"),
    Is("ksys_pwrite64"),
    Is("vfs_iter_write"),
    Is("do_writepages"),
    Is("wb_workfn"),
    Is("wb_writeback"),
    Is("do_get_write_access"),
    Is("wait_transaction_locked"),
    Is("ext4_da_write_begin"),
    Is("generic_perform_write"),
    Is("io_write"),
    Is("do_truncate"),
    Is("do_unlinkat"),
    Is("filename_create"),
];

/// What is left when it is for no storage.
const LATER_RULES: &[(Class, &[Rule])] = &[
    (Class::Child, &[Is("kernel_clone"), Is("_do_fork"), Is("__do_sys_vfork")]),
    (Class::Timer, &[Is("schedule_hrtimeout_range"), Is("msleep"), Is("usleep_range")]),
];

#[cfg(test)]
mod tests {
    use super::*;

    const SLEEP: Blocked = Blocked { interruptible: true, io: false, kernel_thread: false };
    const HARD: Blocked = Blocked { interruptible: false, io: false, kernel_thread: false };
    const DISK: Blocked = Blocked { interruptible: false, io: true, kernel_thread: false };

    /// Stacks as kernels from 5.10 to 6.18 have them, leaf first.
    #[test]
    fn waits_of_real_kernels() {
        let cases: &[(&str, Blocked, Class)] = &[
            (
                "__schedule schedule futex_do_wait __futex_wait futex_wait do_futex __x64_sys_futex",
                SLEEP,
                Class::Futex,
            ),
            (
                "__schedule schedule futex_wait_queue_me futex_wait do_futex __x64_sys_futex",
                SLEEP,
                Class::Futex,
            ),
            ("__schedule schedule pipe_read new_sync_read vfs_read ksys_read", SLEEP, Class::Ipc),
            ("__schedule schedule anon_pipe_read vfs_read ksys_read", SLEEP, Class::Ipc),
            (
                "__schedule schedule do_nanosleep hrtimer_nanosleep __x64_sys_clock_nanosleep",
                SLEEP,
                Class::Timer,
            ),
            ("__schedule schedule do_wait kernel_wait4 __do_sys_wait4", SLEEP, Class::Child),
            (
                "__schedule schedule schedule_timeout wait_for_completion_state kernel_clone __x64_sys_vfork",
                HARD,
                Class::Child,
            ),
            (
                "__schedule schedule schedule_timeout wait_woken sk_wait_data tcp_recvmsg_locked tcp_recvmsg",
                SLEEP,
                Class::NetReceive,
            ),
            (
                "__schedule schedule schedule_timeout unix_stream_read_generic unix_stream_recvmsg",
                SLEEP,
                Class::NetReceive,
            ),
            (
                "__schedule schedule schedule_timeout inet_csk_accept inet_accept do_accept",
                SLEEP,
                Class::NetAccept,
            ),
            (
                "__schedule schedule schedule_timeout wait_woken inet_wait_for_connect __inet_stream_connect",
                SLEEP,
                Class::NetConnect,
            ),
            (
                "__schedule schedule schedule_timeout wait_woken sk_stream_wait_memory tcp_sendmsg_locked",
                SLEEP,
                Class::NetSend,
            ),
            (
                "__schedule schedule schedule_hrtimeout_range_clock do_epoll_wait __x64_sys_epoll_wait",
                SLEEP,
                Class::Event,
            ),
            (
                "__schedule schedule schedule_hrtimeout_range ep_poll.constprop.0 do_epoll_wait",
                SLEEP,
                Class::Event,
            ),
            (
                "__schedule schedule schedule_hrtimeout_range_clock do_sys_poll __x64_sys_poll",
                SLEEP,
                Class::Event,
            ),
            (
                "__schedule schedule io_schedule folio_wait_bit_common filemap_read vfs_read ksys_read",
                DISK,
                Class::IoRead,
            ),
            (
                "__schedule schedule io_schedule wait_on_page_bit_common generic_file_buffered_read vfs_read",
                DISK,
                Class::IoRead,
            ),
            (
                "__schedule schedule io_schedule blk_mq_get_tag __blk_mq_alloc_request vfs_write ksys_write",
                DISK,
                Class::IoWrite,
            ),
            (
                "__schedule schedule io_schedule __iomap_dio_rw iomap_dio_rw ext4_file_write_iter vfs_write",
                DISK,
                Class::IoWrite,
            ),
            (
                "__schedule schedule io_schedule folio_wait_bit_common folio_wait_writeback __filemap_fdatawait_range file_write_and_wait_range ext4_sync_file",
                DISK,
                Class::IoSync,
            ),
            ("__schedule schedule jbd2_log_wait_commit ext4_fsync_journal do_fsync", HARD, Class::IoSync),
            (
                "__schedule io_schedule_timeout balance_dirty_pages balance_dirty_pages_ratelimited_flags generic_perform_write vfs_write",
                DISK,
                Class::IoDirtyThrottled,
            ),
            (
                "__schedule schedule rwsem_down_write_slowpath down_write_killable vm_mmap_pgoff",
                HARD,
                Class::LockKernel,
            ),
            (
                "__schedule schedule schedule_preempt_disabled __mutex_lock.constprop.0 pipe_write vfs_write",
                HARD,
                Class::LockKernel,
            ),
            ("__schedule schedule __do_sys_flock do_syscall_64", SLEEP, Class::LockFile),
            (
                "__schedule schedule io_schedule folio_wait_bit_common do_swap_page handle_mm_fault",
                DISK,
                Class::MemoryReclaim,
            ),
            ("__schedule schedule do_signal_stop get_signal", SLEEP, Class::Idle),
            ("__schedule schedule ptrace_stop.part.0 ptrace_notify", SLEEP, Class::Idle),
            ("__schedule schedule something_new __x64_sys_new", SLEEP, Class::Other),
            ("", DISK, Class::IoRead),
        ];
        for (stack, blocked, class) in cases {
            assert_eq!(classify(stack.split_whitespace(), *blocked), *class, "{stack}");
        }
        let kernel_thread = Blocked { kernel_thread: true, ..SLEEP };
        assert_eq!(classify(["schedule", "some_thread_fn", "kthread"], kernel_thread), Class::Idle);
    }

    #[test]
    fn what_a_thread_sends_to_its_own_host_is_no_interrupt() {
        let softirq =
            ["process_backlog", "__napi_poll", "net_rx_action", "handle_softirqs", "do_softirq.part.0"];
        let entry = |frames: &[&str]| interrupt(frames.len(), |at, what| what(frames[at]));
        let sent = [&softirq[..], &["__local_bh_enable_ip", "__dev_queue_xmit", "tcp_sendmsg"]].concat();
        assert_eq!(entry(&sent), None);
        // On its way out of sending, a thread also receives what came from elsewhere.
        let received = [&["igb_poll"], &softirq[1..], &["__local_bh_enable_ip", "__dev_queue_xmit"]].concat();
        assert_eq!(entry(&received), Some(4));
        let interrupted = [
            &softirq[..],
            &["__irq_exit_rcu", "sysvec_call_function_single", "asm_sysvec_call_function_single"],
        ]
        .concat();
        assert_eq!(entry(&interrupted), Some(7));
        assert_eq!(entry(&["pipe_write", "vfs_write"]), None);
    }
}
