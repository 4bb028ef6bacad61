//! Servers that speak TLS and ask who one is.

use std::error::Error;

use chokepoint_collector::store::clickhouse::{ClickHouse, Login, Options, Servers};
use chokepoint_tls::testing::Authority;

use super::common::clickhouse::{Server, options};
use super::common::*;

#[test]
fn a_store_is_spoken_to_with_tls_by_a_user_with_a_password() {
    let directory = directory();
    let authority = Authority::new(directory.path(), "servers");
    let issued = authority.issue(&["localhost"]);
    let Some(server) = Server::start_encrypted(&issued, "collector", "a 'secret'") else { return };
    let at = |host: &str| -> Servers {
        format!("clickhouses://{host}:{}/private", server.encrypted_address().port())
            .parse()
            .expect("an address")
    };
    let login = |password: &str| Login::parse(&format!("collector\n{password}\n")).expect("a login");
    let with = |password: &str, ca| Options { login: Some(login(password)), ca, ..options() };
    let trusted = || Some(authority.ca.clone());
    let store = ClickHouse::open(&at("localhost"), &with("a 'secret'", trusted())).expect("a store");
    let truth = fill_hosts(&store, 2, START, 1, 5);
    assert_eq!(told(&store, 0, u64::MAX), truth);

    let refused = |host: &str, options: Options| {
        let error = ClickHouse::open(&at(host), &options).expect_err("it is refused");
        error.source().map_or_else(String::new, ToString::to_string)
    };
    let other = Authority::new(directory.path(), "others");
    let unknown = refused("localhost", with("a 'secret'", Some(other.ca.clone())));
    assert!(unknown.contains("of no authority that is trusted here"), "{unknown}");
    let named = refused("127.0.0.1", with("a 'secret'", trusted()));
    assert!(named.contains("localhost") && named.contains("127.0.0.1"), "{named}");
    let wrong = refused("localhost", with("guessed", trusted()));
    assert!(wrong.to_lowercase().contains("password") && !wrong.contains("guessed"), "{wrong}");
    let missing = refused("localhost", with("a 'secret'", Some(directory.path().join("none.pem"))));
    assert!(missing.contains("none.pem"), "{missing}");
}
