//! A dense array with an element type: what the plain backend computes with.

use crate::error::{Error, Result};
use gauntlet_plugin_abi::{DType, ErrorCode};
use ndarray::{ArrayD, IxDyn};

/// Whole numbers beyond this are not exact in f64.
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;
/// Arrays with more elements than this are refused: a plugin's tests are small.
const MAX_ELEMENTS: usize = 1 << 28;

/// A tensor of the plain backend. Elements are held as f64; those of an F32 array are rounded to f32 after every
/// operation, and those of an I64 array are whole numbers up to 2^53.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    values: ArrayD<f64>,
    dtype: DType,
}

impl Array {
    /// An array of values, rounded to the element type.
    ///
    /// # Errors
    ///
    /// A value of an I64 array that is not a whole number, or an element type that is not handled.
    pub(crate) fn new(at: &str, values: ArrayD<f64>, dtype: DType) -> Result<Self> {
        let values = match dtype {
            DType::F64 => values,
            DType::F32 => values.mapv_into(round_to_f32),
            DType::I64 => {
                if let Some(x) = values.iter().find(|x| x.fract() != 0.0 || x.abs() > MAX_WHOLE || x.is_nan()) {
                    return Err(Error::new(ErrorCode::DTYPE, at, format!("{x} is not a whole number up to 2^53")));
                }
                values
            }
            other => return Err(Error::unsupported(format!("element type {}", other.name()))),
        };
        Ok(Self { values, dtype })
    }

    /// An array from row-major values.
    ///
    /// # Errors
    ///
    /// As [`Array::new`], and a count that does not fit the shape.
    pub(crate) fn from_vec(at: &str, shape: &[usize], values: Vec<f64>, dtype: DType) -> Result<Self> {
        let count = values.len();
        let values = ArrayD::from_shape_vec(IxDyn(shape), values);
        Self::new(at, values.map_err(|_| Error::shape(at, format!("{count} numbers for shape {shape:?}")))?, dtype)
    }

    /// Little-endian elements in row-major order.
    pub(crate) fn from_bytes(dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self> {
        let values = match dtype {
            DType::F64 => bytes.as_chunks().0.iter().map(|x| f64::from_le_bytes(*x)).collect(),
            DType::F32 => bytes.as_chunks().0.iter().map(|x| f64::from(f32::from_le_bytes(*x))).collect(),
            DType::I64 => bytes.as_chunks().0.iter().map(|x| whole(i64::from_le_bytes(*x))).collect::<Result<_>>()?,
            other => return Err(Error::unsupported(format!("element type {}", other.name()))),
        };
        Self::from_vec("tensor_from_bytes", shape, values, dtype)
    }

    /// Little-endian elements in row-major order.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        match self.dtype {
            DType::F32 => self.values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            DType::I64 => self.values.iter().flat_map(|x| (*x as i64).to_le_bytes()).collect(),
            _ => self.values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        }
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> &[usize] {
        self.values.shape()
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The elements.
    pub fn values(&self) -> &ArrayD<f64> {
        &self.values
    }

    /// The elements in row-major order.
    pub fn to_vec(&self) -> Vec<f64> {
        self.values.iter().copied().collect()
    }

    /// Writes elements; each is rounded to the element type.
    pub(crate) fn set(&mut self, values: impl IntoIterator<Item = f64>) {
        let round = rounding(self.dtype);
        self.values.iter_mut().zip(values).for_each(|(element, value)| *element = round(value));
    }
}

/// What an element type does to a number that it can hold.
pub(crate) fn rounding(dtype: DType) -> fn(f64) -> f64 {
    match dtype {
        DType::F32 => round_to_f32,
        _ => |x| x,
    }
}

/// The number of elements of a shape.
pub(crate) fn count(at: &str, shape: &[usize]) -> Result<usize> {
    let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    let count = count.filter(|count| *count <= MAX_ELEMENTS);
    count.ok_or_else(|| Error::shape(at, format!("shape {shape:?} is too large")))
}

fn round_to_f32(x: f64) -> f64 {
    f64::from(x as f32)
}

fn whole(x: i64) -> Result<f64> {
    match x.unsigned_abs() <= MAX_WHOLE as u64 {
        true => Ok(x as f64),
        false => Err(Error::new(ErrorCode::DTYPE, "tensor_from_bytes", format!("{x} is beyond 2^53"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_in_every_element_type() {
        for (dtype, values) in [
            (DType::F64, [0.1, f64::NAN, -0.0]),
            (DType::F32, [0.5, -3.25, 1e30_f32.into()]),
            (DType::I64, [-3.0, 7.0, 2e15]),
        ] {
            let array = Array::from_vec("", &[3, 1], values.to_vec(), dtype).unwrap();
            let bytes = array.to_bytes();
            let back = Array::from_bytes(dtype, &[3, 1], &bytes).unwrap();
            assert_eq!((back.shape(), back.to_bytes()), ([3, 1].as_slice(), bytes));
        }
    }

    #[test]
    fn f32_rounds_and_whole_numbers_stay_whole() {
        assert_eq!(Array::from_vec("", &[1], vec![0.1], DType::F32).unwrap().to_vec(), [f64::from(0.1_f32)]);
        let half = Array::from_vec("div", &[1], vec![0.5], DType::I64).unwrap_err();
        assert_eq!(half.to_string(), "div: 0.5 is not a whole number up to 2^53");
        let large = Array::from_bytes(DType::I64, &[1], &((1_i64 << 53) + 1).to_le_bytes()).unwrap_err();
        assert_eq!(large.code, ErrorCode::DTYPE);
        let half = Array::from_bytes(DType::BF16, &[1], &[0, 0]).unwrap_err();
        assert_eq!(half.to_string(), "element type bf16: not supported by this host");
    }
}
