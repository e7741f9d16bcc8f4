//! docs/metrics.md, made from the table.

use super::table::{BUCKETS, Entry, Kind, OPTIMIZER, OPTIMIZER_PREFIX, TABLE};
use crate::config;
use std::fmt::Write;

/// The text of docs/metrics.md.
pub fn document() -> String {
    let mut text = introduction();
    let mut group = "";
    for entry in TABLE {
        if entry.group != group {
            group = entry.group;
            let _ = write!(text, "\n## {group}\n\n");
            if group == OPTIMIZER {
                text.push_str(&optimizer());
            }
            text.push_str("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
        }
        text.push_str(&row(entry));
    }
    text
}

fn introduction() -> String {
    let config::Metrics { listen, .. } = config::Metrics::default();
    let buckets = BUCKETS.map(|bound| bound.to_string()).join(", ");
    format!(
        "# Metrics

<!-- Made from the table in host/src/sinks/metrics/table.rs; `GAUNTLET_BLESS=1 cargo test --release -p gauntlet --lib
metrics` writes it again. -->

A run serves its metrics for Prometheus at `http://{listen}/metrics`, in the text format, version 0.0.4, until it
ends. `/healthz` says `ok`. Metrics are a view of the run; its record is `events.jsonl` in the run's folder.

| key | default | meaning |
|---|---|---|
| `metrics.enabled` | `true` | whether metrics are served |
| `metrics.listen` | `\"{listen}\"` | address and port; port 0 takes any free one, which the run prints |
| `metrics.required` | `false` | whether the run ends with code 2 before its first step when the address is not to be had |
| `metrics.peak_flops` | none | floating-point operations that the machine can do in a second, for `gauntlet_mfu_ratio` |
| `metrics.synchronize` | `false` | whether calls wait for a GPU, so that the times of phases are true; label `timing` |
| `metrics.linger_seconds` | `15` | for how long a run that ended waits for its last scrape |
| `metrics.push_gateway` | none | a Pushgateway that gets the last metrics, `http://HOST:PORT` |
| `metrics.textfile` | none | a file that gets the last metrics, for node_exporter's textfile collector |

Without `metrics.required`, a port in use is a warning: the run goes on, and tries to listen again every 5 seconds. Two
runs on one machine need two ports. An address that other machines can reach is a warning too: there is no password, so
put a proxy with TLS in front. At most 32 connections are served at once, each with 5 seconds to ask and 5 to read;
others get 503. No client can stop the training; one that asks without pause takes a part of one core.

When a run ends, its state becomes `finished`, `stopped` or `failed`, and Prometheus should see that: a run that was
scraped in its last minute waits for one more scrape before its process ends, after all its files are written. A signal
ends the waiting, and a run that a signal stopped waits at most 5 seconds. Let the scrape interval be shorter than `metrics.linger_seconds`.

A job that is too short to be scraped pushes its last metrics, or writes them; `metrics.enabled = false` serves none
beside. The push is one PUT to `/metrics/job/gauntlet/run/NAME`, without TLS, within 10 seconds; when it fails, a warning
says why, and the exit code stays. The gateway keeps them until you delete them. A run that is scraped and pushed is there
twice, so choose one. The file is replaced whole. Dashboards and alerts: [monitoring.md](monitoring.md).

```yaml
scrape_configs:
  - job_name: gauntlet
    scrape_interval: 5s
    static_configs:
      - targets: [\"{listen}\"]
```

Every metric has the label `run`, the name of the run's folder. Counters and histograms are there from the start; a
gauge is there once its value is known. Counters count what this process did: after a resume they begin at 0 again, as
`rate` and `increase` expect. Where the run stands, over all its processes, is told by the gauges `gauntlet_run_*`. A
step that takes long shows when it is done. Times are wall times; on a GPU, whose work is queued, a phase's time is that
of the waiting, unless `metrics.synchronize` is set. The norm of the update is there where the optimizer
reports it: the host would need a second copy of all parameters. Histograms have these buckets, in seconds:

{buckets}.
"
    )
}

fn optimizer() -> String {
    format!(
        "What the optimizer reports, where it does. A metric that a plugin declares under one of these names, without
`gauntlet_`, is this one; any other becomes the gauge `{OPTIMIZER_PREFIX}NAME` with the label `plugin`, and its unit is
in its help. `gauntlet plugins inspect` lists what a plugin declares.

"
    )
}

fn row(entry: &Entry) -> String {
    let Entry { name, kind, unit, labels, help, .. } = entry;
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let label = |(name, values): &(&str, &[&str])| match values.is_empty() {
        true => format!("`{name}`"),
        false => {
            format!("`{name}`: {}", values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", "))
        }
    };
    let labels = labels.iter().map(label).collect::<Vec<_>>().join(", ");
    format!("| `{name}` | {kind} | {unit} | {labels} | {help} |\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docs_metrics_md_is_made_from_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if std::env::var_os("GAUNTLET_BLESS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let text = std::fs::read_to_string(path).unwrap_or_default();
        assert!(text == document(), "docs/metrics.md is old: run this test again with GAUNTLET_BLESS=1");
    }
}
