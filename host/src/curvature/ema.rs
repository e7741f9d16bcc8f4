//! The moving average of the parameters: e <- a e + (1 - a) theta.

use tch::Tensor;

/// An exponential moving average, one tensor a parameter.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    average: Vec<Tensor>,
    updated: bool,
}

impl Ema {
    /// Starts at the parameters themselves.
    pub fn new(decay: f64, params: &[&Tensor]) -> Self {
        Self { decay, average: tch::no_grad(|| params.iter().map(|param| param.copy()).collect()), updated: false }
    }

    /// One update with weight `1 - decay` for the parameters.
    pub fn update(&mut self, params: &[&Tensor]) {
        tch::no_grad(|| {
            for (average, param) in self.average.iter_mut().zip(params) {
                let _ = average.lerp_(param, 1.0 - self.decay);
            }
        });
        self.updated = true;
    }

    /// Whether it was updated since the last call of this function: a plugin that averages its own iterates makes the
    /// host's update unnecessary.
    pub fn take_updated(&mut self) -> bool {
        std::mem::take(&mut self.updated)
    }

    /// Whether the plugin has averaged iterates of the step in progress.
    pub fn is_updated(&self) -> bool {
        self.updated
    }

    /// Goes on from a saved average.
    pub fn resume(&mut self, average: &[Tensor], updated: bool) {
        self.restore(average);
        self.updated = updated;
    }

    /// The average.
    pub fn params(&self) -> &[Tensor] {
        &self.average
    }

    /// A deep copy of the average, to go back to.
    pub fn snapshot(&self) -> Vec<Tensor> {
        tch::no_grad(|| self.average.iter().map(Tensor::copy).collect())
    }

    /// Goes back to a snapshot.
    pub fn restore(&mut self, snapshot: &[Tensor]) {
        tch::no_grad(|| {
            self.average.iter_mut().zip(snapshot).for_each(|(average, saved)| average.copy_(saved));
        });
        self.updated = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_average_follows_the_parameters_by_its_decay() {
        let mut ema = Ema::new(0.75, &[&Tensor::from_slice(&[1.0_f64, 2.0])]);
        ema.update(&[&Tensor::from_slice(&[5.0_f64, 2.0])]);
        assert_eq!(Vec::<f64>::try_from(&ema.params()[0]).unwrap(), [2.0, 2.0]);
        assert!(ema.take_updated() && !ema.take_updated());
    }
}
