//! A simulated fleet: agents that replay recorded windows, and what a collector makes of them. `cargo xtask bench collector` runs it.
//!
//!     fleet record STATE-DIR FILE [PROCESSES]  makes a recording of what an agent has in its spool; of these alone, with commas between
//!     fleet stream COLLECTOR DIR AGENTS S      agents stream to a collector of their own for some seconds: rate, memory, CPU
//!     fleet history DIR HOSTS HOURS            a store with the history of so many hosts: bytes a row
//!     fleet ask DIR                            how long flame graphs of one service take there
//!
//! What was measured is printed as lines of `name value`.

mod history;
mod hours;
mod part;
mod record;
#[path = "../../tests/fleet/recorded.rs"]
mod recorded;
mod stream;

use std::path::Path;

const USAGE: &str = "fleet record STATE-DIR FILE [PROCESSES] | stream COLLECTOR DIR AGENTS SECONDS | history DIR HOSTS HOURS | ask DIR";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u64>().unwrap_or_else(|_| panic!("{text} is no number: {USAGE}"));
    match arguments[..] {
        ["record", state, file] => record::record(Path::new(state), Path::new(file), &[]),
        ["record", state, file, processes] => {
            let processes: Vec<&str> = processes.split(',').collect();
            record::record(Path::new(state), Path::new(file), &processes);
        }
        ["stream", collector, store, agents, seconds] => {
            stream::stream(Path::new(collector), Path::new(store), number(agents), number(seconds));
        }
        ["history", store, hosts, hours] => history::write(Path::new(store), number(hosts), number(hours)),
        ["ask", store] => history::ask(Path::new(store)),
        _ => panic!("{USAGE}"),
    }
}
