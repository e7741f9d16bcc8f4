//! The run as Prometheus sees it: a view of the events, served over HTTP. The record of a run is `events.jsonl`.

mod document;
mod memory;
mod registry;
mod request;
mod server;
pub mod table;
#[cfg(test)]
mod tests;
mod view;

pub use document::document;
pub use request::{Answer, answer, response};

use crate::config;
use crate::error::{Exit, Fault, Result, reason};
use crate::events::Event;
use gauntlet_plugin_api::metadata::Metadata as Plugin;
use registry::Registry;
use server::{Limits, Pages, Server};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use view::View;

/// The metrics of a run, served until they are dropped.
pub struct Metrics {
    view: View,
    _server: Server,
    /// Where they are served; `None` while the address is not to be had.
    address: Option<SocketAddr>,
    notices: Vec<String>,
}

impl Metrics {
    /// Serves the metrics of a run of this name with this plugin; `None` where they are switched off.
    ///
    /// An address that is not to be had is one of the [notices](Self::notices), and is tried again during the run.
    ///
    /// # Errors
    ///
    /// [`Exit::Usage`] when the address is not to be had and `metrics.required` is set.
    pub fn open(config: &config::Metrics, run: &str, plugin: &Plugin) -> Result<Option<Self>> {
        if !config.enabled {
            return Ok(None);
        }
        let registry = Arc::new(Registry::new(run, plugin)?);
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
        let pages = Live(registry.clone());
        let server = Server::start(config.listen, listener, Limits::default(), pages)
            .map_err(|error| Fault::new(Exit::Internal, format!("metrics: {}", reason(&error))))?;
        notices.extend(address.map(|address| format!("metrics at http://{address}/metrics")));
        Ok(Some(Self { view: View::new(registry, config.peak_flops), _server: server, address, notices }))
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
    }
}

fn unavailable(address: SocketAddr, error: &std::io::Error) -> Fault {
    Fault::new(Exit::Usage, format!("`metrics.listen`: cannot listen on `{address}`"))
        .found(reason(error))
        .expected("a free address of this machine")
        .hint("set `metrics.listen` to another port, or to port 0 for any")
}

/// The metrics as they are when a client asks.
struct Live(Arc<Registry>);

impl Pages for Live {
    fn metrics(&self) -> String {
        if let Some((now, peak)) = memory::resident() {
            self.0.set(&table::RESIDENT_MEMORY, &[], now as f64);
            self.0.set(&table::PEAK_MEMORY, &[], peak as f64);
        }
        self.0.render()
    }

    fn run_upkeep(&self) {
        self.0.run_upkeep();
    }
}
