//! A store whose frames have names: what agents sent as addresses alone is named as it is read.

use std::collections::HashMap;
use std::sync::Arc;

use chokepoint_analysis::profile::{Function, ModuleKind, Unit};
use chokepoint_proto::stream::Hello;
use chokepoint_symbols::Symbols;

use super::FleetSymbols;
use crate::store::{
    AgentStatus, Appender, Asker, FrameLocation, Frames, Holdings, Selection, SignalQuery, SignalSeries,
    StackId, Store, StoreError, SumQuery, Sums, VerdictSpan,
};

/// See the module's documentation.
pub struct Named {
    store: Arc<dyn Store>,
    symbols: Arc<FleetSymbols>,
}

impl Named {
    /// A store, named by these symbols.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, symbols: Arc<FleetSymbols>) -> Self {
        Self { store, symbols }
    }
}

/// Names the places of builds that have none.
fn name(frames: &mut Frames, symbols_of: impl Fn(&[u8]) -> Option<Arc<Symbols>>) {
    let Frames { functions, modules, locations, .. } = frames;
    let mut builds: HashMap<usize, Option<Arc<Symbols>>> = HashMap::new();
    let mut numbers: Option<HashMap<Function, usize>> = None;
    for FrameLocation { module: at, address, lines } in
        locations.iter_mut().filter(|place| place.lines.is_empty())
    {
        let module = &modules[*at];
        if module.kind != ModuleKind::Binary || module.build_id.is_empty() {
            continue;
        }
        let Some(symbols) = builds.entry(*at).or_insert_with(|| symbols_of(&module.build_id)) else {
            continue;
        };
        let numbers = numbers.get_or_insert_with(|| {
            functions.iter().enumerate().map(|(number, function)| (function.clone(), number)).collect()
        });
        *lines = symbols
            .at(*address)
            .into_iter()
            .map(|line| {
                let function = Function { name: line.function.to_owned(), file: line.file.to_owned() };
                let number = *numbers.entry(function).or_insert_with_key(|function| {
                    functions.push(function.clone());
                    functions.len() - 1
                });
                (number, line.line)
            })
            .collect();
    }
}

impl Store for Named {
    fn appender(&self, hello: &Hello, identity: Option<&str>) -> Result<Box<dyn Appender>, StoreError> {
        self.store.appender(hello, identity)
    }

    fn sums(&self, query: &SumQuery) -> Result<Sums, StoreError> {
        self.store.sums(query)
    }

    fn frames(&self, stacks: &[StackId]) -> Result<Frames, StoreError> {
        let mut frames = self.store.frames(stacks)?;
        name(&mut frames, |build_id| self.symbols.of(build_id));
        Ok(frames)
    }

    fn signals(&self, query: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError> {
        self.store.signals(query)
    }

    fn verdicts(&self, selection: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
        self.store.verdicts(selection)
    }

    fn labels(
        &self,
        selection: &Selection,
        max_values: usize,
    ) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        self.store.labels(selection, max_values)
    }

    fn kinds(&self) -> Result<Vec<(String, Unit)>, StoreError> {
        self.store.kinds()
    }

    fn agents(&self) -> Result<Vec<AgentStatus>, StoreError> {
        self.store.agents()
    }

    fn agents_for(&self, asker: &Asker) -> Result<Vec<AgentStatus>, StoreError> {
        self.store.agents_for(asker)
    }

    fn holdings(&self) -> Result<Holdings, StoreError> {
        self.store.holdings()
    }

    fn maintain(&self, now_unix_ns: u64) -> Result<bool, StoreError> {
        self.store.maintain(now_unix_ns)
    }
}

#[cfg(test)]
mod tests {
    use chokepoint_analysis::profile::Module;
    use chokepoint_symbols::{Builder, Quality};

    use super::*;

    #[test]
    fn only_places_of_builds_that_have_no_names_get_them() {
        let module =
            |kind, build_id: &[u8]| Module { kind, path: "m".to_owned(), build_id: build_id.to_vec() };
        let place = |module, address, lines| FrameLocation { module, address, lines };
        let known = Function { name: "known".to_owned(), file: String::new() };
        let mut frames = Frames {
            functions: vec![known.clone()],
            modules: vec![
                module(ModuleKind::Binary, b"id"),
                module(ModuleKind::Binary, b""),
                module(ModuleKind::Jit, b"id"),
            ],
            locations: vec![
                place(0, 0x11, vec![(0, 7)]),
                place(0, 0x11, Vec::new()),
                place(0, 0x12, Vec::new()),
                place(0, 0x30, Vec::new()),
                place(1, 0x11, Vec::new()),
                place(2, 0x11, Vec::new()),
            ],
            ..Frames::default()
        };
        let mut builder = Builder::new(b"id".to_vec());
        let function = |start, name: &str| chokepoint_symbols::Function {
            range: start..start + 1,
            name: name.to_owned(),
        };
        builder.fill(vec![function(0x11, "new"), function(0x12, "known")], Quality::Functions);
        let symbols = Arc::new(builder.finish());
        name(&mut frames, |build_id| (build_id == b"id").then(|| Arc::clone(&symbols)));
        let lines: Vec<_> = frames.locations.iter().map(|place| place.lines.clone()).collect();
        assert_eq!(lines, [vec![(0, 7)], vec![(1, 0)], vec![(0, 0)], vec![], vec![], vec![]]);
        assert_eq!(frames.functions, [known, Function { name: "new".to_owned(), file: String::new() }]);
    }
}
