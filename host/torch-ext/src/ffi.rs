//! Declarations of `shim.cpp` and the one place that turns its messages into errors.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, null, null_mut};

use tch::Tensor;

use crate::ShimError;

/// A tensor of libtorch in C++, `at::Tensor`.
type Raw = *const c_void;

unsafe extern "C" {
    fn gauntlet_shim_free(message: *mut c_char);
    fn gauntlet_libtorch_version() -> *const c_char;
    fn gauntlet_forward_level_enter(level: *mut u64) -> *mut c_char;
    fn gauntlet_forward_level_exit(level: u64) -> *mut c_char;
    fn gauntlet_set_deterministic_algorithms(enabled: bool) -> *mut c_char;
    fn gauntlet_deterministic_algorithms() -> bool;
    fn gauntlet_dlpack(tensor: *const c_void, managed: *mut *mut c_void) -> *mut c_char;
    fn gauntlet_on_every_thread(work: extern "C" fn(*mut c_void), data: *mut c_void) -> *mut c_char;
    fn gauntlet_keep_freed_memory(largest: i32, total: i32);
    fn gauntlet_linear(x: Raw, weight: Raw, sum: Raw, out: *mut *mut c_void) -> *mut c_char;
    fn gauntlet_norm_forward(x: Raw, w: Raw, b: Raw, eps: f64, centred: bool, y: Raw, normal: Raw, scale: Raw) -> bool;
    fn gauntlet_norm_pullback(
        dy: Raw,
        normal: Raw,
        scale: Raw,
        w: Raw,
        centred: bool,
        add: bool,
        dx: Raw,
        weight_sum: Raw,
        bias_sum: Raw,
    ) -> bool;
    fn gauntlet_norm_tangent(
        dx: Raw,
        normal: Raw,
        scale: Raw,
        w: Raw,
        dw: Raw,
        db: Raw,
        centred: bool,
        dy: Raw,
    ) -> bool;
    fn gauntlet_softmax(z: Raw, targets: Raw, losses: Raw) -> bool;
    fn gauntlet_residual(z: Raw, targets: Raw, weights: Raw, weight: f64, losses: Raw) -> bool;
    fn gauntlet_quadratic(z: Raw, v: Raw, targets: Raw, weights: Raw, weight: f64, linear: Raw, curvature: Raw)
    -> bool;
    fn gauntlet_curve(p: Raw, v: Raw, weights: Raw, weight: f64) -> bool;
    fn gauntlet_gelu(x: Raw, dy: Raw, y: Raw) -> bool;
}

fn raw(tensor: &Tensor) -> Raw {
    tensor.as_ptr().cast()
}

fn raw_or_null(tensor: Option<&Tensor>) -> Raw {
    tensor.map_or(null(), raw)
}

/// Takes over a message of the shim: null is success.
///
/// # Safety
/// `message` is null or a C string from `strdup` that nobody else frees or uses.
unsafe fn check(message: *mut c_char) -> Result<(), ShimError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, hence a C string that lives until it is freed on the next line.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: the shim made it with `strdup`, and this function owns it.
    unsafe { gauntlet_shim_free(message) };
    Err(ShimError::new(text))
}

pub(crate) fn libtorch_version() -> &'static str {
    // SAFETY: the shim returns a string literal, which lives as long as the process.
    unsafe { CStr::from_ptr(gauntlet_libtorch_version()) }.to_str().unwrap_or("unknown")
}

pub(crate) fn enter_forward_level() -> Result<u64, ShimError> {
    let mut level = 0;
    // SAFETY: `level` outlives the call, and the message goes to `check` alone.
    unsafe { check(gauntlet_forward_level_enter(&mut level)) }?;
    Ok(level)
}

pub(crate) fn exit_forward_level(level: u64) -> Result<(), ShimError> {
    // SAFETY: any number is a valid argument (an unknown level is an exception, hence a message).
    unsafe { check(gauntlet_forward_level_exit(level)) }
}

pub(crate) fn set_deterministic_algorithms(enabled: bool) -> Result<(), ShimError> {
    // SAFETY: sets a flag of libtorch's global context, which guards it by itself.
    unsafe { check(gauntlet_set_deterministic_algorithms(enabled)) }
}

pub(crate) fn deterministic_algorithms() -> bool {
    // SAFETY: reads a flag of libtorch's global context.
    unsafe { gauntlet_deterministic_algorithms() }
}

pub(crate) fn keep_freed_memory(largest: i32, total: i32) {
    // SAFETY: sets two numbers of the allocator, which guards them by itself.
    unsafe { gauntlet_keep_freed_memory(largest, total) }
}

pub(crate) fn linear(x: &Tensor, weight: &Tensor, sum: Option<&Tensor>) -> Result<Tensor, ShimError> {
    let mut out = null_mut();
    // SAFETY: the tensors live for the call; libtorch checks their shapes and types, and the message goes to `check`.
    unsafe { check(gauntlet_linear(raw(x), raw(weight), raw_or_null(sum), &mut out)) }?;
    // SAFETY: without a message `out` is a tensor made with `new`, which nobody else owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Arrays of a norm, of one type where they are served: matrices `[rows, width]`, `scale` of `rows` elements, vectors of
/// `width` elements.
pub(crate) struct Norm<'a> {
    pub normal: &'a Tensor,
    pub scale: &'a Tensor,
    pub weight: &'a Tensor,
    pub centred: bool,
}

impl Norm<'_> {
    fn assert_fits(&self, matrices: &[&Tensor], vectors: &[Option<&Tensor>]) {
        let size = self.normal.size();
        assert!(size.len() == 2 && self.scale.numel() as i64 == size[0], "a norm of {size:?}");
        assert!(matrices.iter().all(|matrix| matrix.size() == size), "matrices of {size:?}");
        let fits = |vector: &&Tensor| vector.size() == [size[1]];
        assert!(fits(&self.weight) && vectors.iter().flatten().all(fits), "vectors of {}", size[1]);
    }

    pub(crate) fn forward(&self, x: &Tensor, bias: Option<&Tensor>, eps: f64, output: &Tensor) -> bool {
        self.assert_fits(&[x, output], &[bias]);
        let (x, w, b) = (raw(x), raw(self.weight), raw_or_null(bias));
        // SAFETY: the arrays have the sizes that the loops assume; types and layout are checked on the other side.
        unsafe { gauntlet_norm_forward(x, w, b, eps, self.centred, raw(output), raw(self.normal), raw(self.scale)) }
    }

    pub(crate) fn pullback(
        &self,
        dy: &Tensor,
        (dx, add): (&Tensor, bool),
        weight_sum: Option<&Tensor>,
        bias_sum: Option<&Tensor>,
    ) -> bool {
        self.assert_fits(&[dy, dx], &[weight_sum, bias_sum]);
        let (normal, scale, w) = (raw(self.normal), raw(self.scale), raw(self.weight));
        let (weight_sum, bias_sum) = (raw_or_null(weight_sum), raw_or_null(bias_sum));
        // SAFETY: as in `forward`.
        unsafe { gauntlet_norm_pullback(raw(dy), normal, scale, w, self.centred, add, raw(dx), weight_sum, bias_sum) }
    }

    pub(crate) fn tangent(&self, dx: &Tensor, dw: Option<&Tensor>, db: Option<&Tensor>, dy: &Tensor) -> bool {
        self.assert_fits(&[dx, dy], &[dw, db]);
        let (normal, scale, w) = (raw(self.normal), raw(self.scale), raw(self.weight));
        // SAFETY: as in `forward`.
        unsafe {
            let (dw, db) = (raw_or_null(dw), raw_or_null(db));
            gauntlet_norm_tangent(raw(dx), normal, scale, w, dw, db, self.centred, raw(dy))
        }
    }
}

/// Rows of logits or probabilities `[rows, width]`, with one weight for all or `[rows, 1]`.
pub(crate) struct Rows<'a> {
    pub z: &'a Tensor,
    pub weights: Option<&'a Tensor>,
    pub weight: f64,
}

impl Rows<'_> {
    /// What a loop assumes of sizes. Targets outside the row would be read outside the array, so they are looked at.
    fn assert_fits(&self, targets: Option<&Tensor>, columns: &[&Tensor], v: Option<&Tensor>) {
        let size = self.z.size();
        assert!(size.len() == 2 && size[1] > 0, "rows of {size:?}");
        let is_column = |column: &&Tensor| column.numel() as i64 == size[0];
        assert!(columns.iter().all(is_column) && self.weights.iter().all(is_column), "columns of {}", size[0]);
        assert!(v.is_none_or(|v| v.size() == size), "tangents of {size:?}");
        let Some(targets) = targets else { return };
        assert!(targets.kind() == tch::Kind::Int64 && targets.is_contiguous() && is_column(&targets), "targets");
        let inside = size[0] == 0 || targets.min().int64_value(&[]) >= 0 && targets.max().int64_value(&[]) < size[1];
        assert!(inside, "a target outside the vocabulary of {}", size[1]);
    }

    pub(crate) fn softmax(&self, targets: &Tensor, losses: &Tensor) -> bool {
        self.assert_fits(Some(targets), &[losses], None);
        // SAFETY: the arrays have the sizes that the loops assume, and targets lie within the rows; types and layout are
        // checked on the other side.
        unsafe { gauntlet_softmax(raw(self.z), raw(targets), raw(losses)) }
    }

    pub(crate) fn residual(&self, targets: &Tensor, losses: &Tensor) -> bool {
        self.assert_fits(Some(targets), &[losses], None);
        let weights = raw_or_null(self.weights);
        // SAFETY: as in `softmax`.
        unsafe { gauntlet_residual(raw(self.z), raw(targets), weights, self.weight, raw(losses)) }
    }

    pub(crate) fn quadratic(&self, v: &Tensor, targets: &Tensor, [linear, curvature]: [&Tensor; 2]) -> bool {
        self.assert_fits(Some(targets), &[linear, curvature], Some(v));
        let (p, v, targets, weights) = (raw(self.z), raw(v), raw(targets), raw_or_null(self.weights));
        // SAFETY: as in `softmax`.
        unsafe { gauntlet_quadratic(p, v, targets, weights, self.weight, raw(linear), raw(curvature)) }
    }

    pub(crate) fn curve(&self, v: &Tensor) -> bool {
        self.assert_fits(None, &[], Some(v));
        // SAFETY: as in `softmax`.
        unsafe { gauntlet_curve(raw(self.z), raw(v), raw_or_null(self.weights), self.weight) }
    }
}

pub(crate) fn gelu(x: &Tensor, dy: Option<&Tensor>, output: &Tensor) -> bool {
    assert!(x.dim() == 2 && output.size() == x.size() && dy.is_none_or(|dy| dy.size() == x.size()), "{:?}", x.size());
    // SAFETY: the arrays have the same size; types and layout are checked on the other side.
    unsafe { gauntlet_gelu(raw(x), raw_or_null(dy), raw(output)) }
}

pub(crate) fn dlpack(tensor: &Tensor) -> Result<*mut c_void, ShimError> {
    let mut managed = null_mut();
    // SAFETY: tch's pointer is to an `at::Tensor` that lives as long as the borrow, and `managed` outlives the call.
    unsafe { check(gauntlet_dlpack(tensor.as_ptr().cast(), &mut managed)) }?;
    Ok(managed)
}

/// Calls `work` at the same time on every thread that libtorch computes with, and waits for all. It must not unwind.
pub(crate) fn on_every_thread<F: Fn() + Sync>(work: &F) -> Result<(), ShimError> {
    extern "C" fn call<F: Fn() + Sync>(data: *mut c_void) {
        // SAFETY: `data` is the reference below, which outlives all calls, and `F` may be shared by threads.
        unsafe { (*data.cast::<F>())() }
    }
    // SAFETY: `call` gets back the reference that it expects, and no call goes on after this one has returned.
    unsafe { check(gauntlet_on_every_thread(call::<F>, ptr::from_ref(work).cast_mut().cast())) }
}
