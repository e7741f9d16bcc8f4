//! The multiplier in [0, 1] of the learning rate, as a function of the fractional step.

use crate::config::{Schedule, ScheduleKind};
use std::f64::consts::PI;

/// The multiplier at a fractional step x (x = 0 for the first step).
///
/// It rises linearly over `warmup_steps` w, so that step t < w gets (t + 1) / w; then it is 1 (`constant`), falls to
/// `final_fraction` at the horizon along half a cosine or linearly, or stays 1 and falls linearly over the last
/// `decay_steps` (`wsd`). `horizon` is `schedule.horizon_steps`, else the run's number of steps.
pub fn multiplier(schedule: &Schedule, horizon: Option<u64>, x: f64) -> f64 {
    let warmup = schedule.warmup_steps as f64;
    if x < warmup {
        return ((x + 1.0) / warmup).min(1.0);
    }
    let horizon = horizon.map_or(f64::INFINITY, |steps| steps as f64);
    let start = match schedule.kind {
        ScheduleKind::Wsd => (horizon - schedule.decay_steps.unwrap_or(0) as f64).max(warmup),
        _ => warmup,
    };
    let progress = ((x - start) / (horizon - start).max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
    let left = match schedule.kind {
        ScheduleKind::Constant => 1.0,
        ScheduleKind::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
        ScheduleKind::Linear | ScheduleKind::Wsd => 1.0 - progress,
    };
    schedule.final_fraction + (1.0 - schedule.final_fraction) * left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(kind: ScheduleKind, x: f64) -> f64 {
        let schedule =
            Schedule { kind, warmup_steps: 4, final_fraction: 0.1, horizon_steps: None, decay_steps: Some(10) };
        multiplier(&schedule, Some(24), x)
    }

    #[test]
    fn warm_up_is_linear_and_reaches_one() {
        assert_eq!([0.0, 1.0, 3.0].map(|x| at(ScheduleKind::Cosine, x)), [0.25, 0.5, 1.0]);
        assert_eq!(at(ScheduleKind::Cosine, 4.0), 1.0);
    }

    #[test]
    fn each_shape_has_its_half_way_point_and_its_end() {
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(at(ScheduleKind::Constant, 1e6), 1.0);
        close(at(ScheduleKind::Cosine, 14.0), 0.55);
        close(at(ScheduleKind::Linear, 14.0), 0.55);
        close(at(ScheduleKind::Linear, 9.0), 0.775);
        close(at(ScheduleKind::Wsd, 13.9), 1.0);
        close(at(ScheduleKind::Wsd, 19.0), 0.55);
        for kind in [ScheduleKind::Cosine, ScheduleKind::Linear, ScheduleKind::Wsd] {
            close(at(kind, 24.0), 0.1);
            close(at(kind, 1000.0), 0.1);
        }
    }

    #[test]
    fn without_a_horizon_nothing_decays() {
        let schedule = Schedule { kind: ScheduleKind::Constant, ..Schedule::default() };
        assert_eq!(multiplier(&schedule, None, 1e9), 1.0);
    }
}
