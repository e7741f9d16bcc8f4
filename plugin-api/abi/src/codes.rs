//! Open sets of numbers: operations, products, queries, errors. A number that a side does not know is answered
//! "unsupported" by name, so both sides can learn new ones without breaking the other.

use abi_stable::StableAbi;

macro_rules! codes {
    ($(#[$doc:meta])* $Name:ident { $($(#[$item_doc:meta])* $item:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $Name(pub u32);

        impl $Name {
            $($(#[$item_doc])* pub const $item: Self = Self($value);)*

            /// Every number known to this version, with its name.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$item, stringify!($item))),*];

            /// The name in lower case, or the number where this version does not know it.
            pub fn name(self) -> String {
                Self::ALL.iter().find(|(code, _)| *code == self).map_or_else(
                    || format!("{} {}", stringify!($Name), self.0),
                    |(_, name)| name.to_lowercase(),
                )
            }
        }
    };
}

codes! {
    /// Why a call failed.
    ErrorCode {
        /// The other side does not offer the call, operation or product.
        UNSUPPORTED = 1,
        /// A handle that was freed or never given out.
        BAD_HANDLE = 2,
        /// Shapes do not fit.
        SHAPE = 3,
        /// Element types do not fit.
        DTYPE = 4,
        /// The target of an in-place operation is also its input.
        ALIAS = 5,
        /// A write to parameters on which a linearization is anchored.
        ANCHORED = 6,
        /// A factorisation failed or a value is not finite.
        NUMERICAL = 7,
        /// The optimizer's configuration is not valid.
        CONFIG = 8,
        /// The optimizer's state cannot be written or read.
        STATE = 9,
        /// The optimizer's own error.
        PLUGIN = 10,
        /// A caught panic.
        PANIC = 11,
        /// Any other bad argument.
        ARGUMENT = 12,
        /// The host could not read its data.
        DATA = 13,
        /// A bug or a failure in the host.
        HOST = 14,
    }
}

codes! {
    /// Element type of a tensor.
    DType {
        /// 32-bit float.
        F32 = 1,
        /// 64-bit float.
        F64 = 2,
        /// 64-bit integer, for indices.
        I64 = 3,
        /// bfloat16.
        BF16 = 4,
        /// 16-bit float.
        F16 = 5,
    }
}

codes! {
    /// A tensor operation: inputs, scalars and integers in, tensors out.
    ///
    /// Binary operations take two tensors (broadcast like NumPy) or one tensor and `scalars[0]`. Comparisons give 0 or
    /// 1 in the inputs' own type. Every result owns its storage. Linear algebra is batched over leading dimensions.
    /// Operations marked *in place* can also be applied to a target, which then is the first input.
    TensorOp {
        /// `a + b`; in place.
        ADD = 1,
        /// `a - b`; in place.
        SUB = 2,
        /// `a * b`; in place.
        MUL = 3,
        /// `a / b`; in place.
        DIV = 4,
        /// `a ^ b`; in place.
        POW = 5,
        /// Larger of `a` and `b`; in place.
        MAXIMUM = 6,
        /// Smaller of `a` and `b`; in place.
        MINIMUM = 7,
        /// `a == b`.
        EQ = 8,
        /// `a != b`.
        NE = 9,
        /// `a < b`.
        LT = 10,
        /// `a <= b`.
        LE = 11,
        /// `a > b`.
        GT = 12,
        /// `a >= b`.
        GE = 13,
        /// `[condition, a, b]`: `a` where the condition is not 0, else `b`.
        WHERE = 14,
        /// Copy; in place: overwrite the target with the input, cast to the target's type.
        COPY = 20,
        /// `-a`; in place.
        NEG = 21,
        /// `|a|`; in place.
        ABS = 22,
        /// Square root; in place.
        SQRT = 23,
        /// `1 / sqrt(a)`; in place.
        RSQRT = 24,
        /// Exponential; in place.
        EXP = 25,
        /// Natural logarithm; in place.
        LOG = 26,
        /// -1, 0 or 1; in place.
        SIGN = 27,
        /// `1 / a`; in place.
        RECIPROCAL = 28,
        /// `a * a`; in place.
        SQUARE = 29,
        /// `scalars = [low, high]`; in place.
        CLAMP = 30,
        /// `[a, b]`, `a + scalars[0] (b - a)`; in place.
        LERP = 31,
        /// `[a, b, c]`, `a + scalars[0] b c`; in place.
        ADDCMUL = 32,
        /// `[a, b, c]`, `a + scalars[0] b / c`; in place.
        ADDCDIV = 33,
        /// `[a, b]`, `a + scalars[0] b`; in place.
        AXPY = 34,
        /// In place only: set every element to `scalars[0]`.
        FILL = 35,
        /// 1 where finite, else 0.
        IS_FINITE = 36,
        /// `ints = [keep_dim, dims...]`, all dimensions when none is named.
        SUM = 40,
        /// Mean, as `SUM`.
        MEAN = 41,
        /// Largest, as `SUM`.
        MAX = 42,
        /// Smallest, as `SUM`.
        MIN = 43,
        /// Euclidean norm, as `SUM`.
        NORM = 44,
        /// Matrix product, batched over leading dimensions (broadcast).
        MATMUL = 50,
        /// `ints = [dim, dim]`.
        TRANSPOSE = 51,
        /// `ints = shape`, one entry may be -1.
        RESHAPE = 52,
        /// `ints = [dim, start, end]`.
        SLICE = 53,
        /// `ints = [dim]`.
        CAT = 54,
        /// `ints = [dim]`, the new dimension.
        STACK = 55,
        /// `[a, indices]`, `ints = [dim]`.
        INDEX_SELECT = 56,
        /// `[a, indices]`, `ints = [dim]`.
        GATHER = 57,
        /// `ints = [dim, descending]`; gives values and I64 indices. Stable.
        SORT = 58,
        /// As `SORT`, the indices alone.
        ARGSORT = 59,
        /// Vector to diagonal matrix, or the diagonal of a matrix.
        DIAG = 60,
        /// Sum of the diagonal.
        TRACE = 61,
        /// Lower triangle, `ints = [diagonal]`.
        TRIL = 62,
        /// Upper triangle, `ints = [diagonal]`.
        TRIU = 63,
        /// `ints = shape`.
        BROADCAST_TO = 64,
        /// `ints = [dtype]`.
        CAST = 65,
        /// No input; `ints = [dtype, shape...]`, filled with `scalars[0]`.
        FULL = 66,
        /// No input; `ints = [dtype, n]`, the identity.
        EYE = 67,
        /// Matrix inverse.
        INVERSE = 80,
        /// Reduced QR: Q and R.
        QR = 81,
        /// Symmetric eigendecomposition: ascending eigenvalues, eigenvectors in columns.
        EIGH = 82,
        /// Reduced SVD: U, descending singular values, V transposed.
        SVD = 83,
        /// Lower Cholesky factor.
        CHOLESKY = 84,
        /// `[b, l]`: solve `l l^T x = b`.
        CHOLESKY_SOLVE = 85,
        /// `[a, b]`, `ints = [upper, unit_diagonal]`: solve `a x = b`.
        SOLVE_TRIANGULAR = 86,
    }
}

codes! {
    /// A random tensor.
    RandomKind {
        /// Standard normal.
        NORMAL = 1,
        /// Uniform on [0, 1).
        UNIFORM = 2,
        /// -1 or 1 with equal chance.
        RADEMACHER = 3,
    }
}

codes! {
    /// A reduction over each tensor of a list, accumulated in f64; one number a tensor.
    ListReduction {
        /// Inner product of `a` and `b`.
        DOT = 1,
        /// Sum of squares of `a`.
        SQUARED_NORM = 2,
        /// Sum of `a`.
        SUM = 3,
        /// Largest absolute value of `a` (NaN if any is NaN).
        MAX_ABS = 4,
        /// How many elements of `a` are not finite.
        NON_FINITE = 5,
    }
}

codes! {
    /// One instruction of a fused elementwise program: a postfix machine over one element of each list at a time.
    FusedOp {
        /// Push the element of list `index`.
        LOAD = 1,
        /// Push `value`.
        CONST = 2,
        /// Push temporary `index`.
        GET = 3,
        /// Pop into temporary `index`.
        SET = 4,
        /// Pop into the element of list `index`.
        STORE = 5,
        /// Pop b, pop a, push `a + b`.
        ADD = 10,
        /// `a - b`.
        SUB = 11,
        /// `a * b`.
        MUL = 12,
        /// `a / b`.
        DIV = 13,
        /// Larger of the two; NaN if either is NaN.
        MAX = 14,
        /// Smaller of the two; NaN if either is NaN.
        MIN = 15,
        /// `a ^ b`.
        POW = 16,
        /// `a < b` as 0 or 1.
        LT = 17,
        /// `a <= b` as 0 or 1.
        LE = 18,
        /// `a == b` as 0 or 1.
        EQ = 19,
        /// Pop c, b, a; push `b` where `a` is not 0, else `c`.
        SELECT = 20,
        /// `-a`.
        NEG = 30,
        /// `|a|`.
        ABS = 31,
        /// Square root.
        SQRT = 32,
        /// -1, 0 or 1.
        SIGN = 33,
        /// Exponential.
        EXP = 34,
        /// Natural logarithm.
        LOG = 35,
        /// `1 / a`.
        RECIPROCAL = 36,
    }
}

codes! {
    /// A whole number that the host knows about the run. Absent answers are `None`.
    IntegerQuery {
        /// Version of the host's interface, `major << 32 | minor << 16 | patch`.
        ABI_VERSION = 1,
        /// The global batch of one step, in sequences.
        BATCH_SIZE = 2,
        /// Tokens of one sequence.
        SEQ_LEN = 3,
        /// Size of the vocabulary.
        VOCAB_SIZE = 4,
        /// Steps of the run, absent where it ends by tokens or loss.
        TOTAL_STEPS = 5,
        /// [`DType`] of parameters and products.
        DTYPE = 6,
        /// Number of ranks.
        WORLD_SIZE = 7,
        /// This rank.
        RANK = 8,
        /// The run's seed.
        SEED = 9,
        /// 1 when a long step should return `more()` soon.
        SHOULD_RETURN = 10,
        /// Finished steps before this one.
        STEP = 11,
        /// Live tensors of this plugin; for tests of leaks.
        LIVE_TENSORS = 12,
        /// Live batches and linearizations of this plugin; for tests of leaks.
        LIVE_HANDLES = 13,
    }
}

codes! {
    /// A real number that the host knows about the run, as a function of `x`.
    RealQuery {
        /// The schedule's multiplier in [0, 1] at the fractional step `x`.
        SCHEDULE = 1,
    }
}

codes! {
    /// A text that the host knows about the run.
    TextQuery {
        /// JSON list of parameter specifications, in the order of every parameter list.
        PARAM_SPECS = 1,
        /// Device of parameters and products: `cpu` or `cuda:N`.
        DEVICE = 2,
    }
}

codes! {
    /// What a batch is drawn for; tokens are counted by it.
    Purpose {
        /// The data of the step.
        STEP = 1,
        /// Line search: disjoint from the steps' data as long as both together have drawn at most one epoch.
        LINE_SEARCH = 2,
    }
}

codes! {
    /// What the host can do beyond tensors and batches. A plugin declares what it needs.
    Capability {
        /// `evaluate`: the mean loss of a batch.
        LOSS = 1,
        /// `evaluate`: the loss and its gradient.
        GRADIENT = 2,
        /// `evaluate`: one loss a sequence.
        LOSSES = 3,
        /// `evaluate`: mean over cases of the squared gradient.
        SQUARED_GRADIENT = 4,
        /// `evaluate`: Fisher-vector product from sampled or data labels.
        FISHER_VECTOR_PRODUCT = 5,
        /// `linearize`.
        LINEARIZE = 20,
        /// `product`: loss at the anchor.
        ANCHOR_LOSS = 21,
        /// `product`: gradient at the anchor.
        ANCHOR_GRADIENT = 22,
        /// `product`: `J v`, `[tokens, vocabulary]`.
        JVP = 23,
        /// `product`: `J^T u`.
        VJP = 24,
        /// `product`: `J^T H J v`.
        GGN_VECTOR_PRODUCT = 25,
        /// `product`: value and gradient of the Gauss-Newton quadratic.
        QUADRATIC = 26,
        /// `product`: value and gradient of `L(z0 + J d)`.
        PROX_LINEAR = 27,
        /// `product`: Hessian-vector product.
        HESSIAN_VECTOR_PRODUCT = 28,
        /// `product`: Kronecker factors of linear layers.
        KRONECKER_FACTORS = 29,
        /// `product`: `sum_n w_n g_n`.
        GRADIENT_WEIGHTED = 30,
        /// `product`: `<g_n, v>` for each sequence.
        SEQUENCE_DIRECTIONAL = 31,
        /// Reserved: Gram matrix of per-sample gradients.
        PER_SAMPLE_GRAM = 40,
        /// Reserved: combination of per-sample gradients.
        PER_SAMPLE_COMBINE = 41,
        /// Reserved: second moments in a Kronecker eigenbasis.
        EIGENBASIS_SECOND_MOMENT = 42,
        /// Reserved: inputs and output gradients of layers, by chunk.
        VISIT_LAYER_IO = 43,
        /// Reserved: GGN product of several vectors at once.
        GGN_MATRIX_PRODUCT = 44,
        /// `ema_update`: the plugin averages its own iterates.
        EMA_UPDATE = 60,
        /// Export of tensors by DLPack.
        DLPACK = 61,
    }
}

codes! {
    /// How a call of `step` ended.
    Outcome {
        /// The step is finished and the parameters updated.
        FINISHED = 1,
        /// The step goes on: serve the run and call again.
        MORE = 2,
        /// The step is finished, its data are consumed, and the parameters stay as they were.
        REJECTED = 3,
    }
}

codes! {
    /// What an entry of an optimizer's state holds.
    StateKind {
        /// A list of tensors, one a parameter, with the parameters' names.
        PARAMS = 1,
        /// One tensor.
        TENSOR = 2,
        /// An f64, its 8 bytes little-endian.
        F64 = 3,
        /// A u64, its 8 bytes little-endian.
        U64 = 4,
        /// UTF-8 text.
        TEXT = 5,
        /// Bytes.
        BYTES = 6,
    }
}

codes! {
    /// Severity of a log line.
    LogLevel {
        /// Something failed.
        ERROR = 1,
        /// Something is suspicious.
        WARN = 2,
        /// Progress.
        INFO = 3,
        /// Details.
        DEBUG = 4,
    }
}
