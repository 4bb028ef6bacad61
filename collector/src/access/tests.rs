//! Who is let in, and as what.

use chokepoint_proto::stream::{Hello, Label};

use super::*;

fn digest(token: &str) -> String {
    Digest::of(token).to_string()
}

fn access(text: &str, binds_hosts: bool) -> (tempfile::TempDir, Access) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tokens.toml");
    std::fs::write(&path, text).expect("it can be written");
    let access = Access::new(Some(&path), binds_hosts).expect("it makes sense");
    (directory, access)
}

fn three() -> String {
    let token = |name: &str, role: Role| {
        format!("[[token]]\nname = '{name}'\nrole = '{role}'\nsha256 = '{}'\n", digest(name))
    };
    token("a", Role::Agent) + &token("r", Role::Reader) + &token("o", Role::Operator)
}

fn bearer(token: &str) -> Vec<u8> {
    format!("Bearer {token}").into_bytes()
}

fn hello(host: &str) -> Hello {
    let labels = vec![Label { name: "zone".to_owned(), value: "z1".to_owned() }];
    Hello { agent: vec![1; 16], host: host.to_owned(), labels, ..Hello::default() }
}

#[test]
fn a_role_may_what_it_includes_and_no_more() {
    let (_directory, access) = access(&three(), false);
    for (token, may) in [("a", [true, false, false]), ("r", [false, true, false]), ("o", [false, true, true])]
    {
        let caller = access.caller(Some(&bearer(token))).expect("it is known");
        assert_eq!((caller.name(), Role::ALL.map(|role| caller.may(role))), (Some(token), may), "{token}");
    }
    let nobody = access.caller(None).expect("nobody is no error");
    assert_eq!(nobody.require(Role::Reader), Err(Denied::NoToken));
    assert!(Role::ALL.iter().all(|role| Access::open().caller(None).expect("anybody").may(*role)));
    // A token that nobody asks for does no harm.
    assert!(Access::open().caller(Some(b"Bearer x")).expect("anybody").may(Role::Operator));
}

#[test]
fn what_is_no_known_token_is_refused() {
    let (_directory, access) = access(&three(), false);
    let denied = |authorization: &[u8]| access.caller(Some(authorization)).map(|_| ()).expect_err("denied");
    assert_eq!(denied(b"Bearer x"), Denied::UnknownToken);
    // What is in the file is not what lets in.
    assert_eq!(denied(&bearer(&digest("a"))), Denied::UnknownToken);
    for text in [&b"Bearer"[..], b"Bearer ", b"Basic YTpi", b"a", b"", b"Bearer \xff", &[b'B'; 10_000]] {
        assert_eq!(denied(text), Denied::NoBearer, "{}", String::from_utf8_lossy(text));
    }
    assert_eq!(denied(&bearer(&"x".repeat(600))), Denied::NoBearer);
    assert!(access.caller(Some(b"  bearer   r ")).is_ok(), "schemes have no case");
}

#[test]
fn files_that_make_no_sense_are_named_with_the_place() {
    let hash = digest("x");
    let token = |rest: &str| format!("[[token]]\nname = 'x'\n{rest}\n");
    let reader = token(&format!("role = 'reader'\nsha256 = '{hash}'"));
    for (text, part) in [
        ("tokens = 1".to_owned(), "tokens"),
        (token("role = 'admin'"), "line 3"),
        (token("role = 'reader'"), "sha256"),
        (token("role = 'reader'\nsha256 = 'chokepoint_abc'"), "64 hexadecimal digits"),
        (token(&format!("role = 'reader'\nsha256 = '{hash}'\nhosts = ['a']")), "the role agent"),
        (token(&format!("role = 'agent'\nsha256 = '{hash}'\nagents = ['12']")), "32 hexadecimal"),
        (token(&format!("role = 'agent'\nsha256 = '{hash}'\nhost = ['a']")), "host"),
        (format!("{reader}{reader}"), "another one"),
        (
            format!("{reader}{}", token(&format!("role = 'agent'\nsha256 = '{}'", digest("y")))),
            "different roles",
        ),
        (reader.replace("'x'", "''"), "1 to 253"),
    ] {
        let error = Tokens::parse(&text, Path::new("tokens.toml")).expect_err(&text).to_string();
        assert!(error.starts_with("tokens: tokens.toml") && error.contains(part), "{text}: {error}");
    }
    assert!(Tokens::parse("", Path::new("x")).expect("nobody is let in").is_empty());
}

#[test]
fn two_tokens_of_one_name_are_one_caller() {
    let text = format!("{}[[token]]\nname = 'r'\nrole = 'reader'\nsha256 = '{}'", three(), digest("new"));
    let (_directory, access) = access(&text, false);
    for token in ["r", "new"] {
        assert_eq!(access.caller(Some(&bearer(token))).expect("known").name(), Some("r"));
    }
}

#[test]
fn an_agent_says_only_what_its_token_is_for() {
    let text = format!(
        "[[token]]\nname = 'a'\nrole = 'agent'\nsha256 = '{}'\nhosts = ['web-*', 'db']\nagents = ['{}']\nlabels = {{ zone = 'z1' }}",
        digest("a"),
        "01".repeat(16),
    );
    let (_directory, access) = access(&text, false);
    let proven = access.agent(Some(&bearer("a")), None).expect("it is an agent");
    assert_eq!(proven.identity(), Some("a"));
    let what = |hello: &Hello| proven.check(hello).err().map(|denied| denied.to_string());
    assert_eq!(what(&hello("web-1")), None);
    assert_eq!(what(&hello("db")), None);
    assert_eq!(what(&hello("db-1")).as_deref(), Some("a may not stream as host db-1"));
    assert!(what(&Hello { agent: vec![2; 16], ..hello("db") }).is_some_and(|why| why.contains("identity")));
    assert!(what(&Hello { labels: Vec::new(), ..hello("db") }).is_some_and(|why| why.contains("zone=\"\"")));
}

#[test]
fn a_certificate_is_enough_and_a_token_beside_it_has_to_be_an_agents() {
    let (_directory, asking) = access(&three(), false);
    let certificate = Certificate::new(vec!["web-1.example".to_owned()]);
    for access in [&asking, &Access::open()] {
        let proven = access.agent(None, Some(&certificate)).expect("it is one");
        assert_eq!(proven.identity(), Some("web-1.example"));
        let nameless = access.agent(None, Some(&Certificate::new(Vec::new()))).expect_err("it names nobody");
        assert_eq!(nameless, Denied::NamelessCertificate);
    }
    let denied =
        |token: &str| asking.agent(Some(&bearer(token)), Some(&certificate)).map(|_| ()).expect_err("denied");
    assert!(matches!(denied("r"), Denied::OtherRole { .. }));
    assert_eq!(denied("x"), Denied::UnknownToken);
    let both = asking.agent(Some(&bearer("a")), Some(&certificate)).expect("it is one");
    assert_eq!(both.identity(), Some("web-1.example"));
    assert_eq!(asking.agent(None, None).map(|_| ()).expect_err("nothing"), Denied::NoToken);
    assert_eq!(Access::open().agent(None, None).expect("anybody").identity(), None);
}

#[test]
fn where_hosts_are_bound_they_have_the_name_that_is_proven() {
    let (_directory, access) = access(&three(), true);
    let certificate = Certificate::new(vec!["web-1.example".to_owned(), "other".to_owned()]);
    let proven = access.agent(None, Some(&certificate)).expect("it is one");
    for (host, may) in
        [("web-1.example", true), ("Web-1", true), ("other", true), ("web-2", false), ("web", false)]
    {
        assert_eq!(proven.check(&hello(host)).is_ok(), may, "{host}");
    }
    let by_token = access.agent(Some(&bearer("a")), None).expect("it is one");
    assert!(by_token.check(&hello("a")).is_ok() && by_token.check(&hello("b")).is_err());
}

#[test]
fn new_tokens_are_long_differ_and_are_known_by_their_hash() {
    let [one, other] = [(); 2].map(|()| Token::random().expect("random numbers"));
    assert_ne!(one.reveal(), other.reveal());
    assert_eq!(one.reveal().len(), "chokepoint_".len() + 64);
    let stanza = format!("[[token]]\nname = 'x'\nrole = 'reader'\nsha256 = '{}'", one.digest());
    let (_directory, access) = access(&stanza, false);
    assert!(access.caller(Some(&bearer(one.reveal()))).is_ok());
    assert!(access.caller(Some(&bearer(other.reveal()))).is_err());
}

#[test]
fn a_file_that_is_changed_counts_and_one_that_makes_no_sense_does_not() {
    use super::files::{Refresh, Refreshed};
    let (directory, access) = access(&three(), false);
    let path = directory.path().join("tokens.toml");
    let tokens = access.tokens().expect("there is a file");
    assert!(matches!(tokens.refresh(true), Refreshed::Same));
    std::fs::write(&path, "[[token]]\nname = 1").expect("it can be written");
    // It was written just now: it may be half of it.
    assert!(matches!(tokens.refresh(false), Refreshed::Same));
    assert!(matches!(tokens.refresh(true), Refreshed::Failed(_)));
    assert!(access.caller(Some(&bearer("r"))).is_ok(), "what was before goes on");
    std::fs::write(&path, "").expect("it can be written");
    assert!(matches!(tokens.refresh(true), Refreshed::New));
    assert_eq!(access.caller(Some(&bearer("r"))).map(|_| ()), Err(Denied::UnknownToken));
}

#[test]
fn nothing_but_loopback_is_listened_on_without_protection_or_consent() {
    let at = |text: &str| text.parse::<std::net::SocketAddr>().expect("an address");
    let (loopback, outside) = (at("127.0.0.1:1"), at("0.0.0.0:1"));
    let none = Protection::default();
    assert!(none.check(loopback, at("[::1]:1")).is_ok());
    let error = none.check(loopback, outside).expect_err("anybody reads").to_string();
    for part in ["--http 0.0.0.0:1", "--tls-cert", "--tokens", "--trust-network"] {
        assert!(error.contains(part) && !error.contains("--listen"), "{error}");
    }
    let files = Some(("c".into(), "k".into()));
    let tls = Protection { certificate: files, ..none.clone() };
    assert!(tls.check(loopback, outside).expect_err("anybody reads").to_string().contains("--tokens"));
    let agents = Protection { client_ca: Some("ca".into()), ..tls.clone() };
    assert!(agents.check(outside, loopback).is_ok() && agents.check(loopback, outside).is_err());
    let all = Protection { tokens: Some("t".into()), ..tls };
    assert!(all.check(outside, outside).is_ok());
    assert!(Protection { trusts_network: true, ..none }.check(outside, outside).is_ok());
}
