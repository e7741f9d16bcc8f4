//! What 1,000 scrapes a second from another core cost a step: the quickstart's step on one thread, with and without them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gauntlet::plugin::PluginOptimizer;
use gauntlet::sinks::Metrics;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::drive::{Arguments, Round, Subject, seconds};
use crate::listeners::quickstart;

/// Pairs of stretches without and with scrapes in a round.
const STRETCHES: u32 = 8;
/// Steps of a stretch, after one that is not measured.
const STEPS: u32 = 4;
/// Time between two scrapes.
const EVERY: Duration = Duration::from_millis(1);
/// Scrapes that fail to come within a second before the subject gives up.
const LEAST_RATE: f64 = 900.0;

pub struct Scraping {
    optimizer: PluginOptimizer,
    step: u64,
    /// They are served until this is dropped.
    _metrics: Metrics,
    scraping: Arc<AtomicBool>,
    scrapes: Arc<AtomicU64>,
}

impl Scraping {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        ensure!(std::thread::available_parallelism()?.get() > 1, "there is no other core to scrape from");
        tch::set_num_threads(1);
        let (optimizer, metrics) = quickstart(arguments)?;
        let metrics = metrics.context("no metrics")?;
        let address = metrics.address().context("the metrics are not served")?;
        let (scraping, scrapes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (on, count) = (scraping.clone(), scrapes.clone());
        std::thread::spawn(move || scrape(address, &on, &count));
        stay_on(0)?;
        Ok(Self { optimizer, step: 0, _metrics: metrics, scraping, scrapes })
    }

    fn step(&mut self) -> Result<()> {
        self.optimizer.step(self.step)?;
        self.step += 1;
        Ok(())
    }

    fn stretch(&mut self, scraping: bool) -> Result<f64> {
        self.scraping.store(scraping, Ordering::Relaxed);
        seconds(STEPS, || self.step())
    }
}

/// Keeps the calling thread on one core.
fn stay_on(core: usize) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

/// Scrapes once a millisecond, on the second core, while it is asked to.
fn scrape(address: SocketAddr, on: &AtomicBool, count: &AtomicU64) {
    if stay_on(1).is_err() {
        return;
    }
    let mut due = Instant::now();
    loop {
        due = (due + EVERY).max(Instant::now() - 10 * EVERY);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if on.load(Ordering::Relaxed) && once(address).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn once(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut page = vec![];
    stream.read_to_end(&mut page)?;
    if page.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(std::io::Error::other("no page")) }
}

impl Subject for Scraping {
    fn check(&mut self) -> Result<Vec<f64>> {
        self.step()?;
        Ok(vec![])
    }

    fn round(&mut self) -> Result<Round> {
        let (mut alone, mut scraped, mut spent) = (0.0, 0.0, 0.0);
        let before = self.scrapes.load(Ordering::Relaxed);
        for _ in 0..STRETCHES {
            alone += self.stretch(false)? / f64::from(STRETCHES);
            let started = Instant::now();
            scraped += self.stretch(true)? / f64::from(STRETCHES);
            spent += started.elapsed().as_secs_f64();
        }
        self.scraping.store(false, Ordering::Relaxed);
        let rate = (self.scrapes.load(Ordering::Relaxed) - before) as f64 / spent;
        ensure!(rate > LEAST_RATE, "found {rate:.0} scrapes a second, expected 1000");
        Ok(vec![("alone", alone), ("scraped", scraped)])
    }
}
