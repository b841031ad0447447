//! What an object store's answers mean, in the terms of the rest of walarch.

use std::error::Error;
use std::io;

use object_store::client::{HttpError, HttpErrorKind};

/// The most that is repeated of what a store says.
const TEXT_CHARS_MAX: usize = 400;

/// The codes of S3 and Google, and of Azure, for a bucket that does not exist.
const NO_BUCKET: [&str; 2] = ["NoSuchBucket", "ContainerNotFound"];

/// The same for an object that does not exist.
const NO_OBJECT: [&str; 2] = ["NoSuchKey", "BlobNotFound"];

/// An object store cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {location}: {reason}\nHINT: {hint}")]
pub struct CloudError {
    location: String,
    reason: String,
    hint: &'static str,
}

impl CloudError {
    pub(super) fn new(location: &str, reason: impl ToString, hint: &'static str) -> Self {
        CloudError {
            location: location.to_owned(),
            reason: one_line(&reason.to_string()),
            hint,
        }
    }
}

/// What an operation of an object store came to, told in an [`io::Error`]: `NotFound` for an object that is
/// not there, `TimedOut`, `ConnectionRefused`, `ConnectionReset`, `ConnectionAborted` for a store that cannot be reached
/// or does not work, `NotConnected` for one that refuses: credentials that do not suffice, no such bucket.
pub(super) fn io_error(error: object_store::Error) -> io::Error {
    use object_store::Error as E;
    let text = one_line(&with_causes(&error));
    let kind = match &error {
        // No bucket at all: that says nothing about the object.
        E::NotFound { .. } if NO_BUCKET.iter().any(|code| text.contains(code)) => {
            io::ErrorKind::NotConnected
        }
        E::NotFound { .. } => io::ErrorKind::NotFound,
        E::AlreadyExists { .. } => io::ErrorKind::AlreadyExists,
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => io::ErrorKind::NotConnected,
        E::NotSupported { .. } | E::NotImplemented { .. } => io::ErrorKind::Unsupported,
        E::Precondition { .. } | E::NotModified { .. } => io::ErrorKind::Other,
        other => transport_kind(other).unwrap_or(io::ErrorKind::ConnectionAborted),
    };
    io::Error::new(kind, text)
}

/// Whether a `NotFound` carries the code that object stores alone give. Without it, whoever else answers HTTP may have
/// said so: a proxy, a host name that leads elsewhere.
pub(super) fn is_of_a_store(error: &io::Error) -> bool {
    let text = error.to_string();
    NO_OBJECT.iter().any(|code| text.contains(code))
}

/// The error of a listing that should have confirmed that an object is absent. Never `NotFound`: a store gives none to a
/// listing.
pub(super) fn unconfirmed(error: io::Error) -> io::Error {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => io::ErrorKind::NotConnected,
        kind => kind,
    };
    io::Error::new(
        kind,
        format!(
            "a file counts as absent only where the bucket can be listed (is cloud_endpoint_url right, is listing \
             allowed?): {error}"
        ),
    )
}

fn transport_kind(error: &object_store::Error) -> Option<io::ErrorKind> {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(error) = cause {
        if let Some(http) = error.downcast_ref::<HttpError>() {
            return Some(match http.kind() {
                HttpErrorKind::Timeout => io::ErrorKind::TimedOut,
                HttpErrorKind::Connect => io::ErrorKind::ConnectionRefused,
                _ => io::ErrorKind::ConnectionReset,
            });
        }
        cause = error.source();
    }
    None
}

/// Whether a request may have been carried out although it was answered with this error, or not at all.
pub(super) fn may_have_happened(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::NotConnected
            | io::ErrorKind::Unsupported
            | io::ErrorKind::ConnectionRefused
    )
}

/// An error and what it does not say itself of its causes: that a certificate is unknown, say.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.contains(&reason) {
            text.push_str(": ");
            text.push_str(&reason);
        }
        cause = error.source();
    }
    text
}

/// One line of a reasonable length: of an XML answer, its code and message.
fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some(start) = line.find('<') {
        let element = |name: &str| {
            let (_, rest) = line.split_once(&format!("<{name}>"))?;
            rest.split_once("</").map(|(value, _)| value)
        };
        let said: Vec<&str> = ["Code", "Message"]
            .iter()
            .filter_map(|name| element(name))
            .collect();
        if !said.is_empty() {
            let before = line.get(..start).unwrap_or_default();
            line = format!("{before}{}", said.join(": "));
        }
    }
    match line.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}...", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_xml_becomes_one_line() {
        let text = "Server returned non-2xx status code: 400: <?xml version=\"1.0\"?>\n<Error>\n\
                    <Code>ExpiredToken</Code>\n<Message>The token has\nexpired.</Message></Error>";
        assert_eq!(
            one_line(text),
            "Server returned non-2xx status code: 400: ExpiredToken: The token has expired."
        );
        assert_eq!(one_line("plain <text"), "plain <text");
        assert_eq!(
            one_line(&"ä".repeat(500)).chars().count(),
            TEXT_CHARS_MAX + 3
        );
    }
}
