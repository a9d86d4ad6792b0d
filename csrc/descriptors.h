// How tensors cross from Python: as the tuple (address, shape, strides in elements, dtype), or None.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace hookline {

namespace py = pybind11;

enum Code : int { f32 = 0, bf16 = 1, f16 = 2, i64 = 3, u8 = 4, f64 = 5 };

inline void check(bool holds, const char* what) {
  if (!holds) throw std::invalid_argument(std::string("hookline: ") + what);
}

struct Descriptor {
  void* data = nullptr;
  std::vector<int64_t> shape, strides;
  int dtype = f32;

  int64_t count() const {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return n;
  }
  bool dense() const {
    if (count() == 0) return true;
    int64_t expected = 1;
    for (size_t i = shape.size(); i-- > 0;) {
      if (shape[i] != 1 && strides[i] != expected) return false;
      expected *= shape[i];
    }
    return true;
  }
};

inline std::vector<int64_t> integers(PyObject* tuple) {
  check(PyTuple_Check(tuple), "shape and strides are tuples");
  std::vector<int64_t> out(PyTuple_GET_SIZE(tuple));
  for (size_t i = 0; i < out.size(); i++) out[i] = PyLong_AsLongLong(PyTuple_GET_ITEM(tuple, i));
  if (PyErr_Occurred()) throw py::error_already_set();
  return out;
}

inline Descriptor read(py::handle h) {
  check(PyTuple_Check(h.ptr()) && PyTuple_GET_SIZE(h.ptr()) == 4, "a tensor is (address, shape, strides, dtype)");
  Descriptor d;
  d.data = PyLong_AsVoidPtr(PyTuple_GET_ITEM(h.ptr(), 0));
  d.shape = integers(PyTuple_GET_ITEM(h.ptr(), 1));
  d.strides = integers(PyTuple_GET_ITEM(h.ptr(), 2));
  d.dtype = (int)PyLong_AsLong(PyTuple_GET_ITEM(h.ptr(), 3));
  if (PyErr_Occurred()) throw py::error_already_set();
  check(d.shape.size() == d.strides.size(), "shape and strides have one length");
  for (int64_t size : d.shape) check(size >= 0, "sizes are not negative");
  check(d.data || d.count() == 0, "a tensor with elements has an address");
  return d;
}

// A dense array of `count` elements.
template <class T>
T* dense(py::handle h, int dtype, int64_t count, const char* what) {
  if (h.is_none()) return nullptr;
  Descriptor d = read(h);
  check(d.dtype == dtype && d.count() == count && d.dense(), what);
  return (T*)d.data;
}

inline bool is_float(int dtype) { return dtype >= f32 && dtype <= f16; }

}  // namespace hookline
