//! Connection strings.

use std::collections::BTreeMap;
use std::env;
use std::fmt;

use super::error::PostgresError;
use super::{environment, ffi};

/// What stands in a password's place where a connection string is shown.
const REDACTED: &str = "*REDACTED*";

/// The keywords whose values are secrets.
const SECRETS: [&str; 3] = ["password", "sslpassword", "oauth_client_secret"];

/// A connection string or URI, taken apart by libpq. Shown without its secrets.
#[derive(Clone, PartialEq, Eq)]
pub struct Conninfo(BTreeMap<String, String>);

impl Conninfo {
    /// Reads a connection string (`host=a port=5432`) or a URI (`postgresql://a:5432/`).
    ///
    /// Returns [`PostgresError::InvalidConninfo`] with libpq's words for anything else.
    pub fn parse(text: &str) -> Result<Self, PostgresError> {
        ffi::parse(text).map(Conninfo)
    }

    /// The value of a keyword that is set.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword).map(String::as_str)
    }

    /// The same with a keyword set, whatever it was.
    #[must_use]
    pub fn with(mut self, keyword: &str, value: &str) -> Self {
        self.0.insert(keyword.to_owned(), value.to_owned());
        self
    }

    /// The same with a keyword set where it was not.
    #[must_use]
    pub fn with_default(mut self, keyword: &str, value: &str) -> Self {
        self.0
            .entry(keyword.to_owned())
            .or_insert_with(|| value.to_owned());
        self
    }

    /// The same for an ordinary connection, as Barman makes it. No schema but `pg_catalog` is
    /// searched: nobody's function shall be taken for PostgreSQL's.
    #[must_use]
    pub fn for_queries(self) -> Self {
        self.with_default("application_name", "barman")
            .with_default("options", "-csearch_path=")
    }

    /// The same for a physical replication connection, as Barman and `pg_receivewal` make it
    /// (PostgreSQL manual, "Streaming Replication Protocol").
    #[must_use]
    pub fn for_replication(self) -> Self {
        self.with("replication", "true")
            .with("dbname", "replication")
            .with("options", "-cdatestyle=iso")
    }

    /// The same without its password, for an argument that everybody on this host can read, and the
    /// password, for the environment variable `PGPASSWORD`.
    pub fn without_password(mut self) -> (Self, Option<String>) {
        let password = self.0.remove("password");
        (self, password)
    }

    /// A connection string with everything in it, secrets too.
    pub fn to_connection_string(&self) -> String {
        self.join(|_, value| quoted(value))
    }

    fn join(&self, show: impl Fn(&str, &str) -> String) -> String {
        let pairs = self
            .0
            .iter()
            .map(|(keyword, value)| format!("{keyword}={}", show(keyword, value)));
        pairs.collect::<Vec<_>>().join(" ")
    }

    /// What libpq is given: the same, with Debian's socket directory where nothing names a host.
    pub(super) fn keywords(&self) -> Result<BTreeMap<String, String>, PostgresError> {
        let mut keywords = self.0.clone();
        if let Some(directory) = environment::socket_directory()
            && !self.names_a_host()?
        {
            keywords.insert("host".to_owned(), directory.to_owned());
        }
        Ok(keywords)
    }

    fn names_a_host(&self) -> Result<bool, PostgresError> {
        let set =
            |keyword, variable| self.get(keyword).is_some() || env::var_os(variable).is_some();
        if set("host", "PGHOST") || set("hostaddr", "PGHOSTADDR") {
            return Ok(true);
        }
        Ok(set("service", "PGSERVICE")
            && ffi::RawConnection::resolve(&self.0)?.contains_key("host"))
    }
}

/// Values are quoted where blanks, quotes or backslashes would end or change them (PostgreSQL
/// manual, "Keyword/Value Connection Strings").
fn quoted(value: &str) -> String {
    let plain = |character: char| !character.is_whitespace() && !matches!(character, '\'' | '\\');
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\\', r"\\").replace('\'', r"\'"))
}

impl fmt::Display for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &self.join(|keyword, value| match SECRETS.contains(&keyword) {
                true => REDACTED.to_owned(),
                false => quoted(value),
            }),
        )
    }
}

impl fmt::Debug for Conninfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conninfo({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_and_uris_are_read_as_libpq_reads_them() {
        let string = Conninfo::parse(r"host=a port = 1 password='it\'s \\ secret'").unwrap();
        assert_eq!(string.get("password"), Some(r"it's \ secret"));
        assert_eq!(string.get("port"), Some("1"));
        let uri = Conninfo::parse("postgresql://u:p%20w@h1,h2:2/db?sslmode=require").unwrap();
        assert_eq!(uri.get("host"), Some("h1,h2"));
        assert_eq!(uri.get("password"), Some("p w"));
        assert_eq!(uri.get("dbname"), Some("db"));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        for value in ["a", "", "a b", r"it's", r"back\slash", "new\nline", "a=b"] {
            let conninfo = Conninfo::parse("host=h").unwrap().with("password", value);
            let again = Conninfo::parse(&conninfo.to_connection_string()).unwrap();
            assert_eq!(again, conninfo, "{value:?}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let conninfo = Conninfo::parse("host=h password=geheim sslpassword=geheim").unwrap();
        assert!(!format!("{conninfo} {conninfo:?}").contains("geheim"));
        let (rest, password) = conninfo.without_password();
        assert_eq!(password.as_deref(), Some("geheim"));
        assert_eq!(rest.get("password"), None);
    }

    #[test]
    fn nonsense_is_refused_in_libpqs_words() {
        for text in ["host", "nosuchkeyword=1", "postgresql://[::1", "host='open"] {
            let error = Conninfo::parse(text).unwrap_err();
            assert!(
                matches!(error, PostgresError::InvalidConninfo(_)),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn pieces_of_a_password_that_should_have_been_quoted_are_not_shown() {
        for text in [
            "password=open sesame",
            "password=open sesame=street",
            "password=a b c",
        ] {
            let error = Conninfo::parse(text).unwrap_err().to_string();
            assert!(
                !error.contains("sesame") && !error.contains("\"b"),
                "{error}"
            );
            assert!(error.contains("\"...\""), "{error}");
        }
    }
}
