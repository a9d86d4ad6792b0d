// Matrix product of bfloat16 with a float32 result, for CPUs that multiply bfloat16 pairs (AVX-512 BF16).
//
// Why here at all: a library product of bfloat16 rounds its result to bfloat16, which costs 1e-2 in every log-prob.
//
// 64 columns of B, `depth` deep, are packed so that a lane holds a column and a 32-bit element holds two consecutive k; they
// stay in the first cache while 6 rows of A at a time pass by, whose 6 x 64 sums stay in 24 registers.
#pragma once

#include "kernels.h"
#include "vec.h"

#ifdef __AVX512BF16__

namespace hookline {
namespace HOOKLINE_ISA {

constexpr int panel = 64, depth = 256, rows_at_once = 6;

typedef uint32_t Packed[depth / 2][panel];

// B given as [n, k], k dense: lane j holds column j, two k in one 32-bit load.
inline void pack_transposed(const uint16_t* b, int64_t stride, int64_t pairs, int64_t columns, Packed& packed) {
  const __m512i lanes = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                           _mm512_set1_epi32((int)(stride / 2)));
  for (int64_t j = 0; j < panel; j += 16) {
    int64_t left = columns - j;
    __mmask16 there = left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1;
    for (int64_t p = 0; p < pairs; p++) {
      const uint16_t* from = b + j * stride + 2 * p;
      __m512i pair = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, lanes, (const int*)from, 4);
      _mm512_storeu_si512(&packed[p][j], pair);
    }
  }
}

// B given as [k, n], n dense: interleave two rows. A last row without partner meets zeros.
inline void pack_plain(const uint16_t* b, int64_t stride, int64_t k, int64_t columns, Packed& packed) {
  for (int64_t p = 0; 2 * p < k; p++) {
    const uint16_t *low = b + 2 * p * stride, *high = low + stride;
    bool partner = 2 * p + 1 < k;
    for (int64_t j = 0; j < panel; j++)
      packed[p][j] = j < columns ? (low[j] | (partner ? (uint32_t)high[j] << 16 : 0)) : 0;
  }
}

template <int rows>
inline void multiply(const uint16_t* a, int64_t a_stride, const Packed& b, int64_t pairs, float* c, int64_t c_stride,
                     int64_t columns, bool add) {
  __m512 sums[rows][4];
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) sums[r][j] = _mm512_setzero_ps();
  for (int64_t p = 0; p < pairs; p++) {
    __m512i column[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) column[j] = _mm512_loadu_si512(&b[p][16 * j]);
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      int32_t pair;
      memcpy(&pair, a + r * a_stride + 2 * p, sizeof pair);
      __m512i row = _mm512_set1_epi32(pair);
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++) sums[r][j] = _mm512_dpbf16_ps(sums[r][j], (__m512bh)row, (__m512bh)column[j]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      int64_t left = columns - 16 * j;
      __mmask16 there = left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1;
      float* to = c + r * c_stride + 16 * j;
      __m512 sum = sums[r][j];
      if (add) sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(there, to));
      _mm512_mask_storeu_ps(to, there, sum);
    }
}

// C[m, n] (+)= A[m, k] B. A's rows are readable up to an even number of elements, which B's zeros then meet.
inline void product(const uint16_t* a, int64_t a_stride, const uint16_t* b, int64_t b_stride, bool b_transposed, float* c,
                    int64_t c_stride, int64_t m, int64_t n, int64_t k, bool add, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t j = 0; j < n; j += panel) {
    alignas(64) Packed packed;
    int64_t columns = n - j < panel ? n - j : panel;
    for (int64_t k0 = 0; k0 < k; k0 += depth) {
      int64_t deep = k - k0 < depth ? k - k0 : depth, pairs = (deep + 1) / 2;
      if (b_transposed)
        pack_transposed(b + j * b_stride + k0, b_stride, pairs, columns, packed);
      else
        pack_plain(b + k0 * b_stride + j, b_stride, deep, columns, packed);
      bool on_top = add || k0 > 0;
      int64_t i = 0;
      for (; i + rows_at_once <= m; i += rows_at_once)
        multiply<rows_at_once>(a + i * a_stride + k0, a_stride, packed, pairs, c + i * c_stride + j, c_stride, columns, on_top);
      for (; i < m; i++)
        multiply<1>(a + i * a_stride + k0, a_stride, packed, pairs, c + i * c_stride + j, c_stride, columns, on_top);
    }
  }
}

}  // namespace HOOKLINE_ISA
}  // namespace hookline

#endif
