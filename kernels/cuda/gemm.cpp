#include "kernels/cuda/gemm.hpp"

#include <cublasLt.h>

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "kernels/cuda/device.hpp"
#include "kernels/cuda/error.hpp"
#include "kernels/cuda/gemm_cache.hpp"
#include "kernels/cuda/noise.hpp"

namespace stagecraft::kernels::cuda {
namespace {

void check(cublasStatus_t status, const char* expression) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Error(std::string(expression) + ": " + cublasLtGetStatusString(status) + " (" + cublasLtGetStatusName(status) +
              ")");
}
#define CHECK_CUBLAS(expression) check((expression), #expression)

template <class Pointer, cublasStatus_t (*destroy)(Pointer)>
struct Destroy {
  using pointer = Pointer;
  void operator()(Pointer handle) const { static_cast<void>(destroy(handle)); }
};
template <class Pointer, cublasStatus_t (*destroy)(Pointer)>
using Owner = std::unique_ptr<std::remove_pointer_t<Pointer>, Destroy<Pointer, destroy>>;
using Handle = Owner<cublasLtHandle_t, cublasLtDestroy>;
using Operation = Owner<cublasLtMatmulDesc_t, cublasLtMatmulDescDestroy>;
using MatrixLayout = Owner<cublasLtMatrixLayout_t, cublasLtMatrixLayoutDestroy>;
using Preference = Owner<cublasLtMatmulPreference_t, cublasLtMatmulPreferenceDestroy>;

Handle make_handle() {
  cublasLtHandle_t handle = nullptr;
  CHECK_CUBLAS(cublasLtCreate(&handle));
  return Handle(handle);
}

cudaDataType_t storage(MatrixType type) { return type == MatrixType::bf16 ? CUDA_R_16BF : CUDA_R_32F; }
std::size_t bytes_of(MatrixType type) { return type == MatrixType::bf16 ? 2 : 4; }

MatrixLayout make_layout(MatrixType type, std::int64_t rows, std::int64_t columns) {
  // The library counts in columns: a row-major (rows, columns) is its (columns, rows).
  cublasLtMatrixLayout_t layout = nullptr;
  CHECK_CUBLAS(cublasLtMatrixLayoutCreate(&layout, storage(type), static_cast<std::uint64_t>(columns),
                                          static_cast<std::uint64_t>(rows), columns));
  return MatrixLayout(layout);
}

// What one shape needs at every call. The library's A is our b and its B our a, since it sees everything transposed.
struct Problem {
  Operation operation;
  MatrixLayout a, b, c;
  float beta;
  // How an algorithm may add up the parts that it splits the depth into (cublasLtReductionScheme_t): in float.
  std::uint32_t reductions;
};

cublasLtEpilogue_t library_epilogue(const GemmShape& s) {
  switch (s.epilogue) {
    case Epilogue::gelu:
      return s.bias ? CUBLASLT_EPILOGUE_GELU_AUX_BIAS : CUBLASLT_EPILOGUE_GELU_AUX;
    case Epilogue::gelu_gradient:
      return CUBLASLT_EPILOGUE_DGELU;
    case Epilogue::none:
      break;
  }
  return s.bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT;
}

Problem make_problem(const GemmShape& s, int multiprocessors) {
  const cublasComputeType_t compute = s.inputs == MatrixType::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  cublasLtMatmulDesc_t operation = nullptr;
  CHECK_CUBLAS(cublasLtMatmulDescCreate(&operation, compute, CUDA_R_32F));
  Problem problem{
      Operation(operation),
      s.a == Transpose::no ? make_layout(s.inputs, s.rows, s.depth) : make_layout(s.inputs, s.depth, s.rows),
      s.b == Transpose::no ? make_layout(s.inputs, s.depth, s.columns) : make_layout(s.inputs, s.columns, s.depth),
      make_layout(s.output, s.rows, s.columns),
      s.accumulate == Accumulate::yes ? 1.0F : 0.0F,
      s.output == MatrixType::bf16 ? std::uint32_t{CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE}
                                   : std::uint32_t{CUBLASLT_REDUCTION_SCHEME_MASK}};
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const auto& value) {
    CHECK_CUBLAS(cublasLtMatmulDescSetAttribute(operation, name, &value, sizeof(value)));
  };
  set(CUBLASLT_MATMUL_DESC_TRANSA, s.b == Transpose::no ? CUBLAS_OP_N : CUBLAS_OP_T);
  set(CUBLASLT_MATMUL_DESC_TRANSB, s.a == Transpose::no ? CUBLAS_OP_N : CUBLAS_OP_T);
  if (multiprocessors > 0) set(CUBLASLT_MATMUL_DESC_SM_COUNT_TARGET, static_cast<std::int32_t>(multiprocessors));
  if (const cublasLtEpilogue_t epilogue = library_epilogue(s); epilogue != CUBLASLT_EPILOGUE_DEFAULT) {
    set(CUBLASLT_MATMUL_DESC_EPILOGUE, epilogue);
  }
  if (s.bias) set(CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, storage(s.output));
  if (s.epilogue != Epilogue::none) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, s.columns);
  return problem;
}

std::vector<cublasLtMatmulAlgo_t> candidates(cublasLtHandle_t handle, const Problem& p, int most) {
  cublasLtMatmulPreference_t raw = nullptr;
  CHECK_CUBLAS(cublasLtMatmulPreferenceCreate(&raw));
  const Preference preference(raw);
  CHECK_CUBLAS(cublasLtMatmulPreferenceSetAttribute(raw, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                    &gemm_workspace_bytes, sizeof(gemm_workspace_bytes)));
  CHECK_CUBLAS(cublasLtMatmulPreferenceSetAttribute(raw, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &p.reductions,
                                                    sizeof(p.reductions)));
  // Without this the library takes every pointer to be aligned to 256 bytes.
  const std::uint32_t alignment = 16;
  for (const auto attribute :
       {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
        CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
    CHECK_CUBLAS(cublasLtMatmulPreferenceSetAttribute(raw, attribute, &alignment, sizeof(alignment)));
  }
  std::vector<cublasLtMatmulHeuristicResult_t> results(static_cast<std::size_t>(most));
  int found = 0;
  CHECK_CUBLAS(cublasLtMatmulAlgoGetHeuristic(handle, p.operation.get(), p.b.get(), p.a.get(), p.c.get(), p.c.get(),
                                              raw, most, results.data(), &found));
  std::vector<cublasLtMatmulAlgo_t> algorithms;
  for (int i = 0; i < found; ++i) {
    if (results[static_cast<std::size_t>(i)].state == CUBLAS_STATUS_SUCCESS) {
      algorithms.push_back(results[static_cast<std::size_t>(i)].algo);
    }
  }
  return algorithms;
}

bool reduces_as_wanted(const Problem& p, const cublasLtMatmulAlgo_t& algorithm) {
  std::uint32_t scheme = 0;
  CHECK_CUBLAS(cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                                    sizeof(scheme), nullptr));
  return (scheme & ~p.reductions) == 0;
}

struct Pointers {
  void* c;
  const void* addend;
  const void* a;
  const void* b;
};

cublasStatus_t multiply(cublasLtHandle_t handle, const Problem& p, const cublasLtMatmulAlgo_t& algorithm,
                        const Pointers& at, std::byte* workspace, cudaStream_t stream) {
  const float alpha = 1.0F;
  return cublasLtMatmul(handle, p.operation.get(), &alpha, at.b, p.b.get(), at.a, p.a.get(), &p.beta, at.addend,
                        p.c.get(), at.c, p.c.get(), &algorithm, workspace, gemm_workspace_bytes, stream);
}

void set_pointers(const Problem& p, const GemmShape& shape, const void* bias, const void* aux) {
  const auto set = [&](cublasLtMatmulDescAttributes_t name, const void* value) {
    CHECK_CUBLAS(cublasLtMatmulDescSetAttribute(p.operation.get(), name, &value, sizeof(value)));
  };
  if (shape.bias) set(CUBLASLT_MATMUL_DESC_BIAS_POINTER, bias);
  if (shape.epilogue != Epilogue::none) set(CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, aux);
}

std::string device_name() {
  int device = 0;
  STAGECRAFT_CUDA_CHECK(cudaGetDevice(&device));
  cudaDeviceProp properties{};
  STAGECRAFT_CUDA_CHECK(cudaGetDeviceProperties(&properties, device));
  return properties.name;
}

constexpr std::size_t aligned(std::size_t bytes) { return (bytes + 255) / 256 * 256; }

struct Sizes {
  std::size_t a, b, c, bias, aux;  // bytes, each a multiple of 256
};

Sizes sizes(const GemmShape& s) {
  const auto bytes = [](std::int64_t count, MatrixType type) {
    return aligned(static_cast<std::size_t>(count) * bytes_of(type));
  };
  return {bytes(s.rows * s.depth, s.inputs), bytes(s.depth * s.columns, s.inputs), bytes(s.rows * s.columns, s.output),
          bytes(s.columns, s.output), s.epilogue == Epilogue::none ? 0 : bytes(s.rows * s.columns, s.output)};
}

void fill(std::byte* memory, std::size_t bytes, MatrixType type, std::uint64_t seed, cudaStream_t stream) {
  if (type == MatrixType::bf16) {
    fill_noise(reinterpret_cast<Bf16*>(memory), static_cast<std::int64_t>(bytes / 2), -1.0F, 1.0F, seed, stream);
  } else {
    fill_noise(reinterpret_cast<float*>(memory), static_cast<std::int64_t>(bytes / 4), -1.0F, 1.0F, seed, stream);
  }
}

}  // namespace

double GemmShape::flops() const {
  return 2.0 * static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(depth);
}

std::string GemmShape::text() const {
  const auto name = [](MatrixType type) {
    return type == MatrixType::bf16 ? "bf16" : type == MatrixType::tf32 ? "tf32" : "fp32";
  };
  std::string text = std::to_string(rows) + "x" + std::to_string(columns) + "x" + std::to_string(depth) + " ";
  text += a == Transpose::no ? 'N' : 'T';
  text += b == Transpose::no ? 'N' : 'T';
  text += std::string(" ") + name(inputs) + ">" + name(output);
  if (bias) text += " +bias";
  if (accumulate == Accumulate::yes) text += " +c";
  if (epilogue != Epilogue::none) text += epilogue == Epilogue::gelu ? " gelu" : " gelu'";
  return text;
}

struct Gemm::State {
  struct Plan {
    Problem problem;
    cublasLtMatmulAlgo_t algorithm;
    double seconds;  // 0 if not timed
  };

  State(std::filesystem::path path_, int multiprocessors_)
      : handle(make_handle()),
        path(std::move(path_)),
        multiprocessors(multiprocessors_),
        device(device_name()),
        cache(read_gemm_cache(path)) {
    if (multiprocessors > 0) device += ", " + std::to_string(multiprocessors) + " multiprocessors";
  }

  std::string key(const GemmShape& shape) const { return gemm_cache_key(device, cublasLtGetVersion(), shape.text()); }

  // The choice of an earlier run, if this library still takes it.
  std::optional<Plan> known(const GemmShape& shape, Problem& p) const {
    const auto found = cache.find(key(shape));
    if (found == cache.end()) return std::nullopt;
    const auto algorithm = std::bit_cast<cublasLtMatmulAlgo_t>(found->second.algorithm);
    cublasLtMatmulHeuristicResult_t result{};
    const cublasStatus_t status = cublasLtMatmulAlgoCheck(handle.get(), p.operation.get(), p.b.get(), p.a.get(),
                                                          p.c.get(), p.c.get(), &algorithm, &result);
    if (status != CUBLAS_STATUS_SUCCESS || result.workspaceSize > gemm_workspace_bytes) return std::nullopt;
    if (!reduces_as_wanted(p, algorithm)) return std::nullopt;
    return Plan{std::move(p), algorithm, found->second.seconds};
  }

  Plan& plan(const GemmShape& shape) {
    const auto found = plans.find(shape);
    if (found != plans.end()) return found->second;
    Problem problem = make_problem(shape, multiprocessors);
    std::optional<Plan> made = known(shape, problem);
    if (!made) {
      const auto algorithms = candidates(handle.get(), problem, 1);
      if (algorithms.empty()) throw Error("cuBLASLt has no algorithm for " + shape.text());
      made = Plan{std::move(problem), algorithms.front(), 0.0};
    }
    return plans.emplace(shape, std::move(*made)).first->second;
  }

  Handle handle;
  std::filesystem::path path;
  int multiprocessors;
  std::string device;
  GemmCache cache;
  std::map<GemmShape, Plan> plans;
};

Gemm::Gemm(std::filesystem::path cache, int multiprocessors)
    : state_(std::make_unique<State>(std::move(cache), multiprocessors)) {}
Gemm::~Gemm() = default;
Gemm::Gemm(Gemm&&) noexcept = default;
Gemm& Gemm::operator=(Gemm&&) noexcept = default;

std::size_t Gemm::tuning_bytes(const GemmShape& shape) {
  const Sizes size = sizes(shape);
  return size.a + size.b + size.c + size.bias + size.aux;
}

namespace {

// A set of matrices to time with.
struct TuningSet {
  Pointers at;
  std::byte *bias, *aux;
};

std::vector<TuningSet> tuning_sets(const GemmShape& shape, std::span<std::byte> scratch, cudaStream_t stream) {
  constexpr std::size_t most = 4;
  const Sizes size = sizes(shape);
  const std::size_t count = std::clamp<std::size_t>(scratch.size() / Gemm::tuning_bytes(shape), 1, most);
  std::vector<TuningSet> sets;
  std::byte* next = scratch.data();
  std::uint64_t seed = 0;
  const auto take = [&](std::size_t bytes, MatrixType type) {
    fill(next, bytes, type, ++seed, stream);
    return std::exchange(next, next + bytes);
  };
  for (std::size_t i = 0; i < count; ++i) {
    std::byte* const a = take(size.a, shape.inputs);
    std::byte* const b = take(size.b, shape.inputs);
    std::byte* const c = take(size.c, shape.output);
    std::byte* const bias = take(size.bias, shape.output);
    sets.push_back({{c, c, a, b}, bias, take(size.aux, shape.output)});
  }
  return sets;
}

}  // namespace

double Gemm::tune(const GemmShape& shape, std::span<std::byte> scratch, std::byte* workspace, cudaStream_t stream) {
  State::Plan& plan = state_->plan(shape);
  if (plan.seconds > 0.0) return plan.seconds;

  constexpr int most = 16;
  constexpr int repetitions = 8;
  const std::vector<TuningSet> sets = tuning_sets(shape, scratch, stream);
  const Event start;
  const Event stop;
  cublasLtMatmulAlgo_t best = plan.algorithm;
  double best_seconds = std::numeric_limits<double>::infinity();
  for (const cublasLtMatmulAlgo_t& algorithm : candidates(state_->handle.get(), plan.problem, most)) {
    const auto once = [&](std::size_t turn) {
      const TuningSet& set = sets[turn % sets.size()];
      set_pointers(plan.problem, shape, set.bias, set.aux);
      return multiply(state_->handle.get(), plan.problem, algorithm, set.at, workspace, stream);
    };
    // The heuristics may offer what this device refuses.
    if (once(0) != CUBLAS_STATUS_SUCCESS) continue;
    start.record(stream);
    for (std::size_t i = 1; i <= repetitions; ++i) CHECK_CUBLAS(once(i));
    stop.record(stream);
    stop.synchronize();
    const double seconds = stop.seconds_since(start) / repetitions;
    if (seconds >= best_seconds) continue;
    best = algorithm;
    best_seconds = seconds;
  }
  if (best_seconds == std::numeric_limits<double>::infinity()) {
    throw Error("cuBLASLt has no algorithm for " + shape.text());
  }
  plan.algorithm = best;
  plan.seconds = best_seconds;
  if (!state_->path.empty()) {
    // What other ranks found meanwhile is kept.
    for (const auto& [key, choice] : read_gemm_cache(state_->path)) state_->cache.insert_or_assign(key, choice);
    state_->cache.insert_or_assign(state_->key(shape),
                                   GemmChoice{std::bit_cast<decltype(GemmChoice::algorithm)>(best), best_seconds});
    write_gemm_cache(state_->path, state_->cache);
  }
  return best_seconds;
}

void Gemm::run(const GemmShape& shape, void* c, const void* a, const void* b, const void* bias, std::byte* workspace,
               cudaStream_t stream, const void* addend, void* aux) {
  const State::Plan& plan = state_->plan(shape);
  set_pointers(plan.problem, shape, bias, aux);
  const Pointers at{c, addend == nullptr ? c : addend, a, b};
  const cublasStatus_t status = multiply(state_->handle.get(), plan.problem, plan.algorithm, at, workspace, stream);
  check(status, ("cublasLtMatmul(" + shape.text() + ")").c_str());
}

}  // namespace stagecraft::kernels::cuda
