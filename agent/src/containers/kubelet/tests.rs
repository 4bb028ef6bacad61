use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use super::*;

/// As a kubelet answers, with what is not read here left out but for some of it.
const PODS: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[
  {"metadata":{"name":"web-0","namespace":"shop","uid":"7d0c","labels":{"app":"web"},"creationTimestamp":null},
   "spec":{"containers":[{"name":"nginx","image":"registry/nginx:1"}],"nodeName":"node"},
   "status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}],"podIP":"10.1.2.3",
     "containerStatuses":[
       {"name":"nginx","state":{"running":{"startedAt":"2026-01-31T12:00:00Z"}},"lastState":{},"ready":true,"restartCount":0,
        "image":"registry/nginx:1","imageID":"registry/nginx@sha256:00","containerID":"containerd://aaaa"},
       {"name":"sidecar","state":{"waiting":{"reason":"CrashLoopBackOff"}},"lastState":{"terminated":{"exitCode":1}},
        "image":"registry/side:1","containerID":"containerd://bbbb"}],
     "initContainerStatuses":[{"name":"init","state":{"terminated":{"exitCode":0}},"containerID":"containerd://cccc"}],
     "ephemeralContainerStatuses":[{"name":"debug","state":{"running":{}},"image":"busybox","containerID":"cri-o://dddd"}]}},
  {"metadata":{"name":"pending","namespace":"shop","uid":"1"},"spec":{},"status":{"phase":"Pending"}},
  {"metadata":{"name":"mirror","namespace":"kube-system","uid":"2"},"status":{"containerStatuses":[{"name":"x","state":{"running":{}}}]}}
]}"#;

/// A server that answers one request, and what it was asked.
struct Server {
    url: String,
    asked: JoinHandle<String>,
}

impl Server {
    fn answers(status: &str, body: &str) -> Self {
        let length = body.len();
        Self::says(format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    fn says(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let url = format!("http://{}", listener.local_addr().expect("it listens"));
        let asked = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("somebody connects");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).expect("it asks");
                request.push(byte[0]);
            }
            stream.write_all(answer.as_bytes()).expect("it can be answered");
            String::from_utf8(request).expect("text")
        });
        Self { url, asked }
    }
}

fn ask(kubelet: &Kubelet) -> Result<Vec<Container>, KubeletError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(kubelet.containers())
}

fn at(url: &str) -> Kubelet {
    Kubelet { url: url.to_owned(), ..Kubelet::default() }
}

#[test]
fn containers_that_run_have_the_names_of_their_pods() {
    let server = Server::answers("200 OK", PODS);
    let mut token = tempfile::NamedTempFile::new().expect("a file");
    token.write_all(b"abc.def\n").expect("it can be written");
    let kubelet = Kubelet { token_file: Some(token.path().to_owned()), ..at(&server.url) };
    assert_eq!(kubelet.check_address(), Ok(()));
    let found = ask(&kubelet).expect("it answers");
    let pod = Pod { namespace: "shop".into(), name: "web-0".into(), uid: "7d0c".into() };
    let container = |id: &str, name: &str, image: &str| Container {
        id: id.into(),
        name: name.into(),
        pod: pod.clone(),
        image: image.into(),
    };
    assert_eq!(
        found,
        [container("aaaa", "nginx", "registry/nginx:1"), container("dddd", "debug", "busybox")]
    );
    let asked = server.asked.join().expect("it was asked").to_ascii_lowercase();
    assert!(asked.starts_with("get /pods http/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer abc.def\r\n"), "{asked}");
}

#[test]
fn what_fails_says_what_to_do() {
    for (status, body, expected) in [
        ("401 Unauthorized", "Unauthorized", "says 401: give it a token"),
        ("403 Forbidden", "", "says 403: give it a token"),
        ("404 Not Found", "404 page not found", "does not answer as a kubelet does: it says 404"),
        ("200 OK", "<html>", "does not answer as a kubelet does: expected value"),
        ("200 OK", r#"{"kind":"NodeList","items":[]}"#, "it answers with \"NodeList\", not with a PodList"),
    ] {
        let server = Server::answers(status, body);
        let error = ask(&at(&server.url)).expect_err(status).to_string();
        assert!(error.contains(expected), "{error}");
    }
    let server = Server::says("SSH-2.0-OpenSSH\r\n\r\n".to_owned());
    assert!(matches!(ask(&at(&server.url)), Err(KubeletError::Answer { .. })));
    let nowhere =
        TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    assert!(matches!(ask(&at(&format!("http://{nowhere}"))), Err(KubeletError::Connect { .. })));
    assert!(
        ask(&at(&Server::answers("200 OK", r#"{"kind":"PodList","items":null}"#).url))
            .expect("none")
            .is_empty()
    );
}

#[test]
fn an_answer_without_end_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let url = format!("http://{}", listener.local_addr().expect("it listens"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        let block = vec![b' '; 1 << 20];
        // Until it has gone.
        while stream.write_all(&block).is_ok() {}
    });
    let error = ask(&at(&url)).expect_err("too much").to_string();
    assert!(error.contains("length limit exceeded"), "{error}");
    server.join().expect("it ends");
}

#[test]
fn addresses_and_tokens_are_checked_before_anybody_is_asked() {
    for bad in ["", "node:10255", "ftp://node", "http://node/pods", "http://node?x"] {
        assert!(matches!(at(bad).check_address(), Err(KubeletError::Url(_))), "{bad}");
    }
    let token = tempfile::NamedTempFile::new().expect("a file");
    let with_token = |url: &str| Kubelet { token_file: Some(token.path().to_owned()), ..at(url) };
    let error = with_token("http://10.0.0.1").check_address().expect_err("for all to read").to_string();
    assert!(error.contains("say https://"), "{error}");
    assert_eq!(with_token("http://localhost").check_address(), Ok(()));
    let missing = Kubelet { token_file: Some("/nonexistent/token".into()), ..at("http://127.0.0.1") };
    assert!(matches!(ask(&missing), Err(KubeletError::Credentials(_))));
    let no_ca = Kubelet { ca: Some("/nonexistent/ca".into()), ..at("https://node") };
    assert!(matches!(ask(&no_ca), Err(KubeletError::Credentials(_))));
}
