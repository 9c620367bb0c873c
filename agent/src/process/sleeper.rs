//! Threads that do not run: where they left user mode, and their stacks.

use std::fs;
use std::io::IoSliceMut;

use agent_ebpf::{COMM_LEN, FutexCall, wait_state};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

/// `futex` on this machine.
#[cfg(target_arch = "x86_64")]
const FUTEX: &str = "202";
#[cfg(not(target_arch = "x86_64"))]
const FUTEX: &str = "98";

/// A page: a read ends before the first that is not there.
const PAGE: u64 = 4096;

/// A thread that is in a system call and does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sleeper {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// The thread's name, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// One of [`wait_state`].
    pub state: u16,
    /// Where it goes on in user mode.
    pub ip: u64,
    /// Its stack pointer there.
    pub sp: u64,
    /// The futex call that it sleeps in, if it does.
    pub futex: Option<FutexCall>,
}

impl Sleeper {
    /// What `/proc` says of a thread (`proc_pid_syscall` in `fs/proc/base.c`); `None` when it runs, is the kernel's own, has ended or may
    /// not be looked at.
    pub fn of(pid: u32, tid: u32) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{tid}/{name}")).ok();
        let syscall = read("syscall")?;
        let (ip, sp) = position(&syscall)?;
        let state = state(&read("stat")?)?;
        let name = fs::read(format!("/proc/{pid}/task/{tid}/comm")).ok()?;
        let mut comm = [0; COMM_LEN];
        comm.iter_mut().zip(name.trim_ascii_end()).for_each(|(to, from)| *to = *from);
        let futex = futex(&syscall).filter(|_| state == wait_state::SLEEP);
        Some(Self { pid, tid, comm, state, ip, sp, futex })
    }

    /// The threads of process `pid`.
    pub fn threads(pid: u32) -> Vec<u32> {
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
        tasks.filter_map(|task| task.ok()?.file_name().to_str()?.parse().ok()).collect()
    }
}

/// `NUMBER ARGUMENTS… SP PC`, or `-1 SP PC` outside of system calls; `running`.
fn position(syscall: &str) -> Option<(u64, u64)> {
    let words: Vec<&str> = syscall.split_ascii_whitespace().collect();
    let [.., sp, ip] = words[..] else { return None };
    let number = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    Some((number(ip)?, number(sp)?)).filter(|(ip, sp)| *ip != 0 && *sp != 0)
}

/// What `futex(2)` was called with.
fn futex(syscall: &str) -> Option<FutexCall> {
    let mut words = syscall.split_ascii_whitespace();
    if words.next()? != FUTEX {
        return None;
    }
    let mut argument = || u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok();
    Some(FutexCall { address: argument()?, operation: argument()? as u32, value: argument()? as u32 })
}

/// The letter behind the name, which is in brackets and may hold brackets.
fn state(stat: &str) -> Option<u16> {
    match stat.rsplit_once(") ")?.1.chars().next()? {
        'S' | 'I' => Some(wait_state::SLEEP),
        'D' => Some(wait_state::DISK),
        'T' | 't' => Some(wait_state::STOPPED),
        _ => None,
    }
}

/// Up to `most` bytes of process `pid`'s memory from `start` on, as far as there are pages.
pub fn read_stack(pid: u32, start: u64, most: usize) -> Vec<u8> {
    let mut bytes = vec![0; most];
    let mut pages = Vec::new();
    let mut at = start;
    let end = start.saturating_add(most as u64);
    while at < end {
        let next = (at / PAGE + 1).saturating_mul(PAGE).min(end);
        pages.push(RemoteIoVec { base: at as usize, len: (next - at) as usize });
        at = next;
    }
    let pid = Pid::from_raw(pid.cast_signed());
    let read = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &pages).unwrap_or(0);
    bytes.truncate(read);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms that the kernel prints.
    #[test]
    fn positions_are_read() {
        let blocked = "202 0x7f01 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd 0x7f02\n";
        assert_eq!(position(blocked), Some((0x7f02, 0x7ffd)));
        let call = FutexCall { address: 0x7f01, operation: 0x189, value: 0 };
        assert_eq!(futex(&blocked.replacen("202", FUTEX, 1)), Some(call));
        assert_eq!(futex("0 0x0 0x0 0x0 0x0 0x0 0x0 0x7ffd 0x7f02\n"), None);
        assert_eq!(position("-1 0x7ffd 0x7f02\n"), Some((0x7f02, 0x7ffd)));
        assert_eq!(position("running\n"), None);
        assert_eq!(position("0 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0\n"), None);
    }

    /// The state stands behind the last bracket, whatever the name.
    #[test]
    fn states_are_read() {
        assert_eq!(state("12 (a) R (b) S 1 2"), Some(wait_state::SLEEP));
        assert_eq!(state("12 (cat) D 1 2"), Some(wait_state::DISK));
        assert_eq!(state("12 (cat) R 1 2"), None);
        assert_eq!(state(""), None);
    }

    /// One's own memory is what it is; what is not there is not read.
    #[test]
    fn stacks_are_read() {
        let data: Vec<u8> = (0..20_000).map(|index| index as u8).collect();
        let read = |start, most| read_stack(std::process::id(), start, most);
        assert_eq!(read(data.as_ptr() as u64, data.len()), data);
        assert!(read(8, 100).is_empty());
    }
}
