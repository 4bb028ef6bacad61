//! The network between agents and their collector: a pair of interfaces, of which the collector has one in a namespace of its own. A cut
//! takes that one down, and then packets go nowhere and nobody is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::common::collector::PROGRAM;

/// The interface that the collector has.
const INNER: &str = "inner";
const PORT: u16 = 4040;
/// How long the namespace may take to be there.
const PATIENCE: Duration = Duration::from_secs(10);

/// A namespace and what leads there. All of it goes with the process that holds the namespace, and that with this one, however it ends.
pub struct Network {
    holder: Child,
    address: Ipv4Addr,
    is_cut: bool,
}

impl Network {
    /// `None` where this process may not have one.
    pub fn new() -> Option<Self> {
        let own = std::process::id();
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep", "infinity"]).stdin(Stdio::null()).stdout(Stdio::null());
        // SAFETY: between fork and exec it calls nothing but one system call.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        // Of the block that is set aside for tests of networks, four addresses that no other process takes.
        let [third, fourth] = ((own % (1 << 14)) as u16 * 4).to_be_bytes();
        let holder = command.spawn().ok()?;
        let mut network = Self { holder, address: Ipv4Addr::new(198, 18, third, fourth + 2), is_cut: false };
        let outside = Ipv4Addr::new(198, 18, third, fourth + 1);
        network.wait()?;
        let (name, holder) = (format!("cpf{own}"), network.holder.id());
        let runs = |text: String| {
            let mut words = text.split(' ');
            let program = words.next().unwrap_or_default();
            Command::new(program).args(words).status().is_ok_and(|status| status.success())
        };
        let is_made = runs(format!("ip link add {name} type veth peer name {INNER} netns {holder}"))
            && runs(format!("ip address add {outside}/30 dev {name}"))
            && runs(format!("ip link set {name} up"))
            && network.inside(&format!("ip address add {}/30 dev {INNER}", network.address))
            && network.inside("ip link set lo up")
            && network.inside(&format!("ip link set {INNER} up"));
        network.is_cut = !is_made;
        is_made.then_some(network)
    }

    /// Where the collector is, for agents.
    pub fn address(&self) -> SocketAddr {
        (self.address, PORT).into()
    }

    /// A collector in the namespace.
    pub fn collector(&self, store: &Path) -> Command {
        let mut command = self.enter(PROGRAM);
        command.args(["serve", "--trust-network", "--http", "127.0.0.1:0"]);
        command.args(["--listen", &self.address().to_string(), "--store"]).arg(store);
        command
    }

    /// Cuts it, or mends it.
    pub fn cut(&mut self, is_cut: bool) {
        if self.is_cut != is_cut {
            self.is_cut = is_cut;
            let state = if is_cut { "down" } else { "up" };
            assert!(self.inside(&format!("ip link set {INNER} {state}")), "the interface goes {state}");
        }
    }

    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder.id())).arg(program);
        command
    }

    fn inside(&self, text: &str) -> bool {
        let mut words = text.split(' ');
        let mut command = self.enter(words.next().unwrap_or_default());
        command.args(words).status().is_ok_and(|status| status.success())
    }

    /// Waits until the holder has its namespace.
    fn wait(&mut self) -> Option<()> {
        let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let holder = self.holder.id().to_string();
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE && self.holder.try_wait().ok()?.is_none() {
            if namespace(&holder)? != namespace("self")? {
                return Some(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // With it the namespace goes, and with that both interfaces.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
