//! What goes wrong between two ends, in words for whom connects.

use std::error::Error;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, InconsistentKeys, InvalidMessage};

/// Why a connection with TLS failed, and what to do: for the end that connects. Of errors that are none of TLS, what they say.
#[must_use]
pub fn explain(error: &(dyn Error + 'static)) -> String {
    match of_tls(error) {
        Some(tls) => worded(tls),
        None => error.to_string(),
    }
}

/// The error of TLS that is behind an error.
fn of_tls<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref() {
            return Some(tls);
        }
        // What an error of IO is made of is not what it names as its source.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = inner.map_or_else(|| error.source(), |inner| Some(inner as &(dyn Error + 'static)));
    }
    None
}

fn worded(error: &rustls::Error) -> String {
    use rustls::Error as Tls;
    match error {
        Tls::InvalidCertificate(error) => of_certificate(error),
        Tls::AlertReceived(alert) => of_alert(*alert),
        Tls::InvalidMessage(InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion) => {
            "what listens there does not speak TLS: is it http:// there?".to_owned()
        }
        Tls::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the certificate and the key do not belong together".to_owned()
        }
        error => error.to_string(),
    }
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of no authority that is trusted here: give that of the collector as ca"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: renew it, or set this host's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate is not valid yet: set this host's clock".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let named =
                |name: &String| name.trim_start_matches("DnsName(\"").trim_end_matches("\")").to_owned();
            let presented: Vec<String> = presented.iter().map(named).collect();
            let presented = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            let expected = expected.to_str();
            format!(
                "its certificate is for {presented} and not for {expected}: connect to that name, or set server-name"
            )
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not one of a server: extendedKeyUsage has to have serverAuth".to_owned()
        }
        error => format!("its certificate is not accepted: {error}"),
    }
}

/// What the other end says before it hangs up.
fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "it asks for a client's certificate: give cert and key".to_owned()
        }
        AlertDescription::UnknownCA => {
            "it refuses this client's certificate: it is of no authority that is trusted there".to_owned()
        }
        AlertDescription::CertificateExpired => {
            "it refuses this client's certificate, which has expired: renew it".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => {
            format!("it refuses this client's certificate ({alert:?}): its log says why")
        }
        AlertDescription::NoApplicationProtocol => {
            "something else is spoken there: agents connect to the address of --listen, queries to that of --http".to_owned()
        }
        AlertDescription::ProtocolVersion => "it speaks no version of TLS from 1.2 on".to_owned(),
        alert => format!("it refuses the connection ({alert:?}): its log says why"),
    }
}

/// An error of TLS that is shown in words.
#[derive(Debug)]
pub(crate) struct Worded(String);

impl Worded {
    pub(crate) fn new(error: &rustls::Error) -> Self {
        Self(worded(error))
    }
}

impl fmt::Display for Worded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Worded {}
