//! The API over the fleet of [`fleet`]: each endpoint's answer, and every way to be refused.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::endpoints::ENDPOINTS;
use super::profiles::ACTIONS;
use super::*;
use crate::access::Access;
use crate::golden::check;
use crate::ingest::{Count, Counts};
use crate::listen::Door;
use crate::store::{
    AgentStatus, Appender, Frames, Holdings, Selection, SignalQuery, SignalSeries, StackId, StoreError,
    SumQuery, Sums, VerdictSpan,
};
use crate::store_in_memory::fleet;

/// The time of the fleet, as parameters have it.
const TIME: &str = "from=1000000&until=1000020";

fn fleet_router(limits: Limits) -> Router {
    fleet_router_for(limits, Access::open(), Arc::default())
}

fn fleet_router_for(limits: Limits, access: Access, counts: Arc<Counts>) -> Router {
    let metrics: Metrics = Arc::new(|| "chokepoint_up 1\n".to_owned());
    let router = router(Arc::new(fleet::store()), Arc::default(), Arc::default(), limits, metrics);
    only_for_callers(router, Arc::new(access), counts)
}

async fn ask(router: &Router, method: &str, path: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).expect("a request");
    let response = TowerToHyperService::new(router.clone()).call(request).await.expect("an answer");
    let (head, body) = response.into_parts();
    (head.status, head.headers, body.collect().await.expect("a body").to_bytes().to_vec())
}

fn escaped(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

async fn error(router: &Router, path: &str) -> (u16, String, String) {
    let (status, _, body) = ask(router, "GET", path).await;
    let answer: ErrorAnswer = serde_json::from_slice(&body).expect("an error in JSON");
    (status.as_u16(), answer.error.code, answer.error.message)
}

/// Columns on a line each: a difference is then seen.
fn laid_out(body: &[u8]) -> String {
    let value: Value = serde_json::from_slice(body).expect("JSON");
    let mut text = String::new();
    lay_out(&value, 0, &mut text);
    text + "\n"
}

fn lay_out(value: &Value, indent: usize, text: &mut String) {
    let is_flat = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('{');
            for (number, (name, value)) in fields.iter().enumerate() {
                text.push_str(if number > 0 { ",\n" } else { "\n" });
                text.push_str(&format!("{:width$}\"{name}\": ", "", width = indent + 2));
                lay_out(value, indent + 2, text);
            }
            text.push_str(&format!("\n{:indent$}}}", ""));
        }
        Value::Array(values) if !values.iter().all(is_flat) => {
            text.push('[');
            for (number, value) in values.iter().enumerate() {
                text.push_str(if number > 0 { ",\n" } else { "\n" });
                text.push_str(&format!("{:width$}", "", width = indent + 2));
                lay_out(value, indent + 2, text);
            }
            text.push_str(&format!("\n{:indent$}]", ""));
        }
        flat => text.push_str(&flat.to_string()),
    }
}

#[tokio::test]
async fn every_endpoint_answers_what_is_known() {
    let router = fleet_router(Limits::default());
    let web = escaped(r#"cpu{service="web"}"#);
    for (name, path) in [
        ("flamegraph", format!("/flamegraph?query=wall&by=service&{TIME}")),
        ("flamegraph-merged", format!("/flamegraph?query={web}&nodes=3&{TIME}")),
        ("top", format!("/top?query=wall&limit=3&{TIME}")),
        ("series", format!("/series?query=cpu&by=host,process&step=10s&limit=2&{TIME}")),
        ("decomposition", format!("/decomposition?query=wall&by=service&step=10s&{TIME}")),
        (
            "diff",
            format!("/diff?query={web}&from=1000010&until=1000020&before_from=1000000&before_until=1000010"),
        ),
        ("signals", format!("/signals?query=cpu.utilization&step=20s&{TIME}")),
        ("constraints", format!("/constraints?by=zone&diagnosis=true&{TIME}")),
        ("overview", format!("/overview?{TIME}")),
        ("labels", format!("/labels?{TIME}")),
        ("label-values", format!("/label/process/values?{TIME}")),
        ("agents", "/agents".to_owned()),
    ] {
        let (status, headers, body) = ask(&router, "GET", &format!("{BASE}{path}")).await;
        assert_eq!(
            (status, &headers["content-type"]),
            (StatusCode::OK, &"application/json".parse().unwrap()),
            "{path}"
        );
        check(&format!("{name}.json"), &laid_out(&body));
    }
    for (path, begins) in [
        ("svg", "<?xml"),
        (
            "folded",
            "<img src=x onerror=alert(1)>?[31m:?x;nginx+0x4242 4000000\nnginx;main;handle;parse 8000000",
        ),
        ("speedscope", "{"),
        ("pprof", "\u{1f}"),
    ] {
        let (status, headers, body) = ask(&router, "GET", &format!("{BASE}/{path}?query=cpu&{TIME}")).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(body.starts_with(begins.as_bytes()), "{path}: {}", String::from_utf8_lossy(&body));
        assert!(headers["content-disposition"].to_str().unwrap().starts_with("inline; filename=\"profile."));
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_refused_with_what_to_do() {
    let router = fleet_router(Limits::default());
    for (path, expected, tells) in [
        (
            "/flamegraph",
            400,
            "query is missing: what of: a type of profile with matchers of labels, such as query=cpu",
        ),
        ("/flamegraph?query=", 400, "say what of: cpu{...}"),
        ("/flamegraph?query=cpu{host", 400, "bad query: at 9: expected =, !=, =~ or !~, found the end"),
        ("/flamegraph?query=cpu&from=yesterday", 400, "\"yesterday\" is no time: write now-1h"),
        ("/flamegraph?query=cpu&from=now&until=now", 400, "let from be before until"),
        ("/flamegraph?query=cpu&from=0", 422, "longer than 92d: ask for less"),
        ("/flamegraph?query=cpu&nodes=0", 400, "no number above 0"),
        ("/flamegraph?query=cpu&nodes=1000000", 422, "more than 200000: ask for fewer"),
        ("/flamegraph?query=cpu&class=middle", 400, "write none, leaf or root"),
        ("/flamegraph?query=cpu&by=a,,b", 400, "write by=host,pod"),
        ("/flamegraph?query=cpu&by=a,b,c,d,e,f,g,h,i", 422, "more than 8 labels"),
        ("/flamegraph?query=cpu&query=cpu", 400, "query is there twice"),
        (
            "/flamegraph?query=cpu&quer=cpu",
            400,
            "unknown parameter \"quer\"; the parameters here: query, from",
        ),
        ("/agents?a=b", 400, "there are none"),
        ("/series?query=cpu&step=1s&from=now-1d", 422, "let them be longer"),
        ("/series?query=cpu&step=soon", 400, "\"soon\" is no duration"),
        ("/decomposition?query=faults", 400, "ask for wall"),
        ("/constraints?query=cpu", 400, "write {...} alone"),
        ("/constraints?diagnosis=yes", 400, "write true or false"),
        ("/label/none/values", 404, "nothing has a label \"none\""),
        ("/nothing", 404, "openapi.json lists"),
    ] {
        let (status, code, message) = error(&router, &format!("{BASE}{}", path.replace('{', "%7B"))).await;
        assert_eq!(status, expected, "{path}: {message}");
        assert!(message.contains(tells), "{path}: {message}");
        let codes = [(400, "bad_query"), (404, "not_found"), (422, "too_large")];
        assert!(codes.contains(&(status, code.as_str())), "{path}: {code}");
    }
    let long = format!("{BASE}/top?query={}", "a".repeat(40_000));
    assert_eq!(error(&router, &long).await.0, 400);
    let (status, headers, _) = ask(&router, "POST", &format!("{BASE}/top?query=cpu")).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(headers["x-content-type-options"], "nosniff");
}

#[tokio::test]
async fn the_description_has_every_route_and_no_other() {
    let router = fleet_router(Limits::default());
    let (_, _, body) = ask(&router, "GET", &format!("{BASE}/openapi.json")).await;
    let description: Value = serde_json::from_slice(&body).expect("JSON");
    let paths = description["paths"].as_object().expect("paths");
    let actions: BTreeSet<&str> = ACTIONS.iter().map(|action| action.path).collect();
    assert_eq!(paths.len(), ENDPOINTS.len() + actions.len() + OTHER_PATHS.len());
    for (path, operations) in paths {
        let path = path.replace("{name}", "host").replace("{id}", "1-0");
        let mut parameters: Vec<String> = Vec::new();
        for parameter in operations["get"]["parameters"].as_array().into_iter().flatten() {
            let (name, example) =
                (parameter["name"].as_str().unwrap(), parameter["example"].as_str().unwrap());
            if parameter["in"] == "query" && parameter["required"] == true {
                parameters.push(format!("{name}={}", escaped(example)));
            }
        }
        let (status, _, body) = ask(&router, "GET", &format!("{path}?{}", parameters.join("&"))).await;
        let is_known = status == StatusCode::OK
            || ["nothing has", "there is no profile", "no agent has a stream"].iter().any(|message| {
                let expected = format!("{{\"error\":{{\"code\":\"not_found\",\"message\":\"{message}");
                body.starts_with(expected.as_bytes())
            });
        assert!(is_known, "{path}: {}", String::from_utf8_lossy(&body));
    }
}

#[tokio::test]
async fn answers_run_nothing_in_a_browser() {
    let router = fleet_router(Limits::default());
    for (path, policy) in [
        ("/agents".to_owned(), "default-src 'none'; frame-ancestors 'none'; sandbox"),
        (format!("/svg?query=wall&{TIME}"), "sandbox allow-scripts"),
        ("/nothing".to_owned(), "default-src 'none'"),
    ] {
        let (_, headers, _) = ask(&router, "GET", &format!("{BASE}{path}")).await;
        assert!(headers["content-security-policy"].to_str().unwrap().contains(policy), "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cache-control"], "no-store");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
    let (_, _, svg) = ask(&router, "GET", &format!("{BASE}/svg?query=cpu&{TIME}")).await;
    let svg = String::from_utf8(svg).expect("text");
    assert!(!svg.contains("<img") && svg.contains("&lt;img"));
}

#[tokio::test]
async fn a_page_that_takes_the_collectors_address_for_its_name_is_refused() {
    let router = only_for_hosts(fleet_router(Limits::default()), vec!["profiles.example".to_owned()]);
    for (host, status) in [("127.0.0.1:4041", 200), ("profiles.example", 200), ("evil.example:4041", 421)] {
        let request = Request::builder().uri(format!("{BASE}/agents")).header("host", host);
        let request = request.body(Body::empty()).expect("a request");
        let response = TowerToHyperService::new(router.clone()).call(request).await.expect("an answer");
        assert_eq!(response.status().as_u16(), status, "{host}");
    }
}

#[tokio::test]
async fn answers_that_are_too_long_are_not_sent() {
    let router = fleet_router(Limits { max_answer_bytes: 100, ..Limits::default() });
    for path in [format!("/top?query=cpu&{TIME}"), format!("/svg?query=cpu&{TIME}")] {
        let (status, code, message) = error(&router, &format!("{BASE}{path}")).await;
        assert_eq!((status, code.as_str()), (422, "too_large"), "{path}");
        assert!(message.contains("100 B"), "{message}");
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_take_a_bounded_room() {
    let router = fleet_router(Limits { max_unsent_bytes: 4 << 10, ..Limits::default() });
    let path = format!("{BASE}/svg?query=cpu&{TIME}");
    // A picture has more than four kilobytes.
    assert_eq!(error(&router, &path).await.0, 503);
    let small =
        || Request::builder().uri(format!("{BASE}/labels?{TIME}")).body(Body::empty()).expect("a request");
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(TowerToHyperService::new(router.clone()).call(small()).await.expect("an answer"));
    }
    assert!(unread.iter().all(|response| response.status() == StatusCode::OK));
    assert_eq!(error(&router, &format!("{BASE}/labels?{TIME}")).await.0, 503);
    unread.pop();
    assert_eq!(ask(&router, "GET", &format!("{BASE}/labels?{TIME}")).await.0, StatusCode::OK);
}

/// A store that takes its time, or breaks.
struct Hindered {
    delay: Duration,
    is_broken: bool,
}

impl Store for Hindered {
    fn appender(
        &self,
        _: &chokepoint_proto::stream::Hello,
        _: Option<&str>,
    ) -> Result<Box<dyn Appender>, StoreError> {
        unreachable!("nothing is stored")
    }
    fn sums(&self, _: &SumQuery) -> Result<Sums, StoreError> {
        panic!("a bug in the store")
    }
    fn frames(&self, _: &[StackId]) -> Result<Frames, StoreError> {
        unreachable!("there are no sums")
    }
    fn signals(&self, _: &SignalQuery) -> Result<Vec<SignalSeries>, StoreError> {
        Ok(Vec::new())
    }
    fn verdicts(&self, _: &Selection) -> Result<Vec<VerdictSpan>, StoreError> {
        Ok(Vec::new())
    }
    /// Reads for as long as somebody waits for it.
    fn labels(&self, selection: &Selection, _: usize) -> Result<Vec<(String, Vec<String>)>, StoreError> {
        loop {
            selection.asker.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    fn kinds(&self) -> Result<Vec<(String, chokepoint_analysis::profile::Unit)>, StoreError> {
        Ok(Vec::new())
    }
    fn agents(&self) -> Result<Vec<AgentStatus>, StoreError> {
        std::thread::sleep(self.delay);
        if self.is_broken {
            let source = "/var/lib/secret: no space left".into();
            return Err(StoreError::Failed { what: "reading".to_owned(), source });
        }
        Ok(Vec::new())
    }
    fn holdings(&self) -> Result<Holdings, StoreError> {
        Ok(Holdings::default())
    }
    fn maintain(&self, _: u64) -> Result<bool, StoreError> {
        Ok(false)
    }
}

fn hindered(delay: Duration, is_broken: bool, limits: Limits) -> Router {
    let store = Arc::new(Hindered { delay, is_broken });
    let router = router(store, Arc::default(), Arc::default(), limits, Arc::new(String::new));
    only_for_callers(router, Arc::new(Access::open()), Arc::default())
}

#[tokio::test]
async fn too_many_queries_are_told_to_come_back() {
    let limits = Limits { max_queries: 1, max_turn_wait: Duration::from_millis(20), ..Limits::default() };
    let router = hindered(Duration::from_secs(2), false, limits);
    let agents = format!("{BASE}/agents");
    let (first, second) = tokio::join!(ask(&router, "GET", &agents), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        ask(&router, "GET", &agents).await
    });
    assert_eq!((first.0, second.0), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(second.1["retry-after"], "2");
    assert_eq!(ask(&router, "GET", &agents).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_query_that_takes_too_long_keeps_its_turn_until_it_ends() {
    let times = Duration::from_millis(50);
    let limits = Limits { max_queries: 1, max_turn_wait: times, max_query_time: times, ..Limits::default() };
    let router = hindered(Duration::from_millis(1500), false, limits);
    let agents = format!("{BASE}/agents");
    assert_eq!(error(&router, &agents).await.0, 504);
    assert_eq!(error(&router, &agents).await.0, 503);
}

#[tokio::test]
async fn the_store_is_told_when_nobody_waits_any_more() {
    let max_query_time = Duration::from_millis(50);
    let limits = Limits { max_queries: 1, max_query_time, ..Limits::default() };
    let router = hindered(Duration::ZERO, false, limits);
    // The second has its turn, for the first has stopped; and so has one whose client has gone.
    let labels = format!("{BASE}/labels");
    assert_eq!(error(&router, &labels).await.0, 504);
    assert_eq!(error(&router, &labels).await.0, 504);
    let limits = Limits { max_queries: 1, ..Limits::default() };
    let router = hindered(Duration::ZERO, false, limits);
    let left = timeout(max_query_time, ask(&router, "GET", &labels)).await;
    assert!(left.is_err());
    assert_eq!(ask(&router, "GET", &format!("{BASE}/agents")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn failures_of_the_store_are_logged_and_not_told() {
    let router = hindered(Duration::ZERO, true, Limits::default());
    let (status, code, message) = error(&router, &format!("{BASE}/agents")).await;
    assert_eq!((status, code.as_str()), (500, "failed"));
    assert!(!message.contains("secret"), "{message}");
    // A bug ends the query, not the collector.
    assert_eq!(error(&router, &format!("{BASE}/top?query=cpu")).await.0, 500);
    assert_eq!(error(&router, &format!("{BASE}/top?query=cpu")).await.0, 500);
}

/// A collector on loopback, until it is dropped.
pub(crate) struct Live {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Live {
    pub(crate) fn start(router: Router, max_connections: usize) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr().expect("an address")).expect("somebody waits");
                let stopped = async { drop(stopped.await) };
                let door = Door::new(listener, max_connections, None, Arc::default());
                serve(door, router, stopped).await;
            });
        });
        Self { address: told.recv().expect("an address"), stop: Some(stop), thread: Some(thread) }
    }

    pub(crate) fn fleet() -> Self {
        Self::start(fleet_router(Limits::default()), 16)
    }

    fn says(&self, bytes: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(self.address).expect("a connection");
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(std::thread::JoinHandle::join);
        assert!(std::thread::panicking() || ended.is_some_and(|ended| ended.is_ok()));
    }
}

#[test]
fn bytes_that_are_no_request_do_no_harm() {
    let live = Live::fleet();
    let garbage: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    for bytes in [garbage.as_slice(), b"GET / HTTP/1.1\r\n", b"\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let answer = live.says(bytes);
        assert!(!answer.contains("200 OK"), "{answer}");
    }
    let head = format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(200_000));
    assert!(!live.says(head.as_bytes()).contains("200 OK"));
    assert!(
        live.says(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ends_with("\r\n\r\nok\n")
    );
    assert!(live.says(b"GET /metrics HTTP/1.0\r\n\r\n").ends_with("chokepoint_up 1\n"));
}

#[test]
fn pprof_reads_the_url() {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("skipped: there is no go");
        return;
    }
    let live = Live::fleet();
    let url = format!("http://{}{BASE}/pprof?query=cpu{{service=\"web\"}}&{TIME}", live.address);
    let home = tempfile::tempdir().expect("a directory");
    let output = Command::new("go")
        .args(["tool", "pprof", "-top", "-unit=s", "-nodecount=10", &url])
        .env("PPROF_TMPDIR", home.path())
        .output()
        .expect("go runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let words: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    for row in [
        ["8s", "88.89%", "88.89%", "8s", "88.89%", "parse"],
        ["1s", "11.11%", "100%", "1s", "11.11%", "sys_read"],
        ["0", "0%", "100%", "9s", "100%", "main"],
    ] {
        assert!(words.iter().any(|words| words.starts_with(&row)), "{row:?}\n{text}");
    }
    assert!(text.contains("Type: cpu"), "{text}");
}

#[tokio::test]
async fn answers_are_for_readers_where_tokens_are_asked_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokens.toml");
    let token = |name: &str, role: &str| {
        format!(
            "[[token]]\nname = '{name}'\nrole = '{role}'\nsha256 = '{}'\n",
            crate::access::Digest::of(name)
        )
    };
    std::fs::write(&path, token("a", "agent") + &token("r", "reader") + &token("o", "operator"))
        .expect("a file");
    let access = Access::new(Some(&path), false).expect("it makes sense");
    let counts: Arc<Counts> = Arc::default();
    let router = fleet_router_for(Limits::default(), access, Arc::clone(&counts));
    let ask_as = async |path: &str, token: &str| {
        let mut request = Request::builder().uri(path);
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = TowerToHyperService::new(router.clone()).call(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        let wanted = head.headers.get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        (head.status.as_u16(), String::from_utf8_lossy(&body).into_owned(), wanted)
    };
    for path in ["/api/v1/agents", "/api/v1/openapi.json", "/api/v1/nothing", "/metrics", "/api/v2/x"] {
        let (status, body, wanted) = ask_as(path, "").await;
        assert_eq!((status, wanted.as_deref()), (401, Some("Bearer realm=\"chokepoint\"")), "{path}");
        assert!(body.contains("\"unauthenticated\"") && body.contains("Authorization: Bearer"), "{body}");
        let (status, body, wanted) = ask_as(path, "x").await;
        assert_eq!(status, 401, "{path}");
        assert!(
            wanted.is_some_and(|wanted| wanted.contains("invalid_token")) && body.contains("revoked"),
            "{body}"
        );
        let (status, body, _) = ask_as(path, "a").await;
        assert_eq!(status, 403, "{path}");
        assert!(body.contains("\"forbidden\"") && body.contains("a has the role agent"), "{body}");
        for reader in ["r", "o"] {
            assert!([200, 404].contains(&ask_as(path, reader).await.0), "{path}");
        }
    }
    assert_eq!((counts.get(Count::RequestsUnauthenticated), counts.get(Count::RequestsForbidden)), (10, 5));
    // Only operators have something done; here there is no agent that could do it.
    for (token, expected) in [("r", 403), ("o", 404)] {
        let request = Request::post("/api/v1/profile").header("authorization", format!("Bearer {token}"));
        let request = request.header("content-type", "application/json").body(Body::from(r#"{"pid": 7}"#));
        let response = TowerToHyperService::new(router.clone()).call(request.expect("a request")).await;
        assert_eq!(response.expect("an answer").status().as_u16(), expected, "{token}");
    }
    assert_eq!(counts.get(Count::RequestsForbidden), 6);
    // What anybody may ask: whether it lives, what is no answer of the API, and who one is.
    assert_eq!(ask_as("/healthz", "").await.0, 200);
    assert_eq!(ask_as("/", "").await.0, 404);
    for (token, answer) in [
        ("", r#"{"asks_for_tokens":true,"name":null,"roles":[]}"#),
        ("a", r#"{"asks_for_tokens":true,"name":"a","roles":["agent"]}"#),
        ("o", r#"{"asks_for_tokens":true,"name":"o","roles":["reader","operator"]}"#),
    ] {
        assert_eq!(ask_as("/api/v1/access", token).await.1, answer);
    }
    assert_eq!(ask_as("/api/v1/access", "x").await.0, 401);
    let open = fleet_router(Limits::default());
    let (_, _, body) = ask(&open, "GET", "/api/v1/access").await;
    let all = r#"{"asks_for_tokens":false,"name":null,"roles":["agent","reader","operator"]}"#;
    assert_eq!(String::from_utf8_lossy(&body), all);
}
