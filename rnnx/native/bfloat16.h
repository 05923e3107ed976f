// Products of bfloat16 numbers, for processors that multiply them; part of product.cpp.
//
// Two numbers are a word: word p of a column holds rows 2p and 2p + 1, zeros after the last.
#include <immintrin.h>

using Pair = uint32_t;
using BF16 = ffi::Buffer<ffi::BF16>;

static inline void add(Vector& sum, Pair x, const Pair* w) {
  __m512i everywhere = _mm512_set1_epi32(x), pairs = _mm512_loadu_si512(w);
  sum = (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)everywhere, (__m512bh)pairs);
}

static void words(const uint16_t* from, int64_t row, int64_t column, int64_t i, int64_t k,
                  int64_t columns, Pair* to) {
  const uint16_t *low = from + 2 * i * row, *high = low + row;
  if (2 * i + 1 < k)
    for (int64_t c = 0; c < columns; ++c) to[c] = low[c * column] | (Pair)high[c * column] << 16;
  else
    for (int64_t c = 0; c < columns; ++c) to[c] = 2 * i < k ? low[c * column] : 0;
}

#if !defined(__AMX_BF16__) || !defined(__linux__)
static bool permitted() { return true; }
#else
// Intel's AMX has eight registers of 16 rows of 64 bytes. Of up to 32 rows of x and the 32 columns
// of a tile, 16 words of each at a time:
//
//   4, 5    x: 16 rows, 16 words      6, 7  the tile: 16 words, 16 columns
//   0 to 3  sums of both rows by both columns
#include <sys/syscall.h>
#include <unistd.h>

constexpr int SIDE = 16, AT_ONCE = 2 * SIDE;
static_assert(W == AT_ONCE, "a tile has the columns of two registers");

// Linux lets a process that asks use these registers.
static bool permitted() {
  constexpr long REQUEST = 0x1023, REGISTERS = 18;
  return syscall(SYS_arch_prctl, REQUEST, REGISTERS) == 0;
}

struct Shapes {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes_of_row[16] = {};
  uint8_t rows[16] = {};
};

static void amx_block(const Pair* x, const Pair* tile, Result y, int64_t k, int count,
                      int columns) {
  int first = std::min(count, SIDE), second = count - first;
  Shapes shapes;
  for (int i = 0; i < 8; ++i) shapes.bytes_of_row[i] = 4 * SIDE, shapes.rows[i] = SIDE;
  shapes.rows[0] = shapes.rows[1] = shapes.rows[4] = first;
  if (second) shapes.rows[2] = shapes.rows[3] = shapes.rows[5] = second;
  _tile_loadconfig(&shapes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t i = 0; i < k; i += SIDE, tile += SIDE * W) {
    _tile_loadd(6, tile, 4 * W);
    _tile_loadd(7, tile + SIDE, 4 * W);
    _tile_loadd(4, x + i, 4 * k);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (second) {
      _tile_loadd(5, x + SIDE * k + i, 4 * k);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  float sums[AT_ONCE][W];
  _tile_stored(0, sums[0], 4 * W);
  _tile_stored(1, sums[0] + SIDE, 4 * W);
  if (second) {
    _tile_stored(2, sums[SIDE], 4 * W);
    _tile_stored(3, sums[SIDE] + SIDE, 4 * W);
  }
  y.store(sums, count, columns);
}

// All b rows of x times tile t; k is a multiple of 16.
static void tile_of(int64_t t, const Pair* x, const Pair* packed, Result y, int64_t b, int64_t k,
                    int columns) {
  for (int64_t first = 0; first < b; first += AT_ONCE)
    amx_block(x + first * k, packed + t * k * W, y.at(first, 0), k,
              std::min<int64_t>(AT_ONCE, b - first), columns);
  _tile_release();  // or the system would save the registers with every change of thread
}
#endif
