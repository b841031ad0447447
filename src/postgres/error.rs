//! What can go wrong between us and a server.

/// An error of the connection or of a statement. Its text is PostgreSQL's own, without a newline at
/// its end; libpq never puts a password into it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostgresError {
    /// The text is neither a connection string nor a URI that libpq can read.
    #[error("not a valid connection string: {0}")]
    InvalidConninfo(String),
    /// No connection could be made, or it was lost.
    #[error("{0}")]
    Connection(String),
    /// The server refused a statement.
    #[error("{message}")]
    Statement {
        /// Five characters (PostgreSQL manual, appendix "PostgreSQL Error Codes").
        sqlstate: String,
        /// Severity, message, detail and hint, as psql prints them.
        message: String,
    },
    /// The server answered something else than the statement can return.
    #[error("unexpected answer from PostgreSQL: {0}")]
    Answer(String),
    /// The deadline passed.
    #[error("no answer from PostgreSQL within the time limit")]
    TimedOut,
    /// This process was asked to stop meanwhile.
    #[error("interrupted while waiting for PostgreSQL")]
    Interrupted,
}

impl PostgresError {
    /// `duplicate_object`
    pub const DUPLICATE_OBJECT: &str = "42710";
    /// `undefined_object`
    pub const UNDEFINED_OBJECT: &str = "42704";
    /// `undefined_file`: of a WAL sender, that the segment has been removed.
    pub const UNDEFINED_FILE: &str = "58P01";
    /// `object_in_use`
    pub const OBJECT_IN_USE: &str = "55006";
    /// `configuration_limit_exceeded`
    pub const CONFIGURATION_LIMIT_EXCEEDED: &str = "53400";
    /// `insufficient_privilege`
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";

    /// The error code of a refused statement.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            PostgresError::Statement { sqlstate, .. } => Some(sqlstate),
            _ => None,
        }
    }

    /// Whether the connection is of no use any more, so that another must be made.
    pub fn is_connection_lost(&self) -> bool {
        matches!(
            self,
            PostgresError::Connection(_) | PostgresError::TimedOut | PostgresError::Interrupted
        )
    }

    /// Whether the same may succeed a moment later without anybody's help: the network or the server
    /// is down or restarts, it lacks resources, an object is in use, or it met an error of its own.
    pub fn is_passing(&self) -> bool {
        match self.sqlstate() {
            Some(Self::OBJECT_IN_USE) => true,
            // Classes of the appendix "PostgreSQL Error Codes".
            Some(code) => ["08", "53", "57", "XX"]
                .iter()
                .any(|class| code.starts_with(class)),
            None => !matches!(self, PostgresError::InvalidConninfo(_)),
        }
    }
}
