//! Real windows, as the agent recorded them on a busy host of 2 CPUs, and as other hosts might have had them at other times.

#![allow(dead_code, reason = "each program uses a part")]

use chokepoint_proto::stream::{Hello, Label, Window};
use prost::Message;

const RECORDED: &[u8] = include_bytes!("../data/windows.zst");
/// Of so many places in code, one has another address each time that the recording begins anew: as code that runtimes compile.
const CHANGING: u64 = 64;

/// What was recorded.
pub struct Recorded {
    windows: Vec<Window>,
}

impl Recorded {
    pub fn load() -> Self {
        let bytes = zstd::stream::decode_all(RECORDED).expect("it is whole");
        let mut bytes = bytes.as_slice();
        let mut windows = Vec::new();
        while !bytes.is_empty() {
            windows.push(Window::decode_length_delimited(&mut bytes).expect("a window"));
        }
        Self { windows }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.windows.len() as u64
    }

    /// A host's window of this number. What was recorded repeats, with other weights and now and then other code.
    pub fn window(&self, host: u64, number: u64, start_unix_ns: u64, duration_ns: u64) -> Window {
        let (turn, position) = (number / self.len(), number % self.len());
        let mut window = Window { start_unix_ns, duration_ns, ..self.windows[position as usize].clone() };
        let mut random = (host + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (number + 1);
        for weight in window.profiles.iter_mut().flat_map(|profile| &mut profile.weight) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            *weight = *weight / 1024 * (768 + random % 512) + random % 1024;
        }
        let dictionary = window.dictionary.iter_mut().flat_map(|dictionary| &mut dictionary.locations);
        for location in dictionary {
            let mixed = location.address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
            if turn > 0 && (mixed + turn).is_multiple_of(CHANGING) {
                location.address = location.address.wrapping_add(turn << 20);
            }
        }
        window
    }
}

/// The host of this number.
pub fn hello(host: u64) -> Hello {
    Hello {
        protocol: 1,
        agent: [host.to_le_bytes(), [7; 8]].concat(),
        host: format!("host-{host}"),
        kernel: "6.1.0".to_owned(),
        program: "0.1.0".to_owned(),
        cpus: 2,
        labels: vec![Label { name: "zone".to_owned(), value: format!("z{}", host % 4) }],
    }
}

/// Rows, samples and weight of a kind of samples in a window.
pub fn totals(window: &Window, kind: &str) -> (u64, u64, u64) {
    let profiles = window.profiles.iter().filter(|profile| profile.kind == kind);
    profiles.fold((0, 0, 0), |(rows, count, weight), profile| {
        (
            rows + profile.weight.len() as u64,
            count + profile.count.iter().sum::<u64>(),
            weight + profile.weight.iter().sum::<u64>(),
        )
    })
}
