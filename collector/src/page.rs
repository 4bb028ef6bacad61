//! The page for people, beside the API: its files are part of the program (`build.rs`), and what they show they ask the API for.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;

/// A file of the page.
#[derive(Clone, Copy, Debug)]
struct File {
    /// Below the page's root.
    path: &'static str,
    plain: &'static [u8],
    /// Compressed, where that is shorter.
    gzip: Option<&'static [u8]>,
}

include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// The file that every view begins with.
const INDEX: &str = "index.html";
/// Files whose names change with what is in them.
const HASHED: &str = "assets/";
/// Paths that are views: the page itself tells them apart.
pub const VIEWS: [&str; 7] = ["/", "/verdict", "/explore", "/host", "/pod", "/compare", "/profile"];

/// The page runs its own files only, asks nobody else, and no markup can be made of text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// What is shown where the page was not built.
const NOT_BUILT: &[u8] = b"<!doctype html>\n<html lang=\"en\">\n<title>Chokepoint</title>\n\
    <h1>This collector was built without its page</h1>\n\
    <p>Build it with <code>cargo xtask build</code>, which needs Node.js and npm; plain <code>cargo build</code> leaves the page out.</p>\n\
    <p>Queries work all the same: see <a href=\"/api/v1/openapi.json\">what can be asked</a>.</p>\n</html>\n";

/// The same router, with the page beside what it has.
pub fn beside(router: Router) -> Router {
    if FILES.is_empty() {
        tracing::warn!("this collector was built without its page: cargo xtask build builds it with it");
    }
    serve(router, FILES)
}

fn serve(mut router: Router, files: &'static [File]) -> Router {
    let index = files.iter().find(|file| file.path == INDEX).copied();
    for view in VIEWS {
        let answers = move |headers: HeaderMap| async move {
            index.map_or_else(not_built, |file| answer(file, &headers))
        };
        router = router.route(view, get(answers));
    }
    for file in files.iter().filter(|file| file.path != INDEX).copied() {
        let answers = move |headers: HeaderMap| async move { answer(file, &headers) };
        router = router.route(&format!("/{}", file.path), get(answers));
    }
    router
}

fn answer(file: File, asked: &HeaderMap) -> Response {
    let gzip = file.gzip.filter(|_| takes_gzip(asked));
    let mut response = with_policy(StatusCode::OK, gzip.unwrap_or(file.plain));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type(file.path)));
    headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    if gzip.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let keep = if file.path.starts_with(HASHED) { "public, max-age=31536000, immutable" } else { "no-cache" };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(keep));
    response
}

fn not_built() -> Response {
    let mut response = with_policy(StatusCode::NOT_IMPLEMENTED, NOT_BUILT);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type(INDEX)));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn with_policy(status: StatusCode, bytes: &'static [u8]) -> Response {
    let mut response = Response::new(Body::from(Bytes::from_static(bytes)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    for (name, value) in
        [("cross-origin-opener-policy", "same-origin"), ("cross-origin-resource-policy", "same-origin")]
    {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Whether whoever asks reads gzip: it is named, and not with a weight of 0.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let accepted = asked.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let is_refused =
            weight.trim().strip_prefix("q=").is_some_and(|weight| weight.parse::<f32>() == Ok(0.0));
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map_or("", |(_, end)| end) {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use chokepoint_analysis::activity::Class;
    use http_body_util::BodyExt;
    use hyper::service::Service;
    use hyper_util::service::TowerToHyperService;
    use serde_json::json;

    use super::*;

    const PAGE: &[File] = &[
        File { path: "assets/index-1a2b.js", plain: b"let a;", gzip: Some(b"packed") },
        File { path: "index.html", plain: b"<!doctype html>", gzip: None },
    ];

    async fn ask(router: &Router, path: &str, encoding: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        let request = Request::builder().uri(path).header("accept-encoding", encoding);
        let request = request.body(Body::empty()).expect("a request");
        let answer = TowerToHyperService::new(router.clone()).call(request).await.expect("an answer");
        let (head, body) = answer.into_parts();
        (head.status, head.headers, body.collect().await.expect("a body").to_bytes().to_vec())
    }

    #[tokio::test]
    async fn every_view_is_the_page_and_may_load_its_own_files_only() {
        let router = serve(Router::new(), PAGE);
        for view in VIEWS {
            let (status, headers, body) = ask(&router, &format!("{view}?a=b"), "gzip").await;
            assert_eq!((status, body.as_slice()), (StatusCode::OK, &b"<!doctype html>"[..]), "{view}");
            assert_eq!(headers["content-type"], "text/html; charset=utf-8");
            assert_eq!(headers["cache-control"], "no-cache");
            let policy = headers["content-security-policy"].to_str().expect("text");
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"),
                "{policy}"
            );
            assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(headers["x-content-type-options"], "nosniff");
        }
        assert_eq!(ask(&router, "/other", "").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn files_are_kept_and_compressed_for_those_who_read_that() {
        let router = serve(Router::new(), PAGE);
        for (encoding, is_packed) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5, br", true),
            ("", false),
            ("br", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000, br", false),
        ] {
            let (status, headers, body) = ask(&router, "/assets/index-1a2b.js", encoding).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(headers["content-type"], "text/javascript; charset=utf-8");
            assert_eq!(headers["cache-control"], "public, max-age=31536000, immutable");
            assert_eq!(headers["vary"], "accept-encoding");
            assert_eq!(headers.contains_key("content-encoding"), is_packed, "{encoding}");
            assert_eq!(body, if is_packed { &b"packed"[..] } else { b"let a;" }, "{encoding}");
        }
    }

    #[tokio::test]
    async fn without_the_page_it_is_told_how_to_build_it() {
        let (status, _, body) = ask(&serve(Router::new(), &[]), "/", "").await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED);
        assert!(String::from_utf8_lossy(&body).contains("cargo xtask build"));
    }

    /// All that a browser fetches for every view together, compressed.
    #[test]
    fn the_page_weighs_less_than_300_kb() {
        let bytes: usize = PAGE.iter().map(|file| file.gzip.unwrap_or(file.plain).len()).sum();
        println!("the page weighs {bytes} bytes, compressed");
        assert!(bytes < 300_000, "{bytes} bytes");
    }

    /// Colours of classes are the same in pictures, terminals and the page: its list is made here.
    #[test]
    fn the_page_has_the_classes_and_colours_of_the_analysis() {
        let shown = |class: Class| {
            let [r, g, b] = class.colour();
            let group = class.group().name();
            json!({"name": class.name(), "group": group, "colour": format!("#{r:02x}{g:02x}{b:02x}")})
                .to_string()
        };
        let classes: Vec<String> = Class::ALL.into_iter().map(shown).collect();
        let list = format!("[\n  {}\n]\n", classes.join(",\n  "));
        crate::golden::check("../../ui/src/classes.json", &list);
    }
}
