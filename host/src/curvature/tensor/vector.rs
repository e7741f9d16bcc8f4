//! Vectors of elements: the processor's own where the compiler does not find them by itself.
//!
//! Each operation rounds on its own and gives the same bits in every implementation.

use std::array::from_fn;
use std::cell::Cell;

/// More than one element, computed with at once.
pub(super) trait Vector<T>: Copy {
    /// How many.
    const LANES: usize;
    /// The first [`Vector::LANES`] elements.
    fn load(from: &[Cell<T>]) -> Self;
    /// Overwrites the first [`Vector::LANES`] elements.
    fn store(self, to: &[Cell<T>]);
    /// The same number in every lane.
    fn splat(number: T) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    fn div(self, other: Self) -> Self;
    fn sqrt(self) -> Self;
    /// In each lane `then` where `self < other`, else `otherwise`.
    fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self;
    /// As [`Vector::if_less`], for `self <= other`.
    fn if_less_equal(self, other: Self, then: Self, otherwise: Self) -> Self;
    /// As [`Vector::if_less`], for `self == other`.
    fn if_equal(self, other: Self, then: Self, otherwise: Self) -> Self;
    /// `f` in each lane.
    fn map(self, other: Self, f: impl Fn(T, T) -> T) -> Self;
}

/// Most lanes of any vector; every number of lanes divides it.
pub(super) const TILE: usize = 16;

/// An element type with its vectors.
pub(super) trait Lanes: Copy {
    /// For any processor.
    type Portable: Vector<Self>;
    /// For processors with AVX2.
    #[cfg(target_arch = "x86_64")]
    type Avx2: Vector<Self>;
    /// For processors with AVX-512.
    #[cfg(target_arch = "x86_64")]
    type Avx512: Vector<Self>;
}

impl Lanes for f32 {
    type Portable = [f32; 4];
    #[cfg(target_arch = "x86_64")]
    type Avx2 = x86::F32x8;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = x86::F32x16;
}

impl Lanes for f64 {
    type Portable = [f64; 4];
    #[cfg(target_arch = "x86_64")]
    type Avx2 = x86::F64x4;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = x86::F64x8;
}

/// A computation that is compiled for each kind of vector: every function in it is `#[inline(always)]`.
pub(super) trait Kernel<T> {
    /// Runs it.
    fn run<V: Vector<T>>(self);
}

/// Runs a kernel with the widest vectors of this processor.
pub(super) fn run_widest<T: Lanes>(kernel: impl Kernel<T>) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        fn avx2<T: Lanes>(kernel: impl Kernel<T>) {
            kernel.run::<T::Avx2>();
        }
        #[target_feature(enable = "avx512f")]
        fn avx512<T: Lanes>(kernel: impl Kernel<T>) {
            kernel.run::<T::Avx512>();
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has what the function is compiled for.
            return unsafe { avx512(kernel) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: as above.
            return unsafe { avx2(kernel) };
        }
    }
    kernel.run::<T::Portable>();
}

macro_rules! portable {
    ($($T:ident)*) => {
        $(impl Vector<$T> for [$T; 4] {
            const LANES: usize = 4;
            #[inline(always)]
            fn load(from: &[Cell<$T>]) -> Self {
                from_fn(|lane| from[lane].get())
            }
            #[inline(always)]
            fn store(self, to: &[Cell<$T>]) {
                to[..4].iter().zip(self).for_each(|(to, x)| to.set(x));
            }
            #[inline(always)]
            fn splat(number: $T) -> Self {
                [number; 4]
            }
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                from_fn(|lane| self[lane] + other[lane])
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                from_fn(|lane| self[lane] - other[lane])
            }
            #[inline(always)]
            fn mul(self, other: Self) -> Self {
                from_fn(|lane| self[lane] * other[lane])
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                from_fn(|lane| self[lane] / other[lane])
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                from_fn(|lane| self[lane].sqrt())
            }
            #[inline(always)]
            fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self {
                from_fn(|lane| if self[lane] < other[lane] { then[lane] } else { otherwise[lane] })
            }
            #[inline(always)]
            fn if_less_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
                from_fn(|lane| if self[lane] <= other[lane] { then[lane] } else { otherwise[lane] })
            }
            #[inline(always)]
            fn if_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
                from_fn(|lane| if self[lane] == other[lane] { then[lane] } else { otherwise[lane] })
            }
            #[inline(always)]
            fn map(self, other: Self, f: impl Fn($T, $T) -> $T) -> Self {
                from_fn(|lane| f(self[lane], other[lane]))
            }
        })*
    };
}

portable! { f32 f64 }

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! Vectors of x86-64. Their values are made in [`super::run_widest`] alone, after it has asked the processor.

    use super::Vector;
    use std::arch::x86_64::*;
    use std::array::from_fn;
    use std::cell::Cell;

    /// `$choose` is an expression of the comparison's predicate, both sides, then and otherwise.
    macro_rules! vector {
        ($Name:ident = [$T:ident; $lanes:literal] as $Register:ident, $choose:ident,
         $load:ident $store:ident $splat:ident $add:ident $sub:ident $mul:ident $div:ident $sqrt:ident) => {
            #[derive(Clone, Copy)]
            pub struct $Name($Register);

            // SAFETY: `super::run_widest` uses the type in code for processors that have these instructions only, and
            // each slice has been checked to hold the lanes.
            impl Vector<$T> for $Name {
                const LANES: usize = $lanes;
                #[inline(always)]
                fn load(from: &[Cell<$T>]) -> Self {
                    let from = &from[..$lanes];
                    Self(unsafe { $load(from.as_ptr().cast()) })
                }
                #[inline(always)]
                fn store(self, to: &[Cell<$T>]) {
                    let to = &to[..$lanes];
                    unsafe { $store(to.as_ptr().cast_mut().cast(), self.0) }
                }
                #[inline(always)]
                fn splat(number: $T) -> Self {
                    Self(unsafe { $splat(number) })
                }
                #[inline(always)]
                fn add(self, other: Self) -> Self {
                    Self(unsafe { $add(self.0, other.0) })
                }
                #[inline(always)]
                fn sub(self, other: Self) -> Self {
                    Self(unsafe { $sub(self.0, other.0) })
                }
                #[inline(always)]
                fn mul(self, other: Self) -> Self {
                    Self(unsafe { $mul(self.0, other.0) })
                }
                #[inline(always)]
                fn div(self, other: Self) -> Self {
                    Self(unsafe { $div(self.0, other.0) })
                }
                #[inline(always)]
                fn sqrt(self) -> Self {
                    Self(unsafe { $sqrt(self.0) })
                }
                #[inline(always)]
                fn if_less(self, other: Self, then: Self, otherwise: Self) -> Self {
                    Self($choose!(_CMP_LT_OQ, self.0, other.0, then.0, otherwise.0))
                }
                #[inline(always)]
                fn if_less_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
                    Self($choose!(_CMP_LE_OQ, self.0, other.0, then.0, otherwise.0))
                }
                #[inline(always)]
                fn if_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
                    Self($choose!(_CMP_EQ_OQ, self.0, other.0, then.0, otherwise.0))
                }
                #[inline(always)]
                fn map(self, other: Self, f: impl Fn($T, $T) -> $T) -> Self {
                    let cells: [[Cell<$T>; $lanes]; 2] = from_fn(|_| from_fn(|_| Cell::new(0.0)));
                    self.store(&cells[0]);
                    other.store(&cells[1]);
                    cells[0].iter().zip(&cells[1]).for_each(|(a, b)| a.set(f(a.get(), b.get())));
                    Self::load(&cells[0])
                }
            }
        };
    }

    macro_rules! choose_f32x8 {
        ($predicate:ident, $a:expr, $b:expr, $then:expr, $otherwise:expr) => {
            unsafe { _mm256_blendv_ps($otherwise, $then, _mm256_cmp_ps::<$predicate>($a, $b)) }
        };
    }

    macro_rules! choose_f64x4 {
        ($predicate:ident, $a:expr, $b:expr, $then:expr, $otherwise:expr) => {
            unsafe { _mm256_blendv_pd($otherwise, $then, _mm256_cmp_pd::<$predicate>($a, $b)) }
        };
    }

    macro_rules! choose_f32x16 {
        ($predicate:ident, $a:expr, $b:expr, $then:expr, $otherwise:expr) => {
            unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<$predicate>($a, $b), $otherwise, $then) }
        };
    }

    macro_rules! choose_f64x8 {
        ($predicate:ident, $a:expr, $b:expr, $then:expr, $otherwise:expr) => {
            unsafe { _mm512_mask_blend_pd(_mm512_cmp_pd_mask::<$predicate>($a, $b), $otherwise, $then) }
        };
    }

    vector! { F32x8 = [f32; 8] as __m256, choose_f32x8, _mm256_loadu_ps _mm256_storeu_ps _mm256_set1_ps
    _mm256_add_ps _mm256_sub_ps _mm256_mul_ps _mm256_div_ps _mm256_sqrt_ps }
    vector! { F64x4 = [f64; 4] as __m256d, choose_f64x4, _mm256_loadu_pd _mm256_storeu_pd _mm256_set1_pd
    _mm256_add_pd _mm256_sub_pd _mm256_mul_pd _mm256_div_pd _mm256_sqrt_pd }
    vector! { F32x16 = [f32; 16] as __m512, choose_f32x16, _mm512_loadu_ps _mm512_storeu_ps _mm512_set1_ps
    _mm512_add_ps _mm512_sub_ps _mm512_mul_ps _mm512_div_ps _mm512_sqrt_ps }
    vector! { F64x8 = [f64; 8] as __m512d, choose_f64x8, _mm512_loadu_pd _mm512_storeu_pd _mm512_set1_pd
    _mm512_add_pd _mm512_sub_pd _mm512_mul_pd _mm512_div_pd _mm512_sqrt_pd }
}
