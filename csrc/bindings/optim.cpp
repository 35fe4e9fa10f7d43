#include <cmath>

#include "../core/dispatch.hpp"
#include "../core/parallel.hpp"
#include "arrays.hpp"

namespace fusedrnn::bindings {
namespace {

// Calls f(scalar, n) for flat buffers of n elements.
template <class F>
void with_flat(const py::object& data, const char* name, F f) {
  dispatch_dtype(data, name, [&](auto scalar) {
    const py::array a = as_array(data, name);
    require_ndim(a, name, 1, "[n]");
    f(scalar, int64_t(a.shape(0)));
  });
}

// Calls f(first, count) for pieces of n elements, on several threads where they are many.
template <class F>
void in_pieces(int64_t n, F f) {
  without_gil([&] { parallel_flat(n, flops_per_element_moved, f); });
}

template <class T>
T* offset(T* p, int64_t i) {
  return p ? p + i : nullptr;
}

void sgd_step(const py::object& data, const py::object& grad, const py::object& momentum_buffer, double lr,
              double momentum, double weight_decay, bool nesterov) {
  with_flat(data, "data", [&](auto scalar, int64_t n) {
    using T = decltype(scalar);
    T* const p = output<T>(data, "data", "data", {n});
    const T* const g = input<T>(grad, "grad", "data", {n});
    T* const buffer = optional_output<T>(momentum_buffer, "momentum_buffer", "data", {n});
    in_pieces(n, [&](int64_t i, int64_t count) {
      kernels<T>().sgd({count, p + i, g + i, offset(buffer, i), T(lr), T(momentum), T(weight_decay), nesterov});
    });
  });
}

void adagrad_step(const py::object& data, const py::object& grad, const py::object& sum, double lr, double eps,
                  double weight_decay, bool eps_inside) {
  with_flat(data, "data", [&](auto scalar, int64_t n) {
    using T = decltype(scalar);
    T* const p = output<T>(data, "data", "data", {n});
    const T* const g = input<T>(grad, "grad", "data", {n});
    T* const squares = output<T>(sum, "sum", "data", {n});
    in_pieces(n, [&](int64_t i, int64_t count) {
      kernels<T>().adagrad({count, p + i, g + i, squares + i, T(lr), T(eps), T(weight_decay), eps_inside});
    });
  });
}

void rmsprop_step(const py::object& data, const py::object& grad, const py::object& square_avg,
                  const py::object& grad_avg, const py::object& momentum_buffer, double lr, double alpha, double eps,
                  double momentum, double weight_decay, bool eps_inside) {
  with_flat(data, "data", [&](auto scalar, int64_t n) {
    using T = decltype(scalar);
    T* const p = output<T>(data, "data", "data", {n});
    const T* const g = input<T>(grad, "grad", "data", {n});
    T* const squares = output<T>(square_avg, "square_avg", "data", {n});
    T* const means = optional_output<T>(grad_avg, "grad_avg", "data", {n});
    T* const buffer = optional_output<T>(momentum_buffer, "momentum_buffer", "data", {n});
    in_pieces(n, [&](int64_t i, int64_t count) {
      kernels<T>().rmsprop({count, p + i, g + i, squares + i, offset(means, i), offset(buffer, i), T(lr), T(alpha),
                            T(eps), T(momentum), T(weight_decay), eps_inside});
    });
  });
}

void adam_step(const py::object& data, const py::object& grad, const py::object& exp_avg, const py::object& exp_avg_sq,
               double lr, double beta1, double beta2, double eps, double weight_decay, bool decoupled, int64_t step) {
  if (step < 1) throw py::value_error("step: expected a count from 1, got " + std::to_string(step));
  with_flat(data, "data", [&](auto scalar, int64_t n) {
    using T = decltype(scalar);
    const double correction1 = 1 - std::pow(beta1, double(step)), correction2 = 1 - std::pow(beta2, double(step));
    T* const p = output<T>(data, "data", "data", {n});
    const T* const g = input<T>(grad, "grad", "data", {n});
    T* const means = output<T>(exp_avg, "exp_avg", "data", {n});
    T* const squares = output<T>(exp_avg_sq, "exp_avg_sq", "data", {n});
    in_pieces(n, [&](int64_t i, int64_t count) {
      kernels<T>().adam({count, p + i, g + i, means + i, squares + i, T(beta1), T(beta2), T(eps), T(weight_decay),
                         T(lr), T(lr / correction1), T(1 / std::sqrt(correction2)), decoupled});
    });
  });
}

void clip_value(const py::object& grad, double limit) {
  with_flat(grad, "grad", [&](auto scalar, int64_t n) {
    using T = decltype(scalar);
    T* const g = output<T>(grad, "grad", "grad", {n});
    in_pieces(n, [&](int64_t i, int64_t count) { kernels<T>().clip_value(count, g + i, T(limit)); });
  });
}

void scale(const py::object& grad, double factor) {
  with_flat(grad, "grad", [&](auto scalar, int64_t n) {
    using T = decltype(scalar);
    T* const g = output<T>(grad, "grad", "grad", {n});
    in_pieces(n, [&](int64_t i, int64_t count) { kernels<T>().scale(count, g + i, T(factor)); });
  });
}

double squared_norm(const py::object& grad) {
  double result = 0;
  with_flat(grad, "grad", [&](auto scalar, int64_t n) {
    using T = decltype(scalar);
    const T* const g = input<T>(grad, "grad", "grad", {n});
    without_gil([&] {
      result = parallel_sum(n, flops_per_element_moved,
                            [&](int64_t i, int64_t count) { return kernels<T>().squared_norm(count, g + i); });
    });
  });
  return result;
}

}  // namespace

void register_optim(py::module_& m) {
  using namespace py::literals;
  m.def("sgd_step", &sgd_step, "data"_a, "grad"_a, "momentum_buffer"_a, "lr"_a, "momentum"_a, "weight_decay"_a,
        "nesterov"_a);
  m.def("adagrad_step", &adagrad_step, "data"_a, "grad"_a, "sum"_a, "lr"_a, "eps"_a, "weight_decay"_a, "eps_inside"_a);
  m.def("rmsprop_step", &rmsprop_step, "data"_a, "grad"_a, "square_avg"_a, "grad_avg"_a, "momentum_buffer"_a, "lr"_a,
        "alpha"_a, "eps"_a, "momentum"_a, "weight_decay"_a, "eps_inside"_a);
  m.def("adam_step", &adam_step, "data"_a, "grad"_a, "exp_avg"_a, "exp_avg_sq"_a, "lr"_a, "beta1"_a, "beta2"_a, "eps"_a,
        "weight_decay"_a, "decoupled"_a, "step"_a);
  m.def("clip_value", &clip_value, "grad"_a, "limit"_a);
  m.def("scale", &scale, "grad"_a, "factor"_a);
  m.def("squared_norm", &squared_norm, "grad"_a);
}

}  // namespace fusedrnn::bindings
