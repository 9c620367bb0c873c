//! Stacks as they are found, for the tests of the rules.

use super::LockClass::{self, Barrier, Condition, Idle, Join, Mutex, Once, Park, RwLock, Semaphore};

/// What a thread waits for, and its stack, leaf first: `inner < outer`.
pub(super) type Example = (LockClass, &'static str);

/// Stacks of the C libraries, with all functions that they have for a wait.
pub(super) const C: &[Example] = &[
    (Mutex, "futex_wait < __lll_lock_wait < ___pthread_mutex_lock < work"),
    (Mutex, "__GI___lll_lock_wait < __GI___pthread_mutex_lock < work"),
    (Mutex, "__lll_lock_wait_private < malloc < work"),
    (Mutex, "__lll_timedlock_wait < pthread_mutex_timedlock < work"),
    (Mutex, "__lll_clocklock_wait < __pthread_mutex_clocklock_common < ___pthread_mutex_clocklock64"),
    (Mutex, "__lll_clocklock_wait < __pthread_mutex_clocklock_common < ___pthread_mutex_clocklock"),
    (Mutex, "__lll_robust_lock_wait < __pthread_mutex_lock_full < work"),
    (Mutex, "__lll_robust_timedlock_wait < work"),
    (Mutex, "__lll_lock_elision < work"),
    (Mutex, "__lll_timedlock_elision < work"),
    (Mutex, "__lll_clocklock_elision < work"),
    (Mutex, "__futex_lock_pi64 < __pthread_mutex_lock_full < work"),
    (Mutex, "__lll_lock_wait < __mtx_lock < work"),
    (Mutex, "mtx_timedlock < work"),
    (Mutex, "__pthread_mutex_timedlock_pi < work"),
    // What a condition wait does when it is woken.
    (Mutex, "__lll_lock_wait < __pthread_mutex_cond_lock < ___pthread_cond_wait < work"),
    (Mutex, "__pthread_mutex_cond_lock_full < ___pthread_cond_wait < work"),
    (Mutex, "futex_wait_simple < ___pthread_cond_signal < work"),
    (Mutex, "__condvar_quiesce_and_switch_g1 < ___pthread_cond_broadcast < work"),
    (Mutex, "__condvar_acquire_lock < work"),
    (Mutex, "__condvar_cancel_waiting < work"),
    (RwLock, "__futex_abstimed_wait_common < __futex_abstimed_wait64 < ___pthread_rwlock_rdlock < work"),
    (RwLock, "__pthread_rwlock_wrlock_full64 < ___pthread_rwlock_wrlock < work"),
    (RwLock, "___pthread_rwlock_timedrdlock64 < work"),
    (RwLock, "___pthread_rwlock_timedwrlock64 < work"),
    (RwLock, "___pthread_rwlock_clockrdlock64 < work"),
    (RwLock, "___pthread_rwlock_clockwrlock64 < work"),
    (
        Condition,
        "__syscall_cancel_arch < __internal_syscall_cancel < __syscall_cancel < \
         __futex_abstimed_wait_common < ___pthread_cond_wait < work",
    ),
    (Condition, "futex_wait_cancelable < __pthread_cond_wait_common < __pthread_cond_wait < work"),
    (Condition, "___pthread_cond_timedwait64 < work"),
    (Condition, "___pthread_cond_clockwait < work"),
    (Condition, "___pthread_cond_destroy < work"),
    (Condition, "__cnd_wait < work"),
    (Condition, "___cnd_timedwait < work"),
    (Condition, "futex_reltimed_wait < __aio_misc_wait < __aio_suspend_time64 < work"),
    (Condition, "lio_listio64 < work"),
    (Condition, "gai_suspend < work"),
    (Semaphore, "do_futex_wait.constprop.0 < __new_sem_wait_slow64.constprop.0 < __new_sem_wait < work"),
    (Semaphore, "sem_wait@@GLIBC_2.34 < work"),
    (Semaphore, "___sem_timedwait64 < work"),
    (Semaphore, "___sem_clockwait64 < work"),
    (Semaphore, "__old_sem_wait < work"),
    (Barrier, "futex_wait < __GI___pthread_barrier_wait < work"),
    (Barrier, "__nptl_setxid < setuid"),
    (Join, "__futex_abstimed_wait_common < __pthread_clockjoin_ex < ___pthread_join < work"),
    (Join, "___pthread_timedjoin_np64 < work"),
    (Join, "__lll_wait_tid < pthread_join < work"),
    (Join, "__lll_timedwait_tid < __thrd_join < work"),
    (Once, "futex_wait_simple < __pthread_once_slow < ___pthread_once < work"),
    (Once, "__call_once < work"),
    (
        Mutex,
        "__syscall_cp_asm < __syscall_cp_c < __timedwait_cp < __timedwait < __pthread_mutex_timedlock < work",
    ),
    (Mutex, "__wait < __lock < malloc < work"),
    (Mutex, "__futexwait < __lockfile < fwrite < work"),
    (Mutex, "__wait < __tl_lock < pthread_create < work"),
    (Mutex, "__wait < __ofl_lock < fopen < work"),
    (RwLock, "__pthread_rwlock_timedrdlock < __acquire_ptc < pthread_create"),
    (RwLock, "__pthread_rwlock_timedwrlock < __inhibit_ptc < dlopen"),
    (Condition, "__syscall_cp < __timedwait_cp < __pthread_cond_timedwait < pthread_cond_wait < work"),
    // The same where it takes the mutex again.
    (
        Mutex,
        "__timedwait < __pthread_mutex_timedlock < __pthread_mutex_lock < __pthread_cond_timedwait < work",
    ),
    (Barrier, "__wait < pthread_barrier_wait < work"),
    (Once, "__wait < __pthread_once_full < __pthread_once < work"),
    (Join, "__syscall_cp_c < __timedwait_cp [guessed] < pthread_timedjoin_np [guessed] < work"),
    (
        RwLock,
        "__syscall_cp_c < __timedwait_cp [guessed] < __vdsosym [guessed] < __pthread_rwlock_timedrdlock [guessed]",
    ),
    // Without the names that libc.so.6 keeps for its debug file.
    (Mutex, "libc.so.6+0x85f30 < libc.so.6+0x8c2b1 < pthread_mutex_lock < work"),
    (Condition, "libc.so.6+0x85f30 < [truncated] < pthread_cond_wait < work"),
];

/// Of Rust.
pub(super) const RUST: &[Example] = &[
    (
        Mutex,
        "syscall < std::sys::pal::unix::futex::futex_wait < std::sys::sync::mutex::futex::Mutex::lock_contended < work",
    ),
    (
        Mutex,
        "std::sys::unix::futex::futex_wait < std::sys::unix::locks::futex_mutex::Mutex::lock_contended < work",
    ),
    (Mutex, "std::sys::unix::locks::futex::Mutex::lock_contended < std::sync::mutex::Mutex<T>::lock < work"),
    (
        Mutex,
        "std::sys::locks::mutex::futex::Mutex::lock_contended < <std::sync::poison::mutex::Mutex<u8>>::lock",
    ),
    (Mutex, "_ZN3std3sys4sync5mutex5futex5Mutex14lock_contended17h0123456789abcdefE < work"),
    (Mutex, "std::sys::sync::mutex::futex::Mutex::lock < std::sync::reentrant_lock::ReentrantLock<T>::lock"),
    (
        RwLock,
        "syscall < std::sys::sync::rwlock::futex::RwLock::read_contended < std::sync::poison::rwlock::RwLock<T>::read",
    ),
    (
        RwLock,
        "std::sys::unix::locks::futex_rwlock::RwLock::write_contended < std::sync::rwlock::RwLock<T>::write",
    ),
    (
        Condition,
        "std::sys::sync::condvar::futex::Condvar::wait_optional_timeout < std::sync::poison::condvar::Condvar::wait",
    ),
    (
        Mutex,
        "std::sys::sync::mutex::futex::Mutex::lock_contended < std::sync::poison::condvar::Condvar::wait < work",
    ),
    (
        Barrier,
        "std::sys::sync::condvar::futex::Condvar::wait < std::sync::poison::condvar::Condvar::wait < \
         std::sync::barrier::Barrier::wait",
    ),
    (Once, "std::sys::sync::once::futex::Once::wait < std::sync::poison::once::Once::call_once < work"),
    (Once, "std::sys_common::once::futex::Once::call < std::sync::once_lock::OnceLock<T>::initialize < work"),
    (
        Once,
        "std::sys::sync::once::futex::Once::call < <std::sync::lazy_lock::LazyLock<T> as core::ops::deref::Deref>::deref",
    ),
    (
        Park,
        "std::sys::sync::thread_parking::futex::Parker::park < std::thread::thread::Thread::park < \
         std::thread::park < work",
    ),
    (Park, "std::sys_common::thread_parking::futex::Parker::park < std::thread::park_timeout < work"),
    (
        Join,
        "std::sys::sync::thread_parking::futex::Parker::park < std::thread::park < std::thread::scoped::scope < work",
    ),
    (Once, "std::thread::park < once_cell::imp::wait < once_cell::imp::initialize_or_wait < work"),
    (
        Mutex,
        "syscall < \
         <parking_lot_core::thread_parker::imp::ThreadParker as parking_lot_core::thread_parker::ThreadParkerT>::park < \
         parking_lot_core::parking_lot::park::{{closure}} < \
         parking_lot_core::parking_lot::with_thread_data < parking_lot_core::parking_lot::park < \
         parking_lot::raw_mutex::RawMutex::lock_slow < \
         <parking_lot::raw_mutex::RawMutex as lock_api::mutex::RawMutex>::lock < \
         lock_api::mutex::Mutex<R,T>::lock < work",
    ),
    (Mutex, "syscall < parking_lot::raw_mutex::RawMutex::lock_slow < lock_api::mutex::Mutex<R,T>::lock"),
    (Mutex, "syscall < parking_lot_core::parking_lot::park < lock_api::mutex::Mutex<R,T>::lock"),
    (
        RwLock,
        "syscall < parking_lot_core::parking_lot::park < parking_lot::raw_rwlock::RawRwLock::lock_shared_slow",
    ),
    (RwLock, "syscall < parking_lot_core::parking_lot::park < lock_api::rwlock::RwLock<R,T>::write"),
    (
        RwLock,
        "syscall < parking_lot::raw_rwlock::RawRwLock::lock_exclusive_slow < lock_api::rwlock::RwLock<R,T>::write",
    ),
    (
        Condition,
        "syscall < parking_lot_core::parking_lot::park < parking_lot::condvar::Condvar::wait_until_internal",
    ),
    (Condition, "syscall < parking_lot::condvar::Condvar::wait_until_internal < work"),
    (Mutex, "syscall < lock_api::mutex::Mutex<R,T>::lock < work"),
    (RwLock, "syscall < lock_api::rwlock::RwLock<R,T>::read < work"),
    (Once, "syscall < parking_lot_core::parking_lot::park < parking_lot::once::Once::call_once_slow"),
    (
        Mutex,
        "syscall < parking_lot_core::word_lock::WordLock::lock_slow < parking_lot_core::parking_lot::park",
    ),
    (Park, "syscall < parking_lot_core::parking_lot::park < work"),
    (Park, "std::sync::poison::condvar::Condvar::wait < crossbeam_utils::sync::parker::Inner::park < work"),
    (
        Idle,
        "syscall < parking_lot_core::parking_lot::park < \
         parking_lot::condvar::Condvar::wait_until_internal < tokio::loom::std::parking_lot::Condvar::wait < \
         tokio::runtime::scheduler::multi_thread::park::Inner::park_condvar < \
         tokio::runtime::scheduler::multi_thread::park::Parker::park < work",
    ),
    (Idle, "std::sync::poison::condvar::Condvar::wait_timeout < tokio::runtime::blocking::pool::Inner::run"),
    (
        Idle,
        "std::sync::poison::condvar::Condvar::wait < rayon_core::sleep::Sleep::sleep < rayon_core::registry::main_loop",
    ),
    // What a pool's thread runs is not the pool.
    (
        Condition,
        "std::sync::poison::condvar::Condvar::wait < work < tokio::runtime::blocking::pool::Inner::run",
    ),
    (
        Mutex,
        "std::sys::sync::mutex::futex::Mutex::lock_contended < tokio::runtime::blocking::pool::Inner::run",
    ),
    (
        Mutex,
        "syscall < futex_wait < park < {closure#0}<parking_lot::raw_mutex::{impl#3}::lock_slow::{closure_env#0}> < \
         with_thread_data<parking_lot_core::parking_lot::ParkResult> < park<parking_lot::raw_mutex::{impl#3}> < \
         parking_lot::raw_mutex::RawMutex::lock_slow < lock<parking_lot::raw_mutex::RawMutex, ()> < work",
    ),
    (
        RwLock,
        "syscall < park < with_thread_data<parking_lot_core::parking_lot::ParkResult> < \
         lock_common<parking_lot::raw_rwlock::{impl#10}> < parking_lot::raw_rwlock::RawRwLock::lock_shared_slow < work",
    ),
    // A closure of one's own is not a part of the library's.
    (
        Condition,
        "std::sync::poison::condvar::Condvar::wait < {closure#0}<work> < tokio::runtime::blocking::pool::Inner::run",
    ),
];

/// Of C++ and C.
pub(super) const CPP: &[Example] = &[
    (
        Mutex,
        "__lll_lock_wait < pthread_mutex_lock < __gthread_mutex_lock(pthread_mutex_t*) < \
         std::mutex::lock() < std::unique_lock<std::mutex>::lock()",
    ),
    (Mutex, "_ZNSt5mutex4lockEv < work"),
    (Mutex, "std::timed_mutex::try_lock_until < work"),
    (
        Condition,
        "pthread_cond_wait < __gthread_cond_wait < std::__condvar::wait(std::mutex&) < std::condition_variable::wait",
    ),
    (Condition, "std::__1::__assoc_sub_state::__sub_wait < work"),
    (Condition, "syscall < std::__atomic_futex_unsigned_base::_M_futex_wait_until < work"),
    (
        Semaphore,
        "syscall < std::__detail::__platform_wait<int> < std::__atomic_wait_address_bare<> < \
         std::__atomic_semaphore::_M_acquire < std::counting_semaphore<5l>::acquire",
    ),
    (
        Semaphore,
        "std::__detail::__waiter<>::_M_do_wait < std::__atomic_base<int>::wait < std::counting_semaphore<5l>::acquire",
    ),
    (
        Barrier,
        "syscall < std::__atomic_wait_address_v<unsigned char> < std::__atomic_base<unsigned char>::wait < \
         std::__tree_barrier<>::wait < work",
    ),
    (Barrier, "std::__1::__atomic_base<int>::wait < std::__1::latch::wait < work"),
    (Barrier, "syscall < std::latch::wait() const < work"),
    (Barrier, "syscall < std::barrier<std::__empty_completion>::wait < work"),
    (Join, "__pthread_clockjoin_ex < std::thread::join() < work"),
    (Once, "syscall < __cxa_guard_acquire < work"),
    (Once, "__pthread_once_slow < std::call_once<> < work"),
    (
        Park,
        "syscall < std::__detail::__platform_wait<int> < std::atomic<int>::wait(int, std::memory_order) const < work",
    ),
    (
        Mutex,
        "syscall < absl::lts_20230802::synchronization_internal::FutexImpl::WaitUntil < \
         absl::lts_20230802::synchronization_internal::FutexWaiter::Wait < \
         absl::lts_20230802::synchronization_internal::PerThreadSem::Wait < \
         AbslInternalPerThreadSemWait_lts_20230802 < absl::lts_20230802::Mutex::DecrementSynchSem < \
         absl::lts_20230802::Mutex::Block < absl::lts_20230802::Mutex::LockSlowLoop < \
         absl::lts_20230802::Mutex::LockSlow < absl::lts_20230802::Mutex::Lock < work",
    ),
    (
        Mutex,
        "AbslInternalPerThreadSemWait < absl::Mutex::Block < absl::Mutex::LockSlowLoop < \
         absl::Mutex::Trans < absl::CondVar::WaitCommon",
    ),
    (Mutex, "absl::Mutex::LockSlowLoop < absl::Mutex::lock < work"),
    (
        Condition,
        "AbslInternalPerThreadSemWait < absl::Mutex::Block < absl::CondVar::WaitCommon < absl::CondVar::Wait",
    ),
    (
        Condition,
        "absl::Mutex::Block < absl::Mutex::LockSlowLoop < absl::Mutex::AwaitCommon < absl::Mutex::Await",
    ),
    (Condition, "absl::Mutex::Block < absl::Mutex::AwaitCommon < absl::Notification::WaitForNotification"),
    (
        Condition,
        "absl::Mutex::LockSlow < absl::Mutex::LockWhen < absl::Notification::WaitForNotification < work",
    ),
    (Condition, "absl::Mutex::LockSlow < absl::Notification::WaitForNotification < work"),
    (Condition, "AbslInternalPerThreadSemWait < absl::Notification::WaitForNotification < work"),
    (Mutex, "AbslInternalSpinLockDelay < absl::base_internal::SpinLock::SlowLock < work"),
    (Mutex, "absl::base_internal::SpinLockDelay < absl::base_internal::SpinLock::Lock < work"),
    (Mutex, "base::internal::SpinLockDelay < SpinLock::SlowLock < SpinLock::Lock < work"),
    (Mutex, "pthread_mutex_lock < _rjem_je_malloc_mutex_lock_slow < work"),
    (
        RwLock,
        "syscall < folly::detail::futexWaitImpl < folly::SharedMutexImpl<false>::lockExclusiveImpl < work",
    ),
    (
        Mutex,
        "folly::detail::(anonymous namespace)::nativeFutexWaitImpl < folly::MicroLockBase<2>::lockSlowPath < work",
    ),
    (
        Mutex,
        "folly::detail::Futex<std::atomic>::futexWait < folly::detail::distributed_mutex::lockImplementation",
    ),
    (Mutex, "folly::detail::distributed_mutex::DistributedMutex<>::lock < work"),
    (
        Semaphore,
        "folly::detail::MemoryIdler::futexWait<> < folly::Baton<true>::tryWaitSlow < \
         folly::Baton<true>::wait < folly::LifoSemImpl<>::wait",
    ),
    (Park, "folly::detail::futexWaitImpl < folly::Baton<true>::wait < work"),
    (RwLock, "pthread_cond_wait < QWaitCondition::wait < QReadWriteLockPrivate::lockForRead < work"),
    (Join, "pthread_cond_wait < QWaitConditionPrivate::wait < QThread::wait < work"),
    (Mutex, "syscall < QtLinuxFutex::futexWait < QBasicMutex::lockInternal < QMutex::lock < work"),
    (Mutex, "QMutexPrivate::wait < QRecursiveMutex::tryLock < QRecursiveMutex::lock"),
    (Semaphore, "syscall < QSemaphore::acquire < work"),
    (Mutex, "syscall < g_mutex_lock_slowpath < work"),
    (Mutex, "g_rec_mutex_lock < work"),
    (Condition, "syscall < g_cond_wait_until < work"),
    (Barrier, "do_wait < gomp_team_barrier_wait_end < gomp_team_barrier_wait < GOMP_barrier < work"),
    (Barrier, "futex_wait < gomp_barrier_wait_end < GOMP_parallel_end < work"),
    (Mutex, "do_wait < gomp_mutex_lock_slow < GOMP_critical_start < work"),
    (Mutex, "gomp_mutex_lock_slow < omp_set_lock < work"),
    (Mutex, "gomp_mutex_lock_slow < omp_set_nest_lock < work"),
    (Mutex, "gomp_ptrlock_get_slow < work"),
    (Semaphore, "do_wait < gomp_sem_wait_slow < work"),
    (
        Barrier,
        "pthread_cond_wait < __kmp_suspend_64<false, true> < __kmp_wait_template<> < \
         kmp_flag_64<false, true>::wait < __kmp_fork_barrier",
    ),
    (
        Barrier,
        "pthread_cond_wait < __kmp_suspend_64 < __kmp_wait_template < kmp_sleep_flag::wait < \
         __kmp_hyper_barrier_release",
    ),
    (Mutex, "syscall < __kmp_acquire_futex_lock < work"),
    (
        Idle,
        "syscall < tbb::detail::r1::futex_wait < tbb::detail::r1::binary_semaphore::P < \
         tbb::detail::r1::rml::private_worker::run",
    ),
    (Idle, "tbb::detail::r1::futex_wait < tbb::detail::r1::rml::internal::thread_monitor::commit_wait"),
    (
        RwLock,
        "tbb::detail::r1::binary_semaphore::P < tbb::detail::r1::sleep_node<>::wait < \
         tbb::detail::r1::wait_on_address < tbb::detail::d1::rw_mutex::lock_shared",
    ),
    (
        Mutex,
        "tbb::detail::r1::binary_semaphore::P < tbb::detail::r1::concurrent_monitor_base<>::wait < \
         tbb::detail::d1::mutex::lock",
    ),
    (
        Semaphore,
        "syscall < std::__detail::__platform_wait<int> < \
         std::__atomic_wait_address_bare<std::__atomic_semaphore::_M_acquire()::{lambda()#1}> < work",
    ),
    (Barrier, "syscall < std::__atomic_wait_address<int, std::latch::wait() const::{lambda()#1}> < work"),
    (
        Barrier,
        "syscall < std::__atomic_wait_address<unsigned char, std::__tree_barrier<>::wait::{lambda()#1}> < work",
    ),
];

/// Of runtimes and servers.
pub(super) const RUNTIMES: &[Example] = &[
    (
        Mutex,
        "runtime.futex.abi0 < runtime.futexsleep < runtime.lock2 < runtime.lockWithRank < runtime.lock < \
         runtime.mheap_grow",
    ),
    (Mutex, "runtime.futex < runtime.futexsleep < runtime.semasleep < runtime.lock2 < main.main"),
    (Idle, "runtime.futex < runtime.futexsleep < runtime.notesleep < runtime.mPark < runtime.stopm"),
    (
        Idle,
        "runtime.futex < runtime.futexsleep < runtime.notetsleep_internal < runtime.notetsleep < runtime.sysmon",
    ),
    (
        Mutex,
        "pthread_cond_wait < os::PlatformEvent::park() < ObjectMonitor::EnterI(JavaThread*) < \
         ObjectMonitor::enter(JavaThread*) < ObjectSynchronizer::enter",
    ),
    (Mutex, "pthread_cond_wait < PlatformEvent::park < ObjectMonitor::ReenterI < ObjectMonitor::wait"),
    (Mutex, "pthread_cond_wait < ObjectSynchronizer::enter < work"),
    (
        Condition,
        "pthread_cond_wait < os::PlatformEvent::park() < ObjectMonitor::wait(long, bool, JavaThread*) < \
         JVM_MonitorWait",
    ),
    (Park, "pthread_cond_wait < Parker::park(bool, long) < Unsafe_Park < work"),
    (Park, "pthread_cond_wait < Unsafe_Park < work"),
    (
        Condition,
        "pthread_cond_timedwait < PlatformMonitor::wait < Monitor::wait_without_safepoint_check < VMThread::run",
    ),
    (Mutex, "pthread_mutex_lock < PlatformMutex::lock < Mutex::lock_contended < Mutex::lock < work"),
    (Mutex, "Monitor::ILock < Monitor::lock < work"),
    (Semaphore, "sem_wait < PosixSemaphore::wait < Semaphore::wait < WorkerThread::run"),
    (Mutex, "pthread_cond_timedwait < PyCOND_TIMEDWAIT < take_gil < PyEval_RestoreThread"),
    (Semaphore, "sem_clockwait < PyThread_acquire_lock_timed < lock_PyThread_acquire_lock"),
    (
        Mutex,
        "sem_wait < _PySemaphore_PlatformWait < _PySemaphore_Wait < _PyParkingLot_Park < \
         _PyMutex_LockTimed < PyMutex_Lock",
    ),
    (Mutex, "sem_wait < _PyParkingLot_Park < _PyRWMutex_RLock < work"),
    (Mutex, "sem_wait < _PyParkingLot_Park < _PyRecursiveMutex_Lock < work"),
    (Semaphore, "sem_wait < _PyParkingLot_Park < _PyMutex_LockTimed < lock_PyThread_acquire_lock"),
    (
        RwLock,
        "do_futex_wait.constprop.0 < __new_sem_wait_slow64.constprop.0 < PGSemaphoreLock < LWLockAcquire < \
         XLogInsertRecord",
    ),
    (RwLock, "sem_wait < PGSemaphoreLock < LWLockWaitForVar < work"),
    (Mutex, "sem_wait < PGSemaphoreLock < ProcSleep < WaitOnLock"),
    (Mutex, "sem_wait < PGSemaphoreLock < LockAcquireExtended < work"),
    (Semaphore, "sem_wait < PGSemaphoreLock < ProcArrayGroupClearXid"),
    (Mutex, "pthread_cond_wait < os_event::wait_low < os_event_wait_low < sync_array_wait_event < work"),
    (
        Mutex,
        "pthread_cond_timedwait < native_cond_timedwait < my_cond_timedwait < inline_mysql_cond_timedwait < \
         MDL_wait::timed_wait",
    ),
    (
        Mutex,
        "pthread_cond_wait < native_cond_wait < safe_cond_wait < psi_cond_wait < inline_mysql_cond_wait < lock_wait",
    ),
    (Mutex, "pthread_cond_wait < os_event_wait_low < lock_wait_suspend_thread"),
    (Mutex, "syscall < srw_mutex_impl<true>::wait_and_lock < work"),
    (Mutex, "syscall < TTASFutexMutex<GenericPolicy>::enter < work"),
    (RwLock, "syscall < ssux_lock_impl<true>::wr_wait < srw_lock_impl<true>::psi_wr_lock < work"),
    (RwLock, "syscall < srw_lock_<true>::rd_wait < work"),
    (Condition, "pthread_cond_wait < os_event_wait_low < srv_worker_thread"),
    (Idle, "pthread_cond_wait < bioProcessBackgroundJobs < start_thread"),
    (Idle, "__lll_lock_wait < pthread_mutex_lock < IOThreadMain < start_thread"),
    (
        Idle,
        "futex_wait < __lll_lock_wait < lll_mutex_lock_optimized < pthread_mutex_lock < IOThreadMain < start_thread",
    ),
];
