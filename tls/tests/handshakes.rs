//! Both ends with certificates of every kind, and what is said where one does not trust the other.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use chokepoint_tls::testing::{Authority, Issued};
use chokepoint_tls::{
    Client, ClientFiles, HTTP_1, HTTP_2, Server, ServerFiles, Stamp, dns_names, explain, read_secret,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn server(issued: &Issued, client_ca: Option<&Authority>) -> ServerFiles {
    let client_ca = client_ca.map(|authority| authority.ca.clone());
    ServerFiles { cert: issued.cert.clone(), key: issued.key.clone(), client_ca }
}

/// What a client hears that connects to `localhost` and asks for something; and the names that the server knows it by.
async fn meet(server: &ServerFiles, client: &ClientFiles) -> Result<Vec<String>, String> {
    let server = Server::new(server, HTTP_2).expect("a server");
    let client = Client::new(client, HTTP_2).expect("a client");
    let (near, far) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(async move {
        let mut stream = server.accept(far).await.map_err(|(error, _)| error.to_string())?;
        let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let names = certificates.first().map(dns_names).unwrap_or_default();
        let _ = stream.write_all(b"answer").await;
        let _ = stream.shutdown().await;
        Ok::<_, String>(names)
    });
    let mut stream = client.connect(near, "localhost").await.map_err(|error| error.to_string())?;
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).await.map_err(|error| explain(&error))?;
    serving.await.expect("no panic")
}

#[tokio::test]
async fn ends_that_trust_each_other_speak() {
    let directory = directory();
    let ours = Authority::new(directory.path(), "ours");
    let host = ours.issue(&["localhost"]);
    assert_eq!(meet(&server(&host, None), &ours.client()).await, Ok(Vec::new()));
    let agent = ours.issue(&["Web-1.example", "web-1"]).shown_by(ours.client());
    let names = vec!["web-1.example".to_owned(), "web-1".to_owned()];
    assert_eq!(meet(&server(&host, Some(&ours)), &agent).await, Ok(names));
    // Who shows one that nobody asks for is nobody by it.
    assert_eq!(meet(&server(&host, None), &agent).await, Ok(Vec::new()));
    let other_name = ours.issue(&["collector.example"]);
    let named = ClientFiles { server_name: Some("collector.example".to_owned()), ..ours.client() };
    assert_eq!(meet(&server(&other_name, None), &named).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_client_hears_why_it_is_not_to_trust_or_not_trusted() {
    let directory = directory();
    let ours = Authority::new(directory.path(), "ours");
    let elsewhere = self::directory();
    let theirs = Authority::new(elsewhere.path(), "theirs");
    let host = ours.issue(&["localhost"]);
    let asking = server(&host, Some(&ours));
    for (server, client, part) in [
        (server(&host, None), theirs.client(), "give that of the collector as ca"),
        (server(&ours.issue_expired(&["localhost"]), None), ours.client(), "has expired: renew it"),
        (
            server(&ours.issue(&["a.example", "b.example"]), None),
            ours.client(),
            "is for a.example, b.example and not for localhost",
        ),
        (asking.clone(), ours.client(), "asks for a client's certificate: give cert and key"),
        (
            asking.clone(),
            theirs.issue(&["web-1"]).shown_by(ours.client()),
            "of no authority that is trusted there",
        ),
        (
            asking.clone(),
            ours.issue_expired(&["web-1"]).shown_by(ours.client()),
            "which has expired: renew it",
        ),
    ] {
        let heard = meet(&server, &client).await.expect_err(part);
        assert!(heard.contains(part) && !heard.contains('\n'), "{part}: {heard}");
    }
}

#[tokio::test]
async fn a_client_hears_that_something_else_is_spoken() {
    let directory = directory();
    let ours = Authority::new(directory.path(), "ours");
    let client = Client::new(&ours.client(), HTTP_2).expect("a client");
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let answering = tokio::spawn(async move { far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await });
    let heard = client.connect(near, "localhost").await.expect_err("no TLS").to_string();
    assert!(heard.contains("does not speak TLS"), "{heard}");
    answering.await.expect("no panic").expect("it was sent");

    let queries = Server::new(&server(&ours.issue(&["localhost"]), None), HTTP_1).expect("a server");
    let (near, far) = tokio::io::duplex(64 << 10);
    let serving = tokio::spawn(async move { queries.accept(far).await.map(|_| ()) });
    let heard = client.connect(near, "localhost").await.expect_err("another protocol").to_string();
    assert!(heard.contains("--listen"), "{heard}");
    assert!(serving.await.expect("no panic").is_err());
}

#[test]
fn files_that_are_of_no_use_are_named_with_what_is_wrong() {
    let directory = directory();
    let ours = Authority::new(directory.path(), "ours");
    let (host, other) = (ours.issue(&["localhost"]), ours.issue(&["other"]));
    let refused = |files: &ServerFiles| Server::new(files, HTTP_1).err().expect("it is refused").to_string();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).expect("it can be written");
        path
    };
    let mixed = ServerFiles { key: other.key.clone(), ..server(&host, None) };
    assert!(refused(&mixed).contains("do not belong together"), "{}", refused(&mixed));
    let none = ServerFiles { cert: directory.path().join("none"), ..server(&host, None) };
    assert!(refused(&none).contains("cannot read"), "{}", refused(&none));
    let folder = ServerFiles { cert: directory.path().to_owned(), ..server(&host, None) };
    assert!(refused(&folder).contains("is no file"), "{}", refused(&folder));
    let empty = ServerFiles { cert: file("empty", ""), ..server(&host, None) };
    assert!(refused(&empty).contains("has no certificate"), "{}", refused(&empty));
    let no_key = ServerFiles { key: file("no.key", "secret"), ..server(&host, None) };
    set_mode(&no_key.key, 0o600);
    assert!(refused(&no_key).contains("no.key has no private key"), "{}", refused(&no_key));
    let cut = ServerFiles { cert: file("cut", "-----BEGIN CERTIFICATE-----\nMIIB\n"), ..server(&host, None) };
    assert!(refused(&cut).contains("ends within"), "{}", refused(&cut));
    let no_authority = ServerFiles { client_ca: Some(host.key.clone()), ..server(&host, None) };
    assert!(refused(&no_authority).contains("has no certificate"), "{}", refused(&no_authority));
    set_mode(&host.key, 0o604);
    assert!(refused(&server(&host, None)).contains("chmod 600"), "{}", refused(&server(&host, None)));
    set_mode(&host.key, 0o640);
    assert!(Server::new(&server(&host, None), HTTP_1).is_ok(), "a group may be let read it");
    let half = ClientFiles { cert: Some(host.cert), ..ours.client() };
    assert!(Client::new(&half, HTTP_1).err().expect("half").to_string().contains("both cert and key"));
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .expect("its permissions can be set");
}

#[test]
fn a_secret_is_read_without_what_is_around_it_and_not_where_all_may_read_it() {
    let directory = directory();
    let path = directory.path().join("token");
    std::fs::write(&path, "  abc \n").expect("it can be written");
    set_mode(&path, 0o600);
    assert_eq!(read_secret(&path).expect("a secret"), "abc");
    set_mode(&path, 0o644);
    assert!(read_secret(&path).expect_err("exposed").to_string().contains("chmod 600"));
    std::fs::write(&path, "\n").expect("it can be written");
    set_mode(&path, 0o600);
    assert!(read_secret(&path).expect_err("empty").to_string().contains("is empty"));
}

#[test]
fn a_stamp_tells_that_a_file_was_replaced() {
    let directory = directory();
    let path = directory.path().join("a");
    let stamp = || Stamp::of([path.as_path()]);
    let none = stamp();
    std::fs::write(&path, "1").expect("it can be written");
    let first = stamp();
    assert!(none != first && first == stamp() && !first.is_settled() && none.is_settled());
    let other = directory.path().join("b");
    std::fs::write(&other, "2").expect("it can be written");
    let file = std::fs::File::options().write(true).open(&other).expect("a file");
    file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(60)).expect("its time");
    std::fs::rename(&other, &path).expect("it takes its place");
    assert!(stamp() != first && stamp().is_settled());
}
