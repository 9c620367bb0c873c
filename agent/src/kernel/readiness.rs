//! Waiting for any of several rings to fill up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::io::unix::AsyncFd;

/// A set of descriptors, of which one becoming readable is news.
///
/// Edge-triggered: a BPF ring counts as readable as long as anything is in it, but only a wake-up that the program
/// asked for (the ring is half full) is worth a turn of its own.
pub struct Readiness {
    epoll: Epoll,
    outer: AsyncFd<OwnedFd>,
}

impl Readiness {
    /// An empty set. Must be called inside a tokio runtime.
    pub fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        // SAFETY: the descriptor is owned by the `AsyncFd` from here on, is never replaced inside it, and
        // closes after it is deregistered.
        let outer = unsafe { AsyncFd::register(epoll.0.try_clone()?) }.map_err(io::Error::from)?;
        Ok(Self { epoll, outer })
    }

    /// Adds a descriptor. It leaves the set when it is closed.
    pub fn watch(&self, descriptor: impl AsFd) -> io::Result<()> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, 0);
        match self.epoll.add(descriptor, event) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until a descriptor becomes readable.
    pub async fn ready(&self) -> io::Result<()> {
        let mut guard = self.outer.readable().await?;
        let mut events = [EpollEvent::empty(); 64];
        // Taking the events off the inner set is what arms it again.
        while self.epoll.wait(&mut events, EpollTimeout::ZERO)? == events.len() {}
        guard.clear_ready();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::time::Duration;

    use super::*;

    /// News wakes once, and again after more news.
    #[test]
    fn each_piece_of_news_wakes_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let readiness = Readiness::new().expect("an epoll instance");
            let (reader, mut writer) = io::pipe().expect("a pipe");
            readiness.watch(&reader).expect("watched");
            let none = tokio::time::timeout(Duration::from_millis(20), readiness.ready()).await;
            assert!(none.is_err(), "nothing happened yet");
            for _ in 0..2 {
                writer.write_all(b"x").expect("written");
                let woken = tokio::time::timeout(Duration::from_secs(10), readiness.ready()).await;
                woken.expect("woken").expect("no error");
                let again = tokio::time::timeout(Duration::from_millis(20), readiness.ready()).await;
                assert!(again.is_err(), "old news is no news");
            }
        });
    }
}
