// draw: one token per row from the softmax of its logits, cut to the k likeliest, to the nucleus that has p of their mass, and to
// the tokens that are at least m times as likely as the likeliest. No sort: the cut is found by counting exponentials by their leading
// bits, then, inside the class where the cut falls, by the next ones.
#pragma once

#include <math.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#include "kernels.h"
#include "token_stats.h"
#include "vec.h"

namespace hookline {
namespace HOOKLINE_ISA {

constexpr int weigh_block = 512;  // columns whose exponentials have one sum

inline int64_t blocks_of(int64_t n) { return (n + weigh_block - 1) / weigh_block; }

// e = 2^((x - top) * slope) for n <= weigh_block columns; returns their sum.
template <class T>
inline double exponentials(const T* x, int64_t n, float top, float slope, float* e) {
  F total = {};
  int64_t i = 0;
  for (; i + W <= n; i += W) {
    F y = exp2_below((load(x + i) - top) * slope);
    store(e + i, y);
    total += y;
  }
  if (i < n) {
    F y = exp2_below((load_some(x + i, n - i, -infinity) - top) * slope);
    store_some(e + i, y, n - i);
    total += y;
  }
  return sum(total);
}

template <class T>
inline float top_of(const T* x, int64_t n) {
  F top = all(lowest);
  int64_t i = 0;
  for (; i + W <= n; i += W) top = maximum(load(x + i), top);
  if (i < n) top = maximum(load_some(x + i, n - i, lowest), top);
  return largest(top);
}

// Which exponentials are kept: those above `least`, and the first `ties` of those equal to it.
struct Cut {
  float least;
  int64_t ties;
  inline bool keeps(float e, int64_t& tied) const { return e > least || (e == least && tied++ < ties); }
};

constexpr int levels = 3;
constexpr int level_shift[levels] = {20, 10, 0};
constexpr int level_classes[levels] = {1 << 10, 1 << 10, 1 << 10};  // e <= 1, so bits 30 and 31 are 0

// The k likeliest, and of these the likeliest until their mass reaches p; equal ones in order of their ids.
inline Cut cut_of(const float* e, int64_t n, int64_t k, double mass) {
  int64_t count[1 << 10];
  double sums[1 << 10];
  int64_t kept = 0;
  double kept_mass = 0;
  uint32_t prefix = 0;
  for (int level = 0; level < levels; level++) {
    int shift = level_shift[level], classes = level_classes[level];
    memset(count, 0, sizeof count);
    memset(sums, 0, sizeof sums);
    for (int64_t i = 0; i < n; i++) {
      uint32_t u = bits<uint32_t>(e[i]);
      if (level > 0 && u >> level_shift[level - 1] != prefix) continue;
      uint32_t c = u >> shift & (classes - 1);
      count[c]++;
      sums[c] += e[i];
    }
    int c = classes - 1;
    for (; c > 0; c--) {
      if (!count[c]) continue;
      if (kept + count[c] >= k || kept_mass + sums[c] >= mass) break;
      kept += count[c];
      kept_mass += sums[c];
    }
    prefix = prefix << (level > 0 ? 10 : 0) | (uint32_t)c;
  }
  float least = bits<float>(prefix);
  if (!(least > 0)) return {0, 0};  // what cannot be drawn is not kept
  int64_t ties = 0;
  while (kept + ties < k && kept_mass + ties * (double)least < mass) ties++;
  return {least, ties};
}

struct Kept {
  int64_t count;
  double mass;
};

inline Kept kept_of(const float* e, int64_t n, const Cut& cut) {
  Kept kept{0, 0};
  int64_t tied = 0;
  for (int64_t i = 0; i < n; i++)
    if (cut.keeps(e[i], tied)) kept.mass += e[i], kept.count++;
  return kept;
}

struct Weighed {
  float top;
  double total;
};

template <class T>
inline Weighed weigh(const T* x, int64_t n, float slope, float* e, double* sums) {
  Weighed w{top_of(x, n), 0};
  for (int64_t b = 0; b < blocks_of(n); b++) {
    int64_t from = b * weigh_block, width = n - from < weigh_block ? n - from : weigh_block;
    sums[b] = exponentials(x + from, width, w.top, slope, e + from);
    w.total += sums[b];
  }
  return w;
}

// The first id at which the running sum exceeds `target`; by rounding it may never, then the last that can be drawn.
inline int64_t invert(const float* e, int64_t n, const double* sums, double target) {
  double before = 0;
  int64_t b = 0, blocks = blocks_of(n);
  while (b + 1 < blocks && before + sums[b] <= target) before += sums[b++];
  for (int64_t i = b * weigh_block; i < n; i++) {
    before += e[i];
    if (before > target && e[i] > 0) return i;
  }
  int64_t last = n - 1;
  while (last > 0 && !(e[last] > 0)) last--;
  return last;
}

inline int64_t invert_kept(const float* e, int64_t n, const Cut& cut, double target) {
  double before = 0;
  int64_t tied = 0, last = 0;
  for (int64_t i = 0; i < n; i++) {
    if (!cut.keeps(e[i], tied)) continue;
    last = i;
    before += e[i];
    if (before > target) break;
  }
  return last;
}

template <class T>
inline void draw_row(const Draws& d, int64_t row, const T* x, int64_t n, float* e, double* sums) {
  float slope = log2e / d.temperature;
  Weighed w = weigh(x, n, slope, e, sums);
  if (!(w.total > 0 && w.total < infinity)) {  // no token can be drawn, or a logit is NaN or inf
    d.ids[row] = 0;
    d.logprobs[row] = NAN;
    if (d.cuts) d.cuts[2 * row] = w.top, d.cuts[2 * row + 1] = NAN, d.counts[2 * row] = 1, d.counts[2 * row + 1] = 0;
    return;
  }
  double total = w.total, u = d.uniform[row];
  Cut cut{0, 0};
  if (d.cuts) {
    int64_t k = d.top_k > 0 ? d.top_k : n;
    if (d.top_k > 0) cut = cut_of(e, n, k, infinity);
    if (d.top_p < 1) cut = cut_of(e, n, k, d.top_p * (d.top_k > 0 ? kept_of(e, n, cut).mass : total));
    if (d.min_p > cut.least) cut = {d.min_p, n};
    Kept kept = kept_of(e, n, cut);
    total = kept.mass;
    d.cuts[2 * row] = w.top, d.cuts[2 * row + 1] = cut.least;
    d.counts[2 * row] = kept.count, d.counts[2 * row + 1] = cut.ties;
  }
  int64_t id = 0;
  if (u < 0)
    while (load_one(x + id) != w.top) id++;
  else
    id = d.cuts ? invert_kept(e, n, cut, u * total) : invert(e, n, sums, u * total);
  d.ids[row] = id;
  double own_exponent = ((double)load_one(x + id) - w.top) * slope, own = exp2(own_exponent), rest = total - e[id];
  if (rest < 0) rest = 0;
  d.logprobs[row] = own > rest ? -log1p(rest / own) : own_exponent * ln2 - log(rest + own);
}

inline void draw(const Draws& d, const Rows& logits, int64_t rows, int64_t vocabulary, float* scratch, int threads) {
  int64_t each = scratch_of_draw(vocabulary);
  with_dtype(logits.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
#pragma omp parallel num_threads(threads_for(rows * vocabulary, threads))
    {
#ifdef _OPENMP
      int mine = omp_get_thread_num();
#else
      int mine = 0;
#endif
      double* sums = (double*)(scratch + mine * each);
      float* e = (float*)(sums + blocks_of(vocabulary));
#pragma omp for schedule(static)
      for (int64_t i = 0; i < rows; i++)
        draw_row(d, i, (const T*)logits.data + logits.start(i), vocabulary, e, sums);
    }
  });
}

// Ids that `draw` kept, in ascending order: row i's begin at offsets[i].
inline void kept_by_draw(const Draws& d, const Rows& logits, int64_t rows, int64_t vocabulary, const int64_t* offsets,
                         int64_t* out, int threads) {
  float slope = log2e / d.temperature;
  with_dtype(logits.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * vocabulary, threads))
    for (int64_t row = 0; row < rows; row++) {
      const T* x = (const T*)logits.data + logits.start(row);
      int64_t *to = out + offsets[row], *end = out + offsets[row + 1], tied = 0;
      Cut cut{d.cuts[2 * row + 1], d.counts[2 * row + 1]};
      if (cut.least != cut.least) {
        if (to < end) *to = 0;
        continue;
      }
      float e[weigh_block];
      for (int64_t from = 0; from < vocabulary; from += weigh_block) {
        int64_t width = vocabulary - from < weigh_block ? vocabulary - from : weigh_block;
        exponentials(x + from, width, d.cuts[2 * row], slope, e);
        for (int64_t i = 0; i < width && to < end; i++)
          if (cut.keeps(e[i], tied)) *to++ = from + i;
      }
    }
  });
}

}  // namespace HOOKLINE_ISA
}  // namespace hookline
