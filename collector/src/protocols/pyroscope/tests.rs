//! The calls over the fleet of [`crate::store_in_memory`], by JSON; by Protocol Buffers a real client makes them, in `tests/protocols`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use crate::access::Access;
use crate::api;
use crate::query::limits::Limits;
use crate::store_in_memory::fleet;

const CPU: &str = "process_cpu:cpu:nanoseconds:cpu:nanoseconds";
const START: u64 = 1_000_000_000;
const END: u64 = 1_000_020_000;

fn router(access: Access) -> axum::Router {
    let metrics: api::Metrics = Arc::new(String::new);
    let router =
        api::router(Arc::new(fleet::store()), Arc::default(), Arc::default(), Limits::default(), metrics);
    api::only_for_callers(router, Arc::new(access), Arc::default())
}

async fn call(router: &axum::Router, method: &str, content_type: &str, body: &str) -> (u16, Value) {
    let request = Request::builder()
        .method("POST")
        .uri(format!("{}{method}", super::QUERIER))
        .header("content-type", content_type)
        .body(Body::from(body.to_owned()))
        .expect("a request");
    let response = TowerToHyperService::new(router.clone()).call(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
}

async fn ask(method: &str, message: Value) -> (u16, Value) {
    call(&router(Access::open()), method, "application/json", &message.to_string()).await
}

#[tokio::test]
async fn types_and_labels_are_told() {
    let (status, answer) = ask("ProfileTypes", json!({})).await;
    let ids: Vec<&str> = answer["profileTypes"]
        .as_array()
        .expect("types")
        .iter()
        .filter_map(|one| one["ID"].as_str())
        .collect();
    assert_eq!(status, 200);
    for id in [CPU, "lock:lock:nanoseconds:lock:nanoseconds", "faults:faults:count:faults:count"] {
        assert!(ids.contains(&id), "{ids:?}");
    }
    let time = json!({"start": START, "end": END.to_string(), "matchers": ["{service_name=\"web\"}"]});
    let (_, answer) = ask("LabelNames", time.clone()).await;
    let names = answer["names"].as_array().expect("names");
    assert!(names.contains(&json!("service")) && names.contains(&json!("service_name")), "{names:?}");
    let mut values = time;
    values["name"] = json!("service_name");
    assert_eq!(ask("LabelValues", values.clone()).await, (200, json!({"names": ["web"]})));
    values["name"] = json!("nothing");
    assert_eq!(ask("LabelValues", values).await, (200, json!({})));
}

#[tokio::test]
async fn series_are_the_sums_of_our_own_query() {
    let asked = json!({"profileTypeID": CPU, "labelSelector": "{service_name=~\"web|db\", __profile_type__=\"x\"}",
        "start": START, "end": END, "groupBy": ["service_name"], "step": 10.0});
    let (status, answer) = ask("SelectSeries", asked).await;
    let all = answer["series"].as_array().expect("series");
    assert_eq!((status, all.is_empty()), (200, false), "{answer}");
    assert_eq!(all[0]["labels"][0]["name"], "service_name");
    let (_, own) = own("/series?query=cpu%7Bservice%3D~%22web%7Cdb%22%7D&by=service&step=10s").await;
    assert_eq!(all.len(), own["series"].as_array().expect("series").len());
    for (theirs, ours) in all.iter().zip(own["series"].as_array().expect("series")) {
        let points = theirs["points"].as_array().expect("points").iter();
        let theirs: Vec<f64> = points.filter_map(|point| point["value"].as_f64()).collect();
        let ours: Vec<f64> =
            ours["values"].as_array().expect("values").iter().filter_map(Value::as_f64).collect();
        assert_eq!(theirs, ours);
    }
    assert_eq!(all[0]["points"][0]["timestamp"], START.to_string());
}

async fn own(path: &str) -> (u16, Value) {
    let request = Request::builder().uri(format!("/api/v1{path}&from=1000000&until=1000020"));
    let request = request.body(Body::empty()).expect("a request");
    let response = TowerToHyperService::new(router(Access::open())).call(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (head.status.as_u16(), serde_json::from_slice(&body).expect("JSON"))
}

#[tokio::test]
async fn a_flame_graph_has_each_node_where_its_caller_is() {
    let asked =
        json!({"profileTypeID": "wall:wall:nanoseconds:wall:nanoseconds", "start": START, "end": END});
    let (status, answer) = ask("SelectMergeStacktraces", asked).await;
    let graph = &answer["flamegraph"];
    let number = |value: &Value| value.as_str().and_then(|text| text.parse::<i64>().ok()).expect("a number");
    let levels: Vec<Vec<i64>> = graph["levels"]
        .as_array()
        .expect("levels")
        .iter()
        .map(|level| level["values"].as_array().expect("values").iter().map(number).collect())
        .collect();
    assert_eq!((status, &graph["names"][0]), (200, &json!("total")));
    let (_, ours) = own("/flamegraph?query=wall").await;
    assert_eq!(number(&graph["total"]), ours["sides"][0]["weight"].as_i64().expect("a weight"));
    let nodes: usize = levels.iter().map(|level| level.len() / 4).sum();
    assert_eq!(nodes, ours["nodes"]["frame"].as_array().expect("nodes").len());
    // Each bar lies within one of the level above, and what bars have of their own is all of it.
    let mut above = vec![(0, i64::MAX)];
    let mut own_weights = 0;
    for level in &levels {
        let mut end = 0;
        let mut bars = Vec::new();
        for node in level.chunks(4) {
            let start = end + node[0];
            end = start + node[1];
            assert!(above.iter().any(|(from, until)| *from <= start && end <= *until), "{levels:?}");
            bars.push((start, end));
            own_weights += node[2];
        }
        above = bars;
    }
    assert_eq!(own_weights, number(&graph["total"]));
}

#[tokio::test]
async fn what_cannot_be_answered_says_so_as_connect_has_it() {
    let of = |change: Value| {
        let mut asked = json!({"profileTypeID": CPU, "start": START, "end": END});
        asked.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        asked
    };
    for (method, message, status, code) in [
        ("SelectMergeSpanProfile", of(json!({"spanSelector": ["9a517183f26a089d"]})), 501, "unimplemented"),
        ("SelectMergeStacktraces", of(json!({"spanSelector": ["9a517183f26a089d"]})), 501, "unimplemented"),
        ("SelectMergeStacktraces", of(json!({"format": "PROFILE_FORMAT_DOT"})), 501, "unimplemented"),
        ("SelectSeries", of(json!({"aggregation": 1})), 501, "unimplemented"),
        ("SelectHeatmap", of(json!({})), 501, "unimplemented"),
        ("SelectSeries", of(json!({"profileTypeID": "cpu"})), 400, "invalid_argument"),
        ("SelectSeries", of(json!({"labelSelector": "{host=}"})), 400, "invalid_argument"),
        ("SelectSeries", of(json!({"step": -1})), 400, "invalid_argument"),
        ("SelectSeries", of(json!({"start": END, "end": START})), 400, "invalid_argument"),
        ("SelectSeries", json!([]), 400, "invalid_argument"),
    ] {
        let (got, answer) = ask(method, message).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{method}: {answer}");
        assert!(answer["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    let open = router(Access::open());
    assert_eq!(call(&open, "ProfileTypes", "application/grpc", "").await.0, 501);
    let long = format!("{{\"start\": \"{}\"}}", " ".repeat(super::MAX_QUESTION_BYTES));
    assert_eq!(call(&open, "ProfileTypes", "application/json", &long).await.1["code"], "resource_exhausted");
}

#[tokio::test]
async fn only_readers_are_answered() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokens");
    std::fs::write(&path, "").expect("a file");
    let router = router(Access::new(Some(&path), false).expect("tokens"));
    let (status, answer) = call(&router, "ProfileTypes", "application/json", "{}").await;
    assert_eq!((status, answer["code"].as_str()), (401, Some("unauthenticated")));
}
