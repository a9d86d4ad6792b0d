// What the bindings call, and what every instruction set implements: plain pointers, counts and strides.
// Mathematics and names follow core/hookline/kernels/reference.py, which is also what the tests believe.
#pragma once

#include <cstdint>

namespace hookline {

enum class DType : int { f32 = 0, bf16 = 1, f16 = 2 };

// The rows of a tensor [outer, inner, width] whose last dimension is dense. Row i begins at
// data + (i / inner) * outer_stride + (i % inner) * inner_stride, in elements; all in 64 bits.
struct Rows {
  void* data;
  DType dtype;
  int64_t inner, outer_stride, inner_stride;
  int64_t start(int64_t i) const { return (i / inner) * outer_stride + (i % inner) * inner_stride; }
};

constexpr int64_t ignore_id = -100;

// Bits of `want`, and rows of the result of token_stats.
enum Statistic { logprobs, entropy, logsumexp, sum_sq_probs, top_p_mass, rank, peak, log_total, statistics };

// Rows of what is known of a token after some tiles of its logits: exponentials are taken relative to the peak, and the
// token's own is left out of `rest`, `weighted` and `squares`, so that 1 - p keeps its digits when p is nearly 1.
enum State { state_peak, state_rest, state_weighted, state_squares, state_above, state_rank, state_chosen, states };

// Rows of the result of kl_divergence, and of its state between tiles.
enum KL { kl, p_peak, p_log_total, q_peak, q_log_total, kl_rows };
enum KLState { p_top, p_sum, q_top, q_sum, kl_weighted, kl_states };

struct Tokens {
  int64_t count;
  const int64_t* ids;           // [count]
  const int64_t* kept;          // support: ids kept by token i are kept[kept_offsets[i] … kept_offsets[i + 1]); or null
  const int64_t* kept_offsets;  // [count + 1]
  int64_t kept_count;           // length of kept
  float temperature, softcap;   // softcap 0: none
  int want;
};

// What to draw with, and where it goes. `cuts` [rows, 2] (the largest logit, the least exponential kept) and `counts` [rows, 2]
// (ids kept, and how many of them equal the least) are null where nothing is cut.
struct Draws {
  const double* uniform;  // [rows], in [0, 1); below 0: the likeliest token
  float temperature;
  int64_t top_k;  // 0: no cut
  double top_p;   // 1: no cut
  float min_p;    // 0: no cut
  int64_t* ids;
  float* logprobs;
  float* cuts;
  int64_t* counts;
};

// Floats of scratch that each thread of `draw` uses; even, so that each thread's begins at a multiple of 8 bytes.
inline int64_t scratch_of_draw(int64_t vocabulary) {
  int64_t floats = 2 * ((vocabulary + 511) / 512) + vocabulary;
  return floats + (floats & 1);
}

// A matrix with dense rows, `stride` elements apart. Transposed: A given as [k, m], B as [n, k]. A row of bfloat16 along k is
// readable up to an even number of elements, which the other side's zeros then meet.
struct Operand {
  const void* data;
  DType dtype;
  int64_t stride;
  bool transposed;
};

// One per instruction set. A tile is columns first … first + width of the logits; the whole row is a tile, too.
struct Kernels {
  const char* name;
  int lanes;

  void (*token_stats)(const Tokens&, const Rows& logits, int64_t vocabulary, float* stats, int threads);
  void (*update)(const Tokens&, const Rows& tile, int64_t first, int64_t width, float* state, int threads);
  void (*finish)(const Tokens&, const float* state, float* stats);
  // `grad` may be `tile` itself.
  void (*token_stats_backward)(const Tokens&, const float* upstream, const float* stats, const Rows& tile, int64_t first,
                               int64_t width, const Rows& grad, int threads);

  void (*gae)(const Rows& rewards, const Rows& values, const Rows* mask, const float* bootstrap, const int64_t* offsets,
              int64_t rows, int64_t steps, float gamma, float lam, float* advantages, float* returns, int threads);

  void (*kl_estimate)(const Rows& logprobs, const Rows& ref, int64_t count, int which, float* out, int threads);
  void (*kl_estimate_backward)(const float* upstream, const Rows& logprobs, const Rows& ref, int64_t count, int which,
                               float* grad, int threads);

  void (*kl_divergence)(const Rows& logits, const Rows& ref, int64_t rows, int64_t vocabulary, float temperature,
                        float* stats, int threads);
  void (*kl_update)(const Rows& tile, const Rows& ref_tile, int64_t rows, int64_t width, float temperature, float* state,
                    int threads);
  void (*kl_finish)(const float* state, int64_t rows, float* stats);
  // Each grad may be absent (null), or be its own tile.
  void (*kl_backward)(const float* upstream, const float* stats, const Rows& tile, const Rows& ref_tile, int64_t rows,
                      int64_t width, float temperature, const Rows* grad, const Rows* ref_grad, int threads);

  void (*draw)(const Draws&, const Rows& logits, int64_t rows, int64_t vocabulary, float* scratch, int threads);
  void (*kept_by_draw)(const Draws&, const Rows& logits, int64_t rows, int64_t vocabulary, const int64_t* offsets,
                       int64_t* out, int threads);

  // C[m, n] = A[m, k] B[k, n], of two float32 or two bfloat16, summed in float32; C is float32 (then `add` adds to it) or
  // bfloat16. A transposed A is packed into `scratch`, of (m rounded up to 6) x (k rounded up to 2) words. k is not 0. A null
  // pointer where torch's product does as well.
  void (*product)(const Operand& a, const Operand& b, const Operand& c, int64_t m, int64_t n, int64_t k, bool add,
                  uint32_t* scratch, int threads);
  bool product_of_bf16;
};

extern const Kernels kernels_baseline;
#ifdef HOOKLINE_X86
extern const Kernels kernels_avx2;
extern const Kernels kernels_avx512;
extern const Kernels kernels_avx512_bf16;
#endif

}  // namespace hookline
