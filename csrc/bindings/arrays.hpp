// Checked views of NumPy arrays, allocation of outputs, and the wording of every error about arrays.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <vector>

#include "../core/blocks.hpp"
#include "../core/subnormals.hpp"
#include "exchange.hpp"

namespace fusedrnn::bindings {

inline std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

inline std::vector<int64_t> shape_of(const py::array& a) {
  return std::vector<int64_t>(a.shape(), a.shape() + a.ndim());
}

// Says why the argument is none that can be read in place.
[[noreturn]] inline void refuse(const py::object& object, const char* name) {
  const std::string type = py::str(py::type::of(object).attr("__name__"));
  if (exports_memory(object)) {
    std::string why;
    try {
      exported(object);
    } catch (const py::error_already_set& e) {
      why = py::str(e.value());
    } catch (const std::exception& e) {
      why = e.what();
    }
    throw py::type_error(std::string(name) + ": " + type + " cannot be read in place: " +
                         (why.empty() ? "among these parts only NumPy arrays can be" : why));
  }
  throw py::type_error(std::string(name) + ": expected a NumPy array, got " + type +
                       ", which exports neither DLPack nor a buffer");
}

// The argument as an array; lists and scalars are refused, so that nothing is copied or cast silently.
inline py::array as_array(const py::object& object, const char* name) {
  if (!py::isinstance<py::array>(object)) refuse(object, name);
  return py::reinterpret_borrow<py::array>(object);
}

inline std::string dtype_text(const py::array& a) {
  return is_bfloat16(a) ? "bfloat16" : py::str(static_cast<py::handle>(a.dtype()));
}

// What to do with numbers of another dtype: NumPy's own are float64 and int64.
inline std::string conversion(const py::array& a, const char* dtype) {
  const char kind = a.dtype().kind();
  const bool number = kind == 'f' || kind == 'i' || kind == 'u' || kind == 'b';
  return number ? std::string("; convert it with .astype(numpy.") + dtype + ")" : "";
}

// Calls f<float>() or f<double>() by the dtype of x.
template <class F>
auto dispatch_dtype(const py::object& object, const char* name, F f) {
  const py::array a = as_array(object, name);
  if (py::isinstance<py::array_t<float>>(a)) return f(float{});
  if (py::isinstance<py::array_t<double>>(a)) return f(double{});
  throw py::type_error(std::string(name) + ": expected float32 or float64, got " + dtype_text(a) +
                       (is_bfloat16(a) ? ", which goes together with a precision" : conversion(a, "float32")));
}

inline void require_contiguous(const py::array& a, const char* name) {
  if (!(a.flags() & py::array::c_style))
    throw py::value_error(std::string(name) + ": expected a C-contiguous array; use numpy.ascontiguousarray");
  if (!(a.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string(name) + ": expected an aligned array; use numpy.require(..., requirements='A')");
}

// Runs f on the engine's terms: subnormal numbers count as zero, and other Python threads may run. Not
// py::gil_scoped_release: at exit Python ends daemon threads by unwinding them where they ask for the lock, and from a
// destructor that would end the whole process.
template <class F>
void without_gil(F f) {
  PyThreadState* const state = PyEval_SaveThread();
  std::exception_ptr error;
  try {
    const FlushSubnormals flush;
    f();
  } catch (...) {
    error = std::current_exception();
  }
  PyEval_RestoreThread(state);
  if (error) std::rethrow_exception(error);
}

inline void require_shape(const py::array& a, const char* name, const std::vector<int64_t>& shape) {
  const std::vector<int64_t> got = shape_of(a);
  bool same = got.size() == shape.size();
  for (std::size_t i = 0; same && i < shape.size(); ++i) same = shape[i] == got[i];
  if (!same)
    throw py::value_error(std::string(name) + ": expected shape " + shape_text(shape) + ", got " + shape_text(got));
}

inline void require_ndim(const py::array& a, const char* name, int64_t ndim, const char* letters) {
  if (a.ndim() != ndim)
    throw py::value_error(std::string(name) + ": expected shape " + letters + ", got " + shape_text(shape_of(a)));
}

inline void require_at_least_one(int64_t size, const char* name, const char* what) {
  if (size < 1) throw py::value_error(std::string(name) + ": expected " + what + " of at least 1, got 0");
}

// What NO_STEPS says in Python too.
constexpr const char* no_steps =
    "expected a sequence length of at least 1, got 0: without a step there is no y, and the states stay what they are "
    "(PyTorch refuses it too); leave the call out, or give each row its own number of steps by lengths, which may be 0";

inline void require_steps(int64_t steps) {
  if (steps < 1) throw py::value_error(std::string("x: ") + no_steps);
}

// Elements that no memory could hold end here, not in a sum of sizes that wraps around. Only what is no array, or one
// without rows, can claim so many; each element may become some hundred more of the reserve and of scratch.
inline void require_addressable(const char* name, const std::string& got, const std::vector<int64_t>& sizes) {
  constexpr int64_t most = int64_t(1) << 52;
  int64_t product = 1;
  for (const int64_t size : sizes) {
    if (size > 0 && product > most / size)
      throw py::value_error(std::string(name) + ": expected sizes that memory can hold, got " + got);
    product *= size > 0 ? size : 1;
  }
}

// One argument of a call whose other arrays have dtype T; `like` names the array that settled the dtype.
template <class T>
py::array checked(const py::object& object, const char* name, const char* like) {
  py::array a = as_array(object, name);
  if (!py::isinstance<py::array_t<T>>(a)) {
    const char* const dtype = sizeof(T) == 4 ? "float32" : "float64";
    throw py::type_error(std::string(name) + ": expected dtype " + dtype + " like " + like + ", got " + dtype_text(a) +
                         conversion(a, dtype));
  }
  return a;
}

template <class T>
const T* input(const py::object& object, const char* name, const char* like, const std::vector<int64_t>& shape) {
  const py::array a = checked<T>(object, name, like);
  require_shape(a, name, shape);
  require_contiguous(a, name);
  return static_cast<const T*>(a.data());
}

template <class T>
const T* optional_input(const py::object& object, const char* name, const char* like,
                        const std::vector<int64_t>& shape) {
  return object.is_none() ? nullptr : input<T>(object, name, like, shape);
}

// An array that the call writes to.
template <class T>
T* output(const py::object& object, const char* name, const char* like, const std::vector<int64_t>& shape) {
  input<T>(object, name, like, shape);
  if (!py::reinterpret_borrow<py::array>(object).writeable())
    throw py::value_error(std::string(name) + ": expected a writeable array");
  return static_cast<T*>(py::reinterpret_borrow<py::array>(object).mutable_data());
}

template <class T>
T* optional_output(const py::object& object, const char* name, const char* like, const std::vector<int64_t>& shape) {
  return object.is_none() ? nullptr : output<T>(object, name, like, shape);
}

// A fresh array, not initialised.
template <class T>
py::array_t<T> empty(const std::vector<int64_t>& shape) {
  const std::vector<py::ssize_t> sizes(shape.begin(), shape.end());
  double bytes = sizeof(T);  // a double, as sizes may be absurd: NumPy then says what is wrong with them
  for (const int64_t n : shape) bytes *= double(n);
  if (bytes < double(smallest_block) || bytes > 1e15) return py::array_t<T>(sizes);
  void* block = take_block(std::size_t(bytes));
  return py::array_t<T>(sizes, static_cast<T*>(block), py::capsule(block, give_block));
}

// The caller's own array to write to, or a fresh one.
template <class T>
py::array_t<T> given_or_empty(const py::object& given, const char* name, const char* like,
                              const std::vector<int64_t>& shape) {
  if (given.is_none()) return empty<T>(shape);
  output<T>(given, name, like, shape);
  return py::reinterpret_borrow<py::array_t<T>>(given);
}

// H where weight_hh agrees with itself; otherwise the rows of weight_ih say what weight_hh should have been.
inline int64_t hidden_size(const py::array& ih, const py::array& hh, int64_t gates) {
  require_ndim(ih, "weight_ih", 2, gates == 1 ? "[H, I]" : gates == 3 ? "[3H, I]" : "[4H, I]");
  require_ndim(hh, "weight_hh", 2, gates == 1 ? "[H, H]" : gates == 3 ? "[3H, H]" : "[4H, H]");
  const int64_t hidden = hh.shape(0) == gates * hh.shape(1) ? hh.shape(1)
                         : ih.shape(0) % gates == 0         ? ih.shape(0) / gates
                                                            : hh.shape(0) / gates;
  require_at_least_one(hidden, "weight_hh", "a hidden size");
  return hidden;
}

template <class T>
int64_t hidden_size(const py::object& weight_ih, const py::object& weight_hh, int64_t gates) {
  const py::array ih = checked<T>(weight_ih, "weight_ih", "x"), hh = checked<T>(weight_hh, "weight_hh", "x");
  return hidden_size(ih, hh, gates);
}

void register_calls(py::module_& m);
void register_stack(py::module_& m);
void register_linear(py::module_& m);
void register_losses(py::module_& m);
void register_optim(py::module_& m);
void register_runtime(py::module_& m);
void register_frozen(py::module_& m);
void register_program(py::module_& m);

}  // namespace fusedrnn::bindings
