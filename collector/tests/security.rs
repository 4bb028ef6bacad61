//! Who is let in: the real program with real certificates and tokens, asked by curl, by its own command line, and as agents do.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chokepoint_proto::dictionary::Sender;
use chokepoint_proto::stream::from_agent;
use chokepoint_tls::testing::Authority;
use tonic::{Code, Status};

use common::secured::*;
use common::stream::{PATIENCE, Stream};
use common::*;

fn code(result: Result<Stream, Status>) -> (Code, String) {
    result.map_or_else(|status| (status.code(), status.message().to_owned()), |_| (Code::Ok, String::new()))
}

/// Sends a window, and waits until it is stored.
async fn send(stream: &mut Stream, sequence: u64) {
    let rows = rows(&mut Random(1), 3);
    let window = window(START, 10 * SECOND, &rows, "cpu", 10.0);
    stream.say(from_agent::Message::Batch(batch(sequence, &mut Sender::new(), &window))).await;
    let answer = stream.answer().await.expect("an answer");
    assert_eq!((answer.sequence, answer.refused.as_str()), (sequence, ""));
}

#[test]
fn queries_are_answered_to_those_who_may_ask_and_others_hear_what_to_do() {
    let place = Place::new();
    let [reader, agent] =
        [("grafana", "reader"), ("web-1", "agent")].map(|(name, role)| place.token(name, role, ""));
    let theirs_in = directory();
    let theirs = Authority::new(theirs_in.path(), "theirs");
    let collector = Collector::start(&place, &place.with(place.tls(), &[("--tokens", &place.tokens())]));
    assert!(collector.queries.starts_with("https://"), "{}", collector.queries);
    let ca = place.authority.ca.display().to_string();
    let trusting = ["--cacert", &ca];
    let header = bearer(&reader);
    let reading = [&trusting[..], &["-H", &header]].concat();

    let answer = collector.curl(&reading, "/api/v1/agents");
    assert_eq!((answer.exit, answer.status, answer.body.as_str()), (0, 200, r#"{"agents":[]}"#));
    assert_eq!(collector.curl(&[&reading[..], &["--tls-max", "1.2"]].concat(), "/api/v1/agents").status, 200);
    assert_eq!(collector.curl(&[&reading[..], &["--tlsv1.0", "--tls-max", "1.1"]].concat(), "/").exit, 35);
    let nobody = collector.curl(&trusting, "/api/v1/agents");
    assert_eq!(nobody.status, 401);
    assert_eq!(
        nobody.body,
        r#"{"error":{"code":"unauthenticated","message":"a token is asked for: send one as the header \"Authorization: Bearer TOKEN\""}}"#
    );
    let wrong =
        collector.curl(&[&trusting[..], &["-H", "Authorization: Bearer chokepoint_x"]].concat(), "/metrics");
    assert!(wrong.status == 401 && wrong.body.contains("mistyped, or was revoked"), "{}", wrong.body);
    let other_role = collector.curl(&[&trusting[..], &["-H", &bearer(&agent)]].concat(), "/api/v1/agents");
    assert_eq!(other_role.status, 403);
    assert!(other_role.body.contains("the token web-1 has the role agent, and this takes the role reader"));
    assert_eq!(collector.curl(&trusting, "/healthz").status, 200);
    assert_eq!(collector.curl(&[], "/api/v1/agents").exit, 60, "its authority is not known");
    // Without TLS, where it is spoken.
    let plain = curl(&["-H", &header], &collector.url().replace("https", "http"));
    assert_eq!(plain.status, 400);
    assert!(plain.body.contains("ask https://"), "{}", plain.body);

    // The same from the command line.
    let url = collector.url();
    let (ca, our) = (("--ca", place.authority.ca.as_path()), ("--token-file", reader.as_path()));
    assert_eq!(query(&url, &[ca, our]), (0, "{\"agents\":[]}\n".to_owned()));
    for (url, more, exit, part) in [
        (url.clone(), vec![ca], 7, "a token is asked for"),
        (url.clone(), vec![ca, ("--token-file", agent.as_path())], 7, "takes the role reader"),
        (url.clone(), vec![("--ca", theirs.ca.as_path()), our], 5, "give that of the collector as ca"),
        (collector.queries.clone(), vec![ca, our], 5, "is for localhost and not for 127.0.0.1"),
        (url.replace("https", "http"), vec![our], 2, "https://"),
        (url.clone(), vec![("--ca", Path::new("/nowhere")), our], 2, "cannot read /nowhere"),
        (url.clone(), vec![ca, ("--cert", place.host.cert.as_path()), our], 2, "both cert and key"),
    ] {
        let (code, said) = query(&url, &more);
        assert!(code == exit && said.contains(part) && said.lines().count() == 1, "{part}: {code} {said}");
    }
    let named = [ca, our, ("--server-name", Path::new("localhost"))];
    assert_eq!(query(&collector.queries, &named).0, 0);

    collector.wait_for(&reading, "requests_unauthenticated", 3);
    collector.wait_for(&reading, "requests_forbidden", 2);
    collector.wait_for(&reading, "plaintext_refused", 2);
    collector.wait_for(&reading, "handshakes_failed", 3);
    // No secret is in the log.
    let secret = fs::read_to_string(&reader).expect("a token");
    assert!(!collector.log().contains(secret.trim()));
}

#[test]
fn queries_take_a_certificate_where_one_is_asked_for() {
    let place = Place::new();
    let collector =
        Collector::start(&place, &place.with(place.tls(), &[("--http-client-ca", &place.authority.ca)]));
    let user = place.authority.issue(&["user"]);
    let ca = ("--ca", place.authority.ca.as_path());
    let shown = [ca, ("--cert", user.cert.as_path()), ("--key", user.key.as_path())];
    assert_eq!(query(&collector.url(), &shown), (0, "{\"agents\":[]}\n".to_owned()));
    let (code, said) = query(&collector.url(), &[ca]);
    assert!(
        code == 5 && said.contains("asks for a client's certificate: give cert and key"),
        "{code} {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_are_let_in_by_a_certificate_of_the_authority() {
    let place = Place::new();
    let operator = place.token("operator", "operator", "");
    let more: [(&str, &Path); 2] = [("--client-ca", &place.authority.ca), ("--tokens", &place.tokens())];
    let mut arguments = place.with(place.tls(), &more);
    arguments.push("--bind-hosts".to_owned());
    let collector = Collector::start(&place, &arguments);
    let theirs_in = directory();
    let theirs = Authority::new(theirs_in.path(), "theirs");
    let trusting = place.authority.client();
    let ours = &place.authority;
    let host_1 = ours.issue(&["host-1.example"]).shown_by(trusting.clone());

    let mut stream = collector.stream(Some(&host_1), None, hello(1)).await.expect("it is let in");
    send(&mut stream, 1).await;
    for (files, part) in [
        (trusting.clone(), "CertificateRequired"),
        (theirs.issue(&["host-1"]).shown_by(trusting.clone()), "UnknownCA"),
        (ours.issue_expired(&["host-1"]).shown_by(trusting.clone()), "CertificateExpired"),
    ] {
        let (code, said) = code(collector.stream(Some(&files), None, hello(1)).await);
        assert!(code != Code::Ok, "{part}: {said}");
    }
    // Certificates that are good, and not for that.
    let nameless = ours.issue_nameless().shown_by(trusting.clone());
    let (refused, why) = code(collector.stream(Some(&nameless), None, hello(1)).await);
    assert!(refused == Code::PermissionDenied && why.contains("subjectAltName"), "{why}");
    let (refused, why) = code(collector.stream(Some(&host_1), None, hello(2)).await);
    assert_eq!(
        (refused, why.as_str()),
        (Code::PermissionDenied, "host-1.example may not stream as host host-2")
    );
    let (refused, why) = code(collector.stream(Some(&host_1), Some(&operator), hello(1)).await);
    assert!(refused == Code::PermissionDenied && why.contains("takes the role agent"), "{why}");
    assert_ne!(code(collector.stream(None, None, hello(1)).await).0, Code::Ok, "without TLS");
    // Nobody of them ended the stream that was there.
    send(&mut stream, 2).await;

    let ca = place.authority.ca.display().to_string();
    let reading = ["--cacert", &ca, "-H", &bearer(&operator)];
    collector.wait_for(&reading, "handshakes_failed", 3);
    collector.wait_for(&reading, "plaintext_refused", 1);
    assert_eq!(collector.wait_for(&reading, "streams_forbidden", 3), 3);
    let agents = collector.curl(&reading, "/api/v1/agents").body;
    assert!(agents.contains(r#""owner":"host-1.example""#), "{agents}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_belongs_to_the_first_that_proves_who_it_is() {
    let place = Place::new();
    let [one, other] = ["one", "other"].map(|name| place.token(name, "agent", ""));
    let bound = place.token("bound", "agent", "hosts = ['host-7']\n");
    let reader = place.token("reader", "reader", "");
    // First without tokens: whose it is, nobody knows.
    let collector = Collector::start(&place, &[]);
    let mut stream = collector.stream(None, None, hello(1)).await.expect("it is let in");
    send(&mut stream, 1).await;
    assert!(collector.curl(&[], "/api/v1/agents").body.contains(r#""owner":"""#));
    drop((stream, collector));

    let arguments = place.with(Vec::new(), &[("--tokens", &place.tokens())]);
    let collector = Collector::start(&place, &arguments);
    let stream = async |token: Option<&Path>, number| collector.stream(None, token, hello(number)).await;
    let mut owner = stream(Some(&one), 1).await.expect("it is let in");
    send(&mut owner, 2).await;
    let (refused, why) = code(stream(Some(&other), 1).await);
    assert!(refused == Code::PermissionDenied && why.contains("belongs to another token"), "{why}");
    let (refused, why) = code(stream(None, 1).await);
    assert!(refused == Code::Unauthenticated && why.contains("as token-file"), "{why}");
    let (refused, why) = code(stream(Some(&reader), 1).await);
    assert!(refused == Code::PermissionDenied && why.contains("has the role reader"), "{why}");
    let (refused, why) = code(stream(Some(&bound), 2).await);
    assert_eq!((refused, why.as_str()), (Code::PermissionDenied, "bound may not stream as host host-2"));
    assert_eq!(code(stream(Some(&bound), 7).await).0, Code::Ok);
    assert_eq!(code(stream(Some(&other), 2).await).0, Code::Ok, "another agent");
    // The owner's stream went on through all of this, and the owner may begin another.
    send(&mut owner, 3).await;
    let mut next = stream(Some(&one), 1).await.expect("it is the owner");
    send(&mut next, 4).await;

    let reading = ["-H", &bearer(&reader)];
    assert_eq!(collector.wait_for(&reading, "streams_not_owned", 1), 1);
    assert_eq!(collector.wait_for(&reading, "streams_unauthenticated", 1), 1);
    assert_eq!(collector.wait_for(&reading, "streams_forbidden", 2), 2);
    // A token that is revoked ends its stream before anything more is stored.
    let tokens = fs::read_to_string(place.tokens()).expect("the tokens");
    let others = tokens.find("[[token]]\nname = \"other\"").expect("it is the second");
    fs::write(place.tokens(), &tokens[others..]).expect("it can be written");
    collector.reload();
    collector.wait_for(&reading, "reloads", 1);
    let rows = rows(&mut Random(1), 3);
    let window = window(START, 10 * SECOND, &rows, "cpu", 10.0);
    next.say(from_agent::Message::Batch(batch(5, &mut Sender::new(), &window))).await;
    let status = next.end().await;
    assert!(status.code() == Code::Unauthenticated && status.message().contains("revoked"), "{status}");
    drop((owner, next, collector));
    fs::write(place.tokens(), tokens).expect("it can be written");

    // The operator lets it go, and the next has it.
    let disown =
        run(Command::new(PROGRAM).args(["disown", "--owner", "one", "--store"]).arg(place.path("store")));
    assert_eq!(text(&disown.stdout), "agents that belong to nobody now: 1\n", "{}", text(&disown.stderr));
    let collector = Collector::start(&place, &arguments);
    assert_eq!(code(collector.stream(None, Some(&other), hello(1)).await).0, Code::Ok);
    assert_eq!(code(collector.stream(None, Some(&one), hello(1)).await).0, Code::PermissionDenied);
}

#[test]
fn what_is_revoked_or_renewed_counts_without_a_restart() {
    let place = Place::new();
    let [stays, goes] = ["stays", "goes"].map(|name| place.token(name, "reader", ""));
    let collector = Collector::start(&place, &place.with(place.tls(), &[("--tokens", &place.tokens())]));
    let ca = place.authority.ca.display().to_string();
    let headers = [&stays, &goes].map(|token| bearer(token));
    let asks =
        |which: usize| collector.curl(&["--cacert", &ca, "-H", &headers[which]], "/api/v1/agents").status;
    assert_eq!((asks(0), asks(1)), (200, 200));
    let reading = ["--cacert", &ca, "-H", &headers[0]];

    // A file that makes no sense changes nothing.
    let tokens = fs::read_to_string(place.tokens()).expect("the tokens");
    fs::write(place.tokens(), "[[token]]\nname = ").expect("it can be written");
    collector.reload();
    collector.wait_for(&reading, "reload_failures", 1);
    assert_eq!(asks(1), 200);
    assert!(collector.log().contains("tokens.toml, line 2"), "{}", collector.log());

    let begin = tokens.find("[[token]]\nname = \"goes\"").expect("it is the second");
    fs::write(place.tokens(), &tokens[..begin]).expect("it can be written");
    collector.reload();
    collector.wait_for(&reading, "reloads", 1);
    assert_eq!((asks(0), asks(1)), (200, 401));

    // A certificate of another authority, without a signal: new connections see it.
    let elsewhere = directory();
    let theirs = Authority::new(elsewhere.path(), "theirs");
    let renewed = theirs.issue(&["localhost"]);
    fs::copy(&renewed.key, &place.host.key).expect("a copy");
    fs::copy(&renewed.cert, &place.host.cert).expect("a copy");
    let ca = theirs.ca.display().to_string();
    let begin = Instant::now();
    while collector.curl(&["--cacert", &ca, "-H", &headers[0]], "/api/v1/agents").status != 200 {
        assert!(begin.elapsed() < PATIENCE, "{}", collector.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Who connects and does not say who it is has its time, and keeps nobody else from being heard.
#[test]
fn strangers_have_their_time_and_no_more() {
    let place = Place::new();
    let reader = place.token("reader", "reader", "");
    let collector = Collector::start(&place, &place.with(place.tls(), &[("--tokens", &place.tokens())]));
    let ca = place.authority.ca.display().to_string();
    let reading = ["--cacert", &ca, "-H", &bearer(&reader)];
    let mut strangers = Vec::new();
    for address in [collector.agents, collector.queries_address()] {
        for begin in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
            for _ in 0..20 {
                let mut stream = TcpStream::connect(address).expect("a connection");
                stream.write_all(begin).expect("it can be written");
                stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
                strangers.push(stream);
            }
        }
    }
    assert_eq!(collector.curl(&reading, "/api/v1/agents").status, 200);
    collector.wait_for(&reading, "strangers_slow", strangers.len() as u64);
    for mut stream in strangers {
        let mut byte = [0];
        // Ended in order, or with bytes that nobody read.
        assert!(!matches!(stream.read(&mut byte), Ok(1..)), "nothing is told to strangers");
    }
    // Bytes that are no TLS.
    for bytes in
        [&b"\x16\x03\x01\xff\xff"[..], &[0x16; 20_000], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &[0; 100]]
    {
        for address in [collector.agents, collector.queries_address()] {
            let mut stream = TcpStream::connect(address).expect("a connection");
            // It may have ended already.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
        }
    }
    assert_eq!(collector.curl(&reading, "/api/v1/agents").status, 200);
}

/// Whatever comes to an address is refused and counted, and the next is answered.
#[test]
fn bytes_that_make_no_sense_are_refused_and_counted_at_each_address() {
    /// What HTTP/2 begins with, and a frame that is none.
    const NO_FRAME: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\xff\xff\xff\xff\xff\xff\xff\xff";
    let place = Place::new();
    let collector = Collector::start(&place, &[]);
    let mut random = Random(7);
    let mut noise = || (0..300).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    let mut lines = noise();
    lines.extend(b"\r\n\r\n");
    let said = [lines, noise(), NO_FRAME.to_vec(), b"GET / HTTP/9.9\r\n\r\n".to_vec()];
    for (address, count) in
        [(collector.agents, "strangers_gone"), (collector.queries_address(), "requests_malformed")]
    {
        for bytes in &said {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.set_read_timeout(Some(PATIENCE)).expect("it can be set");
            // It may have ended already.
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        assert_eq!(collector.wait_for(&[], count, said.len() as u64), said.len() as u64, "{count}");
    }

    let body = place.path("body");
    let of_body = format!("@{}", body.display());
    let post = |content_type: &str, path: &str| {
        let content_type = format!("content-type: {content_type}");
        collector.curl(&["-X", "POST", "-H", &content_type, "--data-binary", &of_body], path).status
    };
    fs::write(&body, noise()).expect("it is written");
    let before = collector.wait_for(&[], "requests_refused", 0);
    let (push, asked) = ("/push.v1.PusherService/Push", "/querier.v1.QuerierService/SelectSeries");
    for (content_type, path) in [
        ("application/proto", push),
        ("application/json", push),
        ("multipart/form-data; boundary=x", "/ingest?name=shop"),
        ("text/plain", "/ingest?name=shop"),
        ("application/x-protobuf", "/v1development/profiles"),
        ("application/proto", asked),
        ("application/json", asked),
        ("application/json", "/api/v1/profile"),
    ] {
        assert_eq!(post(content_type, path), 400, "{path} {content_type}");
    }
    for path in ["/api/v1/flamegraph?query=%7B%7B", "/api/v1/top?query=wall&from=never"] {
        assert_eq!(collector.curl(&[], path).status, 400, "{path}");
    }
    assert_eq!(collector.wait_for(&[], "requests_refused", 0) - before, 10);

    // A message of gRPC whose length is right, and that is none.
    let mut message = vec![0, 0, 0, 1, 44];
    message.extend(noise());
    fs::write(&body, message).expect("it is written");
    for service in [
        "opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export",
        "chokepoint.stream.v1.Collector/Exchange",
    ] {
        let url = format!("http://{}/{service}", collector.agents);
        let grpc = ["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", &of_body];
        curl(&[&["--http2-prior-knowledge", "-X", "POST"], &grpc[..]].concat(), &url);
    }
    collector.wait_for(&[], "messages_refused", 1);
    collector.wait_for(&[], "hellos_refused", 1);
    assert_eq!(collector.curl(&[], "/api/v1/agents").status, 200);
}

#[test]
fn who_speaks_tls_where_it_is_not_spoken_hears_so() {
    let place = Place::new();
    let collector = Collector::start(&place, &[]);
    let url = collector.url().replace("http", "https");
    let (code, said) = query(&url, &[("--ca", place.authority.ca.as_path())]);
    assert!(code == 5 && said.contains("does not speak TLS: is it http:// there?"), "{code} {said}");
    collector.wait_for(&[], "tls_refused", 1);
    let (code, said) = query(&collector.url(), &[]);
    assert_eq!((code, said.as_str()), (0, "{\"agents\":[]}\n"));
}

#[test]
fn what_makes_no_sense_is_refused_at_the_start() {
    let place = Place::new();
    place.token("reader", "reader", "");
    let open = place.path("open.key");
    fs::copy(&place.host.key, &open).expect("a copy");
    fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("its permissions");
    let path = |path: &Path| path.display().to_string();
    let (cert, key, tokens) = (path(&place.host.cert), path(&place.host.key), path(&place.tokens()));
    for (arguments, part) in [
        (
            vec!["--http", "0.0.0.0:0"],
            "--http 0.0.0.0:0 is reached from other hosts and is not encrypted (give --tls-cert and --tls-key), and tells everything to anybody (give --tokens or --http-client-ca); or, where the network is to be trusted, say --trust-network",
        ),
        (vec!["--listen", "0.0.0.0:0", "--tls-cert", &cert, "--tls-key", &key], "takes what anybody sends"),
        (vec!["--listen", "[::]:0", "--tokens", &tokens], "is not encrypted"),
        (vec!["--tls-cert", &cert], "--tls-key"),
        (vec!["--tls-cert", &cert, "--tls-key", &path(&open)], "everybody may read: chmod 600"),
        (vec!["--client-ca", &cert], "--client-ca takes --tls-cert"),
        (vec!["--tokens", "/nowhere"], "tokens: cannot read /nowhere"),
        (vec!["--tokens", &cert], "tokens: "),
    ] {
        let output =
            run(Command::new(PROGRAM).args(["serve", "--store"]).arg(place.path("none")).args(&arguments));
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(part), "{arguments:?}: {said}");
        assert!(!place.path("none").exists(), "{arguments:?}: nothing is begun");
    }
    // With consent it is said loudly.
    let arguments = ["--listen", "0.0.0.0:0", "--trust-network"].map(str::to_owned);
    let mut child = Command::new(PROGRAM)
        .args(["serve", "--http", "127.0.0.1:0", "--store"])
        .arg(place.path("store"))
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let stdout = child.stdout.take().expect("its output");
    let listening = BufReader::new(stdout).lines().next().and_then(Result::ok).unwrap_or_default();
    let _ = child.kill();
    let output = child.wait_with_output().expect("it ends");
    assert!(listening.starts_with("listening on 0.0.0.0:"), "{listening}");
    assert!(text(&output.stderr).contains("NOT PROTECTED: --listen 0.0.0.0:0"), "{}", text(&output.stderr));
}
