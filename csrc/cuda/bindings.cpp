// The module hookline._cuda: tensors of a GPU as descriptors, then a device and a stream. As in bindings.cpp, the checks here only
// keep a wrong call from leaving its memory; the Python side speaks to the user.
#include <pybind11/pybind11.h>

#include <optional>

#include "../descriptors.h"
#include "kernels.h"

using namespace hookline;
using cuda::Place;
using cuda::Rows;
using cuda::Table;

namespace {

// Incremented whenever an argument below changes; the Python side refuses a number that differs from its own.
constexpr int interface = 1;

// [outer, inner, width] with a dense last dimension; `count` is outer * inner.
struct Matrix {
  Rows rows;
  int64_t count, width;
  int dtype;
};

Matrix matrix(py::handle h, const char* what) {
  Descriptor d = read(h);
  check(d.shape.size() == 3 && (d.shape[2] <= 1 || d.strides[2] == 1 || d.count() == 0), what);
  cuda::DType dtype = is_float(d.dtype) ? (cuda::DType)d.dtype : cuda::DType::f32;
  int64_t inner = d.shape[1] > 0 ? d.shape[1] : 1;
  Rows rows = inner == 1 ? Rows{d.data, dtype, 1, d.strides[0], 0} : Rows{d.data, dtype, inner, d.strides[0], d.strides[1]};
  return {rows, d.shape[0] * d.shape[1], d.shape[2], d.dtype};
}

Matrix floats(py::handle h, const char* what) {
  Matrix m = matrix(h, what);
  check(is_float(m.dtype), what);
  return m;
}

Matrix same_shape(const Matrix& other, py::handle h, const char* what) {
  Matrix m = floats(h, what);
  check(m.count == other.count && m.width == other.width, what);
  return m;
}

Matrix same_as(const Matrix& other, py::handle h, const char* what) {
  Matrix m = same_shape(other, h, what);
  check(m.dtype == other.dtype, what);
  return m;
}

// float32 [rows, count] with a dense last dimension, or None.
template <class T>
Table<T> table(py::handle h, int64_t rows, int64_t count, const char* what) {
  if (h.is_none()) return {nullptr, 0};
  Descriptor d = read(h);
  check(d.dtype == f32 && d.shape.size() == 2 && d.shape[0] == rows && d.shape[1] == count, what);
  check(count <= 1 || d.strides[1] == 1, what);
  return {(T*)d.data, d.strides[0]};
}

Place place(int device, uintptr_t stream) { return {device, (void*)stream}; }

cuda::Tokens tokens(int64_t count, py::handle ids, int64_t vocabulary, float temperature, float softcap, int want) {
  auto* data = dense<const int64_t>(ids, i64, count, "token_ids are dense int64, one per row");
  check(data || count == 0, "token_ids are needed");
  check(temperature > 0 && softcap >= 0, "temperature > 0, softcap >= 0");
  return {count, data, vocabulary, temperature, softcap, want};
}

void find_bad_id(py::handle ids, int64_t vocabulary, py::handle first_bad, int device, uintptr_t stream) {
  Descriptor d = read(ids);
  check(d.dtype == i64 && d.dense(), "token_ids are dense int64");
  cuda::find_bad_id(place(device, stream), (const int64_t*)d.data, d.count(), vocabulary,
                    dense<int64_t>(first_bad, i64, 1, "first_bad is one int64"));
}

void token_stats(py::handle tile, py::handle ids, int64_t first, int64_t vocabulary, float temperature, float softcap, int want,
                 py::handle state, py::handle stats, int device, uintptr_t stream) {
  Matrix x = floats(tile, "logits are [outer, inner, width] floats");
  cuda::Tokens t = tokens(x.count, ids, vocabulary, temperature, softcap, want);
  auto known = table<float>(state, cuda::states, x.count, "state is float32 [7, N]");
  auto out = table<float>(stats, cuda::statistics, x.count, "stats are float32 [8, N]");
  cuda::token_stats(place(device, stream), t, x.rows, first, x.width, known, out);
}

void token_stats_backward(py::handle upstream, py::handle stats, py::handle tile, py::handle ids, int64_t first,
                          int64_t vocabulary, float temperature, float softcap, int want, py::handle grad, int device,
                          uintptr_t stream) {
  Matrix x = floats(tile, "logits are [outer, inner, width] floats");
  Matrix g = same_shape(x, grad, "the gradient has the logits' shape");
  cuda::Tokens t = tokens(x.count, ids, vocabulary, temperature, softcap, want);
  auto up = table<const float>(upstream, cuda::statistics, x.count, "upstream is float32 [8, N]");
  auto known = table<const float>(stats, cuda::statistics, x.count, "stats are float32 [8, N]");
  check(up.data && known.data, "upstream and stats are needed");
  cuda::token_stats_backward(place(device, stream), t, up, known, x.rows, first, x.width, g.rows);
}

void gae(py::handle rewards, py::handle values, py::handle mask, py::handle bootstrap, py::handle offsets, float gamma,
         float lam, py::handle advantages, py::handle returns, int device, uintptr_t stream) {
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
  }
  auto* start = dense<const float>(bootstrap, f32, rows, "bootstrap is dense float32, one per row");
  float* a = dense<float>(advantages, f32, r.count * r.width, "advantages are dense float32");
  float* out = dense<float>(returns, f32, r.count * r.width, "returns are dense float32");
  cuda::gae(place(device, stream), r.rows, v.rows, m ? &m->rows : nullptr, start, cuts, rows, r.width, gamma, lam, a, out);
}

Descriptor flat(py::handle h, const char* what) {
  Descriptor d = read(h);
  check(is_float(d.dtype) && d.dense(), what);
  return d;
}

int estimators(int which) {
  check(which > 0 && which < 8, "which is a set of three bits");
  return (which & 1) + (which >> 1 & 1) + (which >> 2 & 1);
}

void kl_estimate(py::handle logprobs, py::handle ref, int which, py::handle out, int device, uintptr_t stream) {
  Descriptor p = flat(logprobs, "logprobs are dense floats"), q = flat(ref, "ref_logprobs are dense floats");
  check(p.count() == q.count() && p.dtype == q.dtype, "logprobs and ref_logprobs are alike");
  float* to = dense<float>(out, f32, estimators(which) * p.count(), "the result is dense float32");
  cuda::kl_estimate(place(device, stream), (cuda::DType)p.dtype, p.data, q.data, p.count(), which, to);
}

void kl_estimate_backward(py::handle upstream, py::handle logprobs, py::handle ref, int which, py::handle grad, int device,
                          uintptr_t stream) {
  Descriptor p = flat(logprobs, "logprobs are dense floats"), q = flat(ref, "ref_logprobs are dense floats");
  check(p.count() == q.count() && p.dtype == q.dtype, "logprobs and ref_logprobs are alike");
  auto* up = dense<const float>(upstream, f32, estimators(which) * p.count(), "upstream is dense float32");
  float* to = dense<float>(grad, f32, p.count(), "the gradient is dense float32");
  cuda::kl_estimate_backward(place(device, stream), up, (cuda::DType)p.dtype, p.data, q.data, p.count(), which, to);
}

void kl_divergence(py::handle tile, py::handle ref_tile, float temperature, py::handle state, py::handle stats, int device,
                   uintptr_t stream) {
  Matrix p = floats(tile, "logits are [outer, inner, width] floats"), q = same_as(p, ref_tile, "ref_logits are like logits");
  check(temperature > 0, "temperature > 0");
  auto known = table<float>(state, cuda::kl_states, p.count, "state is float32 [5, N]");
  auto out = table<float>(stats, cuda::kl_rows, p.count, "stats are float32 [5, N]");
  cuda::kl_divergence(place(device, stream), p.rows, q.rows, p.count, p.width, temperature, known, out);
}

void kl_divergence_backward(py::handle upstream, py::handle stats, py::handle tile, py::handle ref_tile, float temperature,
                            py::handle grad, py::handle ref_grad, int device, uintptr_t stream) {
  Matrix p = floats(tile, "logits are [outer, inner, width] floats"), q = same_as(p, ref_tile, "ref_logits are like logits");
  check(temperature > 0, "temperature > 0");
  std::optional<Matrix> to, ref_to;
  if (!grad.is_none()) to = same_shape(p, grad, "a gradient has the logits' shape");
  if (!ref_grad.is_none()) ref_to = same_shape(p, ref_grad, "a gradient has the logits' shape");
  check(!to || !ref_to || to->dtype == ref_to->dtype, "both gradients have one dtype");
  auto* up = dense<const float>(upstream, f32, p.count, "upstream is dense float32 [N]");
  auto known = table<const float>(stats, cuda::kl_rows, p.count, "stats are float32 [5, N]");
  check((up && known.data) || p.count == 0, "upstream and stats are needed");
  cuda::kl_divergence_backward(place(device, stream), up, known, p.rows, q.rows, p.count, p.width, temperature,
                               to ? &to->rows : nullptr, ref_to ? &ref_to->rows : nullptr);
}

py::dict build_info() {
  py::dict info;
  info["cuda_driver"] = cuda::driver_version();
  info["cuda_runtime"] = cuda::runtime_version();
  return info;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "Compiled kernels for NVIDIA GPUs; spoken to by hookline.kernels only.";
  m.attr("INTERFACE") = interface;
  m.def("build_info", build_info, "Versions of the driver here (0: none) and of the CUDA runtime built in; 13000 is 13.0.");
  m.def("find_bad_id", find_bad_id);
  m.def("token_stats", token_stats);
  m.def("token_stats_backward", token_stats_backward);
  m.def("gae", gae);
  m.def("kl_estimate", kl_estimate);
  m.def("kl_estimate_backward", kl_estimate_backward);
  m.def("kl_divergence", kl_divergence);
  m.def("kl_divergence_backward", kl_divergence_backward);
}
