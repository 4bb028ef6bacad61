use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

use chokepoint_tls::testing::{Authority, Issued};
use chokepoint_tls::{Server as TlsServer, ServerFiles};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

/// A kubelet behind TLS that answers one request, its port, and what it was asked; nothing where the handshake failed.
fn behind_tls(shown: &Issued) -> (u16, JoinHandle<Option<String>>) {
    let files = ServerFiles { cert: shown.cert.clone(), key: shown.key.clone(), client_ca: None };
    let tls = TlsServer::new(&files, HTTP_1).expect("usable files");
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = listener.local_addr().expect("it listens").port();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asked = std::thread::spawn(move || {
        runtime.block_on(async move {
            let (stream, _) = listener.accept().expect("somebody connects");
            stream.set_nonblocking(true).expect("it can be set");
            let stream = TcpStream::from_std(stream).expect("a stream");
            let mut stream = tls.accept(stream).await.ok()?;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("it asks"));
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{PODS}", PODS.len());
            stream.write_all(answer.as_bytes()).await.expect("it can be answered");
            stream.shutdown().await.expect("it can be ended");
            Some(String::from_utf8(request).expect("text"))
        })
    });
    (port, asked)
}

#[test]
fn behind_tls_it_is_asked_with_the_token_once_its_certificate_is_trusted() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "cluster");
    let token = directory.path().join("token");
    std::fs::write(&token, "abc.def\n").expect("it can be written");
    // By its address, and by the name of the node where the address is not in the certificate.
    for (names, server_name) in [(&["127.0.0.1"][..], None), (&["node-1"][..], Some("node-1".to_owned()))] {
        let (port, asked) = behind_tls(&authority.issue(names));
        let kubelet = Kubelet {
            url: format!("https://127.0.0.1:{port}"),
            token_file: Some(token.clone()),
            ca: Some(authority.ca.clone()),
            server_name,
        };
        assert_eq!(ask(&kubelet).expect("it answers").len(), 2);
        let asked = asked.join().expect("it ends").expect("it was asked").to_ascii_lowercase();
        assert!(asked.starts_with("get /pods http/1.1\r\n"), "{asked}");
        assert!(asked.contains("authorization: bearer abc.def\r\n"), "{asked}");
    }
}

#[test]
fn who_shows_no_certificate_that_is_trusted_is_not_sent_the_token() {
    let directory = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(directory.path(), "cluster");
    let other = Authority::new(directory.path(), "other");
    let token = directory.path().join("token");
    std::fs::write(&token, "abc.def\n").expect("it can be written");
    let host = "127.0.0.1";
    for (shown, expected) in [
        (other.issue(&[host]), "of no authority that is trusted here"),
        (authority.issue(&["node-1"]), "is for node-1 and not for 127.0.0.1"),
        (authority.issue_expired(&[host]), "has expired"),
    ] {
        let (port, asked) = behind_tls(&shown);
        let url = format!("https://{host}:{port}");
        let ca = Some(authority.ca.clone());
        let error = ask(&Kubelet { token_file: Some(token.clone()), ca, ..at(&url) }).expect_err(expected);
        let text = error.to_string();
        assert!(matches!(error, KubeletError::Connect { .. }), "{text}");
        assert!(text.contains(expected) && text.contains("kubelet-ca, kubelet-server-name"), "{text}");
        assert_eq!(asked.join().expect("it ends"), None, "{text}");
    }
    // What does not speak TLS.
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let port = listener.local_addr().expect("it listens").port();
    let plain = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody connects");
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").expect("it can be written");
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        heard
    });
    let url = format!("https://{host}:{port}");
    let error =
        ask(&Kubelet { token_file: Some(token), ca: Some(authority.ca), ..at(&url) }).expect_err("plain");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    let heard = plain.join().expect("it ends");
    assert!(!heard.windows(7).any(|bytes| bytes == b"abc.def"), "{heard:?}");
}
