#include "../core/program.hpp"

#include <memory>
#include <stdexcept>

#include "../core/parallel.hpp"
#include "data.hpp"

namespace fusedrnn::bindings {
namespace {

// What a call is, beside its arrays.
struct ProgramRun {
  int64_t steps, batch;
  std::vector<int64_t> lengths;
  bool uneven, reverse;
  uint64_t seed;
  uint32_t row_offset, step_offset;
  int64_t checkpoint, lanes, chunk;
};

ProgramRun make_run(int64_t steps, int64_t batch, const py::object& lengths, bool reverse, uint64_t seed,
                    uint32_t row_offset, uint32_t step_offset, int64_t checkpoint, int64_t lanes, int64_t chunk) {
  ProgramRun run{steps,      batch, {},   !lengths.is_none(), reverse, seed, row_offset, step_offset,
                 checkpoint, lanes, chunk};
  if (steps < 1) throw py::value_error(std::string("steps: ") + no_steps);
  if (batch < 0 || checkpoint < 0) throw py::value_error("batch, checkpoint: expected numbers from 0");
  if (lanes != 0 && lanes != 1 && lanes != program_lanes) throw py::value_error("lanes: expected 0, 1 or 16");
  if (chunk < 0 || chunk % program_lanes) throw py::value_error("chunk: expected a multiple of 16");
  require_addressable("steps", std::to_string(steps) + " for " + std::to_string(batch) + " rows", {steps, batch});
  if (run.uneven) {
    const int64_t* const values = integers(lengths, "lengths", batch);
    run.lengths.assign(values, values + batch);
    for (const int64_t n : run.lengths)
      if (n < 0 || n > steps)
        throw py::value_error("lengths: expected numbers from 0 to " + std::to_string(steps) + ", got " +
                              std::to_string(n));
  }
  return run;
}

// What forward keeps: arrays of the call's dtype, and how its rows were cut.
struct ProgramKept {
  py::object states, reserve, rows, shared;
  std::vector<Team> teams;
  int64_t checkpoint;
};

std::shared_ptr<Plan> make_plan(const py::array_t<int64_t, py::array::c_style>& code,
                                const py::array_t<double, py::array::c_style>& constants) {
  const double* const first = constants.data();
  return std::make_shared<Plan>(read_plan(code.data(), code.size(), {first, first + constants.size()}));
}

template <class T>
std::vector<const T*> read_arrays(const py::handle& given, const char* name, std::size_t count) {
  const auto list = py::reinterpret_borrow<py::sequence>(given);
  if (list.size() != count)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(count) + " arrays, got " +
                          std::to_string(list.size()));
  std::vector<const T*> found;
  for (const py::handle item : list) {
    if (item.is_none()) {
      found.push_back(nullptr);
      continue;
    }
    const py::array a = checked<T>(py::reinterpret_borrow<py::object>(item), name, "the call");
    require_contiguous(a, name);
    found.push_back(static_cast<const T*>(a.data()));
  }
  return found;
}

void require_size(const py::handle& item, const char* name, int64_t size) {
  if (!item.is_none() && py::reinterpret_borrow<py::array>(item).size() != size)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(size) + " elements, got " +
                          std::to_string(py::reinterpret_borrow<py::array>(item).size()));
}

template <class T>
std::vector<const T*> read_sized(const py::handle& given, const char* name, const std::vector<int64_t>& widths,
                                 int64_t rows) {
  std::vector<const T*> found = read_arrays<T>(given, name, widths.size());
  std::size_t i = 0;
  for (const py::handle item : py::reinterpret_borrow<py::sequence>(given))
    require_size(item, name, rows * widths[i++]);
  return found;
}

// arrays: (shared, rows, states, inputs), a list of flat arrays each.
template <class T>
ProgramCall<T> make_call(const Plan& plan, const ProgramRun& run, const py::tuple& arrays) {
  ProgramCall<T> call{};
  call.plan = &plan;
  call.steps = run.steps;
  call.batch = run.batch;
  call.lengths = run.uneven ? run.lengths.data() : nullptr;
  call.reverse = run.reverse;
  call.seed = run.seed;
  call.row_offset = run.row_offset;
  call.step_offset = run.step_offset;
  call.chunk = run.chunk;
  call.shared = read_sized<T>(arrays[0], "shared", plan.leaves, 1);
  call.rows = read_sized<T>(arrays[1], "rows", plan.rows, run.batch);
  call.states = read_sized<T>(arrays[2], "states", plan.state_widths, run.batch);
  call.inputs = read_sized<T>(arrays[3], "inputs", plan.inputs, run.steps * run.batch);
  return call;
}

// Fresh flat arrays for a call's results: (new states, outputs, row outputs, shared outputs).
template <class T>
py::tuple make_results(ProgramCall<T>& call) {
  const auto make = [](const std::vector<int64_t>& widths, int64_t rows, std::vector<T*>& to) {
    py::list list;
    for (const int64_t width : widths) {
      auto array = empty<T>({rows * width});
      to.push_back(array.mutable_data());
      list.append(array);
    }
    return list;
  };
  const Plan& plan = *call.plan;
  const py::list states = make(plan.state_widths, call.batch, call.new_states);
  const py::list outputs = make(plan.outputs, call.steps * call.batch, call.outputs);
  const py::list rows = make(plan.row_outputs, call.batch, call.row_outputs);
  return py::make_tuple(states, outputs, rows, make(plan.shared_output_widths, 1, call.shared_outputs));
}

template <class F>
auto with_dtype(bool doubles, F f) {
  return doubles ? f(double{}) : f(float{});
}

template <class T>
T* kept_memory(py::object& holder, int64_t size) {
  auto array = empty<T>({size + program_lanes});
  holder = array;
  return array.mutable_data();
}

// A plan with its weights packed. It holds the arrays that it reads; nobody else writes to them.
struct FrozenArrays {
  std::shared_ptr<Plan> plan;
  py::list shared;
  bool doubles;
  std::shared_ptr<FrozenProgram<float>> of_floats;
  std::shared_ptr<FrozenProgram<double>> of_doubles;

  template <class T>
  const FrozenProgram<T>* get() const {
    if constexpr (sizeof(T) == 4)
      return of_floats.get();
    else
      return of_doubles.get();
  }
};

FrozenArrays freeze(std::shared_ptr<Plan> plan, bool doubles, const py::list& shared) {
  const FlushSubnormals flush;
  FrozenArrays frozen{std::move(plan), shared, doubles, nullptr, nullptr};
  if (doubles)
    frozen.of_doubles = freeze_program(*frozen.plan, read_sized<double>(shared, "shared", frozen.plan->leaves, 1));
  else
    frozen.of_floats = freeze_program(*frozen.plan, read_sized<float>(shared, "shared", frozen.plan->leaves, 1));
  return frozen;
}

py::tuple run_forward_program(const Plan& plan, const ProgramRun& run, bool doubles, const py::tuple& arrays, bool keep,
                              const FrozenArrays* frozen) {
  if (frozen && (frozen->plan.get() != &plan || frozen->doubles != doubles || keep))
    throw py::value_error("frozen: expected weights of this plan and dtype, for inference");
  return with_dtype(doubles, [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    ProgramCall<T> call = make_call<T>(plan, run, arrays);
    call.teams = make_teams(plan, run.batch, run.lanes);
    const py::tuple results = make_results(call);
    std::shared_ptr<ProgramKept> kept;
    if (keep) {
      kept = std::make_shared<ProgramKept>();
      const int64_t R = padded_rows(call.teams);
      const int64_t slots = run.checkpoint ? run.steps / run.checkpoint + 1 : run.steps + 1;
      call.checkpoint = run.checkpoint;
      call.kept_states = kept_memory<T>(kept->states, slots * R * plan.state);
      if (!run.checkpoint) call.kept_reserve = kept_memory<T>(kept->reserve, run.steps * R * plan.reserve);
      call.kept_rows = kept_memory<T>(kept->rows, R * plan.row);
      call.kept_shared = kept_memory<T>(kept->shared, plan.shared);
      kept->teams = call.teams;
      kept->checkpoint = run.checkpoint;
    }
    without_gil([&] { run_program(call, frozen ? frozen->get<T>() : nullptr); });
    return py::make_tuple(results[0], results[1], results[2], results[3], kept);
  });
}

template <class T>
T* memory_of(const py::object& holder) {
  return holder ? static_cast<T*>(const_cast<void*>(py::reinterpret_borrow<py::array>(holder).data())) : nullptr;
}

// forward_plan: of the call that kept; with checkpoints the one that writes the reserve.
py::tuple run_backward_program(const Plan& plan, const Plan& forward_plan, const ProgramRun& run, bool doubles,
                               const py::tuple& arrays, const py::tuple& forward_arrays, const ProgramKept& kept) {
  return with_dtype(doubles, [&](auto scalar) -> py::tuple {
    using T = decltype(scalar);
    ProgramCall<T> forward = make_call<T>(forward_plan, run, forward_arrays);
    forward.teams = kept.teams;
    forward.checkpoint = kept.checkpoint;
    forward.kept_states = memory_of<T>(kept.states);
    forward.kept_reserve = memory_of<T>(kept.reserve);
    forward.kept_rows = memory_of<T>(kept.rows);
    forward.kept_shared = memory_of<T>(kept.shared);
    ProgramCall<T> call = make_call<T>(plan, run, arrays);
    call.reverse = !run.reverse;
    call.teams = kept.teams;
    call.kept_shared = forward.kept_shared;
    call.forward = &forward;
    py::tuple results = make_results(call);
    without_gil([&] { run_program<T>(call, nullptr); });
    return results;
  });
}

}  // namespace

void register_program(py::module_& m) {
  using namespace py::literals;
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan").def(py::init(&make_plan), "code"_a, "constants"_a);
  py::class_<ProgramRun>(m, "ProgramRun")
      .def(py::init(&make_run), "steps"_a, "batch"_a, "lengths"_a = py::none(), "reverse"_a = false, "seed"_a = 0,
           "row_offset"_a = 0, "step_offset"_a = 0, "checkpoint"_a = 0, "lanes"_a = 0, "chunk"_a = 0)
      .def_readonly("steps", &ProgramRun::steps)
      .def_readonly("batch", &ProgramRun::batch);
  py::class_<ProgramKept, std::shared_ptr<ProgramKept>>(m, "ProgramKept")
      .def_property_readonly("nbytes", [](const ProgramKept& kept) {
        int64_t bytes = 0;
        for (const py::object* each : {&kept.states, &kept.reserve, &kept.rows, &kept.shared})
          if (*each) bytes += py::reinterpret_borrow<py::array>(*each).nbytes();
        return bytes;
      });
  m.def("program_forward", &run_forward_program, "plan"_a, "run"_a, "doubles"_a, "arrays"_a, "keep"_a,
        "frozen"_a = nullptr);
  py::class_<FrozenArrays>(m, "FrozenProgram").def(py::init(&freeze), "plan"_a, "doubles"_a, "shared"_a);
  m.def("program_backward", &run_backward_program, "plan"_a, "forward_plan"_a, "run"_a, "doubles"_a, "arrays"_a,
        "forward_arrays"_a, "kept"_a);
  m.def("program_block", &total_block, "batch"_a);
  py::dict codes;
#define FUSEDRNN_NAME(name) codes[#name] = int64_t(Elementwise::name);
  FUSEDRNN_ELEMENTWISE(FUSEDRNN_NAME)
#undef FUSEDRNN_NAME
#define FUSEDRNN_NAME(name) codes[#name] = with_scalar + int64_t(WithScalar::name);
  FUSEDRNN_WITH_SCALAR(FUSEDRNN_NAME)
#undef FUSEDRNN_NAME
  m.attr("ELEMENTWISE") = codes;
}

}  // namespace fusedrnn::bindings
