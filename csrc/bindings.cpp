// The module hookline._native. Descriptors become typed rows and pointers here, and nowhere below; no torch header is needed.
//
// A tensor crosses as the tuple (address, shape, strides in elements, dtype), or None. Its memory belongs to the caller, who
// keeps it alive for the call. The Python side speaks to the user; the checks here only keep a wrong call from reading or
// writing out of bounds.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/kernels.h"
#include "descriptors.h"

namespace py = pybind11;
using namespace hookline;

namespace {

// Incremented whenever an argument below changes; the Python side refuses a number that differs from its own.
constexpr int interface = 6;

const Kernels* chosen = nullptr;

std::vector<const Kernels*> usable() {
  std::vector<const Kernels*> all = {&kernels_baseline};
#ifdef HOOKLINE_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) all.push_back(&kernels_avx2);
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    all.push_back(&kernels_avx512);
  if (all.back() == &kernels_avx512 && __builtin_cpu_supports("avx512bf16")) all.push_back(&kernels_avx512_bf16);
#endif
  return all;
}

// [outer, inner, width], [inner, width] or [width] with a dense last dimension; `count` is outer * inner.
struct Matrix {
  Rows rows;
  int64_t count, width;
  int dtype;
};

Matrix matrix(py::handle h, const char* what) {
  Descriptor d = read(h);
  check(d.shape.size() >= 1 && d.shape.size() <= 3, what);
  d.shape.insert(d.shape.begin(), 3 - d.shape.size(), 1);
  d.strides.insert(d.strides.begin(), 3 - d.strides.size(), 0);
  check(d.shape[2] <= 1 || d.strides[2] == 1 || d.count() == 0, what);
  Rows rows{d.data, is_float(d.dtype) ? (DType)d.dtype : DType::f32, d.shape[1] > 0 ? d.shape[1] : 1, d.strides[0], d.strides[1]};
  return {rows, d.shape[0] * d.shape[1], d.shape[2], d.dtype};
}

Matrix floats(py::handle h, const char* what) {
  Matrix m = matrix(h, what);
  check(is_float(m.dtype), what);
  return m;
}

Matrix same_as(const Matrix& other, py::handle h, const char* what) {
  Matrix m = floats(h, what);
  check(m.count == other.count && m.width == other.width && m.dtype == other.dtype, what);
  return m;
}

Tokens tokens(int64_t count, py::handle ids, py::handle kept, py::handle offsets, float temperature, float softcap, int want) {
  Tokens t{};
  t.count = count;
  t.ids = dense<const int64_t>(ids, i64, count, "token_ids are dense int64, one per row");
  check(t.ids || count == 0, "token_ids are needed");
  if (!kept.is_none()) {
    Descriptor d = read(kept);
    check(d.dtype == i64 && d.shape.size() == 1 && d.dense(), "kept ids are dense int64");
    static const int64_t no_ids[1] = {0};
    t.kept = d.data ? (const int64_t*)d.data : no_ids;
    t.kept_offsets = dense<const int64_t>(offsets, i64, count + 1, "kept offsets are dense int64, one more than rows");
    check(t.kept_offsets, "kept ids need offsets");
    t.kept_count = d.count();
  }
  check(temperature > 0 && softcap >= 0, "temperature > 0, softcap >= 0");
  t.temperature = temperature;
  t.softcap = softcap;
  t.want = want;
  return t;
}

// Whether all ids are what the kernels rely on: inside the vocabulary, and each support ascending, inside and not empty. The
// reference finds the sentence for those that are not.
bool fine(const Tokens& t, int64_t vocabulary) {
  for (int64_t i = 0; i < t.count; i++)
    if (t.ids[i] != ignore_id && (t.ids[i] < 0 || t.ids[i] >= vocabulary)) return false;
  if (!t.kept) return true;
  if (t.kept_offsets[0] != 0 || t.kept_offsets[t.count] != t.kept_count) return false;
  for (int64_t i = 0; i < t.count; i++) {
    int64_t from = t.kept_offsets[i], to = t.kept_offsets[i + 1];
    if (from < 0 || to < from || to > t.kept_count || (from == to && t.ids[i] != ignore_id)) return false;
    for (int64_t k = from; k < to; k++)
      if (t.kept[k] < 0 || t.kept[k] >= vocabulary || (k > from && t.kept[k] <= t.kept[k - 1])) return false;
  }
  return true;
}

// ---- the functions Python sees. `token_stats` and `update` return whether all ids were fine; where not, nothing is computed.

bool token_stats(py::handle logits, py::handle ids, py::handle kept, py::handle offsets, float temperature, float softcap,
                 int want, py::handle stats, int threads) {
  Matrix x = floats(logits, "logits are [outer, inner, V] floats");
  Tokens t = tokens(x.count, ids, kept, offsets, temperature, softcap, want);
  float* out = dense<float>(stats, f32, statistics * x.count, "stats are dense float32 [8, N]");
  if (!fine(t, x.width)) return false;
  py::gil_scoped_release release;
  chosen->token_stats(t, x.rows, x.width, out, threads);
  return true;
}

bool ids_are_fine(py::handle ids, py::handle kept, py::handle offsets, int64_t count, int64_t vocabulary) {
  return fine(tokens(count, ids, kept, offsets, 1, 0, 0), vocabulary);
}

// Relies on `ids_are_fine`, called once for all tiles.
void update(py::handle tile, py::handle ids, py::handle kept, py::handle offsets, float temperature, float softcap, int want,
            int64_t first, py::handle state, int threads) {
  Matrix x = floats(tile, "a tile is [1, N, width] floats");
  Tokens t = tokens(x.count, ids, kept, offsets, temperature, softcap, want);
  float* known = dense<float>(state, f32, states * x.count, "state is dense float32 [7, N]");
  py::gil_scoped_release release;
  chosen->update(t, x.rows, first, x.width, known, threads);
}

void finish(py::handle state, py::handle ids, float temperature, float softcap, int want, py::handle stats) {
  Descriptor d = read(stats);
  check(d.shape.size() == 2 && d.shape[0] == statistics, "stats are [8, N]");
  Tokens t = tokens(d.shape[1], ids, py::none(), py::none(), temperature, softcap, want);
  float* out = dense<float>(stats, f32, d.count(), "stats are dense float32");
  const float* known = dense<const float>(state, f32, states * d.shape[1], "state is dense float32 [7, N]");
  chosen->finish(t, known, out);
}

void token_stats_backward(py::handle upstream, py::handle stats, py::handle tile, py::handle ids, py::handle kept,
                          py::handle offsets, float temperature, float softcap, int want, int64_t first, py::handle grad,
                          int threads) {
  Matrix x = floats(tile, "logits are [outer, inner, width] floats");
  Matrix g = same_as(x, grad, "the gradient is like the logits");
  Tokens t = tokens(x.count, ids, kept, offsets, temperature, softcap, want);
  auto* up = dense<const float>(upstream, f32, statistics * x.count, "upstream is dense float32 [8, N]");
  auto* known = dense<const float>(stats, f32, statistics * x.count, "stats are dense float32 [8, N]");
  py::gil_scoped_release release;
  chosen->token_stats_backward(t, up, known, x.rows, first, x.width, g.rows, threads);
}

// Returns whether the offsets were fine.
bool gae(py::handle rewards, py::handle values, py::handle mask, py::handle bootstrap, py::handle offsets, float gamma,
         float lam, py::handle results, int threads) {
  Matrix r = floats(rewards, "rewards are [outer, inner, T] floats");
  Matrix v = same_as(r, values, "values are like rewards");
  std::optional<Matrix> m;
  if (!mask.is_none()) {
    m = matrix(mask, "the mask is [outer, inner, T]");
    check(m->dtype == u8 && m->count == r.count && m->width == r.width, "the mask is bytes, like rewards");
  }
  int64_t rows = r.count;
  const int64_t* cuts = nullptr;
  if (!offsets.is_none()) {
    Descriptor d = read(offsets);
    check(r.count == 1 && d.shape.size() == 1 && d.shape[0] > 0 && d.dtype == i64 && d.dense(), "offsets are dense int64 [S + 1]");
    rows = d.shape[0] - 1;
    cuts = (const int64_t*)d.data;
    if (cuts[0] != 0 || cuts[rows] != r.width) return false;
    for (int64_t i = 0; i < rows; i++)
      if (cuts[i + 1] < cuts[i]) return false;
  }
  auto* start = dense<const float>(bootstrap, f32, rows, "bootstrap is dense float32, one per row");
  int64_t count = r.count * r.width;
  float* advantages = dense<float>(results, f32, 2 * count, "advantages and returns are dense float32 [2, ...]");
  py::gil_scoped_release release;
  chosen->gae(r.rows, v.rows, m ? &m->rows : nullptr, start, cuts, rows, r.width, gamma, lam, advantages,
              advantages + count, threads);
  return true;
}

Matrix flat(py::handle h, const char* what) {
  Descriptor d = read(h);
  check(is_float(d.dtype) && d.dense(), what);
  return {Rows{d.data, (DType)d.dtype, 1, 0, 0}, d.count(), 1, d.dtype};
}

int estimators(int which) {
  check(which > 0 && which < 8, "which is a set of three bits");
  return (which & 1) + (which >> 1 & 1) + (which >> 2 & 1);
}

void kl_estimate(py::handle logprobs, py::handle ref, int which, py::handle out, int threads) {
  Matrix p = flat(logprobs, "logprobs are dense floats"), q = flat(ref, "ref_logprobs are dense floats");
  check(p.count == q.count && p.dtype == q.dtype, "logprobs and ref_logprobs are alike");
  float* to = dense<float>(out, f32, estimators(which) * p.count, "the result is dense float32");
  py::gil_scoped_release release;
  chosen->kl_estimate(p.rows, q.rows, p.count, which, to, threads);
}

void kl_estimate_backward(py::handle upstream, py::handle logprobs, py::handle ref, int which, py::handle grad, int threads) {
  Matrix p = flat(logprobs, "logprobs are dense floats"), q = flat(ref, "ref_logprobs are dense floats");
  check(p.count == q.count && p.dtype == q.dtype, "logprobs and ref_logprobs are alike");
  auto* up = dense<const float>(upstream, f32, estimators(which) * p.count, "upstream is dense float32");
  float* to = dense<float>(grad, f32, p.count, "the gradient is dense float32");
  py::gil_scoped_release release;
  chosen->kl_estimate_backward(up, p.rows, q.rows, p.count, which, to, threads);
}

void kl_divergence(py::handle logits, py::handle ref, float temperature, py::handle stats, int threads) {
  Matrix p = floats(logits, "logits are [outer, inner, V] floats"), q = same_as(p, ref, "ref_logits are like logits");
  float* out = dense<float>(stats, f32, kl_rows * p.count, "stats are dense float32 [5, N]");
  py::gil_scoped_release release;
  chosen->kl_divergence(p.rows, q.rows, p.count, p.width, temperature, out, threads);
}

void kl_update(py::handle tile, py::handle ref_tile, float temperature, py::handle state, int threads) {
  Matrix p = floats(tile, "a tile is [1, N, width] floats"), q = same_as(p, ref_tile, "both tiles are alike");
  float* known = dense<float>(state, f32, kl_states * p.count, "state is dense float32 [5, N]");
  py::gil_scoped_release release;
  chosen->kl_update(p.rows, q.rows, p.count, p.width, temperature, known, threads);
}

void kl_finish(py::handle state, py::handle stats) {
  Descriptor d = read(stats);
  check(d.shape.size() == 2 && d.shape[0] == kl_rows, "stats are [5, N]");
  float* out = dense<float>(stats, f32, d.count(), "stats are dense float32");
  chosen->kl_finish(dense<const float>(state, f32, kl_states * d.shape[1], "state is dense float32 [5, N]"), d.shape[1], out);
}

void kl_backward(py::handle upstream, py::handle stats, py::handle tile, py::handle ref_tile, float temperature, py::handle grad,
                 py::handle ref_grad, int threads) {
  Matrix p = floats(tile, "logits are [outer, inner, width] floats"), q = same_as(p, ref_tile, "ref_logits are like logits");
  std::optional<Matrix> to, ref_to;
  if (!grad.is_none()) to = same_as(p, grad, "the gradient is like the logits");
  if (!ref_grad.is_none()) ref_to = same_as(p, ref_grad, "the gradient is like the logits");
  auto* up = dense<const float>(upstream, f32, p.count, "upstream is dense float32 [N]");
  auto* known = dense<const float>(stats, f32, kl_rows * p.count, "stats are dense float32 [5, N]");
  py::gil_scoped_release release;
  chosen->kl_backward(up, known, p.rows, q.rows, p.count, p.width, temperature, to ? &to->rows : nullptr,
                      ref_to ? &ref_to->rows : nullptr, threads);
}

// `cuts` and `counts` are None where nothing is cut. scratch: what `scratch_of_draw` says, per thread.
Draws draws(const Matrix& x, py::handle uniform, float temperature, int64_t top_k, double top_p, float min_p, py::handle ids,
            py::handle logprobs, py::handle cuts, py::handle counts) {
  check(temperature > 0 && top_k >= 0 && top_p > 0 && min_p >= 0 && x.width > 0, "options of draw");
  Draws d{};
  Descriptor u = read(uniform);
  check(u.dtype == f64 && u.count() == x.count && u.dense(), "uniform is dense float64 [N]");
  d.uniform = (const double*)u.data;
  d.temperature = temperature, d.top_k = top_k, d.top_p = top_p, d.min_p = min_p;
  d.ids = dense<int64_t>(ids, i64, x.count, "ids are dense int64 [N]");
  d.logprobs = dense<float>(logprobs, f32, x.count, "logprobs are dense float32 [N]");
  d.cuts = dense<float>(cuts, f32, 2 * x.count, "cuts are dense float32 [N, 2]");
  d.counts = dense<int64_t>(counts, i64, 2 * x.count, "counts are dense int64 [N, 2]");
  check(!d.cuts == !d.counts, "cuts and counts come together");
  return d;
}

int64_t draw_scratch(int64_t vocabulary) { return scratch_of_draw(vocabulary); }

void draw(py::handle logits, py::handle uniform, float temperature, int64_t top_k, double top_p, float min_p, py::handle ids,
          py::handle logprobs, py::handle cuts, py::handle counts, py::handle scratch, int threads) {
  Matrix x = floats(logits, "logits are [outer, inner, V] floats");
  Draws d = draws(x, uniform, temperature, top_k, top_p, min_p, ids, logprobs, cuts, counts);
  check(d.ids && d.logprobs && threads > 0, "ids and logprobs are needed");
  float* space = dense<float>(scratch, f32, threads * scratch_of_draw(x.width), "scratch is dense float32");
  py::gil_scoped_release release;
  chosen->draw(d, x.rows, x.count, x.width, space, threads);
}

void kept_by_draw(py::handle logits, float temperature, py::handle cuts, py::handle counts, py::handle offsets, py::handle out,
                  int threads) {
  Matrix x = floats(logits, "logits are [outer, inner, V] floats");
  Draws d{};
  d.temperature = temperature;
  d.cuts = dense<float>(cuts, f32, 2 * x.count, "cuts are dense float32 [N, 2]");
  d.counts = dense<int64_t>(counts, i64, 2 * x.count, "counts are dense int64 [N, 2]");
  auto* from = dense<const int64_t>(offsets, i64, x.count + 1, "offsets are dense int64 [N + 1]");
  Descriptor ids = read(out);
  check(ids.dtype == i64 && ids.dense() && from && from[0] == 0 && from[x.count] == ids.count(), "the ids are dense int64 [nnz]");
  for (int64_t i = 0; i < x.count; i++) check(from[i + 1] >= from[i], "offsets do not decrease");
  py::gil_scoped_release release;
  chosen->kept_by_draw(d, x.rows, x.count, x.width, from, (int64_t*)ids.data, threads);
}

bool has_product(int dtype) { return chosen->product && (dtype == f32 || (dtype == bf16 && chosen->product_of_bf16)); }

// out [m, n] = a b, both float32 or both bfloat16, with dense rows: a [m, k], or [k, m] if transposed; b [k, n], or [n, k] if
// transposed. Where k is the dense dimension of bfloat16, it is padded with a zero to an even number. `out` is float32, which
// `add` adds to, or bfloat16, rounded once.
void product(py::handle a, bool a_transposed, py::handle b, bool b_transposed, py::handle out, bool add, int threads) {
  Descriptor x = read(a), y = read(b), z = read(out);
  for (const Descriptor* d : {&x, &y, &z})
    check(d->shape.size() == 2 && (d->shape[1] <= 1 || d->strides[1] == 1 || d->count() == 0), "matrices have dense rows");
  check(x.dtype == y.dtype && (z.dtype == f32 || (z.dtype == bf16 && !add)), "a and b have one type, out is float32 or set");
  check(has_product(x.dtype), "this instruction set has no such product");
  int64_t m = x.shape[a_transposed], n = y.shape[!b_transposed], k = y.shape[b_transposed], padded = k + (k & (x.dtype == bf16));
  check(k > 0 && x.shape[!a_transposed] == (a_transposed ? k : padded), "a and b have one depth");
  check(!b_transposed || k == padded, "a transposed b of bfloat16 has an even depth");
  check(z.shape[0] == m && z.shape[1] == n, "out is [m, n]");
  std::unique_ptr<uint32_t[]> scratch(a_transposed ? new uint32_t[(m + 5) * (k + 1)] : nullptr);
  py::gil_scoped_release release;
  chosen->product({x.data, (DType)x.dtype, x.strides[0], a_transposed}, {y.data, (DType)y.dtype, y.strides[0], b_transposed},
                  {z.data, (DType)z.dtype, z.strides[0], false}, m, n, k, add, scratch.get(), threads);
}

// Asks for huge pages under memory that was just mapped: 2 MiB per page fault instead of 4 KiB. Only a hint.
void use_huge_pages(py::handle h) {
  Descriptor d = read(h);
  check(d.dense(), "the tensor is dense");
#ifdef __linux__
  constexpr uintptr_t page = 2 << 20;
  static const int width[] = {4, 2, 2, 8, 1, 8};
  check(d.dtype >= f32 && d.dtype <= f64, "the dtype is known");
  uintptr_t from = (uintptr_t)d.data, to = from + d.count() * width[d.dtype];
  from = (from + page - 1) & ~(page - 1), to &= ~(page - 1);
  if (to > from) madvise((void*)from, to - from, MADV_HUGEPAGE);
#endif
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const Kernels* k : usable()) names.push_back(k->name);
  return names;
}

void use(const std::string& name) {
  for (const Kernels* k : usable())
    if (name == k->name) {
      chosen = k;
      return;
    }
  throw std::invalid_argument("this machine has no instruction set '" + name + "'");
}

py::dict build_info() {
  py::dict info;
  info["instruction_set"] = chosen->name;
  info["instruction_sets"] = instruction_sets();
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
#ifdef __clang__
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  return info;
}

}  // namespace

PYBIND11_MODULE(_native, m) {
  m.doc() = "Compiled kernels; spoken to by hookline.kernels only.";
  m.attr("INTERFACE") = interface;
  chosen = usable().back();
  m.def("build_info", build_info, "What this module was built with, and which instruction set it uses.");
  m.def("instruction_sets", instruction_sets, "Those compiled in that this machine has, the slowest first.");
  m.def("use", use, "Switch to an instruction set (tests and benchmarks).");
  m.def("use_huge_pages", use_huge_pages);
  m.def("has_product", has_product);
  m.def("product", product);
  m.def("token_stats", token_stats);
  m.def("ids_are_fine", ids_are_fine);
  m.def("update", update);
  m.def("finish", finish);
  m.def("token_stats_backward", token_stats_backward);
  m.def("gae", gae);
  m.def("kl_estimate", kl_estimate);
  m.def("kl_estimate_backward", kl_estimate_backward);
  m.def("kl_divergence", kl_divergence);
  m.def("kl_update", kl_update);
  m.def("kl_finish", kl_finish);
  m.def("kl_backward", kl_backward);
  m.def("draw_scratch", draw_scratch);
  m.def("draw", draw);
  m.def("kept_by_draw", kept_by_draw);
}
