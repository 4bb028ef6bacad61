//! Where the fields of kernel structures are, read from the running kernel's BTF.
//!
//! The Rust compiler emits no relocations for BPF, so the programs take field offsets from read-only globals, which are
//! filled from here. The format is described in the kernel's `Documentation/bpf/btf.rst`.

use std::collections::HashMap;

use thiserror::Error;

/// Where the kernel publishes its BTF.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

/// Why field offsets could not be had.
#[derive(Debug, Error)]
pub enum LayoutError {
    /// The bytes are no BTF, or are damaged.
    #[error("kernel type information is malformed: {0}")]
    Malformed(&'static str),
    /// A structure or field that the programs need is not in this kernel.
    #[error("this kernel has no field {structure}.{field}")]
    MissingField {
        /// Name of the structure.
        structure: &'static str,
        /// Name of the field.
        field: &'static str,
    },
}

/// A field whose offset a global of the kernel programs holds.
struct Wanted {
    global: &'static str,
    structure: &'static str,
    field: &'static str,
}

const fn wanted(global: &'static str, structure: &'static str, field: &'static str) -> Wanted {
    Wanted { global, structure, field }
}

const WANTED: &[Wanted] = &[
    wanted("TASK_GROUP_LEADER", "task_struct", "group_leader"),
    wanted("TASK_COMM", "task_struct", "comm"),
    wanted("TASK_TGID", "task_struct", "tgid"),
    wanted("TASK_MM", "task_struct", "mm"),
    wanted("TASK_START_BOOTTIME", "task_struct", "start_boottime"),
    wanted("TASK_SELF_EXEC_ID", "task_struct", "self_exec_id"),
    wanted("TASK_CGROUPS", "task_struct", "cgroups"),
    wanted("CSS_SET_SUBSYS", "css_set", "subsys"),
    wanted("CSS_SET_DFL_CGRP", "css_set", "dfl_cgrp"),
    wanted("CSS_CGROUP", "cgroup_subsys_state", "cgroup"),
    wanted("CSS_PARENT", "cgroup_subsys_state", "parent"),
    wanted("CGROUP_SELF", "cgroup", "self"),
    wanted("CGROUP_KN", "cgroup", "kn"),
    wanted("KERNFS_NODE_ID", "kernfs_node", "id"),
];

/// The enumeration that numbers the version 1 cgroup controllers.
const CONTROLLERS: &str = "cgroup_subsys_id";
/// What its values' names end in: `memory_cgrp_id`.
const CONTROLLER_SUFFIX: &str = "_cgrp_id";

/// Field offsets of the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// Name of the global, and the offset in bytes that goes into it.
    pub offsets: Vec<(&'static str, u32)>,
    controllers: HashMap<String, u32>,
}

impl KernelLayout {
    /// Finds the offsets in the contents of [`KERNEL_BTF`].
    ///
    /// # Errors
    /// [`LayoutError`] where the bytes are damaged or a field is missing.
    pub fn from_btf(bytes: &[u8]) -> Result<Self, LayoutError> {
        let btf = Btf::parse(bytes)?;
        let mut structures = HashMap::new();
        let mut controllers = HashMap::new();
        for (id, entry) in btf.types.iter().enumerate() {
            let name = btf.name(entry.name);
            match entry.kind {
                KIND_STRUCT
                    if entry.count > 0
                        && WANTED.iter().any(|wanted| wanted.structure.as_bytes() == name) =>
                {
                    structures.entry(name).or_insert(id);
                }
                KIND_ENUM if name == CONTROLLERS.as_bytes() => controllers = btf.controllers(entry),
                _ => {}
            }
        }
        let offset_of = |wanted: &Wanted| {
            let Wanted { global, structure, field } = *wanted;
            structures
                .get(structure.as_bytes())
                .and_then(|id| btf.field_offset(*id, field.as_bytes(), MAX_NESTING))
                .map(|offset| (global, offset))
                .ok_or(LayoutError::MissingField { structure, field })
        };
        let offsets = WANTED.iter().map(offset_of).collect::<Result<_, _>>()?;
        Ok(Self { offsets, controllers })
    }

    /// The index of a version 1 cgroup controller, by the name it has in `/proc/PID/cgroup`; `None` where the kernel has no
    /// such controller.
    #[must_use]
    pub fn controller(&self, name: &str) -> Option<u32> {
        // The names differ in one place: the io controller of version 2 is `blkio` in version 1.
        let name = if name == "blkio" { "io" } else { name };
        self.controllers.get(name).copied()
    }
}

const MAGIC: u16 = 0xeb9f;
const TYPE_BYTES: usize = 12;
const KIND_STRUCT: u8 = 4;
const KIND_UNION: u8 = 5;
const KIND_ENUM: u8 = 6;
/// Anonymous structures within structures; real ones nest below five.
const MAX_NESTING: u32 = 16;

/// One entry of the type section.
struct Type {
    name: u32,
    kind: u8,
    /// Members, values or parameters.
    count: usize,
    /// Whether member offsets share their word with a bit-field size.
    packed_offsets: bool,
    /// Position in the type section of what follows the entry.
    body: usize,
}

struct Btf<'a> {
    types: Vec<Type>,
    section: &'a [u8],
    strings: &'a [u8],
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, LayoutError> {
        let header = |at: usize| u32_at(bytes, at).ok_or(LayoutError::Malformed("header is cut short"));
        if header(0)? as u16 != MAGIC {
            return Err(LayoutError::Malformed("wrong magic number"));
        }
        let header_bytes = header(4)? as usize;
        let part = |offset: u32, length: u32| {
            let start = header_bytes.checked_add(offset as usize)?;
            bytes.get(start..start.checked_add(length as usize)?)
        };
        let section = part(header(8)?, header(12)?).ok_or(LayoutError::Malformed("types are cut short"))?;
        let strings = part(header(16)?, header(20)?).ok_or(LayoutError::Malformed("strings are cut short"))?;

        // Type ids begin at 1; 0 is void.
        let mut types = vec![Type { name: 0, kind: 0, count: 0, packed_offsets: false, body: 0 }];
        let mut at = 0;
        while at < section.len() {
            let word = |index: usize| {
                u32_at(section, at + 4 * index).ok_or(LayoutError::Malformed("a type is cut short"))
            };
            let (name, facts) = (word(0)?, word(1)?);
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
                _ => return Err(LayoutError::Malformed("unknown kind of type")),
            };
            types.push(Type { name, kind, count, packed_offsets: facts >> 31 != 0, body });
            at = body + body_bytes;
        }
        Ok(Self { types, section, strings })
    }

    fn name(&self, offset: u32) -> &'a [u8] {
        let tail = self.strings.get(offset as usize..).unwrap_or_default();
        let end = tail.iter().position(|byte| *byte == 0).unwrap_or(tail.len());
        &tail[..end]
    }

    /// Offset of a member in bytes, looking through anonymous structures and unions.
    fn field_offset(&self, id: usize, field: &[u8], nesting: u32) -> Option<u32> {
        let owner = self.types.get(id).filter(|owner| matches!(owner.kind, KIND_STRUCT | KIND_UNION))?;
        (0..owner.count).find_map(|index| {
            let at = owner.body + 12 * index;
            let name = self.name(u32_at(self.section, at)?);
            let member_type = u32_at(self.section, at + 4)? as usize;
            let raw = u32_at(self.section, at + 8)?;
            let bits = if owner.packed_offsets { raw & 0xff_ffff } else { raw };
            if name == field {
                Some(bits / 8)
            } else if name.is_empty() && nesting > 0 {
                Some(bits / 8 + self.field_offset(member_type, field, nesting - 1)?)
            } else {
                None
            }
        })
    }

    fn controllers(&self, enumeration: &Type) -> HashMap<String, u32> {
        (0..enumeration.count)
            .filter_map(|index| {
                let at = enumeration.body + 8 * index;
                let name = str::from_utf8(self.name(u32_at(self.section, at)?)).ok()?;
                Some((name.strip_suffix(CONTROLLER_SUFFIX)?.to_owned(), u32_at(self.section, at + 4)?))
            })
            .collect()
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BTF image with one structure for every wanted one; every member is 8 bytes, in the order of [`WANTED`], the last
    /// of `task_struct` inside an anonymous union.
    struct Image {
        types: Vec<u8>,
        strings: Vec<u8>,
    }

    impl Image {
        fn new() -> Self {
            Self { types: Vec::new(), strings: vec![0] }
        }

        fn string(&mut self, text: &str) -> u32 {
            let at = self.strings.len() as u32;
            self.strings.extend(text.bytes().chain([0]));
            at
        }

        fn words(&mut self, words: &[u32]) {
            self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }

        fn structure(&mut self, kind: u8, name: &str, members: &[(&str, u32, u32)]) {
            let name = if name.is_empty() { 0 } else { self.string(name) };
            self.words(&[name, u32::from(kind) << 24 | members.len() as u32, 0]);
            for (member, member_type, offset_bytes) in members {
                let member = if member.is_empty() { 0 } else { self.string(member) };
                self.words(&[member, *member_type, offset_bytes * 8]);
            }
        }

        fn bytes(&self) -> Vec<u8> {
            let header = [
                u32::from(MAGIC) | 1 << 16,
                24,
                0,
                self.types.len() as u32,
                self.types.len() as u32,
                self.strings.len() as u32,
            ];
            let mut bytes: Vec<u8> = header.iter().flat_map(|word| word.to_le_bytes()).collect();
            bytes.extend(&self.types);
            bytes.extend(&self.strings);
            bytes
        }

        fn complete() -> Self {
            let mut image = Self::new();
            // Type 1: the anonymous union that holds task_struct.cgroups at 4.
            image.structure(KIND_UNION, "", &[("cgroups", 0, 4)]);
            let mut names: Vec<_> = WANTED.iter().map(|wanted| wanted.structure).collect();
            names.dedup();
            for name in names {
                let members: Vec<_> = WANTED
                    .iter()
                    .filter(|wanted| wanted.structure == name)
                    .enumerate()
                    .map(|(index, wanted)| {
                        let in_union = wanted.field == "cgroups";
                        (if in_union { "" } else { wanted.field }, u32::from(in_union), 8 * index as u32)
                    })
                    .collect();
                image.structure(KIND_STRUCT, name, &members);
            }
            image
        }
    }

    #[test]
    fn offsets_are_found_also_inside_anonymous_unions() {
        let layout = KernelLayout::from_btf(&Image::complete().bytes()).unwrap();
        let offset = |name| layout.offsets.iter().find(|(global, _)| *global == name).unwrap().1;
        assert_eq!(offset("TASK_COMM"), 8);
        assert_eq!(offset("TASK_CGROUPS"), 6 * 8 + 4);
        assert_eq!(offset("CGROUP_KN"), 8);
    }

    #[test]
    fn controllers_are_found_by_the_names_of_version_one() {
        let mut image = Image::complete();
        let name = image.string(CONTROLLERS);
        let io = image.string("io_cgrp_id");
        image.words(&[name, u32::from(KIND_ENUM) << 24 | 1, 4, io, 3]);
        let layout = KernelLayout::from_btf(&image.bytes()).unwrap();
        assert_eq!(layout.controller("blkio"), Some(3));
        assert_eq!(layout.controller("memory"), None);
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut image = Image::new();
        image.structure(KIND_STRUCT, "task_struct", &[("comm", 0, 0)]);
        let error = KernelLayout::from_btf(&image.bytes()).unwrap_err();
        assert_eq!(error.to_string(), "this kernel has no field task_struct.group_leader");
    }

    #[test]
    fn damaged_bytes_are_refused_at_every_length() {
        let bytes = Image::complete().bytes();
        for length in 0..bytes.len() {
            assert!(KernelLayout::from_btf(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn the_running_kernel_has_every_field() {
        let Ok(bytes) = std::fs::read(KERNEL_BTF) else {
            eprintln!("skipped: {KERNEL_BTF} cannot be read");
            return;
        };
        let layout = KernelLayout::from_btf(&bytes).unwrap();
        assert_eq!(layout.offsets.len(), WANTED.len());
        assert!(layout.controller("memory").is_some());
    }
}
