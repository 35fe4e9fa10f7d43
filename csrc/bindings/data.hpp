// The data of a recurrent call: its sizes, sequences of uneven length, and steps at which states are reset.
#pragma once

#include <algorithm>
#include <array>
#include <limits>
#include <memory>

#include "../core/ragged.hpp"
#include "arrays.hpp"

namespace fusedrnn::bindings {

struct Data {
  Shape shape;                     // hidden is left to the cell
  std::vector<int64_t> rows;       // how arrays of all steps begin: T, N, or the sum of batch_sizes
  std::unique_ptr<Ragged> ragged;  // for arrays in another order than the core's
  std::vector<int64_t> sizes;  // of packed rows: a copy, for other threads run beside the call and may write to theirs

  std::vector<int64_t> of(int64_t width) const {
    std::vector<int64_t> shape = rows;
    shape.push_back(width);
    return shape;
  }
};

// An int64 array [n]: fusedrnn.functional has made it one.
inline const int64_t* integers(const py::object& object, const char* name, int64_t n) {
  const py::array a = as_array(object, name);
  if (!py::isinstance<py::array_t<int64_t>>(a))
    throw py::type_error(std::string(name) + ": expected integers, got " + dtype_text(a));
  if (n >= 0) require_shape(a, name, {n});
  require_ndim(a, name, 1, "[T]");
  require_contiguous(a, name);
  return static_cast<const int64_t*>(a.data());
}

inline void read_lengths(Data& d, const py::object& lengths, bool reverse) {
  const int64_t* const values = integers(lengths, "lengths", d.shape.batch);
  for (int64_t n = 0; n < d.shape.batch; ++n)
    if (values[n] < 0 || values[n] > d.shape.steps)
      throw py::value_error("lengths: expected numbers from 0 to " + std::to_string(d.shape.steps) + ", got " +
                            std::to_string(values[n]) + " for row " + std::to_string(n));
  d.ragged = std::make_unique<Ragged>(Ragged::of_lengths(d.shape.steps, d.shape.batch, values, reverse));
}

inline void read_batch_sizes(Data& d, const py::object& batch_sizes, bool reverse) {
  const int64_t* const given = integers(batch_sizes, "batch_sizes", -1);
  d.shape.steps = as_array(batch_sizes, "batch_sizes").shape(0);
  require_at_least_one(d.shape.steps, "batch_sizes", "a number of steps");
  d.sizes.assign(given, given + d.shape.steps);
  d.shape.batch = d.sizes[0];
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  int64_t total = 0;
  for (int64_t s = 0; s < d.shape.steps; ++s) {
    const int64_t size = d.sizes[std::size_t(s)];
    if (size < 1 || (s > 0 && size > d.sizes[std::size_t(s - 1)]))
      throw py::value_error("batch_sizes: expected positive numbers that never increase, got " + std::to_string(size) +
                            " for step " + std::to_string(s));
    total = size > most - total ? most : total + size;  // never wraps around
  }
  if (total != d.rows[0])
    throw py::value_error("batch_sizes: expected a sum of " + std::to_string(d.rows[0]) + ", the rows of x, got " +
                          std::to_string(total) + (total == most ? " or more" : ""));
  if (!reverse) {
    d.shape.batch_sizes = d.sizes.data();
    return;
  }
  d.ragged = std::make_unique<Ragged>(Ragged::of_sizes(d.shape.steps, d.sizes.data(), true));
}

inline Data read_data(const py::object& x_object, const py::object& lengths, const py::object& batch_sizes,
                      const py::object& resets, bool reverse) {
  const py::array x = as_array(x_object, "x");
  const bool packed = !batch_sizes.is_none();
  require_ndim(x, "x", packed ? 2 : 3, packed ? "[sum of batch_sizes, I]" : "[T, N, I]");
  if (packed)
    require_at_least_one(x.shape(0), "x", "a number of rows");
  else
    require_steps(x.shape(0));
  const int64_t I = x.shape(x.ndim() - 1);
  require_at_least_one(I, "x", "an input size");
  require_contiguous(x, "x");
  Data d{};
  d.rows.assign(x.shape(), x.shape() + x.ndim() - 1);
  d.shape.inputs = I;
  if (packed) {
    if (!lengths.is_none()) throw py::value_error("lengths: expected None beside batch_sizes");
    read_batch_sizes(d, batch_sizes, reverse);
  } else {
    d.shape.steps = x.shape(0);
    d.shape.batch = x.shape(1);
    if (!lengths.is_none()) read_lengths(d, lengths, reverse);
  }
  if (!resets.is_none()) {
    const py::array a = as_array(resets, "resets");
    if (!py::isinstance<py::array_t<bool>>(a))
      throw py::type_error("resets: expected dtype bool, got " + dtype_text(a));
    require_shape(a, "resets", d.rows);
    require_contiguous(a, "resets");
    d.shape.resets = static_cast<const uint8_t*>(a.data());
  }
  return d;
}

// Completes the sizes of a call; width is that of h, where it is not the units'.
inline void set_hidden(Data& d, int64_t hidden, int64_t width = 0) {
  d.shape.hidden = hidden;
  require_addressable("x", "shape " + shape_text(d.of(d.shape.inputs)), d.of(std::max(hidden, width)));
}

}  // namespace fusedrnn::bindings
