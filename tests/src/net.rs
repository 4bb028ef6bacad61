//! Network namespaces made for a test: two hosts with a wire between them that can lose packets.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Two namespaces and the wire between them; removed when dropped, after the processes in them were killed.
pub struct Wire {
    client: String,
    server: String,
}

/// The server's addresses.
pub const SERVER_4: &str = "10.213.77.2";
/// The same of IPv6.
pub const SERVER_6: &str = "fd77:213::2";

impl Wire {
    /// Makes them; `None` where this kernel or machine lacks something for it.
    #[must_use]
    pub fn new() -> Option<Self> {
        let id = std::process::id();
        let wire = Self { client: format!("cpc{id}"), server: format!("cps{id}") };
        let Self { client, server } = &wire;
        let commands = [
            format!("ip netns add {client}"),
            format!("ip netns add {server}"),
            format!("ip link add wire netns {client} type veth peer name wire netns {server}"),
            format!("ip -n {client} addr add 10.213.77.1/24 dev wire"),
            format!("ip -n {server} addr add {SERVER_4}/24 dev wire"),
            format!("ip -n {client} addr add fd77:213::1/64 dev wire nodad"),
            format!("ip -n {server} addr add {SERVER_6}/64 dev wire nodad"),
            format!("ip -n {client} link set wire up"),
            format!("ip -n {server} link set wire up"),
            // A connection that cannot be made is given up soon.
            format!("ip netns exec {server} sysctl -qw net.ipv4.tcp_synack_retries=1"),
            format!("tc -n {client} qdisc add dev wire clsact"),
            format!("tc -n {server} qdisc add dev wire clsact"),
        ];
        commands.iter().all(|command| run(command)).then_some(wire)
    }

    /// A command that runs in the client's namespace.
    #[must_use]
    pub fn client(&self, program: &Path) -> Command {
        inside(&self.client, program)
    }

    /// A command that runs in the server's namespace.
    #[must_use]
    pub fn server(&self, program: &Path) -> Command {
        inside(&self.server, program)
    }

    /// From now on the server's side loses: of packets that carry data these per cent, and every IPv4 packet to `dead_port`. The
    /// client's side loses every IPv4 packet from `mute_port`.
    pub fn lose(&self, pct: u32, dead_port: u16, mute_port: u16) {
        let threshold = u64::from(u32::MAX) * u64::from(pct) / 100;
        // Classic BPF. An answer of 2 drops the packet, and -1 lets it pass. Behind 14 bytes of Ethernet and 20 of IPv4 are the
        // ports. The server's: IPv4 (40 0 0 12) to the dead port? Else long ones (128) by a random number (32 0 0 -4040).
        let server = format!(
            "10,40 0 0 12,21 0 2 2048,40 0 0 36,21 4 0 {dead_port},128 0 0 0,37 0 3 200,32 0 0 4294963256,37 1 0 {threshold},6 0 0 2,6 0 0 4294967295"
        );
        let client = format!("6,40 0 0 12,21 0 3 2048,40 0 0 34,21 0 1 {mute_port},6 0 0 2,6 0 0 4294967295");
        for (namespace, bytecode) in [(&self.server, server), (&self.client, client)] {
            let done = Command::new("tc")
                .args(["-n", namespace, "filter", "add", "dev", "wire", "ingress", "bpf", "da", "bytecode"])
                .arg(bytecode)
                .status()
                .expect("tc can be run");
            assert!(done.success(), "the filter is refused");
        }
    }

    /// `TcpRetransSegs` of both namespaces.
    #[must_use]
    pub fn retransmitted(&self) -> u64 {
        self.counter("snmp", "Tcp:", "RetransSegs")
    }

    /// `TCPSynRetrans` of both namespaces.
    #[must_use]
    pub fn syns_retransmitted(&self) -> u64 {
        self.counter("netstat", "TcpExt:", "TCPSynRetrans")
    }

    fn counter(&self, file: &str, group: &str, name: &str) -> u64 {
        let of = |namespace| {
            let output =
                inside(namespace, Path::new("cat")).arg(format!("/proc/net/{file}")).output().ok()?;
            let text = String::from_utf8(output.stdout).ok()?;
            let mut lines = text.lines().filter(|line| line.starts_with(group));
            let at = lines.next()?.split(' ').position(|word| word == name)?;
            lines.next()?.split(' ').nth(at)?.parse::<u64>().ok()
        };
        [&self.client, &self.server]
            .map(|namespace| of(namespace).expect("the kernel has this counter"))
            .iter()
            .sum()
    }
}

fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

fn run(command: &str) -> bool {
    let mut words = command.split(' ');
    let program = words.next().unwrap_or_default();
    let done = Command::new(program).args(words).output();
    match done {
        Ok(output) if output.status.success() => true,
        Ok(output) => {
            eprintln!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim());
            false
        }
        Err(error) => {
            eprintln!("{command}: {error}");
            false
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            let pids = Command::new("ip").args(["netns", "pids", namespace]).output();
            let pids = pids.map(|output| output.stdout).unwrap_or_default();
            for pid in
                String::from_utf8_lossy(&pids).split_ascii_whitespace().filter_map(|pid| pid.parse().ok())
            {
                // SAFETY: only processes of this test are in this namespace.
                unsafe { libc::kill(pid, libc::SIGKILL) };
            }
            if Path::new("/run/netns").join(namespace).exists() {
                run(&format!("ip netns del {namespace}"));
            }
            // A file of that name may be left of a namespace that could not be made.
            let _ = fs::remove_file(Path::new("/run/netns").join(namespace));
        }
    }
}
