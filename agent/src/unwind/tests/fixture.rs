//! Small ELF files with call-frame information made for a test.

/// Where the one executable segment is in the file and in memory.
pub const CODE_OFFSET: u64 = 0x1000;
pub const CODE_ADDRESS: u64 = 0x40_1000;
pub const CODE_BYTES: u64 = 0x10_0000;

pub const X86_64: u16 = 62;
pub const AARCH64: u16 = 183;

/// The usual start on x86-64: CFA = rsp + 8, return address at CFA - 8.
pub const USUAL: &[u8] = &[0x0c, 7, 8, 0x90, 1];

/// An ELF file of these sections, by name, address and content.
pub fn elf(machine: u16, sections: &[(&str, u64, &[u8])]) -> Vec<u8> {
    let names: Vec<u8> = std::iter::once(b'\0')
        .chain(sections.iter().flat_map(|(name, ..)| name.bytes().chain([0])))
        .chain(*b".shstrtab\0")
        .collect();
    let mut content: Vec<u8> = Vec::new();
    let contents_at = 64 + 56;
    let mut headers = vec![0; 64];
    let mut name_at = 1_u32;
    let all = sections.iter().copied().chain([(".shstrtab", 0, &names[..])]);
    for (name, address, bytes) in all {
        let kind = if name == ".shstrtab" { 3_u32 } else { 1 };
        headers.extend(name_at.to_le_bytes());
        headers.extend(kind.to_le_bytes());
        for field in [2, address, contents_at + content.len() as u64, bytes.len() as u64, 0, 1, 0] {
            headers.extend(field.to_le_bytes());
        }
        name_at += name.len() as u32 + 1;
        content.extend(bytes);
    }
    let mut file = b"\x7fELF\x02\x01\x01".to_vec();
    file.resize(16, 0);
    file.extend(3_u16.to_le_bytes());
    file.extend(machine.to_le_bytes());
    file.extend(1_u32.to_le_bytes());
    for field in [0, 64, contents_at + content.len() as u64] {
        file.extend(u64::to_le_bytes(field));
    }
    file.extend(0_u32.to_le_bytes());
    for field in [64, 56, 1, 64, sections.len() as u16 + 2, sections.len() as u16 + 1] {
        file.extend(u16::to_le_bytes(field));
    }
    file.extend(1_u32.to_le_bytes());
    file.extend(5_u32.to_le_bytes());
    for field in [CODE_OFFSET, CODE_ADDRESS, CODE_ADDRESS, CODE_BYTES, CODE_BYTES, 0x1000] {
        file.extend(field.to_le_bytes());
    }
    file.extend(content);
    file.extend(headers);
    file
}

/// `.eh_frame`, entry by entry. Addresses are absolute.
#[derive(Default)]
pub struct EhFrame(pub Vec<u8>);

impl EhFrame {
    /// One with a common entry that starts the usual way.
    pub fn usual() -> Self {
        let mut section = Self::default();
        section.common("zR", USUAL);
        section
    }

    /// Adds a common entry; gives its place.
    pub fn common(&mut self, augmentation: &str, instructions: &[u8]) -> usize {
        let mut body = vec![0, 0, 0, 0, 1];
        body.extend(augmentation.as_bytes());
        // A string's end, factors 1 and -8, return address in 16, one byte: addresses are absolute.
        body.extend([0, 1, 0x78, 16, 1, 0]);
        body.extend(instructions);
        self.entry(&body)
    }

    /// Adds a function that refers to the common entry at `common`.
    pub fn function(&mut self, common: usize, address: u64, len: u64, instructions: &[u8]) -> usize {
        let mut body = ((self.0.len() + 4 - common) as u32).to_le_bytes().to_vec();
        body.extend(address.to_le_bytes());
        body.extend(len.to_le_bytes());
        body.push(0);
        body.extend(instructions);
        self.entry(&body)
    }

    fn entry(&mut self, body: &[u8]) -> usize {
        let at = self.0.len();
        let len = body.len().next_multiple_of(4);
        self.0.extend((len as u32).to_le_bytes());
        self.0.extend(body);
        self.0.resize(at + 4 + len, 0);
        at
    }

    /// An ELF file with it.
    pub fn elf(&self) -> Vec<u8> {
        elf(X86_64, &[(".eh_frame", 0x50_0000, &self.0)])
    }
}
