//! The ABI between the eBPF programs and the agent.
//!
//! Built for both targets, without dependencies. Every type is `#[repr(C)]` without padding, and its size
//! and offsets are asserted here, so both sides fail to compile together when it changes. Nothing in it
//! names a machine register.

#![no_std]

pub mod rule;
pub mod tables;

/// Most kernel frames in a record; `perf_event_max_stack` is 127 by default.
pub const MAX_KERNEL_FRAMES: usize = 127;
/// Most user frames in a record.
pub const MAX_USER_FRAMES: usize = 127;
/// Length of a task's name (`TASK_COMM_LEN`), terminating NUL included.
pub const COMM_LEN: usize = 16;
/// Bytes that a full run of frames takes in a record: one more than [`MAX_KERNEL_FRAMES`], so that
/// it is a power of two and a mask bounds it for the verifier.
pub const FRAMES_BYTES: usize = 1024;
/// Cgroups that `--cgroup` can name at once.
pub const MAX_CGROUPS: u32 = 8;
/// Processes that `--pid` can name at once.
pub const MAX_PIDS: u32 = 1024;

/// What made a record.
pub mod kind {
    /// The CPU profiler's timer.
    pub const CPU: u16 = 1;
    /// Not a sample but a piece of the stack of the sample that follows: see [`SlicePiece`](super::SlicePiece).
    pub const SLICE: u16 = 2;
    /// A task came by an instruction that is watched.
    pub const PROBE: u16 = 3;
    /// A task left its CPU: the stack with which it waits.
    pub const LEAVE: u16 = 4;
    /// A wait is over. Not a sample: see [`Wait`](super::Wait).
    pub const WAIT: u16 = 5;
    /// A task has ended. Not a sample: a [`Wait`](super::Wait), and its [`WaitTotal`](super::WaitTotal)s, behind it.
    pub const TASK_END: u16 = 6;
    /// A task woke another one: the waker's stack. Its time is [`Wait::woken`](super::Wait::woken) of the wait that it ended.
    pub const WAKE: u16 = 7;
    /// A page fault of a task.
    pub const PAGE_FAULT: u16 = 12;
    /// Not a sample but what the fault of the sample that follows is about: see [`FaultedPage`](super::FaultedPage).
    pub const FAULTED_PAGE: u16 = 13;
}

/// Bits of [`SampleHeader::flags`] and [`Wait::flags`].
pub mod flag {
    /// The kernel stack has more frames than the record.
    pub const KERNEL_DEPTH: u16 = 1 << 0;
    /// The walk would have to be finished, but this CPU has sent as many slices of stack this second as it may: nothing
    /// follows the frames.
    pub const NO_SLICE: u16 = 1 << 1;
    /// What the agent has to look at does not stay for long: it is woken.
    pub const URGENT: u16 = 1 << 2;
    /// A wait that is left out, because it was shorter than those that were asked for: it is in no totals.
    pub const LEFT_OUT: u16 = 1 << 3;
}

/// How the walk of a user stack ended, in [`SampleHeader::walk`].
pub mod walk {
    /// There is no user stack: a kernel thread.
    pub const NONE: u16 = 0;
    /// The outermost frame was reached.
    pub const COMPLETE: u16 = 1;
    /// The record is full.
    pub const DEPTH: u16 = 2;
    /// A return address or saved register could not be read from the stack.
    pub const UNREADABLE: u16 = 3;
    /// The caller's stack pointer would lie below the callee's.
    pub const BROKEN: u16 = 4;
    /// A 32-bit task.
    pub const COMPAT: u16 = 5;
    /// From here on the agent has to finish the walk: a [`Resume`](super::Resume) follows the frames. The process's mappings are
    /// not in the arena, or another program runs in it by now.
    pub const NEW_PROCESS: u16 = 8;
    /// As above: the address lies in none of the mappings in the arena.
    pub const UNMAPPED: u16 = 9;
    /// As above: the text page's rows are not in the arena.
    pub const COLD_PAGE: u16 = 10;
    /// As above: rows cannot express how to go on.
    pub const SLOW_RULE: u16 = 11;
    /// As above: no unwind information and no plausible frame pointer.
    pub const NO_RULE: u16 = 12;
    /// As above: the frame pointer is wanted, but a callee's rule could not tell where it is.
    pub const LOST_FP: u16 = 13;

    /// Whether a [`Resume`](super::Resume) follows the frames.
    pub const fn resumes(walk: u16) -> bool {
        walk >= NEW_PROCESS
    }

    /// Whether the next such walk can go through once the agent has put into the arena what this one lacked: the sooner it
    /// knows, the fewer there are.
    pub const fn teaches(walk: u16) -> bool {
        matches!(walk, NEW_PROCESS | UNMAPPED | COLD_PAGE)
    }
}

/// Registers in a [`Resume`], by DWARF number; what an architecture does not have is 0.
pub const REGISTERS: usize = 33;
/// Bytes of stack that a record carries at most.
pub const SLICE_BYTES: usize = 16 << 10;
/// Pieces of stack, of [`SLICE_BYTES`] each, that can precede a sample whose own slice does not reach the stack's end.
pub const MAX_PIECES: usize = 3;

/// How many slices of stack a CPU has sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceBudget {
    /// The second of `CLOCK_MONOTONIC` that `sent` is about.
    pub second: u64,
    /// Slices sent in that second.
    pub sent: u64,
}

/// Follows the frames of a record whose user stack the agent has to finish; `slice_bytes` of stack follow it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Address of the frame to go on from; it is among the frames already.
    pub ip: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// Its frame pointer.
    pub fp: u64,
    /// Address of the slice's first byte.
    pub slice_start: u64,
    /// Not 0 when `ip` is a return address.
    pub returned: u32,
    /// Bytes of stack that follow.
    pub slice_bytes: u32,
    /// The registers with which the task left user mode, by DWARF number.
    pub registers: [u64; REGISTERS],
}

/// Begins a record with a piece of stack. Those of one sample come before it in the ring, so that a reader who sees the sample has
/// them all; nearest to the leaf first, without gaps, beginning where the sample's own slice ends. The members that
/// [`SampleHeader`] has too lie in the same places.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlicePiece {
    /// The sample's number.
    pub sequence: u64,
    /// The sample's time.
    pub timestamp: u64,
    /// Address of the piece's first byte.
    pub start: u64,
    /// Bytes of stack that follow.
    pub bytes: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The sample's CPU.
    pub cpu: u32,
    /// [`kind::SLICE`].
    pub kind: u16,
    /// The sample's scratch record, see [`SampleHeader::slot`].
    pub slot: u16,
}

/// Why a task does not run: how the kernel had it at its switch.
pub mod wait_state {
    /// It could run: others do, or it was throttled.
    pub const RUNNABLE: u16 = 0;
    /// It sleeps until something happens.
    pub const SLEEP: u16 = 1;
    /// It waits for something in the kernel and cannot be interrupted.
    pub const DISK: u16 = 2;
    /// The same, and the kernel accounts it as input or output.
    pub const IO: u16 = 3;
    /// It is stopped or traced.
    pub const STOPPED: u16 = 4;
    /// It sleeps in a futex system call: [`SLEEP`], told apart because these waits have totals of their own.
    pub const FUTEX: u16 = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
}

/// Operations of futex system calls, in [`FutexCall::operation`]. Those of `futex(2)` are as in `include/uapi/linux/futex.h`; `futex_wait`
/// (6.7+) is told as [`WAIT_BITSET`](futex::WAIT_BITSET), which it is.
pub mod futex {
    /// Sleeps if the word has the value.
    pub const WAIT: u32 = 0;
    /// Wakes some that sleep.
    pub const WAKE: u32 = 1;
    /// Wakes some, moves others to a second word.
    pub const REQUEUE: u32 = 3;
    /// The same, if the word has a value.
    pub const CMP_REQUEUE: u32 = 4;
    /// Changes a word, and wakes some that sleep on either of two.
    pub const WAKE_OP: u32 = 5;
    /// Takes a lock with priority inheritance.
    pub const LOCK_PI: u32 = 6;
    /// Gives it back.
    pub const UNLOCK_PI: u32 = 7;
    /// [`WAIT`], to be woken by some only.
    pub const WAIT_BITSET: u32 = 9;
    /// [`WAKE`] of some only.
    pub const WAKE_BITSET: u32 = 10;
    /// Sleeps until it is moved to a lock with priority inheritance and has that.
    pub const WAIT_REQUEUE_PI: u32 = 11;
    /// [`CMP_REQUEUE`] to such a lock.
    pub const CMP_REQUEUE_PI: u32 = 12;
    /// [`LOCK_PI`] by another clock.
    pub const LOCK_PI2: u32 = 13;
    /// The bits that hold one of the above; the others are flags.
    pub const COMMAND: u32 = 0x7f;
    /// `futex_waitv` (5.16+). No bit of `futex(2)`.
    pub const WAITV: u32 = 1 << 16;
}

/// A futex system call in which a task sleeps.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FutexCall {
    /// The word's address; `futex_waitv`: that of the list.
    pub address: u64,
    /// One of [`futex`], with the flags of `futex(2)`.
    pub operation: u32,
    /// The value that the word was to have; `futex_waitv`: words in the list.
    pub value: u32,
}

/// How a wait was ended, in [`Wait::ended`].
pub mod ended {
    /// No waking was seen: it came before the task was seen to leave, or the kernel did not run the program, or nobody has to wake a task
    /// that could run all the time.
    pub const UNSEEN: u16 = 0;
    /// By a task, or by an interrupt that hit it: its kernel stack tells.
    pub const TASK: u16 = 1;
    /// The same, and the task was waking sleepers in a futex system call.
    pub const FUTEX: u16 = 2;
    /// By an interrupt that hit an idle CPU.
    pub const IDLE: u16 = 3;
}

/// Waits of one task in one state that were shorter than `LONG_WAIT`, and are not left out.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WaitTotal {
    /// How many have ended.
    pub count: u64,
    /// How long they were together.
    pub nanoseconds: u64,
}

/// A task that leaves CPUs and comes back. The value of the map of tasks, by thread id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TaskWaits {
    /// When it left its CPU, `CLOCK_MONOTONIC` nanoseconds; 0 while it runs.
    pub left: u64,
    /// One of [`wait_state`], of the wait that began then.
    pub state: u16,
    /// Not 0 when a stack was taken and written at the beginning of that wait.
    pub sampled: u16,
    /// Of how many waits one has its stack taken.
    pub every: u32,
    /// The epoch that `switches` is about.
    pub epoch: u32,
    /// How often it has left its CPU in that epoch.
    pub switches: u32,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// When it was woken from that wait; 0: not yet, or that was not looked at.
    pub woken: u64,
    /// Who woke it: process id,
    pub waker_pid: u32,
    /// and thread id.
    pub waker_tid: u32,
    /// The futex call that it sleeps in, in state [`FUTEX`](wait_state::FUTEX).
    pub futex: FutexCall,
    /// The lock of the kernel's that it is getting; 0: none.
    pub lock: u64,
    /// One of [`ended`].
    pub ended: u16,
    /// Not 0 when the waker's stack was taken and written.
    pub waker_sampled: u16,
    /// Not 0 when the wait is for a lock of the kernel's.
    pub locked: u16,
    /// Makes the size explicit; 0.
    pub reserved: u16,
    /// Waits that have ended, were short and are not left out, by state.
    pub totals: [WaitTotal; wait_state::COUNT],
    /// The thread's name when it first left a CPU.
    pub comm: [u8; COMM_LEN],
}

/// The end of a wait. Written for those whose stack was taken, and for those that were long. The members that [`SampleHeader`] has
/// too lie in the same places. Where no stack was taken, `kernel_frames` addresses (`u64`, leaf first) follow: where the task had
/// waited in the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    /// When it began, `CLOCK_MONOTONIC` nanoseconds: the time of the sample with the stack.
    pub began: u64,
    /// When it ended.
    pub timestamp: u64,
    /// The stack was taken with a probability of one in so many; 0: it was not.
    pub every: u32,
    /// One of [`wait_state`].
    pub state: u16,
    /// Kernel addresses that follow.
    pub kernel_frames: u16,
    /// When the task was woken; 0: that was not seen, or not looked at. The time of the sample with the waker's stack.
    pub woken: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The CPU where it ended.
    pub cpu: u32,
    /// [`kind::WAIT`] or [`kind::TASK_END`].
    pub kind: u16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// The thread's name, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// The futex call, in state [`FUTEX`](wait_state::FUTEX).
    pub futex: FutexCall,
    /// Who woke it: process id,
    pub waker_pid: u32,
    /// and thread id.
    pub waker_tid: u32,
    /// One of [`ended`].
    pub ended: u16,
    /// Not 0 when the waker's stack was taken.
    pub waker_sampled: u16,
    /// Not 0 when the wait was for a lock of the kernel's.
    pub locked: u16,
    /// Makes the size explicit; 0.
    pub reserved: u16,
}

/// What the scheduler programs counted on one CPU.
///
/// `switches == idle + not_selected + ended + begun + table_full`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SwitchCounters {
    /// Switches from one task to another.
    pub switches: u64,
    /// Of them, from the idle task.
    pub idle: u64,
    /// From a task outside the selection, or from the agent itself.
    pub not_selected: u64,
    /// From a task that has ended.
    pub ended: u64,
    /// Waits that began.
    pub begun: u64,
    /// Waits that began and that there was no room for in the map of tasks.
    pub table_full: u64,
    /// Stacks that were taken and written to the ring.
    pub stacks: u64,
    /// Stacks that the ring had no room for.
    pub stacks_ring_full: u64,
    /// Stacks that were not taken because too much time went into them.
    pub over_budget: u64,
    /// Ends of waits that the ring had no room for. Such a wait is in its task's totals, short or not, unless it is left out.
    pub waits_ring_full: u64,
    /// Nanoseconds that went into stacks.
    pub stack_nanoseconds: u64,
    /// The epoch that the following are about.
    pub epoch: u64,
    /// Nanoseconds that went into stacks in it.
    pub epoch_nanoseconds: u64,
    /// Waits of one task in an epoch up to which all have their stacks taken.
    pub quota: u64,
    /// Wakings of tasks that were not seen to leave: they had not left yet, mostly.
    pub early: u64,
    /// Wakings of tasks in waits whose wakers are asked for: whose stack was taken, or that are long.
    pub wakings: u64,
    /// Stacks of wakers that were taken and written to the ring.
    pub wakers: u64,
    /// Stacks of wakers that the ring had no room for.
    pub wakers_ring_full: u64,
    /// Stacks of wakers that were not taken because too much time went into stacks.
    pub wakers_over_budget: u64,
    /// Waits that have ended and are left out, because they were shorter than `SHORTEST_WAIT`.
    pub left_out: u64,
    /// Nanoseconds that these were together.
    pub left_out_nanoseconds: u64,
    /// Makes the size explicit; 0.
    pub reserved: [u64; 3],
}

/// Begins every record in a sample ring that is a sample. `kernel_frames`, then `user_frames` addresses (`u64`, leaf
/// first) follow it at once. The code of a leaf is at its address; that of any other frame one byte before.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleHeader {
    /// Number of this sample among all that the program made in this scratch record, from 0 and without gaps, lost ones
    /// included. In timers that is: on this CPU.
    pub sequence: u64,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub timestamp: u64,
    /// Cgroup v2 id of the task; 1 is the root.
    pub cgroup: u64,
    /// Which address space the task runs in: another number after every exec. 0 where the kernel does not tell.
    pub image: u64,
    /// Process id (kernel: tgid) in the initial PID namespace.
    pub pid: u32,
    /// Thread id (kernel: pid) in the initial PID namespace.
    pub tid: u32,
    /// CPU that the sample was taken on.
    pub cpu: u32,
    /// One of [`kind`].
    pub kind: u16,
    /// Bits of [`flag`].
    pub flags: u16,
    /// Kernel addresses that follow the header.
    pub kernel_frames: u16,
    /// User addresses that follow the kernel's.
    pub user_frames: u16,
    /// How the walk of the user stack ended: one of [`walk`].
    pub walk: u16,
    /// The scratch record that it was put together in, see [`slot`]. No other sample uses it meanwhile.
    pub slot: u16,
    /// The thread's name, NUL-padded.
    pub comm: [u8; COMM_LEN],
}

/// What the CPU profiler's program counted on one CPU. One element for each possible CPU, mmapped by the
/// agent: reading it by system call would itself make the kernel skip the program.
///
/// `fired == idle + not_selected + emitted + ring_full + scratch_busy`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuCounters {
    /// Runs of the program.
    pub fired: u64,
    /// Runs that found the CPU idle.
    pub idle: u64,
    /// Runs that hit a task outside the selection.
    pub not_selected: u64,
    /// Records written to the ring.
    pub emitted: u64,
    /// Records that the ring had no room for.
    pub ring_full: u64,
    /// Runs that found the CPU's scratch record in use.
    pub scratch_busy: u64,
    /// `CLOCK_MONOTONIC` time of the first run that was not idle, nanoseconds.
    pub first_timestamp: u64,
    /// Makes the size explicit; 0.
    pub reserved: u64,
}

/// Bits of [`FaultedPage::about`].
pub mod about_page {
    /// The page was there before the fault and could be read: what faulted was a write to a page that must not be written yet.
    pub const PRESENT: u64 = 1 << 0;
    /// The fault may have brought a huge page: it is [`ALONE`], and the kernel gives huge pages at this address.
    pub const MAYBE_HUGE: u64 = 1 << 1;
    /// The mapping is memory without a file,
    pub const ANON: u64 = 1 << 2;
    /// a file's,
    pub const FILE: u64 = 1 << 3;
    /// or shared memory. None of the three: not known.
    pub const SHMEM: u64 = 1 << 4;
    /// The neighbouring page was not there either: the kernel may have mapped more than one.
    pub const ALONE: u64 = 1 << 5;
    /// The mapping is shared and can be written. A write maps one page, and a read those around it that are cached.
    pub const SHARED_WRITE: u64 = 1 << 6;
}

/// Comes right before the sample of a page fault. The members that [`SampleHeader`] has too lie in the same places.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultedPage {
    /// The sample's number.
    pub sequence: u64,
    /// The sample's time.
    pub timestamp: u64,
    /// The address that could not be accessed.
    pub address: u64,
    /// What is known of its page: bits of [`about_page`].
    pub about: u64,
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The sample's CPU.
    pub cpu: u32,
    /// [`kind::FAULTED_PAGE`].
    pub kind: u16,
    /// The sample's scratch record, see [`SampleHeader::slot`].
    pub slot: u16,
}

/// What the program of page faults counted on one CPU. One element for each possible CPU, mmapped by the agent.
///
/// `fired == passed_over + not_selected + emitted + ring_full + scratch_busy`.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Runs of the program.
    pub fired: u64,
    /// Runs that took no sample because chance said so.
    pub passed_over: u64,
    /// Runs that hit a task outside the selection.
    pub not_selected: u64,
    /// Records written to the ring.
    pub emitted: u64,
    /// Records that the ring had no room for.
    pub ring_full: u64,
    /// Runs that found the CPU's scratch record in use.
    pub scratch_busy: u64,
    /// Makes the size explicit; 0.
    pub reserved: [u64; 2],
}

/// Where the kernel keeps what the program of page faults wants to know of a mapping: offsets in its structures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmaOffsets {
    /// `vm_area_struct.vm_start`; that of `vm_end` is not 0 where the offsets are known.
    pub start: u32,
    /// `vm_area_struct.vm_end`.
    pub end: u32,
    /// `vm_area_struct.vm_flags`.
    pub flags: u32,
    /// `vm_area_struct.vm_file`.
    pub file: u32,
    /// `file.f_inode`.
    pub inode: u32,
    /// `inode.i_sb`.
    pub super_block: u32,
    /// `super_block.s_magic`.
    pub magic: u32,
}

/// Which scratch record is whose. A timer hits scheduler code, and both hit tasks; so every context has records of its own.
pub mod slot {
    /// Records for tasks' contexts besides one for each CPU: as many may be preempted at once.
    const SPARE: u32 = 8;

    /// The one of the timers on `cpu`.
    pub const fn of_timer(cpu: u32) -> u32 {
        cpu
    }

    /// The one of scheduler programs on `cpu`.
    pub const fn of_scheduler(cpu: u32, cpus: u32) -> u32 {
        cpus + cpu
    }

    /// The first of those for programs that run in a task's own context: which may be preempted, so that the CPU is not enough to
    /// tell them apart. They are handed out one by one.
    pub const fn first_of_tasks(cpus: u32) -> u32 {
        2 * cpus
    }

    /// How many there are of these.
    pub const fn of_tasks(cpus: u32) -> u32 {
        cpus + SPARE
    }
}

/// The use of a scratch record. One element for each, mmapped by the agent.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlotUse {
    /// How often a program has claimed it.
    pub begun: u64,
    /// How often a program has given it back. While it is behind `begun`, a program may be reading the unwind tables.
    pub ended: u64,
    /// Samples of tasks' contexts that were put together in it and written to the ring.
    pub emitted: u64,
    /// The same that the ring had no room for.
    pub ring_full: u64,
    /// Makes the size explicit; 0.
    pub reserved: [u64; 4],
}

/// A scratch record: a record is put together here and then copied into the ring, because a record is larger than the 512-byte
/// BPF stack and `bpf_ringbuf_reserve` wants a constant size.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Scratch {
    /// Where the walk of the user stack is.
    pub cursor: Cursor,
    /// The record's header.
    pub header: SampleHeader,
    /// Kernel frames, then user frames, then the [`Resume`] and the stack slice, without gaps.
    pub body: [u8; BODY_BYTES],
}

/// Room for two full runs of frames, a [`Resume`] and a slice, rounded so that masked offsets stay inside.
pub const BODY_BYTES: usize = 2 * FRAMES_BYTES + size_of::<Resume>() + SLICE_BYTES + 4096;

/// Where the kernel notes what uprobes have changed in a task: offsets in its structures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UprobeOffsets {
    /// `task_struct.utask`; 0 where the kernel has no uprobes.
    pub task_utask: u32,
    /// `uprobe_task.return_instances`.
    pub instances: u32,
    /// `return_instance.stack`.
    pub stack: u32,
    /// `return_instance.orig_ret_vaddr`.
    pub address: u32,
    /// `return_instance.next`.
    pub next: u32,
    /// `mm_struct.uprobes_state.xol_area`.
    pub area: u32,
    /// `xol_area.vaddr`.
    pub trampoline: u32,
    /// `uprobe_task.vaddr`.
    pub probed: u32,
    /// `uprobe_task.xol_vaddr`.
    pub out_of_line: u32,
}

/// Where the walk of a user stack is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// Address of the present frame.
    pub ip: u64,
    /// Its stack pointer.
    pub sp: u64,
    /// Its frame pointer.
    pub fp: u64,
    /// Not 0 when `ip` is a return address: the call lies before it.
    pub returned: u32,
    /// Not 0 when `fp` is not known any more.
    pub fp_lost: u32,
    /// The mapping that the last frame was in: first address,
    pub mapping_start: u64,
    /// first address behind it,
    pub mapping_end: u64,
    /// offset of its start in the file,
    pub mapping_file: u64,
    /// its module,
    pub mapping_module: u32,
    /// and its flags.
    pub mapping_flags: u32,
    /// The text page that the last frame was in: its key,
    pub page_key: u64,
    /// where its header lies in the arena, in words,
    pub page_first: u32,
    /// and how many rows it has.
    pub page_rows: u32,
    /// Where the header of the process's mappings lies in the arena, in words.
    pub mappings_first: u32,
    /// How many mappings there are.
    pub mappings_count: u32,
    /// Bytes of kernel frames, behind which the user frames go.
    pub frames_at: u32,
    /// User frames so far.
    pub depth: u32,
    /// How the walk ended; [`walk::NONE`] while it goes on.
    pub ended: u32,
    /// Where a binary search is. In the record and not in a register, see `last_not_above` in the program.
    pub search: u32,
    /// Which address space the task runs in, as in [`SampleHeader::image`].
    pub image: u64,
    /// Address of the kernel's note of the next uretprobe on the way to the root; 0 as long as none was met.
    pub return_instance: u64,
}

const _: () = {
    use core::mem::{offset_of, size_of};
    assert!(size_of::<SampleHeader>() == 72);
    assert!(offset_of!(SampleHeader, pid) == 32);
    assert!(offset_of!(SampleHeader, kind) == 44);
    assert!(offset_of!(SampleHeader, kernel_frames) == 48);
    assert!(offset_of!(SampleHeader, comm) == 56);
    assert!(size_of::<SlicePiece>() == 48);
    assert!(offset_of!(SlicePiece, cpu) == offset_of!(SampleHeader, cpu));
    assert!(offset_of!(SlicePiece, kind) == offset_of!(SampleHeader, kind));
    assert!(offset_of!(SampleHeader, slot) == 54);
    assert!(size_of::<FaultedPage>() == 48);
    assert!(offset_of!(FaultedPage, timestamp) == offset_of!(SampleHeader, timestamp));
    assert!(offset_of!(FaultedPage, pid) == offset_of!(SampleHeader, pid));
    assert!(offset_of!(FaultedPage, kind) == offset_of!(SampleHeader, kind));
    assert!(size_of::<FaultCounters>() == 64);
    assert!(size_of::<VmaOffsets>() == 28);
    assert!(size_of::<Resume>() > size_of::<SlicePiece>(), "a piece's header goes where the Resume will be");
    assert!(size_of::<CpuCounters>() == 64);
    assert!(size_of::<SlotUse>() == 64);
    assert!(size_of::<SwitchCounters>() == 192);
    assert!(size_of::<TaskWaits>() == 80 + 16 * wait_state::COUNT + COMM_LEN);
    assert!(offset_of!(TaskWaits, totals) == 80);
    assert!(size_of::<Wait>() == 96);
    assert!(size_of::<FutexCall>() == 16);
    assert!(offset_of!(Wait, futex) == 64);
    assert!(offset_of!(Wait, timestamp) == offset_of!(SampleHeader, timestamp));
    assert!(offset_of!(Wait, pid) == offset_of!(SampleHeader, pid));
    assert!(offset_of!(Wait, cpu) == offset_of!(SampleHeader, cpu));
    assert!(offset_of!(Wait, kind) == offset_of!(SampleHeader, kind));
    assert!(offset_of!(Wait, flags) == offset_of!(SampleHeader, flags));
    assert!(size_of::<Resume>() == 40 + 8 * REGISTERS);
    assert!(size_of::<Cursor>() == 120);
    assert!(offset_of!(Scratch, header) == 120);
    assert!(offset_of!(Scratch, body) == offset_of!(Scratch, header) + 72);
};
