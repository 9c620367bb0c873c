//! Being somebody else for a while, in one thread.

use std::io;

use nix::unistd::{getegid, geteuid};

/// Gives the calling thread the effective user and group of a stranger, and no further groups.
///
/// A JVM serves only its own user (or root, but the root of a container's user namespace is not ours), and whatever is created in a directory
/// of a stranger's choosing must not be created with root's rights.
///
/// Linux keeps identities by thread; the C library's functions change all threads' at once, so these are the bare system calls. Only the
/// effective identity changes: who may send a process signals or trace it goes by its real and saved users (`kill_ok_by_cred`,
/// `__ptrace_may_access`), so the stranger gets no power over the agent. Leaving user 0 takes all effective capabilities with it.
pub(super) fn become_user(user: u32, group: u32) -> io::Result<()> {
    const KEEP: libc::c_long = -1;
    if (geteuid().as_raw(), getegid().as_raw()) == (user, group) {
        return Ok(());
    }
    // SAFETY: an empty list is given with length 0, so nothing is read; only the calling thread's groups change.
    let groups = unsafe { libc::syscall(libc::SYS_setgroups, 0_usize, std::ptr::null::<libc::gid_t>()) };
    check(groups)?;
    // SAFETY: plain numbers; only the calling thread's groups change.
    check(unsafe { libc::syscall(libc::SYS_setresgid, KEEP, libc::c_long::from(group), KEEP) })?;
    // SAFETY: plain numbers; only the calling thread's users change.
    check(unsafe { libc::syscall(libc::SYS_setresuid, KEEP, libc::c_long::from(user), KEEP) })
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{Gid, Uid};

    /// One thread becomes somebody else and can do less; the others stay who they are.
    #[test]
    fn one_thread_changes() {
        if !Uid::effective().is_root() {
            return;
        }
        let seen = std::thread::spawn(|| {
            become_user(65_534, 65_533).expect("root may");
            let shadow = std::fs::File::open("/etc/shadow").map(drop).map_err(|error| error.kind());
            (geteuid(), getegid(), Uid::current(), shadow)
        });
        let (user, group, real, shadow) = seen.join().expect("no panic");
        assert_eq!((user, group), (Uid::from_raw(65_534), Gid::from_raw(65_533)));
        assert!(real.is_root(), "so that the stranger cannot send signals");
        assert_eq!(shadow, Err(io::ErrorKind::PermissionDenied));
        assert!(Uid::effective().is_root());
    }
}
