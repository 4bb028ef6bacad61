//! Where binaries' code is, without names: of which build, at which of the ELF's own addresses.
//!
//! For who has names from elsewhere: nothing but a file's headers is read, once.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::cache::Identity;
use super::elf::{BuildId, Code, Elf};
use super::symbols::{BinarySymbols, SymbolizeError, Symbolized};
use crate::address::FileOffset;

/// Files of which the headers are remembered, some 200 bytes each. When there are more, all are forgotten: what still runs is soon there again.
const MAX_FILES: usize = 4_096;

/// A build that was met, and where it was.
#[derive(Debug)]
pub struct Met {
    /// Which build.
    pub build_id: BuildId,
    /// The file that was mapped.
    pub file: File,
    /// Its path as its process sees it.
    pub path: PathBuf,
    /// The root of that process.
    pub root: PathBuf,
}

/// Is told of each build once, and again where very many were met meanwhile.
pub type Meet = Box<dyn FnMut(Met) + Send>;

/// See the module's documentation.
pub(super) struct Places {
    known: HashMap<Identity, Place>,
    meet: Meet,
}

struct Place {
    build_id: BuildId,
    code: Vec<Code>,
}

impl Places {
    pub(super) fn new(meet: Meet) -> Self {
        Self { known: HashMap::new(), meet }
    }

    /// The places of offsets in a file, which have no lines.
    pub(super) fn of(
        &mut self,
        file: &File,
        identity: Identity,
        (path, root): (&Path, &Path),
        offsets: &[FileOffset],
    ) -> Result<BinarySymbols, SymbolizeError> {
        if !self.known.contains_key(&identity) {
            let elf = Elf::read(file)?;
            let build_id = elf.build_id(file)?;
            if self.known.len() >= MAX_FILES {
                self.known.clear();
            }
            let (path, root) = (path.to_owned(), root.to_owned());
            (self.meet)(Met { build_id: build_id.clone(), file: file.try_clone()?, path, root });
            self.known.insert(identity, Place { build_id, code: elf.code().collect() });
        }
        let place = &self.known[&identity];
        let symbolized = |offset: &FileOffset| Symbolized {
            address: place.code.iter().find_map(|code| code.address_of(*offset)),
            module: None,
            lines: Vec::new(),
        };
        let symbols = offsets.iter().map(symbolized).collect();
        Ok(BinarySymbols { build_id: place.build_id.clone(), symbols, notes: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_build_is_told_once_and_its_places_have_no_names() {
        let file = File::open("/proc/self/exe").expect("it is there");
        let elf = Elf::read(&file).expect("it is a binary");
        let code = elf.code().next().expect("it has code");
        let identity = Identity::of(&file.metadata().expect("it is open"));
        let (told, met) = channel();
        let mut places = Places::new(Box::new(move |met| told.send(met).expect("it is read")));
        let path = (Path::new("/own"), Path::new("/"));
        for offset in [code.offset, code.offset + 9] {
            let found = places.of(&file, identity, path, &[FileOffset(offset), FileOffset(u64::MAX)]);
            let found = found.expect("it can be read");
            assert_eq!(found.symbols[0].address, elf.virtual_offset(FileOffset(offset)));
            assert!(found.symbols[0].lines.is_empty() && found.symbols[1].address.is_none());
        }
        drop(places);
        let met: Vec<Met> = met.into_iter().collect();
        assert_eq!(met.len(), 1);
        assert_eq!((&met[0].build_id, &*met[0].path), (&elf.build_id(&file).expect("it is"), path.0));
    }
}
