#include "gates.hpp"

namespace fusedrnn {

// Kept: activated i, f, g, o, then c.
template <class T>
GateLayout lstm_layout(int64_t hidden, const Options<T>& o) {
  const int64_t sums = (o.coupled ? 3 : 4) * hidden;
  return {5 * hidden, sums, sums, true, o.gain_ih != nullptr};
}

template <class T>
int64_t lstm_options_reserve(int64_t hidden, const Options<T>& o) {
  return lstm_layout(hidden, o).row();
}

template <class T>
void lstm_options_forward(const LstmForward<T>& p, const Options<T>& o) {
  const int64_t T_ = p.shape.steps, N = p.shape.batch, H = p.shape.hidden, P = o.projection;
  const GateLayout layout = lstm_layout(H, o);
  Scratch scratch;
  ForwardCall call(p, o, layout, scratch);
  const KernelTable<T>& k = call.k;
  const Steps& order = call.order;
  const T* const c0 = p.c0 ? p.c0 : scratch.zeros<T>(N * H);
  T *packed_hr = nullptr, *m = nullptr;
  if (o.weight_hr) {
    pack_rows(packed_hr = scratch.take<T>(padded(P, k.lanes) * H), o.weight_hr, H, P, k);
    m = scratch.take<T>(N * H);
  }
  T* const zone_c = call.zone_buffer(o.zoneout_c, H);

  // Where c of a step is: in the reserve, among all of c, or in place.
  const bool keep = p.reserve != nullptr;
  if (!keep && !p.c) copy(p.c_n, c0, N * H);
  const auto c_at = [&](int64_t s, int64_t a) -> Rows<T> {
    const int64_t row = order.row(s) + a;
    if (keep) return layout.part(p.reserve + row * layout.row(), 4 * H);
    return p.c ? rows_at(p.c, row, H) : rows_at(p.c_n, a, H);
  };

  std::vector<Phase> phases{Phase::pointwise};
  if (o.weight_hr) phases.push_back(Phase::second_product);
  if (o.weight_hr && o.zoneout_h > 0) phases.push_back(Phase::finish);
  call.walk(phases, o.weight_hr ? P * H : 0, [&](Phase phase, const Run& run) {
    const Rows<T> y = call.y(run), out = m ? rows_at(m, run.first, H) : y;
    if (phase == Phase::second_product)
      return k.affine({run.rows, P, run.part, {out.data, H, packed_hr, H}, nullptr, false, y.data, P});
    if (phase == Phase::finish) return call.zoneout(run);
    Scratch own;
    k.lstm_pointwise({.rows = run.rows,
                      .units = H,
                      .gates = int(layout.sums / H),
                      .gate = o.gate,
                      .candidate = o.candidate,
                      .output = o.output,
                      .cell_clip = T(o.cell_clip),
                      .peephole = o.weight_peephole,
                      .gain_c = o.gain_c,
                      .norm_bias_c = o.norm_bias_c,
                      .sums = call.x_sums(run).read(),
                      .c_prev = run.reset       ? Rows<const T>{call.zeros, 0}
                                : run.step == 0 ? rows_at(c0, run.first, H)
                                                : c_at(run.step - 1, run.first).read(),
                      .zone_c = call.zone(Draw::zoneout_c, run, H, zone_c),
                      .kept = layout.part(call.kept(run), 0),
                      .moments_c = layout.moments_c(call.kept(run)),
                      .c = c_at(run.step, run.first),
                      .m = out,
                      .row = own.take<T>(H)});
    if (!m) call.zoneout(run);
  });
  if (!keep && !p.c) return;
  const Rows<T> c = keep ? layout.part(p.reserve, 4 * H) : rows_at(p.c, 0, H);
  last_states(order, N, H, c0, c.data, c.stride, p.c_n);
  const int64_t rows = order.count(0, T_);
  if (keep && p.c)
    parallel_rows(rows, flops_per_element_moved * double(rows * H), [&](int64_t a, int64_t b) {
      for (int64_t row = a; row < b; ++row) copy(p.c + row * H, c.at(row), H);
    });
}

template <class T>
void lstm_options_backward(const LstmBackward<T>& p, const Options<T>& o, const OptionGradients<T>& g) {
  const int64_t N = p.shape.batch, H = p.shape.hidden, P = o.projection;
  const GateLayout layout = lstm_layout(H, o);
  Scratch scratch;
  BackwardCall call(p, o, g, layout, false, scratch);
  const KernelTable<T>& k = call.k;
  const Steps& order = call.order;
  const int64_t B = order.block_rows();
  const T* const c0 = p.c0 ? p.c0 : scratch.zeros<T>(N * H);
  T* const dh = scratch.take<T>((o.weight_hr ? B : N) * P);  // of h before zoneout
  T *packed_hr = nullptr, *dm = nullptr, *m = nullptr, *sums_hr = nullptr;
  if (o.weight_hr) {
    pack_columns(packed_hr = scratch.take<T>(padded(H, k.lanes) * P), o.weight_hr, P, H, k.lanes);
    dm = scratch.take<T>(N * H);
  }
  if (g.dweight_hr) {
    m = scratch.take<T>(B * H);
    sums_hr = outer_sums(k, scratch, H, P);
  }
  T* const candidates = g.dweight_peephole ? scratch.take<T>(B * H) : nullptr;
  T* const gain_sums = layout.norm ? call.group_sums(H) : nullptr;
  T* const norm_bias_sums = layout.norm ? call.group_sums(H) : nullptr;
  T* const zone_c = call.zone_buffer(o.zoneout_c, H);
  copy_or_zero(p.dc0, p.dc_n, N * H);  // dc of the running step lives here

  const auto c_prev = [&](int64_t s, int64_t a, bool reset) -> Rows<const T> {
    if (reset) return {call.zeros, 0};
    if (s == 0) return rows_at(c0, a, H);
    return layout.part(p.reserve + (order.row(s - 1) + a) * layout.row(), 4 * H);
  };
  std::vector<Phase> phases{Phase::pointwise};
  if (o.weight_hr) phases = {Phase::prepare, Phase::second_product, Phase::pointwise};

  while (call.next_block()) {
    call.walk(phases, o.weight_hr ? P * H : 0, [&](Phase phase, const Run& run) {
      const Rows<T> dstate = rows_at(dh, o.weight_hr ? run.row - call.from : run.first, P);
      if (phase == Phase::second_product)
        return k.affine({run.rows, H, run.part, {dstate.data, P, packed_hr, P}, nullptr, false, dm + run.first * H, H});
      if (phase == Phase::prepare || !o.weight_hr) call.state_gradient(run, dstate);
      if (phase == Phase::prepare) return;
      Scratch own;
      const auto of_block = [&](T* array) { return rows_at(array, run.row - call.from, H); };
      k.lstm_pointwise_backward(
          {.rows = run.rows,
           .units = H,
           .gates = int(layout.sums / H),
           .gate = o.gate,
           .candidate = o.candidate,
           .output = o.output,
           .cell_clip = T(o.cell_clip),
           .peephole = o.weight_peephole,
           .gain_c = o.gain_c,
           .norm_bias_c = o.norm_bias_c,
           .kept = layout.part(call.kept(run), 0),
           .moments_c = layout.moments_c(call.kept(run)),
           .c_prev = c_prev(run.step, run.first, run.reset),
           .zone_c = call.zone(Draw::zoneout_c, run, H, zone_c),
           .dm = dm ? rows_at<const T>(dm, run.first, H) : dstate.read(),
           .dc_next = run.next == Next::reset ? Rows<const T>{call.zeros, 0} : rows_at<const T>(p.dc0, run.first, H),
           .dc_given = rows_at(p.dc, run.row, H),
           .dc = rows_at(p.dc0, run.first, H),
           .dgates = call.dx_sums(run),
           .m = of_block(m),
           .c_candidate = of_block(candidates),
           .dgain_c = call.group_at(gain_sums, run, H),
           .dnorm_bias_c = call.group_at(norm_bias_sums, run, H),
           .row = own.take<T>(3 * H)});
    });
    if (g.dweight_peephole) {
      const Rows<const T> dgates = call.dh_sums().read();
      call.column_sums(call.rows, H, columns_from(dgates, layout.sums - H), {candidates, H},
                       g.dweight_peephole + 2 * H);
      for (int64_t s = call.first; s < call.last; ++s)
        order.runs(s, 0, N, [&](int64_t a, int64_t b, bool reset) {
          const Rows<const T> before = c_prev(s, a, reset),
                              d = {dgates.at(order.row(s) + a - call.from), dgates.stride};
          call.column_sums(b - a, H, d, before, g.dweight_peephole);
          if (!o.coupled) call.column_sums(b - a, H, columns_from(d, H), before, g.dweight_peephole + H);
        });
    }
    std::vector<OuterProduct<T>> outers;
    if (m) outers.push_back({call.rows, m, H, dh, P, P, sums_hr, nullptr});
    call.end_block(outers);
  }
  call.end();
  if (layout.norm) {
    call.add_groups(g.dgain_c, gain_sums, H);
    call.add_groups(g.dnorm_bias_c, norm_bias_sums, H);
  }
  order.runs(0, 0, N, [&](int64_t a, int64_t b, bool reset) {
    if (reset) zero(p.dc0 + a * H, (b - a) * H);
  });
  if (g.dweight_hr) add_transposed(k, g.dweight_hr, sums_hr, P, 0, P, H);
}

template int64_t lstm_options_reserve(int64_t, const Options<float>&);
template int64_t lstm_options_reserve(int64_t, const Options<double>&);
template void lstm_options_forward(const LstmForward<float>&, const Options<float>&);
template void lstm_options_forward(const LstmForward<double>&, const Options<double>&);
template void lstm_options_backward(const LstmBackward<float>&, const Options<float>&, const OptionGradients<float>&);
template void lstm_options_backward(const LstmBackward<double>&, const Options<double>&,
                                    const OptionGradients<double>&);

}  // namespace fusedrnn
