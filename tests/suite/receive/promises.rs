//! Is the server told only of WAL that outlasts a crash? Asked of the system calls of a receiver that commits wait for.

use std::collections::BTreeSet;

use super::support::{Receiving, SETTINGS, Way, receive_wal};
use crate::support::postgres::{Major, Postgres};
use crate::support::promises::{Promises, TRACED, judge};
use crate::support::tool::{Walarch, wait_for};
use crate::support::trace::{QUICK, take_calls, traced_command};
use crate::support::writers::Writers;

/// Lets a receiver receive so many commits under strace with this option besides, and judges what it said. Only if it is
/// synchronous they wait for it.
fn promises(way: Way, synchronous: bool, option: &str, commits: usize) -> Promises {
    let postgres = Postgres::start_major(Major::Debian, &["--wal-segsize=1"], |_| {
        format!("{SETTINGS}wal_keep_size = 1GB\n")
    });
    Writers::prepare(&postgres);
    let home = way.home(&postgres, "promises", &[("create_slot", "auto")]);
    if synchronous {
        postgres.wait_for_receiver_at_commit(&format!("{SETTINGS}wal_keep_size = 1GB\n"));
    }
    let trace = format!("trace={TRACED}");
    let options = ["-s", "300", "-e", &trace, option];
    let options = options.map(str::to_owned);
    let command = traced_command(Walarch, &home, &["receive-wal", "main"], &options);
    let mut receiving = Receiving::start_command(command, &home);
    let writers = Writers::start(&postgres, 8);
    // Where nobody waits, commits can be over before the second report.
    let mut reported = BTreeSet::new();
    wait_for("commits and reports", || {
        assert!(!receiving.has_ended(), "{}", receiving.output());
        reported.insert(postgres.ask("SELECT max(flush_lsn) FROM pg_stat_replication"));
        (writers.count() >= commits && reported.len() > 3).then_some(())
    });
    let promised = writers.end().position;
    receive_wal(Walarch, &home, &["--stop"]).exits(0);
    receiving.end();
    let promises = judge(&take_calls(&home), &home.streaming(), 1 << 20);
    assert!(
        !synchronous || promises.last_flushed >= promised,
        "{promises:?}, {promised:X}"
    );
    promises
}

#[test]
fn what_is_reported_as_flushed_outlasts_a_crash() {
    let promises = promises(Way::Builtin, true, QUICK, 600);
    assert!(promises.reports > 50, "{}", promises.reports);
    assert!(promises.broken.is_empty(), "{:#?}", promises.broken);
}

#[test]
fn so_does_what_is_reported_when_nobody_waits() {
    let promises = promises(Way::Builtin, false, QUICK, 3000);
    assert!(promises.reports > 2, "{}", promises.reports);
    assert!(promises.broken.is_empty(), "{:#?}", promises.broken);
}

#[test]
fn pg_receivewal_reports_as_flushed_what_is() {
    let promises = promises(Way::PgReceivewal, true, QUICK, 600);
    assert!(promises.reports > 50, "{}", promises.reports);
    assert!(promises.broken.is_empty(), "{:#?}", promises.broken);
}

/// What finds nothing here would find nothing anywhere.
#[test]
fn a_receiver_that_does_not_flush_is_caught() {
    // It believes that it does.
    let lie = "--inject=fsync,fdatasync:retval=0";
    let promises = promises(Way::PgReceivewal, true, lie, 300);
    assert!(!promises.broken.is_empty(), "{promises:?}");
}
