//! The meaning of call-frame instructions, for the few registers that rules speak of.
//!
//! gimli has an interpreter of its own, which keeps every register's rule for every row and decodes without knowing what is
//! wanted. This one is twice as fast, and building tables is what the agent does most when it starts. Tests compare the two
//! on every row of real files.

use chokepoint_ebpf::unwind::table::Rule;
use gimli::{EndianSlice, Expression, LittleEndian, Operation, Register, constants as op};

use super::bytes::Bytes;

/// States that a function remembers at the same time: compilers use one, for each epilogue in turn.
const MAX_REMEMBERED: usize = 16;

/// A processor's view: which registers are followed, and what a rule can say of them.
pub trait Processor {
    /// The frame pointer, the register of [`Rule::other`], the return address and the stack pointer.
    const REGISTERS: [Register; 4];

    /// The rule that says it, or [`Rule::UNSUPPORTED`].
    fn rule(state: &State, signal: bool) -> Rule;
}

/// How a frame's caller is found, at one place of the code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The canonical frame address.
    pub cfa: CfaAt,
    /// The caller's registers, in the order of [`Processor::REGISTERS`].
    pub registers: [ValueAt; 4],
}

/// Index of the frame pointer in [`State::registers`].
pub const FRAME_POINTER: usize = 0;
/// Index of the other register.
pub const OTHER: usize = 1;
/// Index of the return address.
pub const RETURN_ADDRESS: usize = 2;
/// Index of the stack pointer.
pub const STACK_POINTER: usize = 3;

/// How the canonical frame address is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CfaAt {
    /// Register plus offset.
    Register(Register, i64),
    /// What memory holds at register plus offset.
    Deref(Register, i64),
    /// As in x86-64's procedure linkage tables, which push from this byte of an entry on.
    Plt(i32),
    /// In another way.
    Unknown,
}

/// Where a register's value for the caller is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueAt {
    /// Nothing is said.
    Unsaid,
    /// Lost.
    Undefined,
    /// In the register.
    Same,
    /// In memory, at the CFA plus an offset.
    Cfa(i64),
    /// In memory, at a register plus an offset.
    Register(Register, i64),
    /// In another register.
    InRegister(Register),
    /// It is the CFA plus an offset itself.
    ValueCfa(i64),
    /// Elsewhere.
    Unknown,
}

impl State {
    /// What holds before the first instruction.
    pub const UNSAID: Self = Self { cfa: CfaAt::Unknown, registers: [ValueAt::Unsaid; 4] };

    /// Where a register is, counted from the CFA as far as that can be said.
    #[inline]
    pub fn relative_to_cfa(&self, register: usize) -> ValueAt {
        match (self.registers[register], self.cfa) {
            (ValueAt::Register(base, offset), CfaAt::Register(cfa_base, cfa_offset)) if base == cfa_base => {
                ValueAt::Cfa(offset.wrapping_sub(cfa_offset))
            }
            (at, _) => at,
        }
    }
}

/// The instructions make no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

/// What offsets in instructions are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Factors {
    /// Distances in the code.
    pub code: u64,
    /// Offsets in memory.
    pub data: i64,
}

/// What instructions, one after the other, leave.
pub struct Interpreter {
    state: State,
    remembered: Vec<State>,
}

impl Interpreter {
    /// Made once for many functions.
    pub fn new() -> Self {
        Self { state: State::UNSAID, remembered: Vec::new() }
    }

    /// What holds at the start of functions that have these instructions in common.
    pub fn initial_state<P: Processor>(&mut self, code: &[u8], factors: Factors) -> Result<State, Damaged> {
        self.state = State::UNSAID;
        self.remembered.clear();
        let mut code = Bytes(code);
        while !code.0.is_empty() {
            // Without an initial state to go back to, nothing can be restored.
            self.step::<P>(&mut code, factors, &State::UNSAID).ok_or(Damaged)?;
        }
        Ok(self.state)
    }

    /// Follows a function's instructions. `row` is called with each place, counted from the function's start, and what
    /// holds from there on; places rise and are below `len`. `None` holds where the instructions make no sense.
    pub fn function<P: Processor, E>(
        &mut self,
        code: &[u8],
        factors: Factors,
        initial: &State,
        len: u64,
        mut row: impl FnMut(u64, Option<&State>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.state = *initial;
        self.remembered.clear();
        let mut at = 0;
        let mut code = Bytes(code);
        while !code.0.is_empty() {
            let Some(distance) = self.step::<P>(&mut code, factors, initial) else { return row(at, None) };
            if distance == 0 {
                continue;
            }
            row(at, Some(&self.state))?;
            match at.checked_add(distance) {
                Some(next) if next < len => at = next,
                _ => return Ok(()),
            }
        }
        row(at, Some(&self.state))
    }

    /// Follows one instruction; gives the distance that it moves on in the code. `None` if it makes no sense.
    #[inline(always)]
    fn step<P: Processor>(&mut self, code: &mut Bytes<'_>, factors: Factors, initial: &State) -> Option<u64> {
        let Factors { code: code_factor, data: data_factor } = factors;
        let distance = |distance: u64| Some(distance.wrapping_mul(code_factor));
        let first = code.u8()?;
        let low = first & 0x3f;
        // The three commonest have their operand in the byte.
        match op::DwCfa(first & !0x3f) {
            op::DW_CFA_advance_loc => return distance(u64::from(low)),
            op::DW_CFA_offset => {
                let offset = code.unsigned()? as i64;
                self.set::<P>(Register(low.into()), ValueAt::Cfa(offset.wrapping_mul(data_factor)));
                return Some(0);
            }
            op::DW_CFA_restore => {
                self.restore::<P>(Register(low.into()), initial);
                return Some(0);
            }
            _ => {}
        }
        match op::DwCfa(first) {
            op::DW_CFA_nop => {}
            op::DW_CFA_advance_loc1 => return distance(code.u8()?.into()),
            op::DW_CFA_advance_loc2 => return distance(code.u16()?.into()),
            op::DW_CFA_advance_loc4 => return distance(code.u32()?.into()),
            op::DW_CFA_def_cfa => {
                self.state.cfa = CfaAt::Register(code.register()?, code.unsigned()? as i64);
            }
            op::DW_CFA_def_cfa_sf => {
                self.state.cfa = CfaAt::Register(code.register()?, code.signed()?.wrapping_mul(data_factor));
            }
            op::DW_CFA_def_cfa_register => {
                let CfaAt::Register(register, _) = &mut self.state.cfa else { return None };
                *register = code.register()?;
            }
            op::DW_CFA_def_cfa_offset => {
                let CfaAt::Register(_, offset) = &mut self.state.cfa else { return None };
                *offset = code.unsigned()? as i64;
            }
            op::DW_CFA_def_cfa_offset_sf => {
                let CfaAt::Register(_, offset) = &mut self.state.cfa else { return None };
                *offset = code.signed()?.wrapping_mul(data_factor);
            }
            op::DW_CFA_def_cfa_expression => self.state.cfa = cfa_expression(code.block()?),
            op::DW_CFA_remember_state => {
                if self.remembered.len() == MAX_REMEMBERED {
                    return None;
                }
                self.remembered.push(self.state);
            }
            op::DW_CFA_restore_state => self.state = self.remembered.pop()?,
            op::DW_CFA_restore_extended => {
                let register = code.register()?;
                self.restore::<P>(register, initial);
            }
            op::DW_CFA_GNU_args_size => {
                code.unsigned()?;
            }
            // Signing of return addresses, which the unwinder clears in any case.
            op::DW_CFA_AARCH64_negate_ra_state => {}
            other => {
                let register = code.register()?;
                let at = match other {
                    op::DW_CFA_undefined => ValueAt::Undefined,
                    op::DW_CFA_same_value => ValueAt::Same,
                    op::DW_CFA_offset_extended => {
                        ValueAt::Cfa((code.unsigned()? as i64).wrapping_mul(data_factor))
                    }
                    op::DW_CFA_offset_extended_sf => ValueAt::Cfa(code.signed()?.wrapping_mul(data_factor)),
                    op::DW_CFA_GNU_negative_offset_extended => {
                        ValueAt::Cfa((code.unsigned()? as i64).wrapping_neg().wrapping_mul(data_factor))
                    }
                    op::DW_CFA_val_offset => {
                        ValueAt::ValueCfa((code.unsigned()? as i64).wrapping_mul(data_factor))
                    }
                    op::DW_CFA_val_offset_sf => ValueAt::ValueCfa(code.signed()?.wrapping_mul(data_factor)),
                    op::DW_CFA_register => ValueAt::InRegister(code.register()?),
                    op::DW_CFA_expression => value_expression(code.block()?),
                    op::DW_CFA_val_expression => {
                        code.block()?;
                        ValueAt::Unknown
                    }
                    // Jumps to an absolute address (DW_CFA_set_loc), which no compiler's assembler emits, and the unknown.
                    _ => return None,
                };
                self.set::<P>(register, at);
            }
        }
        Some(0)
    }

    #[inline(always)]
    fn set<P: Processor>(&mut self, register: Register, at: ValueAt) {
        for (slot, followed) in self.state.registers.iter_mut().zip(P::REGISTERS) {
            if followed == register {
                *slot = at;
            }
        }
    }

    #[inline(always)]
    fn restore<P: Processor>(&mut self, register: Register, initial: &State) {
        for (at, followed) in P::REGISTERS.into_iter().enumerate() {
            if followed == register {
                self.state.registers[at] = initial.registers[at];
            }
        }
    }
}

/// Operations of the longest expression that is understood, which is the procedure linkage table's.
const MAX_OPERATIONS: usize = 9;

pub(super) fn cfa_expression(expression: &[u8]) -> CfaAt {
    use Operation as Op;
    let Some((operations, count)) = operations(expression) else { return CfaAt::Unknown };
    match &operations[..count] {
        [Some(Op::RegisterOffset { register, offset, .. })] => CfaAt::Register(*register, *offset),
        [
            Some(Op::RegisterOffset { register, offset, .. }),
            Some(Op::Deref { size: 8, space: false, .. }),
        ] => CfaAt::Deref(*register, *offset),
        [
            Some(Op::RegisterOffset { register: gimli::X86_64::RSP, offset: 8, .. }),
            Some(Op::RegisterOffset { register: gimli::X86_64::RA, offset: 0, .. }),
            Some(Op::UnsignedConstant { value: 15 }),
            Some(Op::And),
            Some(Op::UnsignedConstant { value: pushed @ 0..=15 }),
            Some(Op::Ge),
            Some(Op::UnsignedConstant { value: 3 }),
            Some(Op::Shl),
            Some(Op::Plus),
        ] => CfaAt::Plt(*pushed as i32),
        _ => CfaAt::Unknown,
    }
}

pub(super) fn value_expression(expression: &[u8]) -> ValueAt {
    match operations(expression) {
        Some((operations, 1)) => match operations[0] {
            Some(Operation::RegisterOffset { register, offset, .. }) => ValueAt::Register(register, offset),
            _ => ValueAt::Unknown,
        },
        _ => ValueAt::Unknown,
    }
}

type Operations<'a> = [Option<Operation<EndianSlice<'a, LittleEndian>>>; MAX_OPERATIONS];

/// An expression's operations, if they are few.
fn operations(expression: &[u8]) -> Option<(Operations<'_>, usize)> {
    let encoding = gimli::Encoding { address_size: 8, format: gimli::Format::Dwarf32, version: 5 };
    let mut remaining = Expression(EndianSlice::new(expression, LittleEndian)).operations(encoding);
    let mut operations = [None; MAX_OPERATIONS];
    let mut count = 0;
    while let Some(operation) = remaining.next().ok()? {
        *operations.get_mut(count)? = Some(operation);
        count += 1;
    }
    Some((operations, count))
}
