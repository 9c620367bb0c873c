//! Whether a task woke another one, or an interrupt that hit it: by the names of the kernel's functions on the waker's stack.
//!
//! The kernel's own count of nested interrupts has no address that a program could be told on every kernel (kallsyms may leave variables out),
//! and it says less: what a network driver's softirq does when a task has just sent something is that task's doing.

use super::Collector;
use crate::profile::waking::WakeSource;
use crate::symbol::frame::Frame;

/// What a function says of those that it called, from the leaf outwards.
enum Says {
    /// A signal is sent.
    Signal,
    /// A timer has expired.
    Timer,
    /// An interrupt has hit a task.
    Interrupt,
    /// A task has called the kernel, or lets interrupts' work be done now.
    Task,
}

/// What `function` says; mostly nothing.
fn says(function: &str) -> Option<Says> {
    match function {
        "signal_wake_up_state" | "complete_signal" | "ptrace_signal_wake_up" => Some(Says::Signal),
        "__hrtimer_run_queues"
        | "hrtimer_interrupt"
        | "hrtimer_run_softirq"
        | "run_timer_softirq"
        | "__run_timers"
        | "run_timer_base"
        | "call_timer_fn" => Some(Says::Timer),
        "common_interrupt" | "irq_exit_rcu" | "__irq_exit_rcu" | "run_ksoftirqd" | "el0_interrupt"
        | "el1_interrupt" => Some(Says::Interrupt),
        "__local_bh_enable_ip" | "do_softirq" | "do_syscall_64" | "invoke_syscall" | "ret_from_fork" => {
            Some(Says::Task)
        }
        function if function.starts_with("sysvec_") || function.starts_with("asm_sysvec_") => {
            Some(Says::Interrupt)
        }
        _ => None,
    }
}

/// The source by the functions of a kernel stack, leaf first.
fn source<'a>(functions: impl Iterator<Item = &'a str>) -> WakeSource {
    let mut by_timer = false;
    for function in functions {
        match says(function) {
            Some(Says::Signal) => return WakeSource::Signal,
            Some(Says::Timer) => by_timer = true,
            Some(Says::Interrupt) if by_timer => return WakeSource::Timer,
            Some(Says::Interrupt) => return WakeSource::Interrupt,
            Some(Says::Task) => return WakeSource::Task,
            None => {}
        }
    }
    if by_timer { WakeSource::Timer } else { WakeSource::Task }
}

impl Collector {
    /// Who woke, by the waker's kernel frames, leaf first. Where kernel functions have no names it is the task.
    pub(super) fn wake_source(&self, kernel: &[u64]) -> WakeSource {
        let symbols: Vec<_> = kernel
            .iter()
            .map(|address| {
                let frame = Frame::Kernel { address: address.saturating_sub(1) };
                self.sources.resolver.resolve(frame)
            })
            .collect();
        source(symbols.iter().flat_map(|symbols| symbols.frames.iter().map(|frame| frame.function.name())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stacks as kernels 5.10 to 6.18 have them.
    #[test]
    fn stacks_tell_sources() {
        let of = |stack: &str| source(stack.split(' '));
        let futex = "try_to_wake_up wake_up_q futex_wake do_futex __x64_sys_futex do_syscall_64";
        assert_eq!(of(futex), WakeSource::Task);
        let timeout = "try_to_wake_up hrtimer_wakeup __hrtimer_run_queues hrtimer_interrupt \
                       __sysvec_apic_timer_interrupt sysvec_apic_timer_interrupt asm_sysvec_apic_timer_interrupt \
                       futex_wake do_syscall_64";
        assert_eq!(of(timeout), WakeSource::Timer);
        let disk = "try_to_wake_up blk_mq_end_request handle_softirqs irq_exit_rcu common_interrupt asm_common_interrupt work";
        assert_eq!(of(disk), WakeSource::Interrupt);
        let loopback = "try_to_wake_up sock_def_readable tcp_v4_rcv handle_softirqs do_softirq __local_bh_enable_ip \
                        tcp_sendmsg do_syscall_64";
        assert_eq!(of(loopback), WakeSource::Task);
        assert_eq!(
            of("try_to_wake_up signal_wake_up_state do_send_sig_info do_syscall_64"),
            WakeSource::Signal
        );
        assert_eq!(of("try_to_wake_up kthread_work ret_from_fork"), WakeSource::Task);
        assert_eq!(of(""), WakeSource::Task);
    }
}
