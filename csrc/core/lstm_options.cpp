#include "cells.hpp"
#include "dispatch.hpp"
#include "options.hpp"

namespace fusedrnn {

// A reserve row: activated i, f, g, o, then c; with layer normalisation also both products normalised, and the inverse
// deviations of the two.
template <class T>
struct LstmLayout {
  bool norm;
  int64_t H, G, R;  // elements of the gates' sums, and of a row

  LstmLayout(int64_t hidden, const Options<T>& o)
      : norm(o.gain_ih != nullptr),
        H(hidden),
        G((o.coupled ? 3 : 4) * hidden),
        R(5 * hidden + (norm ? 2 * G + 2 : 0)) {}

  Rows<T> part(T* row, int64_t offset) const { return {row + offset, R}; }
  Rows<const T> part(const T* row, int64_t offset) const { return {row + offset, R}; }
  int64_t c() const { return 4 * H; }
  int64_t normalized_x() const { return 5 * H; }
  int64_t normalized_h() const { return 5 * H + G; }
  int64_t deviation_x() const { return 5 * H + 2 * G; }
  int64_t deviation_h() const { return 5 * H + 2 * G + 1; }
};

template <class T>
int64_t lstm_options_reserve(int64_t hidden, const Options<T>& o) {
  return LstmLayout<T>(hidden, o).R;
}

template <class T>
void lstm_options_forward(const LstmForward<T>& p, const Options<T>& o) {
  const KernelTable<T>& k = kernels<T>();
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden, P = o.projection;
  const LstmLayout<T> layout(H, o);
  const int64_t G = layout.G, R = layout.R, S = spread<T>(G);
  const bool keep = p.reserve != nullptr, norm = layout.norm;
  Scratch scratch;
  const Steps order(p.shape, p.reverse, G);
  const OptionCall<T> call(k, o, p.shape, order, P, scratch);
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * P);
  const T* const c0 = p.c0 ? p.c0 : scratch.zeros<T>(N * H);
  T* const packed_ih = scratch.take<T>(padded(G, k.lanes) * I);
  T* const packed_hh = scratch.take<T>(padded(G, k.lanes) * P);
  pack_rows(packed_ih, p.weight_ih, I, G, k);
  pack_rows(packed_hh, call.recurrent_weights(p.weight_hh, G), P, G, k);
  T* packed_hr = nullptr;
  if (o.weight_hr) pack_rows(packed_hr = scratch.take<T>(padded(P, k.lanes) * H), o.weight_hr, H, P, k);
  T* const bias = scratch.take<T>(G);
  add_biases(bias, p.bias_ih, p.bias_hh, G);
  if (o.norm_bias_ih) add(bias, o.norm_bias_ih, G);
  if (o.norm_bias_hh) add(bias, o.norm_bias_hh, G);

  const Sharing sharing(p.shape, G / H, norm ? P : I + P, sizeof(T));
  const SpreadRows<T> x_rows(scratch, N, I, !sharing.by_units()), h_rows(scratch, N, P, !sharing.by_units());
  T* const sums = scratch.take<T>((norm ? order.block_rows() : N) * S);
  T* const hidden_sums = norm ? scratch.take<T>(N * S) : nullptr;
  T* const deviations = norm ? scratch.take<T>(order.block_rows()) : nullptr;
  T* const m = o.weight_hr ? scratch.take<T>(N * H) : nullptr;
  T* const zone_h = call.zone_buffer(o.zoneout_h, P);
  T* const zone_c = call.zone_buffer(o.zoneout_c, H);

  // c of a step and row: in the reserve, among all of c, or in place.
  if (!keep && !p.c) copy(p.c_n, c0, N * H);
  const auto c_at = [&](int64_t s, int64_t a) -> Rows<T> {
    const int64_t row = order.row(s) + a;
    return keep  ? layout.part(p.reserve + row * R, layout.c())
           : p.c ? Rows<T>{p.c + row * H, H}
                 : Rows<T>{p.c_n + a * H, H};
  };

  std::vector<Phase> phases;
  if (call.masked()) phases.push_back(Phase::prepare);
  phases.push_back(Phase::product);
  phases.push_back(Phase::pointwise);
  if (o.weight_hr) phases.push_back(Phase::project);
  if (o.weight_hr && zone_h) phases.push_back(Phase::finish);

  for (int64_t first = 0, last; first < T_; first = last) {
    last = norm ? order.block_end(first) : T_;
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    if (norm)
      parallel_rows(rows, 2.0 * double(rows) * double(I * G), [&](int64_t a, int64_t b) {
        T* const out = sums + a * S;
        k.affine({b - a, G, {}, {p.x + (from + a) * I, I, packed_ih, I}, nullptr, false, out, S});
        T* const kept = keep ? p.reserve + (from + a) * R : nullptr;
        k.normalize({b - a,
                     G,
                     {out, S},
                     o.gain_ih,
                     bias,
                     keep ? layout.part(kept, layout.normalized_x()) : Rows<T>{out, S},
                     keep ? layout.part(kept, layout.deviation_x()) : Rows<T>{deviations + a, 1},
                     {out, S},
                     false});
      });
    const double flops = 2.0 * double(rows) * double(((norm ? 0 : I) + P) * G + (o.weight_hr ? P * H : 0));
    const auto walk = [&](int64_t s, int64_t index, int64_t slice, int64_t slice_end, Part part) {
      const Phase phase = phases[std::size_t(index)];
      if (over_rows(phase)) std::tie(slice, slice_end) = rows_of(part, slice, slice_end);
      order.runs(s, slice, slice_end, [&](int64_t a, int64_t b, bool reset) {
        const int64_t row = order.row(s) + a, n = b - a;
        const T* const before = (s == 0 ? h0 : p.y + order.row(s - 1) * P) + a * P;
        const Rows<const T> h_prev = reset ? Rows<const T>{call.zeros(), 0} : Rows<const T>{before, P};
        T* const out = sums + (norm ? row - from : a) * S;
        T* const y = p.y + row * P;
        const auto blend = [&] {
          if (zone_h) k.zoneout({n, P, call.zone(Draw::zoneout_h, s, a, b, P, zone_h), h_prev, {y, P}});
        };
        switch (phase) {
          case Phase::prepare:
            if (!reset) call.prepare(before, a, b);
            break;
          case Phase::product: {
            const Operand<T> h = reset ? Operand<T>{} : h_rows.operand(call.operand(before, a), a, n, packed_hh);
            if (norm)
              k.affine({n, G, part, h, nullptr, false, hidden_sums + a * S, S});
            else
              k.rnn_forward(
                  {n, G, part, x_rows.operand(p.x + row * I, a, n, packed_ih), h, bias, false, false, out, S});
            break;
          }
          case Phase::pointwise: {
            Scratch own;
            if (norm) {
              const Rows<T> product{hidden_sums + a * S, S};
              T* const kept = keep ? p.reserve + row * R : nullptr;
              k.normalize({n,
                           G,
                           {product.data, S},
                           o.gain_hh,
                           nullptr,
                           keep ? layout.part(kept, layout.normalized_h()) : product,
                           keep ? layout.part(kept, layout.deviation_h()) : Rows<T>{deviations + a, 1},
                           {out, S},
                           true});
            }
            const Rows<const T> c_prev = reset    ? Rows<const T>{call.zeros(), 0}
                                         : s == 0 ? Rows<const T>{c0 + a * H, H}
                                                  : c_at(s - 1, a).read();
            k.lstm_pointwise({.rows = n,
                              .units = H,
                              .gates = int(G / H),
                              .gate = o.gate,
                              .candidate = o.candidate,
                              .output = o.output,
                              .cell_clip = T(o.cell_clip),
                              .peephole = o.weight_peephole,
                              .gain_c = o.gain_c,
                              .norm_bias_c = o.norm_bias_c,
                              .sums = {out, S},
                              .c_prev = c_prev,
                              .zone_c = call.zone(Draw::zoneout_c, s, a, b, H, zone_c),
                              .kept = keep ? layout.part(p.reserve + row * R, 0) : Rows<T>{},
                              .c = c_at(s, a),
                              .m = m ? Rows<T>{m + a * H, H} : Rows<T>{y, H},
                              .row = own.take<T>(H)});
            if (!m) blend();
            break;
          }
          case Phase::project:
            k.affine({n, P, part, {m + a * H, H, packed_hr, H}, nullptr, false, y, P});
            break;
          case Phase::finish:
            blend();
        }
      });
    };
    sharing.walk_phases(first, last, int64_t(phases.size()), flops, walk);
  }
  last_states(order, N, P, h0, p.y, P, p.h_n);
  if (keep || p.c) {
    const Rows<T> c = keep ? layout.part(p.reserve, layout.c()) : Rows<T>{p.c, H};
    last_states(order, N, H, c0, c.data, c.stride, p.c_n);
    if (keep && p.c)
      parallel_rows(order.count(0, T_), flops_per_element_moved * double(order.count(0, T_) * H),
                    [&](int64_t a, int64_t b) {
                      for (int64_t row = a; row < b; ++row) copy(p.c + row * H, c.at(row), H);
                    });
  }
}

template <class T>
void lstm_options_backward(const LstmBackward<T>& p, const Options<T>& o, const OptionGradients<T>& g) {
  const KernelTable<T>& k = kernels<T>();
  const int64_t T_ = p.shape.steps, N = p.shape.batch, I = p.shape.inputs, H = p.shape.hidden, P = o.projection;
  const LstmLayout<T> layout(H, o);
  const int64_t G = layout.G, R = layout.R, D = spread<T>(G);
  const bool norm = layout.norm;
  Scratch scratch;
  const Steps order(p.shape, p.reverse, D);
  const OptionCall<T> call(k, o, p.shape, order, P, scratch);
  T* const packed_hh = scratch.take<T>(padded(P, k.lanes) * G);
  pack_columns(packed_hh, call.recurrent_weights(p.weight_hh, G), G, P, k.lanes);
  T *packed_ih = nullptr, *packed_hr = nullptr;
  if (p.dx) pack_columns(packed_ih = scratch.take<T>(padded(I, k.lanes) * G), p.weight_ih, G, I, k.lanes);
  if (o.weight_hr) pack_columns(packed_hr = scratch.take<T>(padded(H, k.lanes) * P), o.weight_hr, P, H, k.lanes);
  const T* const h0 = p.h0 ? p.h0 : scratch.zeros<T>(N * P);
  const T* const c0 = p.c0 ? p.c0 : scratch.zeros<T>(N * H);

  const int64_t B = order.block_rows();
  const Sharing sharing(p.shape, G / H, P, sizeof(T));
  T* const dgates = scratch.take<T>(B * D);                  // of the gates' sums; a block's, as steps lie in time
  T* dproduct = norm ? scratch.take<T>(B * D) : dgates;      // of the recurrent product
  T* next = scratch.take<T>(N * D);                          // dproduct of the step after the block
  T* const recurrent = scratch.take<T>(N * P);               // dproduct of the step after, times weight_hh
  T* const dh = scratch.take<T>((o.weight_hr ? B : N) * P);  // of h before zoneout
  T* const dm = o.weight_hr ? scratch.take<T>(N * H) : nullptr;
  T* const m = o.weight_hr ? scratch.take<T>(B * H) : nullptr;
  T* const candidates = o.weight_peephole ? scratch.take<T>(B * H) : nullptr;
  T* const normalized_c = norm ? scratch.take<T>(B * H) : nullptr;
  T* const dnormalized_c = norm ? scratch.take<T>(B * H) : nullptr;
  T* const zone_h = call.zone_buffer(o.zoneout_h, P);
  T* const zone_c = call.zone_buffer(o.zoneout_c, H);
  T* const carry = zone_h ? scratch.zeros<T>(N * P) : nullptr;  // what passes by the cell from step to step
  T* const sums_ih = outer_sums(k, scratch, I, G);
  T* const sums_hh = outer_sums(k, scratch, P, G);
  T* const sums_hr = o.weight_hr ? outer_sums(k, scratch, H, P) : nullptr;
  T* const bias_sums = scratch.zeros<T>(G);
  copy_or_zero(p.dh0, p.dh_n, N * P);  // of rows without steps
  copy_or_zero(p.dc0, p.dc_n, N * H);  // dc of the running step lives here

  // A step's phases, without the first over rows where `state` can wait for the second.
  std::vector<Phase> phases{Phase::product};
  if (o.weight_hr) phases = {Phase::product, Phase::prepare, Phase::project};
  phases.push_back(Phase::pointwise);

  for (int64_t last = T_, first; last > 0; last = first) {
    first = order.block_begin(last);
    const int64_t from = order.row_from(first, last), rows = order.count(first, last);
    const auto walk = [&](int64_t index, int64_t slice, int64_t slice_end, Part part) {
      const int64_t s = last - 1 - (index / int64_t(phases.size()) - first);
      const Phase phase = phases[std::size_t(index % int64_t(phases.size()))];
      if (over_rows(phase)) std::tie(slice, slice_end) = rows_of(part, slice, slice_end);
      order.runs_back(s, slice, slice_end, [&](int64_t a, int64_t b, Next what, bool reset) {
        const int64_t row = order.row(s) + a, n = b - a;
        const Rows<T> dstate{dh + (o.weight_hr ? row - from : a) * P, P};
        const auto state = [&] {
          k.state_gradient(
              {.rows = n,
               .units = P,
               .recurrent = what == Next::step ? Rows<const T>{recurrent + a * P, P} : Rows<const T>{},
               .mask = call.mask(a),
               .carry_next = carry && what == Next::step ? Rows<const T>{carry + a * P, P} : Rows<const T>{},
               .dh_n = what == Next::end && p.dh_n ? Rows<const T>{p.dh_n + a * P, P} : Rows<const T>{},
               .dy = p.dy ? Rows<const T>{p.dy + row * P, P} : Rows<const T>{},
               .zone = call.zone(Draw::zoneout_h, s, a, b, P, zone_h),
               .clip = T(o.grad_clip),
               .carry = {carry ? carry + a * P : nullptr, P},
               .out = dstate});
        };
        switch (phase) {
          case Phase::product:
            if (what == Next::step) {
              const T* const following = s + 1 < last ? dproduct + (order.row(s + 1) - from) * D : next;
              k.affine({n, P, part, {following + a * D, D, packed_hh, G}, nullptr, false, recurrent + a * P, P});
            }
            break;
          case Phase::prepare:
            state();
            break;
          case Phase::project:
            k.affine({n, H, part, {dstate.data, P, packed_hr, P}, nullptr, false, dm + a * H, H});
            break;
          default: {
            if (!o.weight_hr) state();
            Scratch own;
            const T* const kept = p.reserve + row * R;
            const auto of_block = [&](T* array) { return array ? Rows<T>{array + (row - from) * H, H} : Rows<T>{}; };
            k.lstm_pointwise_backward(
                {.rows = n,
                 .units = H,
                 .gates = int(G / H),
                 .gate = o.gate,
                 .candidate = o.candidate,
                 .output = o.output,
                 .cell_clip = T(o.cell_clip),
                 .peephole = o.weight_peephole,
                 .gain_c = o.gain_c,
                 .norm_bias_c = o.norm_bias_c,
                 .kept = layout.part(kept, 0),
                 .c_prev = reset    ? Rows<const T>{call.zeros(), 0}
                           : s == 0 ? Rows<const T>{c0 + a * H, H}
                                    : layout.part(p.reserve + (order.row(s - 1) + a) * R, layout.c()),
                 .zone_c = call.zone(Draw::zoneout_c, s, a, b, H, zone_c),
                 .dm = dm ? Rows<const T>{dm + a * H, H} : Rows<const T>{dstate.data, H},
                 .dc_next = what == Next::reset ? Rows<const T>{call.zeros(), 0} : Rows<const T>{p.dc0 + a * H, H},
                 .dc_given = p.dc ? Rows<const T>{p.dc + row * H, H} : Rows<const T>{},
                 .dc = {p.dc0 + a * H, H},
                 .dgates = {dgates + (row - from) * D, D},
                 .m = of_block(m),
                 .c_candidate = of_block(candidates),
                 .normalized_c = of_block(normalized_c),
                 .dnormalized_c = of_block(dnormalized_c),
                 .row = own.take<T>(3 * H)});
            if (norm)
              k.normalize_backward({n,
                                    G,
                                    {dgates + (row - from) * D, D},
                                    layout.part(kept, layout.normalized_h()),
                                    layout.part(kept, layout.deviation_h()),
                                    o.gain_hh,
                                    {dproduct + (row - from) * D, D}});
          }
        }
      });
    };
    const double flops = 2.0 * double(rows) * double(P * G + (o.weight_hr ? P * H : 0));
    sharing.walk_phases(first, last, int64_t(phases.size()), flops,
                        [&](int64_t s, int64_t phase, int64_t a, int64_t b, Part part) {
                          walk(s * int64_t(phases.size()) + phase, a, b, part);
                        });

    const T* const kept = p.reserve + from * R;
    if (norm) {
      call.column_sums(rows, G, {dgates, D}, {}, bias_sums);
      call.column_sums(rows, G, {dgates, D}, layout.part(kept, layout.normalized_x()), g.dgain_ih);
      call.column_sums(rows, G, {dgates, D}, layout.part(kept, layout.normalized_h()), g.dgain_hh);
      call.column_sums(rows, H, {dnormalized_c, H}, {normalized_c, H}, g.dgain_c);
      call.column_sums(rows, H, {dnormalized_c, H}, {}, g.dnorm_bias_c);
    }
    if (o.weight_peephole) {
      call.column_sums(rows, H, {dgates + G - H, D}, {candidates, H}, g.dweight_peephole + 2 * H);
      for (int64_t s = first; s < last; ++s)
        order.runs(s, 0, N, [&](int64_t a, int64_t b, bool reset) {
          if (reset) return;
          const Rows<const T> c_prev =
              s == 0 ? Rows<const T>{c0 + a * H, H} : layout.part(p.reserve + (order.row(s - 1) + a) * R, layout.c());
          const T* const d = dgates + (order.row(s) + a - from) * D;
          call.column_sums(b - a, H, {d, D}, c_prev, g.dweight_peephole);
          if (!o.coupled) call.column_sums(b - a, H, {d + H, D}, c_prev, g.dweight_peephole + H);
        });
    }
    if (norm)
      parallel_rows(rows, 8.0 * double(rows * G), [&](int64_t a, int64_t b) {
        const T* const r = kept + a * R;
        k.normalize_backward({b - a,
                              G,
                              {dgates + a * D, D},
                              layout.part(r, layout.normalized_x()),
                              layout.part(r, layout.deviation_x()),
                              o.gain_ih,
                              {dgates + a * D, D}});
      });
    Scratch of_block;
    std::vector<OuterProduct<T>> outers{{rows, p.x + from * I, I, dgates, D, G, sums_ih, norm ? nullptr : bias_sums}};
    call.previous(first, last, h0, p.y, of_block, [&](const T* h_prev, int64_t count, int64_t row) {
      outers.push_back({count, h_prev, P, dproduct + (row - from) * D, D, G, sums_hh, nullptr});
    });
    if (m) outers.push_back({rows, m, H, dh, P, P, sums_hr, nullptr});
    const AffineStep<T> dx{rows, I, {}, {dgates, D, packed_ih, G}, nullptr, false, p.dx ? p.dx + from * I : nullptr, I};
    gradient_products(k, outers, p.dx ? &dx : nullptr);
    copy(next, dproduct + (order.row(first) - from) * D, order.rows(first) * D);
  }
  order.runs(0, 0, N, [&](int64_t a, int64_t b, bool reset) {
    if (reset) {
      std::fill(p.dh0 + a * P, p.dh0 + b * P, T(0));
      return std::fill(p.dc0 + a * H, p.dc0 + b * H, T(0));
    }
    k.affine({b - a, P, {}, {next + a * D, D, packed_hh, G}, nullptr, false, recurrent + a * P, P});
    k.state_gradient({.rows = b - a,
                      .units = P,
                      .recurrent = {recurrent + a * P, P},
                      .mask = call.mask(a),
                      .carry_next = {carry ? carry + a * P : nullptr, P},
                      .clip = T(o.grad_clip),
                      .out = {p.dh0 + a * P, P}});
  });
  add_transposed(k, p.dweight_ih, sums_ih, G, 0, G, I);
  call.add_recurrent_gradient(p.dweight_hh, sums_hh, G, G);
  if (o.weight_hr) add_transposed(k, g.dweight_hr, sums_hr, P, 0, P, H);
  for (T* const bias : {p.dbias_ih, p.dbias_hh, g.dnorm_bias_ih, g.dnorm_bias_hh}) add(bias, bias_sums, G);
}

template int64_t lstm_options_reserve(int64_t, const Options<float>&);
template int64_t lstm_options_reserve(int64_t, const Options<double>&);
template void lstm_options_forward(const LstmForward<float>&, const Options<float>&);
template void lstm_options_forward(const LstmForward<double>&, const Options<double>&);
template void lstm_options_backward(const LstmBackward<float>&, const Options<float>&, const OptionGradients<float>&);
template void lstm_options_backward(const LstmBackward<double>&, const Options<double>&,
                                    const OptionGradients<double>&);

}  // namespace fusedrnn
