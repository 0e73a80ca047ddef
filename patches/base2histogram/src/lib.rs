//! What openraft uses of the crate `base2histogram`, keeping nothing.
//!
//! openraft counts batch sizes and queue lengths for its own runtime statistics. Nothing in this workspace reads them and
//! openraft decides nothing by them, but the original crate builds the tables of all sixteen resolutions at the first use:
//! 25 MB in every agent, of which 2 KB are ever read. This crate keeps openraft's calls compiling and costs nothing. Should
//! the original build its tables one by one some day, delete this folder and the `[patch.crates-io]` entry that points here.

use std::fmt;
use std::marker::PhantomData;

/// A histogram that forgets what it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    slots: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty histogram; it stays empty.
    pub const fn new() -> Self {
        Histogram { slots: PhantomData }
    }

    /// Forgets one sample.
    pub const fn record(&mut self, _value: u64) {}

    /// Forgets `_count` samples of the same value.
    pub const fn record_n(&mut self, _value: u64, _count: u64) {}

    /// The statistics of no samples.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// Percentiles of a histogram; all zero here, with zero samples to say so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the percentiles")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not counted")
    }
}

/// A chart of histograms; it has none.
#[derive(Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// A chart without series.
    pub const fn new() -> Self {
        AsciiChart
    }

    /// The same chart.
    #[must_use]
    pub fn add<T>(self, _name: &str, _histogram: Histogram<T>) -> Self {
        self
    }
}
