//! Asks a server, and what is installed here, all that `check` and `status` want to know, at the same
//! time.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::config::{ReceiverKind, ServerConfig};
use crate::postgres::{
    Connection, Conninfo, Limits, PostgresError, ReplicationSlot, ServerFacts, SystemIdentity,
    WalSender, find_slot, find_wal_sender, identify_system,
};
use crate::receiver::ReceiverProgram;

/// What we call ourselves where a connection string does not say.
const APPLICATION_NAME: &str = "walarch";

/// There is no time left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimedOut;

/// The answer to a question that somebody else works on. Nobody waits for that once it is dropped.
pub(super) struct Pending<T>(Receiver<T>);

impl<T: Send + 'static> Pending<T> {
    /// Begins to work on it.
    pub(super) fn start(work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::sync_channel(1);
        let work = move || {
            // Nobody listens any more if we were too slow.
            let _ = sender.send(work());
        };
        if let Err(error) = thread::Builder::new().spawn(work) {
            tracing::error!("cannot start a thread: {error}");
        }
        Pending(receiver)
    }

    /// Waits for the answer. One that nobody works on never comes either.
    pub(super) fn wait(self, deadline: Option<Instant>) -> Result<T, TimedOut> {
        let Some(deadline) = deadline else {
            return self.0.recv().map_err(|_| TimedOut);
        };
        match self
            .0
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(answer) => Ok(answer),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Err(TimedOut),
        }
    }
}

/// The answers over an ordinary connection.
#[derive(Clone, Debug)]
pub(super) struct Ordinary {
    pub(super) facts: ServerFacts,
    /// The configured replication slot.
    pub(super) slot: Option<ReplicationSlot>,
    /// The receiver, as the server sees it.
    pub(super) wal_sender: Option<WalSender>,
}

/// The answers over a replication connection.
#[derive(Clone, Debug)]
pub(super) struct Streaming {
    /// As a number: 150018 for 15.18.
    pub(super) version: i32,
    /// `None` if the server takes us for an ordinary client.
    pub(super) identity: Option<SystemIdentity>,
}

type Answer<T> = Result<T, PostgresError>;

/// Everything that was answered about one server.
pub(super) struct Answers {
    /// Over `conninfo`; `None` where that is not set.
    pub(super) ordinary: Option<Answer<Ordinary>>,
    /// Over `streaming_conninfo`; `None` where nothing uses that.
    pub(super) streaming: Option<Answer<Streaming>>,
    /// Over `wal_conninfo` and `wal_streaming_conninfo`, where they say something else.
    pub(super) wal: Option<WalAnswers>,
    /// Over `primary_conninfo`.
    pub(super) primary: Option<Answer<Ordinary>>,
    pub(super) program: Option<ReceiverProgram>,
}

pub(super) struct WalAnswers {
    pub(super) ordinary: Answer<Ordinary>,
    pub(super) streaming: Option<Answer<Streaming>>,
}

impl Answers {
    /// What is known of the server that is archived from.
    pub(super) fn facts(&self) -> Option<&ServerFacts> {
        Some(&self.ordinary.as_ref()?.as_ref().ok()?.facts)
    }

    /// The connection that WAL is received over, as an ordinary one.
    pub(super) fn wal_source(&self) -> Option<&Ordinary> {
        match &self.wal {
            Some(wal) => wal.ordinary.as_ref().ok(),
            None => self.ordinary.as_ref()?.as_ref().ok(),
        }
    }

    /// The version of the server that `streaming_conninfo` leads to.
    pub(super) fn streaming_version(&self) -> Option<i32> {
        Some(self.streaming.as_ref()?.as_ref().ok()?.version)
    }

    /// The timeline of the server.
    pub(super) fn timeline(&self) -> Option<u32> {
        let of_segment = self.facts()?.current_segment.as_ref();
        let of_identity = || {
            let streaming = self.streaming.as_ref()?.as_ref().ok()?;
            Some(streaming.identity?.timeline)
        };
        of_segment.map(|name| name.timeline()).or_else(of_identity)
    }
}

/// Questions that are being worked on.
pub(super) struct Inquiry {
    ordinary: Option<Pending<Answer<Ordinary>>>,
    streaming: Option<Pending<Answer<Streaming>>>,
    wal_ordinary: Option<Pending<Answer<Ordinary>>>,
    wal_streaming: Option<Pending<Answer<Streaming>>>,
    primary: Option<Pending<Answer<Ordinary>>>,
    program: Option<Pending<Option<ReceiverProgram>>>,
    deadline: Option<Instant>,
}

impl Inquiry {
    /// Asks. The server must be neither inactive nor passive.
    pub(super) fn start(server: &ServerConfig, deadline: Option<Instant>) -> Self {
        let limits = Limits {
            deadline,
            stop: None,
        };
        let ordinary = |conninfo: &Option<String>| {
            let question = Question::new(conninfo.clone()?, server, &limits);
            Some(Pending::start(move || question.ask_ordinary()))
        };
        let streaming = |conninfo: &Option<String>| {
            let wanted = server.streaming_archiver || server.uses_streaming_backup;
            let question = Question::new(conninfo.clone().filter(|_| wanted)?, server, &limits);
            Some(Pending::start(move || question.ask_streaming()))
        };
        let mut wal = server.clone();
        let has_wal_source = wal.use_wal_conninfo().is_some() && wal.conninfo != server.conninfo;
        let path_prefix = server.path_prefix.clone();
        let needs_program =
            server.streaming_archiver && server.own.receiver == ReceiverKind::PgReceivewal;
        let find_program = move || ReceiverProgram::find(path_prefix.as_deref());
        Inquiry {
            ordinary: ordinary(&server.conninfo),
            streaming: streaming(&server.streaming_conninfo),
            wal_ordinary: ordinary(&wal.conninfo.filter(|_| has_wal_source)),
            wal_streaming: streaming(&wal.streaming_conninfo.filter(|_| has_wal_source)),
            primary: ordinary(&server.primary_conninfo),
            program: needs_program.then(|| Pending::start(find_program)),
            deadline,
        }
    }

    /// Waits for all answers.
    pub(super) fn wait(self) -> Result<Answers, TimedOut> {
        let wal_streaming = collect(self.wal_streaming, self.deadline)?;
        Ok(Answers {
            ordinary: collect(self.ordinary, self.deadline)?,
            streaming: collect(self.streaming, self.deadline)?,
            wal: collect(self.wal_ordinary, self.deadline)?.map(|ordinary| WalAnswers {
                ordinary,
                streaming: wal_streaming,
            }),
            primary: collect(self.primary, self.deadline)?,
            program: match self.program {
                Some(program) => program.wait(self.deadline)?,
                None => None,
            },
        })
    }
}

fn collect<T: Send + 'static>(
    pending: Option<Pending<Answer<T>>>,
    deadline: Option<Instant>,
) -> Result<Option<Answer<T>>, TimedOut> {
    match pending.map(|pending| pending.wait(deadline)).transpose()? {
        Some(Err(PostgresError::TimedOut)) => Err(TimedOut),
        answer => {
            if let Some(Err(error)) = &answer {
                tracing::warn!("Error retrieving PostgreSQL status: {error}");
            }
            Ok(answer)
        }
    }
}

/// What is asked over one connection.
struct Question {
    conninfo: String,
    slot_name: Option<String>,
    receiver_name: Option<String>,
    limits: Limits,
}

impl Question {
    fn new(conninfo: String, server: &ServerConfig, limits: &Limits) -> Self {
        Question {
            conninfo,
            slot_name: server.slot_name.clone(),
            receiver_name: server
                .streaming_archiver_name
                .clone()
                .filter(|_| server.streaming_archiver),
            limits: limits.clone(),
        }
    }

    fn ask_ordinary(self) -> Answer<Ordinary> {
        let conninfo =
            Conninfo::parse(&self.conninfo)?.with_default("application_name", APPLICATION_NAME);
        let connection = Connection::open(&conninfo, self.limits)?;
        let slot = match &self.slot_name {
            Some(name) => find_slot(&connection, name)?,
            None => None,
        };
        let wal_sender = match &self.receiver_name {
            Some(name) => {
                let pid = slot.as_ref().and_then(|slot| slot.active_pid);
                find_wal_sender(&connection, name, pid)?
            }
            None => None,
        };
        Ok(Ordinary {
            facts: ServerFacts::ask(&connection)?,
            slot,
            wal_sender,
        })
    }

    fn ask_streaming(self) -> Answer<Streaming> {
        let conninfo = Conninfo::parse(&self.conninfo)?
            .with_default("application_name", APPLICATION_NAME)
            .for_replication();
        let connection = Connection::open(&conninfo, self.limits)?;
        let identity = match identify_system(&connection) {
            Ok(identity) => Some(identity),
            Err(error) if error.is_connection_lost() => return Err(error),
            Err(_) => None,
        };
        Ok(Streaming {
            version: connection.server_version(),
            identity,
        })
    }
}

/// The instant at which a time limit is over; `None` is no limit.
pub(super) fn deadline(time_limit: Option<Duration>) -> Option<Instant> {
    time_limit.and_then(|limit| Instant::now().checked_add(limit))
}
