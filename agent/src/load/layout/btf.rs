//! Reads BTF, the kernel's own type information. The format is described in the kernel's `Documentation/bpf/btf.rst`.

use thiserror::Error;

/// What is wrong with bytes that should be BTF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Malformed(pub(super) &'static str);

pub(super) const MAGIC: u16 = 0xeb9f;
const TYPE_BYTES: usize = 12;
pub(super) const KIND_STRUCT: u8 = 4;
pub(super) const KIND_UNION: u8 = 5;
pub(super) const KIND_ENUM: u8 = 6;
pub(super) const KIND_TYPEDEF: u8 = 8;
/// Anonymous structures within structures; real ones nest below five.
const MAX_NESTING: u32 = 16;

/// One entry of the type section.
pub(super) struct Type {
    pub(super) name: u32,
    pub(super) kind: u8,
    /// Members, values or parameters.
    pub(super) count: usize,
    /// The type that a typedef or qualifier stands before; a size for others.
    pub(super) target: u32,
    /// Whether member offsets share their word with a bit-field size.
    packed_offsets: bool,
    /// Position in the type section of what follows the entry.
    body: usize,
}

/// The types of a kernel.
pub(super) struct Btf<'a> {
    /// By their ids; the first is void.
    pub(super) types: Vec<Type>,
    section: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    /// Reads them.
    ///
    /// # Errors
    /// Where the bytes are no BTF, or are damaged.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let header = |at: usize| u32_at(bytes, at).ok_or(Malformed("header is cut short"));
        if header(0)? as u16 != MAGIC {
            return Err(Malformed("wrong magic number"));
        }
        let header_bytes = header(4)? as usize;
        let part = |offset: u32, length: u32| {
            let start = header_bytes.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(length as usize)?)
        };
        let section = part(header(8)?, header(12)?).ok_or(Malformed("types are cut short"))?;
        let strings = part(header(16)?, header(20)?).ok_or(Malformed("strings are cut short"))?;

        // Type ids begin at 1; 0 is void.
        let mut types = vec![Type { name: 0, kind: 0, count: 0, target: 0, packed_offsets: false, body: 0 }];
        let mut at = 0;
        while at < section.len() {
            let word = |index: usize| u32_at(section, at + 4 * index).ok_or(Malformed("a type is cut short"));
            let (name, facts, target) = (word(0)?, word(1)?, word(2)?);
            let count = (facts & 0xffff) as usize;
            let kind = (facts >> 24 & 0x1f) as u8;
            let body = at + TYPE_BYTES;
            let body_bytes = match kind {
                // Pointer, forward, typedef, volatile, const, restrict, function, float, type tag.
                2 | 7..=12 | 16 | 18 => 0,
                // Integer, variable, declaration tag.
                1 | 14 | 17 => 4,
                // Array.
                3 => 12,
                KIND_STRUCT | KIND_UNION | 15 | 19 => 12 * count,
                KIND_ENUM | 13 => 8 * count,
                _ => return Err(Malformed("unknown kind of type")),
            };
            types.push(Type { name, kind, count, target, packed_offsets: facts >> 31 != 0, body });
            at = body + body_bytes;
        }
        Ok(Self { types, section, strings })
    }

    /// The name at an offset into the strings.
    pub(super) fn name(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        let end = tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len());
        &tail[..end]
    }

    /// Offset of a field in bits; the path's dots lead into structures within the structure.
    pub(super) fn path_bits(&self, id: usize, path: &str) -> Option<u32> {
        let (mut id, mut offset) = (id, 0);
        for field in path.split('.') {
            let (at, member_type) = self.field(self.unqualified(id), field.as_bytes(), MAX_NESTING)?;
            offset += at;
            id = member_type;
        }
        Some(offset)
    }

    /// The type behind typedefs and qualifiers.
    fn unqualified(&self, mut id: usize) -> usize {
        for _ in 0..MAX_NESTING {
            match self.types.get(id) {
                // Typedef, volatile, const, restrict, type tag.
                Some(entry) if matches!(entry.kind, 8..=11 | 18) => id = entry.target as usize,
                _ => break,
            }
        }
        id
    }

    /// Offset in bits and type of a member, looking through anonymous structures and unions.
    fn field(&self, id: usize, field: &[u8], nesting: u32) -> Option<(u32, usize)> {
        let owner = self.types.get(id).filter(|owner| matches!(owner.kind, KIND_STRUCT | KIND_UNION))?;
        (0..owner.count).find_map(|index| {
            let at = owner.body + 12 * index;
            let name = self.name(u32_at(self.section, at)?);
            let member_type = u32_at(self.section, at + 4)? as usize;
            let raw = u32_at(self.section, at + 8)?;
            let bits = if owner.packed_offsets { raw & 0xff_ffff } else { raw };
            if name == field {
                Some((bits, member_type))
            } else if name.is_empty() && nesting > 0 {
                let (offset, member_type) = self.field(self.unqualified(member_type), field, nesting - 1)?;
                Some((bits + offset, member_type))
            } else {
                None
            }
        })
    }

    /// Number of parameters of the function that a typedef of a pointer to it names.
    pub(super) fn parameters(&self, typedef: &Type) -> Option<usize> {
        let pointer = self.types.get(typedef.target as usize)?;
        Some(self.types.get(pointer.target as usize)?.count)
    }

    /// The values of an enumeration: name and number.
    pub(super) fn values(&self, enumeration: &Type) -> impl Iterator<Item = (&'a [u8], u32)> {
        let at = |index| enumeration.body + 8 * index;
        (0..enumeration.count).filter_map(move |index| {
            Some((self.name(u32_at(self.section, at(index))?), u32_at(self.section, at(index) + 4)?))
        })
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}
