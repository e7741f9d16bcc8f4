//! Forward-mode differentiation: entering and leaving libtorch's dual level.

use std::cell::Cell;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tch::Tensor;

use crate::{ShimError, ffi};

/// libtorch has one dual level for the whole process, so threads take turns.
static LEVEL: Mutex<()> = Mutex::new(());

thread_local! {
    static ENTERED: Cell<bool> = const { Cell::new(false) };
}

/// An entered dual level; dropping it leaves the level and clears every tangent made under it.
///
/// libtorch knows one level in a process: [`enter`](Self::enter) waits while another thread holds it.
/// Leave it before a reverse pass: some backward formulas (`silu`) refuse dual numbers.
#[derive(Debug)]
pub struct ForwardLevel {
    level: u64,
    _turn: MutexGuard<'static, ()>,
}

impl ForwardLevel {
    /// Enters the level.
    ///
    /// # Errors
    /// When this thread is in the level already, or libtorch refuses.
    pub fn enter() -> Result<Self, ShimError> {
        if ENTERED.get() {
            return Err(ShimError::new("this thread is in a forward-mode level already".into()));
        }
        let turn = LEVEL.lock().unwrap_or_else(PoisonError::into_inner);
        let level = ffi::enter_forward_level()?;
        ENTERED.set(true);
        Ok(Self { level, _turn: turn })
    }

    /// The dual number `primal + tangent * epsilon`; both have the same shape, dtype and device.
    ///
    /// # Errors
    /// When they differ (libtorch itself lets another dtype pass), or libtorch refuses.
    pub fn dual(&self, primal: &Tensor, tangent: &Tensor) -> Result<Tensor, ShimError> {
        let describe = |tensor: &Tensor| format!("{:?} of {:?} on {:?}", tensor.size(), tensor.kind(), tensor.device());
        let (found, expected) = (describe(tangent), describe(primal));
        if found != expected {
            return Err(ShimError::new(format!("tangent: found {found}, expected {expected}")));
        }
        Ok(Tensor::f_internal_make_dual(primal, tangent, self.index())?)
    }

    /// The primal and the tangent of a dual number; no tangent means that it depends on none.
    ///
    /// # Errors
    /// When libtorch refuses.
    pub fn unpack(&self, dual: &Tensor) -> Result<(Tensor, Option<Tensor>), ShimError> {
        let (primal, tangent) = Tensor::f_internal_unpack_dual(dual, self.index())?;
        Ok((primal, Some(tangent).filter(Tensor::defined)))
    }

    fn index(&self) -> i64 {
        self.level as i64 // libtorch counts levels from 0 and has one
    }
}

impl Drop for ForwardLevel {
    fn drop(&mut self) {
        ENTERED.set(false);
        if let Err(error) = ffi::exit_forward_level(self.level) {
            eprintln!("forward-mode level {} was not released: {error}", self.level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn a_dual_number_carries_the_derivative_of_a_square() {
        let x = Tensor::from_slice(&[1.0_f64, -2.0, 0.5]);
        let v = Tensor::from_slice(&[3.0_f64, 1.0, -4.0]);
        let level = ForwardLevel::enter().unwrap();
        let square = level.dual(&x, &v).unwrap().square();
        let (primal, tangent) = level.unpack(&square).unwrap();
        assert_eq!(Vec::<f64>::try_from(primal).unwrap(), [1.0, 4.0, 0.25]);
        assert_eq!(Vec::<f64>::try_from(tangent.unwrap()).unwrap(), [6.0, -4.0, -4.0]);
    }

    #[test]
    fn what_depends_on_no_dual_has_no_tangent() {
        let level = ForwardLevel::enter().unwrap();
        let (primal, tangent) = level.unpack(&Tensor::from(2.0_f64)).unwrap();
        assert_eq!(primal.double_value(&[]), 2.0);
        assert!(tangent.is_none());
    }

    #[test]
    fn a_second_level_is_refused_and_the_next_one_after_the_first_is_not() {
        let first = ForwardLevel::enter().unwrap();
        assert!(ForwardLevel::enter().unwrap_err().to_string().contains("already"));
        drop(first);
        assert!(ForwardLevel::enter().is_ok());
    }

    #[test]
    fn threads_take_turns() {
        let square = |x: f64| {
            let level = ForwardLevel::enter().unwrap();
            let dual = level.dual(&Tensor::from(x), &Tensor::from(1.0_f64)).unwrap();
            level.unpack(&dual.square()).unwrap().1.unwrap().double_value(&[])
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|x| (x, scope.spawn(move || square(f64::from(x))))).collect();
            threads.into_iter().for_each(|(x, thread)| assert_eq!(thread.join().unwrap(), 2.0 * f64::from(x)));
        });
    }

    #[test]
    fn a_tangent_of_another_shape_or_dtype_is_refused() {
        let level = ForwardLevel::enter().unwrap();
        let primal = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        for tangent in [Tensor::zeros([3], (Kind::Float, Device::Cpu)), Tensor::zeros([2], (Kind::Double, Device::Cpu))]
        {
            assert!(level.dual(&primal, &tangent).unwrap_err().to_string().contains("expected [2] of Float"));
        }
    }
}
