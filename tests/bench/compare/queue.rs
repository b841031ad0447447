//! A long queue of small files, and a long xlogdb.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use crate::home::{Home, Tool};
use crate::table::{Pairs, Row, seconds};
use crate::{Bench, Result};

const WAITING: usize = 100_000;
const BATCH: usize = 100;
const LISTED: usize = 1_000_000;

pub(crate) fn queue(bench: &Bench) -> Result<Vec<Row>> {
    let options = &["compression = zstd", "archiver_batch_size = 100"];
    let mut short = Queue::create(Home::create(bench.path("queue-short"), options)?)?;
    let mut long = Queue::create(Home::create(bench.path("queue-long"), options)?)?;
    let mut barman = Queue::create(Home::create(bench.path("queue-barman"), options)?)?;
    list_a_million(&long.home)?;
    let against_barman = Pairs::collect(
        bench.runs.min(3),
        |_| short.archive(bench, Tool::Walarch),
        |_| barman.archive(bench, Tool::Barman),
    )?;
    let lists = Pairs::collect(
        bench.runs * 3,
        |_| long.archive(bench, Tool::Walarch),
        |_| short.archive(bench, Tool::Walarch),
    )?;
    Ok(vec![
        Row::new(
            "100 000 files waiting, batches of 100, against Barman",
            seconds(lists.other()),
            seconds(against_barman.other()),
            against_barman.ratio(),
            "under 1 s",
        ),
        Row::new(
            "the same with 1 million lines in xlogdb, against without",
            seconds(lists.walarch()),
            seconds(lists.other()),
            lists.inverse(),
            "nothing measurable",
        ),
    ])
}

/// A home whose queue is filled up again before each run.
struct Queue {
    home: Home,
    made: usize,
    archived: usize,
}

impl Queue {
    fn create(home: Home) -> Result<Self> {
        let mut queue = Queue {
            home,
            made: 0,
            archived: 0,
        };
        queue.fill()?;
        Ok(queue)
    }

    fn fill(&mut self) -> Result<()> {
        while self.made < self.archived + WAITING {
            fs::write(self.home.incoming().join(label_name(self.made)), LABEL)?;
            self.made += 1;
        }
        Ok(())
    }

    fn archive(&mut self, bench: &Bench, tool: Tool) -> Result<f64> {
        self.fill()?;
        let cost = self.home.archive(bench, tool, None)?;
        self.archived += BATCH;
        self.home.expect_stored(self.archived)?;
        Ok(cost.wall_s)
    }
}

/// Backup labels are WAL files of any content, so they may be small.
const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
    STOP WAL LOCATION: 0/2000100 (file 000000010000000000000002)\n\
    CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
    START TIME: 2026-01-01 00:00:00 UTC\nLABEL: base\nSTART TIMELINE: 1\n\
    STOP TIME: 2026-01-01 00:00:01 UTC\nSTOP TIMELINE: 1\n";

fn label_name(number: usize) -> String {
    let (log, segment) = (number / 256, number % 256);
    format!("00000001{log:08X}{segment:08X}.00000028.backup")
}

/// Lists segments of another time, so that none of them is one of the queue's.
fn list_a_million(home: &Home) -> Result<()> {
    let mut file = BufWriter::new(File::create(home.xlogdb())?);
    for number in 0..LISTED {
        let (log, segment) = (0x0100_0000 + number / 256, number % 256);
        writeln!(
            file,
            "00000001{log:08X}{segment:08X}\t4194304\t1767225600.25\tzstd\tNone"
        )?;
    }
    Ok(file.flush()?)
}
