//! The unsafe corner: code for the widest vectors that the CPU has, and memory asked for ahead of its use.
//!
//! Wider vectors change no result: each element is computed by the same operations, none of them contracted.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Work whose loops gain from wide vectors.
pub(super) trait Vectorized {
    /// What it gives.
    type Output;
    /// Does it. Implementations are `#[inline(always)]`, with all that they call, so that each [`Width`] gets its own.
    fn run(self) -> Self::Output;
}

/// Vectors of a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// 128 bits, which every x86_64 has.
    Sse2,
    /// 256 bits. Wider ones gain nothing: memory and the first-level cache are the bound.
    Avx2,
}

impl Width {
    /// The widest of this CPU.
    pub fn widest() -> Self {
        if is_x86_feature_detected!("avx2") { Self::Avx2 } else { Self::Sse2 }
    }

    /// Does work with vectors of this width, or with those of every CPU where this one has no such.
    pub fn run<W: Vectorized>(self, work: W) -> W::Output {
        match self {
            // SAFETY: the CPU has the feature, as was just asked.
            Self::Avx2 if is_x86_feature_detected!("avx2") => unsafe { avx2(work) },
            _ => work.run(),
        }
    }
}

#[target_feature(enable = "avx2")]
fn avx2<W: Vectorized>(work: W) -> W::Output {
    work.run()
}

/// Brings elements into the cache, for use soon.
#[inline(always)]
pub(super) fn prefetch<T>(elements: &[T]) {
    let lines = size_of_val(elements).div_ceil(LINE);
    let start = elements.as_ptr().cast::<i8>();
    for line in 0..lines {
        // SAFETY: a prefetch reads nothing and cannot fault; the address is within the elements.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.add(line * LINE)) }
    }
}

/// Bytes of a cache line.
const LINE: usize = 64;
