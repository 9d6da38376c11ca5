// What int8_rows is asked to do, checked before a pointer is touched, and laid out in scratch.
#include "cpu/int8_gemm/rows.h"

namespace pyops::cpu {
namespace {

// Reads one call: the integers, and the tensors in the order in which the steps take them.
struct Reader {
  const char* op;
  const std::vector<Tensor>& tensors;
  const Tensor& like;  // every register has its leading dimensions
  Dtype out_type;
  size_t taken = 0;
  RowProgram program = {};

  void input(size_t i, const Tensor& given);
  void step(const int64_t* ints, double eps);
  void linear(RowStep* step, const int64_t* ints);
  void norm(RowStep* step, const int64_t* ints, double eps);
  int source(int64_t value, bool may_lack) const;
  int operand(const char* name, int64_t value, int64_t width) const;
  const Tensor& next();
  void output(int64_t value);
};

void Reader::input(size_t i, const Tensor& given) {
  checks::cpu_tensor(op, "inputs", given);
  const Dtype type = checks::float_dtype(op, "inputs", given);
  checks::at_least_1d(op, "inputs", given);
  bool same = given.dim() == like.dim();
  for (int64_t d = 0; same && d + 1 < like.dim(); ++d) same = given.size(d) == like.size(d);
  STD_TORCH_CHECK(same, op, ": inputs[", i, "] must have the leading dimensions of inputs[0]");
  program.kept.push_back(dense(given));
  const Tensor& x = program.kept.back();
  // Inputs are read alone; one pointer type serves them and the outputs.
  char* data = static_cast<char*>(const_cast<void*>(x.const_data_ptr()));
  program.values.push_back({x.size(x.dim() - 1), type, data, -1, -1});
}

int Reader::source(int64_t value, bool may_lack) const {
  const int64_t count = static_cast<int64_t>(program.values.size());
  STD_TORCH_CHECK(value >= (may_lack ? -1 : 0) && value < count, op, ": step ",
                  program.steps.size(), " reads register ", value, ", but there are ", count);
  return static_cast<int>(value);
}

int Reader::operand(const char* name, int64_t value, int64_t width) const {
  const int at = source(value, true);
  STD_TORCH_CHECK(at < 0 || program.values[at].width == width, op, ": step ", program.steps.size(),
                  ": ", name, " must have ", width, " columns");
  return at;
}

const Tensor& Reader::next() {
  STD_TORCH_CHECK(taken < tensors.size(), op, ": the steps take more than the ", tensors.size(),
                  " tensors that are given");
  return tensors[taken++];
}

void Reader::linear(RowStep* step, const int64_t* ints) {
  const Tensor& packed = next();
  const Tensor& scale_w = next();
  const OptionalTensor bias = ints[5] ? OptionalTensor(next()) : OptionalTensor();
  STD_TORCH_CHECK(scale_w.dim() == 1, op, ": scale_w must be 1-D [N], but is ", scale_w.dim(),
                  "-D");
  const int64_t n = scale_w.size(0);
  const PackedHeader& header = checks::packed(op, packed, n, program.values[step->x].width);
  step->kernel = &kernel_for(op, header, program.m);
  checks::channels(op, "scale_w", scale_w, n);
  checks::channels(op, "bias", bias, n);
  checks::code(op, "activation", ints[4], 5);
  step->residual = operand("residual", ints[2], n);
  step->gate = operand("gate", ints[3], n);

  Epilogue e = {};
  e.w_sum = packed_sums(packed.const_data_ptr());
  program.kept.push_back(dense(scale_w));
  e.scale_w = static_cast<const float*>(program.kept.back().const_data_ptr());
  if (bias.has_value()) {
    program.kept.push_back(dense(*bias));
    e.bias = static_cast<const float*>(program.kept.back().const_data_ptr());
  }
  e.activation = static_cast<Activation>(ints[4]);
  e.out_type = out_type;
  e.ld = n;
  step->weight = {packed.const_data_ptr(), n, 0, e};
  program.values.push_back({n, out_type, nullptr, -1, -1});
}

void Reader::norm(RowStep* step, const int64_t* ints, double eps) {
  const int64_t n = program.values[step->x].width;
  NormRow row = {};
  row.n = n;
  row.centered = ints[0] == 1;
  row.eps = static_cast<float>(eps);
  row.y_type = out_type;
  for (int bit = 1; bit <= 2; bit *= 2) {
    if (!(ints[5] & bit)) continue;
    const char* name = bit == 1 ? "weight" : "bias";
    const Tensor& given = next();
    checks::cpu_tensor(op, name, given);
    const Dtype type = checks::float_dtype(op, name, given);
    STD_TORCH_CHECK(given.dim() == 1 && given.size(0) == n, op, ": ", name, " must be [", n, "]");
    program.kept.push_back(dense(given));
    (bit == 1 ? row.weight : row.bias) = program.kept.back().const_data_ptr();
    (bit == 1 ? row.weight_type : row.bias_type) = type;
  }
  step->norm = row;
  program.values.push_back({n, out_type, nullptr, -1, -1});
}

void Reader::step(const int64_t* ints, double eps) {
  RowStep step = {};
  const size_t number = program.steps.size();
  checks::code(op, "step", ints[0], 3);
  step.linear = ints[0] == 0;
  STD_TORCH_CHECK(ints[5] >= 0 && ints[5] < (step.linear ? 2 : 4), op, ": step ", number,
                  " is given code ", ints[5], ", which is unknown");
  STD_TORCH_CHECK(step.linear || (ints[2] == -1 && ints[3] == -1 && ints[4] == 0), op, ": step ",
                  number, " is a norm, which takes no residual, gate or activation");
  step.x = source(ints[1], false);
  step.y = static_cast<int>(program.values.size());
  step.residual = step.gate = step.codes = -1;
  if (step.linear) {
    linear(&step, ints);
  } else {
    norm(&step, ints, eps);
  }
  program.steps.push_back(step);
}

void Reader::output(int64_t value) {
  const int64_t inputs = static_cast<int64_t>(program.values.size() - program.steps.size());
  const int64_t count = static_cast<int64_t>(program.values.size());
  STD_TORCH_CHECK(value >= inputs && value < count && program.values[value].data == nullptr, op,
                  ": output register ", value, " must be one that a step makes, named once");
  program.outputs.push_back(
      output_like(like, program.values[value].width, static_cast<int64_t>(out_type)));
  // An empty tensor may have no memory, and needs another pointer than scratch all the same.
  static char nothing;
  void* data = program.outputs.back().mutable_data_ptr();
  program.values[value].data = data == nullptr ? &nothing : static_cast<char*>(data);
}

// Pieces of scratch, in bytes per row, each used by one register or its codes after another.
struct Slots {
  struct Slot {
    int64_t bytes, offset;
    int last;
  };
  std::vector<Slot> slots;
  int64_t total = 0;

  // For what is written by step `first` at the earliest, and read by `last` at the latest.
  int64_t take(int64_t bytes, int first, int last) {
    Slot* best = nullptr;
    for (Slot& slot : slots) {
      const bool fits = slot.last < first && slot.bytes >= bytes;
      if (fits && (best == nullptr || slot.bytes < best->bytes)) best = &slot;
    }
    if (best == nullptr) {
      slots.push_back({bytes, total, last});
      total += bytes;
      return slots.back().offset;
    }
    best->last = last;
    return best->offset;
  }
};

// The entry for what this step multiplies; a new one where no step before it reads the same.
int codes_for(RowProgram* program, const RowStep& step, int number, int made_by) {
  const bool by_norm = made_by >= 0 && !program->steps[made_by].linear;
  for (size_t i = 0; i < program->codes.size(); ++i) {
    RowCodes& one = program->codes[i];
    if (one.value != step.x || one.kernel != step.kernel) continue;
    one.last = number;
    return static_cast<int>(i);
  }
  program->codes.push_back({step.x, step.kernel, 0, by_norm ? made_by : number, number});
  return static_cast<int>(program->codes.size() - 1);
}

}  // namespace

int64_t RowProgram::products() const {
  int64_t sum = 0;
  for (const RowStep& step : steps) {
    if (step.linear) sum += step.weight.n * values[step.x].width;
  }
  return sum;
}

RowProgram read_rows(const char* op, const std::vector<Tensor>& inputs,
                     const std::vector<Tensor>& tensors, const std::vector<int64_t>& steps,
                     const std::vector<double>& eps, const std::vector<int64_t>& outputs,
                     int64_t out_dtype) {
  STD_TORCH_CHECK(!inputs.empty(), op, ": inputs must hold at least 1 tensor, but is empty");
  STD_TORCH_CHECK(!steps.empty() && steps.size() % kStepInts == 0, op, ": steps must be ",
                  kStepInts, " integers for each step, but are ", steps.size());
  STD_TORCH_CHECK(eps.size() == steps.size() / kStepInts, op, ": eps has ", eps.size(),
                  " entries for ", steps.size() / kStepInts, " steps");
  STD_TORCH_CHECK(!outputs.empty(), op, ": outputs must name at least 1 register, but is empty");
  checks::code(op, "out_dtype", out_dtype, 3);
  Reader reader = {op, tensors, inputs[0], static_cast<Dtype>(out_dtype)};
  reader.program.kept.reserve(inputs.size() + tensors.size());
  for (size_t i = 0; i < inputs.size(); ++i) reader.input(i, inputs[i]);
  reader.program.m = checks::rows_of(inputs[0]);
  reader.program.norm_row = active_kernel().norm_row;
  for (size_t i = 0; i < eps.size(); ++i) reader.step(&steps[i * kStepInts], eps[i]);
  STD_TORCH_CHECK(reader.taken == tensors.size(), op, ": the steps take ", reader.taken,
                  " tensors, but ", tensors.size(), " are given");
  for (const int64_t value : outputs) reader.output(value);
  return std::move(reader.program);
}

void lay_out(RowProgram* program, bool keep) {
  const int inputs = static_cast<int>(program->values.size() - program->steps.size());
  const int count = static_cast<int>(program->steps.size());
  for (int i = 0; i < count; ++i) {
    RowStep& step = program->steps[i];
    const int made_by = step.x - inputs;
    if (step.linear && !keep) step.codes = codes_for(program, step, i, made_by);
    // What a norm makes is quantized there and then: a linear layer reads only its codes.
    const bool rows = keep || !step.linear || made_by < 0 || program->steps[made_by].linear;
    if (rows) program->values[step.x].last = i;
    if (step.residual >= 0) program->values[step.residual].last = i;
    if (step.gate >= 0) program->values[step.gate].last = i;
  }
  Slots slots;
  for (int i = 0; i < count; ++i) {
    for (RowCodes& codes : program->codes) {
      if (codes.first != i) continue;
      const int64_t depth = round_up(program->values[codes.value].width, kDepthStep);
      codes.offset = slots.take(depth * code_bytes(codes.kernel->codes), i, codes.last);
    }
    const RowStep& step = program->steps[i];
    RowValue& made = program->values[step.y];
    if (made.data != nullptr || (!keep && made.last < 0 && !step.linear)) continue;
    // A norm may write over the rows that it reads: one at a time, from end to end.
    const int first = step.linear ? i : i + 1;
    made.offset = slots.take(round_up(made.row_bytes(), 64), first, made.last < 0 ? i : made.last);
  }
  program->scratch_bytes = slots.total;
}

}  // namespace pyops::cpu
