//! One step with everything that CFI can say: the slow path's answer where rows have none.

use gimli::{
    CfaRule, Encoding, EvaluationResult, Location, Register, RegisterRule, UnwindContext, UnwindExpression,
    UnwindTableRow, Value,
};

use super::CfiError;
use super::cfi::CfiIndex;
use super::entry::{Bytes, Fde};
use super::registers::Registers;
use crate::symbol::read_at::ReadAt;

/// Operations that an expression may take. Known ones take ten.
const MAX_OPERATIONS: u32 = 256;
/// Bytes of entries that may be loaded: one FDE and its CIE.
const BUDGET: u64 = 2 << 20;

/// Where a frame leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullStep {
    /// To the caller: its `ip` is a return address, to be looked up one byte before.
    Caller(Registers),
    /// To code that a signal interrupted: its `ip` is exact.
    Interrupted(Registers),
    /// Nowhere: the frame is the outermost, the stack is complete.
    End,
}

/// Why there is no caller.
#[derive(Debug, thiserror::Error)]
pub enum FullStepError {
    /// No FDE covers the address.
    #[error("no call frame information for the address")]
    NoInformation,
    /// The FDE or the index cannot be used.
    #[error(transparent)]
    Cfi(#[from] CfiError),
    /// The stack cannot be read at this address.
    #[error("the stack cannot be read at {0:#x}")]
    Unreadable(u64),
    /// A register is needed whose value is not known, by its DWARF number.
    #[error("register {0} is not known")]
    UnknownRegister(u16),
    /// The rules ask for what stacks have not.
    #[error("unsupported rule: {0}")]
    Unsupported(&'static str),
    /// The caller's frame would not lie above this one, or not at a multiple of 8 bytes.
    #[error("the caller's frame is at an implausible place")]
    Implausible,
    /// The return address is 0: how threads start where no rule says [`FullStep::End`].
    #[error("the return address is 0")]
    NullReturn,
}

impl From<gimli::Error> for FullStepError {
    fn from(error: gimli::Error) -> Self {
        Self::Cfi(error.into())
    }
}

/// Steps from the frame with `registers`, whose code is at `address` as the file was linked for: where the instruction
/// pointer is, or one byte before for a return address. `bias` is what the loader added to the file's addresses.
/// `source` and `index` belong together; `read_stack` gives the word at an address, None when it cannot.
///
/// # Errors
/// Whatever keeps the caller's instruction and stack pointer from being known. A register of the caller's that cannot be
/// known is no error.
pub fn full_step(
    source: &dyn ReadAt,
    index: &CfiIndex,
    address: u64,
    bias: u64,
    registers: &Registers,
    read_stack: impl Fn(u64) -> Option<u64>,
) -> Result<FullStep, FullStepError> {
    let end = address.checked_add(1).ok_or(FullStepError::NoInformation)?;
    let functions = index.covering(source, address, end, usize::MAX)?;
    let function = functions.last().ok_or(FullStepError::NoInformation)?;
    let mut entries = index.entries(source, BUDGET);
    let fde = entries.load(function.fde)?;
    if !fde.entry.contains(address) {
        return Err(FullStepError::NoInformation);
    }
    let mut context = UnwindContext::new();
    let row = fde
        .entry
        .unwind_info_for_address(&fde.section, &fde.bases, &mut context, address)
        .map_err(CfiError::from)?;
    let evaluator = Evaluator { fde: &fde, bias, registers, read_stack };
    evaluator.step(row)
}

struct Evaluator<'f, 'a, F> {
    fde: &'f Fde<'a>,
    bias: u64,
    registers: &'f Registers,
    read_stack: F,
}

impl<F: Fn(u64) -> Option<u64>> Evaluator<'_, '_, F> {
    fn step(&self, row: &UnwindTableRow<usize>) -> Result<FullStep, FullStepError> {
        let architecture = self.registers.architecture();
        let (sp, ra) = (architecture.stack_pointer(), architecture.return_address());
        if self.fde.entry.cie().return_address_register() != ra {
            return Err(FullStepError::Unsupported("a return address in another column"));
        }
        if row.register(ra) == Some(RegisterRule::Undefined) {
            return Ok(FullStep::End);
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => self.expression(expression, None)?,
        };
        let signal = self.fde.entry.is_signal_trampoline();
        // Without a rule of its own the stack pointer is the CFA. With one the stack is switched, and need not ascend.
        // A return address that was popped into a register (`vfork`) leaves no frame.
        let popped = matches!(row.register(ra), Some(RegisterRule::Register(_)));
        let least_frame = if popped { 0 } else { architecture.least_frame() };
        let least = self.register(sp)?.saturating_add(least_frame);
        if row.register(sp).is_none() && !signal && (cfa < least || cfa % 8 != 0) {
            return Err(FullStepError::Implausible);
        }
        let ip =
            self.rule(row.register(ra).as_ref(), ra, cfa)?.ok_or(FullStepError::UnknownRegister(ra.0))?;
        if ip == 0 {
            return Err(FullStepError::NullReturn);
        }
        let mut caller = Registers::new(architecture, ip);
        for number in 0..architecture.register_count() {
            let register = Register(number);
            if register == ra && caller.get(ra.0).is_some() {
                continue;
            }
            let value = match row.register(register) {
                None if register == sp => Some(cfa),
                // What a signal interrupted has all its registers, the rules say where; a caller has lost those
                // that it does not expect back.
                None if !architecture.is_callee_saved(register) => None,
                rule => self.rule(rule.as_ref(), register, cfa).unwrap_or(None),
            };
            caller.set(number, value);
        }
        Ok(if signal { FullStep::Interrupted(caller) } else { FullStep::Caller(caller) })
    }

    /// The caller's value of `register`; None when the rule says that it has none.
    fn rule(
        &self,
        rule: Option<&RegisterRule<usize>>,
        register: Register,
        cfa: u64,
    ) -> Result<Option<u64>, FullStepError> {
        Ok(match rule {
            None | Some(RegisterRule::SameValue) => self.registers.get(register.0),
            // As in rows: assembly that says so of a register that callers expect back has not touched it.
            Some(RegisterRule::Undefined) => {
                let kept = self.registers.architecture().is_callee_saved(register);
                self.registers.get(register.0).filter(|_| kept)
            }
            Some(RegisterRule::Offset(offset)) => Some(self.read(cfa.wrapping_add_signed(*offset))?),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(*offset)),
            Some(RegisterRule::Register(other)) => Some(self.register(*other)?),
            Some(RegisterRule::Expression(expression)) => {
                Some(self.read(self.expression(expression, Some(cfa))?)?)
            }
            Some(RegisterRule::ValExpression(expression)) => Some(self.expression(expression, Some(cfa))?),
            Some(RegisterRule::Constant(value)) => Some(*value),
            Some(_) => return Err(FullStepError::Unsupported("a rule of the architecture's")),
        })
    }

    fn register(&self, register: Register) -> Result<u64, FullStepError> {
        self.registers.get(register.0).ok_or(FullStepError::UnknownRegister(register.0))
    }

    fn read(&self, address: u64) -> Result<u64, FullStepError> {
        (self.read_stack)(address).ok_or(FullStepError::Unreadable(address))
    }

    fn encoding(&self) -> Encoding {
        self.fde.entry.cie().encoding()
    }

    /// The value of an expression; registers' rules begin with the CFA on their stack (DWARF 5, section 6.4.2.3).
    fn expression(
        &self,
        expression: &UnwindExpression<usize>,
        initial: Option<u64>,
    ) -> Result<u64, FullStepError> {
        let expression = expression.get::<Bytes<'_>, _>(&self.fde.section)?;
        let mut evaluation = expression.evaluation(self.encoding());
        evaluation.set_max_iterations(MAX_OPERATIONS);
        if let Some(value) = initial {
            evaluation.set_initial_value(value);
        }
        let mut state = evaluation.evaluate()?;
        loop {
            state = match state {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    evaluation.resume_with_register(Value::Generic(self.register(register)?))?
                }
                EvaluationResult::RequiresMemory { address, size: 8, space: None, .. } => {
                    evaluation.resume_with_memory(Value::Generic(self.read(address)?))?
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    evaluation.resume_with_relocated_address(address.wrapping_add(self.bias))?
                }
                _ => return Err(FullStepError::Unsupported("an operation that CFI does not use")),
            };
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Ok(address),
                _ => Err(FullStepError::Unsupported("an expression without an address")),
            },
            _ => Err(FullStepError::Unsupported("an expression in pieces")),
        }
    }
}
