// token_stats, forward and backward, on a row or on a tile of columns of it.
//
// One read of the logits (Milakov & Gimelshein 2018). A group of vectors is in registers while its maximum is taken and its
// exponentials are summed; the sums are rescaled only when a group exceeds the maximum, which happens log(groups) times in a
// row of random logits. One maximum for all lanes, therefore: with one per lane, some lane would exceed its own all the time.
#pragma once

#include <math.h>

#include "kernels.h"
#include "vec.h"

namespace hookline {
namespace HOOKLINE_ISA {

constexpr int group = W == 16 ? 8 : 4;  // vectors in registers at once
constexpr float least_exponent = -126.0f;

// What is known of some logits x, relative to their largest. e = exp(z - z(top)); base 2 for `weighted`.
struct Part {
  float top = lowest;
  double rest = 0;      // sum of e
  double weighted = 0;  // sum of e * log2(e)
  double squares = 0;   // sum of e²
  double above = 0;     // sum of e where x > the chosen logit
  double rank = 0;      // how many those are
};

// How logits become exponents: z = bend(x) / temperature, and log2e / temperature is `slope`.
struct Scale {
  float slope, softcap;
  explicit Scale(const Tokens& t) : slope(log2e / t.temperature), softcap(t.softcap) {}
};

// -inf stays -inf under a cap: a token that cannot be drawn.
template <bool capped>
inline F bend(F x, const Scale& s) {
  if (!capped) return x;
  return x == all(-infinity) ? x : s.softcap * tanh(x / s.softcap);
}

inline double bend_one(double x, const Scale& s) {
  return s.softcap > 0 && x != -infinity ? s.softcap * ::tanh(x / s.softcap) : x;
}

// (z(a) - z(b)) in base 2, for scalars; 0 for equal ones, whatever they are.
inline double exponent(float a, float b, const Scale& s) {
  return a == b ? 0 : (bend_one(a, s) - bend_one(b, s)) * s.slope;
}

// 2^d, for scaling a sum that may be nothing at all.
inline double scale_of(double d) { return d < -1000 ? 0 : exp2(d); }

inline void merge(Part& a, const Part& b, const Scale& s) {
  float top = a.top > b.top ? a.top : b.top;
  const Part* from[2] = {&a, &b};
  Part both;
  both.top = top;
  for (const Part* p : from) {
    double d = p->rest == 0 ? 0 : exponent(p->top, top, s), factor = scale_of(d);
    both.rest += p->rest * factor;
    both.weighted += (p->weighted + (p->rest == 0 ? 0 : d * p->rest)) * factor;
    both.squares += p->squares * factor * factor;
    both.above += p->above * factor;
    both.rank += p->rank;
  }
  a = both;
}

// How much is asked for: log-probs alone; the entropy, too; everything.
enum Level { plain, with_entropy, everything };

inline Level level(int want) {
  if (want & (1 << sum_sq_probs | 1 << top_p_mass | 1 << rank)) return everything;
  return want & 1 << entropy ? with_entropy : plain;
}

// log2 of what sums relative to `from` are multiplied with when `to` becomes the maximum. Rare, so kept out of the loop.
__attribute__((noinline)) inline float move_down(float from, float to, const Scale& s) {
  double d = exponent(from, to, s);
  return d > -200 ? d : -200;  // also where both are inf: the sums are NaN by then
}

template <Level L, bool capped>
struct Lanes {
  float top = lowest;
  F bent = all(0), rest = {}, weighted = {}, squares = {}, above = {};
  I rank = {};

  // Raise the maximum to the largest of `candidates` where that is larger.
  inline void raise(F candidates, const Scale& s) {
    if (__builtin_expect(!any(candidates > top), 1)) return;
    float higher = largest(candidates), d = move_down(top, higher, s), factor = exp2f(d);
    if (L >= with_entropy) weighted = (weighted + d * rest) * factor;
    if (L == everything) squares *= factor * factor, above *= factor;
    rest *= factor;
    top = higher;
    bent = bend<capped>(all(higher), s);
  }

  template <int n>
  inline void add(const F (&x)[n], F chosen, const Scale& s) {
    F e_sum = {}, w_sum = {};
#pragma GCC unroll 8
    for (int i = 0; i < n; i++) {
      F clamped, e = exp2_below((bend<capped>(x[i], s) - bent) * s.slope, clamped);
      e_sum += e;
      if (L >= with_entropy) w_sum += e * clamped;
      if (L == everything) {
        I larger = x[i] > chosen;
        squares += e * e;
        above += larger ? e : F{};
        rank -= larger;
      }
    }
    rest += e_sum;
    weighted += w_sum;
  }

  inline Part part() const {
    Part p;
    p.top = top;
    p.rest = sum(rest);
    if (L >= with_entropy) p.weighted = sum(weighted);
    if (L == everything)
      for (int i = 0; i < W; i++) p.squares += squares[i], p.above += above[i], p.rank += rank[i];
    return p;
  }
};

template <class T, Level L, bool capped>
Part part_of(const T* x, int64_t n, float chosen_logit, const Scale& s) {
  Lanes<L, capped> lanes;
  F chosen = all(chosen_logit);
  int64_t i = 0;
  for (; i + group * W <= n; i += group * W) {
    F v[group], top;
#pragma GCC unroll 8
    for (int j = 0; j < group; j++) v[j] = load(x + i + j * W);
    top = maximum(v[1], v[0]);
#pragma GCC unroll 8
    for (int j = 2; j < group; j++) top = maximum(v[j], top);
    lanes.raise(top, s);
    lanes.add(v, chosen, s);
  }
  for (; i < n; i += W) {
    F v[1] = {n - i < W ? load_some(x + i, n - i, -infinity) : load(x + i)};
    lanes.raise(v[0], s);
    lanes.add(v, chosen, s);
  }
  return lanes.part();
}


template <class P>
struct PointedTo;
template <class T>
struct PointedTo<T*> {
  using type = T;
};
template <class P>
using pointed_to = typename PointedTo<P>::type;

// Calls body with a null pointer of the right type: `float*`, `bf16*` or `f16*`.
template <class Body>
inline void with_dtype(DType dtype, Body body) {
  switch (dtype) {
    case DType::f32: return body((float*)nullptr);
    case DType::bf16: return body((bf16*)nullptr);
    case DType::f16: return body((f16*)nullptr);
  }
}

// Waking threads takes longer than a little work.
inline int threads_for(int64_t work, int threads) { return work < 32768 ? 1 : threads; }

constexpr int block = 512;  // kept logits gathered at a time

// Adds columns first … first + width of token i's logits to what is known of it. `chosen` becomes its own logit, if inside.
template <class T, Level L, bool capped>
void add_tile(const Tokens& t, int64_t i, const T* x, int64_t first, int64_t width, const Scale& s, Part& known,
              float& chosen) {
  int64_t y = t.ids[i] - first;
  if (!t.kept) {
    bool here = y >= 0 && y < width;
    if (here) chosen = load_one(x + y);
    merge(known, part_of<T, L, capped>(x, here ? y : width, chosen, s), s);
    if (here) merge(known, part_of<T, L, capped>(x + y + 1, width - y - 1, chosen, s), s);
    return;
  }
  const int64_t *id = t.kept + t.kept_offsets[i], *end = t.kept + t.kept_offsets[i + 1];
  while (id < end && *id < first) id++;
  for (const int64_t* own = id; own < end && *own < first + width; own++)
    if (*own - first == y) chosen = load_one(x + y);
  while (id < end && *id < first + width) {
    float gathered[block];
    int n = 0;
    for (; n < block && id < end && *id < first + width; id++)
      if (*id - first != y) gathered[n++] = load_one(x + *id - first);
    merge(known, part_of<float, L, capped>(gathered, n, chosen, s), s);
  }
}

// Everything that can be said of a token once all its logits are known. `out` has a row per statistic.
inline void finish_token(const Tokens& t, int64_t i, const Scale& s, const Part& known, float chosen, float* out) {
  int64_t n = t.count;
  float top = chosen > known.top ? chosen : known.top;
  double d_rest = known.rest == 0 ? 0 : exponent(known.top, top, s), factor = scale_of(d_rest);
  double d_own = top == infinity ? NAN : exponent(chosen, top, s), own = exp2(d_own);
  double rest = known.rest * factor, total = rest + own;
  double log_of_total = chosen == top ? log1p(rest) : log(total);
  bool likely = own > rest;  // then its log-prob comes from what is left for the others
  out[logprobs * n + i] = likely ? -log1p(rest / own) : d_own * ln2 - log_of_total;
  out[logsumexp * n + i] = bend_one(top, s) / t.temperature + log_of_total;
  out[peak * n + i] = top;
  out[log_total * n + i] = log_of_total;
  if (t.want & 1 << entropy) {
    double weighted = (known.weighted + (known.rest == 0 ? 0 : d_rest * known.rest)) * factor + (own == 0 ? 0 : own * d_own);
    out[entropy * n + i] = log_of_total - ln2 * weighted / total;
  }
  if (t.want & 1 << sum_sq_probs)
    out[sum_sq_probs * n + i] = (known.squares * factor * factor + own * own) / (total * total);
  if (t.want & 1 << top_p_mass) out[top_p_mass * n + i] = known.above * factor / total;
  if (t.want & 1 << rank) out[rank * n + i] = total > 0 ? known.rank : NAN;
}

// A value handed to a generic lambda as a type, to be a template argument there.
template <auto v>
struct Constant {
  static constexpr auto value = v;
};

template <class Body>
inline void with_level(const Tokens& t, Body body) {
  switch (level(t.want)) {
    case plain: return body(Constant<plain>{});
    case with_entropy: return body(Constant<with_entropy>{});
    case everything: return body(Constant<everything>{});
  }
}

template <class Body>
inline void with_cap(const Tokens& t, Body body) {
  t.softcap > 0 ? body(Constant<true>{}) : body(Constant<false>{});
}

inline void token_stats(const Tokens& t, const Rows& logits, int64_t vocabulary, float* stats, int threads) {
  Scale s(t);
  with_dtype(logits.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
    with_level(t, [&](auto l) {
      with_cap(t, [&](auto c) {
#pragma omp parallel for schedule(static) num_threads(threads_for(t.count * vocabulary, threads))
        for (int64_t i = 0; i < t.count; i++) {
          if (t.ids[i] == ignore_id) continue;
          Part known;
          float chosen = -infinity;
          const T* x = (const T*)logits.data + logits.start(i);
          add_tile<T, decltype(l)::value, decltype(c)::value>(t, i, x, 0, vocabulary, s, known, chosen);
          finish_token(t, i, s, known, chosen, stats);
        }
      });
    });
  });
}

inline void update(const Tokens& t, const Rows& tile, int64_t first, int64_t width, float* state, int threads) {
  Scale s(t);
  int64_t n = t.count;
  with_dtype(tile.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
    with_level(t, [&](auto l) {
      with_cap(t, [&](auto c) {
#pragma omp parallel for schedule(static) num_threads(threads_for(n * width, threads))
        for (int64_t i = 0; i < n; i++) {
          if (t.ids[i] == ignore_id) continue;
          float* own = state + i;
          Part known;
          known.top = own[state_peak * n], known.rest = own[state_rest * n], known.weighted = own[state_weighted * n];
          known.squares = own[state_squares * n], known.above = own[state_above * n], known.rank = own[state_rank * n];
          const T* x = (const T*)tile.data + tile.start(i);
          add_tile<T, decltype(l)::value, decltype(c)::value>(t, i, x, first, width, s, known, own[state_chosen * n]);
          own[state_peak * n] = known.top, own[state_rest * n] = known.rest, own[state_weighted * n] = known.weighted;
          own[state_squares * n] = known.squares, own[state_above * n] = known.above, own[state_rank * n] = known.rank;
        }
      });
    });
  });
}

inline void finish(const Tokens& t, const float* state, float* stats) {
  Scale s(t);
  int64_t n = t.count;
  for (int64_t i = 0; i < n; i++) {
    if (t.ids[i] == ignore_id) continue;
    const float* own = state + i;
    Part known;
    known.top = own[state_peak * n], known.rest = own[state_rest * n], known.weighted = own[state_weighted * n];
    known.squares = own[state_squares * n], known.above = own[state_above * n], known.rank = own[state_rank * n];
    finish_token(t, i, s, known, own[state_chosen * n], stats);
  }
}

// ---- backward

// Upstream gradients of one token and the statistics they belong to; those not asked for are 0.
struct Upstream {
  float of_logprobs = 0, of_entropy = 0, of_logsumexp = 0, of_squares = 0;
  float logprob = 0, entropy_value = 0, squares_value = 0, bent_peak = 0, log2_total = 0;

  Upstream(const Tokens& t, int64_t i, const float* upstream, const float* stats, const Scale& s) {
    int64_t n = t.count;
    if (t.want & 1 << logprobs) of_logprobs = upstream[logprobs * n + i];
    if (t.want & 1 << logsumexp) of_logsumexp = upstream[logsumexp * n + i];
    if (t.want & 1 << entropy) of_entropy = upstream[entropy * n + i], entropy_value = stats[entropy * n + i];
    if (t.want & 1 << sum_sq_probs) of_squares = upstream[sum_sq_probs * n + i], squares_value = stats[sum_sq_probs * n + i];
    logprob = stats[logprobs * n + i];
    bent_peak = s.softcap > 0 ? bend<true>(all(stats[peak * n + i]), s)[0] : stats[peak * n + i];
    log2_total = stats[log_total * n + i] / ln2;
  }

  bool any() const { return of_logprobs != 0 || of_entropy != 0 || of_logsumexp != 0 || of_squares != 0; }
  bool only_probs() const { return of_entropy == 0 && of_squares == 0; }
};

template <bool capped>
inline F slope_of_bend(F x, const Scale& s) {
  if (!capped) return all(1);
  F y = tanh(x / s.softcap);
  return 1.0f - y * y;
}

// The gradient to each logit as if none of them were the token's own.
template <class T, bool only_probs, bool capped>
void backward_row(const T* x, T* grad, int64_t n, const Upstream& up, const Scale& s) {
  float inverse_temperature = s.slope / log2e, constant = (up.of_logsumexp - up.of_logprobs) * inverse_temperature;
  float of_entropy = up.of_entropy * inverse_temperature, of_squares = 2 * up.of_squares * inverse_temperature;
  auto gradient = [&](F v) {
    F clamped, p = exp2_below((bend<capped>(v, s) - up.bent_peak) * s.slope - up.log2_total, clamped);
    F g = all(constant);
    if (!only_probs) g += of_squares * (p - up.squares_value) - of_entropy * ((float)ln2 * clamped + up.entropy_value);
    return p * g * slope_of_bend<capped>(v, s);
  };
  int64_t i = 0;
  for (; i + 4 * W <= n; i += 4 * W) {
    F v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) v[j] = gradient(load(x + i + j * W));
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) store(grad + i + j * W, v[j]);
  }
  for (; i < n; i += W) {
    int64_t left = n - i;
    if (left >= W)
      store(grad + i, gradient(load(x + i)));
    else
      store_some(grad + i, gradient(load_some(x + i, left, -infinity)), left);
  }
}

// The gradient to the token's own logit, whose 1 - p comes from the log-prob and keeps its digits.
inline float backward_own(float x, const Upstream& up, const Scale& s) {
  if (x == -infinity) return 0;
  double logprob = up.logprob, p = exp(logprob);
  double g = up.of_logprobs * -expm1(logprob) + p * up.of_logsumexp;
  if (!up.only_probs())
    g += p * (2 * up.of_squares * (p - up.squares_value) - up.of_entropy * (logprob + up.entropy_value));
  double y = s.softcap > 0 ? ::tanh(x / s.softcap) : 0;
  return g * (1 - y * y) * s.slope / log2e;
}

template <class T, bool capped>
void backward_token(const Tokens& t, int64_t i, const T* x, T* grad, int64_t first, int64_t width, const Upstream& up,
                    const Scale& s) {
  auto backward = up.only_probs() ? backward_row<T, true, capped> : backward_row<T, false, capped>;
  int64_t y = t.ids[i] - first;
  if (!t.kept) {
    bool here = y >= 0 && y < width;
    float own = here ? backward_own(load_one(x + y), up, s) : 0;
    backward(x, grad, width, up, s);
    if (here) store_one(grad + y, own);
    return;
  }
  // Gather a block of kept logits, clear the gradient up to the last of them, scatter. The order allows grad == x.
  auto gathered_backward = up.only_probs() ? backward_row<float, true, capped> : backward_row<float, false, capped>;
  const int64_t *id = t.kept + t.kept_offsets[i], *end = t.kept + t.kept_offsets[i + 1];
  while (id < end && *id < first) id++;
  int64_t cleared = 0;
  while (id < end && *id < first + width) {
    float gathered[block], own[1] = {0};
    int n = 0, place_of_own = -1;
    for (; n < block && id + n < end && id[n] < first + width; n++) {
      gathered[n] = load_one(x + id[n] - first);
      if (id[n] - first == y) place_of_own = n, own[0] = backward_own(gathered[n], up, s);
    }
    gathered_backward(gathered, gathered, n, up, s);
    if (place_of_own >= 0) gathered[place_of_own] = own[0];
    int64_t until = id[n - 1] - first + 1;
    memset(grad + cleared, 0, (until - cleared) * sizeof(T));
    for (int k = 0; k < n; k++) store_one(grad + id[k] - first, gathered[k]);
    cleared = until;
    id += n;
  }
  memset(grad + cleared, 0, (width - cleared) * sizeof(T));
}

inline void token_stats_backward(const Tokens& t, const float* upstream, const float* stats, const Rows& tile,
                                 int64_t first, int64_t width, const Rows& grad, int threads) {
  Scale s(t);
  with_dtype(tile.dtype, [&](auto* null) {
    using T = pointed_to<decltype(null)>;
    with_cap(t, [&](auto c) {
#pragma omp parallel for schedule(static) num_threads(threads_for(t.count * width, threads))
      for (int64_t i = 0; i < t.count; i++) {
        const T* x = (const T*)tile.data + tile.start(i);
        T* g = (T*)grad.data + grad.start(i);
        Upstream up(t, i, upstream, stats, s);
        if (t.ids[i] == ignore_id || !up.any())
          memset(g, 0, width * sizeof(T));  // without reading: these logits may hold anything
        else
          backward_token<T, decltype(c)::value>(t, i, x, g, first, width, up, s);
      }
    });
  });
}

}  // namespace HOOKLINE_ISA
}  // namespace hookline
