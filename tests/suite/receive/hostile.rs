//! A receiver whose server is not what it seems: nothing is written out of place, nobody is told of WAL that is not
//! there, and once the server is honest all goes on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::bad_line::{assert_nothing_is_out_of_place, home_behind, server};
use super::scripts::{Source, malformed, start_of};
use super::support::{Receiving, SMALL_SEGMENT, Way, receive_wal, streaming, wait_for_segments};
use crate::support::home::{Home, names, tree};
use crate::support::messages::{
    COPY_BOTH, READY, end_of_statement, end_of_timeline, identity, refusal, row,
};
use crate::support::postgres::Postgres;
use crate::support::proxy::{Answer, Mischief, Proxy};
use crate::support::tool::{Walarch, wait_for};
use crate::support::wire::{position, position_text};

/// Plays a script when it is first asked to stream, and is honest afterwards.
struct Impostor {
    number: usize,
    source: Arc<Source>,
    /// Which of the scripts; the connection that it was played on.
    script: usize,
    played: Arc<Mutex<Option<(usize, u64)>>>,
}

impl Mischief for Impostor {
    fn answer(&mut self, sql: &str) -> Option<Answer> {
        let mut played = self.played.lock().unwrap();
        if played.is_some() || !sql.starts_with("START_REPLICATION") {
            return None;
        }
        let start = start_of(sql);
        *played = Some((self.number, start));
        let script = malformed(&self.source, start).swap_remove(self.script).1;
        let bytes = [&COPY_BOTH[..], &script].concat();
        Some(Answer::AndCut(bytes, Duration::from_millis(500)))
    }
}

/// A receiver and the script that its server plays.
struct Scene {
    name: &'static str,
    proxy: Proxy,
    home: Home,
    receiving: Receiving,
    played: Arc<Mutex<Option<(usize, u64)>>>,
}

impl Scene {
    fn begin(postgres: &Postgres, source: &Arc<Source>, script: usize, name: &'static str) -> Self {
        let played = Arc::<Mutex<Option<(usize, u64)>>>::default();
        let (theirs, source) = (played.clone(), source.clone());
        let proxy = Proxy::start(postgres, move |number| {
            Box::new(Impostor {
                number,
                source: source.clone(),
                script,
                played: theirs.clone(),
            })
        });
        let home = home_behind(&proxy, Way::Builtin, postgres, &format!("script_{script}"));
        let receiving = Receiving::start(Walarch, &home);
        Self {
            name,
            proxy,
            home,
            receiving,
            played,
        }
    }

    #[track_caller]
    fn assert_unharmed(&mut self, postgres: &Postgres) {
        let name = self.name;
        let output = format!("{}{}", self.receiving.output(), self.home.log());
        assert!(!output.contains("panicked"), "{name}: {output}");
        assert!(!self.receiving.has_ended(), "{name}: it ended: {output}");
        assert_nothing_is_out_of_place(postgres, &self.home, name);
        // No script has more than two sound pages.
        let Some((connection, start)) = *self.played.lock().unwrap() else {
            return;
        };
        for report in self.proxy.reports() {
            let last = report.flushed.max(report.written);
            let is_true = report.connection != connection || last <= start + 2 * 8192;
            assert!(is_true, "{name}: {report:?}");
        }
    }
}

#[test]
fn malformed_replication_messages_do_no_harm_and_are_got_over() {
    let postgres = server();
    let fill =
        || postgres.sql("SELECT pg_logical_emit_message(true, 'filler', repeat('walarch', 20000))");
    fill();
    let source = Arc::new(Source {
        pg_wal: postgres.data().join("pg_wal"),
    });
    let somewhere = position(&postgres.ask("SELECT pg_current_wal_flush_lsn()")) / SMALL_SEGMENT
        * SMALL_SEGMENT;
    let scripts: Vec<&str> = malformed(&source, somewhere)
        .iter()
        .map(|(name, _)| *name)
        .collect();
    let scripts: Vec<(usize, &str)> = scripts.into_iter().enumerate().collect();
    for some in scripts.chunks(12) {
        let begin = |(script, name): &(usize, &'static str)| {
            Scene::begin(&postgres, &source, *script, name)
        };
        let mut scenes: Vec<Scene> = some.iter().map(begin).collect();
        for scene in &mut scenes {
            wait_for(scene.name, || scene.played.lock().unwrap().map(drop));
        }
        thread::sleep(Duration::from_millis(700));
        for scene in &mut scenes {
            scene.assert_unharmed(&postgres);
        }
        let segment = postgres.fill_segment();
        fill();
        for mut scene in scenes {
            wait_for(scene.name, || {
                scene.assert_unharmed(&postgres);
                scene.home.streaming().join(&segment).exists().then_some(())
            });
            scene.assert_unharmed(&postgres);
            scene.receiving.end_by(Signal::SIGINT).exits(0);
        }
    }
}

/// Answers these statements in the server's place.
struct Liar(Arc<Lie>);

type Lie = dyn Fn(&str) -> Option<Answer> + Send + Sync;

impl Mischief for Liar {
    fn answer(&mut self, sql: &str) -> Option<Answer> {
        self.0(sql)
    }
}

/// A proxy that lies in this way from the first statement on.
fn liar(
    postgres: &Postgres,
    lie: impl Fn(&str) -> Option<Answer> + Send + Sync + 'static,
) -> Proxy {
    let lie: Arc<Lie> = Arc::new(lie);
    Proxy::start(postgres, move |_| Box::new(Liar(lie.clone())))
}

#[test]
fn a_server_that_does_not_say_properly_who_it_is_is_refused_before_a_byte_is_written() {
    let postgres = server();
    let own = postgres.system_identifier().to_string();
    for (number, answer) in [
        identity("", "1", "0/3000000"),
        identity("-1", "1", "0/3000000"),
        identity("123456789012345678901234567890", "1", "0/3000000"),
        identity("4711", "1", "0/3000000"),
        identity(&own, "", "0/3000000"),
        identity(&own, "0", "0/3000000"),
        identity(&own, "-1", "0/3000000"),
        identity(&own, "1", "../3000000"),
        identity(&own, "1", ""),
        row(&[("systemid", own.as_str())]),
        end_of_statement(),
        [refusal(), READY.to_vec()].concat(),
        [COPY_BOTH.to_vec(), READY.to_vec()].concat(),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = liar(&postgres, move |sql| {
            let bytes = answer.clone();
            sql.starts_with("IDENTIFY_SYSTEM")
                .then(|| Answer::AndCut(bytes, Duration::from_secs(2)))
        });
        let home = home_behind(
            &proxy,
            Way::Builtin,
            &postgres,
            &format!("identity_{number}"),
        );
        let run = receive_wal(Walarch, &home, &[]);
        assert_eq!(run.code, 1, "{number}: {run:?}");
        assert!(!run.stderr.contains("panicked"), "{number}: {run:?}");
        assert!(names(&home.streaming()).is_empty(), "{number}: {run:?}");
        let pinned = fs::read_to_string(home.dir("identity.json")).unwrap_or_default();
        assert!(
            pinned.is_empty() || pinned.contains(&own),
            "{number}: {run:?}"
        );
    }
}

#[test]
fn another_cluster_behind_the_address_is_refused_at_a_reconnect_as_well() {
    let postgres = server();
    let is_other = Arc::new(AtomicBool::new(false));
    let asked = Arc::new(AtomicUsize::new(0));
    let (theirs, count) = (is_other.clone(), asked.clone());
    let proxy = liar(&postgres, move |sql| {
        if !theirs.load(Ordering::Relaxed) {
            return None;
        }
        assert!(!sql.starts_with("START_REPLICATION"), "{sql}");
        count.fetch_add(1, Ordering::Relaxed);
        sql.starts_with("IDENTIFY_SYSTEM")
            .then(|| Answer::Bytes(identity("4711", "1", "0/3000000")))
    });
    let home = home_behind(&proxy, Way::Builtin, &postgres, "other");
    let mut receiving = streaming(&home);
    let first = postgres.fill_segment();
    wait_for_segments(&home, &[&first]);
    is_other.store(true, Ordering::Relaxed);
    postgres.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
    wait_for("the question", || {
        (asked.load(Ordering::Relaxed) > 0).then_some(())
    });
    wait_for("the refusal", || {
        receiving.output().contains("4711").then_some(())
    });
    let _ = receiving.has_ended();
    let second = postgres.fill_segment();
    thread::sleep(Duration::from_millis(500));
    assert!(!home.streaming().join(&second).exists());
    assert_nothing_is_out_of_place(&postgres, &home, "another cluster");
    // It was a mistake of the network's.
    is_other.store(false, Ordering::Relaxed);
    if receiving.has_ended() {
        receiving = Receiving::start(Walarch, &home);
    }
    wait_for_segments(&home, &[&second]);
    receiving.end_by(Signal::SIGINT).exits(0);
}

#[test]
fn a_history_file_goes_nowhere_but_into_its_directory() {
    let postgres = server();
    postgres.sql("SELECT pg_logical_emit_message(true, 'filler', repeat('walarch', 20000))");
    let source = Arc::new(Source {
        pg_wal: postgres.data().join("pg_wal"),
    });
    let own = postgres.system_identifier().to_string();
    for (number, (name, content)) in [
        ("../../evil.history", "1\t0/3000000\tno reason\n"),
        ("/tmp/evil.history", "1\t0/3000000\tno reason\n"),
        ("00000003.history", "1\t0/3000000\tno reason\n"),
        ("", ""),
        ("00000002.history", "\u{0}\u{1}"),
        ("00000002.history", "9\tZZ/0\tno reason\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let (source, own) = (source.clone(), own.clone());
        let questions = Arc::new(AtomicUsize::new(0));
        let count = questions.clone();
        let proxy = liar(&postgres, move |sql| {
            let answer = |bytes| Some(Answer::Bytes(bytes));
            if sql.starts_with("TIMELINE_HISTORY") {
                count.fetch_add(1, Ordering::Relaxed);
                answer(row(&[("filename", name), ("content", content)]))
            } else if sql.contains("TIMELINE 1") {
                let start = start_of(sql);
                let end = end_of_timeline("2", &position_text(start + 8192));
                let copy = [&COPY_BOTH[..], &source.sound(start, 8192), &end];
                answer(copy.concat())
            } else if sql.starts_with("START_REPLICATION") {
                Some(Answer::AndCut(refusal(), Duration::ZERO))
            } else if sql.starts_with("IDENTIFY_SYSTEM") && count.load(Ordering::Relaxed) > 0 {
                answer(identity(&own, "2", "FF/3000000"))
            } else {
                None
            }
        });
        let home = home_behind(
            &proxy,
            Way::Builtin,
            &postgres,
            &format!("history_{number}"),
        );
        let before = tree(home.root());
        let receiving = Receiving::start(Walarch, &home);
        wait_for("the history", || {
            (questions.load(Ordering::Relaxed) > 0).then_some(())
        });
        thread::sleep(Duration::from_secs(1));
        let output = receiving.output();
        assert!(!output.contains("panicked"), "{number}: {output}");
        for path in tree(home.root())
            .iter()
            .filter(|path| !before.contains(path))
        {
            let file = path.file_name().unwrap().to_str().unwrap();
            let is_own = file.starts_with('.')
                || ["identity.json", "barman.log", "receive-wal.out"].contains(&file);
            let is_wal = path.starts_with("home/main/streaming")
                && (file == "00000002.history" || file.ends_with(".partial"));
            assert!(is_own || is_wal, "{number}: {path:?}");
        }
        assert!(!Path::new("/tmp/evil.history").exists());
    }
}
