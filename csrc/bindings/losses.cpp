#include <algorithm>
#include <limits>
#include <vector>

#include "../core/dispatch.hpp"
#include "../core/parallel.hpp"
#include "arrays.hpp"

namespace fusedrnn::bindings {
namespace {

constexpr double flops_per_activation = 32;

// kernel(first row, rows) over pieces of whole rows, of so many columns each; the sum of what it gives, in order.
template <class Kernel>
double sum_over_rows(int64_t rows, int64_t columns, Kernel kernel) {
  const int64_t piece = std::max<int64_t>(1, flat_piece / columns);
  std::vector<double> losses(std::size_t((rows + piece - 1) / piece));
  without_gil([&] {
    parallel_for(int64_t(losses.size()), flops_per_activation * double(rows * columns),
                 [&](int64_t i) { losses[std::size_t(i)] = kernel(i * piece, std::min(piece, rows - i * piece)); });
  });
  double loss = 0;
  for (const double part : losses) loss += part;
  return loss;
}

// Weights of a shape, at least 0 and finite; null for None.
template <class T>
const T* checked_weights(const Argument& weights, const char* as_of, const std::vector<int64_t>& shape) {
  const T* w = optional_input<T>(weights, "weights", as_of, shape);
  int64_t size = 1;
  for (const int64_t n : shape) size *= n;
  for (int64_t i = 0; w && i < size; ++i)
    if (!(w[i] >= 0 && w[i] <= std::numeric_limits<T>::max()))
      throw py::value_error("weights: expected finite numbers of at least 0, got " + std::to_string(w[i]) +
                            " at position " + std::to_string(i));
  return w;
}

py::tuple softmax_cross_entropy(const py::object& logits, const py::object& targets, const Argument& weights,
                                double smoothing) {
  return dispatch_dtype(logits, "logits", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const py::array x = as_array(logits, "logits"), t = as_array(targets, "targets");
    require_ndim(x, "logits", 2, "[R, C]");
    const int64_t R = x.shape(0), C = x.shape(1);
    require_at_least_one(C, "logits", "a number of classes");
    require_contiguous(x, "logits");
    if (!py::isinstance<py::array_t<int64_t>>(t))
      throw py::type_error("targets: expected dtype int64, got " + dtype_text(t));
    require_shape(t, "targets", {R});
    require_contiguous(t, "targets");
    const auto* classes = static_cast<const int64_t*>(t.data());
    for (int64_t i = 0; i < R; ++i)
      if (classes[i] < 0 || classes[i] >= C)
        throw py::value_error("targets: expected classes from 0 to " + std::to_string(C - 1) + ", got " +
                              std::to_string(classes[i]) + " at position " + std::to_string(i));
    const T* w = checked_weights<T>(weights, "logits", {R});
    auto d = empty<T>({R, C});
    const auto* xp = static_cast<const T*>(x.data());
    T* dp = d.mutable_data();
    const double loss = sum_over_rows(R, C, [&](int64_t row, int64_t rows) {
      return kernels<T>().softmax_cross_entropy(rows, C, xp + row * C, classes + row, w ? w + row : nullptr,
                                                T(smoothing), dp + row * C);
    });
    return py::make_tuple(loss, d);
  });
}

py::tuple mixture_density(const Argument& parameters, const Argument& target, const Argument& weights) {
  return dispatch_dtype(parameters, "parameters", [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const py::array p = as_array(parameters, "parameters");
    const std::vector<int64_t> shape = shape_of(p);
    const int64_t columns = shape.empty() ? 0 : shape.back(), K = columns / 6;
    if (K < 1 || columns != 6 * K + 1)
      throw py::value_error("parameters: expected shape [..., 6K + 1] for K components, got " + shape_text(shape));
    require_contiguous(p, "parameters");
    const std::vector<int64_t> rows(shape.begin(), shape.end() - 1);
    std::vector<int64_t> points = rows;
    points.push_back(3);
    const int64_t R = p.size() / columns;
    const auto* pp = static_cast<const T*>(p.data());
    const T* t = input<T>(target, "target", "parameters", points);
    std::vector<int64_t> weighted = rows;
    if (!weights.is_none() && as_array(weights, "weights").ndim() > int64_t(rows.size())) weighted.push_back(2);
    const int64_t weight_columns = weighted.size() > rows.size() ? 2 : 1;
    const T* w = checked_weights<T>(weights, "parameters", weighted);
    auto d = empty<T>(shape);
    T* dp = d.mutable_data();
    const double loss = sum_over_rows(R, columns, [&](int64_t row, int64_t count) {
      return kernels<T>().mixture_density(count, K, pp + row * columns, t + row * 3,
                                          w ? w + row * weight_columns : nullptr, weight_columns, dp + row * columns);
    });
    return py::make_tuple(loss, d);
  });
}

// A loss that compares element by element.
template <class Kernel>
py::tuple elementwise(const py::object& prediction, const py::object& target, const Argument& weights,
                      const char* prediction_name, const char* target_name, Kernel kernel) {
  return dispatch_dtype(prediction, prediction_name, [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    const std::vector<int64_t> shape = shape_of(as_array(prediction, prediction_name));
    const T* p = input<T>(prediction, prediction_name, prediction_name, shape);
    const T* t = input<T>(target, target_name, prediction_name, shape);
    const T* w = checked_weights<T>(weights, prediction_name, shape);
    auto d = empty<T>(shape);
    T* dp = d.mutable_data();
    const int64_t n = d.size();
    double loss = 0;
    without_gil([&] {
      loss = parallel_sum(n, flops_per_activation, [&](int64_t i, int64_t count) {
        return kernel(count, p + i, t + i, w ? w + i : nullptr, dp + i);
      });
    });
    return py::make_tuple(loss, d);
  });
}

}  // namespace

void register_losses(py::module_& m) {
  using namespace py::literals;
  m.def("softmax_cross_entropy", &softmax_cross_entropy, "logits"_a, "targets"_a, "weights"_a = py::none(),
        "smoothing"_a = 0.0);
  m.def("mixture_density", &mixture_density, "parameters"_a, "target"_a, "weights"_a);
  m.def(
      "binary_cross_entropy",
      [](const py::object& logits, const py::object& targets, const Argument& weights) {
        return elementwise(
            logits, targets, weights, "logits", "targets", [](int64_t n, auto* x, auto* t, auto* w, auto* d) {
              return kernels<std::remove_reference_t<decltype(*d)>>().binary_cross_entropy(n, x, t, w, d);
            });
      },
      "logits"_a, "targets"_a, "weights"_a = py::none());
  m.def(
      "squared_error",
      [](const py::object& prediction, const py::object& target, const Argument& weights) {
        return elementwise(prediction, target, weights, "prediction", "target",
                           [](int64_t n, auto* p, auto* t, auto* w, auto* d) {
                             return kernels<std::remove_reference_t<decltype(*d)>>().squared_error(n, p, t, w, d);
                           });
      },
      "prediction"_a, "target"_a, "weights"_a = py::none());
}

}  // namespace fusedrnn::bindings
