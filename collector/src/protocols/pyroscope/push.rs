//! What Pyroscope's clients send: `Push`, of Connect, with profiles of several programs, and `/ingest`, an older form with one profile.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::header::{CONTENT_TYPE, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use axum::routing::any;
use chokepoint_proto::pyroscope::push::v1::{PushRequest, PushResponse};
use chokepoint_proto::stream::Window;
use multer::Multipart;
use serde::Deserialize;

use crate::access::Proven;
use crate::clock::now_unix_ns;
use crate::ingest::{Inbox, MAX_REQUEST_BYTES, NotTaken, Sender};
use crate::protocols::connect::{Call, Code, Codec, Fault, refusal};
use crate::protocols::receive::{Refusal, body, proven};
use crate::protocols::sent::{Described, Kinds, Sent, add_pprof, decode_pprof};

/// Where profiles of several programs are sent.
const PUSH: &str = "/push.v1.PusherService/Push";
/// Where one of one is.
const INGEST: &str = "/ingest";
/// What agents are called that are made of who sends this.
const PROTOCOL: &str = "pyroscope";
/// What a profile measures, in its labels.
const NAME: &str = "__name__";
/// Profiles whose values have the same names, and measure something else.
const SAME_VALUES: [&str; 2] = ["mutex", "block"];

/// Adds both to a router.
pub(crate) fn add_to(router: Router, inbox: &Inbox) -> Router {
    let of_push = inbox.clone();
    let push = move |request: Request| {
        let inbox = of_push.clone();
        async move { pushed(&inbox, request).await.unwrap_or_else(|fault| refusal(&fault)) }
    };
    let of_ingest = inbox.clone();
    let ingest = move |request: Request| {
        let inbox = of_ingest.clone();
        async move { ingested(&inbox, request).await.unwrap_or_else(told) }
    };
    router.route(PUSH, any(push)).route(INGEST, any(ingest))
}

/// A refusal as people read it.
fn told(refusal: Refusal) -> Response {
    let mut response = Response::new(Body::from(refusal.message + "\n"));
    *response.status_mut() = refusal.status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.status {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            _ => Code::InvalidArgument,
        };
        Self::new(code, refusal.message)
    }
}

/// A program's profiles with the time that they are of: host, begin, length.
type Windows = BTreeMap<(String, u64, u64), (Sent, u64)>;

/// The windows of what a request brings to `Push`.
///
/// # Errors
/// It is none, or one of its profiles is not what it should be.
pub fn read_push(codec: Codec, bytes: &[u8]) -> Result<Vec<Window>, String> {
    let request: PushRequest = codec.read(bytes).map_err(|fault| fault.message)?;
    Ok(made(of_push(&request)?))
}

/// The windows of what a request brings to `/ingest`: by its query, its type of content and its body.
///
/// # Errors
/// It is no profile, or nobody can say whose it is.
pub async fn read_ingest(query: &str, content_type: &str, bytes: Vec<u8>) -> Result<Vec<Window>, String> {
    let asked = Ingested::read(query)?;
    let (profile, types) = parts(content_type, bytes).await.map_err(|refusal| refusal.message)?;
    Ok(made(asked.windows(&profile, types)?))
}

fn made(windows: Windows) -> Vec<Window> {
    windows.into_iter().map(|((_, start, length), (sent, _))| sent.window(start, length)).collect()
}

async fn pushed(inbox: &Inbox, request: Request) -> Result<Response, Fault> {
    let (head, sent) = request.into_parts();
    let proven = proven(inbox, &head.headers)?;
    let _room = inbox.room().await.map_err(Refusal::from)?;
    let call = Call::read(&head.method, &head.headers, sent, MAX_REQUEST_BYTES).await?;
    let codec = call.codec;
    let request: PushRequest = call.message()?;
    let count: usize = request.series.iter().map(|series| series.samples.len()).sum();
    let windows = read(inbox, count, move || of_push(&request)).await?;
    store(inbox, &proven, windows).await?;
    let mut response = Response::new(Body::from(codec.write(&PushResponse {})?));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(codec.content_type()));
    Ok(response)
}

/// Profiles that are sent together are stored together or not at all, as far as they are read.
fn of_push(request: &PushRequest) -> Result<Windows, String> {
    let mut windows = Windows::new();
    let mut left = MAX_REQUEST_BYTES;
    for series in &request.series {
        let labels: BTreeMap<String, String> =
            series.labels.iter().map(|label| (label.name.clone(), label.value.clone())).collect();
        let of = Described::new(&labels, PROTOCOL, |_| true);
        let prefix = labels.get(NAME).filter(|name| SAME_VALUES.contains(&name.as_str())).cloned();
        let kinds = Kinds { prefix, names: BTreeMap::new() };
        for sample in &series.samples {
            let profile = decode_pprof(&sample.raw_profile, left)?;
            // Together they are no longer than one may be.
            left = left.saturating_sub(prost::Message::encoded_len(&profile));
            let [start, length] = [profile.time_nanos, profile.duration_nanos]
                .map(|time| u64::try_from(time).unwrap_or_default());
            let start = if start == 0 { now_unix_ns() } else { start };
            let (sent, profiles) = windows.entry((of.host.clone(), start, length)).or_default();
            add_pprof(sent, &profile, &of, &kinds)?;
            *profiles += 1;
        }
    }
    Ok(windows)
}

/// Reads on a thread that may take its time; what is refused is counted.
async fn read(
    inbox: &Inbox,
    profiles: usize,
    work: impl FnOnce() -> Result<Windows, String> + Send + 'static,
) -> Result<Windows, Refusal> {
    let read = tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "what was sent was not read");
        NotTaken::Failed
    })?;
    let refused = if read.is_err() { profiles } else { 0 };
    inbox.count(profiles as u64, refused as u64);
    Ok(read.map_err(NotTaken::Refused)?)
}

async fn store(inbox: &Inbox, proven: &Proven, windows: Windows) -> Result<(), Refusal> {
    for ((host, start, length), (sent, profiles)) in windows {
        // A profile of what did not happen has no samples.
        if sent.is_empty() {
            continue;
        }
        let window: Window = sent.window(start, length);
        let sender = Sender { protocol: PROTOCOL, host, labels: Vec::new() };
        match inbox.take(proven, &sender, &window, profiles).await {
            Ok(_) => {}
            Err(error) => {
                inbox.count(0, if matches!(error, NotTaken::Refused(_)) { profiles } else { 0 });
                return Err(error.into());
            }
        }
    }
    Ok(())
}

/// How a client says what the values of a profile are.
#[derive(Debug, Default, Deserialize)]
struct SampleType {
    #[serde(default, rename = "display-name")]
    display_name: String,
}

async fn ingested(inbox: &Inbox, request: Request) -> Result<Response, Refusal> {
    let (head, sent) = request.into_parts();
    if head.method != Method::POST {
        return Err(Refusal::other(StatusCode::METHOD_NOT_ALLOWED, "profiles are sent with POST"));
    }
    let proven = proven(inbox, &head.headers)?;
    let asked = Ingested::read(head.uri.query().unwrap_or_default()).map_err(NotTaken::Refused)?;
    let _room = inbox.room().await?;
    let bytes = body(&head.headers, sent).await?;
    let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let (profile, types) = parts(content_type.unwrap_or_default(), bytes).await?;
    let windows = read(inbox, 1, move || asked.windows(&profile, types)).await?;
    store(inbox, &proven, windows).await?;
    Ok(Response::new(Body::empty()))
}

/// The profile that a request brings, as its body or as a part of it, and what its values are called.
async fn parts(
    content_type: &str,
    bytes: Vec<u8>,
) -> Result<(Vec<u8>, BTreeMap<String, SampleType>), Refusal> {
    let Ok(boundary) = multer::parse_boundary(content_type) else { return Ok((bytes, BTreeMap::new())) };
    let refused = |error: &dyn std::fmt::Display| {
        Refusal::other(StatusCode::BAD_REQUEST, format!("this is no form with parts: {error}"))
    };
    let stream = tokio_stream::once(Ok::<_, Infallible>(Bytes::from(bytes)));
    let mut form = Multipart::new(stream, boundary);
    let (mut profile, mut types) = (None, BTreeMap::new());
    while let Some(field) = form.next_field().await.map_err(|error| refused(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|error| refused(&error))?;
        match name.as_str() {
            "profile" => profile = Some(bytes.to_vec()),
            "prev_profile" if !bytes.is_empty() => {
                let message = "differences to a profile before are not read: send profiles of a time each";
                return Err(Refusal::other(StatusCode::BAD_REQUEST, message));
            }
            "sample_type_config" => {
                types = serde_json::from_slice(&bytes).map_err(|error| refused(&error))?;
            }
            _ => {}
        }
    }
    let missing = || Refusal::other(StatusCode::BAD_REQUEST, "the form has no part that is called profile");
    Ok((profile.ok_or_else(missing)?, types))
}

/// What a URL says of a profile.
struct Ingested {
    labels: BTreeMap<String, String>,
    from_unix_ns: u64,
    until_unix_ns: u64,
}

impl Ingested {
    fn read(query: &str) -> Result<Self, String> {
        let (mut name, mut from, mut until) = (String::new(), String::new(), String::new());
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*key {
                "name" => name = value.into_owned(),
                "from" => from = value.into_owned(),
                "until" => until = value.into_owned(),
                "format" if !matches!(&*value, "" | "pprof") => {
                    return Err(format!("format {value:?} is not read here: send pprof"));
                }
                _ => {}
            }
        }
        let now = now_unix_ns();
        let until_unix_ns = time(&until, now)?;
        let from_unix_ns = time(&from, until_unix_ns)?;
        if from_unix_ns > until_unix_ns {
            return Err("from is after until".to_owned());
        }
        Ok(Self { labels: labels(&name)?, from_unix_ns, until_unix_ns })
    }

    fn windows(&self, profile: &[u8], types: BTreeMap<String, SampleType>) -> Result<Windows, String> {
        let of = Described::new(&self.labels, PROTOCOL, |_| true);
        let names = types.into_iter().map(|(name, value)| (name, value.display_name));
        let kinds = Kinds { prefix: None, names: names.filter(|(_, shown)| !shown.is_empty()).collect() };
        let profile = decode_pprof(profile, MAX_REQUEST_BYTES)?;
        let mut sent = Sent::default();
        add_pprof(&mut sent, &profile, &of, &kinds)?;
        let length = self.until_unix_ns - self.from_unix_ns;
        Ok([((of.host, self.from_unix_ns, length), (sent, 1))].into())
    }
}

/// Unix time in seconds or in one of the thousandths that clients have, by its size.
fn time(text: &str, usual_unix_ns: u64) -> Result<u64, String> {
    /// 1973, in nanoseconds. Microseconds of this age are below it, and all thousands of thousands of seconds.
    const LEAST_NS: u64 = 100_000_000_000_000_000;
    if text.is_empty() {
        return Ok(usual_unix_ns);
    }
    let mut time: u64 = text.parse().map_err(|_| format!("{text:?} is no time: write Unix seconds"))?;
    while (1..LEAST_NS).contains(&time) {
        time = time.saturating_mul(1000);
    }
    Ok(time)
}

/// `shop.cpu{region=eu,host=a1}`: a service with its labels.
fn labels(name: &str) -> Result<BTreeMap<String, String>, String> {
    let (service, rest) = name.split_once('{').unwrap_or((name, "}"));
    let inner = rest.trim_end().strip_suffix('}').ok_or_else(|| format!("{name:?} ends without }}"))?;
    if service.trim().is_empty() {
        return Err("say whose profile it is: name=SERVICE{label=value}".to_owned());
    }
    let mut labels: BTreeMap<String, String> =
        [("service_name".to_owned(), service.trim().to_owned())].into();
    for pair in inner.split(',').filter(|pair| !pair.trim().is_empty()) {
        let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} is no label=value"))?;
        labels.insert(key.trim().to_owned(), value.trim().trim_matches('"').to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_labels() {
        let of = |name: &str| labels(name).map(|labels| labels.into_iter().collect::<Vec<_>>());
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        assert_eq!(of("shop").expect("a name"), [("service_name", "shop")].map(pair));
        let wanted = [("host", "a1"), ("region", "e u"), ("service_name", "shop.cpu")].map(pair);
        assert_eq!(of("shop.cpu{region=\"e u\", host=a1,}").expect("a name"), wanted);
        for bad in ["", "{a=b}", "shop{a=b", "shop{a}"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_told_apart_by_their_size() {
        for text in ["1767225600", "1767225600000", "1767225600000000", "1767225600000000000"] {
            assert_eq!(time(text, 7), Ok(1_767_225_600_000_000_000), "{text}");
        }
        assert_eq!((time("", 7), time("0", 7)), (Ok(7), Ok(0)));
        assert!(time("now-10s", 7).is_err() && time("-1", 7).is_err());
    }
}
