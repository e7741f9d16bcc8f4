//! The solver's state, exact to the bit, also in the middle of a step.

use super::report::{Counts, Summary};
use super::{GaussNewton, Running, Stage};
use crate::line_search::Grid;
use crate::newton_cg::Solve;
use gauntlet_plugin_api::prelude::*;

impl GaussNewton {
    /// Saves everything that the next call of [`GaussNewton::step`] depends on. The anchor is the run's parameters.
    pub fn save(&self, state: &mut StateWriter) -> Result<()> {
        state.params("iterate", &self.iterate)?;
        match &self.solver {
            Running::Rule(rule) => rule.save(state, "inner.")?,
            Running::Cg(_, Some(last)) => state.params("inner.last", last)?,
            Running::Cg(_, None) => {}
        }
        let Counts { at_grid_end, rejected, failed, not_positive } = self.counts;
        state.u64("counts.at_grid_end", at_grid_end)?;
        state.u64("counts.rejected", rejected)?;
        state.u64("counts.failed", failed)?;
        state.u64("counts.not_positive", not_positive)?;
        match &self.stage {
            Stage::Between => Ok(()),
            Stage::Inner { batch, done, summary } => {
                state.text("solve.batch", &batch.to_json()?)?;
                state.u64("solve.done", *done as u64)?;
                state.f64s("summary", &summary.numbers())
            }
            Stage::Cg(solve) => solve.save(state, "cg."),
            Stage::Search { batch, grid, summary } => {
                state.text("search.batch", &batch.to_json()?)?;
                grid.save(state, "search.")?;
                state.f64s("summary", &summary.numbers())
            }
        }
    }

    /// Restores what [`GaussNewton::save`] took.
    pub fn load(&mut self, state: &StateReader) -> Result<()> {
        self.iterate = state.params("iterate")?;
        match &mut self.solver {
            Running::Rule(rule) => rule.load(state, "inner.")?,
            Running::Cg(_, last) => {
                *last = state.has("inner.last").then(|| state.params("inner.last")).transpose()?;
            }
        }
        self.counts = Counts {
            at_grid_end: state.u64("counts.at_grid_end")?,
            rejected: state.u64("counts.rejected")?,
            failed: state.u64("counts.failed")?,
            not_positive: state.u64("counts.not_positive")?,
        };
        self.stage = self.load_stage(state)?;
        Ok(())
    }

    fn load_stage(&self, state: &StateReader) -> Result<Stage> {
        let position = |name: &str| Position::from_json(&state.text(name)?);
        let summary = || Summary::of_numbers(&state.f64s("summary")?);
        Ok(match &self.solver {
            Running::Rule(_) if state.has("solve.batch") => Stage::Inner {
                batch: position("solve.batch")?,
                done: state.u64("solve.done")? as usize,
                summary: summary()?,
            },
            Running::Cg(config, _) if state.has("cg.batch") => {
                Stage::Cg(Box::new(Solve::load(state, "cg.", config, &self.structure)?))
            }
            _ if state.has("search.batch") => Stage::Search {
                batch: position("search.batch")?,
                grid: Grid::load(state, "search.")?,
                summary: summary()?,
            },
            _ => Stage::Between,
        })
    }
}
