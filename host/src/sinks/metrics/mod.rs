//! The run as Prometheus sees it: a view of the events, served over HTTP while it goes on, and at its end waited for,
//! pushed or written. The record of a run is `events.jsonl`.

mod document;
mod memory;
mod push;
mod registry;
mod request;
mod server;
pub mod table;
#[cfg(test)]
mod tests;
mod view;

pub use document::document;
pub use memory::resident;
pub use request::{Answer, answer, response};

use super::say;
use crate::config;
use crate::durable;
use crate::error::{Exit, Fault, Result, reason};
use crate::events::Event;
use gauntlet_plugin_api::metadata::Metadata as Plugin;
use registry::Registry;
use server::{Limits, Pages, Server};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use view::View;

/// Events between upkeeps where no server sees to them.
const UPKEEP: u64 = 1000;
/// Time for a push.
const PUSH: Duration = Duration::from_secs(10);
/// A run that was not scraped for this time is not waited with.
const SCRAPED: Duration = Duration::from_secs(60);

/// The metrics of a run, served until they are dropped.
pub struct Metrics {
    config: config::Metrics,
    run: String,
    view: View,
    pages: Live,
    server: Option<Server>,
    /// Where they are served; `None` while the address is not to be had.
    address: Option<SocketAddr>,
    notices: Vec<String>,
    heard: u64,
}

impl Metrics {
    /// Serves the metrics of a run of this name with this plugin; `None` where nobody would get them.
    ///
    /// An address that is not to be had is one of the [notices](Self::notices), and is tried again during the run.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] when the address is not to be had and `metrics.required` is set.
    pub fn open(config: &config::Metrics, run: &str, plugin: &Plugin) -> Result<Option<Self>> {
        if !config.enabled && config.push_gateway.is_none() && config.textfile.is_none() {
            return Ok(None);
        }
        let registry = Arc::new(Registry::new(run, plugin)?);
        let pages = Live { registry: registry.clone(), made: Arc::default() };
        let (address, server, notices) = if config.enabled { serve(config, &pages)? } else { (None, None, vec![]) };
        let view = View::new(registry, config.peak_flops);
        let (config, run) = (config.clone(), run.to_owned());
        Ok(Some(Self { config, run, view, pages, server, address, notices, heard: 0 }))
    }

    /// Lines that the user should see, before the run starts.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Where the metrics are served; `None` where the address was not to be had.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Takes in one event.
    pub fn hear(&mut self, event: &Event) {
        self.view.hear(event);
        self.heard += 1;
        if self.server.is_none() && self.heard.is_multiple_of(UPKEEP) {
            self.pages.run_upkeep();
        }
    }

    /// Hands the last metrics over when the run has ended: to the file, to the Pushgateway, and to whoever has scraped
    /// them so far, for whom it waits unless `hurry` says not to. Gives warnings.
    pub fn close(&self, hurry: &dyn Fn() -> bool) -> Vec<String> {
        let text = self.pages.text();
        let mut warnings = vec![];
        if let Some(Err(fault)) = self.config.textfile.as_ref().map(|path| durable::replace(path, text.as_bytes())) {
            warnings.push(format!("warning: `metrics.textfile`: {fault}"));
        }
        let gateway = self.config.push_gateway.as_deref().and_then(config::Metrics::gateway);
        if let Some(Err(why)) = gateway.map(|gateway| push::push(gateway, &self.run, &text, PUSH)) {
            let fault = Fault::new(Exit::Write, "`metrics.push_gateway`: the last metrics were not pushed").found(why);
            warnings.push(format!("warning: {fault}"));
        }
        self.wait_for_scrape(hurry);
        warnings
    }

    /// Waits until the last metrics were scraped, where somebody did so in the minute before.
    fn wait_for_scrape(&self, hurry: &dyn Fn() -> bool) {
        let (ended, limit) = (Instant::now(), Duration::from_secs(self.config.linger_seconds));
        let scraped = || self.pages.made.lock().ok().and_then(|made| *made);
        if scraped().is_none_or(|made| made.elapsed() > SCRAPED) || limit.is_zero() {
            return;
        }
        say(&format!("waiting for a last scrape of the metrics, at most {} s", limit.as_secs()));
        while ended.elapsed() < limit && !hurry() && scraped().is_none_or(|made| made <= ended) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Starts to serve; gives the address, and what to say of it.
fn serve(config: &config::Metrics, pages: &Live) -> Result<(Option<SocketAddr>, Option<Server>, Vec<String>)> {
    let listener = TcpListener::bind(config.listen);
    let listener = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener, mut notices) = match listener {
        Ok((address, listener)) => (Some(address), Some(listener), vec![]),
        Err(error) if config.required => return Err(unavailable(config.listen, &error)),
        Err(error) => {
            let fault = unavailable(config.listen, &error);
            (None, None, vec![format!("warning: {fault}; the run goes on without metrics until it is free")])
        }
    };
    if !config.listen.ip().is_loopback() {
        let what = "`metrics.listen`: other machines can read the metrics, without a password";
        notices.push(format!("warning: {what}; hint: listen on 127.0.0.1, behind a proxy with TLS"));
    }
    let server = Server::start(config.listen, listener, Limits::default(), pages.clone())
        .map_err(|error| Fault::new(Exit::Internal, format!("metrics: {}", reason(&error))).with_limit(&error))?;
    notices.extend(address.map(|address| format!("metrics at http://{address}/metrics")));
    Ok((address, Some(server), notices))
}

fn unavailable(address: SocketAddr, error: &std::io::Error) -> Fault {
    Fault::new(Exit::Usage, format!("`metrics.listen`: cannot listen on `{address}`"))
        .found(reason(error))
        .expected("a free address of this machine")
        .hint("set `metrics.listen` to another port, or to port 0 for any")
}

/// The metrics as they are when a client asks.
#[derive(Clone)]
struct Live {
    registry: Arc<Registry>,
    /// When they were last made for a client.
    made: Arc<Mutex<Option<Instant>>>,
}

impl Live {
    fn text(&self) -> String {
        if let Some((now, peak)) = memory::resident() {
            self.registry.set(&table::RESIDENT_MEMORY, &[], now as f64);
            self.registry.set(&table::PEAK_MEMORY, &[], peak as f64);
        }
        if let Some(limit) = memory::limit() {
            self.registry.set(&table::MEMORY_LIMIT, &[], limit as f64);
        }
        self.registry.render()
    }
}

impl Pages for Live {
    fn metrics(&self) -> String {
        let (now, text) = (Instant::now(), self.text());
        if let Ok(mut made) = self.made.lock() {
            *made = Some(now);
        }
        text
    }

    fn run_upkeep(&self) {
        self.registry.run_upkeep();
    }
}
