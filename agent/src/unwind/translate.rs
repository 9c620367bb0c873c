//! From a row of a CFI table, which has a rule for every register, to the few words of a [`Rule`].

use agent_ebpf::rule::{Rule, fp, kind};
use gimli::{CfaRule, Encoding, Operation, RegisterRule, UnwindExpression, UnwindTableRow};

use super::entry::{Bytes, Fde};
use super::registers::Architecture;

/// Bytes of a stub in the procedure linkage table; the expression below masks the address with one less.
const STUB_MASK: u64 = 15;

type Op<'a> = Operation<Bytes<'a>>;

/// The rule for `row` of `fde`; [`kind::SLOW`] when it needs more registers or arithmetic than rules have.
pub(super) fn rule_of(architecture: Architecture, fde: &Fde<'_>, row: &UnwindTableRow<usize>) -> Rule {
    let translator = Translator { architecture, fde };
    translator.rule(row).unwrap_or(Rule { kind: kind::SLOW, ..Rule::default() })
}

struct Translator<'f, 'a> {
    architecture: Architecture,
    fde: &'f Fde<'a>,
}

impl<'a> Translator<'_, 'a> {
    fn rule(&self, row: &UnwindTableRow<usize>) -> Option<Rule> {
        if self.fde.entry.cie().return_address_register() != self.architecture.return_address() {
            return None;
        }
        let return_address = row.register(self.architecture.return_address());
        if return_address == Some(RegisterRule::Undefined) {
            return Some(Rule { kind: kind::END, ..Rule::default() });
        }
        if self.is_signal_frame(row) {
            return Some(Rule { kind: kind::SIGNAL, ..Rule::default() });
        }
        // A register without a rule of its own is unchanged: not what a return address on the stack can be.
        let Some(RegisterRule::Offset(ra)) = return_address else { return None };
        // A trampoline's caller is looked up differently from a function's.
        if self.fde.entry.is_signal_trampoline() {
            return None;
        }
        // By convention the caller's stack pointer is the CFA; a rule that says otherwise switches stacks.
        if !matches!(row.register(self.architecture.stack_pointer()), None | Some(RegisterRule::ValOffset(0)))
        {
            return None;
        }
        let (fp, fp_offset) = self.fp(row.register(self.architecture.frame_pointer()).as_ref());
        if let Some(cfa_words) = self.far(row.cfa()) {
            return (ra == -8).then(|| Rule::far(cfa_words, fp, fp_offset));
        }
        let (kind, cfa_offset) = self.cfa(row.cfa())?;
        Some(Rule { kind, fp, cfa_offset, fp_offset, ra_offset: words(ra)? })
    }

    /// The distance from the stack pointer to the CFA in words, where 16 bits do not hold it.
    fn far(&self, rule: &CfaRule<usize>) -> Option<i32> {
        let CfaRule::RegisterAndOffset { register, offset } = rule else { return None };
        let is_far =
            *register == self.architecture.stack_pointer() && offset % 8 == 0 && words(*offset).is_none();
        if is_far { i32::try_from(offset / 8).ok() } else { None }
    }

    fn cfa(&self, rule: &CfaRule<usize>) -> Option<(u8, i16)> {
        let (sp, fp) = (self.architecture.stack_pointer(), self.architecture.frame_pointer());
        let expression = match rule {
            CfaRule::RegisterAndOffset { register, offset } if *register == sp => {
                return Some((kind::SP, words(*offset)?));
            }
            CfaRule::RegisterAndOffset { register, offset } if *register == fp => {
                return Some((kind::FP, words(*offset)?));
            }
            CfaRule::RegisterAndOffset { .. } => return None,
            CfaRule::Expression(expression) => self.operations(expression)?,
        };
        match expression.as_slice() {
            [Op::RegisterOffset { register, offset, .. }, Op::Deref { size: 8, .. }] if *register == fp => {
                Some((kind::FP_DEREF, words(*offset)?))
            }
            [
                Op::RegisterOffset { register, offset, .. },
                Op::Deref { size: 8, .. },
                Op::PlusConstant { value: 8 },
            ] if *register == sp => Some((kind::SP_DEREF, words(*offset)?)),
            stub => self.stub(stub),
        }
    }

    /// What linkers write for the procedure linkage table: `sp + 8 + (((ip & 15) >= pushed) << 3)`.
    fn stub(&self, expression: &[Op<'_>]) -> Option<(u8, i16)> {
        let [
            Op::RegisterOffset { register: sp, offset: 8, .. },
            Op::RegisterOffset { register: ip, offset: 0, .. },
            Op::UnsignedConstant { value: STUB_MASK },
            Op::And,
            Op::UnsignedConstant { value: pushed @ 0..=STUB_MASK },
            Op::Ge,
            Op::UnsignedConstant { value: 3 },
            Op::Shl,
            Op::Plus,
        ] = expression
        else {
            return None;
        };
        let registers = (self.architecture.stack_pointer(), self.architecture.return_address());
        ((*sp, *ip) == registers).then_some((kind::PLT, i16::try_from(*pushed).ok()?))
    }

    fn fp(&self, rule: Option<&RegisterRule<usize>>) -> (u8, i16) {
        let register = self.architecture.frame_pointer();
        let found = match rule {
            // Compilers leave registers that they do not touch without a rule. An undefined one is what some assembly
            // says of a register that it did not touch either.
            None | Some(RegisterRule::SameValue | RegisterRule::Undefined) => Some((fp::SAME, 0)),
            Some(RegisterRule::Register(other)) if *other == register => Some((fp::SAME, 0)),
            Some(RegisterRule::Offset(offset)) => words(*offset).map(|offset| (fp::SAVED, offset)),
            Some(RegisterRule::Expression(expression)) => {
                match self.operations(expression).unwrap_or_default().as_slice() {
                    [Op::RegisterOffset { register: base, offset, .. }] if *base == register => {
                        words(*offset).map(|offset| (fp::AT_FP, offset))
                    }
                    _ => None,
                }
            }
            Some(_) => None,
        };
        found.unwrap_or((fp::LOST, 0))
    }

    /// Whether the row restores the three registers from where the kernel's signal frame has them.
    fn is_signal_frame(&self, row: &UnwindTableRow<usize>) -> bool {
        let saved = self.architecture.signal_frame();
        let at_sp = |register, at: u64| {
            let Some(RegisterRule::Expression(expression)) = row.register(register) else { return false };
            let expression = self.operations(&expression).unwrap_or_default();
            let [Op::RegisterOffset { register, offset, .. }] = expression.as_slice() else { return false };
            *register == self.architecture.stack_pointer() && u64::try_from(*offset) == Ok(at)
        };
        match self.architecture {
            Architecture::X86_64 => {
                at_sp(self.architecture.return_address(), saved.ip)
                    && at_sp(self.architecture.frame_pointer(), saved.fp)
                    && at_sp(self.architecture.stack_pointer(), saved.sp)
            }
            // The vDSO's `__kernel_rt_sigreturn`, the only one there is, is written by hand; what marks it is the
            // augmentation `S`.
            Architecture::Aarch64 => self.fde.entry.is_signal_trampoline(),
        }
    }

    /// The operations of a short expression; None for a long or a malformed one.
    fn operations(&self, expression: &UnwindExpression<usize>) -> Option<Vec<Op<'a>>> {
        const LONGEST: usize = 9;
        let mut found = Vec::with_capacity(LONGEST);
        let mut operations = expression.get(&self.fde.section).ok()?.operations(self.encoding());
        while let Some(operation) = operations.next().ok()? {
            if found.len() == LONGEST {
                return None;
            }
            found.push(operation);
        }
        Some(found)
    }

    fn encoding(&self) -> Encoding {
        self.fde.entry.cie().encoding()
    }
}

/// An offset in words, if it is one and fits.
fn words(bytes: i64) -> Option<i16> {
    if bytes % 8 != 0 {
        return None;
    }
    i16::try_from(bytes / 8).ok()
}
