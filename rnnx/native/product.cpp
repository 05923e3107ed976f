// Products of a few rows with a matrix that many time steps share.
//
// XLA packs a matrix anew for every product; inside a loop over time that takes as long as the
// product. Here `pack` lays a matrix M (K, N) out once and `multiply` reads it as it lies:
//
//   packed   (tiles, K, W): tile t holds columns t W to t W + W - 1, anything after the last
//   y = x M  x (B, K), y (B, N): tile by tile, ROWS rows of x at once in registers
//
// Only the compiler's vector types are used, so one source serves AVX-512, AVX2, SSE and NEON.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using F32 = ffi::Buffer<ffi::F32>;

// ROWS * VECTORS sums fill the vector registers but for the tile's VECTORS and one number of x.
#if defined(__AVX512F__)
constexpr int LANES = 16, VECTORS = 2, ROWS = 12;
#elif defined(__AVX__)
constexpr int LANES = 8, VECTORS = 2, ROWS = 6;
#elif defined(__aarch64__)
constexpr int LANES = 4, VECTORS = 4, ROWS = 6;
#else
constexpr int LANES = 4, VECTORS = 2, ROWS = 6;
#endif
constexpr int W = LANES * VECTORS;
typedef float Vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

// R rows of x (stride k) times a tile (k, W) into R rows of y (stride n), its first `columns`.
// Meanwhile the memory at `ahead` moves into the cache, `step` / 256 numbers for each of k.
template <int R>
static void block(const float* x, const float* tile, float* y, int64_t k, int64_t n, int columns,
                  const float* ahead, int64_t step) {
  Vector sum[R][VECTORS] = {};
  for (int64_t i = 0; i < k; ++i, tile += W) {
    Vector w[VECTORS];
    for (int v = 0; v < VECTORS; ++v) w[v] = *(const Vector*)(tile + v * LANES);
    __builtin_prefetch(ahead + (i * step >> 8), 0, 2);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) sum[r][v] += x[r * k + i] * w[v];
  }
  for (int r = 0; r < R; ++r) std::memcpy(y + r * n, sum[r], columns * sizeof(float));
}

// `block` for a count of rows that is known only now.
template <int R, typename... Arguments>
static void rows(int64_t count, Arguments... arguments) {
  if (count == R) return block<R>(arguments...);
  if constexpr (R > 1) rows<R - 1>(count, arguments...);
}

// All b rows of x times tile t. While one tile is in use, the next comes from memory.
static void tile_of(int64_t t, const float* x, const float* packed, float* y, int64_t b, int64_t k,
                    int64_t n) {
  const float* tile = packed + t * k * W;
  int columns = std::min<int64_t>(W, n - t * W);
  int64_t parts = (b + ROWS - 1) / ROWS;
  for (int64_t p = 0; p < parts; ++p) {
    int64_t first = b * p / parts;
    rows<ROWS>(b * (p + 1) / parts - first, x + first * k, tile, y + first * n + t * W, k, n,
               columns, tile + k * W + p * k * W / parts, 256 * W / parts);
  }
}

// work(t) for every t below count: by this thread, and by XLA's where it is enough work.
template <typename Work>
static void share(ffi::ThreadPool& pool, int64_t count, bool enough, Work work) {
  constexpr int64_t CHUNK = 4;
  struct State {
    std::atomic<int64_t> next{0}, done{0};
  };
  auto state = std::make_shared<State>();  // outlives a thread that comes when all is done
  auto run = [=] {
    for (int64_t first; (first = state->next.fetch_add(CHUNK)) < count;) {
      int64_t last = std::min(first + CHUNK, count);
      for (int64_t t = first; t < last; ++t) work(t);
      state->done.fetch_add(last - first, std::memory_order_release);
    }
  };
  int64_t helpers = enough ? std::min(pool.num_threads(), (count + CHUNK - 1) / CHUNK) - 1 : 0;
  for (int64_t i = 0; i < helpers; ++i) pool.Schedule(std::decay_t<decltype(run)>(run));
  run();
  while (state->done.load(std::memory_order_acquire) < count) {
  }
}

static ffi::Error multiply(ffi::ThreadPool pool, F32 x, F32 packed, ffi::Result<F32> y) {
  int64_t b = x.dimensions()[0], k = x.dimensions()[1], n = y->dimensions()[1];
  const float *from = x.typed_data(), *matrix = packed.typed_data();
  float* to = y->typed_data();
  share(pool, packed.dimensions()[0], b * k * n > 1 << 20,
        [=](int64_t t) { tile_of(t, from, matrix, to, b, k, n); });
  return ffi::Error::Success();
}

static ffi::Error pack(ffi::ThreadPool pool, F32 matrix, bool transposed, ffi::Result<F32> packed) {
  int64_t width = matrix.dimensions()[1], k = packed->dimensions()[1];
  int64_t n = transposed ? matrix.dimensions()[0] : width;
  const float* from = matrix.typed_data();
  float* to = packed->typed_data();
  constexpr int64_t DEPTH = 64;  // rows of a tile at once: whole cache lines in and out
  share(pool, (k + DEPTH - 1) / DEPTH, k * n > 1 << 16, [=](int64_t part) {
    int64_t begin = part * DEPTH, end = std::min(begin + DEPTH, k);
    for (int64_t j = 0; j < n; j += W) {
      int64_t columns = std::min<int64_t>(W, n - j);
      float* tile = to + j * k;
      if (transposed)
        for (int64_t c = 0; c < columns; ++c)
          for (int64_t i = begin; i < end; ++i) tile[i * W + c] = from[(j + c) * width + i];
      else
        for (int64_t i = begin; i < end; ++i)
          std::memcpy(tile + i * W, from + i * width + j, columns * sizeof(float));
    }
  });
  return ffi::Error::Success();
}

XLA_FFI_DEFINE_HANDLER_SYMBOL(rnnx_multiply, multiply,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<F32>().Arg<F32>()
                                  .Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(rnnx_pack, pack,
                              ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<F32>()
                                  .Attr<bool>("transposed").Ret<F32>());
extern "C" int rnnx_tile_width() { return W; }
