//! Between tensors and bytes: shape, element type, elements.

use super::error;
use gauntlet_plugin_abi::{DType, ErrorCode};
use gauntlet_plugin_api::{Error, Result};
use tch::{Device, Kind, Tensor};

/// Shape and element type.
pub fn info(tensor: &Tensor) -> (Vec<usize>, DType) {
    let dtype = match tensor.kind() {
        Kind::Float => DType::F32,
        Kind::Double => DType::F64,
        Kind::Int64 => DType::I64,
        Kind::BFloat16 => DType::BF16,
        Kind::Half => DType::F16,
        // No operation of a plugin gives another kind; the number is shown if one ever does.
        other => DType(1000 + other as u32),
    };
    (tensor.size().into_iter().map(|size| size as usize).collect(), dtype)
}

/// The kind of an element type.
pub fn kind(dtype: DType) -> Result<Kind> {
    match dtype {
        DType::F32 => Ok(Kind::Float),
        DType::F64 => Ok(Kind::Double),
        DType::I64 => Ok(Kind::Int64),
        DType::BF16 => Ok(Kind::BFloat16),
        DType::F16 => Ok(Kind::Half),
        other => Err(Error::unsupported(format!("element type {}", other.name()))),
    }
}

/// A tensor on a device from little-endian elements in row-major order.
pub fn from_bytes(device: Device, dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
    let kind = kind(dtype)?;
    let count: usize = shape.iter().product();
    if count * kind.elt_size_in_bytes() != bytes.len() {
        return Err(Error::shape(
            "from_bytes",
            format!("{} bytes for shape {shape:?} of {}", bytes.len(), dtype.name()),
        ));
    }
    let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
    if bytes.is_empty() {
        return Ok(Tensor::zeros(shape, (kind, device)));
    }
    Tensor::f_from_data_size(bytes, &shape, kind)
        .map(|tensor| tensor.to_device(device))
        .map_err(|e| error("from_bytes", &e))
}

/// The elements, little-endian, row-major.
pub fn to_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tch::no_grad(|| tensor.detach().to_device(Device::Cpu).contiguous());
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    match tensor.f_copy_data_u8(&mut bytes, tensor.numel()) {
        Ok(()) => Ok(bytes),
        Err(cause) => Err(Error { code: ErrorCode::HOST, ..error("to_bytes", &cause) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_bit_for_bit() {
        let numbers = [1.5_f64, f64::from_bits(0x7ff8_0000_dead_beef), -0.0, f64::INFINITY];
        let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let tensor = from_bytes(Device::Cpu, DType::F64, &[2, 2], &bytes).unwrap();
        assert_eq!(info(&tensor), (vec![2, 2], DType::F64));
        assert_eq!(to_bytes(&tensor).unwrap(), bytes);
        assert_eq!(to_bytes(&tensor.transpose(0, 1)).unwrap()[8..16], bytes[16..24], "row-major also of a view");
        let empty = from_bytes(Device::Cpu, DType::F32, &[0, 3], &[]).unwrap();
        assert_eq!((info(&empty).0, to_bytes(&empty).unwrap()), (vec![0, 3], vec![]));
        assert_eq!(from_bytes(Device::Cpu, DType::F32, &[3], &[0; 8]).unwrap_err().code, ErrorCode::SHAPE);
    }
}
