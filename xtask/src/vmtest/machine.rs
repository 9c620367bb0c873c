//! The virtual machine: boots, does what its init says, and powers off.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command;

/// Emulation on a busy machine is slow; a machine that takes longer hangs.
const PATIENCE: Duration = Duration::from_mins(5);

/// Without CMPXCHG16B, which qemu 7.2 seems to emulate wrongly now and then: 6.12, which allocates memory by it, warned of debug
/// exceptions or died of a double fault while booting, with a part of RAX in EFLAGS right after the instruction.
const CPU: &str = "max,cx16=off";

/// Boots `kernel` with `initramfs` and returns what came over its serial line, which is also written to `log`.
pub(crate) fn boot(kernel: &Path, initramfs: &Path, log: &Path) -> Result<String> {
    let mut qemu = Command::new("qemu-system-x86_64");
    // Emulated: KVM is often not there, and nested it may hang.
    qemu.args(["-accel", "tcg", "-cpu", CPU, "-smp", "2", "-m", "1024", "-nographic", "-no-reboot"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    // Messages of the kernel's would stand in the middle of what the agent prints; init prints them at the end. A panic is
    // shown nevertheless, and ends the machine.
    qemu.args(["-append", "console=ttyS0 panic=-1 loglevel=1"]);
    let output = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    qemu.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    eprintln!("+ {}", command::line(&qemu));
    let mut machine = Machine(qemu.spawn().context("cannot start qemu-system-x86_64")?);
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = machine.0.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            bail!("the machine did not power off; its console: {}", log.display());
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    if !status.success() {
        bail!("qemu failed ({status}); its output: {}", log.display());
    }
    let console = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(String::from_utf8_lossy(&console).into_owned())
}

/// Killed when dropped before it has powered off.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail, and have nothing to do, when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
