// Calls into libtorch that tch does not bind, as C functions for `src/ffi.rs`.
//
// A call that can fail returns null, or a message that the caller hands back to
// `gauntlet_shim_free`. No exception leaves this file.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>

#include <malloc.h>

#include <ATen/Context.h>
#include <ATen/DLConvertor.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/forward_grad.h>
#include <torch/headeronly/version.h>

namespace {

// Runs `body` and turns an exception into its message; null when there was none.
template <typename Body>
char* guarded(Body body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const std::exception& error) {
    char* message = strdup(error.what());
    return message != nullptr ? message : strdup("");
  } catch (...) {
    return strdup("an exception of an unknown type");
  }
}

// oneDNN's linear layer with what may be fused to its end, as libtorch registers it.
using Linear = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, std::string_view,
                          c10::List<std::optional<at::Scalar>>, std::optional<std::string_view>);
using LinearBinary = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                const std::optional<at::Tensor>&, std::string_view);

template <typename Signature>
const auto& operation(const char* name, const char* overload) {
  static const auto found = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
  return found;
}

}  // namespace

extern "C" {

void gauntlet_shim_free(char* message) { std::free(message); }

const char* gauntlet_libtorch_version() { return TORCH_VERSION; }

char* gauntlet_forward_level_enter(std::uint64_t* level) {
  return guarded([&] { *level = torch::autograd::ForwardADLevel::get_next_idx(); });
}

char* gauntlet_forward_level_exit(std::uint64_t level) {
  return guarded([&] { torch::autograd::ForwardADLevel::release_idx(level); });
}

char* gauntlet_set_deterministic_algorithms(bool enabled) {
  return guarded([&] { at::globalContext().setDeterministicAlgorithms(enabled, /*warn_only=*/false); });
}

// *out = x weight^T, plus `sum` where it is not null.
char* gauntlet_linear(const at::Tensor* x, const at::Tensor* weight, const at::Tensor* sum, at::Tensor** out) {
  return guarded([&] {
    if (sum == nullptr) {
      const auto& linear = operation<Linear>("mkldnn::_linear_pointwise", "");
      *out = new at::Tensor(linear.call(*x, *weight, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), ""));
    } else {
      const auto& linear = operation<LinearBinary>("mkldnn::_linear_pointwise", "binary");
      *out = new at::Tensor(linear.call(*x, *sum, *weight, std::nullopt, "add"));
    }
  });
}

void gauntlet_keep_freed_memory(std::int32_t largest, std::int32_t total) {
  mallopt(M_MMAP_THRESHOLD, largest);
  mallopt(M_TRIM_THRESHOLD, total);
}

// `tensor` is an at::Tensor; `managed` receives a DLManagedTensor, which keeps the storage until its deleter is called.
char* gauntlet_dlpack(const void* tensor, void** managed) {
  return guarded([&] { *managed = at::toDLPack(*static_cast<const at::Tensor*>(tensor)); });
}

// Calls `work(data)` at the same time on every thread that libtorch computes with. libtorch's own loop over the elements
// of a tensor, one element a thread, starts them: it needs no OpenMP here.
char* gauntlet_on_every_thread(void (*work)(void*), void* data) {
  return guarded([&] {
    at::Tensor threads = at::empty({at::get_num_threads()}, at::kByte);
    at::TensorIterator iterator = at::TensorIterator::nullary_op(threads);
    iterator.for_each([&](char**, const std::int64_t*, std::int64_t) { work(data); }, /*grain_size=*/1);
  });
}

bool gauntlet_deterministic_algorithms() { return at::globalContext().deterministicAlgorithms(); }

}  // extern "C"
