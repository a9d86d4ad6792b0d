// KL per token: three estimators from log-probs, and the exact divergence of two rows of logits.
#pragma once

#include "kernels.h"
#include "token_stats.h"
#include "vec.h"

namespace hookline {
namespace HOOKLINE_ISA {

// ---- estimators, in r = ref - logprob

// exp(r) - 1 - r. Near 0 by its series: the subtraction would leave no digits.
inline F exp_minus_1_minus(F r) {
  F series = all(1.0f / 40320);
  series = series * r + 1.0f / 5040;
  series = series * r + 1.0f / 720;
  series = series * r + 1.0f / 120;
  series = series * r + 1.0f / 24;
  series = series * r + 1.0f / 6;
  series = series * r + 0.5f;
  F near = r * r * series, far = (exp_any(r) - 1.0f) - r;
  return maximum(r, -r) < all(0.5f) ? near : far;
}

inline F estimate(F r, int which) {
  return which == 0 ? -r : which == 1 ? r * r * 0.5f : exp_minus_1_minus(r);
}

inline F estimate_slope(F r, int which) {
  if (which == 0) return all(1);
  if (which == 1) return -r;
  F near = -(r + exp_minus_1_minus(r)), far = 1.0f - exp_any(r);
  return maximum(r, -r) < all(0.5f) ? near : far;
}

// body(first, vector or less) over a flat range, in whole vectors but for the last.
template <class Body>
inline void over(int64_t count, int threads, Body body) {
  int64_t vectors = (count + W - 1) / W;
#pragma omp parallel for schedule(static) num_threads(threads_for(count, threads))
  for (int64_t i = 0; i < vectors; i++) body(i * W, count - i * W < W ? count - i * W : W);
}

template <class T>
inline F difference(const T* logprobs, const T* ref, int64_t i, int64_t n) {
  if (n == W) return load(ref + i) - load(logprobs + i);
  return load_some(ref + i, n, 0) - load_some(logprobs + i, n, 0);
}

inline void kl_estimate(const Rows& logprobs, const Rows& ref, int64_t count, int which, float* out, int threads) {
  with_dtype(logprobs.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
    over(count, threads, [&](int64_t i, int64_t n) {
      F r = difference((const T*)logprobs.data, (const T*)ref.data, i, n);
      float* to = out + i;
      for (int k = 0; k < 3; k++)
        if (which & 1 << k) {
          if (n == W)
            store(to, estimate(r, k));
          else
            store_some(to, estimate(r, k), n);
          to += count;
        }
    });
  });
}

inline void kl_estimate_backward(const float* upstream, const Rows& logprobs, const Rows& ref, int64_t count, int which,
                                 float* grad, int threads) {
  with_dtype(logprobs.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
    over(count, threads, [&](int64_t i, int64_t n) {
      F r = difference((const T*)logprobs.data, (const T*)ref.data, i, n), g = {};
      const float* from = upstream + i;
      for (int k = 0; k < 3; k++)
        if (which & 1 << k) {
          F up = n == W ? load(from) : load_some(from, n, 0);
          F term = up * estimate_slope(r, k);
          g += up == F{} ? F{} : term;
          from += count;
        }
      store_some(grad + i, g, n);
    });
  });
}

// ---- the whole vocabulary

// Both softmaxes' running sums, and the sum of e_p * (log2 e_p - log2 e_q), from which KL follows.
struct Divergence {
  float p_top = lowest, q_top = lowest;
  double p_sum = 0, q_sum = 0, weighted = 0;
};

// log2 of what sums relative to `from` are multiplied with when `to` becomes the maximum.
inline double move(float from, float to, float slope) {
  double d = from == to ? 0 : ((double)from - to) * slope;
  return d > -1e30 ? d : -1e30;
}

inline void merge(Divergence& a, const Divergence& b, float slope) {
  Divergence both;
  both.p_top = a.p_top > b.p_top ? a.p_top : b.p_top;
  both.q_top = a.q_top > b.q_top ? a.q_top : b.q_top;
  const Divergence* from[2] = {&a, &b};
  for (const Divergence* d : from) {
    double p = move(d->p_top, both.p_top, slope), q = move(d->q_top, both.q_top, slope), factor = scale_of(p);
    double p_sum = d->p_sum * factor;
    both.p_sum += p_sum;
    both.q_sum += d->q_sum * scale_of(q);
    if (d->p_sum != 0) both.weighted += (factor == 0 ? 0 : d->weighted * factor) + (p_sum == 0 ? 0 : (p - q) * p_sum);
  }
  a = both;
}

struct DivergenceLanes {
  float p_top = lowest, q_top = lowest;
  F p_sum = {}, q_sum = {}, weighted = {};

  inline void raise(F p, F q, float slope) {
    if (__builtin_expect(!any((p > p_top) | (q > q_top)), 1)) return;
    float p_new = largest(p), q_new = largest(q);
    p_new = p_new > p_top ? p_new : p_top;
    q_new = q_new > q_top ? q_new : q_top;
    float dp = move(p_top, p_new, slope), dq = move(q_top, q_new, slope), factor = exp2f(dp);
    p_sum *= factor;
    weighted = factor == 0 ? F{} : weighted * factor;
    weighted += p_sum == F{} ? F{} : (dp - dq) * p_sum;
    q_sum *= exp2f(dq);
    p_top = p_new;
    q_top = q_new;
  }

  inline void add(F p, F q, float slope) {
    F dp = p - p_top, dq = q - q_top;
    F ep = exp2_below(dp * slope), eq = exp2_below(dq * slope);
    p_sum += ep;
    q_sum += eq;
    weighted += ep == F{} ? F{} : ep * ((dp - dq) * slope);  // subtracted first: 0 where p and q are equal
  }

  Divergence result() const {
    Divergence d;
    d.p_top = p_top, d.q_top = q_top;
    d.p_sum = sum(p_sum), d.q_sum = sum(q_sum), d.weighted = sum(weighted);
    return d;
  }
};

template <class T>
Divergence divergence_of(const T* p, const T* q, int64_t n, float slope) {
  constexpr int unroll = 4;
  DivergenceLanes lanes;
  int64_t i = 0;
  for (; i + unroll * W <= n; i += unroll * W) {
    F a[unroll], b[unroll];
#pragma GCC unroll 4
    for (int j = 0; j < unroll; j++) a[j] = load(p + i + j * W), b[j] = load(q + i + j * W);
    lanes.raise(maximum(maximum(a[0], a[1]), maximum(a[2], a[3])), maximum(maximum(b[0], b[1]), maximum(b[2], b[3])), slope);
#pragma GCC unroll 4
    for (int j = 0; j < unroll; j++) lanes.add(a[j], b[j], slope);
  }
  for (; i < n; i += W) {
    int64_t left = n - i < W ? n - i : W;
    F a = load_some(p + i, left, -infinity), b = load_some(q + i, left, -infinity);
    lanes.raise(a, b, slope);
    lanes.add(a, b, slope);
  }
  return lanes.result();
}

inline void finish_row(const Divergence& d, int64_t i, int64_t n, float* stats) {
  bool infinite = d.p_top == infinity || d.q_top == infinity;
  double p_log = infinite ? NAN : log(d.p_sum), q_log = infinite ? NAN : log(d.q_sum);
  double value = ln2 * d.weighted / d.p_sum - p_log + q_log;
  stats[kl * n + i] = value < 0 ? 0 : value;
  stats[p_peak * n + i] = d.p_top;
  stats[q_peak * n + i] = d.q_top;
  stats[p_log_total * n + i] = p_log;
  stats[q_log_total * n + i] = q_log;
}

inline void kl_divergence(const Rows& logits, const Rows& ref, int64_t rows, int64_t vocabulary, float temperature,
                          float* stats, int threads) {
  float slope = log2e / temperature;
  with_dtype(logits.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * vocabulary, threads))
    for (int64_t i = 0; i < rows; i++) {
      const T *p = (const T*)logits.data + logits.start(i), *q = (const T*)ref.data + ref.start(i);
      finish_row(divergence_of(p, q, vocabulary, slope), i, rows, stats);
    }
  });
}

inline Divergence known(const float* state, int64_t i, int64_t n) {
  Divergence d;
  d.p_top = state[p_top * n + i], d.q_top = state[q_top * n + i];
  d.p_sum = state[p_sum * n + i], d.q_sum = state[q_sum * n + i], d.weighted = state[kl_weighted * n + i];
  return d;
}

inline void kl_update(const Rows& tile, const Rows& ref_tile, int64_t rows, int64_t width, float temperature, float* state,
                      int threads) {
  float slope = log2e / temperature;
  int64_t n = rows;
  with_dtype(tile.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * width, threads))
    for (int64_t i = 0; i < n; i++) {
      const T *p = (const T*)tile.data + tile.start(i), *q = (const T*)ref_tile.data + ref_tile.start(i);
      Divergence d = known(state, i, n);
      merge(d, divergence_of(p, q, width, slope), slope);
      state[p_top * n + i] = d.p_top, state[q_top * n + i] = d.q_top;
      state[p_sum * n + i] = d.p_sum, state[q_sum * n + i] = d.q_sum, state[kl_weighted * n + i] = d.weighted;
    }
  });
}

inline void kl_finish(const float* state, int64_t rows, float* stats) {
  for (int64_t i = 0; i < rows; i++) finish_row(known(state, i, rows), i, rows, stats);
}

// dKL/dp-logits = p (log p - log q - KL) / temperature, dKL/dq-logits = (q - p) / temperature.
template <class T>
void kl_backward_row(const T* p, const T* q, int64_t width, float up, const float* stats, int64_t i, int64_t n, float slope,
                     T* grad, T* ref_grad) {
  float p_most = stats[p_peak * n + i], q_most = stats[q_peak * n + i], value = stats[kl * n + i];
  float p_log2 = stats[p_log_total * n + i] / ln2, q_log2 = stats[q_log_total * n + i] / ln2;
  float factor = up * slope / log2e;
  for (int64_t j = 0; j < width; j += W) {
    int64_t left = width - j;
    bool whole = left >= W;
    F x = whole ? load(p + j) : load_some(p + j, left, -infinity);
    F y = whole ? load(q + j) : load_some(q + j, left, -infinity);
    F log_p = (x - p_most) * slope - p_log2, log_q = (y - q_most) * slope - q_log2;
    F ep = exp2_below(log_p), eq = exp2_below(log_q);
    if (grad) {
      F g = factor * ep * ((float)ln2 * (log_p - log_q) - value);
      g = ep == F{} ? F{} : g;
      whole ? store(grad + j, g) : store_some(grad + j, g, left);
    }
    if (ref_grad) {
      F g = factor * (eq - ep);
      whole ? store(ref_grad + j, g) : store_some(ref_grad + j, g, left);
    }
  }
}

inline void kl_backward(const float* upstream, const float* stats, const Rows& tile, const Rows& ref_tile, int64_t rows,
                        int64_t width, float temperature, const Rows* grad, const Rows* ref_grad, int threads) {
  float slope = log2e / temperature;
  with_dtype(tile.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * width, threads))
    for (int64_t i = 0; i < rows; i++) {
      const T *p = (const T*)tile.data + tile.start(i), *q = (const T*)ref_tile.data + ref_tile.start(i);
      T* g = grad ? (T*)grad->data + grad->start(i) : nullptr;
      T* ref_g = ref_grad ? (T*)ref_grad->data + ref_grad->start(i) : nullptr;
      if (upstream[i] == 0) {
        if (g) memset(g, 0, width * sizeof(T));
        if (ref_g) memset(ref_g, 0, width * sizeof(T));
      } else {
        kl_backward_row(p, q, width, upstream[i], stats, i, rows, slope, g, ref_g);
      }
    }
  });
}

}  // namespace HOOKLINE_ISA
}  // namespace hookline
