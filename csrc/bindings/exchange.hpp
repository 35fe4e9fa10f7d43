// Arrays of other libraries, read in place: whatever exports its memory through DLPack or the buffer protocol.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

namespace fusedrnn::bindings {

namespace py = pybind11;

// DLPack's binary interface, as far as it is read here: https://dmlc.github.io/dlpack/latest/c_api.html
namespace dlpack {

struct Tensor {
  void* data;
  int32_t device, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;  // in elements; no strides: C-contiguous
  uint64_t byte_offset;
};

struct Managed {  // before version 1
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
  static constexpr const char *name = "dltensor", *used = "used_dltensor";
  // Nobody can say whether such an array may be written to, so it may not.
  bool read_only() const { return true; }
};

struct Versioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(Versioned*);
  uint64_t flags;
  Tensor tensor;
  static constexpr const char *name = "dltensor_versioned", *used = "used_dltensor_versioned";
  bool read_only() const { return flags & 1; }
};

// NumPy has no bfloat16: two bytes with a field of that name.
inline py::dtype bfloat16() {
  py::list names, formats, offsets;
  names.append("bfloat16");
  formats.append("u2");
  offsets.append(0);
  return py::dtype(names, formats, offsets, 2);
}

inline py::dtype dtype_of(const Tensor& t) {
  constexpr const char* kinds = "iuf-Vcb";
  if (t.code == 2 && t.bits == 32 && t.lanes == 1) return py::dtype::of<float>();
  if (t.code == 2 && t.bits == 64 && t.lanes == 1) return py::dtype::of<double>();
  if (t.code == 4 && t.bits == 16 && t.lanes == 1) return bfloat16();
  if (t.code > 6 || kinds[t.code] == '-' || kinds[t.code] == 'V' || t.bits % 8 || t.lanes != 1)
    throw py::type_error("its elements have DLPack's type code " + std::to_string(t.code) + ", bits " +
                         std::to_string(t.bits) + " and lanes " + std::to_string(t.lanes));
  return py::dtype(kinds[t.code] + std::to_string(t.bits / 8));
}

template <class M>
py::array taken(const py::object& capsule) {
  auto* const managed = static_cast<M*>(PyCapsule_GetPointer(capsule.ptr(), M::name));
  if (!managed) throw py::error_already_set();
  const Tensor& t = managed->tensor;
  const py::dtype dtype = dtype_of(t);
  std::vector<py::ssize_t> shape(t.shape, t.shape + t.ndim), strides;
  if (t.strides)
    for (int32_t i = 0; i < t.ndim; ++i) strides.push_back(t.strides[i] * dtype.itemsize());
  if (PyCapsule_SetName(capsule.ptr(), M::used)) throw py::error_already_set();
  const py::capsule owner(managed, [](void* p) {
    auto* const m = static_cast<M*>(p);
    if (m->deleter) m->deleter(m);
  });
  const void* const data = t.data ? static_cast<const char*>(t.data) + t.byte_offset : nullptr;
  py::array array(dtype, shape, strides, data, owner);
  if (managed->read_only()) py::detail::array_proxy(array.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return array;
}

inline py::array read(const py::handle object) {
  constexpr int cpu = 1, cuda_host = 3, rocm_host = 11;
  const int device = object.attr("__dlpack_device__")().cast<py::tuple>()[0].cast<int>();
  if (device != cpu && device != cuda_host && device != rocm_host)
    throw py::type_error("it lies on another device (DLPack's device type " + std::to_string(device) +
                         "); copy it to the CPU");
  const py::object dlpack = object.attr("__dlpack__");
  py::object capsule;
  try {
    capsule = dlpack(py::arg("max_version") = py::make_tuple(1, 0));
  } catch (const py::error_already_set& e) {  // a library from before version 1
    if (!e.matches(PyExc_TypeError)) throw;
    capsule = dlpack();
  }
  return PyCapsule_IsValid(capsule.ptr(), Versioned::name) ? taken<Versioned>(capsule) : taken<Managed>(capsule);
}

// Functions that a library offers beside its type of arrays since version 1.3, in a tenth of the time.
struct Exchange {
  uint32_t major, minor;
  const Exchange* older;
  void *allocate, *take, *give;
  int (*view)(void* object, Tensor* out);  // what `out` points to lives as long as the object
  void* stream;
  static constexpr const char *attribute = "__dlpack_c_exchange_api__", *name = "dlpack_exchange_api";
};

// Of a type; a call has many arrays of one or two types. Threads may come here at once where Python has no lock, so a
// place is claimed first and shown to readers when it is full.
inline const Exchange& exchange_of(PyTypeObject* const type) {
  struct Known {
    std::atomic<bool> claimed{false};
    std::atomic<PyTypeObject*> type{nullptr};
    const Exchange* api = nullptr;
  };
  static Known known[2];
  for (const Known& k : known)
    if (k.type.load(std::memory_order_acquire) == type) return *k.api;
  const py::handle handle(reinterpret_cast<PyObject*>(type));
  const py::object capsule = handle.attr(Exchange::attribute);
  auto* api = static_cast<const Exchange*>(PyCapsule_GetPointer(capsule.ptr(), Exchange::name));
  if (!api) throw py::error_already_set();
  while (api && api->major > 1) api = api->older;
  if (!api || !api->view) throw py::type_error("its library's exchange of arrays is of another version");
  for (Known& k : known)
    if (!k.claimed.exchange(true)) {
      Py_INCREF(type);
      k.api = api;
      k.type.store(type, std::memory_order_release);
      break;
    }
  return *api;
}

// A NumPy array on the memory of an object whose type has an Exchange, C-contiguous; a copy only if it is not. Whether
// the object belongs to a graph of gradients is not looked at.
inline py::array viewed(const py::handle object) {
  Tensor t;
  if (exchange_of(Py_TYPE(object.ptr())).view(object.ptr(), &t)) throw py::error_already_set();
  if (t.device != 1) throw py::type_error("it does not lie in the CPU's memory");
  const py::dtype dtype = dtype_of(t);
  constexpr int32_t most = 8;
  if (t.ndim > most) throw py::value_error("expected at most 8 dimensions");
  Py_intptr_t strides[most];
  Py_intptr_t step = dtype.itemsize();
  for (int32_t i = t.ndim - 1; i >= 0; step *= t.shape[i--])
    strides[i] = t.strides ? Py_intptr_t(t.strides[i]) * dtype.itemsize() : step;
  if (!t.data && step)
    throw py::value_error("expected a tensor with memory; that of one of these was freed, as by untyped_storage()");
  static_assert(sizeof(Py_intptr_t) == sizeof(int64_t));
  auto& api = py::detail::npy_api::get();
  py::object array = py::reinterpret_steal<py::object>(api.PyArray_NewFromDescr_(
      api.PyArray_Type_, py::object(dtype).release().ptr(), t.ndim, reinterpret_cast<Py_intptr_t*>(t.shape), strides,
      t.data ? static_cast<char*>(t.data) + t.byte_offset : nullptr, py::detail::npy_api::NPY_ARRAY_WRITEABLE_,
      nullptr));
  if (!array) throw py::error_already_set();
  if (t.data) api.PyArray_SetBaseObject_(array.ptr(), object.inc_ref().ptr());
  auto result = py::reinterpret_steal<py::array>(array.release());
  if (!(result.flags() & py::array::c_style)) return py::array::ensure(result, py::array::c_style);
  return result;
}

}  // namespace dlpack

// Of ml_dtypes, or as dlpack::read leaves it.
inline bool is_bfloat16(const py::array& a) {
  const py::dtype dtype = a.dtype();
  if (dtype.itemsize() != 2 || dtype.kind() != 'V') return false;
  return dtype.attr("name").cast<std::string>() == "bfloat16" ||
         py::object(dtype.attr("names")).equal(py::make_tuple("bfloat16"));
}

inline bool exports_memory(const py::handle object) {
  return py::hasattr(object, "__dlpack__") || PyObject_CheckBuffer(object.ptr());
}

// A NumPy array on the memory of another library's. Throws whatever that library raises, or a TypeError.
inline py::array exported(const py::handle object) {
  if (py::hasattr(object, "__dlpack__")) return dlpack::read(object);
  return py::module_::import("numpy").attr("asarray")(py::memoryview(py::reinterpret_borrow<py::object>(object)));
}

// NumPy's type of arrays, known from the import of this module on. A static within a function would be filled at the
// first call, while the import of NumPy's interface gives up Python's lock: with two such calls at once, one has the
// lock and waits for the static, the other has the static and waits for the lock.
inline const PyTypeObject* array_type = nullptr;
inline void learn_array_type() { array_type = py::detail::npy_api::get().PyArray_Type_; }

// An argument of a call that may be an array. What exports its memory has become a NumPy array, which lives as long as
// the call; all else is what was given, for the checks to refuse by its name.
class Argument : public py::object {
 public:
  using py::object::object;

  // For arrays and None this must take no time: there are up to twenty a call.
  static Argument of(const py::handle given) {
    return Py_TYPE(given.ptr()) == array_type || given.is_none() ? Argument(given, borrowed_t{}) : of_other(given);
  }

 private:
  static Argument of_other(const py::handle given) {
    if (!py::isinstance<py::array>(given) && exports_memory(given)) try {
        return Argument(exported(given).release(), stolen_t{});
      } catch (const std::exception&) {  // as_array meets it again, and knows the argument's name
      }
    return Argument(given, borrowed_t{});
  }
};

}  // namespace fusedrnn::bindings

namespace pybind11::detail {

template <>
struct type_caster<fusedrnn::bindings::Argument> {
  PYBIND11_TYPE_CASTER(fusedrnn::bindings::Argument, const_name("object"));
  bool load(handle given, bool) {
    value = fusedrnn::bindings::Argument::of(given);
    return true;
  }
};

}  // namespace pybind11::detail
