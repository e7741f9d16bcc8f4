//! One thread that watches a run: the grace after a signal, and signs of life.

use super::signals::Stop;
use super::threads;
use crate::error::{Exit, Fault};
use crate::sinks::say;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a run may take to stop, and to show no sign of life (zero: for ever).
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub grace: Duration,
    pub hang: Duration,
}

const POLL: Duration = Duration::from_millis(50);

/// Watches until the run has ended.
pub fn watch(stop: &Stop, limits: Limits) {
    let (mut life, mut asked, mut last) = (Life::new(limits.hang), None, Instant::now());
    while !stop.has_ended() {
        std::thread::sleep(POLL.min(limits.grace));
        // A process that was suspended has not hung meanwhile.
        let since = last.elapsed().min(20 * POLL);
        last = Instant::now();
        if stop.take_states() {
            threads::say_states();
        }
        if stop.is_asked() && asked.get_or_insert_with(Instant::now).elapsed() >= limits.grace {
            let what = format!("the run did not reach a point to stop within {} s", limits.grace.as_secs());
            let fault = Fault::new(Exit::Stopped, what).hint("raise `run.grace_seconds`");
            stop.end_process(stop.signal_code(), "grace", fault);
        }
        let without = |life: &Life| format!("no sign of life for {} s", life.silent.as_secs());
        match life.look(stop.pulse().load(Ordering::Relaxed), since) {
            Stage::Alive => {}
            Stage::Warn => say(&format!("warning: {}; the run ends at {} s", without(&life), limits.hang.as_secs())),
            Stage::Report => {
                say(&format!("warning: {}", without(&life)));
                threads::say_states();
            }
            Stage::End => {
                let fault = Fault::new(Exit::Plugin, format!("the step hangs: {}", without(&life)));
                stop.end_process(Exit::Plugin as u8, "hang", fault.hint("raise `run.hang_seconds`, or set it to 0"));
            }
        }
    }
}

/// What to do about a run's silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Alive,
    Warn,
    Report,
    End,
}

/// A run's signs of life.
#[derive(Debug)]
struct Life {
    limit: Duration,
    pulse: u64,
    silent: Duration,
    /// Thirds of the limit that have passed in silence.
    thirds: u32,
}

impl Life {
    fn new(limit: Duration) -> Self {
        Self { limit, pulse: 0, silent: Duration::ZERO, thirds: 0 }
    }

    /// Looks at the pulse `since` the last look.
    fn look(&mut self, pulse: u64, since: Duration) -> Stage {
        if pulse != self.pulse || pulse == 0 || self.limit.is_zero() {
            (self.pulse, self.silent, self.thirds) = (pulse, Duration::ZERO, 0);
            return Stage::Alive;
        }
        self.silent += since;
        let thirds = (3 * self.silent.as_millis() / self.limit.as_millis().max(1)).min(3) as u32;
        if thirds <= self.thirds {
            return Stage::Alive;
        }
        self.thirds = thirds;
        match thirds {
            1 => Stage::Warn,
            2 => Stage::Report,
            _ => Stage::End,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_warned_of_reported_and_ended_each_once() {
        let second = Duration::from_secs(1);
        let mut life = Life::new(6 * second);
        let mut looks = |pulse: u64, times: usize| (0..times).map(|_| life.look(pulse, second)).collect::<Vec<_>>();
        assert_eq!(looks(0, 9), [Stage::Alive; 9], "nothing has begun");
        let expected = [Stage::Alive, Stage::Alive, Stage::Warn, Stage::Alive, Stage::Report, Stage::Alive, Stage::End];
        assert_eq!(looks(1, 7), expected);
        assert_eq!(looks(2, 3), [Stage::Alive, Stage::Alive, Stage::Warn], "a sign of life begins it anew");
        let mut never = Life::new(Duration::ZERO);
        assert!((0..9).all(|_| never.look(1, 1000 * second) == Stage::Alive));
    }
}
