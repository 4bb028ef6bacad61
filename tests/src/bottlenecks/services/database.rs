//! PostgreSQL, loaded by `pgbench`, and by an application with a pool of connections.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::super::{Case, Missing, Names, Stage, Target};
use super::as_nobody;
use crate::debian::python_with;
use crate::workload::{eventually, source};

pub(in super::super) const CASES: &[Case] = &[
    Case {
        name: "postgresql-row-lock",
        truth: &["lock.db"],
        same_because: "",
        names: Names { processes: &["postgres"], culprits: &["postgres"], ..Names::NONE },
        relief: "each client updates a row of its own",
        least_gain: 4.0,
        because: "a transaction keeps its row for 5 ms, in which one client of 16 gets on: 16 times as much, as far as the CPUs allow",
        play: |stage| {
            let row = stage.of("1", ":client_id + 1");
            let script = format!(
                "\\set row {row}\nbegin;\nupdate counters set n = n + 1 where id = :row;\n\\sleep 5 ms\ncommit;\n"
            );
            Database::start(stage, &["-c", "fsync=off"])?.load(stage, 16, &script)
        },
    },
    Case {
        name: "postgresql-commit",
        truth: &["io.sync-write"],
        same_because: "",
        names: Names { processes: &["postgres"], ..Names::NONE },
        relief: "commits do not wait for the log's flush",
        least_gain: 2.0,
        because: "a flush takes hundreds of microseconds, an update of one row tens",
        play: |stage| {
            let commit = stage.of("synchronous_commit=on", "synchronous_commit=off");
            let script = "\\set row :client_id + 1\nupdate counters set n = n + 1 where id = :row;\n";
            Database::start(stage, &["-c", commit])?.load(stage, 2, script)
        },
    },
    Case {
        name: "postgresql-checkpoint",
        truth: &["io.sync-write", "io.write"],
        same_because: "a checkpoint writes pages and flushes them: one device's time",
        names: Names { processes: &["postgres"], ..Names::NONE },
        relief: "no checkpoint after each batch, as a backup or a new database brings one",
        least_gain: 2.0,
        because: "a batch takes a fraction of a millisecond, a checkpoint some flushes of files and of the log",
        play: |stage| {
            let after = stage.of("checkpoint;\n", "");
            let script = format!(
                "\\set row random(1, 100000)\nupdate counters set n = n + 1 where id = :row;\n{after}"
            );
            Database::start(stage, &["-c", "synchronous_commit=off"])?.load(stage, 2, &script)
        },
    },
    Case {
        name: "postgresql-connections",
        truth: &["pool.connections"],
        same_because: "",
        names: Names::NONE,
        relief: "as many connections as handlers",
        least_gain: 3.0,
        because: "a query takes 10 ms, and 16 at a time take no longer than 2: 8 times as much, as far as the CPUs allow",
        play: |stage| {
            let size = stage.of("2", "16");
            let packages = ["python3-psycopg2", "libpq5", "libldap-2.5-0", "libsasl2-2"];
            let mut python = python_with("psycopg2", &packages)
                .ok_or_else(|| Missing("psycopg2 for Debian's python3".to_owned()))?;
            let database = Database::start(stage, &["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"])?;
            python.arg(source("connections.py")).args([&database.port, "16", size]);
            let application = stage.start(python, &[]);
            stage.measure_last();
            stage.ask_about(Target::Pids(vec![application]));
            Ok(())
        },
    },
];

/// Rows that can be counted up.
const ROWS: u32 = 100_000;

/// A server with one table of counters.
struct Database {
    programs: PathBuf,
    directory: PathBuf,
    port: String,
    group: PathBuf,
}

impl Database {
    /// Makes a cluster in a directory of the stage and serves it, with the table in memory.
    fn start(stage: &mut Stage, options: &[&str]) -> Result<Self, Missing> {
        let programs = newest_programs().ok_or_else(|| Missing("PostgreSQL".to_owned()))?;
        let (directory, port) = (stage.open_directory(), stage.port());
        let group = stage.cpu_group("database", None)?;
        let database = Self { programs, directory, port, group };
        let made = database
            .run("initdb")
            .args(["-D", "cluster", "-A", "trust", "-U", "postgres", "--no-sync"])
            .stdout(Stdio::null())
            .status();
        assert!(made.is_ok_and(|status| status.success()), "initdb fails");
        let mut server = database.run("postgres");
        // It is told first where it listens, so that options may say it anew.
        server.args(["-D", "cluster", "-p", &database.port, "-c", "listen_addresses=", "-k"]);
        server.arg(&database.directory).args(options);
        stage.serve(&[&database.group], server, libc::SIGINT);
        eventually("the server's socket", || database.ask("select 1"));
        let table = format!(
            "create table counters (id int primary key, n bigint) with (fillfactor = 50); \
             insert into counters select i, 0 from generate_series(1, {ROWS}) i; checkpoint"
        );
        database.ask(&table).expect("a table can be made");
        Ok(database)
    }

    /// Has so many clients run a script of `pgbench` that counts up; what they count is the work, and the server is what is asked about.
    fn load(self, stage: &mut Stage, clients: u32, script: &str) -> Result<(), Missing> {
        let path = self.directory.join("script.sql");
        fs::write(&path, script).expect("a script can be written");
        let mut client = self.client("pgbench");
        client.args(["-n", "-T", "3600", "-c", &clients.to_string()]);
        client.args(["-f", "script.sql", "postgres"]);
        stage.serve(&[], client, libc::SIGTERM);
        stage.ask_about(Target::Group(self.group.clone()));
        let counted = move || {
            let sum = self.ask("select sum(n) from counters").expect("the server answers");
            sum.parse().expect("a number")
        };
        eventually("the first update", || (counted() > 0.0).then_some(()));
        stage.count_by(counted);
        Ok(())
    }

    /// What the server answers to a query as text; `None` where it does not.
    fn ask(&self, query: &str) -> Option<String> {
        let output = self.client("psql").args(["-At", "-c", query]).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// A program that connects to it.
    fn client(&self, program: &str) -> Command {
        let mut client = self.run(program);
        client.arg("-h").arg(&self.directory).args(["-p", &self.port, "-U", "postgres"]);
        client
    }

    /// It refuses to run as root.
    fn run(&self, program: &str) -> Command {
        as_nobody(&self.programs.join(program), &self.directory)
    }
}

/// The newest version's programs, where Debian puts them.
fn newest_programs() -> Option<PathBuf> {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|programs| {
            ["initdb", "postgres", "pgbench", "psql"].iter().all(|name| programs.join(name).exists())
        })
        .collect();
    versions.sort();
    versions.pop()
}
