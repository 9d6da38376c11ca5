// The module-level facts: instruction-set levels and their cap, kernel tables, the compiler.
// Nothing per op: tables announce themselves.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/ops.h>

#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "cpu/net/prepared.h"
#include "cpu/isa.h"

namespace py = pybind11;
using pyops::cpu::Isa;
using pyops::cpu::KernelRow;
using pyops::cpu::KernelTable;

namespace {

KernelTable& table_of(const std::string& op) {
  KernelTable* table = KernelTable::find(op.c_str());
  if (table == nullptr) throw py::value_error("no kernel table '" + op + "'");
  return *table;
}

std::vector<std::pair<std::string, bool>> isa_levels() {
  std::vector<std::pair<std::string, bool>> levels;
  for (int i = 0; i < static_cast<int>(Isa::count); ++i) {
    const Isa isa = static_cast<Isa>(i);
    levels.emplace_back(isa_name(isa), (pyops::cpu::isa_detected() & bit(isa)) != 0);
  }
  return levels;
}

void set_isa_cap(const std::string& name) {
  Isa isa;
  if (!pyops::cpu::isa_from_name(name.c_str(), &isa)) {
    throw py::value_error("no instruction-set level '" + name + "'");
  }
  pyops::cpu::set_isa_cap(isa);
}

std::vector<std::string> kernel_tables() {
  std::vector<std::string> names;
  for (const KernelTable* t = KernelTable::first(); t != nullptr; t = t->next()) {
    names.push_back(t->op());
  }
  return names;
}

std::string layout_of(const KernelRow& row) {
  return "n" + std::to_string(row.nr) + "k" + std::to_string(row.kr) + (row.cut ? "cut" : "");
}

using Row = std::tuple<std::string, std::string, std::string, bool, bool, int>;

std::vector<Row> kernels(const std::string& op) {
  const KernelTable& table = table_of(op);
  std::vector<Row> rows;
  for (int i = 0; i < table.count(); ++i) {
    const KernelRow& row = table.row(i);
    rows.emplace_back(row.name, isa_name(row.isa), layout_of(row), table.available(i),
                      row.test_only, row.min_rows);
  }
  return rows;
}

// What runs on a weight packed in `layout` and so many rows; the best where none is packed so.
std::string active_kernel(const std::string& op, const std::string& layout, int64_t rows) {
  const KernelTable& table = table_of(op);
  const KernelRow& best = table.best();
  for (int i = 0; i < table.count(); ++i) {
    const KernelRow& row = table.row(i);
    if (layout_of(row) != layout) continue;
    const KernelRow* taking = table.taking(best, row.nr, row.kr, row.cut, rows);
    return taking ? taking->name : best.name;
  }
  return best.name;
}

std::string forced_kernel(const std::string& op) {
  const KernelRow* row = table_of(op).forced();
  return row ? row->name : "";
}

// An empty name takes the force back.
void force_kernel(const std::string& op, const std::string& name) {
  KernelTable& table = table_of(op);
  if (name.empty()) return table.force(nullptr);
  for (int i = 0; i < table.count(); ++i) {
    if (name != table.row(i).name) continue;
    if (!table.available(i)) throw py::value_error("this CPU cannot run kernel '" + name + "'");
    return table.force(&table.row(i));
  }
  throw py::value_error("no kernel '" + name + "' of " + op);
}

// How many threads torch's pool gives a parallel loop of this module.
int threads_seen() {
  std::set<std::thread::id> seen;
  std::mutex mutex;
  torch::stable::parallel_for(0, 1024, 1, [&](int64_t, int64_t) {
    const std::lock_guard<std::mutex> guard(mutex);
    seen.insert(std::this_thread::get_id());
  });
  return static_cast<int>(seen.size());
}

// The i-th of a list that is known to be as long.
PyObject* at(const py::list& list, Py_ssize_t i) { return PyList_GET_ITEM(list.ptr(), i); }

// Whether dicts[i][names[i]] is values[i] for all i, where `absent` stands for no such name.
bool same_entries(const py::list& dicts, const py::list& names, const py::list& values,
                  const py::object& absent) {
  const auto count = static_cast<Py_ssize_t>(dicts.size());
  if (static_cast<Py_ssize_t>(names.size()) != count ||
      static_cast<Py_ssize_t>(values.size()) != count) {
    throw py::value_error("same_entries: the lists must have one length");
  }
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* dict = at(dicts, i);
    if (!PyDict_Check(dict)) throw py::type_error("same_entries: dicts must hold dicts alone");
    PyObject* found = PyDict_GetItemWithError(dict, at(names, i));
    if (found == nullptr && PyErr_Occurred()) throw py::error_already_set();
    if ((found ? found : absent.ptr()) != at(values, i)) return false;
  }
  return true;
}

bool same_sizes(const py::list& dicts, const py::list& sizes) {
  if (dicts.size() != sizes.size()) {
    throw py::value_error("same_sizes: the lists must have one length");
  }
  const auto count = static_cast<Py_ssize_t>(dicts.size());
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyObject* dict = at(dicts, i);
    if (!PyDict_Check(dict)) throw py::type_error("same_sizes: dicts must hold dicts alone");
    if (PyDict_Size(dict) != PyLong_AsSsize_t(at(sizes, i))) {
      if (PyErr_Occurred()) throw py::error_already_set();
      return false;
    }
  }
  return true;
}

std::string compiler() {
#if defined(__clang__)
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.def("isa_levels", &isa_levels);
  m.def("isa_active", [] { return std::string(isa_name(pyops::cpu::isa_active())); });
  m.def("isa_cap", [] { return std::string(isa_name(pyops::cpu::isa_cap())); });
  m.def("set_isa_cap", &set_isa_cap);
  m.def("kernel_tables", &kernel_tables);
  m.def("kernels", &kernels);
  m.def("active_kernel", &active_kernel);
  m.def("forced_kernel", &forced_kernel);
  m.def("force_kernel", &force_kernel);
  m.def("threads_seen", &threads_seen);
  m.def("same_entries", &same_entries);
  m.def("same_sizes", &same_sizes);
  m.def("compiler", &compiler);
  m.def("forget_prepared_net", &pyops::cpu::forget_prepared_net);
}
