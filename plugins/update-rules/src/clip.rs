//! Clipping of a gradient by the norm of groups of parameters.

use crate::check::{finite_gradient, finite_norm};
use gauntlet_plugin_api::{Blocks, ParamSpec, Params, Result, Role};

/// Scales a list down to a Euclidean norm of `max_norm` where it is longer, and gives the norm that it had.
///
/// # Errors
///
/// A norm that is not finite: a scaled NaN or infinity would hide it.
pub fn to_norm(gradient: &mut Params, max_norm: f64) -> Result<f64> {
    let norm = finite_norm(gradient)?;
    if norm > max_norm {
        gradient.scale_(max_norm / norm)?;
    }
    Ok(norm)
}

/// Whether a parameter belongs to the first of two optimizer groups: embedding and head; the other holds the rest.
pub fn is_vocabulary(spec: &ParamSpec) -> bool {
    matches!(spec.role, Role::Embedding | Role::Head)
}

/// [`to_norm`] for two groups apart: {embedding, head} and {everything else}.
pub fn by_optimizer_group(gradient: &mut Params, max_norm: f64) -> Result<[f64; 2]> {
    let vocabulary = to_norm(&mut gradient.select_mut(is_vocabulary), max_norm)?;
    let rest = to_norm(&mut gradient.select_mut(|spec| !is_vocabulary(spec)), max_norm)?;
    Ok([vocabulary, rest])
}

/// [`to_norm`] for each block apart.
pub fn by_block(gradient: &mut Params, blocks: &Blocks, max_norm: f64) -> Result<Vec<f64>> {
    let norms = gradient.norm_by_block(blocks)?;
    norms.iter().try_for_each(|norm| finite_gradient(*norm).map(drop))?;
    if norms.iter().any(|norm| *norm > max_norm) {
        let scales: Vec<f64> = norms.iter().map(|norm| if *norm > max_norm { max_norm / norm } else { 1.0 }).collect();
        gradient.scale_by_block_(blocks, &scales)?;
    }
    Ok(norms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::on;
    use gauntlet_plugin_api::DType;

    fn params() -> Vec<(ParamSpec, Vec<f64>)> {
        vec![
            (ParamSpec::new("e", &[2, 1], Role::Embedding), vec![3.0, 0.0]),
            (ParamSpec::new("w", &[1, 2], Role::Hidden), vec![0.3, 0.0]),
            (ParamSpec::new("n", &[1], Role::Norm), vec![0.4]),
            (ParamSpec::new("h", &[2, 1], Role::Head), vec![0.0, 4.0]),
        ]
    }

    #[test]
    fn each_group_is_scaled_by_its_own_norm() {
        let (norms, values) = on(DType::F64, params(), |ctx| {
            let norms = by_optimizer_group(ctx.params_mut(), 1.0)?;
            let values = ctx.params().iter().map(|(_, x)| x.to_vec()).collect::<Result<Vec<_>>>()?;
            Ok((norms, values.concat()))
        })
        .unwrap();
        assert_eq!(norms, [5.0, 0.5]);
        for (found, expected) in values.iter().zip([0.6, 0.0, 0.3, 0.0, 0.4, 0.0, 0.8]) {
            assert!((found - expected).abs() < 1e-15, "{values:?}");
        }
    }

    #[test]
    fn a_norm_that_is_not_finite_is_an_error() {
        let mut params = params();
        params[1].1[0] = f64::NAN;
        let error = on(DType::F64, params, |ctx| by_optimizer_group(ctx.params_mut(), 1.0)).unwrap_err();
        assert_eq!(error.to_string(), "gradient: the gradient's norm is NaN, expected a finite number");
    }
}
