//! A run from its first step to its end: its folder, who hears of it, and its checkpoints.

use super::Ending;
use super::exit_guard::ExitGuard;
use super::folder::{self, Place, RunFolder, write_running, write_status};
use super::growth::Growth;
use super::listeners::{self, Listeners};
use super::prepare::{Prepared, kind};
use super::saving::Saving;
use super::signals::Stop;
use super::store::Store;
use crate::config::Config;
use crate::error::{Fault, Result};
use crate::events::{Event, Finished};
use crate::sinks::checkpoint::Checkpoint;
use crate::sinks::metrics::resident;
use crate::sinks::say;
use crate::trainer::{End, Progress};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// After this time a long step should return, so that the run can be served.
const PART: Duration = Duration::from_secs(60);

/// A run that was asked to stop waits for its last scrape no longer than this, so that it ends before whoever asked kills it.
const LAST_SCRAPE: Duration = Duration::from_secs(5);

/// What a run has beside what it computes.
pub(super) struct Running<'a> {
    stop: &'a Stop,
    folder: RunFolder,
    pub listeners: Listeners,
    saving: Saving,
}

impl<'a> Running<'a> {
    /// Makes the folder and everything in it, and tells of the start.
    ///
    /// # Errors
    ///
    /// A folder that cannot be made or has no room, an address that has to be had and is not.
    pub fn begin(
        place: Place,
        config: &Config,
        prepared: &Prepared,
        stop: &'a Stop,
        from: Option<&Checkpoint>,
    ) -> Result<Self, Vec<Fault>> {
        let begin = || {
            let metrics = listeners::metrics(config, &prepared.plugin)?;
            let died = folder::died(&config.run.dir);
            let folder = place.create(config, &prepared.model)?;
            let mut listeners = Listeners::open(folder.path(), metrics)?;
            listeners.hear(&Event::Started(prepared.started.clone()));
            write_running(&folder.status(), &prepared.plugin.name, prepared.trainer.step())?;
            stop.committed(from.map(|checkpoint| checkpoint.path.as_path()));
            let store = Store::open(folder.checkpoints(), stop.newest())?;
            let space = store.check_space(checkpoint_bytes(config, prepared), config.checkpoint.keep)?;
            let warnings = [died, store.clean()?, space].into_iter().flatten();
            warnings.for_each(|message| listeners.hear(&warning(message)));
            let saving = Saving::new(&config.checkpoint, store, from);
            Ok(Self { stop, folder, listeners, saving })
        };
        begin().map_err(|fault| vec![fault])
    }

    /// Steps until the end, or until a stop is asked for (`None`); saves on the way, when asked for, and at the end.
    pub fn run(&mut self, prepared: &mut Prepared) -> Result<Option<End>> {
        let Self { stop, folder, listeners, saving } = self;
        let mut growth = Growth::default();
        let _guard = ExitGuard::new();
        prepared.session.lock().backend.stop = stop.flag();
        prepared.session.lock().backend.pulse = stop.pulse();
        loop {
            prepared.session.lock().backend.return_by = Some(Instant::now() + PART);
            stop.pulse().fetch_add(1, Ordering::Relaxed);
            let progress = prepared.trainer.advance(&mut |event| listeners.hear(&event))?;
            saving.poll(&mut |event| listeners.hear(&event))?;
            listeners.check()?;
            let (ended, stopped) = (matches!(progress, Progress::End(_)), stop.is_asked());
            // Both are asked, since both take note.
            let due = saving.is_due(progress) | stop.take_save();
            let mut warnings = vec![growth.look(|| Some(resident()?.0))];
            if ended || stopped || due {
                saving.begin(prepared, &mut |event| listeners.hear(&event))?;
                warnings.push(prepared.plugin_file.look());
            }
            warnings.into_iter().flatten().for_each(|message| listeners.hear(&warning(message)));
            if ended || stopped {
                saving.finish(&mut |event| listeners.hear(&event))?;
            }
            listeners.check()?;
            stop.reached(prepared.trainer.step(), &folder.status());
            match progress {
                Progress::End(end) => return Ok(Some(end)),
                _ if stopped => return Ok(None),
                _ => {}
            }
        }
    }

    /// Completes the run's files and hands its last metrics over. A stop that saved has exit code `graceful`.
    pub fn end(mut self, prepared: &Prepared, outcome: Result<Option<End>>, graceful: u8, started: Instant) -> Ending {
        if outcome.is_err() {
            // What is being written is of before the error, which has the first word.
            let _ = self.saving.finish(&mut |event| self.listeners.hear(&event));
        }
        let ending = self.ending(prepared, outcome, graceful);
        self.listeners.hear(&finished(&ending, prepared, started));
        let (closed, metrics) = self.listeners.close();
        let closed = closed.and_then(|()| write_status(&self.folder.status(), &ending));
        self.stop.ended();
        let (closing, stopped) = (Instant::now(), ending.reason == "stopped");
        let hurry = || self.stop.is_asked() || (stopped && closing.elapsed() >= LAST_SCRAPE);
        metrics.iter().flat_map(|metrics| metrics.close(&hurry)).for_each(|warning| say(&warning));
        match closed {
            Err(fault) if ending.fault.is_none() => {
                Ending { code: fault.exit as u8, reason: "error", fault: Some(fault), ..ending }
            }
            _ => ending,
        }
    }

    fn ending(&self, prepared: &Prepared, outcome: Result<Option<End>>, graceful: u8) -> Ending {
        let (code, reason, fault) = match outcome {
            Ok(Some(end)) => (0, end.name(), None),
            Ok(None) => (graceful, "stopped", None),
            Err(fault) => (fault.exit as u8, "error", Some(fault)),
        };
        let checkpoint = self.saving.newest().map(PathBuf::from);
        Ending { code, reason, checkpoint, step: prepared.trainer.step(), fault }
    }
}

fn warning(message: String) -> Event {
    Event::Log { level: "warn".into(), message }
}

/// About how many bytes a checkpoint of the run will have.
fn checkpoint_bytes(config: &Config, prepared: &Prepared) -> u64 {
    let params = prepared.started.num_params * kind(config.run.dtype).elt_size_in_bytes() as u64;
    let lists = 1 + u64::from(config.ema.decay.is_some());
    lists * params + prepared.started.state_bytes
}

fn finished(ending: &Ending, prepared: &Prepared, started: Instant) -> Event {
    Event::Finished(Finished {
        step: ending.step,
        reason: ending.reason.into(),
        exit_code: ending.code,
        error: ending.fault.as_ref().map(ToString::to_string),
        validation_loss: prepared.trainer.validation_loss(),
        seconds: started.elapsed().as_secs_f64(),
    })
}
