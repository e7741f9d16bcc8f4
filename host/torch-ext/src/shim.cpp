// Calls into libtorch that tch does not bind, as C functions for `src/ffi.rs`.
//
// A call that can fail returns null, or a message that the caller hands back to
// `gauntlet_shim_free`. No exception leaves this file.

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>

#include <ATen/Context.h>
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

bool gauntlet_deterministic_algorithms() { return at::globalContext().deterministicAlgorithms(); }

}  // extern "C"
