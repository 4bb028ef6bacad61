//! Mapped files as the kernel knows them.

/// Which file is mapped, by the kernel's own structures. An inode's address is unique among living inodes; the rest tells a
/// later inode at the same address from an earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FileKey {
    /// Address of the kernel's inode.
    pub inode_address: u64,
    /// Inode number.
    pub inode: u64,
    /// Size in bytes.
    pub size: u64,
    /// The inode's generation: file systems that reuse numbers count them.
    pub generation: u32,
    /// The kernel's own device number.
    pub device: u32,
}

/// The key that stands for the vDSO.
pub const VDSO_KEY: FileKey = FileKey { inode_address: 0, inode: 0, size: 0, generation: 0, device: 0 };

/// What the kernel programs know of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FileEntry {
    /// Its id in [`super::frame::Frame`]s.
    pub id: u32,
    /// Index of its first page, where it has any.
    pub first_page: u32,
    /// Pages from the file's start on.
    pub pages: u32,
    /// 1 once the agent has said what there is: with no pages then, there is no call-frame information to be had. 0 while
    /// its table is still being built, or has been given up for others.
    pub known: u32,
    /// Index of its first rule.
    pub first_rule: u32,
    /// Keeps entries at a multiple of eight bytes; zero.
    pub reserved: u32,
}

/// Files that the kernel programs remember; the least recently sampled goes first, and is announced again when it is met
/// again.
pub const MAX_FILES: usize = 8192;

/// Room for a file's path in a [`NewFile`].
pub const FILE_PATH_LEN: usize = 512;
/// Longest component of a path, with its terminating zero; one that is longer is cut, and the path leads nowhere then.
pub const PATH_COMPONENT_LEN: usize = 128;
/// Components of a path, and mounts on its way, at most.
pub const MAX_PATH_STEPS: usize = 32;

/// Tells the agent of a file that was sampled for the first time. It comes with the sample or shortly before or after it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct NewFile {
    /// [`crate::record::Kind::NewFile`].
    pub kind: u32,
    /// Id that frames name it by.
    pub id: u32,
    /// Which file it is.
    pub key: FileKey,
    /// A process that maps it.
    pub tgid: u32,
    /// Keeps the layout free of holes; zero.
    pub reserved: u32,
    /// First address of the mapping in that process.
    pub start: u64,
    /// First address behind the mapping.
    pub end: u64,
    /// Bytes used of `path`.
    pub path_bytes: u64,
    /// The components of its path, the last one first, each with a zero behind it. The path is that of the file system as it
    /// is mounted for the process; it serves where the process has ended.
    pub path: [u8; FILE_PATH_LEN],
}

const _: () = assert!(size_of::<NewFile>() == 72 + FILE_PATH_LEN, "no holes");
