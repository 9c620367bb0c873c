//! Which tasks are profiled: `--pid` and `--cgroup`, decided before a stack is walked.

use agent_ebpf::{MAX_CGROUPS, MAX_PIDS};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{CgroupArray, HashMap};

/// Processes that `--pid` named.
#[map]
static SELECTED_PIDS: HashMap<u32, u8> = HashMap::with_max_entries(MAX_PIDS, 0);

/// Directories that `--cgroup` named; a task is selected when it lies in or below one.
#[map]
static SELECTED_CGROUPS: CgroupArray = CgroupArray::with_max_entries(MAX_CGROUPS, 0);

/// Set by the agent before loading: 1 when `SELECTED_PIDS` counts. A constant for the verifier, which drops
/// the branch that cannot be taken.
#[unsafe(no_mangle)]
static SELECT_BY_PID: u32 = 0;

/// Set by the agent before loading: how many slots of `SELECTED_CGROUPS` are in use.
#[unsafe(no_mangle)]
static SELECTED_CGROUP_COUNT: u32 = 0;

/// Whether the current task is to be profiled. With both kinds of selection, either suffices.
#[inline(always)]
pub(crate) fn current_task_is_selected(pid: u32) -> bool {
    // SAFETY: reads of two statics that live in `.rodata`, which the agent fills before loading; volatile
    // so that the compiler does not take the initial value for the final one.
    let (by_pid, cgroups) = unsafe {
        (
            core::ptr::read_volatile(&raw const SELECT_BY_PID),
            core::ptr::read_volatile(&raw const SELECTED_CGROUP_COUNT),
        )
    };
    if by_pid == 0 && cgroups == 0 {
        return true;
    }
    // SAFETY: the value is a plain byte; nobody changes the map while programs run.
    if by_pid != 0 && unsafe { SELECTED_PIDS.get(&pid) }.is_some() {
        return true;
    }
    // A bounded loop (5.3+); the helper takes one slot at a time.
    for slot in 0..MAX_CGROUPS {
        if slot >= cgroups {
            break;
        }
        if let Ok(true) = SELECTED_CGROUPS.current_task_under_cgroup(slot) {
            return true;
        }
    }
    false
}
