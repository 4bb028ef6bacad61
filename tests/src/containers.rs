//! A container runtime of the test's own: containerd with pods as Kubernetes makes them, below a directory that is removed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use chokepoint_proto::cri::runtime_service_client::RuntimeServiceClient;
use chokepoint_proto::cri::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, RemovePodSandboxRequest, RunPodSandboxRequest,
    StartContainerRequest, StopPodSandboxRequest,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use crate::debian::DebianProgram;
use crate::workload::{die_with_test, eventually};

/// The packages that have the runtime.
const PACKAGES: &[&str] = &["containerd", "runc"];
/// Static, so that an image needs nothing else.
const BUSYBOX: &str = "/usr/bin/busybox";
/// The image that the test makes. The runtime takes names without a registry's for ones of the usual registry.
const IMAGE: &str = "docker.io/library/chokepoint-test:1";

/// A running containerd; its pods, processes, mounts and groups go when it is dropped.
pub struct Containerd {
    child: Child,
    tokio: Runtime,
    client: RuntimeServiceClient<Channel>,
    directory: TempDir,
    /// The group that its pods' groups are made in, as runtimes see it.
    parent: String,
    pods: Vec<String>,
}

/// Process ids in a container, by its id in their groups' names.
///
/// # Panics
/// Without /proc.
#[must_use]
pub fn processes_of(id: &str) -> BTreeSet<u32> {
    let processes = fs::read_dir("/proc").expect("it is mounted").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has =
        |pid: &u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id));
    pids.filter(has).collect()
}

/// A pod made by a test.
pub struct TestPod {
    /// Its id with the runtime.
    pub id: String,
    config: PodSandboxConfig,
}

impl Containerd {
    /// Starts it, with an image that has busybox in it. `None` where the programs cannot be had.
    #[must_use]
    pub fn start() -> Option<Self> {
        let containerd = DebianProgram::find("containerd", PACKAGES)?;
        if !Path::new(BUSYBOX).exists() {
            return None;
        }
        let directory = tempfile::tempdir().ok()?;
        let at = |name: &str| directory.path().join(name).display().to_string();
        let configuration = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.devmapper", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
address = "{socket}"
[ttrpc]
address = "{ttrpc}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true
disable_apparmor = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{none}"
conf_dir = "{none}"
"#,
            root = at("root"),
            state = at("state"),
            socket = at("containerd.sock"),
            ttrpc = at("containerd.sock.ttrpc"),
            none = at("none"),
        );
        fs::write(at("config.toml"), configuration).ok()?;
        let log = fs::File::create(at("log")).ok()?;
        let mut command = containerd.command();
        command.args(["--config", &at("config.toml")]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        die_with_test(&mut command);
        let child = command.spawn().expect("containerd can be run");
        let tokio = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("unix://{}", at("containerd.sock"))).unwrap();
        let channel = eventually("containerd's socket", || tokio.block_on(endpoint.connect()).ok());
        let client = RuntimeServiceClient::new(channel);
        let parent = format!("/chokepoint-pods-{}", std::process::id());
        let this = Self { child, tokio, client, directory, parent, pods: Vec::new() };
        this.import_image(&containerd);
        Some(this)
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("containerd.sock")
    }

    /// An image of one layer, in the form of `docker save`.
    fn import_image(&self, containerd: &DebianProgram) {
        let image = self.directory.path().join("image");
        fs::create_dir_all(image.join("layer/bin")).unwrap();
        fs::copy(BUSYBOX, image.join("layer/bin/busybox")).unwrap();
        let tar = |file: &str, from: &str, what: &[&str]| {
            let mut tar = Command::new("tar");
            tar.arg("-cf").arg(file).args(["-C", from]).args(what).current_dir(&image);
            assert!(tar.status().unwrap().success(), "tar fails");
        };
        tar("layer.tar", "layer", &["."]);
        let sum = Command::new("sha256sum").arg("layer.tar").current_dir(&image).output().unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let sum = sum.split(' ').next().unwrap();
        let configuration = serde_json::json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Entrypoint": ["/bin/busybox", "sleep", "100000"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{sum}")] },
        });
        fs::write(image.join("config.json"), configuration.to_string()).unwrap();
        let manifest =
            serde_json::json!([{ "Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"] }]);
        fs::write(image.join("manifest.json"), manifest.to_string()).unwrap();
        tar("image.tar", ".", &["manifest.json", "config.json", "layer.tar"]);
        let output = containerd
            .beside("ctr")
            .arg("--address")
            .arg(self.socket())
            .args(["--namespace", "k8s.io", "images", "import", "--snapshotter", "native"])
            .arg(image.join("image.tar"))
            .output()
            .expect("ctr can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Makes a pod, with its group as the kubelet makes it.
    pub fn pod(&mut self, namespace: &str, name: &str) -> TestPod {
        let uid = format!("{:08x}-{name}", std::process::id());
        let on_node = NamespaceOption {
            network: NamespaceMode::Node.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Node.into(),
        };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.to_owned(),
                uid: uid.clone(),
                namespace: namespace.to_owned(),
                attempt: 0,
            }),
            log_directory: self.directory.path().join("logs").display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/pod{uid}", self.parent),
                security_context: Some(LinuxSandboxSecurityContext { namespace_options: Some(on_node) }),
            }),
            ..PodSandboxConfig::default()
        };
        let request = RunPodSandboxRequest { config: Some(config.clone()) };
        let made = self.tokio.block_on(self.client.run_pod_sandbox(request));
        let id = made.unwrap_or_else(|status| panic!("{status}\n{}", self.log())).into_inner().pod_sandbox_id;
        self.pods.push(id.clone());
        TestPod { id, config }
    }

    /// Starts a container in a pod that runs busybox with these arguments. Its id.
    pub fn container(&mut self, pod: &TestPod, name: &str, arguments: &[&str]) -> String {
        let namespaces = NamespaceOption {
            network: NamespaceMode::Node.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Node.into(),
        };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.to_owned() }),
            command: vec!["/bin/busybox".to_owned()],
            args: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext { namespace_options: Some(namespaces) }),
            }),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let made = self.tokio.block_on(self.client.create_container(request));
        let id = made.unwrap_or_else(|status| panic!("{status}\n{}", self.log())).into_inner().container_id;
        let request = StartContainerRequest { container_id: id.clone() };
        let started = self.tokio.block_on(self.client.start_container(request));
        started.unwrap_or_else(|status| panic!("{status}\n{}", self.log()));
        id
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        for id in std::mem::take(&mut self.pods) {
            let request = StopPodSandboxRequest { pod_sandbox_id: id.clone() };
            let _ = self.tokio.block_on(self.client.stop_pod_sandbox(request));
            let request = RemovePodSandboxRequest { pod_sandbox_id: id };
            let _ = self.tokio.block_on(self.client.remove_pod_sandbox(request));
        }
        // SAFETY: the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGTERM) };
        let _ = self.child.wait();
        // What a pod that could not be removed has mounted.
        let own = self.directory.path().display().to_string();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for place in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if place.starts_with(&own) {
                let _ = Command::new("umount").args(["-l", place]).status();
            }
        }
        remove_groups(&self.parent);
    }
}

/// The pods' groups are the kubelet's to remove, which there is none of.
fn remove_groups(parent: &str) {
    let hierarchies =
        fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain(["/sys/fs/cgroup".into()]) {
        let root = hierarchy.join(parent.trim_start_matches('/'));
        let pods = fs::read_dir(&root).into_iter().flatten().flatten();
        for pod in pods.filter(|entry| entry.path().is_dir()) {
            let _ = fs::remove_dir(pod.path());
        }
        let _ = fs::remove_dir(root);
    }
}
