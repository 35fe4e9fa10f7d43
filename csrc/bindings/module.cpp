#include "arrays.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace fusedrnn::bindings;
  learn_array_type();
  m.doc() = "The compiled half of fusedrnn: arrays in, arrays out. Use fusedrnn.functional.";
  register_calls(m);
  register_stack(m);
  register_linear(m);
  register_losses(m);
  register_optim(m);
  register_runtime(m);
  register_frozen(m);
  register_program(m);
}
