use super::btf::{KIND_ENUM, KIND_STRUCT, KIND_UNION, MAGIC};
use super::wanted::{Need, WANTED};
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

    /// Of a kernel with a maple tree.
    fn complete() -> Self {
        let mut image = Self::new();
        // Type 1: the anonymous union that holds task_struct.cgroups at 4.
        image.structure(KIND_UNION, "", &[("cgroups", 0, 4)]);
        let mut ids = 2;
        let present = || {
            WANTED.iter().filter(|wanted| {
                wanted.need != Need::RedBlackTree && !matches!(wanted.field, "state" | "cpu")
            })
        };
        let mut names: Vec<_> = present().map(|wanted| wanted.structure).chain([MAPLE_TREE]).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let mut members: Vec<(&str, u32, u32)> = Vec::new();
            for wanted in present().filter(|wanted| wanted.structure == name) {
                let at = 8 * members.len() as u32;
                let (outer, inner) = wanted.field.split_once('.').unwrap_or((wanted.field, ""));
                if members.iter().any(|(member, ..)| *member == outer) {
                    continue;
                }
                // The structure within, behind a typedef: its fields are at 16 and on.
                if !inner.is_empty() {
                    let fields: Vec<_> = present()
                        .filter(|other| other.structure == name)
                        .filter_map(|other| other.field.split_once('.').filter(|(first, _)| *first == outer))
                        .zip(2..)
                        .map(|((_, field), at)| (field, 0, 8 * at))
                        .collect();
                    image.structure(KIND_STRUCT, "", &fields);
                    image.words(&[0, 8 << 24, ids]);
                    members.push((outer, ids + 1, at));
                    ids += 2;
                } else if outer == "cgroups" {
                    members.push(("", 1, at));
                } else {
                    members.push((outer, 0, at));
                }
            }
            if members.is_empty() {
                members.push(("ma_root", 0, 0));
            }
            image.structure(KIND_STRUCT, name, &members);
            ids += 1;
        }
        image
    }
}

#[test]
fn offsets_are_found_also_inside_anonymous_unions() {
    let layout = KernelLayout::from_btf(&Image::complete().bytes()).unwrap();
    let offset = |name| layout.offsets.iter().find(|(global, _)| *global == name).unwrap().1;
    assert_eq!(offset("TASK_COMM"), 8);
    assert_eq!(offset("TASK_CGROUPS"), 17 * 8 + 4);
    assert_eq!(offset("CGROUP_KN"), 8);
    assert_eq!(offset("MM_VDSO"), 16);
    assert_eq!(offset("MM_MAPLE_ROOT"), 16 + 16);
    assert!(layout.has_maple_tree);
    assert!(!layout.has_task_pt_regs);
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
    let absent = if layout.has_maple_tree { Need::RedBlackTree } else { Need::MapleTree };
    for wanted in WANTED.iter().filter(|wanted| wanted.need != absent && wanted.need != Need::IfThere) {
        let found = layout.offsets.iter().filter(|(global, _)| *global == wanted.global).count();
        assert_eq!(found, 1, "{}", wanted.global);
    }
    assert!(layout.iowait_mask.is_power_of_two());
    assert!(layout.controller("memory").is_some());
}
