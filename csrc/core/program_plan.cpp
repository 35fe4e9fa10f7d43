// Reads a plan from the numbers that python/fusedrnn/scan/encode.py writes.
#include <stdexcept>
#include <string>
#include <utility>

#include "program.hpp"

namespace fusedrnn {
namespace {

constexpr std::size_t most_places = 64;

class Reader {
 public:
  Reader(const int64_t* code, int64_t size) : next_(code), end_(code + size) {}

  int64_t number() {
    if (next_ == end_) fail("it ends too early");
    return *next_++;
  }

  int64_t number(int64_t low, int64_t high) {
    const int64_t n = number();
    if (n < low || n > high) fail("a number is out of range");
    return n;
  }

  int64_t width() { return number(0, int64_t(1) << 40); }

  std::vector<int64_t> list() {
    std::vector<int64_t> found(std::size_t(number(0, end_ - next_)));
    for (int64_t& n : found) n = number();
    return found;
  }

  Place place() {
    const int64_t root = number(-1, int64_t(1) << 20);
    return {root, number()};
  }

  // Calls read() as often as the next number says.
  template <class Read>
  auto many(Read read) {
    std::vector<decltype(read())> found;
    for (int64_t n = number(0, end_ - next_); n > 0; --n) found.push_back(read());
    return found;
  }

  bool done() const { return next_ == end_; }

  [[noreturn]] static void fail(const char* why) {
    throw std::invalid_argument(std::string("plan: ") + why + "; this may be a bug of fusedrnn");
  }

 private:
  const int64_t *next_, *end_;
};

template <class Numbers>
void read_axes(Reader& r, int64_t dims, Numbers& numbers) {
  for (int64_t i = 0; i < dims; ++i) numbers[i] = r.number();
}

GroupOp read_op(Reader& r, const std::vector<double>& constants) {
  GroupOp op{};
  op.code = r.number(-1, with_scalar + int64_t(WithScalar::count) - 1);
  if (op.code >= int64_t(Elementwise::count) && op.code < with_scalar) Reader::fail("an operation is unknown");
  for (int64_t& operand : op.operands) operand = r.number();
  const int64_t constant = r.number(-1, int64_t(constants.size()) - 1);
  op.constant = constant < 0 ? 0.0 : constants[std::size_t(constant)];
  if (op.code < 0) {
    op.pattern.dims = int32_t(r.number(1, move_dims));
    read_axes(r, op.pattern.dims, op.pattern.size);
    read_axes(r, op.pattern.dims, op.pattern.stride);
  }
  return op;
}

Instruction read_instruction(Reader& r, const std::vector<double>& constants) {
  Instruction in{};
  in.code = Code(r.number(0, int64_t(Code::count) - 1));
  in.places = r.many([&] { return r.place(); });
  if (in.places.size() > most_places) Reader::fail("an instruction has too many places");
  in.numbers = r.list();
  if (in.code == Code::group)
    in.passes = r.many([&] {
      Passes passes{};
      passes.rows = r.width();
      passes.size = r.width();
      passes.strides = r.list();
      if (passes.strides.size() != in.places.size()) Reader::fail("a group's places have no strides");
      passes.ops = r.many([&] { return read_op(r, constants); });
      return passes;
    });
  if (in.code == Code::move) {
    in.move.dims = int32_t(r.number(1, move_dims));
    in.move.add = r.number(0, 1) != 0;
    read_axes(r, in.move.dims, in.move.size);
    read_axes(r, in.move.dims, in.move.out_stride);
    read_axes(r, in.move.dims, in.move.in_stride);
  }
  if (in.code == Code::product) {
    RowProduct& p = in.product;
    for (int64_t* n : {&p.batch, &p.m, &p.n, &p.k, &p.a_batch, &p.a_m, &p.a_k, &p.b_batch, &p.b_k, &p.b_n, &p.out_batch,
                       &p.out_m, &p.out_n})
      *n = r.number();
    p.add = r.number(0, 1) != 0;
  }
  return in;
}

}  // namespace

Plan read_plan(const int64_t* code, int64_t size, std::vector<double> constants) {
  Reader r(code, size);
  Plan plan{};
  for (int64_t* width : {&plan.scratch, &plan.state, &plan.row, &plan.totals, &plan.lifted, &plan.shared, &plan.reserve,
                         &plan.registers})
    *width = r.width();
  plan.flops = double(r.number());
  plan.lanes_from = r.number(1, program_lanes);
  plan.state_widths = r.list();
  plan.state_offsets = r.list();
  plan.leaves = r.list();
  plan.inputs = r.list();
  plan.rows = r.list();
  plan.outputs = r.list();
  plan.row_outputs = r.list();
  plan.shared_outputs = r.many([&] { return r.place(); });
  plan.shared_output_widths = r.list();
  plan.deferred_widths = r.list();
  for (const int64_t once : r.list()) plan.deferred_once.push_back(once != 0);
  plan.packed = r.many([&] {
    const Place weights = r.place();
    const int64_t units = r.width(), depth = r.width(), stride_unit = r.number(), stride_depth = r.number();
    return Packed{weights, units, depth, stride_unit, stride_depth};
  });
  plan.lifts = r.many([&] {
    const Place from = r.place();
    const int64_t width = r.width();
    return Lifted{from, width, r.width()};
  });
  plan.deferred = r.many([&] {
    Deferred d{};
    d.kind = Deferred::Kind(r.number(0, 2));
    d.once = r.number(0, 1) != 0;
    for (int64_t* n : {&d.a, &d.b, &d.m, &d.columns, &d.inputs, &d.offset, &d.bias_offset}) *n = r.number();
    return d;
  });
  for (Stage* stage : {&plan.shared_before, &plan.row_before, &plan.step, &plan.row_after, &plan.shared_after})
    *stage = r.many([&] { return read_instruction(r, constants); });
  if (!r.done()) Reader::fail("it is too long");
  plan.constants = std::move(constants);
  return plan;
}

}  // namespace fusedrnn
