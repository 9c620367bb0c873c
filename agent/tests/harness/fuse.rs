//! A file system in user space with one file, whose server hangs when it is told to.
//!
//! It speaks the kernel's protocol (`include/uapi/linux/fuse.h`, version 7.31) itself: a server that really does not answer is
//! what is needed, not what a library makes of one.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Requests (`enum fuse_opcode`).
mod opcode {
    pub(super) const LOOKUP: u32 = 1;
    pub(super) const FORGET: u32 = 2;
    pub(super) const GETATTR: u32 = 3;
    pub(super) const OPEN: u32 = 14;
    pub(super) const READ: u32 = 15;
    pub(super) const RELEASE: u32 = 18;
    pub(super) const FLUSH: u32 = 25;
    pub(super) const INIT: u32 = 26;
    pub(super) const INTERRUPT: u32 = 36;
    pub(super) const BATCH_FORGET: u32 = 42;
}

/// `struct fuse_in_header`.
const HEADER: usize = 40;
/// `FUSE_MIN_READ_BUFFER` and room for a write, which never comes.
const BUFFER: usize = 64 << 10;
/// Number of the root directory, and of the file.
const ROOT: u64 = 1;
const FILE: u64 = 2;
/// `FOPEN_KEEP_CACHE`: a program that runs keeps its pages when somebody opens its file.
const KEEP_CACHE: u32 = 2;

/// What the server does not answer. The kernel then waits for ever, and a signal does not end that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hang {
    Never,
    /// Nothing is answered.
    All,
    /// Reading.
    Reads,
    /// Closing.
    Closes,
}

/// A mounted file system, gone when this is dropped: whoever waits for it then has an error.
pub(crate) struct HangingFs {
    mounted: PathBuf,
    file: PathBuf,
    server: Arc<Mutex<Server>>,
}

struct Server {
    device: File,
    name: String,
    contents: Vec<u8>,
    hang: Hang,
    unanswered: Vec<Vec<u8>>,
}

impl HangingFs {
    /// Mounts a file system on `directory` with an executable file `name`.
    pub(crate) fn mount(directory: &Path, name: &str, contents: Vec<u8>) -> Self {
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("/dev/fuse");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("hanging"), directory, Some("fuse"), flags, Some(options.as_str())).expect("mounted");
        let reader = device.try_clone().expect("a descriptor");
        let server =
            Server { device, name: name.to_owned(), contents, hang: Hang::Never, unanswered: Vec::new() };
        let server = Arc::new(Mutex::new(server));
        let of_thread = server.clone();
        thread::spawn(move || serve(reader, &of_thread));
        Self { mounted: directory.to_owned(), file: directory.join(name), server }
    }

    /// The file.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// From now on these requests are not answered; those that were not, and are not among these, are.
    pub(crate) fn hang(&self, hang: Hang) {
        let mut server = lock(&self.server);
        server.hang = hang;
        for request in std::mem::take(&mut server.unanswered) {
            server.answer(&request);
        }
    }

    /// Requests that nobody has answered.
    pub(crate) fn unanswered(&self) -> usize {
        lock(&self.server).unanswered.len()
    }
}

impl Drop for HangingFs {
    fn drop(&mut self) {
        // `MNT_FORCE` aborts the connection (`fuse_umount_begin`), `MNT_DETACH` does not mind who has files open.
        let _gone = umount2(&self.mounted, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
}

fn lock(server: &Mutex<Server>) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends when the file system is unmounted.
fn serve(mut device: File, server: &Mutex<Server>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(length) = device.read(&mut buffer) {
        lock(server).answer(&buffer[..length]);
    }
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_ne_bytes(bytes[offset..offset + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_ne_bytes(bytes[offset..offset + 8].try_into().expect("eight bytes"))
}

impl Server {
    fn answer(&mut self, request: &[u8]) {
        let opcode = u32_at(request, 4);
        let hangs = match self.hang {
            Hang::Never => false,
            Hang::All => true,
            Hang::Reads => opcode == opcode::READ,
            Hang::Closes => opcode == opcode::FLUSH,
        };
        // These want no answer.
        if matches!(opcode, opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT) {
            return;
        }
        if hangs {
            self.unanswered.push(request.to_vec());
            return;
        }
        let answer = self.reply(opcode, u64_at(request, 16), &request[HEADER..]);
        let (error, body) = match answer {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        // `struct fuse_out_header`.
        let mut bytes = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(error.to_ne_bytes());
        bytes.extend(&request[8..16]);
        bytes.extend(body);
        // Whoever has asked may have been killed meanwhile.
        let _written = self.device.write(&bytes);
    }

    fn reply(&self, opcode: u32, node: u64, body: &[u8]) -> Result<Vec<u8>, i32> {
        match opcode {
            opcode::INIT => Ok(init(u32_at(body, 8))),
            opcode::LOOKUP if node == ROOT && body.strip_suffix(b"\0") == Some(self.name.as_bytes()) => {
                // `struct fuse_entry_out`: both are valid for an hour.
                let mut entry: Vec<u8> =
                    [FILE, 1, 3600, 3600, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
                entry.extend(self.attributes(FILE));
                Ok(entry)
            }
            opcode::LOOKUP => Err(libc::ENOENT),
            opcode::GETATTR => {
                let mut answer: Vec<u8> = [3600_u64, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
                answer.extend(self.attributes(node));
                Ok(answer)
            }
            opcode::OPEN => {
                Ok([0, 0, KEEP_CACHE, 0].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect())
            }
            opcode::READ => {
                let start = (u64_at(body, 8) as usize).min(self.contents.len());
                let end = (start + u32_at(body, 16) as usize).min(self.contents.len());
                Ok(self.contents[start..end].to_vec())
            }
            opcode::RELEASE | opcode::FLUSH => Ok(Vec::new()),
            _ => Err(libc::ENOSYS),
        }
    }

    /// `struct fuse_attr`.
    fn attributes(&self, node: u64) -> Vec<u8> {
        let (mode, size) = match node {
            ROOT => (libc::S_IFDIR | 0o755, 0),
            _ => (libc::S_IFREG | 0o555, self.contents.len() as u64),
        };
        let words = [node, size, size.div_ceil(512), 0, 0, 0];
        let halves = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0];
        let words = words.iter().flat_map(|word| word.to_ne_bytes());
        words.chain(halves.iter().flat_map(|half| half.to_ne_bytes())).collect()
    }
}

/// `struct fuse_init_out`.
fn init(max_readahead: u32) -> Vec<u8> {
    const MAJOR: u32 = 7;
    const MINOR: u32 = 31;
    let background = u32::from_ne_bytes([16, 0, 12, 0]);
    let fields = [MAJOR, MINOR, max_readahead, 0, background, 4096, 1];
    let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_ne_bytes()).collect();
    bytes.resize(64, 0);
    bytes
}
