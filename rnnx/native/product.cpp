// Products of a few rows with a matrix that many time steps share.
//
// XLA packs a matrix anew for every product; inside a loop over time that takes as long as the
// product. Here `pack` lays a matrix M (K, N) out once and `multiply` reads it as it lies:
//
//   packed   (tiles, K, W): tile t holds columns t W to t W + W - 1, anything after the last
//   y = x M  x (B, K), y (B, N) or its transpose: tile by tile, ROWS rows of x at once in registers
//
// K counts words: float32 numbers, or pairs of bfloat16 numbers (bfloat16.h). Sums are float32.
// For float32 only the compiler's vector types are used, so one source serves AVX-512, AVX2, SSE
// and NEON.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;
using F32 = ffi::Buffer<ffi::F32>;

// ROWS * VECTORS sums fill the vector registers but for the tile's VECTORS and one word of x.
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

// Where a product's numbers go: those of a row and of a column of y = x M lie so far apart.
struct Result {
  float* y;
  int64_t row, column;

  Result at(int64_t r, int64_t c) const { return {y + r * row + c * column, row, column}; }
  void store(const float (*sums)[W], int rows, int columns) const {
    if (column == 1)
      for (int r = 0; r < rows; ++r) std::memcpy(y + r * row, sums[r], columns * sizeof(float));
    else
      for (int c = 0; c < columns; ++c)
        for (int r = 0; r < rows; ++r) y[r * row + c * column] = sums[r][c];
  }
};

// sum += x w for LANES words of a tile.
static inline void add(Vector& sum, float x, const float* w) { sum += x * *(const Vector*)w; }

// Word i of some columns of M, whose rows and columns lie so far apart, and which has k rows.
static void words(const float* from, int64_t row, int64_t column, int64_t i, int64_t k,
                  int64_t columns, float* to) {
  for (int64_t c = 0; c < columns; ++c) to[c] = from[i * row + c * column];
}

#if defined(__AVX512BF16__)
#include "bfloat16.h"
#endif

// R rows of x (stride k) times the first columns of a tile (k, W). Meanwhile the memory at `ahead`
// moves into the cache, `step` / 256 words for each of k.
template <int R, typename Word>
static void block(const Word* x, const Word* tile, Result y, int64_t k, int columns,
                  const Word* ahead, int64_t step) {
  Vector sum[R][VECTORS] = {};
  for (int64_t i = 0; i < k; ++i, tile += W) {
    __builtin_prefetch(ahead + (i * step >> 8), 0, 2);
    for (int r = 0; r < R; ++r)
      for (int v = 0; v < VECTORS; ++v) add(sum[r][v], x[r * k + i], tile + v * LANES);
  }
  y.store((const float(*)[W])sum, R, columns);
}

// `block` for a count of rows that is known only now.
template <int R, typename... Arguments>
static void rows(int64_t count, Arguments... arguments) {
  if (count == R) return block<R>(arguments...);
  if constexpr (R > 1) rows<R - 1>(count, arguments...);
}

// All b rows of x times tile t. While one tile is in use, the next comes from memory.
template <typename Word>
static void tile_of(int64_t t, const Word* x, const Word* packed, Result y, int64_t b, int64_t k,
                    int columns) {
  const Word* tile = packed + t * k * W;
  int64_t parts = (b + ROWS - 1) / ROWS;
  for (int64_t p = 0; p < parts; ++p) {
    int64_t first = b * p / parts;
    rows<ROWS>(b * (p + 1) / parts - first, x + first * k, tile, y.at(first, 0), k, columns,
               tile + k * W + p * k * W / parts, 256 * W / parts);
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

template <typename Word, typename Matrix>
static ffi::Error multiply(ffi::ThreadPool pool, Matrix x, Matrix packed, bool transposed,
                           ffi::Result<F32> y) {
  int64_t b = x.dimensions()[0], k = packed.dimensions()[1], n = y->dimensions()[!transposed];
  auto *from = (const Word*)x.untyped_data(), *matrix = (const Word*)packed.untyped_data();
  Result to{y->typed_data(), transposed ? 1 : n, transposed ? b : 1};
  share(pool, packed.dimensions()[0], b * k * n > 1 << 20, [=](int64_t t) {
    tile_of(t, from, matrix, to.at(0, t * W), b, k, std::min<int64_t>(W, n - t * W));
  });
  return ffi::Error::Success();
}

template <typename Word, typename Number, typename Matrix>
static ffi::Error pack(ffi::ThreadPool pool, Matrix matrix, bool transposed,
                       ffi::Result<Matrix> packed) {
  int64_t height = matrix.dimensions()[0], width = matrix.dimensions()[1];
  int64_t k = transposed ? width : height, n = transposed ? height : width;
  int64_t row = transposed ? 1 : width, column = transposed ? width : 1;
  int64_t count = packed->dimensions()[1];
  auto* from = (const Number*)matrix.untyped_data();
  auto* to = (Word*)packed->untyped_data();
  // A part is a tile whose columns are rows of the matrix, or DEPTH words of all tiles: either way
  // memory is read in order.
  constexpr int64_t DEPTH = 64;
  int64_t tiles = (n + W - 1) / W;
  share(pool, transposed ? tiles : (count + DEPTH - 1) / DEPTH, k * n > 1 << 16, [=](int64_t p) {
    int64_t tile = transposed ? p : 0, last = transposed ? p + 1 : tiles;
    int64_t begin = transposed ? 0 : p * DEPTH;
    int64_t end = transposed ? count : std::min(count, begin + DEPTH);
    for (; tile < last; ++tile)
      for (int64_t i = begin; i < end; ++i)
        words(from + tile * W * column, row, column, i, k, std::min<int64_t>(W, n - tile * W),
              to + (tile * count + i) * W);
  });
  return ffi::Error::Success();
}

#define RNNX_OPERATIONS(suffix, Matrix, Word, Number)                                   \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                        \
      rnnx_multiply##suffix, (multiply<Word, Matrix>),                                  \
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Matrix>().Arg<Matrix>()               \
          .Attr<bool>("transposed").Ret<F32>());                                        \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                        \
      rnnx_pack##suffix, (pack<Word, Number, Matrix>),                                  \
      ffi::Ffi::Bind().Ctx<ffi::ThreadPool>().Arg<Matrix>().Attr<bool>("transposed")    \
          .Ret<Matrix>());

RNNX_OPERATIONS(, F32, float, float)
extern "C" int rnnx_tile_width() { return W; }

// Whether this processor and its system multiply bfloat16. An int, as ctypes expects: of a bool only
// the lowest byte is set.
#if defined(__AVX512BF16__)
RNNX_OPERATIONS(_bfloat16, BF16, Pair, uint16_t)
extern "C" int rnnx_bfloat16() { return permitted(); }
#else
extern "C" int rnnx_bfloat16() { return 0; }
#endif
