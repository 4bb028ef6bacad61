//! Which names a collector answers to.
//!
//! A page of anybody's may have its own name lead to 127.0.0.1, and then ask what listens there as if it were its own server. Such a
//! request has that name in its `Host`; one by address, or by a name that the operator knows, has not.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::middleware::{Next, from_fn};

use super::answer::{Refused, response};

/// A router that answers only requests to an address, to `localhost`, or to one of these names.
pub fn only_for_hosts(router: Router, names: Vec<String>) -> Router {
    let names: Arc<[String]> = names.into();
    router.layer(from_fn(move |request: Request, next: Next| {
        let names = Arc::clone(&names);
        async move {
            let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
            // A browser always says whom it asks.
            if host.is_none_or(|host| is_own(host, &names)) {
                next.run(request).await
            } else {
                response(Err(Refused::OtherHost))
            }
        }
    }))
}

/// Whether a `Host` is an address or one of the names; it may have a port.
fn is_own(host: &str, names: &[String]) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || names.iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_known_names_are_own() {
        let names = ["profiles.example".to_owned()];
        for own in
            ["127.0.0.1:4041", "[::1]:4041", "[::1]", "localhost:4041", "LOCALHOST", "Profiles.Example:80"]
        {
            assert!(is_own(own, &names), "{own}");
        }
        for other in
            ["", "evil.example:4041", "localhost.evil.example", "127.0.0.1.evil.example", "[::1", "a b", "1"]
        {
            assert!(!is_own(other, &names), "{other}");
        }
    }
}
