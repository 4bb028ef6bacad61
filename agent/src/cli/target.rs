//! The arguments that choose a target, the same for every command.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::containers::{self, Wanted};
use crate::failure::Failure;
use crate::target::Target;

/// What to profile; without any of these, the whole host.
#[derive(Debug, Args)]
pub struct TargetArguments {
    /// Profile these processes, by id; separate several by commas.
    #[arg(short, long, value_name = "PID", value_delimiter = ',', group = "target")]
    pid: Vec<u32>,
    /// With --pid, profile their children too.
    #[arg(long, requires = "pid")]
    children: bool,
    /// Profile the processes and threads of this name.
    #[arg(long, value_name = "NAME", group = "target")]
    comm: Option<String>,
    /// Profile this cgroup and those below it: a directory, or a path as in /proc/PID/cgroup.
    #[arg(long, value_name = "PATH", group = "target")]
    cgroup: Option<PathBuf>,
    /// Profile a container, by its name in its pod or by the beginning of its id.
    #[arg(long, value_name = "NAME", group = "target")]
    container: Option<String>,
    /// Profile the containers of a Kubernetes pod.
    #[arg(long, value_name = "NAMESPACE/NAME", group = "target", value_parser = parse_pod)]
    pod: Option<Wanted>,
    /// The socket of the container runtime, which knows containers and pods by name [default: where containerd, CRI-O, k3s and
    /// others have it].
    #[arg(long, value_name = "PATH", env = "CONTAINER_RUNTIME_ENDPOINT")]
    cri_socket: Option<PathBuf>,
}

/// `shop/web-0`.
fn parse_pod(text: &str) -> Result<Wanted, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(Wanted::Pod { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err("give NAMESPACE/NAME, as `kubectl get pods -A` shows them".to_owned()),
    }
}

impl TargetArguments {
    /// The target. A container runtime may have to be asked for it.
    ///
    /// # Errors
    /// Where there is no such container or pod.
    pub async fn target(&self) -> Result<Target, Failure> {
        if !self.pid.is_empty() {
            Ok(Target::Processes { pids: self.pid.clone(), children: self.children })
        } else if let Some(comm) = &self.comm {
            Ok(Target::Comm(comm.clone()))
        } else if let Some(path) = &self.cgroup {
            Ok(Target::Cgroup { path: path.clone(), name: format!("cgroup {}", path.display()) })
        } else if let Some(wanted) = self.wanted() {
            let found = containers::find(&wanted, self.socket().as_deref()).await?;
            Ok(Target::Cgroup { path: found.group, name: found.name })
        } else {
            Ok(Target::Host)
        }
    }

    fn wanted(&self) -> Option<Wanted> {
        self.pod.clone().or_else(|| self.container.clone().map(Wanted::Container))
    }

    /// The socket of the container runtime, where one was named. The form of crictl's setting, `unix:///run/...`, is understood.
    pub fn socket(&self) -> Option<PathBuf> {
        let socket = self.cri_socket.as_ref()?;
        Some(socket.strip_prefix("unix://").map_or_else(|_| socket.clone(), |path| Path::new("/").join(path)))
    }
}
