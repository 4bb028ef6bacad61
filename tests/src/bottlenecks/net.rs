//! Bound by the other end of a connection, or by the way there.

use super::{Case, Names, Target};
use crate::net::SERVER_4;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "net-slow-server",
        truth: &["net.downstream"],
        same_because: "",
        names: Names { functions: &["ask"], culprits: &["backend"], ..Names::NONE },
        relief: "the server answers after 0.1 ms, not after 5",
        least_gain: 4.0,
        because: "5.3 ms a page become 0.5: 10 times as much",
        play: |stage| {
            let port = stage.port();
            let latency_us = stage.of("5000", "100");
            stage.run("bound_net_c", &["backend", &port, "nap", latency_us])?;
            stage.subject("bound_net_c", &["app", &port, "4", "200"]).map(drop)
        },
    },
    Case {
        name: "net-throttled-server",
        truth: &["net.downstream", "cpu.quota"],
        same_because: "the wait for the server is the server's wait for its quota, which only the host's own view can tell",
        names: Names { functions: &["ask"], culprits: &["backend"], ..Names::NONE },
        relief: "the server has no quota",
        least_gain: 2.5,
        because: "a quarter of a CPU against at least one: 4 times as much",
        play: |stage| {
            let port = stage.port();
            let quota = stage.of(Some(25), None);
            let group = stage.cpu_group("backend", quota)?;
            stage.run_in(&[&group], "bound_net_c", &["backend", &port, "burn", "1000"])?;
            stage.subject("bound_net_c", &["app", &port, "4", "20"]).map(drop)
        },
    },
    Case {
        name: "net-loss",
        truth: &["net.loss"],
        same_because: "",
        names: Names { functions: &["upload_file"], path: &[SERVER_4], ..Names::NONE },
        relief: "the wire loses nothing, and not 3 % of the packets",
        least_gain: 3.0,
        because: "each loss halves the congestion window, and some wait for a time-out of 200 ms; a file takes less than one",
        play: |stage| {
            let port = stage.port();
            let lost_pct = stage.of(3, 0);
            stage.ends_of_wire(
                lost_pct,
                "bound_net_c",
                [&["sink", &port, SERVER_4], &["upload", &port, SERVER_4]],
            )
        },
    },
    Case {
        name: "net-retry-storm",
        truth: &["net.retry-storm"],
        same_because: "",
        names: Names { culprits: &["impatient"], ..Names::NONE },
        relief: "clients give up after 500 ms, not after 20",
        least_gain: 5.0,
        because: "16 requests of 2 ms take 32: with 20 ms each is given up, and done for nobody",
        play: |stage| {
            let port = stage.port();
            let timeout_ms = stage.of("20", "500");
            let group = stage.cpu_group("shop", None)?;
            stage.run_in(&[&group], "bound_net_c", &["store", &port, "1", "2000"])?;
            stage.run_in(&[&group], "bound_net_c", &["impatient", &port, "16", timeout_ms])?;
            stage.measure_last();
            stage.ask_about(Target::Group(group));
            Ok(())
        },
    },
    Case {
        name: "net-listen-overflow",
        truth: &["net.listen-overflow"],
        same_because: "",
        names: Names::NONE,
        relief: "room for 1,024 connections that wait to be accepted, not for one",
        least_gain: 10.0,
        because: "a connection that was dropped is tried again after a second; a burst without takes milliseconds",
        play: |stage| {
            let port = stage.port();
            let backlog = stage.of("1", "1024");
            let listener = stage.run("bound_net_c", &["listener", &port, backlog])?;
            stage.run("bound_net_c", &["burst", &port, "32"])?;
            stage.measure_last();
            stage.ask_about(Target::Pids(vec![listener]));
            Ok(())
        },
    },
];
