//! Elementwise arithmetic, comparison and selection.

use super::Tensor;
use crate::error::{Result, raise};
use gauntlet_plugin_abi::TensorOp;
use std::ops::{Add, Div, Mul, Neg, Sub};

macro_rules! unary {
    ($($(#[$doc:meta])* $name:ident / $in_place:ident = $op:ident;)*) => {
        impl Tensor {
            $(
                $(#[$doc])*
                pub fn $name(&self) -> Result<Self> {
                    self.unary(TensorOp::$op)
                }

                #[doc = concat!("[`Tensor::", stringify!($name), "`] in place.")]
                pub fn $in_place(&mut self) -> Result<&mut Self> {
                    self.link.op_in_place(TensorOp::$op, self.raw, &[], &[], &[])?;
                    Ok(self)
                }
            )*
        }
    };
}

unary! {
    /// `-a`.
    neg / neg_ = NEG;
    /// `|a|`.
    abs / abs_ = ABS;
    /// Square root.
    sqrt / sqrt_ = SQRT;
    /// `1 / sqrt(a)`.
    rsqrt / rsqrt_ = RSQRT;
    /// Exponential.
    exp / exp_ = EXP;
    /// Natural logarithm.
    log / log_ = LOG;
    /// -1, 0 or 1.
    sign / sign_ = SIGN;
    /// `1 / a`.
    reciprocal / reciprocal_ = RECIPROCAL;
    /// `a * a`.
    square / square_ = SQUARE;
}

macro_rules! binary {
    ($($(#[$doc:meta])* $name:ident / $in_place:ident, $scalar:ident / $scalar_in_place:ident = $op:ident;)*) => {
        impl Tensor {
            $(
                $(#[$doc])*
                pub fn $name(&self, other: &Self) -> Result<Self> {
                    self.link.op_one(TensorOp::$op, &[self.raw, other.raw], &[], &[])
                }

                #[doc = concat!("[`Tensor::", stringify!($name), "`] in place.")]
                pub fn $in_place(&mut self, other: &Self) -> Result<&mut Self> {
                    self.link.op_in_place(TensorOp::$op, self.raw, &[other.raw], &[], &[])?;
                    Ok(self)
                }

                #[doc = concat!("[`Tensor::", stringify!($name), "`] with one number.")]
                pub fn $scalar(&self, number: f64) -> Result<Self> {
                    self.link.op_one(TensorOp::$op, &[self.raw], &[number], &[])
                }

                #[doc = concat!("[`Tensor::", stringify!($scalar), "`] in place.")]
                pub fn $scalar_in_place(&mut self, number: f64) -> Result<&mut Self> {
                    self.link.op_in_place(TensorOp::$op, self.raw, &[], &[number], &[])?;
                    Ok(self)
                }
            )*
        }
    };
}

binary! {
    /// `a + b`, broadcast.
    add / add_, add_scalar / add_scalar_ = ADD;
    /// `a - b`, broadcast.
    sub / sub_, sub_scalar / sub_scalar_ = SUB;
    /// `a * b`, broadcast.
    mul / mul_, scale / scale_ = MUL;
    /// `a / b`, broadcast.
    div / div_, div_scalar / div_scalar_ = DIV;
    /// `a ^ b`, broadcast.
    pow / pow_, powf / powf_ = POW;
    /// The larger of both.
    maximum / maximum_, clamp_min / clamp_min_ = MAXIMUM;
    /// The smaller of both.
    minimum / minimum_, clamp_max / clamp_max_ = MINIMUM;
}

macro_rules! compare {
    ($($(#[$doc:meta])* $name:ident, $scalar:ident = $op:ident;)*) => {
        impl Tensor {
            $(
                $(#[$doc])*
                pub fn $name(&self, other: &Self) -> Result<Self> {
                    self.link.op_one(TensorOp::$op, &[self.raw, other.raw], &[], &[])
                }

                #[doc = concat!("[`Tensor::", stringify!($name), "`] with one number.")]
                pub fn $scalar(&self, number: f64) -> Result<Self> {
                    self.link.op_one(TensorOp::$op, &[self.raw], &[number], &[])
                }
            )*
        }
    };
}

compare! {
    /// 1 where `a == b`, else 0.
    equal, equal_scalar = EQ;
    /// 1 where `a != b`, else 0.
    not_equal, not_equal_scalar = NE;
    /// 1 where `a < b`, else 0.
    less, less_scalar = LT;
    /// 1 where `a <= b`, else 0.
    less_equal, less_equal_scalar = LE;
    /// 1 where `a > b`, else 0.
    greater, greater_scalar = GT;
    /// 1 where `a >= b`, else 0.
    greater_equal, greater_equal_scalar = GE;
}

impl Tensor {
    /// Elements of `a` where this tensor is not 0, of `b` elsewhere.
    pub fn select_where(&self, a: &Self, b: &Self) -> Result<Self> {
        self.link.op_one(TensorOp::WHERE, &[self.raw, a.raw, b.raw], &[], &[])
    }

    /// 1 where finite, else 0.
    pub fn is_finite(&self) -> Result<Self> {
        self.unary(TensorOp::IS_FINITE)
    }

    /// Every element between `low` and `high`.
    pub fn clamp(&self, low: f64, high: f64) -> Result<Self> {
        self.link.op_one(TensorOp::CLAMP, &[self.raw], &[low, high], &[])
    }

    /// [`Tensor::clamp`] in place.
    pub fn clamp_(&mut self, low: f64, high: f64) -> Result<&mut Self> {
        self.link.op_in_place(TensorOp::CLAMP, self.raw, &[], &[low, high], &[])?;
        Ok(self)
    }

    /// `a <- a + weight (end - a)`.
    pub fn lerp_(&mut self, end: &Self, weight: f64) -> Result<&mut Self> {
        self.ternary_(TensorOp::LERP, &[end], weight)
    }

    /// `a <- a + alpha x`.
    pub fn axpy_(&mut self, alpha: f64, x: &Self) -> Result<&mut Self> {
        self.ternary_(TensorOp::AXPY, &[x], alpha)
    }

    /// `a <- a + alpha x y`.
    pub fn addcmul_(&mut self, alpha: f64, x: &Self, y: &Self) -> Result<&mut Self> {
        self.ternary_(TensorOp::ADDCMUL, &[x, y], alpha)
    }

    /// `a <- a + alpha x / y`.
    pub fn addcdiv_(&mut self, alpha: f64, x: &Self, y: &Self) -> Result<&mut Self> {
        self.ternary_(TensorOp::ADDCDIV, &[x, y], alpha)
    }

    /// Overwrites with another tensor of the same shape, cast to this element type.
    pub fn copy_(&mut self, from: &Self) -> Result<&mut Self> {
        self.link.op_in_place(TensorOp::COPY, self.raw, &[from.raw], &[], &[])?;
        Ok(self)
    }

    /// Sets every element.
    pub fn fill_(&mut self, number: f64) -> Result<&mut Self> {
        self.link.op_in_place(TensorOp::FILL, self.raw, &[], &[number], &[])?;
        Ok(self)
    }

    fn ternary_(&mut self, op: TensorOp, inputs: &[&Self], scalar: f64) -> Result<&mut Self> {
        let inputs: Vec<_> = inputs.iter().map(|input| input.raw).collect();
        self.link.op_in_place(op, self.raw, &inputs, &[scalar], &[])?;
        Ok(self)
    }
}

macro_rules! operator {
    ($($Trait:ident :: $method:ident => $tensor:ident, $scalar:ident;)*) => {
        $(
            impl $Trait<&Tensor> for &Tensor {
                type Output = Tensor;
                fn $method(self, other: &Tensor) -> Tensor {
                    Tensor::$tensor(self, other).unwrap_or_else(|error| raise(error))
                }
            }

            impl $Trait<f64> for &Tensor {
                type Output = Tensor;
                fn $method(self, number: f64) -> Tensor {
                    self.$scalar(number).unwrap_or_else(|error| raise(error))
                }
            }
        )*
    };
}

operator! {
    Add::add => add, add_scalar;
    Sub::sub => sub, sub_scalar;
    Mul::mul => mul, scale;
    Div::div => div, div_scalar;
}

impl Mul<&Tensor> for f64 {
    type Output = Tensor;
    fn mul(self, tensor: &Tensor) -> Tensor {
        tensor * self
    }
}

impl Neg for &Tensor {
    type Output = Tensor;
    fn neg(self) -> Tensor {
        Tensor::neg(self).unwrap_or_else(|error| raise(error))
    }
}
