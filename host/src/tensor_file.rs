//! Files of named tensors (safetensors) that a user hands in or gets: vectors, tokens, products.
//!
//! Equal contents give equal bytes. Like `durable`, this module may be used by all.

use crate::durable;
use crate::error::{Exit, Fault, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::BTreeMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Named tensors on the CPU, in the order of their names.
pub type NamedTensors = BTreeMap<String, Tensor>;

/// Reads a file whole.
///
/// # Errors
///
/// [`Exit::Missing`] where it cannot be read, [`Exit::Data`] where it is no such file or holds another type of element
/// than f32, f64, f16, bf16, i64 or i32.
pub fn read(path: &Path) -> Result<NamedTensors> {
    parse(path, &std::fs::read(path).map_err(|error| Fault::reading(path, &error))?)
}

/// Reads the bytes of a file, which messages call `path`.
///
/// # Errors
///
/// [`Exit::Data`], as [`read`].
pub fn parse(path: &Path, bytes: &[u8]) -> Result<NamedTensors> {
    let bad = |what: String| Fault::new(Exit::Data, format!("`{}`: {what}", path.display()));
    let file = SafeTensors::deserialize(bytes);
    let file = file.map_err(|error| bad("not a safetensors file".into()).found(error))?;
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        let kind = TYPES.iter().find(|(dtype, _)| *dtype == view.dtype()).map(|(_, kind)| *kind).ok_or_else(|| {
            bad(format!("tensor `{name}`")).found(format!("{:?}", view.dtype())).expected("floats or integers")
        })?;
        let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
        let tensor = Tensor::f_from_data_size(view.data(), &shape, kind);
        Ok((name.to_owned(), tensor.map_err(|error| bad(format!("tensor `{name}`")).found(error))?))
    };
    file.iter().map(tensor).collect()
}

/// Writes or replaces a file.
///
/// # Errors
///
/// [`Exit::Write`].
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &BTreeMap<String, String>) -> Result<()> {
    let internal =
        |error: &dyn std::fmt::Display| Fault::new(Exit::Internal, format!("tensors cannot be written: {error}"));
    let part = |(name, tensor): &(String, Tensor)| {
        let tensor = tensor.to_device(Device::Cpu).contiguous();
        let dtype = TYPES.iter().find(|(_, kind)| *kind == tensor.kind()).map(|(dtype, _)| *dtype);
        let dtype = dtype.ok_or_else(|| internal(&format!("`{name}` is of {:?}", tensor.kind())))?;
        let shape: Vec<usize> = tensor.size().iter().map(|size| *size as usize).collect();
        Ok((name.clone(), dtype, shape, elements(&tensor)))
    };
    let parts = tensors.iter().map(part).collect::<Result<Vec<_>>>()?;
    let views = parts.iter().map(|(name, dtype, shape, bytes)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<std::result::Result<Vec<_>, _>>().map_err(|error| internal(&error))?;
    let metadata = metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let file = safetensors::serialize(views, Some(metadata)).map_err(|error| internal(&error))?;
    durable::replace(path, &with_sorted_header(file).ok_or_else(|| internal(&"a header that is not JSON"))?)
}

/// The same file with its header's keys in order: the library writes metadata in an order of chance.
fn with_sorted_header(mut file: Vec<u8>) -> Option<Vec<u8>> {
    let length = u64::from_le_bytes(file.get(..8)?.try_into().ok()?) as usize;
    let header = file.get_mut(8..8 + length)?;
    let sorted: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).ok()?;
    let sorted = serde_json::to_vec(&sorted).ok()?;
    header.fill(b' ');
    header.get_mut(..sorted.len())?.copy_from_slice(&sorted);
    Some(file)
}

fn elements(tensor: &Tensor) -> Vec<u8> {
    let bytes = tensor.numel() * tensor.kind().elt_size_in_bytes();
    let mut elements = vec![0; bytes];
    tensor.copy_data_u8(&mut elements, tensor.numel());
    elements
}

/// Element types of files and of tensors.
const TYPES: [(Dtype, Kind); 6] = [
    (Dtype::F32, Kind::Float),
    (Dtype::F64, Kind::Double),
    (Dtype::F16, Kind::Half),
    (Dtype::BF16, Kind::BFloat16),
    (Dtype::I64, Kind::Int64),
    (Dtype::I32, Kind::Int),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_equal_contents_give_equal_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let tensors = vec![
            ("b".to_owned(), Tensor::from_slice(&[1.5_f64, f64::NAN]).view([2, 1])),
            ("a".to_owned(), Tensor::from_slice(&[-2.0_f32])),
            ("c".to_owned(), Tensor::from_slice(&[7_i64, -1])),
        ];
        let metadata: BTreeMap<String, String> = (0..9).map(|i| (format!("key{i}"), i.to_string())).collect();
        let paths = [folder.path().join("one"), folder.path().join("two")];
        paths.iter().for_each(|path| write(path, &tensors, &metadata).unwrap());
        assert_eq!(std::fs::read(&paths[0]).unwrap(), std::fs::read(&paths[1]).unwrap());
        let read = read(&paths[0]).unwrap();
        assert_eq!(read["a"].size(), [1]);
        assert_eq!(Vec::<i64>::try_from(&read["c"]).unwrap(), [7, -1]);
        let complex = [("z".to_owned(), Tensor::zeros([1], (Kind::ComplexFloat, Device::Cpu)))];
        assert!(write(&paths[0], &complex, &metadata).is_err());
        assert_eq!((read["b"].size(), read["b"].double_value(&[0, 0])), (vec![2, 1], 1.5));
    }

    #[test]
    fn what_is_no_such_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("v");
        assert_eq!(read(&path).unwrap_err().exit, Exit::Missing);
        for bytes in [&b""[..], b"text", &[0xff; 16], &u64::MAX.to_le_bytes()] {
            std::fs::write(&path, bytes).unwrap();
            let fault = read(&path).unwrap_err();
            assert!(fault.exit == Exit::Data && fault.to_string().contains("not a safetensors file"), "{fault}");
        }
    }
}
