//! The rules by which function names tell what a thread waits for.
//!
//! A stack is read from the leaf outwards. A row of [`ROWS`] says of functions that they are
//!
//! - [`Role::Layer`]: a way into the kernel or between layers, which says nothing by itself;
//! - [`Role::Leaf`]: the wait of a class;
//! - [`Role::Over`]: a wait of another class, when what they are built upon is a wait of the first.
//!
//! Callers of the class that is known already are passed, so all functions that a library has for a wait may be listed.
//! The first function of which no row speaks, or that would begin another wait, ends it: so a mutex that is taken again inside
//! a condition wait is a mutex, and a lock in a function that a pool's thread runs is no idle pool.
//!
//! Names stand here without leading underscores, `__GI_`, parameters and template arguments, but for patterns that ask for
//! arguments by a `<`; `*` is any text, `::` and none included. Of rows that know a name the first that applies counts. Where no version stands, it is the same in all in use.

use super::classify::BareName;
use super::lock_class::LockClass::{
    self, Barrier, Condition, Idle, Join, Mutex, Once, Park, RwLock, Semaphore,
};

/// What a row says of its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Nothing: their callers tell.
    Layer,
    /// They wait for this.
    Leaf(LockClass),
    /// They make the first class into the second.
    Over(LockClass, LockClass),
}

use Role::{Layer, Leaf, Over};

/// A row of the rules.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it says.
    pub role: Role,
    /// Whose functions these are.
    pub of: &'static str,
    /// Patterns of their names.
    pub names: &'static [&'static str],
}

const fn row(role: Role, of: &'static str, names: &'static [&'static str]) -> Row {
    Row { role, of, names }
}

/// The rules.
#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    // The C library.
    row(Layer, "glibc: ways into futex(2)", &[
        "syscall", "futex_wait*", "futex_abstimed_wait*", "futex_reltimed_wait*", "do_futex_wait", "internal_syscall_cancel",
        "syscall_cancel*", "lll_mutex_lock_optimized",
    ]),
    row(Leaf(Mutex), "glibc to 2.33 and since: low-level locks, those of malloc's arenas and of stdio too", &[
        "lll_lock_wait", "lll_lock_wait_private", "lll_timedlock_wait", "lll_clocklock_wait", "lll_robust_lock_wait",
        "lll_robust_timedlock_wait", "lll_lock_elision", "lll_timedlock_elision", "lll_clocklock_elision", "futex_lock_pi*",
    ]),
    row(Leaf(Mutex), "pthread mutexes; glibc takes a condition's mutex again by pthread_mutex_cond_lock", &[
        "pthread_mutex_lock", "pthread_mutex_lock_full", "pthread_mutex_timedlock", "pthread_mutex_clocklock",
        "pthread_mutex_clocklock_common", "pthread_mutex_timedlock_pi", "pthread_mutex_cond_lock",
        "pthread_mutex_cond_lock_full", "mtx_lock", "mtx_timedlock",
    ]),
    row(Leaf(Mutex), "glibc since 2.25: a condition's own lock", &[
        "pthread_cond_signal", "pthread_cond_broadcast", "condvar_acquire_lock", "condvar_quiesce_and_switch_g1",
        "condvar_cancel_waiting",
    ]),
    row(Leaf(RwLock), "pthread read-write locks", &[
        "pthread_rwlock_rdlock*", "pthread_rwlock_wrlock*", "pthread_rwlock_timedrdlock*", "pthread_rwlock_timedwrlock*",
        "pthread_rwlock_clockrdlock*", "pthread_rwlock_clockwrlock*",
    ]),
    row(Leaf(Condition), "pthread conditions", &[
        "pthread_cond_wait*", "pthread_cond_timedwait*", "pthread_cond_clockwait*", "pthread_cond_destroy*", "cnd_wait",
        "cnd_timedwait",
    ]),
    row(Leaf(Condition), "glibc: asynchronous requests", &[
        "aio_suspend*", "aio_misc_wait", "lio_listio*", "gai_suspend*",
    ]),
    row(Leaf(Semaphore), "POSIX semaphores", &[
        "sem_wait", "sem_timedwait*", "sem_clockwait*", "new_sem_wait*", "old_sem_wait",
    ]),
    row(Leaf(Barrier), "pthread barriers; all threads that are to change their user", &[
        "pthread_barrier_wait", "nptl_setxid",
    ]),
    row(Leaf(Join), "ends of threads; lll_wait_tid to glibc 2.30", &[
        "pthread_join*", "pthread_clockjoin*", "pthread_timedjoin*", "thrd_join", "lll_wait_tid", "lll_timedwait_tid",
    ]),
    row(Leaf(Once), "pthread_once", &["pthread_once*", "call_once"]),
    row(Layer, "musl", &[
        "timedwait", "timedwait_cp", "wait", "futexwait", "syscall_cp", "syscall_cp_asm", "syscall_cp_c",
    ]),
    row(Leaf(Mutex), "musl: its own locks and those of stdio", &["lock", "lockfile", "tl_lock", "ofl_lock"]),
    row(Leaf(RwLock), "musl: threads that begin against dlopen", &["acquire_ptc", "inhibit_ptc"]),

    // Rust.
    row(Layer, "Rust std since 1.62: std::sys::unix::futex, later std::sys::pal::unix::futex", &[
        "std::sys::*futex::futex_wait*",
    ]),
    row(Leaf(Mutex), "Rust std: sys::unix::locks::futex_mutex (1.62), sys::locks (1.76), sys::sync::mutex (1.79)", &[
        "std::sys::*::Mutex::lock*", "std::sys::*mutex*::lock_contended", "std::sync::*Mutex::lock",
        "std::sync::*ReentrantLock::lock",
    ]),
    row(Leaf(RwLock), "Rust std", &[
        "std::sys::*::RwLock::*", "std::sync::*RwLock::read", "std::sync::*RwLock::write",
    ]),
    row(Leaf(Condition), "Rust std", &["std::sys::*::Condvar::*", "std::sync::*Condvar::*"]),
    row(Leaf(Once), "Rust std: sys_common::once::futex (1.64), sys::sync::once (1.79)", &[
        "std::sys*::once::*", "std::sync::*Once::*", "std::sync::*OnceLock::*", "std::sync::*LazyLock::*",
    ]),
    row(Over(Condition, Barrier), "Rust std", &["std::sync::*Barrier::wait"]),
    row(Over(Park, Once), "once_cell", &["once_cell::imp::*"]),
    row(Over(Park, Join), "Rust std: the end of scoped threads", &["std::thread::scope*"]),
    row(Leaf(Park), "Rust std", &["std::thread::park*", "std::thread::*::park*", "std::sys*::thread_park*"]),
    row(Over(Park, Mutex), "parking_lot", &["parking_lot::raw_mutex::*", "lock_api::mutex::*::lock*"]),
    row(Over(Park, RwLock), "parking_lot", &["parking_lot::raw_rwlock::*", "lock_api::rwlock::*"]),
    row(Over(Park, Condition), "parking_lot", &["parking_lot::condvar::*"]),
    row(Over(Park, Once), "parking_lot", &["parking_lot::once::*"]),
    row(Leaf(Mutex), "parking_lot where what it is built on is inlined", &[
        "parking_lot::raw_mutex::*", "lock_api::mutex::*::lock*",
    ]),
    row(Leaf(RwLock), "parking_lot where what it is built on is inlined", &[
        "parking_lot::raw_rwlock::*", "lock_api::rwlock::*",
    ]),
    row(Leaf(Condition), "parking_lot where what it is built on is inlined", &["parking_lot::condvar::*"]),
    row(Leaf(Mutex), "parking_lot: the locks of its own tables", &["parking_lot_core::word_lock::WordLock::*"]),
    row(Leaf(Park), "parking_lot", &["parking_lot_core::*"]),
    row(Layer, "parking_lot where debug information has names without paths, of what is inlined", &[
        "park", "{closure#*<parking_lot::*", "with_thread_data<parking_lot_core::*", "lock_common<parking_lot::*",
    ]),
    row(Over(Condition, Park), "crossbeam", &["crossbeam_utils::sync::parker::*"]),
    row(Over(Condition, Idle), "tokio, rayon: threads of the pool", &[
        "tokio::runtime::*park*", "tokio::runtime::blocking::pool::*", "rayon_core::sleep::*",
    ]),
    row(Layer, "tokio: its names for locks and conditions", &["tokio::loom::*"]),

    // C++.
    row(Leaf(Mutex), "libstdc++, libc++", &[
        "std::*mutex::lock", "std::*mutex::try_lock_*", "gthread_mutex_lock", "std::*unique_lock::lock",
    ]),
    row(Leaf(Condition), "libstdc++, libc++; futures too", &[
        "std::*condition_variable*::wait*", "std::*condvar::wait*", "gthread_cond_*wait", "std::*assoc_sub_state::*wait*",
        "std::*atomic_futex_unsigned_base::*wait*",
    ]),
    row(Over(Park, Semaphore), "libstdc++ since 11, libc++ since 11", &["std::*semaphore*::*acquire*"]),
    row(Leaf(Semaphore), "libstdc++ since 11, libc++ since 11", &["std::*semaphore*::*acquire*", "std::*atomic_wait*<*semaphore*"]),
    row(Over(Park, Barrier), "libstdc++ since 11, libc++ since 11", &[
        "std::*barrier*::*wait*", "std::*latch::*wait",
    ]),
    row(Leaf(Barrier), "libstdc++ since 11, libc++ since 11", &[
        "std::*barrier*::*wait*", "std::*latch::*wait", "std::*atomic_wait*<*barrier*", "std::*atomic_wait*<*latch*",
    ]),
    row(Leaf(Join), "libstdc++, libc++", &["std::*thread::join"]),
    row(Leaf(Once), "libstdc++, libc++: static variables of functions", &["cxa_guard_acquire", "std::*call_once*"]),
    row(Leaf(Park), "libstdc++ since 11, libc++ since 11: atomics", &["std::*atomic*::wait"]),
    row(Layer, "libstdc++ since 11, libc++ since 11", &[
        "std::*atomic_wait*", "std::*platform_wait*", "std::*waiter*::*wait*",
    ]),
    row(Layer, "Abseil: a thread's own semaphore", &[
        "AbslInternalPerThreadSemWait*", "absl::*Waiter*::*", "absl::*PerThreadSem::*", "absl::*Futex*::*", "absl::*Mutex::Block",
        "absl::*Mutex::DecrementSynchSem", "AbslInternalSpinLockDelay*", "absl::*SpinLockDelay",
    ]),
    row(Over(Mutex, Condition), "Abseil: a mutex is what is waited with for a condition", &[
        "absl::*Mutex::Await*", "absl::*Mutex::*LockWhen*", "absl::*Notification::*",
    ]),
    row(Leaf(Condition), "Abseil", &["absl::*CondVar::Wait*", "absl::*Mutex::Await*", "absl::*Notification::*"]),
    row(Leaf(Mutex), "Abseil", &[
        "absl::*Mutex::*Lock*", "absl::*Mutex::lock*", "absl::*Mutex::Trans", "absl::*SpinLock::*Lock*",
    ]),
    row(Layer, "gperftools", &["base::internal::SpinLockDelay"]),
    row(Leaf(Mutex), "gperftools, old tcmalloc", &["SpinLock::SlowLock", "SpinLock::Lock"]),
    row(Leaf(Mutex), "jemalloc, and with a prefix", &["*malloc_mutex_lock_slow"]),
    row(Layer, "Folly", &["folly::*detail::*utexWait*", "folly::*Futex*::*", "folly::*MemoryIdler::*"]),
    row(Leaf(RwLock), "Folly", &["folly::*SharedMutex*::*"]),
    row(Leaf(Mutex), "Folly", &[
        "folly::*MicroLock*::*", "folly::*DistributedMutex*::*", "folly::*distributed_mutex::*",
    ]),
    row(Over(Park, Semaphore), "Folly", &["folly::*LifoSem*::*"]),
    row(Leaf(Park), "Folly", &["folly::*Baton::*"]),
    row(Over(Condition, RwLock), "Qt 5, 6", &["QReadWriteLock*::*"]),
    row(Over(Condition, Join), "Qt 5, 6", &["QThread::wait"]),
    row(Layer, "Qt 5, 6", &["QtLinuxFutex::*"]),
    row(Leaf(Mutex), "Qt 5, 6", &[
        "QBasicMutex::lockInternal", "QMutex::lock*", "QRecursiveMutex::*lock*", "QMutexPrivate::wait",
    ]),
    row(Leaf(Condition), "Qt 5, 6", &["QWaitCondition*::wait*"]),
    row(Leaf(Semaphore), "Qt 5, 6", &["QSemaphore::*acquire*"]),
    row(Leaf(Mutex), "GLib since 2.48", &["g_mutex_lock*", "g_rec_mutex_lock*"]),
    row(Leaf(Condition), "GLib since 2.48", &["g_cond_wait*"]),

    // Parallel loops.
    row(Leaf(Barrier), "GCC's OpenMP", &["gomp_*barrier_wait*", "GOMP_barrier", "GOMP_parallel_end"]),
    row(Leaf(Mutex), "GCC's OpenMP", &[
        "gomp_mutex_lock*", "gomp_ptrlock_get_slow", "GOMP_critical*start", "omp_set_lock*", "omp_set_nest_lock*",
    ]),
    row(Leaf(Semaphore), "GCC's OpenMP", &["gomp_sem_wait*"]),
    row(Layer, "GCC's OpenMP", &["do_wait"]),
    row(Over(Condition, Barrier), "LLVM's OpenMP", &["kmp_*barrier*"]),
    row(Leaf(Mutex), "LLVM's OpenMP", &["kmp_acquire_*lock*"]),
    row(Layer, "LLVM's OpenMP", &["kmp_suspend*", "kmp_wait_template*", "kmp_flag_*::wait*", "kmp_*::wait"]),
    row(Over(Semaphore, Idle), "oneTBB: threads of the pool", &[
        "tbb::*private_worker::*", "tbb::*thread_monitor::*",
    ]),
    row(Over(Semaphore, RwLock), "oneTBB", &["tbb::*rw_mutex::*lock*"]),
    row(Over(Semaphore, Mutex), "oneTBB", &["tbb::*mutex::*lock*"]),
    row(Leaf(Semaphore), "oneTBB", &["tbb::*binary_semaphore::P", "tbb::*futex_wait"]),
    row(Layer, "oneTBB", &["tbb::*concurrent_monitor*::*", "tbb::*sleep_node::*", "tbb::*wait_on_address"]),

    // Runtimes.
    row(Layer, "Go; semasleep under lock2 since 1.24", &[
        "runtime.futex", "runtime.futexsleep*", "runtime.semasleep*",
    ]),
    row(Leaf(Mutex), "Go: locks of the runtime", &["runtime.lock", "runtime.lock2", "runtime.lockWithRank"]),
    row(Leaf(Idle), "Go: threads that have nothing to do, and sysmon", &["runtime.notesleep", "runtime.notetsleep*"]),
    row(Over(Condition, Mutex), "HotSpot: monitors; since 24 named in small letters", &[
        "ObjectMonitor::*nter*", "ObjectSynchronizer::*enter*",
    ]),
    row(Over(Condition, Park), "HotSpot: LockSupport.park", &["Parker::park", "Unsafe_Park"]),
    row(Layer, "HotSpot: os::PlatformEvent to 19, PlatformEvent since", &[
        "*PlatformEvent::park*", "*PlatformMonitor::wait", "*PlatformMutex::lock", "PosixSemaphore::*",
    ]),
    row(Leaf(Mutex), "HotSpot: locks of the virtual machine", &["Mutex::lock*", "Monitor::lock*", "Monitor::ILock"]),
    row(Over(Condition, Mutex), "CPython: the interpreter's lock", &["take_gil"]),
    row(Over(Mutex, Semaphore), "CPython since 3.13: threading.Lock, with which conditions wait too", &[
        "lock_PyThread_acquire_lock",
    ]),
    row(Over(Semaphore, Mutex), "CPython since 3.13", &["PyMutex_Lock*", "PyRWMutex_*", "PyRecursiveMutex_Lock*"]),
    row(Layer, "CPython", &["PyCOND_*WAIT*", "PySemaphore_*Wait*", "PyParkingLot_Park"]),

    // Servers.
    row(Over(Semaphore, RwLock), "PostgreSQL since 9.5: lightweight locks", &["LWLockAcquire*", "LWLockWaitForVar"]),
    row(Over(Semaphore, Mutex), "PostgreSQL to 9.5: locks of rows and tables, which now wait for a latch", &[
        "ProcSleep", "LockAcquire*",
    ]),
    row(Layer, "PostgreSQL", &["PGSemaphoreLock"]),
    row(Over(Condition, Mutex), "MySQL and MariaDB: InnoDB's latches and row locks, metadata locks", &[
        "sync_array_wait_event*", "lock_wait_suspend_thread", "lock_wait", "MDL_wait::timed_wait",
    ]),
    row(Leaf(Mutex), "MySQL 8, MariaDB since 10.6", &["srw_mutex_impl::*", "TTASFutexMutex::*"]),
    row(Leaf(RwLock), "MariaDB since 10.6", &["ssux_lock_impl::*", "srw_lock_impl::*", "srw_lock_::*"]),
    row(Layer, "MySQL and MariaDB", &[
        "os_event_wait*", "os_event::wait*", "*mysql_cond_wait", "*mysql_cond_timedwait", "native_cond_*wait", "safe_cond_*wait",
        "psi_cond_*wait", "my_cond_*wait",
    ]),
    row(Over(Condition, Idle), "Redis: background work", &["bioProcessBackgroundJobs"]),
    row(Over(Mutex, Idle), "Redis 6 to 7.4: threads of --io-threads are stopped by a mutex that the main thread keeps", &[
        "IOThreadMain",
    ]),
];

impl Row {
    /// Those of its patterns that know the name.
    pub(super) fn patterns_of(&self, name: &BareName<'_>) -> impl Iterator<Item = &&'static str> {
        self.names.iter().filter(|pattern| {
            let name = if pattern.contains('<') { &name.full } else { &name.short };
            is_like(name, pattern)
        })
    }
}

/// The row that applies to the function `name` in a wait of which `class` is known so far.
pub(super) fn row_of(name: &BareName<'_>, class: Option<LockClass>) -> Option<&'static Row> {
    ROWS.iter().filter(|row| row.patterns_of(name).next().is_some()).find(|row| match row.role {
        Layer => true,
        Leaf(of) => class.is_none_or(|class| class == of),
        Over(inner, outer) => class == Some(inner) || class == Some(outer),
    })
}

/// Whether `name` is like `pattern`, in which `*` is any text.
fn is_like(name: &str, pattern: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return name == pattern };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let (between, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in between.split('*') {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}
