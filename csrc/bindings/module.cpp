#include "arrays.hpp"

PYBIND11_MODULE(_core, m, pybind11::mod_gil_not_used()) {
  using namespace fusedrnn::bindings;
  learn_array_type();
  m.doc() = "The compiled half of fusedrnn: arrays in, arrays out. Use fusedrnn.functional.";
  register_rnn(m);
  register_lstm(m);
  register_gru(m);
  register_indrnn(m);
  register_mingru(m);
  register_linear(m);
  register_losses(m);
  register_optim(m);
  register_runtime(m);
  register_frozen(m);
  register_program(m);
  register_low_precision(m);
}
