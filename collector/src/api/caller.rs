//! Who asks, and whether they may have something done. Queries only read; a profile on demand costs the host that makes it.

use std::net::IpAddr;

use axum::http::header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN};
use axum::http::uri::{Authority, Uri};
use axum::http::{Extensions, HeaderMap};

use super::answer::Refused;
use super::endpoints::JSON;
use crate::access::{Caller, Role};

/// What browsers say of where a request is from.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The other end of the connection that a request came on.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// The name of the one who wants something done, if they may: that of their token, or their address where nobody is asked for one.
pub(super) fn operator(extensions: &Extensions) -> Result<String, Refused> {
    let nobody = Caller::nobody();
    let caller = extensions.get::<Caller>().unwrap_or(&nobody);
    caller.require(Role::Operator).map_err(Refused::Denied)?;
    let address = || extensions.get::<Peer>().map(|Peer(address)| address.to_canonical().to_string());
    Ok(caller.name().map(ToOwned::to_owned).or_else(address).unwrap_or_default())
}

/// A page of anybody's may have a browser ask this collector, without reading what it answers. It may neither send JSON nor delete unless it is
/// allowed to, which it never is; and a browser says whose page asks.
pub(crate) fn not_from_elsewhere(headers: &HeaderMap, has_body: bool) -> Result<(), Refused> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    if text(FETCH_SITE).is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(Refused::FromElsewhere);
    }
    if let Some(origin) = text(ORIGIN) {
        let origin = origin.parse::<Uri>().ok().and_then(|origin| origin.authority().cloned());
        let own = text(HOST).and_then(|host| host.parse::<Authority>().ok());
        if origin.is_none() || origin != own {
            return Err(Refused::FromElsewhere);
        }
    }
    let essence = |value: &str| value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if has_body && text(CONTENT_TYPE).map(essence).as_deref() != Some(JSON) {
        return Err(Refused::NotJson);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)], has_body: bool) -> bool {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().expect("a header's value")));
        not_from_elsewhere(&headers.collect(), has_body).is_ok()
    }

    #[test]
    fn other_pages_have_nothing_done() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "127.0.0.1:4041");
        assert!(of(&[json, host], true));
        assert!(of(&[host], false));
        assert!(of(
            &[json, host, ("origin", "http://127.0.0.1:4041"), ("sec-fetch-site", "same-origin")],
            true
        ));
        for kind in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; a=application/json"]
        {
            assert!(!of(&[("content-type", kind), host], true), "{kind}");
        }
        assert!(!of(&[host], true));
        for origin in ["http://evil.example", "http://127.0.0.1:80", "null", "http://localhost:4041"] {
            assert!(!of(&[json, host, ("origin", origin)], true), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert!(!of(&[host, ("sec-fetch-site", site)], false), "{site}");
        }
    }

    #[test]
    fn only_operators_have_something_done() {
        let of = |caller: Option<Caller>| {
            let mut extensions = Extensions::new();
            extensions.insert(Peer("::ffff:127.0.0.1".parse().expect("an address")));
            if let Some(caller) = caller {
                extensions.insert(caller);
            }
            operator(&extensions)
        };
        assert_eq!(of(Some(Caller::anybody())).expect("nobody is asked"), "127.0.0.1");
        assert!(of(Some(Caller::nobody())).is_err() && of(None).is_err());
    }
}
