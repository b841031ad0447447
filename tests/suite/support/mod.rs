//! What the tests stand on.
//!
//! | module | gives |
//! |---|---|
//! | `home` | a scratch Barman home: configuration, directories, files put in and read back |
//! | `tool` | walarch and the real Barman, started in a home |
//! | `compare` | two homes after the same command, side by side |
//! | `wal` | well-formed WAL files of any size |
//! | `cluster` | real WAL from a throw-away PostgreSQL |
//! | `postgres` | PostgreSQL servers and standbys that live as long as a test |
//! | `monitored` | a home beside a live server, as `check` and `status` see it, by Barman and by walarch |
//! | `background` | processes that a command has left behind in a home |
//! | `holder` | processes that hold a lock as a running task does |
//! | `tarball` | what a client sends to put-wal, and what it should not |
//! | `decode` | the plain bytes of a stored file, by the crates or by the standard tools |
//! | `life` | the life of a cluster whose WAL went through walarch, to be recovered from |
//! | `sshd` | an sshd on loopback: another host that is this one |
//! | `trace` | the system calls of a run, recorded by strace |
//! | `order` | whether those calls keep the commit protocol |
//! | `wire` | PostgreSQL's protocol, as far as tests must speak it themselves |
//! | `proxy` | a bad line between a receiver and a server, and a bad server behind it |
//! | `messages` | what a server sends to a receiver, and what it should not |
//! | `writers` | clients who commit rows, and write down what they were promised |
//! | `chance` | instants and sizes that nobody chose, but that can be had again |
//! | `promises` | whether a receiver told the server only of WAL that outlasts a crash |
//! | `faults` | the same run killed at, or failed in, each of its calls |

pub mod background;
pub mod chance;
pub mod cluster;
pub mod compare;
pub mod decode;
pub mod faults;
pub mod holder;
pub mod home;
pub mod life;
pub mod messages;
pub mod monitored;
pub mod order;
pub mod postgres;
pub mod promises;
pub mod proxy;
pub mod sshd;
pub mod tarball;
pub mod tool;
pub mod trace;
pub mod wal;
pub mod wire;
pub mod writers;
