// The static configuration of a call: a cell and its options, read from Python once.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "../core/cells.hpp"
#include "../core/low_precision.hpp"
#include "data.hpp"

namespace fusedrnn::bindings {

#define FUSEDRNN_NAME(name, formulas) name,
enum class CellKind { rnn, lstm, gru, FUSEDRNN_ELEMENTWISE_CELLS(FUSEDRNN_NAME) count };
#undef FUSEDRNN_NAME

// Cells whose units see no state but their own; the others come before them.
inline bool is_elementwise(CellKind cell) { return cell > CellKind::gru; }
inline ElementwiseKind elementwise_kind(CellKind cell) { return ElementwiseKind(int(cell) - int(CellKind::gru) - 1); }

// One parameter of a cell. axes: R rows of the gates, I, P elements of h, H, or 3.
struct Parameter {
  const char *name, *label, *axes;  // label: how errors call it
  bool needed;
};

// A cell as the bindings see it; python/fusedrnn/spec.py has the same for Python, and a test compares them.
struct CellFacts {
  const char* name;
  int64_t gates;
  std::vector<const char*> states;    // the axes of h0 and c0
  std::vector<Parameter> parameters;  // in the order of every call
  std::vector<const char*> options;   // beside "reverse"
};

const CellFacts& facts_of(CellKind cell);

// The place of a parameter of this name in a call; -1 if there is none.
int place_of(const CellFacts& facts, const char* name);

inline std::vector<int64_t> shape_by_axes(const char* axes, int64_t R, int64_t I, int64_t P, int64_t H) {
  std::vector<int64_t> shape;
  for (; *axes; ++axes) shape.push_back(*axes == 'R' ? R : *axes == 'I' ? I : *axes == 'P' ? P : *axes == 'H' ? H : 3);
  return shape;
}

Activation activation(const std::string& text, const char* name);

// Integer sums of this length must stay within int32.
void require_int8_sums(Precision precision, int64_t inputs, int64_t hidden);

class Settings : public OptionValues {
 public:
  Settings(const std::string& cell, const py::dict& options);

  CellKind cell;
  bool reverse = false, recompute = false, reset_after = true;
  std::optional<Precision> precision;
  std::vector<std::string> changed;  // options that make it another cell than the plain one
  py::dict given;                    // as it was constructed

  const CellFacts& facts() const { return facts_of(cell); }
  int64_t gates() const { return coupled ? 3 : facts().gates; }

  // For the core, with everything but the parameters' arrays.
  template <class T>
  Options<T> options(const Data& d) const {
    Options<T> o{};
    static_cast<OptionValues&>(o) = *this;
    o.training = true;
    o.direction = reverse;
    o.projection = d.shape.hidden;
    if (d.ragged) {
      o.row_numbers = d.ragged->row_numbers();
      if (reverse) o.lengths = d.ragged->lengths();
    }
    return o;
  }
};

// The cell with its option, as the core's products in low precision have it.
LowPrecisionCell low_precision_cell(const Settings&);

}  // namespace fusedrnn::bindings
