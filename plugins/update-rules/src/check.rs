//! Ranges of configuration values, with the field's names in the message.

use gauntlet_plugin_api::{Error, ErrorCode, Params, Result};

/// A finite number > 0.
pub fn positive(key: &str, value: f64) -> Result<()> {
    holds(key, value, "> 0", value > 0.0)
}

/// A finite number >= 0.
pub fn not_negative(key: &str, value: f64) -> Result<()> {
    holds(key, value, ">= 0", value >= 0.0)
}

/// A number in [0, 1): a decay rate.
pub fn decay_rate(key: &str, value: f64) -> Result<()> {
    holds(key, value, "in [0, 1)", (0.0..1.0).contains(&value))
}

/// A whole number from `least` to `most`.
pub fn between(key: &str, value: usize, least: usize, most: usize) -> Result<()> {
    match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(Error::config(key, format!("must be from {least} to {most}, got {value}"))),
    }
}

/// A whole number that is not smaller than `least`.
pub fn at_least(key: &str, value: u64, least: u64) -> Result<()> {
    match value >= least {
        true => Ok(()),
        false => Err(Error::config(key, format!("must be >= {least}, got {value}"))),
    }
}

/// A finite number in [0, 1].
pub fn share(key: &str, value: f64) -> Result<()> {
    holds(key, value, "in [0, 1]", (0.0..=1.0).contains(&value))
}

/// The norm of a gradient.
///
/// # Errors
///
/// It is not finite: it would spoil moving averages for good.
pub fn finite_norm(gradient: &Params) -> Result<f64> {
    finite_gradient(gradient.norm()?)
}

/// A gradient's norm that is known, as [`finite_norm`].
pub fn finite_gradient(norm: f64) -> Result<f64> {
    match norm.is_finite() {
        true => Ok(norm),
        false => {
            let message = format!("the gradient's norm is {norm}, expected a finite number");
            Err(Error::new(ErrorCode::NUMERICAL, "gradient", message))
        }
    }
}

fn holds(key: &str, value: f64, range: &str, holds: bool) -> Result<()> {
    match holds && value.is_finite() {
        true => Ok(()),
        false => Err(Error::config(key, format!("must be {range}, got {value}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_names_key_range_and_value() {
        assert_eq!(positive("lr", -1.0).unwrap_err().to_string(), "lr: must be > 0, got -1");
        assert_eq!(decay_rate("betas[1]", 1.0).unwrap_err().to_string(), "betas[1]: must be in [0, 1), got 1");
        assert!(not_negative("eps", f64::NAN).is_err() && positive("lr", f64::INFINITY).is_err());
        assert!(positive("lr", 1.0).is_ok() && not_negative("eps", 0.0).is_ok() && decay_rate("betas[0]", 0.9).is_ok());
    }
}
