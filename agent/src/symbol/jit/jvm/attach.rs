//! HotSpot's attach protocol (`src/hotspot/os/posix/attachListener_posix.cpp`).
//!
//! A JVM that finds `/tmp/.attach_pidN` when it gets `SIGQUIT` opens the socket `/tmp/.java_pidN`, N being its number in its own PID
//! namespace. It closes connections of users other than its own.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::socket::sockopt::{ReceiveTimeout, SendTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike as _};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::symbol::jit::jvm::eligible::Jvm;

/// Version of the protocol, command, its three arguments.
const REQUEST: &[u8] = b"1\0jcmd\0Compiler.perfmap\0\0\0";
/// How long a JVM may take to listen: it does so at its next safepoint.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a JVM may take for its answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Bytes of an answer that are read.
const LONGEST_ANSWER: usize = 4096;

/// A JVM did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttachError {
    #[error("cannot {what} in its /tmp: {error}")]
    Temporary { what: &'static str, error: io::Error },
    #[error("it cannot be sent SIGQUIT: {0}")]
    Signal(#[source] io::Error),
    #[error(
        "it did not listen within {PATIENCE:?}; if its threads' stacks are on its standard output now, it cannot be asked"
    )]
    Silent,
    #[error("talking to it failed: {0}")]
    Talk(#[source] io::Error),
    #[error("it answered {0:?}")]
    Refused(String),
}

/// Makes the JVM write its perf map. The calling thread is the JVM's user by now.
pub(super) fn attach(jvm: &Jvm) -> Result<(), AttachError> {
    let name = format!("/tmp/.java_pid{}", jvm.status.own_pid);
    let listening = match open_socket(jvm, &name)? {
        Some(listening) => listening,
        None => wake(jvm, &name)?,
    };
    let answer = ask(&listening).map_err(AttachError::Talk)?;
    // A number, 0 for success, on a line of its own, and what the command prints.
    match answer.split_once('\n') {
        Some(("0", _)) => Ok(()),
        _ => Err(AttachError::Refused(answer.trim().chars().take(200).collect())),
    }
}

/// The socket that the JVM listens at, only good for connecting to it. What is there must be a socket, and no link to one: that could
/// lead to anybody's.
fn open_socket(jvm: &Jvm, name: &str) -> Result<Option<File>, AttachError> {
    let failed = |error| AttachError::Temporary { what: "open the JVM's socket", error };
    match jvm.root.open(name, OFlag::O_PATH, Mode::empty()) {
        Ok(found) => {
            let is_socket = found.metadata().map_err(failed)?.file_type().is_socket();
            is_socket.then_some(Some(found)).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Makes the JVM listen.
fn wake(jvm: &Jvm, name: &str) -> Result<File, AttachError> {
    let request = RequestFile::create(jvm)?;
    signal_quit(&jvm.pidfd).map_err(AttachError::Signal)?;
    let deadline = Instant::now() + PATIENCE;
    let found = loop {
        if let Some(listening) = open_socket(jvm, name)? {
            break Ok(listening);
        }
        if Instant::now() >= deadline {
            break Err(AttachError::Silent);
        }
        thread::sleep(Duration::from_millis(20));
    };
    drop(request);
    found
}

/// `/tmp/.attach_pidN`; removed when it is dropped.
struct RequestFile {
    directory: File,
    name: String,
}

impl RequestFile {
    fn create(jvm: &Jvm) -> Result<Self, AttachError> {
        let failed = |error| AttachError::Temporary { what: "create .attach_pid", error };
        let directory =
            jvm.root.open("/tmp", OFlag::O_PATH | OFlag::O_DIRECTORY, Mode::empty()).map_err(failed)?;
        let name = format!(".attach_pid{}", jvm.status.own_pid);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        match jvm.root.open(&format!("/tmp/{name}"), flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            // What another tool has left there does as well.
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(failed(error)),
            _ => Ok(Self { directory, name }),
        }
    }
}

impl Drop for RequestFile {
    fn drop(&mut self) {
        // The JVM may have removed it.
        let _removed = unlinkat(&self.directory, self.name.as_str(), UnlinkatFlags::NoRemoveDir);
    }
}

fn signal_quit(pidfd: &OwnedFd) -> io::Result<()> {
    let no_information = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open; a null pointer stands for what kill(2) would say.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), libc::SIGQUIT, no_information, 0_u32)
    };
    if sent == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn ask(listening: &File) -> io::Result<String> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let patience = TimeVal::seconds(PATIENCE.as_secs().cast_signed());
    setsockopt(&socket, SendTimeout, &patience)?;
    setsockopt(&socket, ReceiveTimeout, &patience)?;
    // The descriptor's link leads to the very socket that was looked at.
    let address = UnixAddr::new(format!("/proc/self/fd/{}", listening.as_raw_fd()).as_str())?;
    connect(socket.as_raw_fd(), &address)?;
    let mut stream = UnixStream::from(socket);
    stream.write_all(REQUEST)?;
    let deadline = Instant::now() + ANSWER_TIME;
    let mut answer = vec![0; LONGEST_ANSWER];
    let mut length = 0;
    while length < LONGEST_ANSWER {
        match stream.read(&mut answer[length..])? {
            0 => break,
            _ if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
            more => length += more,
        }
    }
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::PathBuf;
    use std::process::{Child, Command};

    use super::*;
    use crate::symbol::jit::jvm::eligible::open_pidfd;
    use crate::symbol::jit::process_view::ProcessView;

    /// A process in the place of a JVM, and where it would listen. It must not be woken: the signal would end it.
    struct Case {
        child: Child,
        socket: PathBuf,
    }

    impl Case {
        fn new() -> Self {
            let child = Command::new("sleep").arg("1000").spawn().expect("a child");
            let socket = PathBuf::from(format!("/tmp/.java_pid{}", child.id()));
            // A JVM that was killed may have left one under this number.
            let _removed = std::fs::remove_file(&socket);
            Self { child, socket }
        }

        fn attach(&self) -> Result<(), AttachError> {
            let pid = self.child.id();
            let view = ProcessView::open(pid).expect("it runs");
            let (root, status) = (view.root().expect("it runs"), view.status().expect("it runs"));
            attach(&Jvm { pidfd: open_pidfd(pid).expect("it runs"), root, status })
        }

        /// Attaches while somebody listens, who gives `answer`; and what was asked.
        fn attach_to(&self, answer: &'static [u8]) -> (Result<(), AttachError>, Vec<u8>) {
            let listener = UnixListener::bind(&self.socket).expect("a socket");
            let server = thread::spawn(move || {
                let (mut stream, _) = listener.accept().expect("a connection");
                let mut asked = vec![0; REQUEST.len()];
                stream.read_exact(&mut asked).expect("a request");
                // Who asks may have had enough.
                let _written = stream.write_all(answer);
                asked
            });
            let result = self.attach();
            (result, server.join().expect("no panic"))
        }
    }

    impl Drop for Case {
        fn drop(&mut self) {
            // It is to run until here, and not every case has a socket.
            let _ended = self.child.kill();
            let _reaped = self.child.wait();
            let _removed = std::fs::remove_file(&self.socket);
        }
    }

    /// A JVM that listens is not sent a signal; it gets the command, and its answer counts.
    #[test]
    fn who_listens_is_asked() {
        let mut case = Case::new();
        let (result, asked) = case.attach_to(b"0\n");
        assert!(result.is_ok(), "{result:?}");
        assert_eq!(asked, b"1\0jcmd\0Compiler.perfmap\0\0\0");
        assert!(case.child.try_wait().expect("a child").is_none(), "it was not sent SIGQUIT");
    }

    /// A refusal is told with its beginning; an answer without end is no reason to read for ever.
    #[test]
    fn other_answers_are_refusals() {
        static ENDLESS: [u8; 1 << 20] = [b'x'; 1 << 20];
        for answer in [b"1\nUnknown diagnostic command\n", ENDLESS.as_slice(), b"", b"0"] {
            let (result, _) = Case::new().attach_to(answer);
            let Err(AttachError::Refused(text)) = result else { panic!("{result:?}") };
            assert!(text.len() <= 200 && answer.starts_with(text.as_bytes()), "{text}");
        }
    }

    /// A link in the socket's place leads nowhere, though somebody listens at its end, and a file is no socket.
    #[test]
    fn only_a_socket_is_connected_to() {
        let directory = tempfile::tempdir().expect("a directory");
        let elsewhere = directory.path().join("socket");
        let _listener = UnixListener::bind(&elsewhere).expect("a socket");
        let case = Case::new();
        symlink(&elsewhere, &case.socket).expect("a link");
        let result = case.attach();
        assert!(matches!(result, Err(AttachError::Temporary { .. })), "{result:?}");
        let case = Case::new();
        File::create(&case.socket).expect("a file");
        let result = case.attach();
        assert!(matches!(result, Err(AttachError::Temporary { .. })), "{result:?}");
    }
}
