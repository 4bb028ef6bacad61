//! Grafana's Pyroscope data source, by the client that it is made of.

use std::collections::BTreeMap;

use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::{Window, from_agent};

use crate::common::secured::{Collector, Place};
use crate::common::stream::Stream;
use crate::common::{MINUTE, Random, SECOND, batch, hello, rows, this_hour, window};
use crate::peers::{paths, peer, printed, queried};

/// Has each process be a service of its name.
fn with_services(mut window: Window) -> Window {
    let dictionary = window.dictionary.as_mut().expect("a dictionary");
    let service = dictionary.strings.len() as u32;
    dictionary.strings.push("service".to_owned());
    for subject in &mut dictionary.subjects {
        subject.labels.extend([service, subject.process]);
    }
    window
}

#[tokio::test]
async fn grafanas_data_source_is_told_what_our_own_queries_tell() {
    let Some(program) = peer("querier") else { return };
    let place = Place::new();
    let collector = Collector::start(&place, &[]);
    // Whole minutes that are over, so that a step is one of ours.
    let begin = this_hour() - 10 * MINUTE;
    let mut random = Random(7);
    for host in [1, 2] {
        let (mut stream, _) = Stream::begin(collector.agents, hello(host)).await.expect("a stream");
        let mut sender = Sender::new();
        for number in 0..3 {
            let rows = rows(&mut random, 40);
            let start = begin + number * MINUTE;
            let window = with_services(window(start, 10 * SECOND, &rows, "cpu.quota", 50.0));
            stream.say(from_agent::Message::Batch(batch(number + 1, &mut sender, &window))).await;
            assert_eq!(stream.answer().await.expect("an answer").refused, "");
        }
    }
    let [start, end] = [begin, begin + 3 * MINUTE].map(|time| time / 1_000_000);
    let seconds = |ms: u64| format!("{}.{:03}", ms / 1000, ms % 1000);
    let time = ["--from", &seconds(start), "--until", &seconds(end)];
    let ask = |arguments: &[&str]| queried(&collector, &[arguments, &time].concat());
    let selector = r#"cpu{service="web"}"#;
    let flame = ask(&["flame", selector]);
    let series = ask(&["series", selector, "--by", "host", "--step", "1m"]);
    let services = ask(&["labels", "--values", "service"]);

    for codec in ["proto", "json"] {
        let (start, end) = (start.to_string(), end.to_string());
        let told = printed(&program, &[&collector.queries, codec, "web", &start, &end, "60"]);
        let types: Vec<&str> =
            told["types"].as_array().expect("types").iter().filter_map(|one| one.as_str()).collect();
        assert!(types.contains(&"process_cpu:cpu:nanoseconds:cpu:nanoseconds"), "{types:?}");
        let names = told["label_names"].as_array().expect("names");
        assert!(
            ["host", "service", "service_name", "zone"].iter().all(|name| names.contains(&(*name).into()))
        );
        assert_eq!(told["label_values"], services["values"]);
        assert_eq!(told["total"], flame["sides"][0]["weight"]);
        let own: BTreeMap<String, u64> = serde_json::from_value(told["own"].clone()).expect("paths");
        assert_eq!(own, paths(&flame));
        assert!(own.len() > 10, "{own:?}");
        let (theirs, ours) = (told["series"].as_array().expect("series"), series["series"].as_array());
        assert_eq!(theirs.len(), 2);
        for (theirs, ours) in theirs.iter().zip(ours.expect("series")) {
            assert_eq!(theirs["labels"], ours["labels"]);
            let points: BTreeMap<String, f64> =
                serde_json::from_value(theirs["points"].clone()).expect("points");
            let points: Vec<f64> = points.into_values().collect();
            let ours: Vec<f64> = serde_json::from_value(ours["values"].clone()).expect("values");
            assert_eq!(points, ours);
        }
        assert_eq!(told["span_code"], "unimplemented");
        assert!(told["span_message"].as_str().is_some_and(|message| message.contains("no spans")));
    }
}
