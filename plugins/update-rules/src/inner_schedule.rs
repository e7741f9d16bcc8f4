//! The step size within one Gauss-Newton step, and how it composes with the run's schedule (arXiv 2510.09378):
//! the rule's peak x the run's multiplier x the inner multiplier.

use gauntlet_plugin_api::prelude::*;
use std::f64::consts::PI;

/// Course of the multiplier over the N inner steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// 1 after the warm-up.
    #[default]
    Constant,
    /// Half a cosine from 1 to the final fraction; it begins anew with every step.
    Cosine,
}

/// Where the run's schedule is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OuterAt {
    /// At the step t: the same for all its inner steps.
    Step,
    /// At t + i / N for inner step i of N.
    #[default]
    InnerStep,
}

/// The inner schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InnerSchedule {
    /// Course after the warm-up.
    pub course: Course,
    /// Inner steps that rise from 0.1 to 1.
    pub warmup_steps: usize,
    /// Where the cosine would end at inner step N.
    pub final_fraction: f64,
    /// Where the run's schedule is read.
    pub outer_at: OuterAt,
}

impl InnerSchedule {
    /// Multiplier of inner step `i` of `n`, i from 0, the run's schedule left out: over w warm-up steps
    /// 0.1 + 0.9 i / w, then f + (1 - f) / 2 (1 + cos(pi (i - w) / (n - w))).
    pub fn inner(&self, i: usize, n: usize) -> f64 {
        let (w, f) = (self.warmup_steps, self.final_fraction);
        if i < w {
            return 0.1 + 0.9 * i as f64 / w as f64;
        }
        match self.course {
            Course::Constant => 1.0,
            Course::Cosine => f + (1.0 - f) / 2.0 * (1.0 + (PI * (i - w) as f64 / (n - w) as f64).cos()),
        }
    }

    /// Multiplier of inner step `i` of `n` of the step in progress.
    pub fn at(&self, ctx: &StepContext, i: usize, n: usize) -> f64 {
        let x = match self.outer_at {
            OuterAt::Step => ctx.step() as f64,
            OuterAt::InnerStep => ctx.step() as f64 + i as f64 / n as f64,
        };
        ctx.schedule_at(x) * self.inner(i, n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warm_up_starts_at_a_tenth_and_the_cosine_at_its_peak() {
        let schedule = InnerSchedule {
            course: Course::Cosine,
            warmup_steps: 3,
            final_fraction: 0.2,
            outer_at: OuterAt::default(),
        };
        let course: Vec<f64> = (0..7).map(|i| schedule.inner(i, 7)).collect();
        for (found, expected) in
            course.iter().zip([0.1, 0.4, 0.7, 1.0, 0.882_842_712_474_619, 0.6, 0.317_157_287_525_381])
        {
            assert!((found - expected).abs() < 1e-15, "{course:?}");
        }
        let constant = InnerSchedule { course: Course::Constant, ..schedule };
        assert_eq!([constant.inner(3, 7), constant.inner(6, 7)], [1.0, 1.0]);
    }
}
