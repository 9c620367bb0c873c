//! A `/proc/kallsyms` of a kernel that is not running here.

use std::fmt::Write as _;

/// A symbol that is in the table.
pub(crate) struct KernelSymbol {
    pub(crate) address: u64,
    pub(crate) name: String,
    pub(crate) module: Option<String>,
}

/// Parts of names, as kernels put them together.
const SUBSYSTEMS: [&str; 40] = [
    "ext4",
    "xfs",
    "btrfs",
    "nfs4",
    "tcp",
    "udp",
    "ip6",
    "nf_conntrack",
    "mlx5e",
    "ixgbe",
    "nvme",
    "scsi",
    "blk_mq",
    "bio",
    "mm",
    "shmem",
    "slab",
    "vmalloc",
    "sched",
    "rcu",
    "irq",
    "timer",
    "hrtimer",
    "perf_event",
    "bpf",
    "ftrace",
    "kvm",
    "acpi",
    "pci",
    "usb",
    "drm_atomic",
    "i915",
    "snd_pcm",
    "crypto_ahash",
    "selinux",
    "cgroup",
    "pid_ns",
    "io_uring",
    "devlink",
    "__x64_sys",
];
const OBJECTS: [&str; 40] = [
    "inode", "dentry", "folio", "page", "queue", "ring", "skb", "sock", "route", "table", "entry", "request",
    "bio_vec", "hctx", "tags", "device", "driver", "bus", "link", "port", "domain", "msi", "vector", "mask",
    "clock", "task", "group", "rq", "event", "context", "map", "prog", "state", "plane", "crtc", "stream",
    "hash", "label", "css", "mount",
];
const VERBS: [&str; 30] = [
    "alloc",
    "free",
    "get",
    "put",
    "init",
    "exit",
    "register",
    "unregister",
    "lookup",
    "insert",
    "remove",
    "update",
    "start",
    "stop",
    "enable",
    "disable",
    "read",
    "write_iter",
    "show",
    "store",
    "handle_irq",
    "poll",
    "flush",
    "wait_locked",
    "wake_up",
    "validate",
    "set_attr_locked",
    "release_rcu",
    "probe",
    "callback",
];
const SUFFIXES: [&str; 12] =
    ["", "", "", "", "", "", "", ".cold", ".isra.0", ".constprop.0", ".part.0", ".llvm.1234567890123456789"];

/// Of a hundred symbols so many are the kernel's own; all but one of the rest are modules'.
const OWN: usize = 79;
const BPF_PROGRAMS: usize = 1;
/// Symbols of a module.
const OF_A_MODULE: usize = 300;

/// `count` symbols and the text that says so: the kernel's own, half of them for the padding before a function as
/// `CONFIG_PREFIX_SYMBOLS` makes them; modules'; and BPF programs, each with names as they are given. Data symbols and a second name for some
/// addresses are in the text besides.
pub(crate) fn synthetic(count: usize) -> (String, Vec<KernelSymbol>) {
    let mut symbols = Vec::with_capacity(count);
    let mut random = Random(1);
    let (own, programs) = (count * OWN / 100, count * BPF_PROGRAMS / 100);
    let mut address = 0xffff_ffff_8100_0000;
    while symbols.len() < own {
        let name = function(&mut random, symbols.len());
        if symbols.len() + 1 < own && !name.contains('.') {
            symbols.push(KernelSymbol { address, name: format!("__pfx_{name}"), module: None });
            address += 16;
        }
        symbols.push(KernelSymbol { address, name, module: None });
        address += 16 * (1 + random.below(40) as u64);
    }
    address = 0xffff_ffff_c000_0000;
    while symbols.len() < count - programs {
        let number = (symbols.len() - own) / OF_A_MODULE;
        let module = format!("{}_{number}", SUBSYSTEMS[number % SUBSYSTEMS.len()]);
        symbols.push(KernelSymbol {
            address,
            name: function(&mut random, symbols.len()),
            module: Some(module),
        });
        address += 16 * (1 + random.below(30) as u64);
    }
    while symbols.len() < count {
        let tag = random.next();
        let name = format!("bpf_prog_{tag:016x}_{}", OBJECTS[random.below(OBJECTS.len())]);
        symbols.push(KernelSymbol { address, name, module: Some("bpf".to_owned()) });
        address += 64 * (1 + random.below(50) as u64);
    }
    (text_of(&symbols), symbols)
}

/// A tenth of all names stands for several functions, which are static in files of their own.
fn function(random: &mut Random, number: usize) -> String {
    let subsystem = SUBSYSTEMS[random.below(SUBSYSTEMS.len())];
    let object = OBJECTS[random.below(OBJECTS.len())];
    let verb = VERBS[random.below(VERBS.len())];
    let suffix = SUFFIXES[random.below(SUFFIXES.len())];
    match random.below(10) {
        0 => format!("{object}_{verb}{suffix}"),
        1 => format!("_RNvMs{}_NtCs{:x}_6kernel{}{object}12{verb}", number % 10, random.next(), object.len()),
        2 => format!("{subsystem}_{object}_{verb}_{}{suffix}", OBJECTS[random.below(OBJECTS.len())]),
        _ => format!("{subsystem}_{object}_{verb}{suffix}"),
    }
}

fn text_of(symbols: &[KernelSymbol]) -> String {
    let mut text = String::new();
    for (number, KernelSymbol { address, name, module }) in symbols.iter().enumerate() {
        let module = module.as_ref().map_or_else(String::new, |module| format!("\t[{module}]"));
        let kind = ["T", "t", "W"][number % 3];
        writeln!(text, "{address:016x} {kind} {name}{module}").expect("a string takes all");
        if number % 50 == 0 {
            // Global names come before local ones, and short ones before long ones.
            writeln!(text, "{address:016x} t {name}_alias_of_it{module}").expect("a string takes all");
            writeln!(text, "{:016x} d some_data{module}", address + 8).expect("a string takes all");
        }
    }
    text
}

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 ^ (self.0 >> 29)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.next() >> 33) % bound as u64) as usize
    }
}
