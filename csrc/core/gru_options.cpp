#include "gates.hpp"

namespace fusedrnn {

// Kept: r, z, n, and with reset after the candidate's share of the product with h_(t-1).
template <class T>
GateLayout gru_layout(int64_t hidden, bool reset_after, const Options<T>& o) {
  const int64_t sums = 3 * hidden;
  return {(reset_after ? 4 : 3) * hidden, sums, (reset_after ? 3 : 2) * hidden, !reset_after, o.gain_ih != nullptr};
}

template <class T>
int64_t gru_options_reserve(int64_t hidden, bool reset_after, const Options<T>& o) {
  return gru_layout(hidden, reset_after, o).row();
}

template <class T>
void gru_options_forward(const GruForward<T>& p, const Options<T>& o) {
  const int64_t N = p.shape.batch, H = p.shape.hidden;
  const bool after = p.reset_after;
  const GateLayout layout = gru_layout(H, after, o);
  Scratch scratch;
  ForwardCall call(p, o, layout, scratch);
  const KernelTable<T>& k = call.k;
  T* const gates = p.reserve ? nullptr : scratch.take<T>(N * 2 * H);  // r, z of a step
  T *packed_hn = nullptr, *reset_h = nullptr;
  if (!after) {
    pack_rows(packed_hn = scratch.take<T>(padded(H, k.lanes) * H), call.weight_hh() + 2 * H * H, H, H, k);
    reset_h = scratch.take<T>(N * H);
  }
  std::vector<Phase> phases{Phase::pointwise};
  if (!after) phases = {Phase::pointwise, Phase::second_product, Phase::finish};

  call.walk(phases, after ? 0 : H * H, [&](Phase phase, const Run& run) {
    const Rows<T> x = call.x_sums(run), h = call.h_sums(run), of_reset = rows_at(reset_h, run.first, H);
    const Rows<T> kept = layout.part(call.kept(run), 0), rz = gates ? rows_at(gates, run.first, 2 * H) : kept;
    if (phase == Phase::second_product)
      return k.affine(
          {run.rows, H, run.part, {of_reset.data, H, packed_hn, H}, nullptr, true, x.data + 2 * H, x.stride});
    if (phase == Phase::pointwise) {
      k.gru_gates({run.rows, H, o.gate, x.read(), h.read(), call.dropped(run), rz, of_reset});
      if (!after) return;
    }
    k.gru_output({run.rows, H, o.candidate, rz.read(), columns_from(x, 2 * H).read(), columns_from(h, 2 * H).read(),
                  call.h_prev(run), columns_from(kept, 2 * H), call.y(run)});
    call.zoneout(run);
  });
}

template <class T>
void gru_options_backward(const GruBackward<T>& p, const Options<T>& o, const OptionGradients<T>& g) {
  const int64_t N = p.shape.batch, H = p.shape.hidden;
  const bool after = p.reset_after;
  const GateLayout layout = gru_layout(H, after, o);
  Scratch scratch;
  BackwardCall call(p, o, g, layout, true, scratch);
  const KernelTable<T>& k = call.k;
  T* const dh = scratch.take<T>(N * H);  // of h before zoneout
  T *packed_hn = nullptr, *dreset_h = nullptr, *reset_h = nullptr, *sums_hn = nullptr;
  if (!after) {
    pack_columns(packed_hn = scratch.take<T>(padded(H, k.lanes) * H), call.weight_hh() + 2 * H * H, H, H, k.lanes);
    dreset_h = scratch.take<T>(N * H);
    reset_h = scratch.take<T>(call.order.block_rows() * H);  // r h_(t-1), of a block
    sums_hn = outer_sums(k, scratch, H, H);
  }
  std::vector<Phase> phases{Phase::pointwise};
  if (!after) phases = {Phase::pointwise, Phase::second_product, Phase::finish};

  while (call.next_block()) {
    call.walk(phases, after ? 0 : H * H, [&](Phase phase, const Run& run) {
      const Rows<const T> kept = layout.part(call.kept(run), 0);
      const Rows<T> dstate = rows_at(dh, run.first, H), dx = call.dx_sums(run), dhidden = call.dh_sums(run);
      const Rows<T> dn = columns_from(dx, 2 * H), dreset = rows_at(dreset_h, run.first, H);
      if (phase == Phase::second_product)
        return k.affine({run.rows, H, run.part, {dn.data, dn.stride, packed_hn, H}, nullptr, false, dreset.data, H});
      if (phase == Phase::pointwise) {
        call.state_gradient(run, dstate);
        k.gru_output_backward(
            {run.rows, H, o.gate, o.candidate, kept, call.h_prev(run), dstate.read(), call.carry(run), dx, dhidden});
        if (!after) return;
      }
      GruGatesBackward<T> step{.rows = run.rows, .units = H, .gate = o.gate, .r = kept, .dr = dx};
      if (after) {
        step.gated = columns_from(kept, 3 * H);
        step.dproduct = dn.read();
        step.dr_hidden = dhidden;
        step.dgated = columns_from(dhidden, 2 * H);
      } else {
        step.gated = call.h_prev(run);
        step.mask = call.mask(run);
        step.dproduct = dreset.read();
        step.product = rows_at(reset_h, run.row - call.from, H);
        step.dgated = call.recurrent(run);
      }
      k.gru_gates_backward(step);
    });
    std::vector<OuterProduct<T>> outers;
    if (!after) {
      const Rows<T> dn = columns_from(call.dh_sums(), 2 * H);
      outers.push_back({call.rows, reset_h, H, dn.data, dn.stride, H, sums_hn, nullptr});
    }
    call.end_block(outers);
  }
  call.end();
  if (!after) call.add_recurrent_gradient(p.dweight_hh, sums_hn, 2 * H, H);
}

template int64_t gru_options_reserve(int64_t, bool, const Options<float>&);
template int64_t gru_options_reserve(int64_t, bool, const Options<double>&);
template void gru_options_forward(const GruForward<float>&, const Options<float>&);
template void gru_options_forward(const GruForward<double>&, const Options<double>&);
template void gru_options_backward(const GruBackward<float>&, const Options<float>&, const OptionGradients<float>&);
template void gru_options_backward(const GruBackward<double>&, const Options<double>&, const OptionGradients<double>&);

}  // namespace fusedrnn
