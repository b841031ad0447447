//! Medians and the lines of the table.

use std::cell::Cell;
use std::error::Error;
use std::fmt;

use crate::Result;

/// The first two lines of the table.
pub(crate) const HEAD: &str = "| what | walarch | other | measured | bar |\n|---|---|---|---|---|";

/// One line of the table.
pub(crate) struct Row {
    what: String,
    walarch: String,
    other: String,
    measured: String,
    bar: &'static str,
    /// Whether it has been shown already, while others were still being measured.
    pub(crate) is_said: Cell<bool>,
}

impl Row {
    pub(crate) fn new(
        what: impl Into<String>,
        walarch: impl Into<String>,
        other: impl Into<String>,
        measured: impl Into<String>,
        bar: &'static str,
    ) -> Self {
        Row {
            what: what.into(),
            walarch: walarch.into(),
            other: other.into(),
            measured: measured.into(),
            bar,
            is_said: Cell::new(false),
        }
    }

    /// A row that could not be measured.
    pub(crate) fn failed(what: &str, error: &dyn Error) -> Self {
        Row::new(what, "", "", format!("not measured: {error}"), "")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Row {
            what,
            walarch,
            other,
            measured,
            bar,
            ..
        } = self;
        write!(f, "| {what} | {walarch} | {other} | {measured} | {bar} |")
    }
}

/// Two commands, measured in turns.
#[derive(Default)]
pub(crate) struct Pairs {
    walarch: Vec<f64>,
    other: Vec<f64>,
}

impl Pairs {
    /// Calls `walarch` and `other` in turns; each gets the number of the run.
    pub(crate) fn collect(
        runs: usize,
        mut walarch: impl FnMut(usize) -> Result<f64>,
        mut other: impl FnMut(usize) -> Result<f64>,
    ) -> Result<Self> {
        let mut pairs = Pairs::default();
        for run in 0..runs {
            pairs.walarch.push(walarch(run)?);
            pairs.other.push(other(run)?);
        }
        Ok(pairs)
    }

    /// What was measured otherwise.
    pub(crate) fn of(walarch: Vec<f64>, other: Vec<f64>) -> Self {
        Pairs { walarch, other }
    }

    pub(crate) fn push(&mut self, walarch: f64, other: f64) {
        self.walarch.push(walarch);
        self.other.push(other);
    }

    pub(crate) fn walarch(&self) -> f64 {
        median(&self.walarch)
    }

    pub(crate) fn other(&self) -> f64 {
        median(&self.other)
    }

    /// How many times as much the other one took.
    pub(crate) fn ratio(&self) -> String {
        let pairs = self.walarch.iter().zip(&self.other);
        spread(
            &pairs
                .map(|(walarch, other)| other / walarch)
                .collect::<Vec<_>>(),
        )
    }

    /// How many times as much walarch took.
    pub(crate) fn inverse(&self) -> String {
        let pairs = self.walarch.iter().zip(&self.other);
        spread(
            &pairs
                .map(|(walarch, other)| walarch / other)
                .collect::<Vec<_>>(),
        )
    }
}

/// A median with the smallest and the largest value.
fn spread(ratios: &[f64]) -> String {
    let smallest = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = ratios.iter().copied().fold(0.0, f64::max);
    format!("**{:.2}** ({smallest:.2} to {largest:.2})", median(ratios))
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    match sorted.len() % 2 {
        0 => f64::midpoint(at(middle.wrapping_sub(1)), at(middle)),
        _ => at(middle),
    }
}

pub(crate) fn seconds(value: f64) -> String {
    match value < 1.0 {
        true => format!("{:.1} ms", value * 1e3),
        false => format!("{value:.2} s"),
    }
}

pub(crate) fn mebibytes(kib: i64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}
