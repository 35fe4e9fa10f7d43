// The loop over time of a block, forward beside backward. Each step: what the formulas will read is on its way from
// memory while the block receives the operand and its warps multiply; then the warps' sums meet in shared memory, each
// thread finishes its own units of its own rows, whose state never leaves its registers, and puts their part of the
// next operand where the team finds it.
#pragma once

#include "cells.cuh"
#include "exchange.cuh"

namespace fusedrnn::cuda {

// A unit of a row, thread_elements to a thread.
struct Element {
  int row, unit;   // of the team
  int n;           // row of the batch
  int steps;       // of this row; negative for a place that only fills the tile
  Shared partial;  // its sum of the first gate and split

  FUSEDRNN_DEVICE bool exists() const { return steps >= 0; }
};

// What a block knows beside the arguments. `gates`: sums to a unit.
template <int gates>
struct Place {
  const Arguments& p;
  const Member member;
  int steps[thread_elements];

  FUSEDRNN_DEVICE explicit Place(const Arguments& arguments) : p(arguments), member(p, row_tiles(p)) {
    FUSEDRNN_UNROLL
    for (int i = 0; i < thread_elements; ++i) {
      steps[i] = 0;
      const Element e = element(i);
      const bool exists = e.row < p.layout.rows && e.n < p.batch && e.unit < p.hidden;
      steps[i] = !exists ? -1 : p.lengths ? device::load_constant(p.lengths + e.n) : p.steps;
    }
  }

  // Of the batch, that the team has.
  FUSEDRNN_DEVICE int rows() const {
    const int left = p.batch - member.tile * p.layout.rows;
    return left < p.layout.rows ? left : p.layout.rows;
  }
  FUSEDRNN_DEVICE bool reverse() const { return p.reverse >> member.direction & 1; }
  FUSEDRNN_DEVICE int warp() const { return device::thread() / device::warp_lanes; }
  FUSEDRNN_DEVICE int group() const { return warp() % p.layout.groups; }
  FUSEDRNN_DEVICE int split() const { return warp() / p.layout.groups; }
  FUSEDRNN_DEVICE int partial_bytes() const { return p.layout.rows / row_group * partial_floats<gates> * 4; }
  FUSEDRNN_DEVICE Shared own_partial() const { return p.layout.partial + warp() * partial_bytes(); }

  FUSEDRNN_DEVICE Element element(int i) const {
    const Layout& l = p.layout;
    const int index = device::thread() + i * device::threads();
    const int row = index >> l.unit_bits, unit = index & ((1 << l.unit_bits) - 1);
    const int in_partial =
        row / row_group * partial_floats<gates> + row % row_group * partial_stride + unit % group_units;
    return {row, (member.number << l.unit_bits) + unit, member.tile * l.rows + row, steps[i],
            Shared(l.partial + unit / group_units * partial_bytes() + 4 * in_partial)};
  }

  // The sums of an element over all splits.
  FUSEDRNN_DEVICE void sum(const Element& e, float (&sums)[gates]) const {
    const int next = p.layout.groups * partial_bytes();
    const Shared end = e.partial + p.layout.splits * next;
    FUSEDRNN_UNROLL
    for (int g = 0; g < gates; ++g) sums[g] = 0;
    FUSEDRNN_UNROLL_TWICE
    for (Shared at = e.partial; at < end; at += next) {
      FUSEDRNN_UNROLL
      for (int g = 0; g < gates; ++g) sums[g] += device::load_shared<float>(at + g * (partial_gate * 4));
    }
  }

  // Where an element lies in arrays [T, N, D, width] at time t, and in [D, N, H]. The plan refuses what 32 bits do not
  // hold: twice the registers for every address would be missing for the weights.
  FUSEDRNN_DEVICE uint32_t at_time(const Element& e, int t, int width) const {
    return ((uint32_t(t) * p.batch + e.n) * p.directions + member.direction) * width + e.unit;
  }
  FUSEDRNN_DEVICE uint32_t at_end(const Element& e) const {
    return (uint32_t(member.direction) * p.batch + e.n) * p.hidden + e.unit;
  }

  // The time of a row's step. Past a row's end time and step are the same.
  FUSEDRNN_DEVICE int time(const Element& e, int step) const {
    return reverse() && step < e.steps ? e.steps - 1 - step : step;
  }
};

// What is read ahead stays in its storage type until it is needed: converted at once, the thread would wait for it at
// once.
template <class S>
FUSEDRNN_DEVICE S read_ahead(const void* array, uint32_t at) {
  return device::load_constant(static_cast<const S*>(array) + at);
}
template <class S>
FUSEDRNN_DEVICE float read(const void* array, uint32_t at) {
  return device::to_float(read_ahead<S>(array, at));
}
template <class S>
FUSEDRNN_DEVICE void write(void* array, uint32_t at, float x) {
  device::store(static_cast<S*>(array) + at, device::from_float<S>(x));
}

// The state that passes from launch to launch, or begins and ends a pass.
template <class S, int gates>
FUSEDRNN_DEVICE void read_state(const Place<gates>& place, bool first, const void* h, const void* c,
                                State (&state)[thread_elements]) {
  const Arguments& p = place.p;
  const uint32_t half = uint32_t(p.directions) * p.batch * p.hidden;
  FUSEDRNN_UNROLL
  for (int i = 0; i < thread_elements; ++i) {
    state[i] = {0, 0};
    const Element e = place.element(i);
    if (!e.exists()) continue;
    const uint32_t at = place.at_end(e);
    if (!first)
      state[i] = {device::load(p.state + at), device::load(p.state + half + at)};
    else
      state[i] = {h ? read<S>(h, at) : 0, c ? read<S>(c, at) : 0};
  }
}
template <class S, int gates>
FUSEDRNN_DEVICE void write_state(const Place<gates>& place, bool last, void* h, void* c,
                                 const State (&state)[thread_elements]) {
  const Arguments& p = place.p;
  const uint32_t half = uint32_t(p.directions) * p.batch * p.hidden;
  FUSEDRNN_UNROLL
  for (int i = 0; i < thread_elements; ++i) {
    const Element e = place.element(i);
    if (!e.exists()) continue;
    const uint32_t at = place.at_end(e);
    if (last) {
      if (h) write<S>(h, at, state[i].h);
      if (c) write<S>(c, at, state[i].c);
    } else {
      device::store(p.state + at, state[i].h);
      device::store(p.state + half + at, state[i].c);
    }
  }
}

template <class Cell, class Product, template <class, int> class Exchange>
FUSEDRNN_KERNEL(block_threads)
forward(const Arguments p) {
  using S = typename Product::Storage;
  constexpr int G = Cell::gates;
  const int H = p.hidden, groups = p.layout.groups;
  const Place<G> place(p);
  const Member& m = place.member;
  using Team = Exchange<Product, 1>;
  const Weights<Product, G, Team::resident> weights(p, m.direction, m.number * groups + place.group(), place.split());
  Team team(p, m);

  State state[thread_elements];
  read_state<S>(place, p.first_step == 0, p.h0, p.c0, state);
  float bias_hn[thread_elements];
  FUSEDRNN_UNROLL
  for (int i = 0; i < thread_elements; ++i) {
    const Element e = place.element(i);
    bias_hn[i] = Cell::has_bias_hn && p.bias_hn && e.exists() ? read<S>(p.bias_hn, m.direction * H + e.unit) : 0;
  }

  FUSEDRNN_ROLLED
  for (int s = p.first_step; s < p.last_step; ++s) {
    S ahead[thread_elements][G];
    FUSEDRNN_UNROLL
    for (int i = 0; i < thread_elements; ++i) {
      const Element e = place.element(i);
      if (s >= e.steps) continue;
      const uint32_t at = place.at_time(e, place.time(e, s), G * H);
      FUSEDRNN_UNROLL
      for (int g = 0; g < G; ++g) ahead[i][g] = read_ahead<S>(p.gates_x, at + g * H);
    }
    team.receive(s);
    weights.multiply(team.operand(s), place.rows(), place.own_partial());
    device::sync_threads();
    FUSEDRNN_UNROLL
    for (int i = 0; i < thread_elements; ++i) {
      const Element e = place.element(i);
      if (!e.exists()) continue;
      const int t = place.time(e, s);
      const uint32_t at = place.at_time(e, t, H);
      if (s < e.steps) {
        float x[G], sums[G], kept[Cell::saved > 0 ? Cell::saved : 1];
        FUSEDRNN_UNROLL
        for (int g = 0; g < G; ++g) x[g] = device::to_float(ahead[i][g]);
        place.sum(e, sums);
        Cell::forward(x, sums, bias_hn[i], p.relu, state[i], kept);
        write<S>(p.y, at, state[i].h);
        if (Cell::saved > 0 && p.gates) {
          const uint32_t gates_at = place.at_time(e, t, Cell::saved * H);
          FUSEDRNN_UNROLL
          for (int g = 0; g < Cell::saved; ++g) write<S>(p.gates, gates_at + g * H, kept[g]);
        }
        if (Cell::has_c && p.cells) device::store(p.cells + at, state[i].c);
      } else {
        write<S>(p.y, at, 0);
      }
      team.put(s + 1, e.row, 0, e.unit, state[i].h);
    }
    if (s + 1 < p.steps) team.send(s + 1);
  }
  write_state<S>(place, p.last_step == p.steps, p.h_n, Cell::has_c ? p.c_n : nullptr, state);
}

// Turn u takes step T - 1 - u; turn T only gives dh0.
template <class Cell, class Product, template <class, int> class Exchange>
FUSEDRNN_KERNEL(block_threads)
backward(const Arguments p) {
  using S = typename Product::Storage;
  constexpr int G = Cell::gates, W = Cell::written;
  const int H = p.hidden, groups = p.layout.groups;
  const Place<1> place(p);
  const Member& m = place.member;
  using Team = Exchange<Product, G>;
  const Weights<Product, 1, Team::resident> weights(p, m.direction, m.number * groups + place.group(), place.split());
  Team team(p, m);

  State state[thread_elements];  // dh and dc that come from later steps, but for the product
  read_state<S>(place, p.first_step == 0, p.dh_n, p.dc_n, state);

  FUSEDRNN_ROLLED
  for (int turn = p.first_step; turn < p.last_step; ++turn) {
    const int s = p.steps - 1 - turn;
    Past<S, Cell::saved> past[thread_elements];
    FUSEDRNN_UNROLL
    for (int i = 0; i < thread_elements; ++i) {
      const Element e = place.element(i);
      if (s < 0 || s >= e.steps) continue;
      Past<S, Cell::saved>& q = past[i];
      q = {};
      const int t = place.time(e, s), before = place.time(e, s - 1);
      const uint32_t at = place.at_time(e, t, H), at_before = place.at_time(e, before, H);
      if (p.dy) q.dy = read_ahead<S>(p.dy, at);
      if (Cell::saved > 0) {
        const uint32_t gates_at = place.at_time(e, t, Cell::saved * H);
        FUSEDRNN_UNROLL
        for (int g = 0; g < Cell::saved; ++g) q.gates[g] = read_ahead<S>(p.gates, gates_at + g * H);
      }
      if (Cell::reads_h) q.h = read_ahead<S>(p.y, at);
      if (Cell::reads_h_prev) {
        if (s > 0)
          q.h_prev = read_ahead<S>(p.y, at_before);
        else if (p.h0)
          q.h_prev = read_ahead<S>(p.h0, place.at_end(e));
      }
      if (Cell::has_c) {
        q.c = device::load_constant(p.cells + at);
        if (s > 0)
          q.c_prev = device::load_constant(p.cells + at_before);
        else if (p.c0)
          q.c_prev = read<S>(p.c0, place.at_end(e));
      }
    }
    if (turn > 0) {
      team.receive(turn);
      weights.multiply(team.operand(turn), place.rows(), place.own_partial());
      device::sync_threads();
    }
    FUSEDRNN_UNROLL
    for (int i = 0; i < thread_elements; ++i) {
      const Element e = place.element(i);
      if (!e.exists()) continue;
      float sums[1] = {0};
      if (turn > 0) place.sum(e, sums);
      state[i].h += sums[0];
      if (s < 0) continue;
      float dgates[W];
      FUSEDRNN_UNROLL
      for (int g = 0; g < W; ++g) dgates[g] = 0;
      if (s < e.steps) {
        const Past<float, Cell::saved> q = past[i].in_float();
        Cell::backward(state[i].h + q.dy, q, p.relu, state[i], dgates);
      }
      const uint32_t at = place.at_time(e, place.time(e, s), W * H);
      FUSEDRNN_UNROLL
      for (int g = 0; g < W; ++g) write<S>(p.dgates, at + g * H, dgates[g]);
      FUSEDRNN_UNROLL
      for (int g = 0; g < G; ++g) team.put(turn + 1, e.row, g, e.unit, dgates[Cell::sent(g)]);
    }
    if (s >= 0) team.send(turn + 1);
  }
  write_state<S>(place, p.last_step == p.steps + 1, p.dh0, Cell::has_c ? p.dc0 : nullptr, state);
}

}  // namespace fusedrnn::cuda
