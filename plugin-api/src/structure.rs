//! Blocks of a block-diagonal problem: which parameters are solved together.

use crate::error::{Error, Result};
use crate::spec::{ParamSpec, Role};
use serde::{Deserialize, Serialize};
use std::borrow::Borrow;
use std::collections::HashMap;

/// Which parameters form a block of the Gauss-Newton, Hessian or Fisher matrix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Structure {
    /// One block: the whole model.
    #[default]
    Full,
    /// The token embedding; each transformer block, the last one with the final norm; the head.
    Layerwise,
    /// An explicit partition by exact parameter names.
    Partition(Vec<Vec<String>>),
}

/// A partition of the parameters, resolved against their list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    of_param: Vec<usize>,
    count: usize,
}

impl Blocks {
    /// Resolves a structure.
    ///
    /// # Errors
    ///
    /// A partition that names an unknown parameter, names one twice, or misses one.
    pub fn resolve<S: Borrow<ParamSpec>>(structure: &Structure, specs: &[S]) -> Result<Self> {
        match structure {
            Structure::Full => Ok(Self::whole(specs.len())),
            Structure::Layerwise => Ok(Self::layerwise(specs)),
            Structure::Partition(names) => Self::partition(names, specs),
        }
    }

    /// All of `params` parameters as one block.
    pub fn whole(params: usize) -> Self {
        Self { of_param: vec![0; params], count: usize::from(params > 0) }
    }

    /// Number of blocks.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Block of each parameter, in the order of the parameters.
    pub fn of_param(&self) -> &[usize] {
        &self.of_param
    }

    /// Indices of the parameters of one block.
    pub fn params_of(&self, block: usize) -> impl Iterator<Item = usize> + '_ {
        self.of_param.iter().enumerate().filter(move |(_, of)| **of == block).map(|(index, _)| index)
    }

    fn layerwise<S: Borrow<ParamSpec>>(specs: &[S]) -> Self {
        let last = specs.iter().filter_map(|spec| spec.borrow().layer_idx).max();
        let key = |spec: &ParamSpec| match (spec.layer_idx, spec.role) {
            (Some(layer), _) => 1 + layer,
            (None, Role::Embedding) => 0,
            (None, Role::Head) => usize::MAX,
            (None, _) => last.map_or(usize::MAX, |layer| 1 + layer),
        };
        let keys: Vec<usize> = specs.iter().map(|spec| key(spec.borrow())).collect();
        let mut present = keys.clone();
        present.sort_unstable();
        present.dedup();
        let of_param = keys.iter().map(|key| present.partition_point(|other| other < key)).collect();
        Self { of_param, count: present.len() }
    }

    fn partition<S: Borrow<ParamSpec>>(names: &[Vec<String>], specs: &[S]) -> Result<Self> {
        let index: HashMap<&str, usize> =
            specs.iter().enumerate().map(|(i, spec)| (spec.borrow().name.as_str(), i)).collect();
        let mut of_param = vec![None; specs.len()];
        for (block, name) in names.iter().enumerate().flat_map(|(b, names)| names.iter().map(move |name| (b, name))) {
            let slot = index.get(name.as_str()).map(|i| &mut of_param[*i]);
            let slot = slot.ok_or_else(|| Error::argument("partition", format!("no parameter is named `{name}`")))?;
            if slot.replace(block).is_some() {
                return Err(Error::argument("partition", format!("`{name}` is in two blocks")));
            }
        }
        let missing = of_param.iter().position(Option::is_none);
        if let Some(i) = missing {
            return Err(Error::argument("partition", format!("`{}` is in no block", specs[i].borrow().name)));
        }
        Ok(Self { of_param: of_param.into_iter().flatten().collect(), count: names.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn specs() -> Vec<ParamSpec> {
        let mut specs = vec![ParamSpec::new("embed", &[4, 2], Role::Embedding)];
        specs.extend((0..11).map(|l| ParamSpec::new(format!("blocks.{l}.w"), &[2, 2], Role::Hidden).in_layer(l)));
        specs.push(ParamSpec::new("norm", &[2], Role::Norm));
        specs.push(ParamSpec::new("head", &[4, 2], Role::Head));
        specs
    }

    #[test]
    fn layerwise_puts_the_final_norm_into_the_last_block() {
        let blocks = Blocks::resolve(&Structure::Layerwise, &specs()).unwrap();
        assert_eq!(blocks.count(), 13);
        assert_eq!(blocks.of_param()[12], blocks.of_param()[11], "final norm beside block 10");
        assert_eq!(blocks.params_of(2).collect::<Vec<_>>(), [2], "block 1 is not mistaken for 10");
    }

    #[test]
    fn a_partition_covers_every_parameter_once() {
        let names = |text: &[&[&str]]| {
            Structure::Partition(text.iter().map(|b| b.iter().map(|n| n.to_string()).collect()).collect())
        };
        let two = &specs()[..2];
        assert_eq!(Blocks::resolve(&names(&[&["blocks.0.w"], &["embed"]]), two).unwrap().of_param(), [1, 0]);
        let error = |text| Blocks::resolve(&names(text), two).unwrap_err().message;
        assert_eq!(error(&[&["embed"]]), "`blocks.0.w` is in no block");
        assert_eq!(error(&[&["embed", "embed"], &["blocks.0.w"]]), "`embed` is in two blocks");
        assert_eq!(error(&[&["blocks.1.w"]]), "no parameter is named `blocks.1.w`");
    }
}
