// Loops over rows that libtorch computes in many passes over memory: norms, and what products make of logits.
//
// Each works on dense arrays on the CPU, in float or double, shared among libtorch's own threads. Sums over rows are made
// of sums over a fixed number of rows, so results do not depend on the number of threads. Every loop is compiled for
// several widths of vectors; which one runs is chosen when the program starts.

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <vector>

#if defined(__GNUC__) && !defined(__clang__)
#define CLONED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONED
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

// Rows whose sums are made at once.
constexpr int64_t kRows = 32;

template <class F>
void for_rows(int64_t rows, const F& body) {
  const int64_t chunks = (rows + kRows - 1) / kRows;
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      body(chunk, chunk * kRows, std::min(rows, (chunk + 1) * kRows));
    }
  };
#ifdef _OPENMP
  at::parallel_for(0, chunks, 1, run);
#else
  run(0, chunks);
#endif
}

template <class T>
struct Bits;
template <>
struct Bits<float> {
  using Int = int32_t;
  static constexpr float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  static constexpr int mantissa = 23;
  static constexpr float least = -87.0f, most = 88.0f;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
  static constexpr int degree = 7;
};
template <>
struct Bits<double> {
  using Int = int64_t;
  static constexpr double magic = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr int mantissa = 52;
  static constexpr double least = -708.0, most = 709.0;
  static constexpr double ln2_high = 0.693145751953125, ln2_low = 1.42860682030941723212e-6;
  static constexpr int degree = 13;
};

// e^x to an ulp or two: x = n ln 2 + r with whole n, a Taylor polynomial in r, and n added to the exponent.
template <class T>
INLINE T exponential(T x) {
  using B = Bits<T>;
  x = x < B::least ? B::least : x;
  x = x > B::most ? B::most : x;
  const T shifted = x * T(1.44269504088896340736) + B::magic;
  const T n = shifted - B::magic;
  const T r = (x - n * B::ln2_high) - n * B::ln2_low;
  constexpr double inverse_factorials[] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040,
      1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
  T p = T(inverse_factorials[B::degree]);
#pragma GCC unroll 16
  for (int i = B::degree - 1; i >= 0; --i) p = p * r + T(inverse_factorials[i]);
  typename B::Int bits, whole;
  std::memcpy(&bits, &p, sizeof p);
  std::memcpy(&whole, &shifted, sizeof shifted);
  bits += whole << B::mantissa;
  std::memcpy(&p, &bits, sizeof p);
  return p;
}

template <class T>
INLINE T largest(const T* x, int64_t width) {
  T most = x[0];
#pragma omp simd reduction(max : most)
  for (int64_t j = 0; j < width; ++j) most = x[j] > most ? x[j] : most;
  return most;
}

// Norms: y = w * n + b with n = (x - m) s, m the mean or 0, s = 1 / sqrt(mean((x - m)^2) + eps).

template <class T>
struct NormForward {
  const T *x, *weight, *bias;
  T *output, *normal, *scale;
  int64_t width;
  double eps;
  bool centred;
};

template <class T>
INLINE void norm_forward(const NormForward<T>& a, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    const T* x = a.x + i * a.width;
    T *output = a.output + i * a.width, *normal = a.normal + i * a.width;
    T mean = 0, square = 0;
    if (a.centred) {
#pragma omp simd reduction(+ : mean)
      for (int64_t j = 0; j < a.width; ++j) mean += x[j];
      mean /= T(a.width);
    }
#pragma omp simd reduction(+ : square)
    for (int64_t j = 0; j < a.width; ++j) square += (x[j] - mean) * (x[j] - mean);
    const T scale = T(1) / std::sqrt(square / T(a.width) + T(a.eps));
    a.scale[i] = scale;
#pragma omp simd
    for (int64_t j = 0; j < a.width; ++j) normal[j] = (x[j] - mean) * scale;
    if (a.bias) {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) output[j] = normal[j] * a.weight[j] + a.bias[j];
    } else {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) output[j] = normal[j] * a.weight[j];
    }
  }
}

// dx (+)= s (t - mean(t) - n mean(n t)) with t = w * dy; sums of dy * n and of dy over rows.
template <class T>
struct NormPullback {
  const T *dy, *normal, *scale, *weight;
  T *dx, *weight_sums, *bias_sums;
  int64_t width;
  bool centred, add;
};

template <class T>
INLINE void norm_pullback(const NormPullback<T>& a, int64_t chunk, int64_t first, int64_t end) {
  T* weight_sum = a.weight_sums ? a.weight_sums + chunk * a.width : nullptr;
  T* bias_sum = a.bias_sums ? a.bias_sums + chunk * a.width : nullptr;
  for (int64_t i = first; i < end; ++i) {
    const T *dy = a.dy + i * a.width, *normal = a.normal + i * a.width;
    T* dx = a.dx + i * a.width;
    const T scale = a.scale[i];
    T mean = 0, along = 0;
#pragma omp simd reduction(+ : along, mean)
    for (int64_t j = 0; j < a.width; ++j) {
      const T t = dy[j] * a.weight[j];
      along += t * normal[j];
      mean += t;
    }
    along /= T(a.width);
    mean = a.centred ? mean / T(a.width) : T(0);
    if (weight_sum) {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) weight_sum[j] += dy[j] * normal[j];
    }
    if (bias_sum) {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) bias_sum[j] += dy[j];
    }
    if (a.add) {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) {
        dx[j] += scale * (dy[j] * a.weight[j] - mean - normal[j] * along);
      }
    } else {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) {
        dx[j] = scale * (dy[j] * a.weight[j] - mean - normal[j] * along);
      }
    }
  }
}

// y' = w * s (x' - mean(x') - n mean(n x')) + w' * n + b', of the tangents that there are; y' may be x'.
template <class T>
struct NormTangent {
  const T *dx, *normal, *scale, *weight, *dw, *db;
  T* dy;
  int64_t width;
  bool centred;
};

template <class T>
INLINE void norm_tangent(const NormTangent<T>& a, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    const T *dx = a.dx + i * a.width, *normal = a.normal + i * a.width;
    T* dy = a.dy + i * a.width;
    const T scale = a.scale[i];
    T mean = 0, along = 0;
#pragma omp simd reduction(+ : along, mean)
    for (int64_t j = 0; j < a.width; ++j) {
      along += dx[j] * normal[j];
      mean += dx[j];
    }
    along /= T(a.width);
    mean = a.centred ? mean / T(a.width) : T(0);
    if (a.dw && a.db) {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) {
        dy[j] = scale * (dx[j] - mean - normal[j] * along) * a.weight[j] + a.dw[j] * normal[j] + a.db[j];
      }
    } else if (a.dw) {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) {
        dy[j] = scale * (dx[j] - mean - normal[j] * along) * a.weight[j] + a.dw[j] * normal[j];
      }
    } else {
#pragma omp simd
      for (int64_t j = 0; j < a.width; ++j) dy[j] = scale * (dx[j] - mean - normal[j] * along) * a.weight[j];
    }
  }
}

// Rows of logits z with targets y and weights c: losses, and in place of z or of the tangent v a cotangent.

template <class T>
struct Rows {
  T *z, *v;
  const int64_t* targets;
  const T* weights;  // one a row, or none
  double weight;     // where there are none
  T *losses, *linear, *curvature;
  int64_t width;

  INLINE T row_weight(int64_t i) const { return weights ? weights[i] : T(weight); }
};

// z <- e^(z - max), and the loss of the target; gives the sum.
template <class T>
INLINE T exponentials(const Rows<T>& a, int64_t i) {
  T* z = a.z + i * a.width;
  const T most = largest(z, a.width), of_target = z[a.targets[i]] - most;
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < a.width; ++j) {
    z[j] = exponential(z[j] - most);
    sum += z[j];
  }
  a.losses[i] = std::log(sum) - of_target;
  return sum;
}

// z <- softmax(z).
template <class T>
INLINE void softmax(const Rows<T>& a, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    T* z = a.z + i * a.width;
    const T inverse = T(1) / exponentials(a, i);
#pragma omp simd
    for (int64_t j = 0; j < a.width; ++j) z[j] *= inverse;
  }
}

// z <- c (softmax(z) - y).
template <class T>
INLINE void residual(const Rows<T>& a, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    T* z = a.z + i * a.width;
    const T weight = a.row_weight(i), factor = weight / exponentials(a, i);
#pragma omp simd
    for (int64_t j = 0; j < a.width; ++j) z[j] *= factor;
    z[a.targets[i]] -= weight;
  }
}

// With z holding probabilities p and m = <p, v>: v <- c (p (1 + v - m) - y), m - v_y, and <p, (v - m)^2>.
template <class T>
INLINE void quadratic(const Rows<T>& a, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    const T* p = a.z + i * a.width;
    T* v = a.v + i * a.width;
    const T of_target = v[a.targets[i]], weight = a.row_weight(i);
    T mean = 0, curvature = 0;
#pragma omp simd reduction(+ : mean)
    for (int64_t j = 0; j < a.width; ++j) mean += p[j] * v[j];
#pragma omp simd reduction(+ : curvature)
    for (int64_t j = 0; j < a.width; ++j) {
      const T centred = v[j] - mean;
      curvature += p[j] * centred * centred;
      v[j] = weight * p[j] * (T(1) + centred);
    }
    v[a.targets[i]] -= weight;
    a.linear[i] = mean - of_target;
    a.curvature[i] = curvature;
  }
}

// With z holding probabilities p: v <- c p (v - <p, v>).
template <class T>
INLINE void curve(const Rows<T>& a, int64_t first, int64_t end) {
  for (int64_t i = first; i < end; ++i) {
    const T* p = a.z + i * a.width;
    T *v = a.v + i * a.width, mean = 0;
    const T weight = a.row_weight(i);
#pragma omp simd reduction(+ : mean)
    for (int64_t j = 0; j < a.width; ++j) mean += p[j] * v[j];
#pragma omp simd
    for (int64_t j = 0; j < a.width; ++j) v[j] = weight * p[j] * (v[j] - mean);
  }
}

// GELU in its tanh approximation, x / (1 + e^(-2u)) with u = sqrt(2 / pi) (x + 0.044715 x^3): its value, and dy times
// its derivative.
template <class T>
INLINE T gelu_gate(T x) {
  const T u = T(0.79788456080286535588) * (x + T(0.044715) * x * x * x);
  return T(1) / (T(1) + exponential(T(-2) * u));
}

template <class T>
struct Gelu {
  const T *x, *dy;
  T* output;
  int64_t width;
};

template <class T>
INLINE void gelu(const Gelu<T>& a, int64_t first, int64_t end) {
#pragma omp simd
  for (int64_t j = first * a.width; j < end * a.width; ++j) a.output[j] = a.x[j] * gelu_gate(a.x[j]);
}

template <class T>
INLINE void gelu_derivative(const Gelu<T>& a, int64_t first, int64_t end) {
#pragma omp simd
  for (int64_t j = first * a.width; j < end * a.width; ++j) {
    const T x = a.x[j], gate = gelu_gate(x);
    const T du = T(2 * 0.79788456080286535588) * (T(1) + T(3 * 0.044715) * x * x);
    a.output[j] = a.dy[j] * gate * (T(1) + x * (T(1) - gate) * du);
  }
}

// One function of each loop and number type for every width of vectors.
#define CLONES(NAME, ARGS)                                                                        \
  CLONED void NAME##_f32(const ARGS<float>& a, int64_t first, int64_t end) { NAME(a, first, end); } \
  CLONED void NAME##_f64(const ARGS<double>& a, int64_t first, int64_t end) { NAME(a, first, end); } \
  void over_rows_##NAME(const ARGS<float>& a, int64_t rows) {                                     \
    for_rows(rows, [&](int64_t, int64_t first, int64_t end) { NAME##_f32(a, first, end); });      \
  }                                                                                               \
  void over_rows_##NAME(const ARGS<double>& a, int64_t rows) {                                    \
    for_rows(rows, [&](int64_t, int64_t first, int64_t end) { NAME##_f64(a, first, end); });      \
  }

CLONES(norm_forward, NormForward)
CLONES(norm_tangent, NormTangent)
CLONES(softmax, Rows)
CLONES(residual, Rows)
CLONES(quadratic, Rows)
CLONES(curve, Rows)
CLONES(gelu, Gelu)
CLONES(gelu_derivative, Gelu)

CLONED void norm_pullback_f32(const NormPullback<float>& a, int64_t chunk, int64_t first, int64_t end) {
  norm_pullback(a, chunk, first, end);
}
CLONED void norm_pullback_f64(const NormPullback<double>& a, int64_t chunk, int64_t first, int64_t end) {
  norm_pullback(a, chunk, first, end);
}
INLINE void pullback_rows(const NormPullback<float>& a, int64_t chunk, int64_t first, int64_t end) {
  norm_pullback_f32(a, chunk, first, end);
}
INLINE void pullback_rows(const NormPullback<double>& a, int64_t chunk, int64_t first, int64_t end) {
  norm_pullback_f64(a, chunk, first, end);
}

template <class T>
void sum_chunks(const std::vector<T>& sums, int64_t width, T* total) {
  if (!total) return;
  std::fill(total, total + width, T(0));
  for (size_t start = 0; start < sums.size(); start += width) {
    for (int64_t j = 0; j < width; ++j) total[j] += sums[start + j];
  }
}

template <class T>
void pull_back_norm(NormPullback<T> a, int64_t rows, T* dw, T* db) {
  const int64_t chunks = (rows + kRows - 1) / kRows;
  std::vector<T> weight_sums(dw ? chunks * a.width : 0, T(0)), bias_sums(db ? chunks * a.width : 0, T(0));
  a.weight_sums = dw ? weight_sums.data() : nullptr;
  a.bias_sums = db ? bias_sums.data() : nullptr;
  for_rows(rows, [&](int64_t chunk, int64_t first, int64_t end) { pullback_rows(a, chunk, first, end); });
  sum_chunks(weight_sums, a.width, dw);
  sum_chunks(bias_sums, a.width, db);
}

// Whether all tensors that there are lie dense on the CPU, with elements of one of the two types.
bool are_dense(std::initializer_list<const at::Tensor*> tensors, at::ScalarType type) {
  if (type != at::kFloat && type != at::kDouble) return false;
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor* tensor) {
    return !tensor || (tensor->device().is_cpu() && tensor->is_contiguous() && tensor->scalar_type() == type);
  });
}

template <class T>
T* data(const at::Tensor* tensor) {
  return tensor ? static_cast<T*>(tensor->data_ptr()) : nullptr;
}

// Calls `body` with a zero of the tensors' type; false where the loops do not serve them.
template <class F>
bool with_type(std::initializer_list<const at::Tensor*> tensors, const F& body) {
  const auto type = (*tensors.begin())->scalar_type();
  if (!are_dense(tensors, type)) return false;
  type == at::kFloat ? body(float()) : body(double());
  return true;
}

}  // namespace

// Matrices are [rows, width]. Each gives false, and has done nothing, where its loops do not serve the tensors.
extern "C" {

bool gauntlet_norm_forward(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* bias, double eps, bool centred,
                           const at::Tensor* output, const at::Tensor* normal, const at::Tensor* scale) {
  return with_type({x, weight, bias, output, normal, scale}, [&](auto zero) {
    using T = decltype(zero);
    const NormForward<T> a{data<T>(x), data<T>(weight), data<T>(bias), data<T>(output), data<T>(normal), data<T>(scale),
                           x->size(1), eps, centred};
    over_rows_norm_forward(a, x->size(0));
  });
}

bool gauntlet_norm_pullback(const at::Tensor* dy, const at::Tensor* normal, const at::Tensor* scale,
                            const at::Tensor* weight, bool centred, bool add, const at::Tensor* dx,
                            const at::Tensor* weight_sum, const at::Tensor* bias_sum) {
  return with_type({dy, normal, scale, weight, dx, weight_sum, bias_sum}, [&](auto zero) {
    using T = decltype(zero);
    const NormPullback<T> a{data<T>(dy), data<T>(normal), data<T>(scale), data<T>(weight), data<T>(dx), nullptr, nullptr,
                            dy->size(1), centred, add};
    pull_back_norm(a, dy->size(0), data<T>(weight_sum), data<T>(bias_sum));
  });
}

bool gauntlet_norm_tangent(const at::Tensor* dx, const at::Tensor* normal, const at::Tensor* scale,
                           const at::Tensor* weight, const at::Tensor* dw, const at::Tensor* db, bool centred,
                           const at::Tensor* dy) {
  return with_type({dx, normal, scale, weight, dw, db, dy}, [&](auto zero) {
    using T = decltype(zero);
    const NormTangent<T> a{data<T>(dx), data<T>(normal), data<T>(scale), data<T>(weight), data<T>(dw), data<T>(db),
                           data<T>(dy), dx->size(1), centred};
    over_rows_norm_tangent(a, dx->size(0));
  });
}

bool gauntlet_softmax(const at::Tensor* z, const at::Tensor* targets, const at::Tensor* losses) {
  return with_type({z, losses}, [&](auto zero) {
    using T = decltype(zero);
    const auto* labels = static_cast<const int64_t*>(targets->data_ptr());
    const Rows<T> a{data<T>(z), nullptr, labels, nullptr, 0, data<T>(losses), nullptr, nullptr, z->size(1)};
    over_rows_softmax(a, z->size(0));
  });
}

bool gauntlet_residual(const at::Tensor* z, const at::Tensor* targets, const at::Tensor* weights, double weight,
                       const at::Tensor* losses) {
  return with_type({z, weights, losses}, [&](auto zero) {
    using T = decltype(zero);
    const auto* labels = static_cast<const int64_t*>(targets->data_ptr());
    const Rows<T> a{data<T>(z), nullptr, labels, data<T>(weights), weight, data<T>(losses), nullptr, nullptr, z->size(1)};
    over_rows_residual(a, z->size(0));
  });
}

bool gauntlet_quadratic(const at::Tensor* p, const at::Tensor* v, const at::Tensor* targets, const at::Tensor* weights,
                        double weight, const at::Tensor* linear, const at::Tensor* curvature) {
  return with_type({p, v, weights, linear, curvature}, [&](auto zero) {
    using T = decltype(zero);
    const auto* labels = static_cast<const int64_t*>(targets->data_ptr());
    const Rows<T> a{data<T>(p), data<T>(v), labels, data<T>(weights), weight, nullptr, data<T>(linear),
                    data<T>(curvature), p->size(1)};
    over_rows_quadratic(a, p->size(0));
  });
}

bool gauntlet_curve(const at::Tensor* p, const at::Tensor* v, const at::Tensor* weights, double weight) {
  return with_type({p, v, weights}, [&](auto zero) {
    using T = decltype(zero);
    const Rows<T> a{data<T>(p), data<T>(v), nullptr, data<T>(weights), weight, nullptr, nullptr, nullptr, p->size(1)};
    over_rows_curve(a, p->size(0));
  });
}

// x gelu's value; with dy what dy becomes through its derivative.
bool gauntlet_gelu(const at::Tensor* x, const at::Tensor* dy, const at::Tensor* output) {
  return with_type({x, dy, output}, [&](auto zero) {
    using T = decltype(zero);
    const Gelu<T> a{data<T>(x), data<T>(dy), data<T>(output), x->size(1)};
    dy ? over_rows_gelu_derivative(a, x->size(0)) : over_rows_gelu(a, x->size(0));
  });
}

}  // extern "C"
