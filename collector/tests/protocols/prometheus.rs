//! The fleet as Prometheus reads it: the page, the example alert rules and the dashboard, checked by Prometheus' own code.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::from_agent;

use crate::common::secured::{Collector, Place};
use crate::common::stream::{PATIENCE, Stream};
use crate::common::{MINUTE, Random, SECOND, batch, hello, rollout, rows, window};
use crate::peers::{peer, printed};

#[tokio::test]
async fn rules_and_dashboard_ask_for_series_that_there_are() {
    let Some(program) = peer("rules") else { return };
    let place = Place::new();
    let collector = Collector::start(&place, &[]);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_nanos() as u64;
    let mut random = Random(3);
    for host in [1, 2] {
        let (mut stream, _) = Stream::begin(collector.agents, hello(host)).await.expect("a stream");
        let mut sender = Sender::new();
        // Two minutes up to now: the last whole one that is over for half a minute is among them.
        for number in 0..13 {
            let start = now - 2 * MINUTE - 10 * SECOND + number * 10 * SECOND;
            let window = window(start, 10 * SECOND, &rows(&mut random, 10), "cpu.quota", 95.0);
            stream.say(from_agent::Message::Batch(batch(number + 1, &mut sender, &window))).await;
            assert_eq!(stream.answer().await.expect("an answer").refused, "");
        }
    }
    // A service that is limited on all of its hosts, and one that is on a single one of three.
    for host in [3, 4, 5] {
        let (mut stream, _) = Stream::begin(collector.agents, hello(host)).await.expect("a stream");
        let mut sender = Sender::new();
        for number in 0..12_u64 {
            let start = now - 12 * MINUTE + number / 2 * 2 * MINUTE;
            let (service, is_limited) = [("web", true), ("db", host == 3)][number as usize % 2];
            let window = rollout::window(service, start, 2 * MINUTE, is_limited);
            stream.say(from_agent::Message::Batch(batch(number + 1, &mut sender, &window))).await;
            assert_eq!(stream.answer().await.expect("an answer").refused, "");
        }
    }
    // What limits services is drawn when the page is asked for first, and there when it is asked for again.
    let begin = Instant::now();
    let page = loop {
        let page = collector.curl(&[], "/metrics/fleet");
        assert_eq!(page.status, 200);
        if page.body.contains("\nchokepoint_service_exception_hosts{") {
            break page;
        }
        assert!(begin.elapsed() < PATIENCE, "{}\n{}", page.body, collector.log());
        std::thread::sleep(Duration::from_millis(200));
    };
    let own = collector.curl(&[], "/metrics").body;
    let path = place.path("page");
    fs::write(&path, page.body.clone() + &own).expect("a file");
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let [rules, dashboard, page_path] =
        [deploy.join("prometheus/chokepoint-alerts.yml"), deploy.join("grafana/chokepoint-fleet.json"), path]
            .map(|path| path.display().to_string());
    let told = printed(&program, &[&rules, &dashboard, &page_path]);
    assert!(told["rules"].as_u64() >= Some(5) && told["panels"].as_u64() >= Some(5), "{told}");
    let provided: BTreeMap<String, u64> = serde_json::from_value(told["provided"].clone()).expect("names");
    let wanted: BTreeMap<String, bool> = serde_json::from_value(told["wanted"].clone()).expect("names");
    for name in wanted.keys() {
        assert!(
            provided.get(name).is_some_and(|series| *series > 0),
            "{name} of {provided:?}\n{}",
            page.body
        );
    }
    assert_eq!(provided["chokepoint_constraint_severity"], 2);
    let severe = "chokepoint_constraint_severity{host=\"host-1\",code=\"cpu.quota\"} 2";
    assert!(page.body.contains(severe), "{}", page.body);
    for line in [
        "chokepoint_service_constraint_hosts{service=\"web\",code=\"cpu.quota\"} 3",
        "chokepoint_service_constraint_hosts_ratio{service=\"web\",code=\"cpu.quota\"} 1",
        "chokepoint_service_exception_hosts{service=\"db\",code=\"cpu.quota\"} 1",
        "chokepoint_service_hosts{service=\"db\",state=\"all\"} 3",
        "chokepoint_service_verdicts_failed 0",
    ] {
        assert!(page.body.lines().any(|own| own == line), "{line}\n{}", page.body);
    }
}
