#include "gates.hpp"

namespace fusedrnn {

// Kept: f of the sums where it is not y.
template <class T>
GateLayout rnn_layout(int64_t hidden, const Options<T>& o) {
  return {o.zoneout_h > 0 ? hidden : 0, hidden, hidden, true, o.gain_ih != nullptr};
}

template <class T>
int64_t rnn_options_reserve(int64_t hidden, const Options<T>& o) {
  return rnn_layout(hidden, o).row();
}

template <class T>
void rnn_options_forward(const RnnForward<T>& p, const Options<T>& o) {
  const int64_t H = p.shape.hidden;
  const GateLayout layout = rnn_layout(H, o);
  Scratch scratch;
  ForwardCall call(p, o, layout, scratch);
  call.walk({Phase::pointwise}, 0, [&](Phase, const Run& run) {
    const Rows<T> kept = layout.kept ? layout.part(call.kept(run), 0) : Rows<T>{};
    call.k.rnn_pointwise({run.rows, H, o.gate, call.x_sums(run).read(), call.y(run), kept});
    call.zoneout(run);
  });
}

template <class T>
void rnn_options_backward(const RnnBackward<T>& p, const Options<T>& o, const OptionGradients<T>& g) {
  const int64_t H = p.shape.hidden;
  const GateLayout layout = rnn_layout(H, o);
  Scratch scratch;
  BackwardCall call(p, o, g, layout, false, scratch);
  while (call.next_block()) {
    call.walk({Phase::pointwise}, 0, [&](Phase, const Run& run) {
      const Rows<T> dz = call.dx_sums(run);
      call.state_gradient(run, dz);
      const Rows<const T> value = layout.kept ? layout.part(call.kept(run), 0) : rows_at(p.y, run.row, H);
      call.k.rnn_pointwise_backward({run.rows, H, o.gate, value, dz});
    });
    call.end_block();
  }
  call.end();
}

template int64_t rnn_options_reserve(int64_t, const Options<float>&);
template int64_t rnn_options_reserve(int64_t, const Options<double>&);
template void rnn_options_forward(const RnnForward<float>&, const Options<float>&);
template void rnn_options_forward(const RnnForward<double>&, const Options<double>&);
template void rnn_options_backward(const RnnBackward<float>&, const Options<float>&, const OptionGradients<float>&);
template void rnn_options_backward(const RnnBackward<double>&, const Options<double>&, const OptionGradients<double>&);

}  // namespace fusedrnn
