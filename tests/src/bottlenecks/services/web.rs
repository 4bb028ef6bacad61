//! Web servers and services of several languages, loaded by `wrk`.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::super::stage::cpus;
use super::super::{Case, Missing, Names, Stage, Target};
use super::{program, requests, wait_for_port};
use crate::debian::python_with;
use crate::workload::{on_path, source};

const TWO_CPUS: &str = "a second CPU doubles it, but for what the load generator and other work take";

pub(in super::super) const CASES: &[Case] = &[
    Case {
        name: "nginx-workers",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names { processes: &["nginx"], ..Names::NONE },
        relief: "a worker for each CPU",
        least_gain: 1.4,
        because: TWO_CPUS,
        play: |stage| {
            let workers = stage.of(1, cpus());
            let pages = "gzip on; gzip_comp_level 6; gzip_types text/plain;";
            let (port, group) = nginx(stage, workers, pages)?;
            let mut wrk = requests(16, &format!("http://127.0.0.1:{port}/page.txt"))?;
            wrk.args(["--header", "Accept-Encoding: gzip"]);
            stage.request(wrk);
            stage.ask_about(Target::Group(group));
            Ok(())
        },
    },
    Case {
        name: "nginx-upstream",
        truth: &["net.downstream"],
        same_because: "",
        names: Names { processes: &["nginx"], culprits: &["node"], ..Names::NONE },
        relief: "the service behind it answers at once, not after 20 ms",
        least_gain: 3.0,
        because: "16 requests at a time that take 20 ms are 800 a second; a service that answers at once does thousands",
        play: |stage| {
            let nap_ms = stage.of("20", "0");
            let upstream = node(stage, "nap", nap_ms)?;
            let pages = format!(
                "location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Connection ''; }}"
            );
            let (port, group) = nginx(stage, 1, &pages)?;
            stage.request(requests(16, &format!("http://127.0.0.1:{port}/"))?);
            stage.ask_about(Target::Group(group));
            Ok(())
        },
    },
    Case {
        name: "python-threads",
        truth: &["lock.runtime"],
        same_because: "",
        names: Names::NONE,
        relief: "a worker process for each CPU with as many threads in all",
        least_gain: 1.4,
        because: TWO_CPUS,
        play: |stage| {
            let (workers, threads) = stage.of((1, 8), (cpus(), 8 / cpus()));
            let port = stage.port();
            let group = stage.cpu_group("service", None)?;
            let mut gunicorn = python_with("gunicorn", &["python3-gunicorn"])
                .ok_or_else(|| Missing("gunicorn, and its Debian package cannot be had".to_owned()))?;
            gunicorn.args(["-m", "gunicorn", "--worker-class", "gthread", "--log-level", "error"]);
            gunicorn.args(["--workers", &workers.to_string(), "--threads", &threads.to_string()]);
            gunicorn.args(["--bind", &format!("127.0.0.1:{port}"), "service:application"]);
            gunicorn.current_dir(source("")).env("PYTHONDONTWRITEBYTECODE", "1");
            stage.serve(&[&group], gunicorn, libc::SIGTERM);
            wait_for_port(&port);
            stage.request(requests(16, &format!("http://127.0.0.1:{port}/"))?);
            stage.ask_about(Target::Group(group));
            Ok(())
        },
    },
    Case {
        name: "java-monitor",
        truth: &["lock.monitor"],
        same_because: "",
        names: Names { processes: &["java"], ..Names::NONE },
        relief: "prices are computed outside of the monitor",
        least_gain: 1.4,
        because: TWO_CPUS,
        play: |stage| {
            let place = stage.of("inside", "outside");
            java(stage, &[], &["price", place])
        },
    },
    Case {
        name: "java-collector",
        truth: &["mem.gc"],
        same_because: "",
        names: Names { processes: &["java"], ..Names::NONE },
        relief: "a heap of 2 GB, not of a tenth more than what lives",
        least_gain: 2.0,
        because: "with little room the whole heap is collected again and again, with much a part of it now and then",
        play: |stage| {
            let heap = stage.of("-Xmx88m", "-Xmx2g");
            java(stage, &[heap], &["allocate", "60"])
        },
    },
    Case {
        name: "node-blocked-loop",
        truth: &["cpu.single-thread"],
        same_because: "",
        names: Names { processes: &["node"], ..Names::NONE },
        relief: "reports on a thread of their own",
        least_gain: 5.0,
        because: "a report takes 50 ms, a short answer a tenth of one: hundreds fit in",
        play: |stage| {
            let where_made = stage.of("loop", "thread");
            let port = node(stage, "report", where_made)?;
            stage.request(requests(1, &format!("http://127.0.0.1:{port}/report"))?);
            stage.request(requests(8, &format!("http://127.0.0.1:{port}/"))?);
            Ok(())
        },
    },
];

/// An `nginx` with these workers and this in its server's configuration: its port and its group.
fn nginx(stage: &mut Stage, workers: usize, pages: &str) -> Result<(String, PathBuf), Missing> {
    let nginx = program("nginx", &["nginx"])?;
    let (directory, port) = (stage.open_directory(), stage.port());
    let place = directory.display();
    let configuration = format!(
        "user nobody nogroup; daemon off; worker_processes {workers}; pid {place}/pid; error_log stderr crit;
         events {{ worker_connections 256; }}
         http {{ access_log off; default_type text/plain; keepalive_requests 1000000000;
                client_body_temp_path {place}/body; proxy_temp_path {place}/proxy; fastcgi_temp_path {place}/fastcgi;
                uwsgi_temp_path {place}/uwsgi; scgi_temp_path {place}/scgi;
                server {{ listen 127.0.0.1:{port} reuseport; root {place}; {pages} }} }}"
    );
    fs::write(directory.join("nginx.conf"), configuration).expect("a configuration can be written");
    fs::write(directory.join("page.txt"), prose(200_000)).expect("a page can be written");
    let group = stage.cpu_group("web", None)?;
    let mut command = nginx.command();
    command.args(["-e", "stderr", "-p"]).arg(&directory).args(["-c", "nginx.conf"]);
    stage.serve(&[&group], command, libc::SIGTERM);
    wait_for_port(&port);
    Ok((port, group))
}

/// Text that compresses as text does.
fn prose(bytes: usize) -> String {
    const WORDS: [&str; 8] = ["where", "the", "time", "of", "threads", "goes", "and", "why"];
    let mut state = 1_u32;
    let mut text = String::with_capacity(bytes);
    while text.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += WORDS[(state >> 29) as usize];
        text += if state & 0xff00 == 0 { "\n" } else { " " };
    }
    text
}

/// A service in Node on a port of its own.
fn node(stage: &mut Stage, what: &str, how: &str) -> Result<String, Missing> {
    let port = stage.port();
    let pid = stage.run("service.js", &[&port, what, how])?;
    stage.ask_about(Target::Pids(vec![pid]));
    Ok(port)
}

/// A service in Java under load, which is what is asked about.
fn java(stage: &mut Stage, options: &[&str], arguments: &[&str]) -> Result<(), Missing> {
    if !on_path("java") {
        return Err(Missing("java".to_owned()));
    }
    let port = stage.port();
    let mut command = Command::new("java");
    // Else each answer waits 40 ms for the client to acknowledge its head.
    command.arg("-Dsun.net.httpserver.nodelay=true").args(options);
    command.arg(source("Service.java")).arg(&port).args(arguments).stderr(Stdio::null());
    let pid = stage.start(command, &[]);
    stage.request(requests(8, &format!("http://127.0.0.1:{port}/"))?);
    stage.ask_about(Target::Pids(vec![pid]));
    // What is hot is compiled by then.
    thread::sleep(Duration::from_secs(2));
    Ok(())
}
